"""Down- and upsampling through fixed filters, as in CUT: closed forms, published counts, and the same in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from p2p_jax.config import complete
from p2p_jax.errors import InputError
from p2p_jax.interop.torch_names import modules_of
from p2p_jax.interop.torch_state_dicts import from_torch
from p2p_jax.nets import RECEPTIVE_FIELDS, MobileResNet, PatchGAN, ResNet, UNet
from p2p_jax.nets.resampling import blur_downsample, blur_upsample, halve
from p2p_jax.objectives import make_network
from p2p_jax.training import network_differences
from support import configs
from support.configs import merged
from support.precision import precision

SMOOTH = {"downsampling": "antialiased", "upsampling": "antialiased"}


def weights_of_halving(side):
    """Return the matrix of [1, 2, 1] / 4 with reflected borders, at every second pixel."""
    matrix = np.zeros((-(-side // 2), side))
    for i, row in enumerate(matrix):
        for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            place = abs(2 * i + offset)
            row[place if place < side else 2 * side - 2 - place] += weight
    return matrix


def weights_of_doubling(side):
    """Return the matrix of [1, 3, 3, 1] / 4 on pixels with zeros between, with repeated borders."""
    matrix = np.zeros((2 * side, side))
    for i, row in enumerate(matrix):
        row[i // 2] += 0.75
        row[np.clip(i // 2 + (1 if i % 2 else -1), 0, side - 1)] += 0.25
    return matrix


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 5), (2, 3), (9, 2)])
@pytest.mark.parametrize(
    ("function", "weights"), [(blur_downsample, weights_of_halving), (blur_upsample, weights_of_doubling)]
)
def test_filters_are_matrices_along_rows_and_columns(function, weights, height, width):
    x = np.random.RandomState(0).standard_normal((2, height, width, 3)).astype(np.float32)
    rows, columns = weights(height), weights(width)
    np.testing.assert_allclose(rows.sum(1), 1)
    y, pull_back = jax.vjp(function, x)
    np.testing.assert_allclose(y, np.einsum("ph,bhwc,qw->bpqc", rows, x, columns), atol=1e-6)
    cotangent = np.random.RandomState(1).standard_normal(y.shape).astype(np.float32)
    np.testing.assert_allclose(
        pull_back(cotangent)[0], np.einsum("ph,bpqc,qw->bhwc", rows, cotangent, columns), atol=1e-6
    )


@pytest.mark.parametrize("function", [blur_downsample, blur_upsample])
def test_filters_round_bfloat16_once(function):
    x = jnp.asarray(np.random.RandomState(0).standard_normal((1, 6, 8, 3)), jnp.bfloat16)
    assert function(x).dtype == jnp.bfloat16
    exact = function(x.astype(jnp.float32))
    np.testing.assert_array_equal(function(x), exact.astype(jnp.bfloat16))


def test_the_finest_stripes_vanish_where_strides_would_keep_them():
    stripes = jnp.tile(jnp.asarray([1.0, -1.0]), (1, 8, 4))[..., None]
    assert np.abs(blur_downsample(stripes)).max() == 0
    assert np.abs(stripes[:, ::2, ::2]).min() == 1


def test_halve_is_a_mean_of_what_is_there():
    x = np.random.RandomState(0).standard_normal((1, 5, 6, 2)).astype(np.float32)
    y = halve(x)
    assert y.shape == (1, 3, 3, 2)
    np.testing.assert_allclose(y[0, 0, 0], x[0, :2, :2].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(y[0, 1, 2], x[0, 1:4, 3:6].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(y[0, 2, 1], x[0, 3:5, 1:4].mean((0, 1)), atol=1e-6)


def shapes(network, shape):
    return jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("network", "channels", "published"),
    [(ResNet(**SMOOTH), 3, 11_378_179), (PatchGAN(norm="instance", downsampling="antialiased"), 3, 2_764_737)],
)
def test_published_parameter_counts(network, channels, published):
    _, variables = shapes(network, (1, 256, 256, channels))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == published


@pytest.mark.parametrize(("field", "side"), [(1, 256), (16, 126), (34, 62), (70, 30), (142, 14), (286, 6)])
def test_maps_of_logits_have_the_published_sizes(field, side):
    network = PatchGAN(receptive_field=field, downsampling="antialiased", base_width=2)
    assert shapes(network, (1, 256, 256, 3))[0].shape == (1, side, side, 1)
    smallest = 3 * 2 ** RECEPTIVE_FIELDS[field]
    if field > 1:
        assert shapes(network, (1, smallest, smallest, 3))[0].shape == (1, 1, 1, 1)


@pytest.mark.parametrize(("field", "side"), [(16, 18), (34, 40), (70, 84)])
def test_receptive_fields_are_larger_than_their_names(field, side):
    network = PatchGAN(receptive_field=field, base_width=1, norm="none", downsampling="antialiased")
    x = jnp.ones((1, 160, 192, 1))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes(network, x.shape)[1])

    def logit(x):
        logits = network.apply(params, x, train=True)[0, :, :, 0]
        return logits[logits.shape[0] // 2, logits.shape[1] // 2]

    support = np.asarray(jax.jit(jax.grad(logit))(x))[0, :, :, 0] > 0
    rows, columns = np.flatnonzero(support.any(axis=1)), np.flatnonzero(support.any(axis=0))
    assert support.sum() == side**2
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == side


@pytest.mark.parametrize("network", [ResNet, MobileResNet, UNet])
def test_every_generator_takes_the_upsampling(network):
    narrow = {"num_downs": 3} if network is UNet else {"num_blocks": 1, "downsampling": "antialiased"}
    smooth = network(base_width=4, upsampling="antialiased", out_channels=2, **narrow)
    output, variables = shapes(smooth, (2, 24, 40, 3))
    assert output.shape == (2, 24, 40, 2)
    assert variables["params"]["up_1"]["kernel"].shape[:2] == (3, 3)


@pytest.mark.parametrize("network", [ResNet(downsampling="blur"), PatchGAN(downsampling="blur")])
def test_an_unknown_downsampling_is_named(network):
    with pytest.raises(InputError, match="unknown downsampling 'blur': choose one of strided, antialiased"):
        shapes(network, (1, 32, 32, 3))


def test_fine_tuning_tells_that_the_same_weights_compute_otherwise():
    theirs = complete(configs.SMALL_CYCLEGAN).to_dict()
    smooth = merged(configs.SMALL_CYCLEGAN, {"generator": SMOOTH, "discriminator": {"spectral_norm": True}})
    told = "\n".join(network_differences.differences(theirs, complete(smooth)))
    assert "generator.downsampling was 'strided' there and is 'antialiased' here" in told
    assert "--config.generator.upsampling=transposed keeps it" in told
    assert "discriminator.spectral_norm was False there and is True here" in told


TWINS = {
    "generator": (
        {"network": "p2p_jax.nets:ResNet", "num_blocks": 2, "base_width": 4, "padding": "reflect", "dropout_rate": 0.0}
        | SMOOTH,
        lambda release: release.SmoothResNet(3, 3, 2, 4),
        (20, 28),
    ),
    "generator, --no_antialias_up": (
        {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4, "padding": "reflect", "dropout_rate": 0.0}
        | {"downsampling": "antialiased"},
        lambda release: release.SmoothResNet(3, 3, 1, 4, up=False),
        (20, 28),
    ),
    "discriminator": (
        {"network": "p2p_jax.nets:PatchGAN", "receptive_field": 70, "base_width": 4, "norm": "instance"}
        | {"downsampling": "antialiased"},
        lambda release: release.SmoothPatchGAN(3, 3, 4),
        (38, 53),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_output_and_gradients_equal_pytorch_in_float64(name):
    torch = pytest.importorskip("torch")
    from support import torch_release as release

    section, make, sides = TWINS[name]
    twin = release.randomise(make(release), seed=1).double()
    x = np.random.RandomState(0).uniform(-1, 1, (2, *sides, 3))
    there = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    output = twin(there)
    cotangent = np.random.RandomState(1).standard_normal(output.permute(0, 2, 3, 1).shape)
    output.backward(torch.from_numpy(cotangent).permute(0, 3, 1, 2))
    weights, params, grads = dict(twin.named_parameters()), {}, {}
    for module in modules_of(section):
        for leaf, ours in (("weight", "kernel"), ("bias", "bias")):
            if (tensor := weights.get(f"{module.name}.{leaf}")) is not None:
                for tree, value in ((params, tensor.detach()), (grads, tensor.grad)):
                    value = value.numpy()
                    tree[f"{module.layer}/{ours}"] = from_torch(value) if value.ndim == 4 else value
    with precision("float64"):
        network = make_network(section, out_channels=3, param_dtype=jnp.float64)
        params = jax.tree.map(jnp.asarray, unflatten_dict(params, sep="/"))

        @jax.jit
        def run(params, x):
            y, pull_back = jax.vjp(lambda params, x: network.apply({"params": params}, x, train=False), params, x)
            return y, *pull_back(jnp.asarray(cotangent))

        y, by_params, by_x = jax.tree.map(np.asarray, run(params, x))
        assert y.dtype == by_x.dtype == np.float64
    np.testing.assert_allclose(y, output.permute(0, 2, 3, 1).detach(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(by_x, there.grad.permute(0, 2, 3, 1), rtol=0, atol=1e-10 * np.abs(by_x).max())
    found = flatten_dict(by_params, sep="/")
    assert found.keys() == grads.keys()
    for key, value in grads.items():
        scale = np.abs(grads[key.replace("bias", "kernel")]).max()
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-9 * scale, err_msg=key)
