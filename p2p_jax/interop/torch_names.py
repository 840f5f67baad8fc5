"""The modules of the PyTorch release's networks, of all years, and of CUT's, and our layer for each one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from p2p_jax.nets import RECEPTIVE_FIELDS


class Module(NamedTuple):
    """A module of the release.

    Attributes:
      name: name in the release, such as "model.model.0".
      layer: our name, such as "down_1" or "block_1/conv_1".
      is_norm: whether it is a normalisation; it has a name only if it has weights or statistics.
      after_concat: whether its input is a concatenation of a skip and the features from below.
      always_biased: whether it has a bias regardless of the norm that follows.
    """

    name: str
    layer: str
    is_norm: bool = False
    after_concat: bool = False
    always_biased: bool = False


class Filter(NamedTuple):
    """A fixed filter of CUT's networks, a module with a buffer "filt".

    Attributes:
      name: name in CUT, such as "model.7".
      layer: our layer: the convolution before it (downsampling) or after it (upsampling).
      is_up: whether it belongs to an upsampling.
    """

    name: str
    layer: str
    is_up: bool = False


def unet(num_downs: int) -> Iterator[Module]:
    """List the modules of a U-Net: nested blocks, each with its down- and upsampling layers."""

    def block(level):
        if level == 1:
            return "model.model."
        return "model.model.1" + ".model.3" * (level - 2) + ".model."

    yield Module(block(1) + "0", "down_1")
    for level in range(2, num_downs + 1):
        yield Module(block(level) + "1", f"down_{level}")
        if level < num_downs:
            yield Module(block(level) + "2", f"down_{level}_norm", is_norm=True)
    for level in range(num_downs, 1, -1):
        innermost = level == num_downs
        yield Module(block(level) + ("3" if innermost else "5"), f"up_{level}", after_concat=not innermost)
        yield Module(block(level) + ("4" if innermost else "6"), f"up_{level}_norm", is_norm=True)
    yield Module(block(1) + "3", "up_1", after_concat=True)


def resnet(
    num_blocks: int,
    *,
    padded: bool,
    dropout: bool,
    separable: bool = False,
    blurred_down: bool = False,
    blurred_up: bool = False,
) -> Iterator[Module]:
    """List the modules of a ResNet, one after the other.

    Args:
      num_blocks: number of residual blocks.
      padded: whether there is a module for the padding before every convolution that keeps the size.
      dropout: whether there is a module for dropout between the two convolutions of a block.
      separable: whether blocks have the separable convolutions of GAN-Compression; their instance norms have no names.
      blurred_down: whether there is a module for a filter after each downsampling, as in CUT.
      blurred_up: the same before each upsampling.
    """
    pad, place = int(padded), int(padded)

    def with_norm(layer):
        nonlocal place
        yield Module(f"model.{place}", layer)
        yield Module(f"model.{place + 1}", f"{layer}_norm", is_norm=True)
        place += 3  # a ReLU follows

    yield from with_norm("stem")
    for layer in ("down_1", "down_2"):
        yield from with_norm(layer)
        place += blurred_down
    for i in range(1, num_blocks + 1):
        first, second = pad, 2 * pad + 3 + dropout
        for j, inside in enumerate((first, second), start=1):
            name = f"model.{place}.conv_block."
            layer = f"block_{i}/conv_{j}"
            if separable:
                yield Module(f"{name}{inside}.conv.0", f"{layer}/depthwise", always_biased=True)
                yield Module(f"{name}{inside}.conv.2", f"{layer}/pointwise", always_biased=True)
            else:
                yield Module(f"{name}{inside}", layer)
            yield Module(f"{name}{inside + 1}", f"{layer}_norm", is_norm=True)
        place += 1
    for layer in ("up_2", "up_1"):
        place += blurred_up
        yield from with_norm(layer)
    yield Module(f"model.{place + pad}", "output")


def patchgan(num_layers: int, *, blurred_down: bool = False) -> Iterator[Module]:
    """List the modules of a PatchGAN with this many downsamplings, each with a filter if `blurred_down`.

    0 is the PixelGAN.
    """
    if num_layers == 0:
        yield Module("net.0", "conv_1")
        yield Module("net.2", "conv_2")
        yield Module("net.3", "conv_2_norm", is_norm=True)
        yield Module("net.5", "logits")
        return
    yield Module("model.0", "conv_1")
    step = 3 + blurred_down
    for i in range(1, num_layers + 1):
        yield Module(f"model.{step * i - 1}", f"conv_{i + 1}")
        yield Module(f"model.{step * i}", f"conv_{i + 1}_norm", is_norm=True)
    yield Module(f"model.{step * num_layers + 2}", "logits")


def modules_of(section: Mapping[str, Any]) -> list[Module]:
    """List the modules of the network that a config section describes; the section must give all attributes."""
    kind = section["network"].partition(":")[2]
    if kind == "UNet":
        return list(unet(section["num_downs"]))
    if kind == "ResNet":
        facts = {"padded": section["padding"] == "reflect", "dropout": section["dropout_rate"] > 0}
        down, up = (section.get(f"{way}sampling") == "antialiased" for way in ("down", "up"))
        return list(resnet(section["num_blocks"], **facts, blurred_down=down, blurred_up=up))
    if kind == "MobileResNet":  # it always has a module for dropout
        return list(resnet(section["num_blocks"], padded=True, dropout=True, separable=True))
    blurred = section.get("downsampling") == "antialiased"
    return list(patchgan(RECEPTIVE_FIELDS[section["receptive_field"]], blurred_down=blurred))


def filters_of(section: Mapping[str, Any], modules: Sequence[Module]) -> Iterator[Filter]:
    """List the filters of the network that a config section describes, given its other modules."""
    ways = {"down": section.get("downsampling") == "antialiased", "up": section.get("upsampling") == "antialiased"}
    if section["network"].endswith(":PatchGAN"):
        ways["conv"] = ways.pop("down") and section["receptive_field"] > 1
    for module in modules[:-3] if "conv" in ways else modules:  # in a PatchGAN, the last two keep the size
        way = module.layer.partition("_")[0]
        if ways.get(way) and not module.is_norm:
            name, _, place = module.name.rpartition(".")
            # The first convolution of a PatchGAN has no norm; only an activation is between it and the filter.
            after = -1 if way == "up" else 2 if module.layer == "conv_1" else 3
            yield Filter(f"{name}.{int(place) + after}", module.layer, is_up=way == "up")
