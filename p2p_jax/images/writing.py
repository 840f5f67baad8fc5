"""Files written in one step: a kill, or a full disk, leaves the old file or the new one, never a part."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from p2p_jax.errors import InputError
from p2p_jax.storage import error_number, reason, storage_error, telling


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
        raise InputError(f"{path} cannot be written: {path.parent} is no folder and cannot be made one") from error


@telling
@contextlib.contextmanager
def unfinished(path: Path, mark: str = "") -> Iterator[Path]:
    """Give a file to write beside `path`, which takes its place at the end, and is removed if an error comes first.

    Args:
      path: of the whole file.
      mark: in the name of the unfinished one. Without it a killed process leaves one such file at most, which the next
        one replaces.

    Raises:
      InputError: the folder cannot be made.
    """
    make_folder(path)
    temporary = path.with_name(f".{path.name}{mark}.part{path.suffix.lower()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
    with unfinished(path, mark=f".{os.getpid()}") as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may not be text


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Check that a translation may be written.

    Raises:
      InputError: the target is the source itself, or exists and is not to be replaced.
    """
    if not target.exists():
        return
    if target.samefile(source):
        raise InputError(f"{source} would be replaced by its own translation; choose another `output`")
    if not overwrite:
        raise InputError(f"{target} exists; `overwrite` replaces it")
