"""Networks of the PyTorch release, in every layout of its years: the same outputs here, and the same file back."""

import functools

import flax
import jax
import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.interop.torch_state_dicts import read_network, write_network
from p2p_jax.objectives import make_network

torch = pytest.importorskip("torch")
from support import torch_release as release  # noqa: E402, it needs PyTorch


def with_statistics(tensors):
    """Add what PyTorch before 0.4 wrote for instance norm: running statistics beside every norm's place."""
    added = dict(tensors)
    for name in [name for name in tensors if name.endswith(".bias")]:
        layer, place = name.removesuffix(".bias").rpartition(".")[::2]
        norm = f"{layer}.{int(place) + 1}"
        if f"{norm}.weight" not in tensors and name in tensors and name != list(tensors)[-1]:
            channels = len(tensors[name])
            added |= {f"{norm}.running_mean": np.full(channels, 7.0), f"{norm}.running_var": np.full(channels, 3.0)}
    return added


def affine_with_statistics(tensors):
    """The same for norms with weights."""
    added = dict(tensors)
    for name, value in tensors.items():
        if value.ndim == 1 and name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            added |= {
                f"{layer}.running_mean": np.full(len(value), 7.0),
                f"{layer}.running_var": np.full(len(value), 3.0),
            }
    return added


def without_counters(tensors):
    """Drop what PyTorch before 0.4.1 did not write."""
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}


def parallel(tensors):
    """Add the prefix of ``DataParallel``."""
    return {f"module.{name}": value for name, value in tensors.items()}


def compiled(tensors):
    """Add the prefix of ``torch.compile``."""
    return {f"_orig_mod.{name}": value for name, value in tensors.items()}


def wrapped_within(tensors):
    """The network was wrapped twice, and a part of it once more."""
    return {f"module._orig_mod.{name.replace('model.', 'model._orig_mod.', 1)}": v for name, v in tensors.items()}


