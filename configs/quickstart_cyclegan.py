"""Quickstart without pairs: toy facades by day to toy facades at night and back, 64x64, with nothing to download.

    python -m p2p_jax.main --config configs/quickstart_cyclegan.py --workdir runs/quickstart_cyclegan

Hardware: any CPU. Time: 3 to 4 minutes on 2 cores. Expect lit windows in a dark wall one way, and daylight, blurred and
a little checkered, the other; a cycle error of about 0.06 in validation. To be quick: three residual blocks at three
eighths of the published width, a smaller patch, no jitter. All else is as published.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 1_500
    config.log_every = 50
    config.sample_every = 500
    config.eval_every = 500
    config.checkpoint_every = 500
    config.data.update(source="toy_unpaired", load_size=64, crop_size=64)
    config.generator.update(base_width=24, num_blocks=3)
    config.discriminator.update(base_width=32, receptive_field=34)
    config.schedule.update(unit="steps", constant_for=1_000, decay_over=500)
    return config
