"""Aerial photographs to maps and back, without pairs: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/maps_unpaired.py --workdir runs/maps_unpaired

Data: 1,096 + 1,096 training and 1,098 + 1,098 test images (1.5 GB, downloaded by TensorFlow Datasets). Hardware: a GPU
with 12 GB. Time: 200 epochs of the longer side are 219,200 steps, about 11 h at 5.3 images/s (a published V100's
speed). Expect streets in place but fewer correct labels than pix2pix (configs/maps.py); no full-reference score is
published.

The paper leaves the identity loss out here; the PyTorch release has it on: ``--config.loss.lambda_identity=0.5``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 219_200  # 200 epochs
    config.data.source = "cycle_gan/maps"
    return config
