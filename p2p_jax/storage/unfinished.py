"""Files and folders while they are being written: names that nobody foresees, and what a killed process leaves.

An unfinished file is called ``.NAME.TOKEN.part.ENDING``; the token begins with eight digits for the computer and
goes on with sixteen random ones. So two processes that write one output do not meet, and others who may write into
the folder cannot lay a link where the file will be. The writer holds a lock on what it writes, which a kill lets go: by
that the next writer in the folder knows what is abandoned, and removes it.
"""

import contextlib
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from pathlib import Path

from p2p_jax.storage import kernel_locks

_LONGEST = 160  # bytes of a file's name that are kept: file systems take 255 in all
_YOUNG = 0.5  # seconds that a new one may be without a lock
_HERE = f"{zlib.crc32(platform.node().encode(errors='replace')):08x}"
_OURS = re.compile(rf"\..+\.{_HERE}[0-9a-f]{{16}}\.part(\.[^.]+)?", re.DOTALL)
_looked_at: set[Path] = set()  # folders, by this process


class Unfinished:
    """A new file or folder next to `path` for this process only; close it once it is renamed or removed.

    Args:
      path: of what will be whole.
      is_folder: make a folder.

    Attributes:
      path: of what is unfinished.

    Raises:
      OSError: it cannot be made.
    """

    def __init__(self, path: Path, *, is_folder: bool = False):
        if path.parent not in _looked_at:
            _looked_at.add(path.parent)
            remove_abandoned(path.parent)
        name, ending = path.name, "" if is_folder else path.suffix.lower()
        if not is_folder:
            name = os.fsencode(name)[:_LONGEST].decode(errors="ignore")
            ending = ending if len(os.fsencode(ending)) < 32 else ""
        self.path = path.with_name(f".{name}.{_HERE}{secrets.token_hex(8)}.part{ending}")
        if is_folder:
            os.mkdir(self.path)
        else:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        self._lock = _locked(self.path)

    def close(self) -> None:
        """Remove it, if it is still there, and let the lock go."""
        with contextlib.suppress(OSError):
            if self.path.is_dir():
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink()
        if self._lock is not None:
            os.close(self._lock)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes of this computer have left unfinished in a folder."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            is_ours = _OURS.fullmatch(entry.name) and not entry.is_symlink()
            if is_ours and time.time() - entry.stat().st_mtime > _YOUNG:
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(path: Path) -> None:
    lock = _locked(path)
    if lock is None:  # another process has it, or that is not known
        return
    try:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _locked(path: Path) -> int | None:
    """Return an open descriptor that holds the lock of a file or folder; None if it cannot be had."""
    descriptor: int | None = None
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        if kernel_locks.take(descriptor):
            return descriptor
    if descriptor is not None:
        os.close(descriptor)
    return None
