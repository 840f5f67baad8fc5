"""What a config leaves to be found in the training images: ranges of values, colours of labels."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import with_facts
from p2p_jax.data.stream.backend import iterate, tensorflow
from p2p_jax.data.stream.sides import Side, arrange, check_task, makes_input
from p2p_jax.data.stream.sources import Source, Unpaired, loader
from p2p_jax.errors import InputError
from p2p_jax.images import formats, labels, palettes, ranges, unknown
from p2p_jax.images.domains import NUMBERS, Domain, of_config
from p2p_jax.reporting import say

_MEASURED_AT_MOST, _MEASURED_AT_LEAST = 1_000, 24  # images of a side, evenly over all of them
_PIXELS = 200_000_000  # of these, together, about
_COUNTED = 2**17  # different numbers for which there is a place each


def find_all(
    train: Source | Unpaired,
    val: Source | Unpaired | None,
    config: ConfigDict,
    make_sides: Callable[[Source | Unpaired, ConfigDict, tuple[Domain, Domain]], list[Side]],
    extremes: Callable[[Side, int, np.ndarray], np.ndarray] | None = None,
) -> dict[str, dict[str, str]]:
    """Return everything that a config leaves open and that is found in the images.

    Args:
      train: the training split.
      val: that of validation, or None.
      config: reads ``data`` and ``task``.
      make_sides: makes the sides of a split.
      extremes: see ``find_facts``.
    """
    nodata = find_nodata(train, val, config)
    config = with_facts(config, nodata)
    facts = find_facts(make_sides(train, config, of_config(config.data)), config, extremes)
    return {name: nodata[name] | found for name, found in facts.items()}


def find_facts(
    sides: list[Side],
    config: ConfigDict,
    extremes: Callable[[Side, int, np.ndarray], np.ndarray] | None = None,
) -> dict[str, dict[str, str]]:
    """Return what a config leaves open: ranges, palettes and numbers of labels, ``{"input": {"range": "0:1"}, ...}``.

    Args:
      sides: of the training split.
      config: reads ``data``.
      extremes: ``(side, place, indices) -> [N, 2, C]`` float32, the lowest and the highest value of every channel of
        the images at a place of these examples; by default TensorFlow finds them.

    Raises:
      InputError: an image holds numbers that are not finite, or cannot be read.
    """
    facts: dict[str, dict[str, str]] = {"input": {}, "output": {}}
    places = [(side, i) for side in sides for i in range(len(side.read_domains))]
    for name, (side, place) in zip(list(facts)[-len(places) :], places, strict=True):
        domain = side.read_domains[place]
        if not domain.is_measured:
            low, high = _measure(side, place, extremes or _extremes)
            facts[name]["range"] = ranges.format_range(low, high)
            count = len(_chosen(side))
            say(f"data: values of the {name} in {count:,} training images: {facts[name]['range']}")
        declared = config.data[name]
        if domain.kind == "labels" and (counts := _count_numbers(side, place)):
            numbers = declared.numbers or labels.find_numbers(counts, domain.channels)
            facts[name] |= {"numbers": numbers} if numbers != declared.numbers else {}
            told = labels.describe(counts, domain.channels, numbers)
            say(f"data: labels of the {name} in {len(_chosen(side)):,} training images: {told}")
        if domain.is_labels and domain.palette is None:
            numbers = facts[name].get("numbers", declared.numbers)
            if colors := _stored_palette(side, place, name, config, numbers):
                facts[name]["palette"] = colors
    return facts


def _measure(side: Side, place: int, extremes: Callable) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest value of every channel, in ``_MEASURED_AT_MOST`` images."""
    chosen = _chosen(side)
    found = extremes(side, place, chosen)
    bad = ~np.isfinite(found).all((1, 2))
    if side.read_domains[place].unknown:
        bad = np.isinf(found).any((1, 2))
    if bad.any():
        name = side.source.names[chosen[np.flatnonzero(bad)[0]]]
        raise InputError(f"{name} holds numbers that are not finite (NaN or infinite); replace them or remove it")
    low, high = np.fmin.reduce(found[:, 0]), np.fmax.reduce(found[:, 1])
    if np.isnan(low).any():
        raise InputError(
            "a channel has no known value in any training image that was looked at: check config.data.*.nodata"
        )
    return low.tolist(), np.where(high > low, high, low + 1).tolist()


def find_nodata(
    train: Source | Unpaired, val: Source | Unpaired | None, config: ConfigDict
) -> dict[str, dict[str, str]]:
    """Return the marks of unknown values where a config leaves them open, ``{"input": {"nodata": "-9999"}, ...}``.

    Args:
      train: the training split, which decides.
      val: that of validation, which decides where the other has no unknown values.
      config: reads ``data`` and ``task``.
    """
    facts = _nodata_of(train, config)
    if val is not None:
        found = _nodata_of(val, with_facts(config, facts))
        facts = {name: found[name] | facts[name] for name in facts}
    return facts


