"""Van Gogh's paintings to photographs and back: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/vangogh2photo.py --workdir runs/vangogh2photo

Data: 400 + 6,287 training and 400 + 751 test images (307 MB, downloaded by TensorFlow Datasets). Hardware: a GPU
with 12 GB. Time: 200 epochs of the longer side are 1,257,400 steps, about 66 h at 5.3 images/s (a published V100's
speed). Expect the painter's palette and strokes on photographs; no score is published.

The identity loss is on, as in the paper for paintings and flowers.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 1_257_400  # 200 epochs
    config.data.source = "cycle_gan/vangogh2photo"
    config.loss.lambda_identity = 0.5
    return config
