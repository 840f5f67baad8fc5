"""U-Net with a pixel-wise transformer: counts by closed form, attention in NumPy, and all of it in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from p2p_jax.config import complete, resolve
from p2p_jax.errors import InputError
from p2p_jax.nets import UNetViT
from p2p_jax.nets.unet_vit import TransformerBlock, places
from p2p_jax.testing import check_objective
from support import configs
from support.precision import precision

SMALL = {"num_downs": 2, "base_width": 4, "num_blocks": 2, "width": 12, "num_heads": 3, "ffn_width": 20}
SMALL |= {"embed_width": 6, "init_gain": 0.3}


def shapes(network, shape):
    return jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), jnp.zeros(shape))


def draw(variables, seed=0):
    """Fill a tree with values that all matter, those of ReZero among them."""
    random, leaves = np.random.RandomState(seed), flatten_dict(variables, sep="/")
    values = {}
    for name in sorted(leaves):
        shape = leaves[name].shape
        scale = 0.3 if len(shape) < 2 else 1.4 / np.sqrt(np.prod(shape[:-1]))
        values[name] = scale * random.standard_normal(shape) + (1 if name.endswith("scale") else 0)
    return unflatten_dict(values, sep="/")


def expected_parameters(channels, downs, width, blocks, tokens, ffn, embed):
    """Count by hand, layer after layer."""

    def conv(side, before, after):
        return (side * side * before + 1) * after

    levels = [width * 2**i for i in range(downs)]
    outer = [width, *levels[:-1]]
    deepest = levels[-1]
    total = conv(3, channels, width) + conv(1, width, channels)
    for before, own in zip(outer, levels, strict=True):
        total += conv(3, before, own) + conv(3, own, own) + conv(2, own, own)
        total += conv(3, own, own) + conv(3, 2 * own, own) + conv(3, own, before)
    total += conv(1, 2, embed) + conv(1, embed + deepest, tokens) + conv(1, tokens, deepest)
    block = 4 * conv(1, tokens, tokens) + conv(1, tokens, ffn) + conv(1, ffn, tokens) + 2 * 2 * tokens + 1
    return total + blocks * block


@pytest.mark.parametrize(
    ("attributes", "facts"),
    [
        ({}, (3, 4, 48, 12, 384, 1536, 384)),
        (SMALL, (3, 2, 4, 2, 12, 20, 6)),
        ({"num_blocks": 6}, (3, 4, 48, 6, 384, 1536, 384)),
    ],
)
def test_number_of_parameters(attributes, facts):
    output, variables = shapes(UNetViT(**attributes), (1, 256, 256, 3))
    assert output.shape == (1, 256, 256, 3)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected_parameters(*facts)


@pytest.mark.slow
def test_a_block_is_attention_and_two_layers_by_hand():
    tokens = np.random.RandomState(0).standard_normal((2, 5, 12)).astype(np.float32)
    block = TransformerBlock(num_heads=3, ffn_width=20)
    variables = block.init(jax.random.key(0), tokens)
    np.testing.assert_array_equal(block.apply(variables, tokens), tokens)  # it begins as nothing
    params = draw(variables["params"])
    found = block.apply({"params": params}, tokens)

    def normed(x, name):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * params[name]["scale"] + params[name]["bias"]

    attention, x = params["attention"], normed(tokens, "attention_norm")
    query, key, value = (
        np.einsum("bnc,chd->bhnd", x, attention[name]["kernel"]) + attention[name]["bias"][:, None]
        for name in ("query", "key", "value")
    )
    weights = np.exp(np.einsum("bhnd,bhmd->bhnm", query, key) / np.sqrt(4))
    weights /= weights.sum(-1, keepdims=True)
    seen = np.einsum("bhnm,bhmd->bnhd", weights, value)
    expected = np.einsum("bnhd,hdc->bnc", seen, attention["out"]["kernel"]) + attention["out"]["bias"]
    expected = tokens + params["rezero"] * expected
    inside = normed(expected, "ffn_norm") @ params["ffn_in"]["kernel"] + params["ffn_in"]["bias"]
    inside = np.asarray(jax.scipy.stats.norm.cdf(inside)) * inside
    expected += params["rezero"] * (inside @ params["ffn_out"]["kernel"] + params["ffn_out"]["bias"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_places_reach_from_border_to_border():
    found = np.asarray(places(2, 3)).reshape(2, 3, 2)
    np.testing.assert_array_equal(found[..., 0], [[-1, -1, -1], [1, 1, 1]])
    np.testing.assert_array_equal(found[..., 1], [[-1, 0, 1], [-1, 0, 1]])
    np.testing.assert_array_equal(places(1, 2), [[-1, -1], [-1, 1]])


@pytest.mark.slow
def test_every_image_is_translated_by_itself_and_every_pixel_sees_all_others():
    network = UNetViT(**SMALL, norm="none")
    x = np.random.RandomState(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    variables = {"params": draw(shapes(network, x.shape)[1]["params"])}
    run = jax.jit(lambda x: network.apply(variables, x, train=True, dropout=True))
    alone = jnp.concatenate([run(image[None]) for image in x])
    np.testing.assert_allclose(run(x), alone, atol=1e-5)
    grads = jax.jit(jax.grad(lambda x: network.apply(variables, x, train=True)[0, 0, 0].sum()))(x)
    assert (np.abs(grads[0]).max(-1) > 0).mean() > 0.99
    assert not np.any(grads[1])


@pytest.mark.parametrize(
    ("attributes", "shape", "message"),
    [
        ({}, (1, 24, 32, 3), "num_downs=4 takes .* multiples of 16"),
        ({"width": 100}, (1, 32, 32, 3), "width=100 of a UNetViT is not a multiple of num_heads=6"),
        ({"norm": "layer"}, (1, 32, 32, 3), "unknown norm 'layer'"),
    ],
)
def test_wrong_settings_are_named(attributes, shape, message):
    with pytest.raises(InputError, match=message):
        shapes(UNetViT(**attributes), shape)


@pytest.mark.slow
def test_remat_and_bfloat16():
    x = np.random.RandomState(0).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)
    network = UNetViT(**{**SMALL, "num_downs": 1, "num_blocks": 1})
    params = jax.tree.map(jnp.float32, draw(shapes(network, x.shape)[1]["params"]))

    def grads(network):
        return jax.jit(jax.grad(lambda p: jnp.square(network.apply({"params": p}, x, train=True)).sum()))(params)

    plain, again = grads(network), grads(network.clone(remat=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain, again)
    full = jax.jit(lambda x: network.apply({"params": params}, x, train=True))(x)
    low = jax.jit(lambda x: network.clone(dtype=jnp.bfloat16).apply({"params": params}, x, train=True))(x)
    assert low.dtype == jnp.float32
    assert np.abs(low - full).mean() < 0.05 * np.abs(full).mean()


@pytest.mark.slow
@pytest.mark.parametrize("base", [configs.SMALL, configs.SMALL_CYCLEGAN])
def test_both_objectives_take_it(base):
    config = complete(base | {"generator": {**SMALL, "network": "p2p_jax.nets:UNetViT"}})
    check_objective(resolve(config.objective)(config), config, run=False)


def in_pytorch(torch, params, x, downs, heads, blocks):
    """Compute the network in PyTorch out of our weights, as tensors in our order."""
    f = torch.nn.functional

    def conv(name, x, stride=1):
        kernel = params[f"{name}/kernel"].permute(3, 2, 0, 1).contiguous()
        return f.conv2d(x, kernel, params[f"{name}/bias"], stride, kernel.shape[2] // 2 if kernel.shape[2] % 2 else 0)

    def level(name, x):
        for j in (1, 2):
            x = f.leaky_relu(conv(f"{name}_conv_{j}", f.instance_norm(x)))
        return x

    def dense(name, x):
        return x @ params[f"transformer/{name}/kernel"] + params[f"transformer/{name}/bias"]

    def norm(name, x):
        return f.layer_norm(x, x.shape[-1:], params[f"transformer/{name}/scale"], params[f"transformer/{name}/bias"])

    def attend(name, x):
        width = x.shape[-1]
        inward = [f"transformer/{name}/{part}" for part in ("query", "key", "value")]
        weight = torch.cat([params[f"{part}/kernel"].reshape(width, -1).T for part in inward])
        bias = torch.cat([params[f"{part}/bias"].reshape(-1) for part in inward])
        outward = params[f"transformer/{name}/out/kernel"].reshape(-1, width).T
        settings = {"bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0}
        settings |= {"out_proj_weight": outward, "out_proj_bias": params[f"transformer/{name}/out/bias"]}
        x = x.transpose(0, 1)
        y, _ = f.multi_head_attention_forward(x, x, x, width, heads, weight, bias, **settings)
        return y.transpose(0, 1)

    x, skips = f.leaky_relu(conv("stem", x)), []
    for i in range(1, downs + 1):
        skips.append(level(f"down_{i}", x))
        x = conv(f"down_{i}", skips[-1], 2)
    rows, columns = (torch.linspace(-1, 1, side, dtype=x.dtype) for side in x.shape[2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    waves = torch.sin(dense("positions", grid))
    tokens = torch.cat([waves.expand(len(x), *waves.shape), x.flatten(2).transpose(1, 2)], 2)
    tokens = dense("input", tokens)
    for i in range(1, blocks + 1):
        factor = params[f"transformer/block_{i}/rezero"]
        tokens = tokens + factor * attend(f"block_{i}/attention", norm(f"block_{i}/attention_norm", tokens))
        inside = f.gelu(dense(f"block_{i}/ffn_in", norm(f"block_{i}/ffn_norm", tokens)))
        tokens = tokens + factor * dense(f"block_{i}/ffn_out", inside)
    x = dense("output", tokens).transpose(1, 2).reshape(x.shape)
    for i in range(downs, 0, -1):
        x = conv(f"up_{i}", f.interpolate(x, scale_factor=2, mode="nearest"))
        x = level(f"up_{i}", torch.cat([x, skips[i - 1]], 1))
    return torch.tanh(conv("output", x))


def test_output_and_gradients_equal_pytorch_in_float64():
    torch = pytest.importorskip("torch")
    network, x = UNetViT(**SMALL, param_dtype=jnp.float64), np.random.RandomState(1).uniform(-1, 1, (2, 8, 12, 3))
    with precision("float64"):
        params = draw(shapes(network, x.shape)[1]["params"])

        @jax.jit
        def run(params, x):
            y, pull_back = jax.vjp(lambda params, x: network.apply({"params": params}, x, train=True), params, x)
            return y, *pull_back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

        y, grads, grad_x = jax.tree.map(np.asarray, run(jax.tree.map(jnp.asarray, params), jnp.asarray(x)))
    assert y.dtype == np.float64
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in flatten_dict(params, sep="/").items()}
    images = torch.tensor(x, requires_grad=True)
    there = in_pytorch(torch, tensors, images.permute(0, 3, 1, 2), 2, 3, 2).permute(0, 2, 3, 1)
    there.backward(torch.cos(torch.arange(there.numel(), dtype=there.dtype)).reshape(there.shape))
    np.testing.assert_allclose(y, there.detach(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(grad_x, images.grad, rtol=0, atol=1e-9 * np.abs(grad_x).max())
    for name, value in flatten_dict(grads, sep="/").items():
        expected = tensors[name].grad.numpy()
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9 * max(1, np.abs(expected).max()), err_msg=name)
