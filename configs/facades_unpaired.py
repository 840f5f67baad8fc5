"""Facade photographs to label maps and back, without pairs: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/facades_unpaired.py --workdir runs/facades_unpaired

Data: 400 + 400 training and 106 + 106 test images (35 MB, downloaded by TensorFlow Datasets). Hardware: a GPU with
12 GB. Time: 200 epochs of the longer side are 80,000 steps, about 4 h at 5.3 images/s (a published V100's speed).
Expect weaker results than pix2pix on the same images with their pairs (configs/facades.py); no score is published.

The paper leaves the identity loss out here; the PyTorch release has it on: ``--config.loss.lambda_identity=0.5``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.data.source = "cycle_gan/facades"
    return config
