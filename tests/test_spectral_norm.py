"""Spectral norm: the largest singular value, and PyTorch's numbers over several steps."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from p2p_jax.config import resolve
from p2p_jax.nets import PatchGAN
from p2p_jax.nets.layers import Conv
from p2p_jax.nets.spectral_norm import SpectralNorm, spectrally_normed
from p2p_jax.testing import check_objective
from p2p_jax.training import parallel
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch
from support.precision import precision


class Normed(nn.Module):
    """One layer, as networks have it."""

    make: object
    axis: int = -1

    @nn.compact
    def __call__(self, x, *, train):
        return spectrally_normed(self.make, train=train, axis=self.axis)(name="layer")(x)


LAYERS = {
    "convolution": (partial(Conv, features=5), -1),
    "transposed": (partial(Conv, features=5, transposed=True, use_bias=False), -2),
    "dense": (partial(nn.Dense, features=5), -1),
}


def draw(shape, seed=0, scale=1.0):
    return scale * np.random.RandomState(seed).standard_normal(shape)


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_are_divided_by_their_largest_singular_value(name):
    network, x = Normed(*LAYERS[name]), draw((2, 6, 8, 3)).astype(np.float32)
    plain = LAYERS[name][0](name="layer")
    variables = network.init(jax.random.key(1), x, train=False)
    kernel = np.asarray(variables["params"]["layer"]["kernel"])
    outputs = np.moveaxis(kernel, LAYERS[name][1], 0).reshape(5, -1)
    largest = np.linalg.svd(outputs, compute_uv=False)[0]
    vectors = variables["batch_stats"]["layer_spectral"]
    assert vectors["u"].shape == (5,) and vectors["v"].shape == (outputs.shape[1],)
    np.testing.assert_allclose([np.linalg.norm(v) for v in vectors.values()], 1, rtol=1e-5)
    for _ in range(30):  # more iterations than the first 15, for values that lie close together
        _, moved = network.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **moved}
    divided = {"params": {**variables["params"]["layer"], "kernel": kernel / largest}}
    np.testing.assert_allclose(network.apply(variables, x, train=False), plain.apply(divided, x), rtol=2e-3, atol=1e-4)


@pytest.mark.slow
def test_the_layer_keeps_its_names_and_initial_values():
    x = jnp.ones((1, 24, 24, 3))
    plain, normed = (PatchGAN(base_width=2, norm="none", spectral_norm=switch) for switch in (False, True))
    plain, normed = (network.init(jax.random.key(3), x, train=False) for network in (plain, normed))
    jax.tree.map(np.testing.assert_array_equal, plain["params"], normed["params"])
    assert "batch_stats" not in plain
    assert sorted(normed["batch_stats"]) == [f"{name}_spectral" for name in sorted(plain["params"])]


def test_the_first_estimate_is_close():
    """As in PyTorch, 15 iterations come before the first step; after one it would be off by tens of per cents."""
    kernel = draw((4, 4, 32, 64), scale=0.02).astype(np.float32)
    layer = SpectralNorm(Conv(features=64, use_bias=False))
    x = jnp.ones((1, 4, 4, 32))
    variables = layer.init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["layer"]["kernel"]
    largest = np.linalg.svd(np.asarray(kernel).reshape(-1, 64), compute_uv=False)[0]
    u, v = variables["batch_stats"].values()
    assert np.asarray(u) @ (np.asarray(kernel).reshape(-1, 64).T @ np.asarray(v)) == pytest.approx(largest, rel=0.03)


def test_vectors_move_in_training_alone_where_they_can_be_kept():
    network, x = PatchGAN(receptive_field=16, base_width=4, norm="none", spectral_norm=True), jnp.ones((1, 16, 16, 3))
    variables = network.init(jax.random.key(0), x, train=False)
    _, still = network.apply(variables, x, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, still["batch_stats"], variables["batch_stats"])
    _, moved = network.apply(variables, x, train=True, mutable=["batch_stats"])
    steps = jax.tree.map(lambda a, b: np.abs(a - b).max(), moved["batch_stats"], variables["batch_stats"])
    del steps["logits_spectral"]  # of one output, so that the first iteration finds it all
    assert len(steps) == 2 and all(0 < step < 0.5 for step in jax.tree.leaves(steps))
    np.testing.assert_array_equal(network.apply(variables, x, train=True), network.apply(variables, x, train=False))


def test_vectors_stay_in_float32_where_the_network_computes_in_bfloat16():
    network = PatchGAN(receptive_field=16, base_width=4, norm="none", spectral_norm=True, dtype=jnp.bfloat16)
    x = jnp.asarray(draw((1, 16, 16, 3)), jnp.float32)
    variables = network.init(jax.random.key(0), x, train=False)
    low, moved = network.apply(variables, x, train=True, mutable=["batch_stats"])
    full, expected = network.clone(dtype=None).apply(variables, x, train=True, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}
    jax.tree.map(np.testing.assert_array_equal, moved, expected)
    np.testing.assert_allclose(low, full, atol=0.02 * np.abs(full).max())


def test_a_kernel_of_zeros_stays_one():
    layer = SpectralNorm(nn.Dense(3))
    variables = layer.init(jax.random.key(0), jnp.ones((1, 4)), train=False)
    variables = jax.tree.map(jnp.zeros_like, variables)
    assert not np.any(layer.apply(variables, jnp.ones((1, 4)), train=False))


def test_gradients_take_the_vectors_as_constants():
    """By hand: of y = W x / (u' W v) by W, with the u and v of after the iteration."""
    layer, x = SpectralNorm(nn.Dense(4, use_bias=False)), jnp.asarray(draw((1, 3)), jnp.float32)
    variables = layer.init(jax.random.key(2), x, train=False)
    kernel = jnp.asarray(draw((3, 4), 5), jnp.float32)  # another one than the vectors were brought close to
    params, stats = jax.tree.map(lambda _: kernel, variables["params"]), variables["batch_stats"]

    def loss(params):
        y, moved = layer.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return jnp.sin(y).sum(), moved["batch_stats"]

    grads, moved = jax.grad(loss, has_aux=True)(params)

    def by_hand(kernel):
        return jnp.sin(x @ kernel / (moved["v"] @ kernel @ moved["u"])).sum()

    np.testing.assert_allclose(jax.tree.leaves(grads)[0], jax.grad(by_hand)(kernel), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_equal_pytorch_over_steps_in_float64(name):
    torch = pytest.importorskip("torch")
    from torch.nn.utils.parametrizations import spectral_norm

    make, axis = LAYERS[name]
    twin = {
        "convolution": lambda: torch.nn.Conv2d(3, 5, 4, 2, 1),
        "transposed": lambda: torch.nn.ConvTranspose2d(3, 5, 4, 2, 1, bias=False),
        "dense": lambda: torch.nn.Linear(3, 5),
    }[name]()
    torch.manual_seed(0)
    twin = spectral_norm(twin.double())
    images = [draw((2, 6, 8, 3), seed) for seed in range(5)]
    with precision("float64"):
        network = Normed(partial(make, param_dtype=jnp.float64), axis)
        variables = network.init(jax.random.key(0), jnp.asarray(images[0]), train=False)
        original = twin.parametrizations.weight
        weight = original.original.detach().numpy()
        params = {"kernel": weight.T if name == "dense" else weight.transpose(2, 3, 1, 0)}
        if twin.bias is not None:
            params["bias"] = twin.bias.detach().numpy()
        v = original[0]._v.numpy()
        if name != "dense":  # its places are by input, row and column there, by row, column and input here
            v = v.reshape(3, 4, 4).transpose(1, 2, 0).ravel()
        variables = {
            "params": {"layer": params},
            "batch_stats": {"layer_spectral": {"u": original[0]._u.numpy(), "v": v}},
        }
        variables = jax.tree.map(jnp.asarray, variables)
        sgd = torch.optim.SGD(twin.parameters(), lr=0.1)

        @jax.jit
        def step(variables, x):
            def loss(params):
                y, moved = network.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
                return jnp.sin(y).mean(), (y, moved)

            grads, (y, moved) = jax.grad(loss, has_aux=True)(variables["params"])
            params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
            return {"params": params, **moved}, y, grads

        for x in images:
            sgd.zero_grad()
            there = torch.from_numpy(x)
            there = twin(there) if name == "dense" else twin(there.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            torch.sin(there).mean().backward()
            variables, here, grads = step(variables, jnp.asarray(x))
            np.testing.assert_allclose(here, there.detach(), rtol=1e-9, atol=1e-10)
            expected = original.original.grad.numpy()
            expected = expected.T if name == "dense" else expected.transpose(2, 3, 1, 0)
            np.testing.assert_allclose(grads["layer"]["kernel"], expected, rtol=1e-9, atol=1e-9)
            sgd.step()
        twin.eval()
        x = torch.from_numpy(images[0])
        there = twin(x) if name == "dense" else twin(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        here = network.apply(variables, jnp.asarray(images[0]), train=False)
        np.testing.assert_allclose(here, there.detach(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(
            variables["batch_stats"]["layer_spectral"]["u"], original[0]._u.numpy(), rtol=0, atol=1e-11
        )
        assert all(leaf.dtype == np.float64 for leaf in flatten_dict(variables).values())


PLAYERS = {
    "p2p_jax:pix2pix": (small_config, {"discriminator__norm": "none"}),
    "p2p_jax:cyclegan": (small_cyclegan_config, {"generator__downsampling": "antialiased"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYERS)
def test_both_objectives_carry_the_vectors(name):
    make, changes = PLAYERS[name]
    config = make(**changes, discriminator__spectral_norm=True, discriminator__downsampling="antialiased")
    objective = resolve(name)(config)
    check_objective(objective, config, run=False)
    state = jax.eval_shape(objective.init, jax.random.key(0), random_batch(config, size=1))
    for player, stats in state["batch_stats"].items():
        vectors = {layer for layer in stats if layer.endswith("_spectral")}
        assert len(vectors) == (3 if player.startswith("disc") else 0)


@pytest.mark.slow
def test_a_step_moves_the_vectors_alike_on_all_devices():
    config = small_config(discriminator__norm="none", discriminator__spectral_norm=True, generator__num_downs=2)
    objective = resolve(config.objective)(config)
    check_objective(objective, config)
    batch = random_batch(config, size=2)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    kernel, stats = state["params"]["discriminator"]["conv_2"]["kernel"], state["batch_stats"]["discriminator"]
    new = parallel.pmap_update(objective.update)(state, batch, jax.random.key(1))[0]
    matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
    v = np.asarray(stats["conv_2_spectral"]["v"])
    for _ in range(2):  # the fakes and the real images of the discriminator's turn, before it is updated
        u = v @ matrix
        v = matrix @ (u / np.linalg.norm(u))
        v /= np.linalg.norm(v)
    found = new["batch_stats"]["discriminator"]["conv_2_spectral"]
    # Once more in the generator's turn, with the kernel of after the update, which is a little step away.
    np.testing.assert_allclose(found["v"], v, atol=0.05)
    assert np.abs(np.asarray(found["v"]) - np.asarray(stats["conv_2_spectral"]["v"])).max() > 1e-4
    norms = [np.linalg.norm(leaf) for leaf in jax.tree.leaves(new["batch_stats"]["discriminator"])]
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
