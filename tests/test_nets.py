"""Networks: published sizes, layouts, normalisation, initialisation, dtypes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.nets import (
    RECEPTIVE_FIELDS,
    EncoderDecoder,
    MobileResNet,
    PatchGAN,
    ResNet,
    ResNet6,
    ResNet9,
    UNet,
    UNet128,
    UNet256,
    maps,
)
from p2p_jax.nets.layers import BatchNorm, Conv, InstanceNorm, make_upsampling


def variables_of(network, shape):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), jnp.zeros(shape))


def count(network, shape):
    return sum(x.size for x in jax.tree.leaves(variables_of(network, shape)["params"]))


@pytest.mark.parametrize(
    ("network", "shape", "published"),
    [
        (UNet256(), (1, 256, 256, 3), 54_413_955),
        (UNet128(), (1, 128, 128, 3), 41_828_995),
        (PatchGAN(), (1, 256, 256, 6), 2_768_705),
        (PatchGAN(norm="instance"), (1, 256, 256, 3), 2_764_737),
        (ResNet9(), (1, 256, 256, 3), 11_378_179),
        (ResNet6(), (1, 128, 128, 3), 7_837_699),
    ],
)
def test_published_parameter_counts(network, shape, published):
    assert count(network, shape) == published


def test_encoder_decoder_has_the_same_layers_with_narrower_decoder_inputs():
    full, plain = (variables_of(n, (1, 256, 256, 3))["params"] for n in (UNet256(), EncoderDecoder()))
    assert full.keys() == plain.keys()
    assert full["up_4"]["kernel"].shape == (4, 4, 256, 1024)
    assert plain["up_4"]["kernel"].shape == (4, 4, 256, 512)


@pytest.mark.parametrize(("field", "side"), [(1, 256), (16, 126), (34, 62), (70, 30), (142, 14), (286, 6)])
def test_patch_output_sizes(field, side):
    network, x = PatchGAN(receptive_field=field), jnp.zeros((1, 256, 256, 6))
    out, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), x)
    assert out.shape == (1, side, side, 1)
    assert field in RECEPTIVE_FIELDS


@pytest.mark.parametrize(
    ("downs", "layout", "levels"),
    [
        (8, "paper", [8, 7, 6]),
        (8, "pytorch", [7, 6, 5]),
        (7, "paper", [7, 6, 5]),
        (7, "pytorch", [6, 5]),
        (3, "paper", [3, 2]),
        (5, "pytorch", []),
    ],
)
def test_dropout_placement(downs, layout, levels):
    network = UNet(num_downs=downs, dropout_layout=layout)
    assert [level for level in range(downs, 0, -1) if network.has_dropout(level)] == levels


@pytest.mark.slow
def test_dropout_acts_only_when_asked():
    network, x = UNet(num_downs=3, base_width=4), jnp.ones((1, 16, 16, 3))
    variables = network.init(jax.random.key(0), x, train=False)

    def run(seed, **kwargs):
        return network.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}, **kwargs)

    assert np.array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))
    assert np.array_equal(run(0, dropout=False), run(1, dropout=False))


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_biases_stand_only_where_no_batch_norm_is_used(norm):
    params = variables_of(UNet(num_downs=4, base_width=4, norm=norm), (1, 16, 16, 3))["params"]
    with_bias = {name for name, value in params.items() if "kernel" in value and "bias" in value}
    expected = {"up_1"} if norm == "batch" else {f"{way}_{i}" for way in ("up", "down") for i in range(1, 5)}
    assert with_bias == expected


def test_bottleneck_norm_of_a_1x1_map_is_zero_at_batch_size_1():
    network, x = UNet(num_downs=4, base_width=4, bottleneck_norm=True), jnp.ones((1, 16, 16, 3))
    variables = network.init(jax.random.key(0), x, train=False)
    _, found = network.apply(
        variables, x, train=True, dropout=False, capture_intermediates=True, mutable=["intermediates"]
    )
    assert np.abs(found["intermediates"]["down_4"]["__call__"][0]).max() > 0
    assert np.abs(found["intermediates"]["down_4_norm"]["__call__"][0]).max() == 0


@pytest.mark.parametrize("downs", [3, 5])
def test_rectangles_and_channels(downs):
    network, x = UNet(num_downs=downs, base_width=4, out_channels=2), jnp.zeros((2, 32, 96, 1))
    out, _ = network.init_with_output(jax.random.key(0), x, train=False)
    assert out.shape == (2, 32, 96, 2)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (UNet(num_downs=5), (1, 48, 64, 3), "multiples of 32"),
        (UNet(num_downs=3, dropout_layout="other"), (1, 16, 16, 3), "choose one of paper, pytorch"),
        (
            UNet(num_downs=3, norm="layer"),
            (1, 16, 16, 3),
            "choose one of batch, instance, instance_affine, instance_tr",
        ),
        (UNet(num_downs=3, init_type="he"), (1, 16, 16, 3), "choose one of normal, xavier, kaiming, orthogonal"),
        (UNet(num_downs=3, upsampling="cubic"), (1, 16, 16, 3), "choose one of transposed, resize"),
        (ResNet(padding="same"), (1, 16, 16, 3), "choose one of zero, reflect"),
        (ResNet(num_blocks=-1), (1, 16, 16, 3), "num_blocks is -1"),
        (ResNet(), (1, 18, 16, 3), "multiples of 4"),
        (MobileResNet(), (1, 18, 16, 3), "multiples of 4"),
        (MobileResNet(channels="3_4"), (1, 16, 16, 3), "has 2 widths; a MobileResNet with 9 blocks needs 6, 8 or 14"),
        (MobileResNet(channels="3_0_4_2_4_4"), (1, 16, 16, 3), "must be widths of at least 1"),
        (MobileResNet(channels="3,4"), (1, 16, 16, 3), "must be widths of at least 1"),
        (ResNet(), (1, 4, 16, 3), "at least 8"),
        (PatchGAN(receptive_field=71), (1, 16, 16, 3), "choose one of 1, 16, 34, 70, 142, 286"),
        (PatchGAN(receptive_field=70), (1, 8, 8, 3), "at least 24x24"),
    ],
)
def test_wrong_settings_are_named(network, shape, message):
    with pytest.raises(InputError, match=message):
        variables_of(network, shape)


def test_smallest_image_of_every_patch_gives_a_logit():
    for field, strided in RECEPTIVE_FIELDS.items():
        network, side = PatchGAN(receptive_field=field, base_width=2), 3 * 2**strided if strided else 1
        x = jnp.zeros((1, side, side, 3))
        out, _ = jax.eval_shape(lambda x, n=network: n.init_with_output(jax.random.key(0), x, train=False), x)
        assert out.shape == (1, 1, 1, 1)


@pytest.mark.slow
def test_normal_initialisation():
    params = UNet(num_downs=4, base_width=32).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)["params"]
    kernels = np.concatenate([v["kernel"].ravel() for v in params.values() if "kernel" in v])
    scales = np.concatenate([v["scale"] for v in params.values() if "scale" in v])
    assert kernels.std() == pytest.approx(0.02, rel=0.01)
    assert abs(kernels.mean()) < 1e-4
    assert scales.mean() == pytest.approx(1, abs=0.005)
    assert scales.std() == pytest.approx(0.02, rel=0.15)
    assert all((v["bias"] == 0).all() for v in params.values() if "bias" in v)


@pytest.mark.parametrize("transposed", [False, True])
def test_scaled_initialisers(transposed):
    x, fan_in, fan_out = jnp.zeros((1, 8, 8, 16)), 16 * 16, 64 * 16

    def std(init_type):
        layer = Conv(features=64, transposed=transposed, init_type=init_type, init_gain=0.5)
        return float(layer.init(jax.random.key(0), x)["params"]["kernel"].std())

    assert std("xavier") == pytest.approx(0.5 * (2 / (fan_in + fan_out)) ** 0.5, rel=0.03)
    assert std("kaiming") == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
    kernel = Conv(features=64, transposed=transposed, init_type="orthogonal", init_gain=0.5).init(jax.random.key(0), x)
    matrix = np.moveaxis(np.asarray(kernel["params"]["kernel"]), -2 if transposed else -1, -1).reshape(-1, 64)
    np.testing.assert_allclose(matrix.T @ matrix, 0.25 * np.eye(64), atol=1e-5)


def test_batch_norm_statistics():
    x = jnp.asarray(np.random.RandomState(0).normal(3, 2, (2, 4, 4, 5)), jnp.float32)
    layer = BatchNorm(use_running_average=False)
    variables = layer.init(jax.random.key(0), x)
    out, new = layer.apply(variables, x, mutable=["batch_stats"])
    scale = variables["params"]["scale"].reshape(1, 1, 1, -1)
    mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    np.testing.assert_allclose(out, scale * (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * mean.ravel(), rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 + 0.1 * var.ravel() * 32 / 31, rtol=1e-5)
    # Without a mutable collection the batch's own statistics still serve, and nothing is recorded.
    np.testing.assert_array_equal(layer.apply(variables, x), out)
    running = BatchNorm(use_running_average=True).apply(variables, x)
    np.testing.assert_allclose(running, scale * x / np.sqrt(1 + 1e-5), rtol=1e-5)


@pytest.mark.parametrize("synchronised", [False, True])
def test_batch_norm_over_devices(synchronised):
    x = jnp.asarray(np.random.RandomState(0).normal(3, 2, (2, 3, 4, 4, 5)), jnp.float32)
    layer = BatchNorm(use_running_average=False, axis_name="data" if synchronised else None)
    variables = BatchNorm(use_running_average=False).init(jax.random.key(0), x[0])

    def apply(layer, x):
        return layer.apply(variables, x, mutable=["batch_stats"])

    out, new = jax.pmap(lambda x: apply(layer, x), axis_name="data")(x)
    single = BatchNorm(use_running_average=False)
    whole, kept = apply(single, x.reshape(6, 4, 4, 5))
    parts, kept_apart = zip(*(apply(single, share) for share in x), strict=True)
    whole, apart = whole.reshape(x.shape), jnp.stack(parts)
    np.testing.assert_allclose(out, whole if synchronised else apart, atol=1e-5)
    assert np.abs(whole - apart).max() > 0.01
    for device in range(2):  # the running statistics, the variance corrected for all the pixels that it is of
        expected = kept if synchronised else kept_apart[device]
        for name in ("mean", "var"):
            found = new["batch_stats"][name][device]
            np.testing.assert_allclose(found, expected["batch_stats"][name], rtol=1e-5)


def test_instance_norm():
    x = jnp.asarray(np.random.RandomState(0).normal(3, 2, (2, 4, 4, 5)), jnp.float32)
    expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(InstanceNorm().apply({}, x), expected, atol=1e-5)


@pytest.mark.parametrize("network", [UNet(num_downs=3, base_width=4), PatchGAN(receptive_field=16, base_width=4)])
def test_low_precision_computation_with_full_precision_parameters(network):
    x = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    variables = network.init(jax.random.key(0), x, train=False)
    full = network.apply(variables, x, train=False)
    low, state = network.clone(dtype=jnp.bfloat16).apply(
        variables, x, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert low.dtype == full.dtype == jnp.float32
    inner = [v for v in jax.tree.leaves(state["intermediates"]) if v.dtype == jnp.bfloat16]
    assert len(inner) >= 4
    np.testing.assert_allclose(low, full, atol=0.02)


@pytest.mark.slow
def test_remat_changes_memory_alone():
    """Gradients are those of the plain network, from a program that computes the blocks again."""
    x = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (1, 16, 16, 3)), jnp.float32)
    plain, remat = (ResNet(num_blocks=2, base_width=4, dropout_rate=0.5, remat=switch) for switch in (False, True))
    variables = plain.init(jax.random.key(0), x, train=False)

    def grads(network):
        def loss(variables):
            return jnp.square(network.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})).sum()

        return jax.jit(jax.grad(loss))(variables), str(jax.make_jaxpr(jax.grad(loss))(variables))

    (expected, _), (found, operations) = grads(plain), grads(remat)
    assert "remat" in operations or "checkpoint" in operations
    assert jax.tree.structure(expected) == jax.tree.structure(remat.init(jax.random.key(0), x, train=False))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(a).max(), 1))


@pytest.mark.parametrize(("kind", "even"), [("resize", True), ("transposed", False)])
def test_resize_upsampling_leaves_no_checkerboard(kind, even):
    """An even map stays even; a 3x3 transposed convolution with stride 2 draws its grid into it."""

    class Up(nn.Module):
        @nn.compact
        def __call__(self, x):
            return make_upsampling(kind, kernel_size=3, pad_with="reflect")(features=2, name="up")(x)

    x = jnp.ones((1, 8, 6, 3))
    variables = Up().init(jax.random.key(0), x)
    assert variables["params"]["up"]["kernel"].shape == ((3, 3, 3, 2) if even else (3, 3, 2, 3))
    y = Up().apply(variables, x)
    assert y.shape == (1, 16, 12, 2)
    inside = y[:, 2:-2, 2:-2]
    assert (float(jnp.ptp(inside, (1, 2)).max()) < 1e-6) == even


def test_residual_blocks_add_to_what_comes_in():
    """Blocks whose last convolution is zero change nothing: n of them are as good as none."""
    x = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (1, 16, 16, 3)), jnp.float32)
    deep, shallow = (ResNet(num_blocks=n, base_width=4, norm="none", init_gain=0.2) for n in (3, 0))
    params = deep.init(jax.random.key(0), x, train=False)["params"]
    for i in (1, 2, 3):
        params[f"block_{i}"]["conv_2"] = jax.tree.map(jnp.zeros_like, params[f"block_{i}"]["conv_2"])
    outer = {name: value for name, value in params.items() if not name.startswith("block")}
    found = deep.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(found, shallow.apply({"params": outer}, x, train=False), atol=1e-6)
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1e3, 0.5), (-1e4, 1e3), (5.0, 0.0)])
def test_moments_in_one_pass_keep_their_digits(mean, deviation):
    x = (mean + deviation * np.random.RandomState(0).randn(2, 16, 16, 3)).astype(np.float32)
    found = maps.moments(jnp.asarray(x), (1, 2))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(found[0], exact.mean((1, 2), keepdims=True), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], exact.var((1, 2), keepdims=True), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_gradients_of_moments_equal_autodiff():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3)) + 3

    def by_hand(x):
        mean = x.mean((0, 1, 2), keepdims=True)
        return (jnp.sin(mean) * jnp.square(x - mean).mean((0, 1, 2), keepdims=True)).sum()

    def ours(x):
        mean, var = maps.moments(x, (0, 1, 2))
        return (jnp.sin(mean) * var).sum()

    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(by_hand)(x), rtol=1e-4, atol=1e-6)
    second = [jax.grad(lambda x, f=f: jnp.square(jax.grad(f)(x)).sum())(x) for f in (ours, by_hand)]
    np.testing.assert_allclose(*second, rtol=1e-3, atol=1e-6)
