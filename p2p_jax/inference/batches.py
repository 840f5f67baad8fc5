"""Images gathered into batches of one size, which are under way while earlier ones are fetched."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from p2p_jax.inference.programs import Kind, Programs

_MOST_WAITING = 4  # full batches of images, of sizes without a full batch yet


class Limits(NamedTuple):
    """How many images are translated at a time.

    Attributes:
      images: at most, over all devices.
      pixels: at most, unless one image for each device has more: larger batches of large images are no faster on CPUs,
        and take as many times the memory.
      devices: their number; `images` is a multiple of it.
    """

    images: int
    pixels: int
    devices: int

    def most(self, shape: tuple[int, ...]) -> int:
        """Return the size of a full batch of images [H, W, ...]."""
        fitting = self.pixels // (shape[0] * shape[1] * self.devices)
        return self.devices * max(1, min(self.images // self.devices, fitting))

    def even(self, shape: tuple[int, ...], count: int) -> int:
        """Return the size at which `count` images fill the fewest batches, all of one size: one program is enough."""
        batches = -(-count // self.most(shape))
        return self.whole(-(-count // batches))

    def whole(self, count: int) -> int:
        """Return the next multiple of the number of devices."""
        return -(-count // self.devices) * self.devices


class Batches:
    """Batches of images to translate, in the order they come.

    Args:
      programs: what translates.
      limits: how many at a time.
      counts: by height and width, padded, how many images of that size will come, one after the other; then batches
        are all alike, and nothing waits for a full one once another size comes. None: not known.
    """

    def __init__(self, programs: Programs, limits: Limits, counts: Mapping[tuple[int, int], int] | None = None):
        self._programs, self._limits, self._counts = programs, limits, counts
        self._waiting: dict[Kind, list[tuple[Any, np.ndarray]]] = {}  # the longest waiting one first
        self._under_way: deque[tuple[list[tuple[Any, np.ndarray]], jax.Array]] = deque()

    def add(self, name: Any, image: np.ndarray, to_bytes: bool) -> Iterator[tuple[Any, np.ndarray]]:
        """Take a padded image; yields what has been translated by now."""
        kind = Kind(image.shape, image.dtype, to_bytes)
        if self._counts is not None:
            yield from self._rest(lambda waiting: waiting != kind)
        group = self._waiting.setdefault(kind, [])
        group.append((name, image))
        most = self._rows_planned(kind)
        if len(group) == most:
            yield from self._start(kind, most)
        elif sum(map(len, self._waiting.values())) > _MOST_WAITING * self._limits.images:
            yield from self._start(next(iter(self._waiting)))

    def end(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield all that is left."""
        yield from self._rest(lambda waiting: True)
        yield from self.fetch()

    def fetch(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield what is under way."""
        yield from self._finish(0)

    def _rest(self, is_meant: Callable[[Kind], bool]) -> Iterator[tuple[Any, np.ndarray]]:
        for kind in [kind for kind in self._waiting if is_meant(kind)]:
            yield from self._start(kind)

    def _rows_planned(self, kind: Kind) -> int:
        height, width = kind.shape[:2]
        count = self._counts.get((height, width), 0) if self._counts else 0
        return self._limits.even(kind.shape, count) if count else self._limits.most(kind.shape)

    def _rows(self, kind: Kind, count: int) -> int:
        """Return the size of a batch for a remainder: the smallest that is compiled and holds it, else its own."""
        return min((n for n in self._programs.rows(kind) if n >= count), default=self._limits.whole(count))

    def _start(self, kind: Kind, rows: int | None = None) -> Iterator[tuple[Any, np.ndarray]]:
        group = self._waiting.pop(kind)
        images = np.stack([image for _, image in group])
        before = self._under_way[-1][1] if self._under_way else None
        rows = rows or self._rows(kind, len(group))
        self._under_way.append((group, self._programs.run(kind, images, rows, before)))
        yield from self._finish(1)

    def _finish(self, most: int) -> Iterator[tuple[Any, np.ndarray]]:
        while len(self._under_way) > most:
            group, outputs = self._under_way.popleft()
            for (name, _), output in zip(group, np.asarray(outputs), strict=False):
                yield name, output
