"""CUT's and FastCUT's training against PyTorch, in float64: recorded losses, and live where PyTorch is installed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import make_fixtures
import p2p_jax
from p2p_jax.config import complete
from p2p_jax.objectives import DEVICE_AXIS, patch_nce
from support import cut_release
from support.precision import precision

pytestmark = pytest.mark.usefixtures("fast_convolutions")
RUNS = [(variant, optimizer) for variant in cut_release.VARIANTS for optimizer in ("sgd", "adam")]


@functools.cache
def recorded():
    with np.load(make_fixtures.FIXTURES / "cut.npz") as file:
        return dict(file)


@functools.cache
def train_jax(variant, optimizer):
    """Train as ``cut_release.train_torch`` does, and return what it does."""
    with precision("float64"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            patch_nce, "draw_places", lambda _, maps, count: cut_release.places([x.shape[1] * x.shape[2] for x in maps])
        )
        objective = p2p_jax.cut(complete(cut_release.config(variant, optimizer)))
        real_a, real_b = (jnp.asarray(x) for x in cut_release.batch_of_step(0))
        shapes = jax.eval_shape(objective.init, jax.random.key(0), {"real_a": real_a, "real_b": real_b})
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)  # as optimizers begin
        state["params"] = jax.tree.map(jnp.asarray, cut_release.weights())
        assert jax.tree.structure(state) == jax.tree.structure(shapes)
        mesh = Mesh(np.array(jax.devices()[:1]), (DEVICE_AXIS,))
        replicated, split = PartitionSpec(), PartitionSpec(DEVICE_AXIS)
        specs = {"in_specs": (replicated, split, replicated), "out_specs": replicated}
        update = jax.jit(jax.shard_map(objective.update, mesh=mesh, check_vma=False, **specs))
        state, history = jax.device_put(state, NamedSharding(mesh, replicated)), []
        for step in range(cut_release.NUM_STEPS):
            real_a, real_b = (jnp.asarray(x) for x in cut_release.batch_of_step(step))
            state, metrics = update(state, {"real_a": real_a, "real_b": real_b}, cut_release.key_of_step(step))
            history.append(metrics)
        assert metrics["gen/total"].dtype == np.float64
        losses = {name: np.array([float(found[name]) for found in history]) for name in metrics if name != "lr"}
        return losses, {name: flatten_dict(jax.device_get(tree), sep="/") for name, tree in state["params"].items()}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "optimizer"), RUNS)
def test_training_follows_recorded_pytorch(variant, optimizer):
    prefix = f"{variant}/{optimizer}/"
    expected = {key.removeprefix(prefix): found for key, found in recorded().items() if key.startswith(prefix)}
    losses, _ = train_jax(variant, optimizer)
    assert losses.keys() == expected.keys()
    assert len(set(cut_release.flips(cut_release.NUM_STEPS))) == 2  # mirrored and not
    for name, values in expected.items():
        assert values.std() > 1e-3, name  # the players move
        np.testing.assert_allclose(losses[name], values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(("variant", "optimizer"), RUNS)
def test_weights_follow_live_pytorch(variant, optimizer):
    pytest.importorskip("torch")
    losses, expected = cut_release.train_torch(variant, optimizer)
    found, params = train_jax(variant, optimizer)
    for name, values in losses.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10, err_msg=name)
    before = {name: flatten_dict(tree, sep="/") for name, tree in cut_release.weights().items()}
    compared = 0
    for player, tensors in expected.items():
        assert params[player].keys() == tensors.keys()
        for name, values in tensors.items():
            moved = np.abs(values - before[player][name]).max()
            if moved < 1e-8:  # of biases in front of an instance norm gradients are 0 but for rounding
                assert name.endswith("bias")
                continue
            worst = np.abs(params[player][name] - values).max()
            assert worst < 1e-8 * moved, f"{player}/{name}"
            compared += 1
    assert compared > 30
