"""Aerial photographs to maps by the recipe of configs/facades_modern.py.

    python -m p2p_jax.main --config configs/maps_modern.py --workdir runs/maps_modern

Data: as configs/maps.py. Hardware: a GPU. Time: 2 % more multiply-adds than configs/maps.py. Expected: no checkerboard.
It was found on facades at 64x64 and 128x128 (figures in benchmarks/README.md) and is not measured on maps.
"""

from ml_collections import ConfigDict

import p2p_jax


def get_config() -> ConfigDict:
    """Return what differs from the recipe for facades."""
    config = p2p_jax.load_config("facades_modern")
    config.num_steps = 54_800  # of 4 images: 200 epochs
    config.data.update(source="pix2pix/maps", direction="AtoB")
    return config
