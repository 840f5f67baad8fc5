"""What a config leaves to be found in the training images: ranges of values, colours of labels."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.data.stream.backend import iterate, tensorflow
from p2p_jax.data.stream.sides import Side
from p2p_jax.data.stream.sources import loader
from p2p_jax.errors import InputError
from p2p_jax.images import formats, labels, palettes, ranges
from p2p_jax.reporting import say

_MEASURED_AT_MOST = 1_000  # images of a side, evenly over all of them


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
            count = min(len(side.source.names), _MEASURED_AT_MOST)
            say(f"data: values of the {name} in {count:,} training images: {facts[name]['range']}")
        declared = config.data[name]
        if domain.kind == "labels" and (counts := _count_numbers(side, place)):
            numbers = declared.numbers or labels.find_numbers(counts, domain.channels)
            facts[name] |= {"numbers": numbers} if numbers != declared.numbers else {}
            told = labels.describe(counts, domain.channels, numbers)
            images = min(len(side.source.names), _MEASURED_AT_MOST)
            say(f"data: labels of the {name} in {images:,} training images: {told}")
        if domain.is_labels and domain.palette is None:
            numbers = facts[name].get("numbers", declared.numbers)
            if colors := _stored_palette(side, name, config, numbers):
                facts[name]["palette"] = colors
    return facts


def _measure(side: Side, place: int, extremes: Callable) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest value of every channel, in ``_MEASURED_AT_MOST`` images."""
    chosen = _chosen(side)
    found = extremes(side, place, chosen)
    if len(bad := np.flatnonzero(~np.isfinite(found).all((1, 2)))):
        name = side.source.names[chosen[bad[0]]]
        raise InputError(f"{name} holds numbers that are not finite (NaN or infinite); replace them or remove it")
    low, high = found[:, 0].min(0), found[:, 1].max(0)
    return low.tolist(), np.where(high > low, high, low + 1).tolist()


def _chosen(side: Side) -> np.ndarray:
    count = len(side.source.names)
    return np.unique(np.linspace(0, count - 1, min(count, _MEASURED_AT_MOST)).astype(np.int64))


def _count_numbers(side: Side, place: int) -> Counter[int]:
    """Count the numbers that stand for classes, in ``_MEASURED_AT_MOST`` images; colours are not counted."""
    load, counts = loader(side.source), Counter[int]()

    def count(index: int) -> tuple[list[int], list[int]]:
        image = load(index)[-len(side.read_domains) :][place]
        if image.shape[-1] != 1:
            return [], []
        numbers, pixels = np.unique(image, return_counts=True)
        return numbers.tolist(), pixels.tolist()

    with ThreadPoolExecutor() as pool:
        for numbers, pixels in pool.map(count, _chosen(side).tolist()):
            counts.update(dict(zip(map(int, numbers), pixels, strict=True)))
    return counts


def _extremes(side: Side, place: int, indices: np.ndarray) -> np.ndarray:
    tf = tensorflow()

    def extremes(index):
        image = tf.cast(side.raw(index)[place], tf.float32)
        return tf.stack([tf.reduce_min(image, (0, 1)), tf.reduce_max(image, (0, 1))])

    ds = tf.data.Dataset.from_tensor_slices(indices).map(extremes, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        return np.stack(list(iterate(ds)))
    except tf.errors.OpError as error:
        raise InputError(f"a training image cannot be read ({error.message.splitlines()[0]})") from error


def _stored_palette(side: Side, name: str, config: ConfigDict, numbers: str) -> str:
    """Return the colours that the first file of a side has in itself, "" if it has none that name the classes."""
    layout = side.source.layout
    if layout is None:
        return ""
    files = layout.a if (name == "input") == (config.data.direction == "AtoB") else layout.b
    stored = formats.read(files[0]).palette
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
