"""Flowers by a phone to flowers by a reflex camera: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/iphone2dslr.py --workdir runs/iphone2dslr

Data: 1,812 + 3,325 training and 569 + 480 test images (340 MB, downloaded by TensorFlow Datasets). Hardware: a GPU with
12 GB. Time: 200 epochs of the longer side are 665,000 steps, about 35 h at 5.3 images/s (a published V100's speed).
Expect a shallower depth of field from A to B; no score is published.

The identity loss is on, as in the paper for paintings and flowers.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 665_000  # 200 epochs
    config.data.source = "cycle_gan/iphone2dslr_flower"
    config.loss.lambda_identity = 0.5
    return config
