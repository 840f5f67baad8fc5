"""Summer to winter in Yosemite and back: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/summer2winter.py --workdir runs/summer2winter

Data: 1,231 + 962 training and 309 + 238 test images (133 MB, downloaded by TensorFlow Datasets). Hardware: a GPU
with 12 GB. Time: 200 epochs of the longer side are 246,200 steps, about 13 h at 5.3 images/s (a published V100's
speed). Expect snow and bare ground to change places; no score is published.

The paper leaves the identity loss out here; the PyTorch release has it on: ``--config.loss.lambda_identity=0.5``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 246_200  # 200 epochs
    config.data.source = "cycle_gan/summer2winter_yosemite"
    return config
