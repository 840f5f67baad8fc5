"""Denoising: removes Gaussian noise from photographs.

    python -m p2p_jax.main --config configs/denoising.py --workdir runs/denoising --config.data.dir=FOLDER

Data: your photographs, larger than 256 pixels, in FOLDER/train and FOLDER/val. Crops at their own size get noise of a
standard deviation of 25 levels, new at every step. Hardware: a GPU with 6 GB. Time: 80,000 steps of 4 images are 8 h at
11 images/s. Expected: PSNR well above the 20.2 dB that such noise leaves.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.batch_size = 4
    config.data.update(source="photos", preprocess="crop")
    config.task.update(input="p2p_jax.images.tasks:gaussian_noise", sigma=25.0)
    return config
