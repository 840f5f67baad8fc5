"""Ukiyo-e prints to photographs and back: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/ukiyoe2photo.py --workdir runs/ukiyoe2photo

Data: 562 + 6,287 training and 263 + 751 test images (293 MB, downloaded by TensorFlow Datasets). Hardware: a GPU
with 12 GB. Time: 200 epochs of the longer side are 1,257,400 steps, about 66 h at 5.3 images/s (a published V100's
speed). Expect flat colours and outlines on photographs; no score is published.

The identity loss is on, as in the paper for paintings and flowers.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 1_257_400  # 200 epochs
    config.data.source = "cycle_gan/ukiyoe2photo"
    config.loss.lambda_identity = 0.5
    return config
