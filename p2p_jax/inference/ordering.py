"""The order of translating files, and how far ahead they are read."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.data import ahead as data_ahead
from p2p_jax.errors import InputError
from p2p_jax.images import formats, windows
from p2p_jax.inference import large, scale
from p2p_jax.inference.scale import Size
from p2p_jax.inference.translator import Translator

PIXELS = 2**25  # of images that are read ahead, or wait to be written, unless there is only one


class Job(NamedTuple):
    """A file to translate and the file to write."""

    source: Path
    target: Path


class Entry(NamedTuple):
    """What is known of a job before its file is read.

    Attributes:
      job: what to read and write.
      padded: height and width at which it is translated, None if the file does not say.
      sides: height and width at which it is translated, before padding.
      is_tiled: whether it is cut into tiles of the size `padded`.
      is_large: whether it is translated by ``large.translate``.
    """

    job: Job
    padded: tuple[int, int] | None
    sides: tuple[int, int] = (0, 0)
    is_tiled: bool = False
    is_large: bool = False

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.sides[0] * self.sides[1]


def look(
    pool: ThreadPoolExecutor, translator: Translator, jobs: Sequence[Job], size: Size, *, is_input: bool
) -> list[Entry]:
    """Return the jobs grouped by size; a size has the place of its first file.

    Args:
      pool: that reads the headers.
      translator: that translates them.
      jobs: in the order wanted; a file that cannot be read keeps its place, and says later why.
      size: images are resized to it.
      is_input: whether files are translated as they are, apart from their size.
    """

    def entry(job):
        try:
            in_rows = large.may_fit(translator, job.source, job.target)
            header = (windows if in_rows else formats).read_header(job.source)
            shown = header.height, header.width
            sides = scale.sides(shown, size)
            padded = translator.padded_size(*sides)
            as_it_is = is_input and sides == shown
            is_tiled = translator.tile is not None and max(sides) > translator.tile
            is_large = in_rows and as_it_is and large.fits(translator, job.source, header)
        except InputError:
            return Entry(job, None)
        return Entry(job, padded, sides, is_tiled, is_large)

    found = list(pool.map(entry, jobs))
    place: dict[Any, int] = {}
    for i, one in enumerate(found):
        place.setdefault(one.padded or one.job, i)
    return sorted(found, key=lambda one: place[one.padded or one.job])


def counts(entries: Sequence[Entry]) -> dict[tuple[int, int], int]:
    """Return how many images are translated whole at each size, as far as their files tell."""
    return dict(Counter(entry.padded for entry in entries if entry.padded and not entry.is_tiled))


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Job], Any], entries: Sequence[Entry], most: int
) -> Iterator[tuple[Job, Future]]:
    """Run a function over jobs in a pool, ahead of what is taken: by `most` jobs, or fewer if they are large."""
    running = data_ahead.ahead(
        pool, lambda entry: function(entry.job), entries, most, lambda entry: entry.pixels, PIXELS
    )
    for entry, result in running:
        yield entry.job, result
