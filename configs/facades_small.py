"""facades at 64x64 with half the width and batches of 4, for a CPU: to compare with facades_modern_small.

    python -m p2p_jax.main --config configs/facades_small.py --workdir runs/facades_small

Data: the facades (31 MB, downloaded). Hardware: any CPU. Time: 5 minutes on one core. Expect a validation L1 of 0.18
and a checkerboard over the pictures, as from all transposed convolutions. Without the published jitter of sizes.
"""

from ml_collections import ConfigDict

import p2p_jax


def get_config() -> ConfigDict:
    """Return what differs from the published recipe at 256x256."""
    config = p2p_jax.load_config("facades")
    config.num_steps = 2_400
    config.batch_size = 4
    config.data.update(load_size=64, crop_size=64)
    config.generator.update(base_width=32, num_downs=6)
    config.discriminator.update(base_width=32, receptive_field=34)
    config.optimizer.learning_rate = 4e-4
    return config
