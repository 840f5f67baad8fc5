"""What a disk refuses, in one sentence: a full one, a read-only one, a folder of somebody else."""

import contextlib
import errno
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from p2p_jax.errors import InputError

_T = TypeVar("_T")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_CODE = re.compile(r"os_error_code='(\d+)'")  # TensorStore's errors are of no type of their own


class StorageError(InputError):
    """A file cannot be written or read, because of the disk or of its rights; the message names it and the fix.

    Attributes:
      stops_all: no other file can be written there either.
    """

    stops_all = False


@contextlib.contextmanager
def writing(path: str | Path, needed: int | None = None) -> Iterator[None]:
    """Say in one sentence what keeps a file, or what is in a folder, from being written.

    Args:
      path: of what is written.
      needed: how many bytes it takes, where that is known.

    Raises:
      StorageError: the disk is full or read-only, or the file or the folder is not to be written by this user.
    """
    try:
        yield
    except Exception as error:
        number = error_number(error)
        if number is None or _is_of_another(error, Path(path)):  # that is read in the meantime, say
            raise
        raise storage_error(number, path, needed) from error


def _is_of_another(error: Exception, path: Path) -> bool:
    """Return whether an error names a file other than the path, its contents, or its unfinished file next to it."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str):
        return False
    for found in (Path(name).absolute(), *Path(name).absolute().parents):
        if found.parent == path.absolute().parent:
            return found.name != path.name and not found.name.startswith(f".{path.name}")
    return not path.absolute().is_relative_to(name)  # a folder of it


def telling(make: Callable[..., contextlib.AbstractContextManager[_T]]) -> Callable[..., Any]:
    """Make a context whose first argument is the file that it writes say so as `writing` does."""

    @contextlib.contextmanager
    @functools.wraps(make)
    def told(path: Path, *args: Any, **settings: Any) -> Iterator[_T]:
        with writing(path), make(path, *args, **settings) as made:
            yield made

    return told


def error_number(error: BaseException) -> int | None:
    """Return the ``errno`` of an error that a disk makes; None of all others."""
    known = _FULL | _REFUSED
    if isinstance(error, OSError):
        return error.errno if error.errno in known else None
    found = _CODE.search(str(error)) if isinstance(error, ValueError | RuntimeError) else None
    return int(found[1]) if found and int(found[1]) in known else None


def storage_error(number: int, path: str | Path, needed: int | None = None) -> StorageError:
    """Return the error that says so; see `sentence`."""
    made = StorageError(sentence(number, path, needed))
    made.stops_all = number in (*_FULL - {errno.EFBIG}, errno.EROFS)
    return made


def reason(error: BaseException, path: str | Path) -> str:
    """Return why a file cannot be written, for brackets in a message; with the free space on a full disk."""
    number = error_number(error)
    if number is None:
        return str(getattr(error, "strerror", None) or error)
    return f"{os.strerror(number)}; {free(path)}" if number in _FULL else os.strerror(number)


def sentence(number: int, path: str | Path, needed: int | None = None) -> str:
    """Say that a path cannot be written, why, what is free, and what to do about it."""
    reason, mend = os.strerror(number), "choose another place, or allow this user to write there"
    if number in _FULL:
        wanted = f", and about {size(needed)} are needed" if needed else ""
        reason += f"; {free(path)}{wanted}"
        mend = "make room, or choose a place on another disk"
        if number == errno.EFBIG:
            mend = "this process may not write such large files: see `ulimit -f`"
        elif number == errno.EDQUOT:
            mend = "this user's disk quota is used up: make room, or choose a place on another disk"
    elif number == errno.EROFS:
        mend = "choose a place on another disk, or mount this one writable"
    elif number == errno.EIO:
        mend = "the disk is failing: choose a place on another one"
    elif number in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        mend = "choose another name"
    return f"{path} cannot be written ({reason}): {mend}"


def sentence_of(error: BaseException, place: str | Path | None = None) -> str | None:
    """Say in one sentence what a disk refused; None if the error is of another kind.

    Args:
      error: anything.
      place: the path that was written, if the error does not name it.
    """
    number = error_number(error)
    if number is None:
        return None
    names = [getattr(error, name, None) for name in ("filename2", "filename")]
    path = next((os.fsdecode(name) for name in names if isinstance(name, bytes | str)), place)
    if path is None:
        reason, _, mend = sentence(number, Path.cwd()).partition(" cannot be written (")[2].rpartition("): ")
        return f"a file cannot be written ({reason.partition(';')[0]}): {mend}"
    if number in (errno.EACCES, errno.EPERM) and os.path.exists(path):
        return f"{path} cannot be read or written ({os.strerror(number)}): allow this user to, or choose another"
    return sentence(number, path)


def free(path: str | Path) -> str:
    """Say how much is free on the disk of a path, which need not exist: "1.2 MB of 8.0 GB are free"."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return "the free space is not known"
    return f"{size(usage.free)} of {size(usage.total)} are free"


def size(count: int) -> str:
    """Write a number of bytes as people do: "640 MB"."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
