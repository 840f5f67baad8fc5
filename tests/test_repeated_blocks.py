"""On CPUs the equal blocks of a ResNet are one loop in the program: results, gradients and features stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.nets import MobileResNet, ResNet, convolution
from support.comparers import assert_close_trees
from support.precision import precision
from support.tracing import equations

REPEATED = {
    "ResNet": ResNet(num_blocks=3, base_width=4),
    "affine": ResNet(num_blocks=2, base_width=4, norm="instance_affine"),
    "no norm, zeros around": ResNet(num_blocks=2, base_width=4, norm="none", padding="zero", init_gain=0.2),
    "remat": ResNet(num_blocks=2, base_width=4, remat=True),
    "MobileResNet": MobileResNet(num_blocks=2, base_width=4),
}
NOT_REPEATED = {
    "statistics": ResNet(num_blocks=2, base_width=4, norm="batch"),
    "dropout": ResNet(num_blocks=2, base_width=4, dropout_rate=0.5),
    "one block": ResNet(num_blocks=1, base_width=4),
    "no block": ResNet(num_blocks=0, base_width=4),
    "widths": MobileResNet(num_blocks=2, base_width=4, channels="3_4_4_2_4_3_4"),
}
X = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 16, 12, 3)), jnp.float32)


def make_loss(network, variables):
    def loss(params, x):
        given = {**variables, "params": params}
        y, _ = network.apply(given, x, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
        return jnp.square(y - 0.3).sum(), y

    return loss


def num_loops(function, *args):
    return sum(equation.primitive.name == "scan" for equation in equations(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.mark.parametrize("name", REPEATED)
def test_results_and_gradients_are_those_of_single_blocks(name, monkeypatch):
    with precision("float64"):
        network, x = REPEATED[name].clone(param_dtype=jnp.float64), X.astype(jnp.float64)
        variables = network.init(jax.random.key(0), x, train=False)
        found = {}
        for loops in (0, 1):
            loss = make_loss(network, variables)  # a new one: JAX keeps the traces of the last
            monkeypatch.setattr(convolution, "detours", lambda sizes, loops=loops: loops and sizes == (2, 4, 3, 16))
            assert num_loops(loss, variables["params"], x) == loops
            found[loops] = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
    assert found[0][1].dtype == jnp.float64 and float(np.abs(found[0][1]).max()) > 0.01
    assert_close_trees(found[1], found[0], of_largest=1e-12, least=1)


@pytest.mark.usefixtures("fast_convolutions")
@pytest.mark.parametrize("name", NOT_REPEATED)
def test_what_differs_from_block_to_block_is_not_repeated(name):
    network = NOT_REPEATED[name]
    variables = network.init(jax.random.key(0), X, train=False)
    assert num_loops(make_loss(network, variables), variables["params"], X) == 0


@pytest.mark.usefixtures("fast_convolutions")
@pytest.mark.parametrize("given", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("name", REPEATED)
def test_any_precision(name, dtype, given):
    network, x = REPEATED[name].clone(dtype=dtype), X.astype(given)
    variables = jax.eval_shape(lambda key: network.init(key, x, train=False), jax.random.key(0))
    loss = make_loss(network, variables)
    assert num_loops(loss, variables["params"], x) == 1
    gradient = jax.eval_shape(jax.grad(loss, has_aux=True), variables["params"], x)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype("float32")}


@pytest.mark.usefixtures("fast_convolutions")
def test_parameters_and_features_keep_their_names():
    network = REPEATED["ResNet"]
    variables = network.init(jax.random.key(0), X, train=False)
    assert {f"block_{i}" for i in (1, 2, 3)} < set(variables["params"])
    whole, kept = network.apply(variables, X, train=False, capture_intermediates=True)
    assert len(kept["intermediates"]["block_3"]["__call__"]) == 1
    np.testing.assert_allclose(network.apply(variables, X, train=False), whole, atol=1e-5)
    features = network.apply(variables, X, train=False, until="block_2")
    np.testing.assert_allclose(features, kept["intermediates"]["block_2"]["__call__"][0], atol=1e-5)
