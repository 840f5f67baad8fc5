"""State dicts of the PyTorch release of pix2pix and CycleGAN, of all years, and of CUT, to and from Flax variables.

Reading and writing both use the names in ``torch_names.py``. Facts that differ from year to year are found from the
names; those that do not show in the names are options of ``read_network``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from p2p_jax.errors import InputError
from p2p_jax.interop.network import ForeignNetwork, check_variables, name_some, title
from p2p_jax.interop.torch_names import filters_of, modules_of
from p2p_jax.interop.torch_recognition import find_norm, plain_names, recognise

UP_SKIP, SKIP_UP = "up_skip", "skip_up"
CONCATS = (SKIP_UP, UP_SKIP)
"""Orders of concatenating a U-Net's skips: today's, and the one before 2017-09-22."""
NORMS = ("batch", "instance", "none")

_LEAVES = {"weight": ("params", "scale"), "bias": ("params", "bias")}
_STATISTICS = {"running_mean": ("batch_stats", "mean"), "running_var": ("batch_stats", "var")}
_COUNTER = "num_batches_tracked"
TRACKED = ("batch", "instance_tracked")
"""Norms that keep running statistics; the release uses these with `eval`."""


def read_network(
    tensors: Mapping[str, np.ndarray],
    source: str,
    *,
    concat: str = SKIP_UP,
    norm: str | None = None,
    discriminator_padding: int = 1,
) -> ForeignNetwork:
    """Recognise a network of the release by names and shapes.

    Args:
      tensors: a state dict: kernels are [out, in, kH, kW], of transposed convolutions [in, out, kH, kW].
      source: the file, for messages.
      concat: one of ``CONCATS``, for a U-Net.
      norm: "batch", "instance" or "none" if names leave it open. PyTorch before 0.4 wrote running statistics for every
        instance norm, so with weights these look like batch norm. The release from 2018-06 to 2019-01 wrote them for
        its own; "instance" drops those, as today's release does. None: as they look.
      discriminator_padding: 1, or 2 for a PatchGAN from before 2017-09-23.

    Raises:
      InputError: it is not a network of the release, or something is missing.
    """
    if concat not in CONCATS:
        raise InputError(f"concat is {concat!r}; choose one of {', '.join(CONCATS)}")
    tensors = plain_names(tensors, source)
    section, modules = recognise(tensors, source)
    kind, has_bias = find_norm(tensors, modules, source, norm)
    section["norm"] = kind
    if has_bias != (kind != "batch"):
        section["biases"] = "all" if has_bias else "last"
    if section["network"].endswith(":PatchGAN") and section["receptive_field"] > 1 and discriminator_padding != 1:
        section["padding"] = discriminator_padding

    values, names, step, left = {}, {}, 0, dict(tensors)  # `names` also has missing ones
    for item in filters_of(section, modules):
        _check_filter(left.pop(f"{item.name}.filt", None), item.is_up, f"{source}: {item.name}.filt")
    for module in modules:
        for leaf in ("weight", "bias", *_STATISTICS, _COUNTER):
            value = left.pop(f"{module.name}.{leaf}", None)
            if leaf == _COUNTER:
                step = max(step, 0 if value is None else _count(value, f"{source}: {module.name}.{leaf}"))
                continue
            collection, ours = (_LEAVES | _STATISTICS)[leaf]
            is_kernel = leaf == "weight" and not module.is_norm
            path = f"{collection}/{module.layer}/{'kernel' if is_kernel else ours}"
            names[path] = f"{module.name}.{leaf}"
            if value is None or (leaf in _STATISTICS and kind not in TRACKED):
                continue
            if is_kernel:
                if value.ndim != 4:
                    raise InputError(f"{source}: {names[path]} has {value.ndim} dimensions, but a kernel has 4")
                value = from_torch(value, swapped=module.after_concat and concat == UP_SKIP)
            values[path] = value.astype(np.float32)
    if left:
        raise InputError(f"{source} is not a {title(section)} of the PyTorch release: it also has {name_some(left)}")
    first, last = (f"params/{modules[i].layer}/kernel" for i in (0, -1))
    if last not in values:
        raise InputError(f"{source}: {names[last]} is missing; is the file complete?")
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
      section: describes the network, with every attribute that ``modules_of`` reads.
      variables: flat, ``{"params/LAYER/LEAF": array, "batch_stats/LAYER/LEAF": array}``.
      step: number of updates, which batch norm counts as batches.
      concat: one of ``CONCATS``.
    """
    found: dict[str, np.ndarray] = {}
    modules = modules_of(section)
    for module in modules:
        if not module.is_norm:
            kernel = np.asarray(variables[f"params/{module.layer}/kernel"])
            found[f"{module.name}.weight"] = to_torch(kernel, swapped=module.after_concat and concat == UP_SKIP)
            if (bias := variables.get(f"params/{module.layer}/bias")) is not None:
                found[f"{module.name}.bias"] = np.asarray(bias)
            continue
        for leaf, (collection, ours) in (_LEAVES | _STATISTICS).items():
            if (value := variables.get(f"{collection}/{module.layer}/{ours}")) is not None:
                found[f"{module.name}.{leaf}"] = np.asarray(value)
        if section["norm"] in TRACKED:
            found[f"{module.name}.{_COUNTER}"] = np.array(step, np.int64)
    for item in filters_of(section, modules):
        channels = found[f"{next(m.name for m in modules if m.layer == item.layer)}.weight"].shape[int(item.is_up)]
        found[f"{item.name}.filt"] = np.tile(_filter(item.is_up), (channels, 1, 1, 1))
    if any(name.endswith(".filt") for name in found):
        return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))  # in the order of the network
    return found


def _filter(is_up: bool) -> np.ndarray:
    """Return CUT's filter of every channel, [1, 1, k, k]; for upsampling it makes up for the inserted zeros."""
    taps = np.array([1, 3, 3, 1] if is_up else [1, 2, 1], np.float32)
    taps = 2 * taps / taps.sum() if is_up else taps / taps.sum()
    return (taps[:, None] * taps)[None, None]


def _check_filter(found: np.ndarray | None, is_up: bool, name: str) -> None:
    """Refuse a filter that is missing or differs from that of our layers."""
    if found is None:
        raise InputError(f"{name} is missing; is the file complete?")
    wanted = _filter(is_up)
    if found.ndim != 4 or found.shape[1:] != wanted.shape[1:] or not np.allclose(found, wanted, atol=1e-6):
        raise InputError(
            f"{name} is not the filter of CUT's networks, [{'1, 3, 3, 1' if is_up else '1, 2, 1'}] each way"
        )


def _count(value: np.ndarray, name: str) -> int:
    """Return the number of batches that a norm has seen."""
    count = np.ravel(value)
    if count.size != 1 or not 0 <= count[0] < 2**31 or count[0] != int(count[0]):
        raise InputError(f"{name} is not a number of batches; the file is damaged")
    return int(count[0])


def from_torch(kernel: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """Turn a kernel [out, in, kH, kW] into [kH, kW, in, out].

    A kernel of a transposed convolution, [in, out, kH, kW], becomes [kH, kW, out, in]; `swapped` also exchanges the
    halves of its input channels.
    """
    return (_swap(kernel) if swapped else kernel).transpose(2, 3, 1, 0)


def to_torch(kernel: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """Undo ``from_torch``: [kH, kW, in, out] to [out, in, kH, kW]."""
    kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    return _swap(kernel) if swapped else kernel


def _swap(kernel: np.ndarray) -> np.ndarray:
    return np.roll(kernel, len(kernel) // 2, axis=0)
