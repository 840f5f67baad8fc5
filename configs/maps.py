"""Aerial photographs to maps (``--config.data.direction=BtoA`` for the other way).

    python -m p2p_jax.main --config configs/maps.py --workdir runs/maps

Data: 1096/1098 pairs of 600x600 (246 MB, downloaded; aerial left, map right), resized to 286 and cropped to 256 as in
the PyTorch release. Hardware: any GPU with 4 GB. Time: 200 epochs are 219,200 steps, about 5.5 h at 11 images/s.
Expected: in the paper's perceptual study 6.1 % of the answers on aerial to map were fooled, and 18.9 % on map to
aerial.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.num_steps = 219_200  # 200 epochs
    config.data.source = "pix2pix/maps"
    return config
