"""Training images that stay on the device: decoded once, shuffled, cropped and mirrored inside the compiled step.

No TensorFlow. Orders and crops differ from those of the stream (``stream/sides.py``, ``stream/cropping.py``); for the
same crop, pixels are equal to the bit. Both follow from the seed and only the place in the endless stream, on any
number of devices and processes.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import with_facts
from p2p_jax.config.options import are_photos, crop_shape
from p2p_jax.data import numpy_reading, opening
from p2p_jax.data.dataset import Data
from p2p_jax.data.stream.facts import find_all
from p2p_jax.data.stream.sides import Side
from p2p_jax.data.stream.sources import Source, Unpaired
from p2p_jax.errors import InputError
from p2p_jax.images.domains import Domain, of_config
from p2p_jax.reporting import say

_NAMES = ("real_a", "real_b")
_SHARE = 0.5  # of the memory; training needs the rest
_STREAM = 2**32 - 1  # folded into the seed where the loop folds in the step, which is never that high


class Resident(NamedTuple):
    """Training images for every device, and what draws batches of them.

    Attributes:
      arrays: "real_a" and "real_b", [N, H, W, C] at load size as they are stored, and small ones that `draw` needs.
      draw: ``(arrays, positions) -> {"real_a": [n, H, W, C_a], "real_b": [n, H, W, C_b]}`` float32 in [-1, 1], of the
        size of the crop; can be traced. Positions [n] uint32 are places in the endless stream, each higher by one than
        the one before it: step * batch_size + i.
    """

    arrays: dict[str, Any]
    draw: Callable[[dict[str, Any], jax.Array], dict[str, jax.Array]]


class Choice(NamedTuple):
    """What is chosen at random for examples, an array [n] each. Crops are cut out before they are mirrored."""

    index: Any
    top: Any
    left: Any
    mirrored: Any
    upside_down: Any
    quarter_turns: Any
    contrast: Any
    brightness: Any


def load(
    config: ConfigDict,
    *,
    process_index: int = 0,
    process_count: int = 1,
    train: Source | Unpaired | None = None,
    val: Source | Unpaired | None = None,
) -> Data:
    """Open and decode the data set of a config; see ``p2p_jax.data.load``.

    Returns:
      The data, whose ``resident`` is a ``Resident``; its ``train`` draws on the host what that draws on the device.
    """
    _refuse(config)
    train, val = opening.open_sources(config, process_count, train, val)
    facts = find_all(train, val, config, numpy_reading.make_sides, numpy_reading.extremes)
    config = with_facts(config, facts)
    domains = of_config(config.data)
    sides = numpy_reading.make_sides(train, config, domains)
    val_sides = numpy_reading.make_sides(val, config, domains) if val else []
    sizes = [numpy_reading.load_sizes(side, config.data) for side in sides]
    places = range(process_index, _length(val_sides), process_count)
    _check_memory(sides, sizes, len(places), config)

    arrays: dict[str, Any] = {}
    for (side, names), size in zip(_named(sides), sizes, strict=True):
        arrays[f"sizes_{side.number}"] = size
        arrays |= dict(zip(names, numpy_reading.for_training(side, size), strict=True))
    megabytes = sum(arrays[name].nbytes for name in _NAMES) / 1e6
    say(f"data: the training images stay on the device, {megabytes:,.0f} MB at load size")
    return Data(
        num_train=_length(sides),
        num_val=_length(val_sides),
        fingerprint=opening.fingerprint(train, val),
        train=lambda first_step: _batches(arrays, sides, config, first_step, process_index, process_count),
        validation=_validation(val_sides, places, config),
        facts=facts,
        identities=opening.identities(train, val, config.data),
        val_counts=opening.counts(val_sides),
        resident=Resident(arrays, lambda arrays, positions: _draw(arrays, positions, sides, config)),
    )


def _refuse(config: ConfigDict) -> None:
    """Refuse what only the stream can do."""
    reasons = {
        "config.augment.scale_jitter resizes every image each time": config.augment.scale_jitter,
        "config.task computes inputs with Python functions": config.task,
        f"config.data.source={config.data.source} has no input images": are_photos(config.data.source),
    }
    for reason, applies in reasons.items():
        if applies:
            raise InputError(f"{reason}, which the device cannot do: set config.data.resident=False")


def _check_memory(sides: list[Side], sizes: list[np.ndarray], num_val: int, config: ConfigDict) -> None:
    """Refuse images that would not fit, before they are numpy_reading."""
    sets = [(len(size), *size.max(0).tolist(), side.domains) for side, size in zip(sides, sizes, strict=True)]
    needs = [(count, height, width, numpy_reading.bytes_per_pixel(domains)) for count, height, width, domains in sets]
    held_out = (num_val, *crop_shape(config.data), numpy_reading.bytes_per_pixel(of_config(config.data)))
    stats = jax.local_devices()[0].memory_stats() or {}
    _require(needs, stats.get("bytes_limit", math.inf), "the device")
    copies = 1 + len(jax.local_devices()) if jax.default_backend() == "cpu" else 1  # one for every device, and this
    shared = f" for each of {copies} copies" if copies > 1 else ""
    _require([*needs, held_out], _free_memory() / copies, "this machine's free memory" + shared)


def _require(needs: list[tuple[int, int, int, int]], limit: float, whose: str) -> None:
    total = sum(map(math.prod, needs))
    if total > _SHARE * limit:
        sets = " and ".join(f"{n:,} images of {h}x{w}x{size} bytes" for n, h, w, size in needs if n)
        raise InputError(
            f"{sets} are {total / 1e9:,.3g} GB, more than half of the {limit / 1e9:,.3g} GB of {whose}: set "
            "config.data.resident=False, or take smaller images (config.data.load_size, if they are resized)"
        )


def _free_memory() -> float:
    """Return the bytes of memory that programs can still have on this machine, infinity where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        names = getattr(os, "sysconf_names", {})
        known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf


