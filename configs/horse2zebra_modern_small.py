"""horse2zebra_modern at 64x64 with fewer channels and blocks, for a CPU.

    python -m p2p_jax.main --config configs/horse2zebra_modern_small.py --workdir runs/horse2zebra_modern_small

Data: as configs/horse2zebra.py (117 MB, downloaded by TensorFlow Datasets). Hardware: any CPU. Time: 8 minutes on one
core. Expect coats that lose their brown, in pictures without a grid: zebras take far longer.
"""

from ml_collections import ConfigDict

import p2p_jax


def get_config() -> ConfigDict:
    """Return what differs from the recipe at 256x256."""
    config = p2p_jax.load_config("horse2zebra_modern")
    config.num_steps = 2_300
    config.data.update(load_size=64, crop_size=64)
    config.generator.update(base_width=20, num_blocks=3)
    config.discriminator.update(base_width=32, receptive_field=34)
    config.schedule.update(unit="auto", constant_for=1_000, decay_over=500)
    return config
