"""Night to day (``--config.data.direction=BtoA`` for the paper's day to night).

    python -m p2p_jax.main --config configs/night2day.py --workdir runs/night2day

Data: about 20k pairs (1.9 GB, downloaded; night left, day right), batch 4. Hardware: a GPU with 8 GB. Time: 17 epochs
are about 75,000 steps, 7.5 h at 11 images/s. Expected: no score is published; the paper's figures show samples.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.num_steps = 75_000  # about 17 epochs
    config.batch_size = 4
    config.sample_every = 5_000
    config.eval_every = 5_000
    config.checkpoint_every = 5_000
    config.data.source = "pix2pix/night2day"
    config.schedule.update(constant_for=9, decay_over=8)
    return config
