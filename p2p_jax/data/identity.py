"""How a resumed run recognises its images: by their number, names, and contents.

Reading all of a large set would take as long as an epoch. So names and sizes are compared of all files
(``Source.fingerprint``), and contents of as many as time allows: small sets whole, of larger ones a part of each file
or of files evenly over all.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from p2p_jax.data.spread import evenly

_VERSION = "1"  # of the digest: digests of other versions are not compared
_BYTES = 64 * 2**20  # that are read of a side of a split
_FILES = 10_000  # that are opened of it
_EXAMPLES = 1_000  # that are looked up in a container
_PIECES = 4  # of a file that is not read whole


class Identity(NamedTuple):
    """The identity of a split, or of a side of an unpaired one.

    Attributes:
      total: how many examples there are.
      contents: a digest of their contents; "" where the fingerprint covers it, or it is not known.
      names: of the files, without their folders; empty where they are none.
    """

    total: int
    contents: str = ""
    names: Sequence[str] = ()


def same_contents(one: str, other: str) -> bool:
    """Return whether two digests may be of the same contents: digests of another version of the library say nothing."""
    return one == other or one.partition(":")[0] != other.partition(":")[0]


def of_files(paths: Iterable[Path]) -> str:
    """Return a digest of the contents of files: of all bytes if they are few, else of pieces spread over each."""
    chosen = evenly(list(dict.fromkeys(paths)), _FILES)
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_size, chosen))
        at_most = _BYTES if sum(sizes) <= _BYTES else max(_BYTES // len(chosen), _PIECES)
        return _joined(pool.map(lambda path, size: _digest(path, size, at_most), chosen, sizes))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere: named elsewhere
        return 0


def _digest(path: Path, size: int, at_most: int) -> bytes:
    found = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            if size <= at_most:
                found.update(file.read())
            else:
                piece = at_most // _PIECES
                for i in range(_PIECES):
                    file.seek((size - piece) * i // (_PIECES - 1))
                    found.update(file.read(piece))
    except OSError:  # reported when it is needed
        return b""
    return found.digest()


def of_examples(count: int, read: Callable[[int], Iterable[bytes]]) -> str:
    """Return a digest of the contents of some examples, spread evenly over all.

    Args:
      count: how many there are.
      read: ``index -> contents`` of the images that belong together.
    """
    digests, left = [], _BYTES
    for index in _from_afar(evenly(range(count), _EXAMPLES)):
        found = hashlib.sha256(str(index).encode())
        for contents in read(index):
            found.update(contents)
            left -= len(contents)
        digests.append(found.digest())
        if left <= 0:
            break
    return _joined(digests)


def _from_afar(places: Sequence[int]) -> list[int]:
    """Return indices in bit-reversed order, so every prefix is spread over all."""
    bits = max(len(places) - 1, 1).bit_length()
    order = sorted(range(len(places)), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
    return [places[i] for i in order]


def _joined(digests: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for one in digests:
        found.update(one)
    return f"{_VERSION}:{found.hexdigest()[:16]}"


def names_of(names: Iterable[str]) -> list[str]:
    """Return the names of files without their folders, which may be others tomorrow."""
    return [os.path.basename(name) for name in names]
