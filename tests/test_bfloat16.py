"""bfloat16 computes, float32 keeps: dtypes of everything a run holds, operands of every product, gradients, results."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from p2p_jax import Translator, train
from p2p_jax.config import resolve
from p2p_jax.nets import MobileResNet, PatchGAN, ResNet, UNet
from p2p_jax.nets.layers import BatchNorm, InstanceNorm
from p2p_jax.training import parallel
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch
from support.runs import memory_data
from support.tracing import equations

CONFIGS = {
    "pix2pix": lambda **changes: small_config(**changes),
    "pix2pix, remat": lambda **changes: small_config(generator__remat=True, **changes),
    "cyclegan": lambda **changes: small_cyclegan_config(**changes),
    "cyclegan, remat": lambda **changes: small_cyclegan_config(generator__remat=True, **changes),
}
PRODUCTS = ("conv_general_dilated", "dot_general")


def start(config):
    """Return objective, state, batch and the compiled step."""
    objective, batch = resolve(config.objective)(config), random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    return objective, state, batch


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_what_a_run_holds_is_float32(name):
    config = CONFIGS[name](dtype="bfloat16")
    objective, state, batch = start(config)
    new, metrics, _ = parallel.pmap_update(objective.update)(state, batch, jax.random.key(1))
    for found in (state, jax.device_get(new)):
        assert dtypes(found["params"]) == {"float32"}
        assert dtypes(found["opt_state"]) == {"float32", "int32"}  # Adam counts its steps
        assert dtypes(found["batch_stats"]) <= {"float32"}
        assert dtypes(found.get("pool", {})) <= {"float32", "bool"}
    assert dtypes(metrics) == {"float32"}
    metrics, shown = jax.eval_shape(objective.evaluate, state, batch, jax.random.key(0))
    assert dtypes(metrics) == dtypes(shown) == {"float32"}


@pytest.mark.slow
@pytest.mark.usefixtures("fast_convolutions")
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_product_of_a_step_takes_bfloat16(name, backend):
    """Forward and in both gradients, on accelerators and in the forms that CPUs take; sums and losses see float32."""
    objective, state, batch = start(CONFIGS[name](dtype="bfloat16"))
    with mock.patch("jax.default_backend", return_value=backend):
        step = jax.make_jaxpr(objective.update, axis_env=[(parallel.DEVICE_AXIS, 1)])(state, batch, jax.random.key(1))
    found = list(equations(step.jaxpr))
    operands = [{x.aval.dtype.name for x in e.invars} for e in found if e.primitive.name in PRODUCTS]
    assert len(operands) > 20
    assert all(names == {"bfloat16"} for names in operands)
    for primitive in ("reduce_sum", "tanh", "log1p", "abs", "rsqrt", "sqrt"):
        assert {e.invars[0].aval.dtype.name for e in found if e.primitive.name == primitive} <= {"float32", "int32"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        UNet(num_downs=4, base_width=8),
        ResNet(num_blocks=2, base_width=8),
        MobileResNet(num_blocks=2, base_width=8),
        PatchGAN(receptive_field=34, base_width=8),
    ],
    ids=["U-Net", "ResNet", "MobileResNet", "PatchGAN"],
)
def test_gradients_are_those_of_float32_but_for_rounding(network):
    x = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (4, 32, 32, 3)), jnp.float32)
    network = network.clone(init_gain=0.1)
    variables = network.init(jax.random.key(0), x, train=False)
    flat, unravel = ravel_pytree(variables["params"])
    more = {} if isinstance(network, PatchGAN) else {"dropout": False}

    def gradient(network):
        def loss(flat):
            y, new = network.apply(
                {**variables, "params": unravel(flat)}, x, train=True, mutable=["batch_stats"], **more
            )
            return jnp.square(y - 0.3).mean(), new

        return jax.jit(jax.grad(loss, has_aux=True))(flat)

    (found, new), (expected, _) = gradient(network.clone(dtype=jnp.bfloat16)), gradient(network)
    assert found.dtype == jnp.float32
    assert dtypes(new) <= {"float32"}
    cosine = float(found @ expected / (jnp.linalg.norm(found) * jnp.linalg.norm(expected)))
    assert cosine > 0.998
    assert float(jnp.linalg.norm(found) / jnp.linalg.norm(expected)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "layer",
    [BatchNorm(use_running_average=False), InstanceNorm(), InstanceNorm(affine=True), InstanceNorm(tracked=True)],
)
def test_norms_compute_in_float32_and_round_once(layer):
    """On bfloat16 maps far from zero, where sums of that dtype would be useless."""
    x = jnp.asarray(np.random.RandomState(0).normal(100, 3, (2, 32, 32, 5)), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    found, new = layer.clone(dtype=jnp.bfloat16).apply(variables, x, mutable=["batch_stats"])
    expected, _ = layer.apply(variables, x.astype(jnp.float32), mutable=["batch_stats"])
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)
    if new:
        np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * x.astype(jnp.float32).mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("layer", [BatchNorm(use_running_average=False), InstanceNorm(), InstanceNorm(affine=True)])
def test_gradients_of_norms_keep_no_float32_map(layer):
    """Kept for the gradient are the bfloat16 map itself and numbers of its channels: all else follows from them."""
    x = jnp.asarray(np.random.RandomState(0).normal(1, 2, (2, 8, 8, 5)), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    exact = jax.grad(lambda x: (layer.apply(variables, x) ** 3).sum())(x.astype(jnp.float32))
    values = x.astype(jnp.float32)

    def closed_form(x):
        axes = (0, 1, 2) if isinstance(layer, BatchNorm) else (1, 2)
        normalised = (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + 1e-5)
        if variables:
            params = variables["params"]
            normalised = normalised * params["scale"].reshape(1, 1, 1, -1) + params["bias"].reshape(1, 1, 1, -1)
        return (normalised**3).sum()

    np.testing.assert_allclose(exact, jax.grad(closed_form)(values), atol=2e-5 * np.abs(exact).max())
    found = jax.grad(lambda x: (layer.clone(dtype=jnp.bfloat16).apply(variables, x).astype(jnp.float32) ** 3).sum())(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.03 * np.abs(exact).max())


@pytest.mark.slow
def test_a_run_translates_and_evaluates(tmp_path):
    config = small_config(dtype="bfloat16", num_steps=2)
    train(config, tmp_path, data=memory_data(config))
    translator = Translator.from_workdir(tmp_path)
    images = random_batch(config)["real_a"]
    found = translator(images)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1
    state = translator.variables if hasattr(translator, "variables") else None
    assert state is None or dtypes(state) == {"float32"}
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(rows) > 2
    assert "nan" not in rows[-1]
