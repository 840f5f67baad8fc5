"""Edges to shoes.

    python -m p2p_jax.main --config configs/edges2shoes.py --workdir runs/edges2shoes

Data: 50k pairs (2.2 GB, downloaded; edges left, photographs right), batch 4, no jitter, as in the paper's appendix
6.2. Hardware: a GPU with 8 GB. Time: 15 epochs are about 187,500 steps, 19 h at 11 images/s. Expected: no score is
published; judge by the sample grids, which the paper's figures show.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.num_steps = 187_500  # 15 epochs
    config.batch_size = 4
    config.sample_every = 5_000
    config.eval_every = 10_000
    config.checkpoint_every = 5_000
    config.data.update(source="pix2pix/edges2shoes", load_size=256, flip=False)
    config.schedule.update(constant_for=8, decay_over=7)
    return config
