"""Apples to oranges and back: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/apple2orange.py --workdir runs/apple2orange

Data: 995 + 1,019 training and 266 + 248 test images (78 MB, downloaded by TensorFlow Datasets). Hardware: a GPU
with 12 GB. Time: 200 epochs of the longer side are 203,800 steps, about 11 h at 5.3 images/s (a published V100's
speed). Expect the colour to change on most fruit; no score is published.

The paper leaves the identity loss out here; the PyTorch release has it on: ``--config.loss.lambda_identity=0.5``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 203_800  # 200 epochs
    config.data.source = "cycle_gan/apple2orange"
    return config