def _nodata_of(source: Source | Unpaired, config: ConfigDict) -> dict[str, dict[str, str]]:
    facts: dict[str, dict[str, str]] = {"input": {}, "output": {}}
    domains = of_config(config.data)
    check_task(source, config)
    if makes_input(config) and isinstance(source, Source):
        sides = [Side(0, source, domains[1:])]
    else:
        sides = arrange(source, config.data.direction, domains)
    places = [(side, i) for side in sides for i in range(len(side.domains))]
    for name, (side, place) in zip(list(facts)[-len(places) :], places, strict=True):
        if text := _find_nodata(side, place, name, config):
            facts[name]["nodata"] = text
            say(f"data: {text} marks unknown values of the {name}; they are left out of ranges, losses and metrics")
    return facts


def _find_nodata(side: Side, place: int, name: str, config: ConfigDict) -> str:
    """Return the mark of unknown values in files where the config does not say it, "" if there are none."""
    domain, source = side.read_domains[place], side.source
    if domain.kind not in NUMBERS or domain.unknown or not domain.asks_files:
        return ""
    layout = source.layout
    if source.told:
        if text := source.told[-len(side.read_domains) :][place].nodata:
            return text
    elif layout is not None:
        files = layout.a if (name == "input") == (config.data.direction == "AtoB") else layout.b
        for path in (path for path in files if path.suffix.lower() in (".tif", ".tiff")):
            if formats.read_header(path).unknown:
                number = formats.read(path).nodata
                return unknown.MASK if number is None else f"{number:.9g}"
    if domain.kind != "float":
        return ""
    load = loader(source)

    def has_nan(index: int) -> bool:
        return bool(np.isnan(load(index)[-len(side.read_domains) :][place]).any())

    with ThreadPoolExecutor() as pool:
        return "nan" if any(pool.map(has_nan, _chosen(side).tolist())) else ""


def _chosen(side: Side) -> np.ndarray:
    """Return the examples that are looked at: fewer of large images."""
    count, at_most = len(side.source.names), _MEASURED_AT_MOST
    if side.source.layout is not None:
        header = formats.read_header(Path(side.source.names[0]))
        at_most = min(at_most, max(_PIXELS // (header.width * header.height), _MEASURED_AT_LEAST))
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).astype(np.int64))


def _count_numbers(side: Side, place: int) -> Counter[int]:
    """Count the class numbers in ``_MEASURED_AT_MOST`` images; colours are not counted."""
    load, counts = loader(side.source), Counter[int]()

    def count(index: int) -> tuple[list[int], list[int]]:
        image = load(index)[-len(side.read_domains) :][place]
        if image.shape[-1] != 1:
            return [], []
        lowest, highest = int(image.min()), int(image.max())
        if highest - lowest >= _COUNTED:  # ids of instances, say
            numbers, pixels = np.unique(image, return_counts=True)
            return numbers.tolist(), pixels.tolist()
        pixels = np.bincount(image.ravel().astype(np.int64) - lowest)  # much faster than sorting
        found = np.flatnonzero(pixels)
        return (found + lowest).tolist(), pixels[found].tolist()

    with ThreadPoolExecutor() as pool:
        for numbers, pixels in pool.map(count, _chosen(side).tolist()):
            counts.update(dict(zip(map(int, numbers), pixels, strict=True)))
    return counts


def _extremes(side: Side, place: int, indices: np.ndarray) -> np.ndarray:
    tf = tensorflow()

    def extremes(index):
        image = tf.cast(side.raw(index)[place], tf.float32)
        known = ~tf.math.is_nan(image)
        low, high = (tf.where(known, image, end) for end in (tf.float32.max, tf.float32.min))
        low, high = tf.reduce_min(low, (0, 1)), tf.reduce_max(high, (0, 1))
        lost = ~tf.reduce_any(known, (0, 1))
        return tf.where(lost, np.float32(np.nan), tf.stack([low, high]))

    ds = tf.data.Dataset.from_tensor_slices(indices).map(extremes, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        return np.stack(list(iterate(ds)))
    except tf.errors.OpError as error:
        raise InputError(f"a training image cannot be read ({error.message.splitlines()[0]})") from error


def _stored_palette(side: Side, place: int, name: str, config: ConfigDict, numbers: str) -> str:
    """Return the colours that the first file of a side has in itself, "" if it has none that name the classes."""
    layout = side.source.layout
    if side.source.told:
        stored = side.source.told[-len(side.read_domains) :][place].palette
    elif layout is not None:
        files = layout.a if (name == "input") == (config.data.direction == "AtoB") else layout.b
        stored = formats.read(files[0]).palette
    else:
        return ""
    if stored is None:
        return ""
    declared = config.data[name]
    if declared.kind == "labels":  # one colour a class; more are of numbers that are none
        chosen, _ = labels.parse_numbers(numbers, declared.channels, "numbers")
        indices = np.array(chosen or range(declared.channels))
        if indices.min() < 0 or indices.max() >= len(stored):
            return ""
        stored = stored[indices]
    is_palette = len(stored) <= palettes.VOID and len(np.unique(stored, axis=0)) == len(stored)
    return palettes.to_hex(stored) if is_palette else ""
