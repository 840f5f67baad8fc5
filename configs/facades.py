"""CMP facades, label maps to photographs: the first experiment of the pix2pix paper.

    python -m p2p_jax.main --config configs/facades.py --workdir runs/facades

Data: 400/100/106 pairs (31 MB, downloaded; photograph left, labels right). Hardware: any GPU with 4 GB. Time: 200
epochs are 80,000 steps, about 2 h at 11 images/s (the published speed of a Titan X), a day or two on a 2-core CPU.
Expected: no full-reference score is published; other implementations report an FID of 119 to 125 on the 106 test
images.

The learning rate is constant, as in the Lua release. For the PyTorch release's schedule add
``--config.schedule.kind=linear_decay``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.data.update(source="pix2pix/facades", direction="BtoA")
    return config
