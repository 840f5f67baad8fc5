"""Colorization: the lightness of a photograph to its colours (pix2pix, section 4; appendix 6.2).

    python -m p2p_jax.main --config configs/colorization.py --workdir runs/colorization --config.data.dir=FOLDER

Data: your photographs, in FOLDER/train and FOLDER/val; the paper used 1.2 million of ImageNet, batch 4, mirrored but
not jittered. They are read as CIE Lab: the network sees L (1 channel) and paints a and b (2 channels), so its colours
never change the lightness. Needs ``pip install -e '.[images]'``. Hardware: a GPU with 6 GB. Time: 80,000 steps of 4
images are 8 h at 11 images/s. Expected: we have no score; in the paper's study people took 22.5 % of the colours for
real.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.batch_size = 4
    config.data.update(source="photos", load_size=256)
    config.data.input.update(kind="lab_l", channels=1)
    config.data.output.update(kind="lab_ab", channels=2)
    return config
