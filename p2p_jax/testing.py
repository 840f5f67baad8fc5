"""The contract of the seam as checks that any objective can be put through, ours and yours.

Call ``check_objective(make(config), config)`` in a test of yours. What devices must agree on shows where there are two
or more; ``XLA_FLAGS=--xla_force_host_platform_device_count=2``, set before JAX starts, makes two of a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from p2p_jax import parallel
from p2p_jax.objectives import Objective
from p2p_jax.options import image_shapes


def check_objective(objective: Objective, config: ConfigDict) -> None:
    """Assert what ``Objective`` promises, on noise, over all devices of this host.

    Args:
      objective: the objective under test, made from `config`.
      config: a complete config; its ``batch_size`` is a multiple of the devices and at least 2.

    Raises:
      AssertionError: a promise is broken; says which.
    """
    noise = np.random.RandomState(0)
    batch = {
        name: noise.uniform(-1, 1, (config.batch_size, *shape)).astype(np.float32)
        for name, shape in image_shapes(config.data).items()
    }
    rng = jax.random.key(0)
    # TPUs and some GPUs round otherwise, and batches of other sizes differently.
    with jax.default_matmul_precision("highest"):
        state = jax.device_get(jax.jit(objective.init)(rng, batch))  # on the host, where no step takes its memory
        _check_update(objective, state, batch, rng)
        _check_translate(objective, state, batch, rng)
        _check_evaluate(objective, state, batch, rng)


def _check_update(objective, state, batch, rng):
    again = jax.jit(objective.init)(rng, {name: 0 * image[:1] for name, image in batch.items()})
    _assert_same(state, again, "init depends on more than the rng and the shapes of one image")
    assert int(state["step"]) == 0, "init must start at step 0"
    update = parallel.pmap_update(objective.update)
    new, metrics, finite = jax.device_get(update(state, batch, rng))
    repeated, _, _ = jax.device_get(update(jax.jit(objective.init)(rng, batch), batch, rng))
    assert _described(new) == _described(state), "update changes the structure, a shape or a dtype of the state"
    assert int(new["step"]) == 1, "update must add 1 to the step"
    assert bool(finite), f"metrics are not finite: {metrics}"
    assert all(value.shape == () for value in metrics.values()), "metrics must be scalars"
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state, new)), strict=True)]
    assert any(moved), "update changes nothing"
    _assert_same(new, repeated, "update is not a function of state, batch and rng")

    # Every device must come to the same state, or the replicas drift apart silently. Mapped with one output per device.
    axis = parallel.DEVICE_AXIS
    shares = {k: v.reshape(jax.local_device_count(), -1, *v.shape[1:]) for k, v in batch.items()}
    keys = jax.random.split(rng, jax.local_device_count())
    states = jax.pmap(lambda s, b, r: objective.update(s, b, r)[0], axis_name=axis, in_axes=(None, 0, 0))(
        jax.jit(objective.init)(rng, batch), shares, keys
    )
    for leaf in jax.tree.leaves(jax.device_get(states)):
        for other in leaf[1:]:
            assert np.array_equal(leaf[0], other), (
                "the devices' states differ after an update: something is not averaged"
            )


def _check_translate(objective, state, batch, rng):
    translate = jax.jit(objective.translate)
    fakes = translate(state, batch, rng)
    alone = translate(state, {k: v[:1] for k, v in batch.items()}, rng)
    assert fakes, "translate returns no image"
    for name, images in fakes.items():
        assert images.shape[0] == len(batch["real_a"]), f"{name} has another batch size"
        assert jnp.abs(images).max() <= 1, f"{name} leaves [-1, 1]"
        close = np.allclose(images[:1], alone[name], atol=1e-5)
        assert close, f"{name} of an image depends on the other images of the batch"


def _check_evaluate(objective, state, batch, rng):
    metrics, columns = jax.jit(objective.evaluate)(state, batch, rng)
    count = len(batch["real_a"])
    for name, values in metrics.items():
        assert values.shape == (count,), f"evaluate must give one {name} per image"
        assert jnp.isfinite(values).all(), f"{name} is not finite"
    assert columns, "evaluate returns no image"
    assert all(image.shape[0] == count for image in columns.values()), "a column of the grid has another batch size"


def _described(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves]


def _assert_same(a, b, message):
    same = jax.tree.map(lambda x, y: np.array_equal(x, y), jax.device_get(a), jax.device_get(b))
    assert all(jax.tree.leaves(same)), message
