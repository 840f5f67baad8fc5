"""Quickstart: label maps to toy facades at 64x64, with nothing to download.

    python -m p2p_jax.main --config configs/quickstart.py --workdir runs/quickstart

Hardware: any CPU. Time: under 2 minutes on 2 cores. Expect a validation L1 below 0.05 and outputs that resemble the
targets in the sample grids (runs/quickstart/samples). To be quick: half the published width, a shallower U-Net, a
smaller patch, batches of 4 at twice the learning rate, no jitter. All else is as published. All images are kept in
memory, which needs no TensorFlow; for a large set of your own add ``--config.data.resident=False``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.num_steps = 1_800
    config.batch_size = 4
    config.log_every = 50
    config.sample_every = 600
    config.eval_every = 600
    config.checkpoint_every = 600
    config.data.update(source="toy_facades", direction="BtoA", load_size=64, crop_size=64, resident=True)
    config.generator.update(base_width=32, num_downs=6)
    config.discriminator.update(base_width=32, receptive_field=34)
    config.optimizer.learning_rate = 4e-4
    return config
