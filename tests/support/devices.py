"""One step on one device and on two."""

import jax
import numpy as np
import pytest

from p2p_jax.config import resolve
from p2p_jax.training import parallel
from support.images import random_batch


def assert_two_devices_equal_one(config) -> dict:
    """Check that two devices do what one does with the whole batch; return how far each leaf of the parameters moved.

    The config has SGD, as Adam hides scales, and nothing that is drawn device by device.
    """
    objective, batch = resolve(config.objective)(config), random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    one, two = (
        jax.device_get(parallel.pmap_update(objective.update, jax.devices()[:count])(state, batch, jax.random.key(1)))
        for count in (1, 2)
    )
    for name, value in one[1].items():
        assert float(two[1][name]) == pytest.approx(float(value), rel=1e-4), name
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), one[0]["params"], state["params"])
    error = jax.tree.map(lambda a, b: np.abs(a - b).max(), one[0]["params"], two[0]["params"])
    assert max(jax.tree.leaves(error)) < 1e-3 * max(jax.tree.leaves(moved))
    return moved
