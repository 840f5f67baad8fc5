"""One split of a data set as evaluation sees it: every example once, in order, with the original image."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import with_facts
from p2p_jax.config.options import CROPPED
from p2p_jax.data import layouts, numpy_reading
from p2p_jax.data.given import check_given
from p2p_jax.data.stream import sides
from p2p_jax.data.stream.facts import find_nodata
from p2p_jax.data.stream.pipeline import Batch, one_pass
from p2p_jax.data.stream.sources import Source, Unpaired, loader, make_source
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_config


class Split(NamedTuple):
    """One split of a data set, for evaluation.

    Attributes:
      names: of the images of ``real_a`` and of ``real_b``, in order; the same list twice if `paired`.
      paired: whether ``real_b`` is what ``real_a`` should become.
      batches: ``(batch_size) -> iterator`` over all examples in order, as ``Data.validation``.
      original: ``(side, index) -> image``, [H, W, C] as it was before it was resized; side 0 is that of ``real_a``.
      fingerprint: identifies the images; "" if there is none.
      whole: whether images are whole, with different sizes and so one per batch, and not crops.
      nodata: marks of unknown values that the config does not name, ``{"input": {"nodata": "-9999"}, ...}``.
      shard: (first, step): `batches` gives only the examples of ``places``; all else is that of the whole split.
    """

    names: tuple[Sequence[str], Sequence[str]]
    paired: bool
    batches: Callable[[int], Iterator[Batch]]
    original: Callable[[int, int], np.ndarray]
    fingerprint: str = ""
    whole: bool = False
    nodata: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    shard: tuple[int, int] = (0, 1)

    def places(self, count: int) -> range:
        """Return which of so many examples, or images of a side, are of the shard: all, if there is none."""
        return range(self.shard[0], count, self.shard[1])


def load_split(
    config: ConfigDict,
    split: str,
    source: Source | Unpaired | None = None,
    *,
    whole: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> Split:
    """Open one split of the data set of a config; TensorFlow is needed only for inputs computed from photographs.

    Args:
      config: reads ``data`` and ``task``.
      split: such as "train", "val" or "test".
      source: the split's data, instead of ``config.data.source``, such as ``from_arrays(a, b)``.
      whole: leave out the crop where ``data.preprocess`` has one in validation; inputs that are made of photographs are
        cropped all the same.
      shard: (first, step): the stream gives every step-th example, from the first on, and reads no other.

    Raises:
      InputError: there is no such split, or a file cannot be used.
    """
    source = source or make_source(config.data, split)
    nodata = find_nodata(source, None, config)
    config = with_facts(config, nodata)
    domains = of_config(config.data)
    paired = not isinstance(source, Unpaired)
    is_made = sides.makes_input(config)
    found = (sides if is_made else numpy_reading).make_sides(source, config, domains)
    names = [_names(side.source) for side in found]

    whole = whole and not is_made and config.data.preprocess in CROPPED

    def batches(batch_size):
        if is_made:
            return one_pass(found, config, *shard)(batch_size)
        places = range(shard[0], max(len(side.source.names) for side in found), shard[1])
        if whole:
            return _whole_images(found, config.data, places)
        return _decoded_batches(found, config.data, batch_size, places)

    def original(side, index):
        images = loader(found[0 if paired else side].source)(index)
        return images[min(side, len(images) - 1) if paired else 0]

    return Split((names[0], names[-1]), paired, batches, original, source.fingerprint, whole, nodata, shard)


def split_meant(data: ConfigDict, asked: str | None) -> str:
    """Return the split that is meant: the run's own for validation, unless another one is asked for.

    Args:
      data: of the run's config; reads ``val_split`` and where the images are.
      asked: its name. "val" also means the run's own validation split if its data have no other one of that name.
    """
    if not asked:
        return data.val_split
    if asked != "val" or not (data.val_split and layouts.is_file_source(data.source)):
        return asked
    try:
        return asked if layouts.has_split(data, asked) else data.val_split
    except InputError:  # there is no folder, which is named elsewhere
        return asked


def _names(source: Source) -> Sequence[str]:
    """Return the names of examples; a container may have too many for a list."""
    if source.told:
        return source.names
    return [Path(x).name if Path(x).is_file() else x for x in source.names]


def as_split(data: Any, config: ConfigDict, *, paired: bool, whole: bool, shard: tuple[int, int] = (0, 1)) -> Split:
    """Return data given for evaluation as a split.

    Args:
      data: a ``Split``; a ``Source`` or ``Unpaired``; or a ``Data``, whose validation set is taken.
      config: reads ``data`` and ``batch_size``.
      paired: whether the examples of a ``Data`` are in pairs.
      whole: see ``load_split``; of a source.
      shard: see ``load_split``; of a ``Split`` or a ``Data`` every example is read, and the others are passed over.

    Raises:
      InputError: it is none of these, or a ``Data`` without validation.
    """
    if isinstance(data, Split):
        return data if shard == (0, 1) else data._replace(batches=_every(data.batches, shard), shard=shard)
    if isinstance(data, Source | Unpaired):
        return load_split(config, "given", data, whole=whole, shard=shard)
    checked = check_given(data, config)
    if not checked.num_val:
        raise InputError("the given data have no validation set to evaluate on")
    counts = checked.val_counts or (checked.num_val, checked.num_val)
    names = [str(i) for i in range(counts[0])], [str(i) for i in range(counts[1])]

    def original(side, index):
        raise InputError("labels are read at their full size: give a Split or a Source instead of Data")

    return Split(names, paired, _every(checked.validation, shard), original, shard=shard)


def _every(batches: Callable[[int], Iterator[Batch]], shard: tuple[int, int]) -> Callable[[int], Iterator[Batch]]:
    """Return a stream of every n-th example of another one; a batch holds those of one batch of the other."""
    first, step = shard

    def some(batch_size):
        at = 0
        for batch in batches(batch_size):
            count = len(batch["real_a"])
            rows = np.arange((first - at) % step, count, step)
            if len(rows):
                yield {name: images[rows] for name, images in batch.items()}
            at += count

    return batches if step == 1 else some


def _whole_images(found: list[sides.Side], data: ConfigDict, places: range) -> Iterator[Batch]:
    """Yield every example by itself, without a crop."""
    for place in places:
        images = [numpy_reading.whole(side, place % len(side.source.names), data) for side in found]
        pair = itertools.chain.from_iterable(images)
        yield dict(zip(("real_a", "real_b"), (image[None] for image in pair), strict=True))


def _decoded_batches(found: list[sides.Side], data: ConfigDict, batch_size: int, places: range) -> Iterator[Batch]:
    """Yield the batches of the stream, decoded one batch ahead."""
    count = len(places)

    def batch(first):
        some = places[first : first + batch_size]
        parts = [
            numpy_reading.for_validation(side, [place % len(side.source.names) for place in some], data)(slice(None))
            for side in found
        ]
        return dict(zip(("real_a", "real_b"), itertools.chain.from_iterable(parts), strict=True))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, 0)
        for first in range(batch_size, count + batch_size, batch_size):
            ready, ahead = ahead.result(), pool.submit(batch, first) if first < count else ahead
            yield ready
