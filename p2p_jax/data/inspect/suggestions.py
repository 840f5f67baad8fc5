"""What a config might better say, given the images of its training split."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape, load_shape
from p2p_jax.data.inspect import label_maps
from p2p_jax.data.inspect.fitting import fitting_direction
from p2p_jax.data.inspect.measures import Look, StoredAs, flatness, has_many_grays
from p2p_jax.data.inspect.samples import Seen
from p2p_jax.images.domains import NUMBERS, Domain, of_files
from p2p_jax.images.palettes import VOID

_MOST_CLASSES = 64
_FULL = (255, 1023, 4095, 16383, 65535)  # the largest numbers of 8, 10, 12, 14 and 16 bits


def suggest(
    config: ConfigDict,
    stored: Sequence[Mapping[StoredAs, int]],
    seen: Seen,
    *,
    paired: bool,
    paths: Sequence[Sequence[Path]] = ((), ()),
) -> list[str]:
    """Return sentences, each with the option that it is about.

    Args:
      config: complete; reads ``data`` and ``generator``.
      stored: of A and of B, as the files have them: how images are stored, and how many are.
      seen: the images of the training split that were looked at.
      paired: whether they are in pairs.
      paths: of A and of B; some are read if they may be labels.
    """
    data = config.data
    if paired and (other := fitting_direction(data, stored)):
        given, made = other.split("to")
        return [
            f"only the images of {given} are what this config declares as its input, and those of {made} its output: "
            f"--config.data.direction={other}"
        ]
    sections = ("input", "output") if data.direction == "AtoB" else ("output", "input")
    found: list[str] = []
    sides = zip("AB", sections, seen.sides, of_files(data), stored, paths, strict=True)
    for name, section, side, domain, counts, files in sides:
        classes = list(_classes(name, section, side, counts, domain)) if side else []
        if not classes and domain.kind == "uint8" and (labels := label_maps.find(files, counts)):
            options = " ".join(f"--config.data.{section}.{key}={shlex.quote(x)}" for key, x in labels.options.items())
            classes = [f"the {labels.what} of {name} are {labels.told}: {options}"]
        if not classes:
            found.extend(_kind(name, section, counts, domain))
        if side:
            found.extend(_range(name, section, side, domain))
        found.extend(classes)
    found.extend(_size(config, seen))
    if paired and all(seen.sides) and not any("output.kind=labels" in sentence for sentence in found):
        found.extend(_direction(data, seen))
    return found


def _kind(name: str, section: str, counts: Mapping[StoredAs, int], domain: Domain) -> Iterator[str]:
    """Name the kind that most files have, if it is not the declared one."""
    if not counts:
        return
    most = max(counts, key=lambda form: counts[form])
    if most.palette or most.fits(domain):
        return
    kind = str(most.dtype) if str(most.dtype) in NUMBERS else "float"
    option = f"--config.data.{section}.kind={kind} --config.data.{section}.channels={most.channels}"
    yield f"most files of {name} have {most}: {option}"


def _range(name: str, section: str, side: Sequence[Look], domain: Domain) -> Iterator[str]:
    """Name a narrower range, if the values fill little of theirs."""
    if domain.kind not in NUMBERS or domain.kind == "uint8":
        return
    low, high = np.percentile(np.concatenate([one.sample for one in side]), [0.1, 99.9])
    ends = (min(domain.low), max(domain.high)) if domain.low else (
        min(one.low.min() for one in side), max(one.high.max() for one in side))  # fmt: skip
    if high <= low or high - low > (ends[1] - ends[0]) / 2:
        return
    if domain.kind == "float":
        step = 10.0 ** (np.floor(np.log10(high - low)) - 1)
        low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    else:
        full = next(n for n in (*_FULL, high) if n >= high)
        high = full if full < 1.5 * high else np.ceil(high)
        low = 0 if 0 <= low < high / 10 else np.floor(low)
    option = f"--config.data.{section}.range={low:.6g}:{high:.6g}"
    yield (
        f"99.8% of the values of {name} fill {(high - low) / (ends[1] - ends[0]):.0%} of {ends[0]:g} to {ends[1]:g}, "
        f"which become -1 to 1: {option}"
    )


def _classes(
    name: str, section: str, side: Sequence[Look], counts: Mapping[StoredAs, int], domain: Domain
) -> Iterator[str]:
    """Recognise numbers of classes that are taken for shades."""
    if domain.kind != "uint8" or not all(one.numbers for one in side):
        return
    found = sorted({number for one in side for number in one.numbers} - {VOID})
    has_palette = max(counts, key=lambda form: counts[form]).palette if counts else False
    is_mask = {number for one in side for number in one.numbers} == {0, VOID}
    if is_mask or (len(found) >= 2 and found[-1] < _MOST_CLASSES) or (has_palette and 2 <= len(found) <= _MOST_CLASSES):
        channels = 2 if is_mask else found[-1] + (found[0] == 0) if found[-1] < _MOST_CLASSES else len(found)
        few = "0 and 255, like a mask" if is_mask else f"{found[0]} to {found[-1]}, which look like class numbers"
        option = f"--config.data.{section}.kind=labels --config.data.{section}.channels={channels}"
        yield f"the {'indices' if has_palette else 'values'} of {name} are {few}: {option}"


def _size(config: ConfigDict, seen: Seen) -> Iterator[str]:
    """Name a size nearer to that of the images."""
    data = config.data
    sizes = [one.size for side in seen.sides for one in side]
    if not sizes or data.preprocess != "resize_and_crop":
        return
    width, height = np.median(sizes, axis=0)
    (load_height, load_width), crop = load_shape(data), crop_shape(data)
    unit = 2 ** config.generator.get("num_downs", 2)
    images = f"the images are {width:.0f}x{height:.0f} (median)"
    longer = width / height / (load_width / load_height)  # how much wider than what they are resized to
    crop_width = max(unit, round(crop[0] * width / height / unit) * unit)
    if not 0.8 < longer < 1.25 and crop_width != crop[1]:
        load = round(load_height * crop_width / crop[0])
        option = f"--config.data.load_width={load} --config.data.crop_width={crop_width}"
        yield f"{images}, and are resized to {load_width}x{load_height}, another aspect ratio: {option}"
    elif min(width / load_width, height / load_height) >= 2:
        option = f"--config.data.preprocess=crop takes pieces of {crop[1]}x{crop[0]} at full resolution"
        yield f"{images}, and are resized to {load_width}x{load_height}, which loses detail: {option}"
    elif max(width / load_width, height / load_height) <= 0.5:
        size = max(unit, int(height // unit * unit))
        option = f"--config.data.load_size={round(size * load_height / crop[0])} --config.data.crop_size={size}"
        if size < crop[0]:
            yield f"{images}, and are enlarged to {load_width}x{load_height}: {option}"


def _direction(data: ConfigDict, seen: Seen) -> Iterator[str]:
    """Say if the output looks like what is usually the input."""
    given, made = ("A", "B") if data.direction == "AtoB" else ("B", "A")
    flat = dict(zip("AB", map(flatness, seen.sides), strict=True))
    looks = dict(zip("AB", seen.sides, strict=True))
    is_picture = data.output.kind == "uint8" and data.output.channels == 3
    if is_picture and flat[made] > 0.6 and flat[made] - flat[given] > 0.15 and not has_many_grays(looks[made]):
        other = "BtoA" if data.direction == "AtoB" else "AtoB"
        yield (
            f"{made}, the output, made from {given}, looks like label maps or drawings ({flat[made]:.0%} of its "
            f"pixels equal their neighbours, {flat[given]:.0%} in {given}); to make photographs from these: "
            f"--config.data.direction={other}"
        )