def _named(sides: list[Side]) -> list[tuple[Side, tuple[str, ...]]]:
    """Return the sides with the names that their images have in a batch."""
    return list(zip(sides, [_NAMES] if len(sides) == 1 else [_NAMES[:1], _NAMES[1:]], strict=True))


def _length(sides: list[Side]) -> int:
    return max((len(side.source.names) for side in sides), default=0)


def _draw(arrays: dict[str, Any], positions: jax.Array, sides: list[Side], config: ConfigDict) -> dict[str, jax.Array]:
    choices = [choose(arrays[f"sizes_{side.number}"], positions, side.number, config) for side in sides]
    return finish(arrays, choices, sides, config)


def choose(sizes: Any, positions: jax.Array, number: int, config: ConfigDict) -> Choice:
    """Choose examples and what becomes of them, for places in the stream.

    Args:
      sizes: height and width of all the images of a side, [N, 2] int32.
      positions: [n] uint32; see ``Resident``.
      number: of the side; the other one's draws are independent.
      config: reads ``seed``, ``data`` and ``augment``.
    """
    key = jax.random.fold_in(jax.random.key(config.seed, impl="threefry2x32"), _STREAM - number)
    order_key, crop_key = jax.random.split(key)
    index = _shuffled(order_key, positions, len(sizes))
    draws = jax.vmap(lambda position: jax.random.uniform(jax.random.fold_in(crop_key, position), (7,), jnp.float32))(
        positions
    )
    y, x, mirror, flip, turn, contrast, brightness = draws.T
    room = jnp.asarray(sizes)[index] - jnp.array(crop_shape(config.data))[None] + 1
    augment, strength = config.augment, config.augment.photometric
    return Choice(
        index=index,
        top=(y * room[:, 0]).astype(jnp.int32),
        left=(x * room[:, 1]).astype(jnp.int32),
        mirrored=(mirror < 0.5) & config.data.flip,
        upside_down=(flip < 0.5) & augment.vflip,
        quarter_turns=(turn * 4).astype(jnp.int32) * augment.quarter_turns,
        contrast=1 + strength * (2 * contrast - 1),
        brightness=strength * (2 * brightness - 1),
    )


