"""The images of a split in a container: encoded, by number; none has been read yet."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, overload

from p2p_jax.data.containers.decoding import Encoded

KINDS = ("zip", "array_record", "hugging_face")
PHOTOS, UNPAIRED = "photos", "unpaired"
_HALVES = ("side_by_side", "side_by_side/AB", "side_by_side/BA")
LAYOUTS = {
    "zip": ("", *_HALVES, "folders", "suffixes", PHOTOS, UNPAIRED),
    "array_record": ("", *_HALVES, PHOTOS, UNPAIRED),
    "hugging_face": ("", *_HALVES, PHOTOS, UNPAIRED),
}
"""What may follow the slash of a source; nothing: as it is found."""
LOOKED_AT = 16
"""Examples whose images recognise a set that has no checksums of its own."""
SOURCES = tuple("/".join(filter(None, (kind, layout))) for kind, layouts in LAYOUTS.items() for layout in layouts)


class Numbered(NamedTuple):
    """Examples of a container, by number.

    Attributes:
      names: one per example.
      read: ``index -> images``: those that belong together. Threads call it.
    """

    names: Sequence[str]
    read: Callable[[int], tuple[Encoded, ...]]


class Contents(NamedTuple):
    """The examples of one split in a container.

    Attributes:
      sides: one of pairs, or of single images (A is made of them, or they are halved); or A and B of unpaired images.
      halves: "AB" or "BA" if an image holds both of a pair, in this order from left to right.
      identity: eight digits or more that change with the images, made without reading them all.
    """

    sides: tuple[Numbered, ...]
    halves: str
    identity: str


class Names(Sequence[str]):
    """Names that are made on demand, so five million need no list."""

    def __init__(self, count: int, name: Callable[[int], str]):
        self._range, self._name = range(count), name

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._name(i) for i in self._range[index]]
        return self._name(self._range[index])


class Joined:
    """The numbers of several parts, one after the other."""

    def __init__(self, counts: Sequence[int]):
        self._ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def find(self, index: int) -> tuple[int, int]:
        """Return the part that has a number, and the number in that part."""
        part = bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)


def first_line(error: Exception) -> str:
    """Return what a library says of an error, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def parse(source: str) -> tuple[str, str] | None:
    """Return the kind and the layout of a ``config.data.source`` that names a container, None of others."""
    kind, _, layout = source.partition("/")
    return (kind, layout) if kind in KINDS else None


def halves_of(layout: str) -> str:
    """Return the order of the two images side by side: "AB", "BA", or "" for single images."""
    if not layout.startswith("side_by_side"):
        return ""
    return "BA" if layout.endswith("/BA") else "AB"
