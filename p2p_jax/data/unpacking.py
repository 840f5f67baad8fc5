"""What archives from elsewhere may hold: their members are checked each time that they are read, before any is written.

A member's name must lead to one place below the folder, on every file system: those of Windows take a backslash for a
slash, those of macOS two spellings of one letter for one, and both a capital for a small one.
"""

import gzip
import os
import re
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MOST_MEMBERS = 2_000_000
_LEAST_ALLOWED, _RATIO = 2**30, 20  # bytes; times that what is in an archive may be larger than it: images are packed
_LONGEST_PART, _LONGEST_NAME = 255, 1_024  # bytes
_LONGEST_HEAD = 2**22  # bytes that tarfile may read at once: it takes the heads of members whole
_ELSEWHERE = re.compile(r"[\\:\x00-\x1f\x7f]")


class HostileError(ValueError):
    """A member of an archive that is not written; says which, and why."""


class Names:
    """The names of an archive's members; each is a different path on every file system."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str, *, is_folder: bool = False) -> tuple[str, ...]:
        """Return the parts of a member's name.

        Raises:
          HostileError: it leads out of the folder, or to where another member is already.
        """
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or ".." in parts:
            raise HostileError(f"{name!r} in it points outside of it")
        if _ELSEWHERE.search(name):
            raise HostileError(f"{name!r} in it has a character that some systems do not allow in names")
        if any(len(os.fsencode(part)) > _LONGEST_PART for part in parts) or len(os.fsencode(name)) > _LONGEST_NAME:
            raise HostileError(f"{name[:40]!r}... in it is too long")
        if any(part != part.rstrip(". ") for part in parts):  # which Windows leaves out
            raise HostileError(f"{name!r} in it ends with a dot or a space")
        if not parts and not is_folder:
            raise HostileError(f"{name!r} in it is the folder itself")
        keys = ["/".join(_alike(part) for part in parts[:count]) for count in range(1, len(parts) + 1)]
        above, own = keys if is_folder else keys[:-1], keys[-1:]
        if not self._files.isdisjoint(above):
            raise HostileError(f"{name!r} in it is in a folder that is also a file")
        if not is_folder:
            if own[0] in self._files:
                raise HostileError(f"{name!r} is in it twice, perhaps with other capitals")
            if own[0] in self._folders:
                raise HostileError(f"{name!r} in it is a file and also a folder")
            self._files.update(own)
        self._folders.update(above)
        return parts


def _alike(part: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())


class Room:
    """How many members an archive may have, and how large they may be together.

    Args:
      archive: the file.
    """

    def __init__(self, archive: Path):
        self._members, self._bytes = 0, 0
        self._allowed = max(_LEAST_ALLOWED, _RATIO * archive.stat().st_size)

    def take(self, size: int) -> None:
        """Count a member.

        Raises:
          HostileError: there are too many, or they are too large.
        """
        self._members += 1
        self._bytes += max(size, 0)
        if self._members > MOST_MEMBERS:
            raise HostileError(f"it holds more than {MOST_MEMBERS:,} files")
        if size < 0 or self._bytes > self._allowed:
            size_allowed = f"{self._allowed / 1e9:,.1f} GB"
            raise HostileError(f"its files are larger than {size_allowed} in total: it is not a set of images")


_Member = tuple[tarfile.TarFile, tarfile.TarInfo, tuple[str, ...]]


def files_of_tar(stream: IO[bytes] | gzip.GzipFile, archive: Path) -> Iterator[_Member]:
    """Yield the plain files of a tar stream, each with the parts of its name; read a file before asking for the next.

    Args:
      stream: what the archive holds, uncompressed.
      archive: the file, for its size.

    Raises:
      HostileError: a member is not a plain file or folder, has a forbidden name, or is too large.
    """
    names, room = Names(), Room(archive)
    pieces: Any = _InPieces(stream)
    with tarfile.open(fileobj=pieces, mode="r:") as members:
        for member in members:
            if member.issym() or member.islnk():
                outside = _leads_outside(member)
                fault = "points outside of it" if outside else "is a link"
                raise HostileError(f"{member.name!r} in it {fault}")
            if not member.isdir() and (not member.isreg() or member.issparse()):
                raise HostileError(f"{member.name!r} in it is not a plain file")
            parts = names.add(member.name, is_folder=member.isdir())
            room.take(member.size)
            if member.isreg():
                yield members, member, parts
            members.members = []  # type: ignore[attr-defined]  # else all that were seen are kept


def _leads_outside(member: tarfile.TarInfo) -> bool:
    start = member.name.rpartition("/")[0] if member.issym() else ""
    depth = len([part for part in start.split("/") if part not in ("", ".")])
    for part in member.linkname.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            return True
    return member.linkname.startswith("/") or ".." in member.name.split("/")


class _InPieces:
    """A stream that gives only a little at once: tarfile would read the name of a member whole, of any length."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile):
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEAD:
            raise HostileError("the header of a file in it is too long")
        return self._stream.read(size)


def files_of_zip(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """Return the files of a zip archive, whose sizes are within bounds; their names are for reading, not for writing.

    Raises:
      HostileError: there are too many, or they are too large.
    """
    room, found = Room(path), [member for member in archive.infolist() if not member.is_dir()]
    for member in found:
        room.take(member.file_size)  # more is never read of it
    return found