def _shuffled(key: jax.Array, positions: jax.Array, count: int) -> jax.Array:
    """Map places in the stream to examples [n] int32: every pass is a permutation of all of them."""
    passes = (len(positions) + count - 2) // count + 1  # at most these do consecutive places touch
    first = positions[0] // count
    keys = jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(passes, dtype=jnp.uint32))
    # Half the time of jax.random.permutation, which sorts several times.
    orders = jnp.argsort(jax.vmap(lambda key: jax.random.bits(key, (count,)))(keys), axis=-1)
    return orders[positions // count - first, positions % count].astype(jnp.int32)


def finish(arrays: dict[str, Any], choices: list[Choice], sides: list[Side], config: ConfigDict) -> dict[str, Any]:
    """Cut what was chosen of each side out of its images, and map it to [-1, 1]."""
    batch = {}
    for (side, names), choice in zip(_named(sides), choices, strict=True):
        for name, domain in zip(names, side.domains, strict=True):
            batch[name] = _normalize(_cut(arrays[name], choice, config), domain)
    if config.augment.photometric:
        factor, shift = (x[:, None, None, None] for x in (choices[0].contrast, choices[0].brightness))
        batch["real_a"] = jnp.clip(batch["real_a"] * factor + shift, -1, 1)
    return batch


def _cut(images: Any, choice: Choice, config: ConfigDict) -> jax.Array:
    """Cut crops [n, *crop, C] out of images [N, H, W, C], mirror and turn them."""
    shape = (1, *crop_shape(config.data), images.shape[-1])

    def one(index, top, left):
        return jax.lax.dynamic_slice(images, (index, top, left, jnp.zeros_like(index)), shape)[0]

    crops = jax.vmap(one)(choice.index, choice.top, choice.left)
    if config.data.flip:
        crops = jnp.where(choice.mirrored[:, None, None, None], crops[:, :, ::-1], crops)
    if config.augment.vflip:
        crops = jnp.where(choice.upside_down[:, None, None, None], crops[:, ::-1], crops)
    if config.augment.quarter_turns:
        turns = [lambda x, k=k: jnp.rot90(x, k) for k in range(4)]
        crops = jax.vmap(lambda k, x: jax.lax.switch(k, turns, x))(choice.quarter_turns, crops)
    return crops


def _normalize(raw: jax.Array, domain: Domain) -> jax.Array:
    """Map images [n, H, W, C], as ``numpy_reading.stored`` says, to [-1, 1], to the bit as ``Domain.encode``."""
    if domain.kind == "labels":
        return jnp.where(
            raw == jnp.arange(domain.channels, dtype=raw.dtype)[None, None, None], jnp.float32(1), jnp.float32(-1)
        )
    if domain.kind.startswith("lab_"):
        return raw
    low, half = (x[None, None, None] for x in domain.line)
    values = raw.astype(jnp.float32) - low
    # XLA would turn the division by a constant, or one number for many, into a product that differs in the last bit.
    return jnp.clip(values / jnp.where(jnp.isnan(values), values, half) - 1, -1, 1)


def _batches(
    arrays: dict[str, Any], sides: list[Side], config: ConfigDict, first_step: int, process_index: int, processes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Draw what the device draws, for which the host sends it no other images than those chosen."""
    share = config.batch_size // processes

    @jax.jit
    def chosen(positions):
        return [choose(arrays[f"sizes_{side.number}"], positions, side.number, config) for side in sides]

    finished = jax.jit(lambda arrays, choices: finish(arrays, choices, sides, config))
    for step in itertools.count(first_step):
        first = step * config.batch_size + process_index * share
        choices = chosen(np.arange(first, first + share).astype(np.uint32))
        images: dict[str, np.ndarray] = {}
        for (_, names), choice in zip(_named(sides), choices, strict=True):
            images |= {name: arrays[name][np.asarray(choice.index)] for name in names}
        choices = [choice._replace(index=np.arange(share, dtype=np.int32)) for choice in choices]
        yield {name: np.asarray(x) for name, x in finished(images, choices).items()}


def _validation(
    sides: list[Side], places: range, config: ConfigDict
) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Return ``Data.validation`` for images that are decoded now."""
    parts = []
    for side in sides:
        count = len(side.source.names)
        parts.append(numpy_reading.for_validation(side, [place % count for place in places], config.data))

    def batches(batch_size):
        for first in range(0, len(places), batch_size):
            images = itertools.chain.from_iterable(part(slice(first, first + batch_size)) for part in parts)
            yield dict(zip(_NAMES, images, strict=True))

    return batches