UNET = {"network": "p2p_jax.nets:UNet", "dropout_layout": "pytorch"}
RESNET = {"network": "p2p_jax.nets:ResNet"}
PATCH = {"network": "p2p_jax.nets:PatchGAN"}
MOBILE = {"network": "p2p_jax.nets:MobileResNet", "dropout_rate": 0.0}
SMOOTH = {"downsampling": "antialiased"}
TRACKED = {"norm": "instance_tracked"}
INSTANCE = {"norm": "instance"}
# name: twin, side of the images, what is recognised, how the file differs from a state dict, options of the reader
CASES = {
    "unet": (lambda: release.UNet(3, 3, 5, 4), 64, UNET | {"num_downs": 5, "norm": "batch"}),
    "unet 8 downs": (lambda: release.UNet(3, 3, 8, 2), 256, UNET | {"num_downs": 8, "norm": "batch", "base_width": 2}),
    "unet 7 downs, 1 to 2 channels": (lambda: release.UNet(1, 2, 7, 2), 128, UNET | {"num_downs": 7, "norm": "batch"}),
    "unet instance": (lambda: release.UNet(3, 3, 5, 4, "instance"), 64, UNET | {"num_downs": 5} | INSTANCE),
    "unet none": (lambda: release.UNet(3, 3, 5, 4, "none"), 32, UNET | {"norm": "none", "biases": "last"}),
    "unet with biases": (lambda: release.UNet(3, 3, 5, 4, bias=True), 64, UNET | {"norm": "batch", "biases": "all"}),
    "unet up skip": (lambda: release.UNet(3, 3, 5, 4, order="up_skip"), 64, UNET, None, {"concat": "up_skip"}),
    "unet module.": (lambda: release.UNet(3, 3, 5, 4), 64, UNET | {"norm": "batch"}, parallel),
    "unet _orig_mod.": (lambda: release.UNet(3, 3, 5, 4), 64, UNET | {"norm": "batch"}, compiled),
    "unet wrapped within": (lambda: release.UNet(3, 3, 5, 4), 64, UNET | {"norm": "batch"}, wrapped_within),
    "unet tracked": (lambda: release.UNet(3, 3, 5, 4, "instance_tracked"), 64, UNET | TRACKED),
    "unet without counters": (lambda: release.UNet(3, 3, 5, 4), 64, UNET | {"norm": "batch"}, without_counters),
    "unet affine": (
        lambda: release.UNet(3, 3, 5, 4, "instance_affine", True),
        64,
        UNET | {"norm": "instance_affine"},
        affine_with_statistics,
        {"norm": "instance"},
    ),
    "resnet 9": (lambda: release.ResNet(3, 3, 9, 4), 32, RESNET | {"num_blocks": 9, "dropout_rate": 0.0} | INSTANCE),
    "resnet 6": (lambda: release.ResNet(3, 1, 6, 4), 32, RESNET | {"num_blocks": 6, "padding": "reflect"} | INSTANCE),
    "resnet 9 dropout": (
        lambda: release.ResNet(3, 3, 9, 4, dropout=1),
        32,
        RESNET | {"num_blocks": 9, "dropout_rate": 0.5} | INSTANCE,
    ),
    "resnet 6 dropout batch": (
        lambda: release.ResNet(3, 3, 6, 4, "batch", dropout=1),
        32,
        RESNET | {"num_blocks": 6, "dropout_rate": 0.5, "norm": "batch"},
    ),
    "resnet statistics": (
        lambda: release.ResNet(3, 3, 9, 4),
        32,
        RESNET | {"num_blocks": 9} | INSTANCE,
        with_statistics,
        {"norm": "instance"},
    ),
    "resnet affine": (
        lambda: release.ResNet(3, 3, 6, 4, "instance_affine"),
        32,
        RESNET | {"norm": "instance_affine"},
    ),
    "resnet affine statistics": (
        lambda: release.ResNet(3, 3, 6, 4, "instance_affine"),
        32,
        RESNET | {"norm": "instance_affine"},
        affine_with_statistics,
        {"norm": "instance"},
    ),
    "resnet biases batch": (
        lambda: release.ResNet(3, 3, 6, 4, "batch", bias=True),
        32,
        RESNET | {"norm": "batch", "biases": "all"},
        without_counters,
    ),
    "resnet zeros": (
        lambda: release.ResNet(3, 3, 9, 4, padded=False),
        32,
        RESNET | {"num_blocks": 9, "padding": "zero"} | INSTANCE,
    ),
    "resnet zeros dropout": (
        lambda: release.ResNet(3, 3, 6, 4, padded=False, dropout=1, norm="batch"),
        32,
        RESNET | {"padding": "zero", "dropout_rate": 0.5, "norm": "batch"},
    ),
    "resnet tracked": (lambda: release.ResNet(3, 3, 2, 4, "instance_tracked"), 32, RESNET | TRACKED),
    "resnet tracked, of PyTorch 0.4.0": (
        lambda: release.ResNet(3, 3, 1, 4, "instance_tracked", dropout=1),
        32,
        RESNET | {"dropout_rate": 0.5} | TRACKED,
        without_counters,
    ),
    "resnet batch": (lambda: release.ResNet(3, 3, 2, 4, "batch"), 32, RESNET | {"norm": "batch"}),
    "resnet batch without counters": (
        lambda: release.ResNet(3, 3, 2, 4, "batch"),
        32,
        RESNET | {"norm": "batch"},
        without_counters,
    ),
    "resnet _orig_mod.": (lambda: release.ResNet(3, 3, 6, 4), 32, RESNET | INSTANCE, compiled),
    "mobile resnet": (
        lambda: release.MobileResNet(3, 3, [4] * 14),
        32,
        MOBILE | {"num_blocks": 9, "base_width": 4, "channels": None} | INSTANCE,
    ),
    "mobile resnet batch": (
        lambda: release.MobileResNet(3, 3, [4] * 8, "batch"),
        32,
        MOBILE | {"channels": None, "norm": "batch"},
    ),
    "mobile resnet of a search": (
        lambda: release.MobileResNet(3, 3, [3, 2, 4, 2, 2, 2, 4, 4, 4, 8, 8, 8, 2, 3]),
        32,
        MOBILE | {"channels": "3_2_4_2_4_8_2_3"} | INSTANCE,
    ),
    "mobile resnet with one width of blocks": (
        lambda: release.MobileResNet(3, 1, [2, 3, 4, *[2] * 9, 4, 5]),
        32,
        MOBILE | {"channels": "2_3_4_2_4_5"} | INSTANCE,
        parallel,
    ),
    "mobile resnet of the older search": (  # all but every third block have the whole width
        lambda: release.MobileResNet(1, 3, [2, 3, 4, 2, 4, 4, 3, 4, 4, 2, 4, 4, 2, 3]),
        32,
        MOBILE | {"channels": "2_3_4_2_4_4_3_4_4_2_4_4_2_3"} | INSTANCE,
        compiled,
    ),
    **{
        f"patchgan {n}": (
            lambda n=n: release.PatchGAN(6, n, 4),
            128,
            PATCH | {"receptive_field": field, "norm": "batch", "base_width": 4},
        )
        for n, field in zip((1, 2, 3, 4, 5), (16, 34, 70, 142, 286), strict=True)
    },
    "patchgan instance": (
        lambda: release.PatchGAN(3, 3, 4, "instance"),
        32,
        PATCH | {"receptive_field": 70} | INSTANCE,
    ),
    "patchgan none": (lambda: release.PatchGAN(3, 3, 4, "none"), 32, PATCH | {"norm": "none", "biases": "last"}),
    "patchgan biases": (lambda: release.PatchGAN(6, 3, 4, bias=True), 32, PATCH | {"norm": "batch", "biases": "all"}),
    "patchgan padding 2": (
        lambda: release.PatchGAN(6, 3, 4, bias=True, padding=2),
        32,
        PATCH | {"biases": "all", "padding": 2},
        without_counters,
        {"discriminator_padding": 2},
    ),
    "patchgan tracked": (lambda: release.PatchGAN(3, 3, 4, "instance_tracked"), 32, PATCH | TRACKED),
    "patchgan _orig_mod.": (lambda: release.PatchGAN(6, 3, 4), 32, PATCH | {"norm": "batch"}, wrapped_within),
    "resnet of CUT": (
        lambda: release.SmoothResNet(3, 3, 9, 4),
        32,
        RESNET | {"num_blocks": 9, "dropout_rate": 0.0, **SMOOTH, "upsampling": "antialiased"} | INSTANCE,
    ),
    "resnet of CUT, batch, dropout": (
        lambda: release.SmoothResNet(3, 1, 2, 4, "batch", dropout=1),
        32,
        RESNET | {"num_blocks": 2, "dropout_rate": 0.5, "norm": "batch", **SMOOTH, "upsampling": "antialiased"},
        parallel,
    ),
    "resnet of CUT, --no_antialias": (
        lambda: release.SmoothResNet(3, 3, 1, 4, down=False),
        32,
        RESNET | {"num_blocks": 1, "downsampling": None, "upsampling": "antialiased"} | INSTANCE,
    ),
    "resnet of CUT, --no_antialias_up": (
        lambda: release.SmoothResNet(3, 3, 1, 4, up=False),
        32,
        RESNET | {"num_blocks": 1, "upsampling": None, **SMOOTH} | INSTANCE,
        compiled,
    ),
    **{
        f"patchgan of CUT {n}": (
            lambda n=n, norm=norm: release.SmoothPatchGAN(3, n, 4, norm),
            128,
            PATCH | {"receptive_field": field, "norm": norm, **SMOOTH},
        )
        for n, field, norm in ((1, 16, "batch"), (3, 70, "instance"), (5, 286, "instance"))
    },
    "pixelgan": (lambda: release.PixelGAN(6, 4), 16, PATCH | {"receptive_field": 1, "norm": "batch"}),
    "pixelgan instance": (lambda: release.PixelGAN(3, 4, "instance"), 16, PATCH | {"receptive_field": 1} | INSTANCE),
}


