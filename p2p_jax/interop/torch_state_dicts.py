"""State dicts of the PyTorch release of pix2pix and CycleGAN, in all its years, from and to variables of Flax.

Reading and writing both go by the names in ``torch_names.py``. Facts that differ from year to year are read off the
names; those that leave no trace in them are options of ``read_network``.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from p2p_jax.errors import InputError
from p2p_jax.interop.network import ForeignNetwork, check_variables, name_some, title
from p2p_jax.interop.torch_names import Module, modules_of
from p2p_jax.nets import RECEPTIVE_FIELDS

UP_SKIP, SKIP_UP = "up_skip", "skip_up"
CONCATS = (SKIP_UP, UP_SKIP)
"""Orders in which a U-Net's skips are concatenated: today's, and that before 2017-09-22."""
NORMS = ("batch", "instance", "none")

_LEAVES = {"weight": ("params", "scale"), "bias": ("params", "bias")}
_STATISTICS = {"running_mean": ("batch_stats", "mean"), "running_var": ("batch_stats", "var")}
_COUNTER = "num_batches_tracked"


def read_network(
    tensors: Mapping[str, np.ndarray],
    source: str,
    *,
    concat: str = SKIP_UP,
    norm: str | None = None,
    discriminator_padding: int = 1,
) -> ForeignNetwork:
    """Recognise a network of the release by its names and shapes.

    Args:
      tensors: a state dict: kernels are [out, in, kH, kW], of transposed convolutions [in, out, kH, kW].
      source: the file, for messages.
      concat: one of ``CONCATS``, for a U-Net.
      norm: "batch", "instance" or "none" where names leave it open: releases of PyTorch before 0.4 also wrote running
        statistics for instance norm, so that with weights they cannot be told from batch norm. None: as they look.
      discriminator_padding: 1, or 2 for a PatchGAN from before 2017-09-23.

    Raises:
      InputError: it is none of the release's networks, or something is missing.
    """
    if concat not in CONCATS:
        raise InputError(f"concat is {concat!r}; choose one of {', '.join(CONCATS)}")
    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    section, modules = _recognise(tensors, source)
    kind, has_bias = _find_norm(tensors, modules, source, norm)
    section["norm"] = kind
    if has_bias != (kind != "batch"):
        section["biases"] = "all" if has_bias else "last"
    if section["network"].endswith(":PatchGAN") and section["receptive_field"] > 1 and discriminator_padding != 1:
        section["padding"] = discriminator_padding

    values, names, step, left = {}, {}, 0, dict(tensors)  # `names` also of what is missing
    for module in modules:
        for leaf in ("weight", "bias", *_STATISTICS, _COUNTER):
            value = left.pop(f"{module.name}.{leaf}", None)
            if leaf == _COUNTER:
                step = max(step, 0 if value is None else int(value.max()))
                continue
            collection, ours = (_LEAVES | _STATISTICS)[leaf]
            is_kernel = leaf == "weight" and not module.is_norm
            path = f"{collection}/{module.layer}/{'kernel' if is_kernel else ours}"
            names[path] = f"{module.name}.{leaf}"
            if value is None or (leaf in _STATISTICS and kind != "batch"):
                continue  # statistics of instance norm were never used
            if is_kernel:
                if value.ndim != 4:
                    raise InputError(f"{source}: {names[path]} has {value.ndim} dimensions, where a kernel has 4")
                value = from_torch(value, swapped=module.after_concat and concat == UP_SKIP)
            values[path] = value.astype(np.float32)
    if left:
        raise InputError(f"{source} is no {title(section)} of the PyTorch release: it also holds {name_some(left)}")
    first, last = (f"params/{modules[i].layer}/kernel" for i in (0, -1))
    if last not in values:
        raise InputError(f"{source}: {names[last]} is missing; is it complete?")
    transposed = section["network"].endswith(":UNet")
    channels = values[first].shape[2], values[last].shape[2 if transposed else 3]
    variables = unflatten_dict({"params": {}, "batch_stats": {}} | values, sep="/")
    network = ForeignNetwork(section, *channels, variables, step)
    check_variables(network, names, source)
    return network


def write_network(
    section: Mapping[str, Any], variables: Mapping[str, Any], step: int, *, concat: str = SKIP_UP
) -> dict[str, np.ndarray]:
    """Return the state dict of a network; the inverse of ``read_network``.

    Args:
      section: describes the network, with every attribute of which ``modules_of`` reads one.
      variables: flat, ``{"params/LAYER/LEAF": array, "batch_stats/LAYER/LEAF": array}``.
      step: updates done, which batch norm counts as batches.
      concat: one of ``CONCATS``.
    """
    found: dict[str, np.ndarray] = {}
    for module in modules_of(section):
        if not module.is_norm:
            kernel = np.asarray(variables[f"params/{module.layer}/kernel"])
            found[f"{module.name}.weight"] = to_torch(kernel, swapped=module.after_concat and concat == UP_SKIP)
            if (bias := variables.get(f"params/{module.layer}/bias")) is not None:
                found[f"{module.name}.bias"] = np.asarray(bias)
            continue
        for leaf, (collection, ours) in (_LEAVES | _STATISTICS).items():
            if (value := variables.get(f"{collection}/{module.layer}/{ours}")) is not None:
                found[f"{module.name}.{leaf}"] = np.asarray(value)
        if section["norm"] == "batch":
            found[f"{module.name}.{_COUNTER}"] = np.array(step, np.int64)
    return found


def from_torch(kernel: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """Turn a kernel [out, in, kH, kW] into [kH, kW, in, out].

    One of a transposed convolution, [in, out, kH, kW], so becomes [kH, kW, out, in]; `swapped` also exchanges the
    halves of its input channels.
    """
    return (_swap(kernel) if swapped else kernel).transpose(2, 3, 1, 0)


def to_torch(kernel: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """Undo ``from_torch``: [kH, kW, in, out] to [out, in, kH, kW]."""
    kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    return _swap(kernel) if swapped else kernel


def _swap(kernel: np.ndarray) -> np.ndarray:
    return np.roll(kernel, len(kernel) // 2, axis=0)


def _recognise(tensors: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, Any], list[Module]]:
    """Return the section of the network, as far as names tell it, and the list of its modules."""
    names = tensors.keys()
    if "model.model.0.weight" in names:
        down = re.compile(r"model\.model\.1\.model\.(3\.model\.)*1\.weight")
        num_downs = 1 + sum(1 for name in names if down.fullmatch(name))
        if num_downs < 2:
            raise InputError(f"{source}: a U-Net without inner layers; is it complete?")
        section: dict[str, Any] = {"network": "p2p_jax.nets:UNet", "num_downs": num_downs, "dropout_layout": "pytorch"}
        first = "model.model.0.weight"
    elif any(re.match(r"model\.\d+\.conv_block\.", name) for name in names):
        section, first = _recognise_resnet(names, source)
    elif "net.0.weight" in names:
        section, first = {"network": "p2p_jax.nets:PatchGAN", "receptive_field": 1}, "net.0.weight"
    elif "model.0.weight" in names and tensors["model.0.weight"].shape[2:] == (4, 4):
        # The last convolution stands at 3 n + 2, and others at 2, 5, ..., 3 n - 1.
        last = max(int(name.split(".")[1]) for name in names if re.fullmatch(r"model\.\d+\.weight", name))
        fields = {n: field for field, n in RECEPTIVE_FIELDS.items()}
        if last % 3 != 2 or last // 3 not in fields:
            raise InputError(
                f"{source}: a PatchGAN whose last weight is model.{last}.weight; those with 1 to {max(fields)} layers "
                "(it is model.5, 8, 11, 14 or 17) are known; is it complete?"
            )
        section = {"network": "p2p_jax.nets:PatchGAN", "receptive_field": fields[last // 3]}
        first = "model.0.weight"
    else:
        raise InputError(
            f"{source}: none of the networks of the PyTorch release (U-Net, ResNet, PatchGAN, PixelGAN); it holds "
            f"{name_some(names)}"
        )
    if first in tensors and tensors[first].ndim == 4:
        section["base_width"] = int(tensors[first].shape[0])
    else:
        raise InputError(f"{source}: {first} is no convolution's weight of 4 dimensions")
    return section, modules_of({"dropout_rate": 0.0} | section)


def _recognise_resnet(names: Any, source: str) -> tuple[dict[str, Any], str]:
    blocks = {int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.conv_block\.", name))}
    inside = {int(match[1]) for name in names if (match := re.match(r"model\.\d+\.conv_block\.(\d+)\.weight", name))}
    padded = "model.1.weight" in names and "model.0.weight" not in names
    # Where there are norms with weights, their places are among `inside`: each follows its convolution.
    convolutions = [i for i in sorted(inside) if i - 1 not in inside]
    choices: dict[tuple[int, ...], tuple[bool, float]]
    choices = {(1, 5): (True, 0.0), (1, 6): (True, 0.5), (0, 3): (False, 0.0), (0, 4): (False, 0.5)}
    has_pads, dropout_rate = choices.get(tuple(convolutions), (None, 0.0))
    if len(blocks) != max(blocks) - min(blocks) + 1 or has_pads is not padded:
        raise InputError(
            f"{source}: a ResNet with blocks {sorted(blocks)} and convolutions conv_block.{convolutions} in them, its "
            f"first one being model.{int(padded)}; the release has blocks in a row, with convolutions 1 and 5 (6 "
            "with dropout), or 0 and 3 (4) where nothing is padded by reflection"
        )
    section: dict[str, Any] = {
        "network": "p2p_jax.nets:ResNet",
        "num_blocks": len(blocks),
        "padding": "reflect" if padded else "zero",
        "dropout_rate": dropout_rate,
    }
    return section, f"model.{int(padded)}.weight"


def _find_norm(
    tensors: Mapping[str, np.ndarray], modules: list[Module], source: str, asked: str | None
) -> tuple[str, bool]:
    """Return the norm, and whether the convolutions before norms have biases."""
    norms = [m for m in modules if m.is_norm]
    before = [modules[i] for i in range(len(modules) - 1) if modules[i + 1].is_norm]
    biased = {f"{m.name}.bias" in tensors for m in before}
    if len(biased) > 1:
        without = next(m.name for m in before if f"{m.name}.bias" not in tensors)
        raise InputError(f"{source}: {without}.bias is missing, and other convolutions have one; is it complete?")
    has_bias = biased.pop()
    scaled, counted = (any(f"{m.name}.{leaf}" in tensors for m in norms) for leaf in ("weight", "running_mean"))
    instance = "instance_affine" if scaled else "instance"
    found = "batch" if scaled and counted else instance if scaled or counted or has_bias else "none"
    fits = {"instance": scaled or counted or has_bias, "batch": found == "batch", "none": not (scaled or counted)}
    if not fits.get(asked or found, True):
        looks = {"none": "no norm", "instance_affine": "instance norm with weights"}.get(found, f"{found} norm")
        raise InputError(f"{source} looks like {looks}, not like norm={asked}")
    return (instance if asked == "instance" else asked or found), has_bias
