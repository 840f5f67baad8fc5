"""Super-resolution: photographs enlarged four times, with detail that bicubic enlargement does not have.

    python -m p2p_jax.main --config configs/super_resolution.py --workdir runs/super_resolution --config.data.dir=FOLDER

Data: your photographs, larger than 256 pixels, in FOLDER/train and FOLDER/val. Crops at their own size are reduced and
enlarged again. ``translate --no_task --size x4`` then enlarges other photographs. Hardware: a GPU with 6 GB.
Time: 80,000 steps of 4 images are 8 h at 11 images/s. Expected: compare PSNR and SSIM with those of the input itself;
the adversarial loss lowers them for more sharpness (``--config.loss.lambda_gan=0.`` does not).
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.batch_size = 4
    config.data.update(source="photos", preprocess="crop")
    config.task.update(factor=4, input="p2p_jax.images.tasks:low_resolution")
    return config
