"""Inpainting: photographs whose middle is missing (pix2pix, section 4; the holes of Pathak et al. 2016).

    python -m p2p_jax.main --config configs/inpainting.py --workdir runs/inpainting --config.data.dir=FOLDER

Data: your photographs, in FOLDER/train and FOLDER/val; a square of half the side is removed from the middle. The paper
used 14,828 photographs of Paris, batch 4, 25 epochs. Hardware: a GPU with 6 GB. Time: 80,000 steps of 4 images are 8 h
at 11 images/s. Expected: no score is published; judge by the sample grids.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.batch_size = 4
    config.data.source = "photos"
    config.task.update(input="p2p_jax.images.tasks:centre_hole", size=0.5)
    return config
