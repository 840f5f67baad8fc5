"""Recognises the network of a PyTorch state dict by its names and shapes."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.interop.network import name_some
from p2p_jax.interop.torch_names import Module, modules_of
from p2p_jax.nets import RECEPTIVE_FIELDS
from p2p_jax.nets.mobile_resnet import spread

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:(?:_orig_mod|module)\.)+")
_DEEPEST = 16  # layers of a U-Net's encoder, for images of 65,536 pixels
_MOST_BLOCKS = 64


def plain_names(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Return a state dict without the prefixes of wrappers.

    ``torch.compile`` adds "_orig_mod." before the names of a compiled module, ``DataParallel`` and
    ``DistributedDataParallel`` add "module.", at the network or at any part of it.

    Raises:
      InputError: two names become equal.
    """
    plain: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        short = _WRAPPERS.sub("", name)
        if short in plain:
            raise InputError(f"{source} has {short} twice, with and without a wrapper's name; save only one")
        plain[short] = value
    return plain


def recognise(tensors: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, Any], list[Module]]:
    """Return the section of the network, as far as names show it, and the list of its modules."""
    names = tensors.keys()
    if "model.model.0.weight" in names:
        down = re.compile(r"model\.model\.1\.model\.(3\.model\.)*1\.weight")
        num_downs = 1 + sum(1 for name in names if down.fullmatch(name))
        if num_downs < 2:
            raise InputError(f"{source}: a U-Net without inner layers; is the file complete?")
        if num_downs > _DEEPEST:
            raise InputError(f"{source}: a U-Net of {num_downs} layers; at most {_DEEPEST} are supported")
        section: dict[str, Any] = {"network": "p2p_jax.nets:UNet", "num_downs": num_downs, "dropout_layout": "pytorch"}
        first = "model.model.0.weight"
    elif any(re.match(r"model\.\d+\.conv_block\.\d+\.conv\.", name) for name in names):
        section = _recognise_mobile_resnet(tensors, source)
        return section, modules_of(section)
    elif any(re.match(r"model\.\d+\.conv_block\.", name) for name in names):
        section, first = _recognise_resnet(names, source)
    elif "net.0.weight" in names:
        section, first = {"network": "p2p_jax.nets:PatchGAN", "receptive_field": 1}, "net.0.weight"
    elif "model.0.weight" in names and tensors["model.0.weight"].shape[2:] == (4, 4):
        section, first = _recognise_patchgan(names, source), "model.0.weight"
    else:
        raise InputError(
            f"{source}: not a network of the PyTorch release (U-Net, ResNet, PatchGAN, PixelGAN) or of "
            f"GAN-Compression (MobileResNet); it has {name_some(names)}"
        )
    if first in tensors and tensors[first].ndim == 4:
        section["base_width"] = int(tensors[first].shape[0])
    else:
        raise InputError(f"{source}: {first} is not the weight of a convolution, with 4 dimensions")
    return section, modules_of({"dropout_rate": 0.0} | section)


