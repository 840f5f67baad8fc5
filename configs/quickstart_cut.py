"""Quickstart of CUT: toy facades by day to toy facades at night, one way, 64x64, with nothing to download.

    python -m p2p_jax.main --config configs/quickstart_cut.py --workdir runs/quickstart_cut

Hardware: any CPU. Time: 4 minutes on 2 cores. Expect toy facades at night with most windows lit, each in its place. To
be quick: three residual blocks at three eighths of the published width, a smaller patch, no jitter. All else is as
published. FastCUT is ``--config.loss.lambda_nce=10. --config.loss.identity=False
--config.loss.flip_equivariance=True``: it becomes night too, but windows stay dark; with a weight of 1 they are lit.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CUT as published."""
    config = published.cut()
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
