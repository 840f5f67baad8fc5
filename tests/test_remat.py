"""Computing activations again for the gradient changes memory alone: not gradients, statistics, noise or names."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import p2p_jax
from p2p_jax.nets import MobileResNet, ResNet, UNet
from p2p_jax.training import parallel
from support.comparers import assert_close_trees
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch
from support.tracing import equations

NETWORKS = {
    "U-Net": UNet(num_downs=3, base_width=4),
    "U-Net, PyTorch dropout, norm of a 2x2 map": UNet(
        num_downs=5, base_width=4, dropout_layout="pytorch", bottleneck_norm=True
    ),
    "encoder-decoder, instance norm, resize": UNet(
        num_downs=3, base_width=4, skips=False, norm="instance", upsampling="resize"
    ),
    "U-Net without norm": UNet(num_downs=3, base_width=4, norm="none", dropout_rate=0.0),
    "ResNet": ResNet(num_blocks=2, base_width=4),
    "MobileResNet": MobileResNet(num_blocks=2, base_width=4, channels="3_4_4_2_4_3"),
    "ResNet with running statistics": ResNet(num_blocks=1, base_width=4, norm="instance_tracked"),
    "ResNet, batch norm, dropout": ResNet(num_blocks=2, base_width=4, norm="batch", dropout_rate=0.5),
}


def images(network, seed=0):
    side = 2 * 2 ** getattr(network, "num_downs", 3)
    return jnp.asarray(np.random.RandomState(seed).uniform(-1, 1, (2, side, side, 3)), jnp.float32)


def loss_of(network, variables, x):
    """Return ``params -> (loss, new statistics)`` in training mode with noise."""

    def loss(params):
        given = {**variables, "params": params}
        y, new = network.apply(given, x, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
        return jnp.square(y - 0.3).mean(), new

    return loss


def count(function, *args, names):
    return sum(equation.primitive.name in names for equation in equations(jax.make_jaxpr(function)(*args).jaxpr))


assert_close = partial(assert_close_trees, of_largest=2e-6, least=1e-6)  # a few roundings of the largest value


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_statistics_noise_and_names_stay(name):
    plain, x = NETWORKS[name], images(NETWORKS[name])
    remat = plain.clone(remat=True)
    variables = plain.init(jax.random.key(0), x, train=False)
    assert_close(remat.init(jax.random.key(0), x, train=False), variables)
    found, expected = (
        jax.jit(jax.value_and_grad(loss_of(network, variables, x), has_aux=True))(variables["params"])
        for network in (remat, plain)
    )
    assert_close(found, expected)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1])) > 1e-4
    if "batch_stats" in variables:
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected[0][1]["batch_stats"], variables["batch_stats"])
        assert min(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["U-Net", "ResNet"])
def test_second_derivatives_stay(name):
    """Hessian times a random vector."""
    plain, x = NETWORKS[name], images(NETWORKS[name])
    variables = plain.init(jax.random.key(0), x, train=False)
    flat, unravel = ravel_pytree(variables["params"])
    direction = jnp.asarray(np.random.RandomState(1).normal(size=flat.shape), flat.dtype)

    def product(network):
        loss = loss_of(network, variables, x)
        gradient = jax.grad(lambda flat: loss(unravel(flat))[0])
        return jax.jit(jax.grad(lambda flat: jnp.vdot(gradient(flat), direction)))(flat)

    found, expected = product(plain.clone(remat=True)), product(plain)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["U-Net", "ResNet"])
def test_every_convolution_is_computed_once_more_at_most(name):
    plain, x = NETWORKS[name], images(NETWORKS[name])
    variables = plain.init(jax.random.key(0), x, train=False)

    def convolutions(network):
        gradient = jax.grad(lambda params: loss_of(network, variables, x)(params)[0])
        with mock.patch("jax.default_backend", return_value="tpu"):  # where a convolution is one operation
            return jax.jit(gradient).lower(variables["params"]).as_text().count("stablehlo.convolution")

    layers = sum(path[-1].key == "kernel" for path, _ in jax.tree.leaves_with_path(variables["params"]))
    assert convolutions(plain) == 3 * layers - 1  # forward and two gradients, but none of the images
    assert 0 < convolutions(plain.clone(remat=True)) - convolutions(plain) <= layers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["U-Net", "ResNet, batch norm, dropout"])
def test_synchronised_batch_norm(name):
    plain = NETWORKS[name].clone(axis_name="data")
    x = jnp.stack([images(plain, seed) for seed in range(2)])
    variables = NETWORKS[name].init(jax.random.key(0), x[0], train=False)

    def gradients(network):
        def on_device(params, x):
            return jax.grad(loss_of(network, variables, x), has_aux=True)(params)

        return jax.pmap(on_device, axis_name="data", in_axes=(None, 0))

    remat = gradients(plain.clone(remat=True))
    found = remat(variables["params"], x)
    assert_close(found, gradients(plain)(variables["params"], x))
    for leaf in jax.tree.leaves(found[1]):  # statistics are those of both devices
        np.testing.assert_allclose(leaf[0], leaf[1], rtol=1e-6)
    if name == "U-Net":
        psums = [count(gradients(n), variables["params"], x, names=("psum",)) for n in (plain.clone(remat=True), plain)]
        assert psums[0] == psums[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config])
def test_whole_steps_and_a_run_that_switches(make):
    """Two steps without, with, and with only in the second, by SGD: the same parameters, statistics and metrics."""
    sgd = {"factory": "optax:sgd", "learning_rate": 0.05}
    configs = {switch: make(generator__remat=switch, optimizer=sgd) for switch in (False, True)}
    batch = random_batch(configs[True])
    objectives = {switch: p2p_jax.config.resolve(c.objective)(c) for switch, c in configs.items()}
    updates = {switch: parallel.pmap_update(objective.update) for switch, objective in objectives.items()}

    def run(*switches):
        state = jax.device_get(jax.jit(objectives[switches[0]].init)(jax.random.key(0), batch))
        for switch in switches:
            state, metrics, _ = jax.device_get(updates[switch](state, batch, jax.random.key(1)))
        return state, metrics

    (expected, metrics), (found, same), (switched, _) = run(False, False), run(True, True), run(False, True)
    for state in (found, switched):
        assert jax.tree.structure(state) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(float(np.abs(b).max()), 1e-3))
    assert {k: float(v) for k, v in same.items()} == pytest.approx({k: float(v) for k, v in metrics.items()}, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "times"), [(UNet(), 40), (ResNet(), 6)], ids=["U-Net", "ResNet"])
def test_what_waits_for_the_gradient(network, times):
    """Bytes that go from the forward to the backward pass, parameters aside, at the published sizes."""
    x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    given = {v.shape for v in jax.tree.leaves(variables)}

    def waiting(network):
        def pullback(variables, x):
            rngs = {"dropout": jax.random.key(1)}
            return jax.vjp(lambda v: network.apply(v, x, train=True, rngs=rngs), variables)[1]

        found = jax.tree.leaves(jax.eval_shape(pullback, variables, x))
        return sum(v.size * v.dtype.itemsize for v in found if v.shape not in given)

    assert waiting(network) > times * waiting(network.clone(remat=True))
