"""The contract of the seam as checks that any objective can be put through, ours and yours, and a step by hand.

Call ``check_objective(make(config), config)`` in a test of yours. What devices must agree on shows where there are two
or more; ``XLA_FLAGS=--xla_force_host_platform_device_count=2``, set before JAX starts, makes two of a CPU.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import image_shapes
from p2p_jax.objectives import Objective
from p2p_jax.training import parallel


def check_objective(objective: Objective, config: ConfigDict, *, run: bool = True) -> None:
    """Assert what ``Objective`` promises, on noise, over all devices of this host.

    Args:
      objective: the objective under test, made from `config`.
      config: a complete config; its ``batch_size`` is a multiple of the devices and at least 2.
      run: False only traces, which takes a second and compiles nothing: structures, shapes and dtypes are checked, and
        no number.

    Raises:
      AssertionError: a promise is broken; says which.
      InputError: a network of the config does not return what it must; names it.
    """
    noise = np.random.RandomState(0)
    batch = {
        name: noise.uniform(-1, 1, (config.batch_size, *shape)).astype(np.float32)
        for name, shape in image_shapes(config.data).items()
    }
    rng, update = jax.random.key(0), parallel.pmap_update(objective.update)
    _check_shapes(objective, update, batch, rng)
    if not run:
        return
    # TPUs and some GPUs round otherwise, and batches of other sizes differently.
    with jax.default_matmul_precision("highest"):
        state = jax.device_get(jax.jit(objective.init)(rng, batch))  # on the host, where no step takes its memory
        again = jax.jit(objective.init)(rng, {name: 0 * image[:1] for name, image in batch.items()})
        _assert_same(state, again, "init depends on more than the rng and the shapes of one image")
        _check_update(update, state, batch, rng)
        _check_translate(objective, state, batch, rng)
        metrics = jax.jit(objective.evaluate)(state, batch, rng)[0]
        for name, values in metrics.items():
            assert jnp.isfinite(values).all(), f"{name} is not finite"


def one_step(
    objective: Objective, state: Any, batch: Mapping[str, Any], rng: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """Return the state after a step and its metrics, as training on one device has them; it is compiled once.

    Args:
      objective: its `update` is called.
      state: from ``objective.init(rng, batch)``, or of a run; it is not changed.
      batch: {"real_a", "real_b"}, [B, H, W, C] float32 in [-1, 1].
      rng: of the run, ``jax.random.key(config.seed)``; the step's own is made of it and of ``state["step"]``.
    """
    given = jax.device_get(dict(state)), {name: np.asarray(images) for name, images in batch.items()}
    update: Any = objective.update
    new, metrics, _ = _on_one_device(update)(*given, rng)
    return new, metrics


@functools.lru_cache(maxsize=1)
def _on_one_device(update):
    return parallel.shard_map_update(update, jax.local_devices()[:1])


def _check_shapes(objective, update, batch, rng):
    count, one = len(batch["real_a"]), {name: image[:1] for name, image in batch.items()}
    state = jax.eval_shape(objective.init, rng, batch)
    same = _described(state) == _described(jax.eval_shape(objective.init, rng, one))
    assert same, "init depends on more than the rng and the shapes of one image"

    new, metrics, _ = jax.eval_shape(update.run, state, update.place(batch), rng)
    assert _described(new) == _described(state), "update changes the structure, a shape or a dtype of the state"
    assert all(value.shape == () for value in metrics.values()), "metrics must be scalars"

    fakes = jax.eval_shape(objective.translate, state, batch, rng)
    assert fakes, "translate returned no images"
    for name, images in fakes.items():
        assert images.shape[0] == count, f"{name} has another batch size"

    metrics, columns = jax.eval_shape(objective.evaluate, state, batch, rng)
    for name, values in metrics.items():
        assert values.shape == (count,), f"evaluate must give one {name} per image"
    assert columns, "evaluate returned no images"
    assert all(image.shape[0] == count for image in columns.values()), "a column of the grid has another batch size"


def _check_update(update, state, batch, rng):
    assert int(state["step"]) == 0, "init must start at step 0"
    new, metrics, finite = update(state, batch, rng)
    _assert_replicated(new)
    new, metrics, finite = jax.device_get((new, metrics, finite))
    assert int(new["step"]) == 1, "update must add 1 to the step"
    assert bool(finite), f"metrics are not finite: {metrics}"
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state, new)), strict=True)]
    assert sum(moved) > 1, "update changes nothing but the step"
    repeated, _, _ = update(state, batch, rng)
    _assert_same(new, repeated, "update depends on more than state, batch and rng")


def _assert_replicated(state):
    """Every device must come to the same state, or the replicas drift apart silently."""
    for leaf in jax.tree.leaves(state):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        for other in others:
            assert np.array_equal(first, other), "the devices' states differ after an update: something is not averaged"


def _check_translate(objective, state, batch, rng):
    translate = jax.jit(objective.translate)
    fakes = translate(state, batch, rng)
    alone = translate(state, {name: image[:1] for name, image in batch.items()}, rng)
    for name, images in fakes.items():
        assert jnp.abs(images).max() <= 1, f"{name} leaves [-1, 1]"
        close = np.allclose(images[:1], alone[name], atol=1e-5)
        assert close, f"{name} of an image depends on the other images of the batch"


def _described(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves]


def _assert_same(a, b, message):
    same = jax.tree.map(lambda x, y: np.array_equal(x, y), jax.device_get(a), jax.device_get(b))
    assert all(jax.tree.leaves(same)), message
