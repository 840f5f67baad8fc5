"""Pictures stored on disk: any number of them in the memory of one."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.storage.refusals import free, writing
from p2p_jax.storage.writing import unfinished_folder


class Scratch:
    """A folder for temporary files, inside the folder of the results; a context that removes it at the end.

    Files left there by a killed process are removed too.

    Args:
      output: the folder of the results; None: the system's folder for temporary files.

    Attributes:
      folder: the folder; it exists only inside the context.
    """

    def __init__(self, output: Path | None):
        self._parent = Path(tempfile.gettempdir()) if output is None else output
        self._new = [path for path in (self._parent, *self._parent.parents) if not path.exists()]
        self._made = contextlib.ExitStack()
        self._files: list[IO[bytes]] = []

    def open(self) -> IO[bytes]:
        """Open a file without a name in the folder; it is removed at the end of the context or of the process."""
        self._files.append(tempfile.TemporaryFile(dir=self.folder, buffering=0))  # noqa: SIM115
        return self._files[-1]

    def __enter__(self) -> "Scratch":
        """Make the folder.

        Raises:
          InputError: the folder cannot be made.
        """
        with writing(self._parent):
            self.folder = self._made.enter_context(unfinished_folder(self._parent / "p2p_jax"))
        return self

    def __exit__(self, *_: Any) -> None:
        for file in self._files:
            file.close()
        self._made.close()
        with contextlib.suppress(OSError):  # only removed if there are no results in it
            for path in self._new:
                path.rmdir()


def no_room(place: Path, error: OSError) -> InputError:
    """Return the error message if temporary files cannot be written."""
    return InputError(
        f"{place} has no room for the temporary pictures of the evaluation ({error.strerror or error}); "
        f"free some space ({free(place)}), or name an `output` on another disk"
    )


class _Place(NamedTuple):
    """Position of a picture in a file."""

    store: "_Store"
    start: int
    shape: tuple[int, ...]


class _Store:
    """A file of pictures, one after the other."""

    def __init__(self, scratch: Scratch):
        self._scratch, self._lock, self._end = scratch, threading.Lock(), 0
        self._file: IO[bytes] | None = None

    def write(self, image: np.ndarray) -> _Place:
        with self._lock:
            try:
                if self._file is None:
                    self._file = self._scratch.open()
                self._file.seek(self._end)
                data = np.ascontiguousarray(image).data.cast("B")
                while data:  # without a buffer, a write may be partial
                    data = data[self._file.write(data) :]
            except OSError as error:
                raise no_room(self._scratch.folder, error) from error
            place = _Place(self, self._end, image.shape)
            self._end += image.nbytes
        return place

    def read(self, place: _Place) -> np.ndarray:
        image = np.empty(place.shape, np.uint8)
        assert self._file is not None
        with self._lock:
            self._file.seek(place.start)
            left = image.data.cast("B")
            while left:
                count = self._file.readinto(left)  # type: ignore[attr-defined]
                if not count:
                    raise OSError("a file of pictures is cut off")
                left = left[count:]
        return image


class Pictures(Sequence[np.ndarray]):
    """A list of pictures, [H, W, C] uint8 of any sizes, stored in a temporary file.

    Each access returns a new array. A slice, and a sum of two, is such a list too, and reads nothing.

    Args:
      scratch: folder of the file; the file is made with the first picture.
    """

    def __init__(self, scratch: Scratch):
        self._store, self._places = _Store(scratch), list[_Place]()

    def append(self, image: np.ndarray) -> None:
        """Add a picture.

        Raises:
          ValueError: it has another dtype.
          InputError: the disk is full.
        """
        if image.dtype != np.uint8:
            raise ValueError(f"expected a picture of uint8, not {image.dtype}")
        self._places.append(self._store.write(image))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> "Pictures": ...

    def __getitem__(self, index: int | slice) -> "np.ndarray | Pictures":
        if isinstance(index, slice):
            return self._of(self._places[index])
        place = self._places[index]
        return place.store.read(place)

    def __iter__(self) -> Iterator[np.ndarray]:
        for place in self._places:
            yield place.store.read(place)

    def __add__(self, other: "Pictures | list[np.ndarray]") -> "Pictures | list[np.ndarray]":
        if isinstance(other, Pictures):
            return self._of(self._places + other._places)
        return [*self, *other] if isinstance(other, list) else NotImplemented

    def __radd__(self, other: list[np.ndarray]) -> list[np.ndarray]:
        return [*other, *self] if isinstance(other, list) else NotImplemented

    def __repr__(self) -> str:
        return f"<{len(self)} pictures>"

    def _of(self, places: list[_Place]) -> "Pictures":
        made = Pictures.__new__(Pictures)
        made._store, made._places = self._store, places
        return made
