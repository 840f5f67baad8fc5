"""The one door to images in containers, and the look at them before training starts."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.data import checks
from p2p_jax.data.containers import array_records, decoding, hugging_face, zip_files
from p2p_jax.data.containers.contents import LAYOUTS, SOURCES, Contents, Numbered, parse
from p2p_jax.data.containers.decoding import Encoded
from p2p_jax.data.layouts import Layout
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import limits, raw, unknown
from p2p_jax.images.domains import NUMBERS, Domain
from p2p_jax.images.stored import Header, Stored

_FINDERS = {"zip": zip_files.find, "array_record": array_records.find, "hugging_face": hugging_face.find}
_T = TypeVar("_T")
_TO_DOUBT = 24  # examples for the check of halves
_WHOLE, _SOME = 1_000, 300  # up to so many examples all are looked at, of more so many, evenly over all of them


class Told(NamedTuple):
    """What images of one domain say of themselves.

    Attributes:
      palette: [K, 3] uint8, of the first one, None if it has none.
      nodata: the mark of unknown values, in the form of ``config.data.*.nodata``; "" if there is none.
    """

    palette: np.ndarray | None
    nodata: str


class Opened(NamedTuple):
    """A side of a split, looked at.

    Attributes:
      numbered: its examples.
      kinds: the domains of the images of an example, as `read` gives them.
      told: what their files declare, for each domain.
      halves: see ``Contents``.
      data: of the config.
      whole: whether every image was looked at, so no second look is needed.
    """

    numbered: Numbered
    kinds: tuple[Domain, ...]
    told: tuple[Told, ...]
    halves: str
    data: ConfigDict
    whole: bool

    def read(self, index: int) -> list[Stored]:
        """Return the images of an example as they are stored, A before B, one of each domain.

        Raises:
          InputError: one cannot be used; names it.
        """
        images = self.numbered.read(index)
        if not self.whole:
            headers = [decoding.read_header(image) for image in images]
            for fault in [*_faults(images, headers, self.kinds, self.halves, self.data), *self._late(images, headers)]:
                raise InputError(fault)
        parts = _parts([decoding.read(image) for image in images], self.halves)
        for place, (part, kind) in enumerate(zip(parts, self.kinds, strict=True)):
            if part.opacity is not None:
                raw.prepared(part, kind, _at(images, place).name)  # which names the image better than its reader can
        return parts

    def _late(self, images: Sequence[Encoded], headers: Sequence[Header]) -> Iterator[str]:
        """Say which images have unknown values, where none that was looked at in the beginning has."""
        for place, kind in enumerate(self.kinds):
            if _asks(kind) and not kind.unknown and _at(headers, place).unknown:
                yield (
                    f"{_at(images, place).name} marks unknown values, unlike the images that were looked at at "
                    f"the start: set config.data.input.nodata={unknown.MASK}, or output.nodata"
                )


def open_container(data: ConfigDict, split: str, domains: tuple[Domain, Domain]) -> tuple[tuple[Opened, ...], str]:
    """Open the images of a split, and look at up to a thousand, of more at some.

    Args:
      data: reads ``source``, ``dir``, ``columns``, ``preprocess`` and the sizes.
      split: such as "train".
      domains: of A and B as the images are stored (``p2p_jax.images.domains.of_files``).

    Returns:
      One side of pairs or of single images, or the two of unpaired images; and what recognises them.

    Raises:
      InputError: there are no such images, or one that was looked at cannot be used; names it.
    """
    limits.allow(data.max_pixels)
    for name in ("dir_a", "dir_b", "suffix_a", "suffix_b", "val_fraction"):
        if data[name]:
            raise InputError(f"config.data.{name} is for folders; config.data.source={data.source} does not use it")
    kind, layout = parse(data.source) or ("", "")
    if layout not in LAYOUTS.get(kind, ()):
        raise InputError(f"config.data.source is {data.source!r}; choose {', '.join(SOURCES)}")
    contents = _FINDERS[kind](data, split, layout)
    opened = tuple(_look(contents, i, domains, data) for i in range(len(contents.sides)))
    if contents.halves and layout in ("", "side_by_side"):
        _doubt_halves(opened[0].numbered, data, split, kind)
    return opened, contents.identity


def _doubt_halves(numbered: Numbered, data: ConfigDict, split: str, kind: str) -> None:
    """Refuse images that are to be halved and look like single ones, as files of this kind are."""
    from p2p_jax.data.inspect import doubts  # here, as it reads sources, and so this

    chosen = evenly(range(len(numbered.names)), _TO_DOUBT)
    files = [decoding.as_file(image) for i in chosen for image in numbered.read(i) if isinstance(image.contents, bytes)]
    if doubts.doubt_halves({split: Layout(files, files, halves="AB")}, ConfigDict({**data, "source": "side_by_side"})):
        raise InputError(
            f"the images of {split} ({numbered.names[0]}) look like single images, not two side by side: the "
            f"left half continues in the right half without a seam. For single images use config.data.source="
            f"{kind}/photos with a config.task.input, or {kind}/unpaired; if they are pairs, {kind}/side_by_side/AB"
        )


def _look(contents: Contents, number: int, domains: tuple[Domain, Domain], data: ConfigDict) -> Opened:
    """Look at a side, and name the first example with a fault."""
    numbered = contents.sides[number]
    count = len(numbered.names)
    if not count:
        raise InputError(f"config.data.dir={data.dir} has no image")
    if len(contents.sides) == 2:
        kinds: tuple[Domain, ...] = (domains[number],)
    else:
        kinds = domains if contents.halves or len(numbered.read(0)) == 2 else domains[1:]
    chosen: Sequence[int] = range(count)
    if count > _WHOLE:
        chosen = evenly(range(count), _SOME)

    def look(index: int) -> tuple[list[Header], list[str]]:
        try:
            images = numbered.read(index)
            headers = [decoding.read_header(image) for image in images]
            found = _faults(images, headers, kinds, contents.halves, data)
            return headers, found or _whole_faults(images, kinds, contents.halves)
        except InputError as error:
            return [], [str(error)]

    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(look, chosen))
    faults = [found[0] for _, found in looks if found]
    if faults:
        more = f" (and {len(faults) - 1:,} more: run python -m p2p_jax inspect)" if len(faults) > 1 else ""
        raise InputError(faults[0] + more)
    told = []
    first = _parts([decoding.read(image) for image in numbered.read(0)], contents.halves)
    for place, kind in enumerate(kinds):
        nodata = ""
        if _asks(kind):
            marked = (i for i, (headers, _) in zip(chosen, looks, strict=True) if _at(headers, place).unknown)
            for index in marked:
                images = numbered.read(index)
                number_of = decoding.read(_at(images, place)).nodata
                nodata = unknown.MASK if number_of is None else f"{number_of:.9g}"
                break
        told.append(Told(first[place].palette, nodata))
    kinds = tuple(
        kind._replace(unknown=kind.unknown or kind.kind == "float" or bool(one.nodata)) if _asks(kind) else kind
        for kind, one in zip(kinds, told, strict=True)
    )
    return Opened(numbered, kinds, tuple(told), contents.halves, data, count <= _WHOLE)


def _asks(kind: Domain) -> bool:
    """Return whether it counts what an image says of unknown values."""
    return kind.kind in NUMBERS and kind.asks_files


def _at(items: Sequence[_T], place: int) -> _T:
    """Return what belongs to the image of a domain; that of halves belongs to both."""
    return items[min(place, len(items) - 1)]


def _parts(stored: list[Stored], halves: str) -> list[Stored]:
    """Return the images of A and B, which may be the halves of one."""
    if not halves:
        return stored
    [whole] = stored
    middle = whole.pixels.shape[1] // 2
    parts = [whole.columns(half) for half in (slice(None, middle), slice(middle, None))]
    return parts[:: -1 if halves == "BA" else 1]


def _faults(
    images: Sequence[Encoded], headers: Sequence[Header], kinds: Sequence[Domain], halves: str, data: ConfigDict
) -> list[str]:
    """Return what is wrong with the images of an example by what they say of themselves."""
    found = []
    for place, kind in enumerate(kinds):
        image = _at(images, place)
        if fault := raw.fault(_at(headers, place), kind):
            found.append(f"{image.name} {fault}")
    sizes = [f"{header.width}x{header.height}" for header in headers]
    if len(set(sizes)) > 1 and (data.preprocess == "none" or not checks.have_one_shape(*headers)):
        found.append(
            f"{images[0].name} is {sizes[0]} pixels but its partner {images[1].name} is {sizes[1]}; both images of "
            "a pair must have the same shape"
        )
    header, name = headers[0], images[0].name
    if halves and header.width % 2:
        found.append(f"{name} is {header.width} pixels wide: it cannot be cut into A and B of equal width")
    elif fault := checks.crop_fault(header.height, header.width // (2 if halves else 1), data):
        found.append(f"{name} {fault}")
    return found


def _whole_faults(images: Sequence[Encoded], kinds: Sequence[Domain], halves: str) -> list[str]:
    """Return what is wrong with the numbers in the images of an example."""
    found = []
    for place, (stored, kind) in enumerate(zip(_parts(list(map(decoding.read, images)), halves), kinds, strict=True)):
        name = _at(images, place).name
        raw.prepared(stored, kind, name)  # raises if it is not an image of its kind
        if fault := raw.numbers_fault(stored, kind):
            found.append(f"{name} {fault}")
    return found
