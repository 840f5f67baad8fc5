"""Files written in one step: a kill, or a full disk, leaves the old file or the new one, never a part."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from p2p_jax.errors import InputError
from p2p_jax.storage import kernel_locks
from p2p_jax.storage.refusals import error_number, reason, storage_error, telling
from p2p_jax.storage.unfinished import Unfinished


def make_folder(path: Path) -> None:
    """Make the folder that a file is to be written into.

    Raises:
      InputError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if (number := error_number(error)) is not None and number not in (errno.ENOTDIR, errno.EEXIST):
            raise storage_error(number, path) from error
        raise InputError(f"{path} cannot be written: {path.parent} is not a folder and cannot be made") from error


@telling
@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a file to write next to `path`; it replaces `path` at the end, or is removed if an error comes first.

    Several processes and threads may write one file: it is always whole, and the last one stays.

    Args:
      path: of the whole file.

    Raises:
      InputError: the folder cannot be made.
    """
    make_folder(path)
    made = Unfinished(path)
    try:
        yield made.path
        os.replace(made.path, path)
    finally:
        made.close()


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Give a new folder next to `path`, to be renamed or left; it is removed at the end if it was not renamed.

    Raises:
      InputError: the folder that both lie in cannot be made.
    """
    make_folder(path)
    made = Unfinished(path, is_folder=True)
    try:
        yield made.path
    finally:
        made.close()


@contextlib.contextmanager
def belonging_together(folder: Path) -> Iterator[None]:
    """Wait until no other process puts files into a folder that belong together, and keep others from it meanwhile.

    Without it two processes may each leave a part of theirs. Where a folder cannot be locked, nothing is waited for.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # Windows opens no folder
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            kernel_locks.wait_for(descriptor)
        yield


@contextlib.contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Give a file to write as ``unfinished`` does, and say in one sentence what keeps it from being written.

    Raises:
      InputError: the file cannot be written; names it.
    """
    try:
        with unfinished(path) as temporary:
            yield temporary
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: the format has no room for so many pixels
        raise InputError(f"{path} cannot be written ({reason(error, path)})") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8; the folder is made if missing. Several processes may write the same."""
    with unfinished(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may not be text


def first_free(paths: Iterable[Path]) -> Path:
    """Return the first of some paths where nothing exists, not even a broken link."""
    return next(path for path in paths if not os.path.lexists(path))


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Check that a translation may be written.

    Raises:
      InputError: the target is the source itself, or exists and is not to be replaced.
    """
    if not target.exists():
        return
    if target.samefile(source):
        raise InputError(f"{source} would be overwritten by its translation; choose another `output`")
    if not overwrite:
        raise InputError(f"{target} exists; `overwrite` replaces it")
