"""facades_modern at 64x64 with half the width, for a CPU; to compare with facades_small.

    python -m p2p_jax.main --config configs/facades_modern_small.py --workdir runs/facades_modern_small

Data: the facades (31 MB, downloaded). Hardware: any CPU. Time: 5 minutes on one core. Expect a validation L1 of 0.18
and clearer windows than from facades_small. After so short a training these are not photographs yet.
"""

from ml_collections import ConfigDict

import p2p_jax


def get_config() -> ConfigDict:
    """Return what differs from the recipe at 256x256."""
    config = p2p_jax.load_config("facades_modern")
    config.num_steps = 2_400
    config.data.update(load_size=64, crop_size=64)
    config.generator.update(base_width=24, num_downs=6)
    config.discriminator.update(base_width=32, receptive_field=34)
    return config
