"""The images of a data set one by one as they are stored, to be looked at rather than trained on."""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p_jax.data.ahead import ahead
from p2p_jax.data.inspect.measures import Look, look
from p2p_jax.data.layouts import Layout
from p2p_jax.data.spread import evenly
from p2p_jax.data.stream.sources import Source, Unpaired, loader
from p2p_jax.errors import InputError
from p2p_jax.images import formats, raw
from p2p_jax.images.domains import Domain
from p2p_jax.images.formats import Stored

_AHEAD = 6  # examples that are read before they are asked for


class Example(NamedTuple):
    """Images that belong together.

    Attributes:
      name: of the whole.
      names: of every image.
      sides: of every image: 0 for A, 1 for B, before ``direction`` is applied.
      read: gives the images as they are stored.
    """

    name: str
    names: tuple[str, ...]
    sides: tuple[int, ...]
    read: Callable[[], Sequence[Stored]]


class Seen(NamedTuple):
    """What was found in the examples of a split.

    Attributes:
      sides: the images of A and those of B; for pairs in the same order.
      identical: names of the pairs whose two images are the same.
      faults: sentences that name images which cannot be used.
      unusable: names of these images.
    """

    sides: tuple[list[Look], list[Look]]
    identical: list[str]
    faults: list[str]
    unusable: list[str]


def of_layout(layout: Layout, usable: Collection[Path]) -> list[Example]:
    """Return the examples with only usable files."""
    if layout.halves:
        return [_halved(path, layout.halves) for path in layout.a if path in usable]
    if layout.paired and layout.a is not layout.b:
        pairs = zip(layout.a, layout.b, strict=True)
        return [_whole((a, b), (0, 1)) for a, b in pairs if a in usable and b in usable]
    sides = (1,) if layout.paired else (0, 1)  # photographs that A is computed from are only B
    return [_whole((path,), (side,)) for side in sides for path in layout.sides[side] if path in usable]


def _whole(paths: tuple[Path, ...], sides: tuple[int, ...]) -> Example:
    names = tuple(map(str, paths))
    return Example(" and ".join(names), names, sides, lambda: [formats.read(path) for path in paths])


def _halved(path: Path, order: str) -> Example:
    def read() -> list[Stored]:
        stored = formats.read(path)
        middle = stored.pixels.shape[1] // 2
        parts = [stored.columns(half) for half in (slice(0, middle), slice(middle, None))]
        return parts if order == "AB" else parts[::-1]

    return Example(str(path), (f"{path}, A", f"{path}, B"), (0, 1), read)


def of_source(source: Source | Unpaired, at_most: int) -> list[Example]:
    """Return so many examples of a source that has no files, which may have millions, evenly over all of them."""
    if isinstance(source, Unpaired):
        parts = enumerate((source.a, source.b))
        places = [(side, part, index) for side, part in parts for index in evenly(range(len(part.names)), at_most // 2)]
        return [_drawn(part, index, side) for side, part, index in places]
    number = len(loader(source)(0))
    return [_drawn(source, index, number=number) for index in evenly(range(len(source.names)), at_most)]


def _drawn(source: Source, index: int, side: int | None = None, number: int = 1) -> Example:
    name, load = source.names[index], loader(source)

    def read() -> list[Stored]:
        return [Stored(image) for image in load(index)]

    if side is None and number == 2:
        return Example(name, (f"{name}, A", f"{name}, B"), (0, 1), read)
    return Example(name, (name,), (1 if side is None else side,), read)  # of photographs there is only B


def look_at(examples: Iterable[Example], domains: tuple[Domain, Domain]) -> Seen:
    """Read examples and measure them; one that cannot be used is left out and named.

    Args:
      examples: of one split.
      domains: of A and B as the files have them.
    """
    seen = Seen(([], []), [], [], [])

    def see(example: Example) -> tuple[list[Look], bool] | str:
        try:
            images = example.read()
        except InputError as error:
            return str(error)
        named = list(zip(example.names, example.sides, images, strict=True))
        for name, side, image in named:
            if fault := raw.numbers_fault(image, domains[side]):
                return f"{name} {fault}"
        try:
            looks = [look(image, domains[side], name) for name, side, image in named]
        except InputError as error:
            return str(error)
        return looks, len(images) == 2 and np.array_equal(images[0].pixels, images[1].pixels)

    with ThreadPoolExecutor() as pool:
        for example, result in ahead(pool, see, examples, _AHEAD):
            found = result.result()
            if isinstance(found, str):
                seen.faults.append(found)
                seen.unusable.extend(example.names)
                continue
            looks, same = found
            for side, one in zip(example.sides, looks, strict=True):
                seen.sides[side].append(one)
            if same:
                seen.identical.append(example.name)
    return seen