def run(network, variables, images, **switches):
    return np.asarray(jax.jit(functools.partial(network.apply, **switches))(variables, images))


@pytest.mark.parametrize("name", CASES)
def test_network_of_the_release(name):
    make, side, expected, *more = CASES[name]
    disguise, options = (more + [None, {}][len(more) :])[:2] if more else (None, {})
    twin = release.randomise(make(), seed=len(name))
    for module in twin.modules():
        if hasattr(module, "num_batches_tracked") and module.num_batches_tracked is not None:
            module.num_batches_tracked.fill_(1234)
    tensors = {name: value.numpy().copy() for name, value in twin.state_dict().items()}
    read = read_network((disguise or dict)(tensors), "net.pth", **options)

    assert {key: read.section.get(key) for key in expected} == expected
    assert read.num_parameters == sum(p.numel() for p in twin.parameters())
    counted = any(key.endswith("num_batches_tracked") for key in (disguise or dict)(tensors))
    assert read.step == (1234 if counted else 0)

    images = np.random.RandomState(0).uniform(-1, 1, (2, side, side, read.in_channels)).astype(np.float32)
    network = make_network(read.section, out_channels=read.out_channels)
    quiet = {} if read.is_discriminator else {"dropout": False}
    for train in (False, True):  # in this order: training moves the statistics of the twin
        twin.train(train)
        for module in twin.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        with torch.no_grad():
            there = twin(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        here = run(network, read.variables, images, train=train, **quiet)
        assert here.shape == there.shape and np.std(there) > 0.05
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-4 * np.abs(there).max())

    # Back: the file that the twin's own state dict is, to the bit and in its order.
    attributes = {key: getattr(network, key) for key in type(network).__dataclass_fields__ if hasattr(network, key)}
    flat = flax.traverse_util.flatten_dict(read.variables, sep="/")
    step = 1234 if "num_batches_tracked" in str(list(tensors)) else 0
    section = attributes | {"network": read.section["network"]}
    back = write_network(section, flat, step, concat=options.get("concat", "skip_up"))
    assert list(back) == list(tensors)
    for key, value in tensors.items():
        assert back[key].dtype == value.dtype and back[key].tobytes() == value.tobytes(), key


