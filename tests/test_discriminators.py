"""Discriminators with several maps of logits: at several scales, and as a U-Net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from p2p_jax.config import complete, resolve
from p2p_jax.errors import InputError
from p2p_jax.nets import MultiScalePatchGAN, PatchGAN, UNetDiscriminator
from p2p_jax.nets.resampling import halve
from p2p_jax.testing import check_objective
from support import configs
from support.precision import precision


def shapes(network, shape):
    return jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), jnp.zeros(shape))


def count(network, shape):
    return sum(x.size for x in jax.tree.leaves(shapes(network, shape)[1]["params"]))


@pytest.mark.slow
def test_scales_are_patchgans_of_their_own_on_halved_images():
    x = np.random.RandomState(0).uniform(-1, 1, (2, 25, 34, 6)).astype(np.float32)
    own = {"receptive_field": 16, "base_width": 4, "norm": "instance", "padding": 2}
    network = MultiScalePatchGAN(**own, num_scales=3)
    variables = network.init(jax.random.key(0), x, train=False)
    assert list(variables["params"]) == ["scale_1", "scale_2", "scale_3"]
    maps = network.apply(variables, x, train=True)
    assert isinstance(maps, tuple) and len(maps) == 3
    for i, logits in enumerate(maps, 1):
        expected = PatchGAN(**own).apply({"params": variables["params"][f"scale_{i}"]}, x, train=True)
        np.testing.assert_allclose(logits, expected, atol=1e-6)
        x = halve(x)
    kernels = [variables["params"][f"scale_{i}"]["conv_1"]["kernel"] for i in (1, 2)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_pix2pixhd_has_three_times_the_parameters():
    one, three = PatchGAN(norm="instance"), MultiScalePatchGAN(norm="instance", num_scales=3, padding=2)
    assert count(three, (1, 128, 128, 3)) == 3 * count(one, (1, 128, 128, 3)) == 3 * 2_764_737


@pytest.mark.parametrize(("scales", "smallest"), [(1, 24), (2, 47), (3, 93)])
def test_the_smallest_image_of_several_scales(scales, smallest):
    network = MultiScalePatchGAN(num_scales=scales, base_width=2)
    assert shapes(network, (1, smallest, smallest, 3))[0][-1].shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match=f"num_scales={scales} .* at least {smallest}x{smallest} pixels, not"):
        shapes(network, (1, smallest - 1, 200, 3))
    with pytest.raises(InputError, match="choose one of 1, 16, 34, 70, 142, 286"):
        shapes(MultiScalePatchGAN(receptive_field=71), (1, 99, 99, 3))


def test_statistics_of_scales_stand_by_their_names():
    network = MultiScalePatchGAN(receptive_field=16, base_width=2, spectral_norm=True)
    stats = shapes(network, (1, 16, 16, 3))[1]["batch_stats"]
    assert sorted(stats) == ["scale_1", "scale_2"]
    assert sorted(stats["scale_2"]) == ["conv_1_spectral", "conv_2_norm", "conv_2_spectral", "logits_spectral"]


@pytest.mark.parametrize(("encoder", "published"), [(False, 4_376_897), (True, 4_376_897 + 9 * 512 + 1)])
def test_number_of_parameters_of_the_unet(encoder, published):
    network = UNetDiscriminator(encoder_logits=encoder)
    output, variables = shapes(network, (2, 64, 96, 3))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == published
    maps = output if encoder else (output,)
    assert [x.shape for x in maps] == [(2, 8, 12, 1)] * encoder + [(2, 64, 96, 1)]
    assert {x.dtype for x in maps} == {jnp.dtype("float32")}


def test_sides_that_do_not_fit_the_unet():
    with pytest.raises(InputError, match="num_downs=3 takes images whose sides are multiples of 8, not 64x60"):
        shapes(UNetDiscriminator(), (1, 64, 60, 3))


@pytest.mark.slow
def test_a_pixels_logit_sees_what_is_around_it():
    network, x = UNetDiscriminator(base_width=2, num_downs=2), jnp.ones((1, 64, 64, 1))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes(network, x.shape)[1])

    @jax.jit
    def seen(x):
        def logit(x, i, at):
            return network.apply(variables, x, train=False)[i][0, at, at, 0]

        return jax.grad(logit)(x, 0, 8), jax.grad(logit)(x, 1, 32)

    patches, pixels = map(np.asarray, seen(x))
    # A patch: 3x3, twice 4x4 of stride 2, 3x3. A pixel: through three 3x3, twice a resizing and 3x3, 6 of the deepest.
    for found, side in ((patches, 20), (pixels, 32)):
        rows = np.flatnonzero(found[0, :, :, 0].any(axis=1))
        assert len(rows) == rows[-1] - rows[0] + 1 == side


def in_pytorch(torch, params, vectors, x, downs):
    """Compute the U-Net in PyTorch out of our weights, as tensors in our order; returns the maps and new vectors."""
    f, moved = torch.nn.functional, {}

    def conv(name, x, stride=1, padding=1):
        kernel = params[f"{name}/kernel"].permute(3, 2, 0, 1).contiguous()
        if f"{name}_spectral/u" in vectors:
            matrix = params[f"{name}/kernel"].permute(3, 0, 1, 2).flatten(1)
            with torch.no_grad():
                u = f.normalize(matrix @ vectors[f"{name}_spectral/v"], dim=0)
                v = f.normalize(matrix.T @ u, dim=0)
            moved.update({f"{name}_spectral/u": u, f"{name}_spectral/v": v})
            kernel = kernel / torch.dot(u, matrix @ v)
        return f.conv2d(x, kernel, params.get(f"{name}/bias"), stride, padding)

    def active(*args):
        return f.leaky_relu(conv(*args), 0.2)

    x, skips = active("stem", x), []
    for i in range(1, downs + 1):
        skips.append(x)
        x = active(f"down_{i}", x, 2)
    patches = conv("encoder_logits", x)
    for i in range(downs, 0, -1):
        x = f.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = active(f"up_{i}", x) + skips[i - 1]
    return patches, conv("logits", active("last_2", active("last_1", x))), moved


def test_the_unet_equals_pytorch_in_float64():
    torch = pytest.importorskip("torch")
    random = np.random.RandomState(0)
    network = UNetDiscriminator(base_width=3, num_downs=2, param_dtype=jnp.float64, init_gain=0.3)
    x = random.uniform(-1, 1, (2, 12, 8, 3))
    with precision("float64"):
        variables = network.init(jax.random.key(0), jnp.asarray(x), train=False)

        @jax.jit
        def run(params, x):
            def judge(params, x):
                maps, moved = network.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
                return sum(jnp.sin(logits).sum() for logits in maps), (maps, moved["batch_stats"])

            return jax.grad(judge, (0, 1), has_aux=True)(params, x)

        (grads, grad_x), (maps, moved) = jax.tree.map(np.asarray, run(variables["params"], jnp.asarray(x)))
    flat = {key: flatten_dict(tree, sep="/") for key, tree in variables.items()}
    params = {name: torch.tensor(np.asarray(value), requires_grad=True) for name, value in flat["params"].items()}
    vectors = {name: torch.tensor(np.asarray(value)) for name, value in flat["batch_stats"].items()}
    images = torch.tensor(x, requires_grad=True)
    *there, vectors = in_pytorch(torch, params, vectors, images.permute(0, 3, 1, 2), 2)
    sum(torch.sin(logits).sum() for logits in there).backward()
    for ours, theirs in zip(maps, there, strict=True):
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).detach(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(grad_x, images.grad, rtol=0, atol=1e-9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), moved, unflatten_dict(vectors, sep="/"))
    for name, value in flatten_dict(grads, sep="/").items():
        np.testing.assert_allclose(value, params[name].grad, rtol=0, atol=1e-9, err_msg=name)


MAPS = {
    "scales": {"network": "p2p_jax.nets:MultiScalePatchGAN", "receptive_field": 1, "base_width": 2, "norm": "none"},
    "unet": {"network": "p2p_jax.nets:UNetDiscriminator", "base_width": 2, "num_downs": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("base", [configs.SMALL, configs.SMALL_CYCLEGAN])
@pytest.mark.parametrize("name", MAPS)
def test_both_objectives_take_several_maps(base, name):
    config = complete(base | {"discriminator": MAPS[name]})
    check_objective(resolve(config.objective)(config), config, run=False)


def test_which_discriminators_see_images_alone():
    """Whose logits of an image change neither by its batch nor by an earlier call."""
    norms = ("batch", "instance", "instance_affine", "instance_tracked", "none")
    assert [PatchGAN(norm=norm).sees_images_alone for norm in norms] == [False, True, True, False, True]
    assert not PatchGAN(norm="none", spectral_norm=True).sees_images_alone
    assert MultiScalePatchGAN(norm="instance").sees_images_alone
    assert [UNetDiscriminator(spectral_norm=moves).sees_images_alone for moves in (True, False)] == [False, True]
    assert all("sees_images_alone" in vars(kind) for kind in (PatchGAN, MultiScalePatchGAN, UNetDiscriminator))