def _recognise_patchgan(names: Any, source: str) -> dict[str, Any]:
    # The last convolution is at 3 n + 2, and others at 2, 5, ..., 3 n - 1; with CUT's filters between them at 4 n + 2.
    step = 4 if "model.2.filt" in names else 3
    last = max(int(name.split(".")[1]) for name in names if re.fullmatch(r"model\.\d+\.weight", name))
    fields = {n: field for field, n in RECEPTIVE_FIELDS.items() if n}
    if last % step != 2 or last // step not in fields:
        known = [str(step * n + 2) for n in sorted(fields)]
        raise InputError(
            f"{source}: a PatchGAN whose last weight is model.{last}.weight; those with 1 to {max(fields)} layers "
            f"(it is model.{', '.join(known[:-1])} or {known[-1]}) are supported; is the file complete?"
        )
    section = {"network": "p2p_jax.nets:PatchGAN", "receptive_field": fields[last // step]}
    return section | ({"downsampling": "antialiased"} if step == 4 else {})


def _recognise_resnet(names: Any, source: str) -> tuple[dict[str, Any], str]:
    blocks = {int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.conv_block\.", name))}
    inside = {int(match[1]) for name in names if (match := re.match(r"model\.\d+\.conv_block\.(\d+)\.weight", name))}
    padded = "model.1.weight" in names and "model.0.weight" not in names
    # If norms have weights, their positions are in `inside`: each follows its convolution.
    convolutions = [i for i in sorted(inside) if i - 1 not in inside]
    choices: dict[tuple[int, ...], tuple[bool, float]]
    choices = {(1, 5): (True, 0.0), (1, 6): (True, 0.5), (0, 3): (False, 0.0), (0, 4): (False, 0.5)}
    has_pads, dropout_rate = choices.get(tuple(convolutions), (None, 0.0))
    if len(blocks) != max(blocks) - min(blocks) + 1 or len(blocks) > _MOST_BLOCKS or has_pads is not padded:
        raise InputError(
            f"{source}: a ResNet with blocks {sorted(blocks)} and convolutions conv_block.{convolutions} in them, its "
            f"first one being model.{int(padded)}; the release has consecutive blocks, with convolutions 1 and 5 (6 "
            "with dropout), or 0 and 3 (4) without reflection padding"
        )
    section: dict[str, Any] = {
        "network": "p2p_jax.nets:ResNet",
        "num_blocks": len(blocks),
        "padding": "reflect" if padded else "zero",
        "dropout_rate": dropout_rate,
    }
    filters = {int(match[1]) for name in names if (match := re.fullmatch(r"model\.(\d+)\.filt", name))}
    if any(place < min(blocks) for place in filters):
        section["downsampling"] = "antialiased"
    if any(place > max(blocks) for place in filters):
        section["upsampling"] = "antialiased"
    return section, f"model.{int(padded)}.weight"


def _recognise_mobile_resnet(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Return the section of a generator of GAN-Compression; each layer may have its own width."""
    found = [m for name in tensors if (m := re.match(r"model\.(\d+)\.conv_block\.(\d+)\.conv\.0\.weight", name))]
    blocks, inside = ({int(m[i]) for m in found} for i in (1, 2))
    if blocks != set(range(10, 10 + len(blocks))) or inside != {1, 6} or not 0 < len(blocks) <= _MOST_BLOCKS:
        raise InputError(
            f"{source}: separable convolutions conv_block.{sorted(inside)} in blocks {sorted(blocks)}; those of "
            "GAN-Compression are 1 and 6 in blocks from model.10 on; is the file complete?"
        )
    after = 10 + len(blocks)
    places = [(1, 0, 1), (4, 0, 2), (7, 0, 4), *((block, 0, 4) for block in sorted(blocks))]
    places += [(after, 1, 2), (after + 3, 1, 1)]  # a transposed convolution has the output axis second
    bases = []
    for place, axis, scale in places:
        name = f"model.{place}" + (".conv_block.1.conv.2" if place in blocks else "") + ".weight"
        shape = tensors[name].shape if name in tensors else ()
        if len(shape) != 4:
            raise InputError(f"{source}: {name} is missing, or not a weight of 4 dimensions; is the file complete?")
        if shape[axis] % scale:
            raise InputError(
                f"{source}: {name} has {shape[axis]} channels, which is not a multiple of {scale} as in GAN-Compression"
            )
        bases.append(shape[axis] // scale)
    section: dict[str, Any] = {"network": "p2p_jax.nets:MobileResNet", "num_blocks": len(blocks), "dropout_rate": 0.0}
    channels = _short(bases)
    return section | {"base_width": bases[0]} | ({"channels": channels} if len(set(bases)) > 1 else {})


def _short(bases: Sequence[int]) -> str:
    """Return the shortest text that ``MobileResNet.channels`` takes for these widths."""
    ahead, inside, behind = bases[:3], bases[3:-2], bases[-2:]
    middles = inside[:1], inside[:: max(len(inside) // 3, 1)][:3]
    texts = ("_".join(map(str, [*ahead, *middle, *behind])) for middle in middles)
    fits = (text for text in texts if _spreads_to(text, bases))
    return next(fits, "_".join(map(str, bases)))


def _spreads_to(text: str, bases: Sequence[int]) -> bool:
    try:
        return spread(text, len(bases) - 5) == list(bases)
    except InputError:
        return False


def find_norm(
    tensors: Mapping[str, np.ndarray], modules: list[Module], source: str, asked: str | None
) -> tuple[str, bool]:
    """Return the norm, and whether convolutions before norms have biases."""
    norms = [m for m in modules if m.is_norm]
    before = [m for m, after in itertools.pairwise(modules) if after.is_norm and not m.always_biased]
    biased = {f"{m.name}.bias" in tensors for m in before}
    if len(biased) > 1:
        without = next(m.name for m in before if f"{m.name}.bias" not in tensors)
        raise InputError(f"{source}: {without}.bias is missing, and other convolutions have one; is the file complete?")
    has_bias = biased.pop()
    scaled, counted = (any(f"{m.name}.{leaf}" in tensors for m in norms) for leaf in ("weight", "running_mean"))
    instance = "instance_affine" if scaled else "instance"
    found = "batch" if scaled and counted else instance if scaled or counted or has_bias else "none"
    if counted and not scaled:
        found = "instance_tracked"
    fits = {"instance": scaled or counted or has_bias, "batch": found == "batch", "none": not (scaled or counted)}
    if not fits.get(asked or found, True):
        looks = {
            "none": "no norm",
            "instance_affine": "instance norm with weights",
            "instance_tracked": "instance norm with running statistics",
        }.get(found, f"{found} norm")
        raise InputError(f"{source} looks like {looks}, not like norm={asked}")
    return (instance if asked == "instance" else asked or found), has_bias
