"""Sums over maps and reflected borders are the same in the forms for GPUs, with gradients of gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.nets import layers, maps
from support.comparers import assert_close_trees

SIZES = [(1, 32, 40), (2, 64, 64), (1, 16, 16)]  # two steps, two for each image, one


@pytest.fixture
def on_gpu(monkeypatch):
    """Trace as on a GPU; what is traced runs anywhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def images(batch, height, width):
    return jnp.asarray(np.random.RandomState(0).standard_normal((batch, height, width, 3)), jnp.float32)


def steps_of(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("optimization_barrier")


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("axes", [(1, 2), (0, 1, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_sums_in_two_steps_are_the_sums(size, axes):
    x = images(*size)
    found = jax.jit(functools.partial(maps.sum_over, axes=axes))((x, x * x))
    for total, terms in zip(found, (x, x * x), strict=True):
        exact = np.asarray(terms, np.float64).sum(axes, keepdims=True)
        np.testing.assert_allclose(total, exact, rtol=0, atol=1e-6 * float(jnp.abs(terms).sum(axes).max()))


@pytest.mark.parametrize(
    ("size", "axes", "platform", "steps"),
    [
        ((1, 32, 40), (1, 2), "gpu", 1),
        ((2, 64, 64), (1, 2), "gpu", 1),
        ((2, 64, 64), (0, 1, 2), "gpu", 0),  # more than 4,096: XLA's own two steps
        ((1, 32, 32), (1, 2), "gpu", 0),
        ((1, 32, 40), (1, 2), "cpu", 0),
        ((1, 32, 40), (1, 2), "tpu", 0),
    ],
)
def test_where_sums_have_two_steps(size, axes, platform, steps, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert steps_of(lambda x: maps.sum_over((x,), axes), images(*size)) == steps


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("kind", [layers.InstanceNorm(affine=True), layers.BatchNorm(use_running_average=False)])
def test_norms_have_the_gradients_of_their_formula(kind):
    """Of images and parameters, and of the length of a gradient, as in R1."""
    x, weights = images(2, 32, 40)[:1], images(3, 32, 40)[:1]
    axes = (1, 2) if isinstance(kind, layers.InstanceNorm) else (0, 1, 2)
    given = {"params": {"scale": jnp.array([0.5, 1.0, 2.0]), "bias": jnp.array([0.1, 0.2, 0.3])}}
    kept = {"batch_stats": kind.init(jax.random.key(0), x).get("batch_stats", {})}

    def ours(x, given):
        return (jnp.tanh(kind.apply({**given, **kept}, x)) * weights).sum()

    def formula(x, given):
        centred = x - x.mean(axes, keepdims=True)
        normed = centred / jnp.sqrt(jnp.square(centred).mean(axes, keepdims=True) + 1e-5)
        scale, bias = (given["params"][name].reshape(1, 1, 1, -1) for name in ("scale", "bias"))
        return (jnp.tanh(normed * scale + bias) * weights).sum()

    def slope(function):
        return jax.grad(lambda x: jnp.square(jax.grad(function)(x, given)).sum())(x)

    assert steps_of(jax.grad(ours, (0, 1)), x, given) == 2  # forward and back
    first = jax.grad(ours, (0, 1))(x, given), jax.grad(formula, (0, 1))(x, given)
    for found, expected in (first, (slope(ours), slope(formula))):
        assert_close_trees(found, expected, of_largest=2e-5)


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_biases_are_sums_in_float32(dtype):
    layer = layers.Conv(features=2, kernel_size=1, stride=1, padding=0, dtype=dtype)
    x, weights = images(1, 32, 40), images(2, 32, 40)[1:, ..., :2]
    params = layer.init(jax.random.key(0), x)

    def loss(params):
        return (layer.apply(params, x) * weights).sum().astype(jnp.float32)

    found = jax.grad(loss)(params)["params"]["bias"]
    rounded = np.asarray(weights.astype(dtype), np.float64)
    np.testing.assert_allclose(found, rounded.sum((0, 1, 2)), rtol=0, atol=1e-5 * np.abs(rounded).sum())


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("padding", [1, 3])
def test_reflected_borders_are_numpys_and_so_are_their_gradients(padding):
    x, around = images(2, 6, 5), [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    found = maps.reflect(x, padding)
    np.testing.assert_array_equal(found, np.pad(x, around, mode="reflect"))
    assert "gather" in str(jax.make_jaxpr(lambda x: maps.reflect(x, padding))(x))
    weights = np.random.RandomState(1).standard_normal(found.shape).astype(np.float32)
    places = np.pad(np.arange(x.size).reshape(x.shape), around, mode="reflect")
    expected = np.bincount(places.ravel(), weights.ravel(), x.size).reshape(x.shape)  # each place gets what it became
    np.testing.assert_allclose(jax.grad(lambda x: (maps.reflect(x, padding) * weights).sum())(x), expected, atol=1e-5)

    def cubes(x, reflect):
        return (reflect(x, padding) ** 3).sum()

    def slope(reflect):
        return jax.grad(lambda x: jnp.square(jax.grad(cubes)(x, reflect)).sum())(x)

    np.testing.assert_allclose(slope(maps.reflect), slope(maps._pad), rtol=1e-5)