def test_concat_order_matters():
    """The option is no decoration: the order leaves no trace in the names, but another picture."""
    twin = release.randomise(release.UNet(3, 3, 5, 4, order="up_skip"), seed=1)
    tensors = {name: value.numpy() for name, value in twin.state_dict().items()}
    wrong, right = (read_network(tensors, "net.pth", concat=concat) for concat in ("skip_up", "up_skip"))
    images = np.random.RandomState(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    network = make_network(right.section, out_channels=3)
    outputs = [run(network, read.variables, images, train=True, dropout=False) for read in (wrong, right)]
    assert np.abs(outputs[0] - outputs[1]).mean() > 0.05


def tensors_of(network):
    return {name: value.numpy().copy() for name, value in release.randomise(network, seed=0).state_dict().items()}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: {"features.0.weight": np.zeros((4, 3, 3, 3))}, "not a network of the PyTorch release"),
        (lambda: tensors_of(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))), "not a network"),
        (lambda: tensors_of(release.UNet(3, 3, 5, 4)) | {"model.extra.weight": np.zeros(3)}, "model.extra.weight"),
        (
            lambda: {k: v for k, v in tensors_of(release.UNet(3, 3, 5, 4)).items() if k != "model.model.3.weight"},
            "model.model.3.weight is missing",
        ),
        (
            lambda: {
                k: v for k, v in tensors_of(release.UNet(3, 3, 5, 4)).items() if "model.model.1.model.2." not in k
            },
            r"model.model.1.model.2.\w+ is missing",
        ),
        (
            lambda: tensors_of(release.UNet(3, 3, 5, 4)) | {"model.model.1.model.1.weight": np.zeros((9, 4, 4, 4))},
            r"model.model.1.model.1.weight has the shape \(4, 4, 4, 9\)",
        ),
        (
            lambda: tensors_of(release.ResNet(3, 3, 6, 4)) | {"model.13.conv_block.1.weight": np.zeros((16, 16, 5, 5))},
            "model.13.conv_block.1.weight has the shape",
        ),
        (
            lambda: {k: v for k, v in tensors_of(release.ResNet(3, 3, 6, 4)).items() if "model.12." not in k},
            "a ResNet with blocks",
        ),
        (
            lambda: {k: v for k, v in tensors_of(release.PatchGAN(6, 3, 4)).items() if "model.11." not in k},
            "whose last weight is model.9.weight",
        ),
        (
            lambda: tensors_of(release.SmoothPatchGAN(3, 3, 4)) | {"model.6.filt": np.full((8, 1, 3, 3), 1 / 9)},
            r"model.6.filt is not the filter of CUT's networks, \[1, 2, 1\] each way",
        ),
        (
            lambda: tensors_of(release.SmoothResNet(3, 3, 2, 4)) | {"model.14.filt": np.ones((16, 1, 3, 3))},
            r"model.14.filt is not the filter of CUT's networks, \[1, 3, 3, 1\]",
        ),
        (
            lambda: {k: v for k, v in tensors_of(release.SmoothResNet(3, 3, 2, 4)).items() if k != "model.11.filt"},
            "model.11.filt is missing",
        ),
        (
            lambda: tensors_of(release.ResNet(3, 3, 6, 4)) | {"model.6.filt": np.ones((8, 1, 3, 3))},
            "model.8.bias is missing",
        ),
        (
            lambda: tensors_of(release.UNet(3, 3, 5, 4)) | {"model.model.3.bias": np.full(3, np.nan)},
            "model.model.3.bias holds numbers that are not finite",
        ),
    ],
)
def test_other_architectures_are_refused(tensors, message):
    with pytest.raises(InputError, match=message) as error:
        read_network(tensors(), "net.pth")
    assert str(error.value).startswith("net.pth")


def test_a_norm_that_the_names_contradict_is_refused():
    with pytest.raises(InputError, match="looks like instance norm, not like norm=batch"):
        read_network(tensors_of(release.ResNet(3, 3, 6, 4)), "net.pth", norm="batch")
    with pytest.raises(InputError, match="looks like batch norm, not like norm=none"):
        read_network(tensors_of(release.PatchGAN(3, 3, 4)), "net.pth", norm="none")
