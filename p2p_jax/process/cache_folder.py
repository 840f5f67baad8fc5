"""Where data sets and compiled programs are kept between runs. The standard library suffices."""

import os
import platform
import stat
import zlib
from pathlib import Path

_CPU_FACTS = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")


def directory() -> Path:
    """Return ``$P2P_JAX_CACHE``, else ``$XDG_CACHE_HOME/p2p_jax``, else ``~/.cache/p2p_jax``."""
    if own := os.environ.get("P2P_JAX_CACHE"):
        return Path(own).expanduser()
    return (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "p2p_jax").expanduser()


def distrusted(folder: Path, *, group: bool = True) -> str | None:
    """Return why others could put something else into a folder, as half a sentence; None if they cannot.

    Looked at are the folder, if it is there, and all above it: each must belong to this user or to root, and be
    writable by nobody else, except folders such as /tmp, where nobody can rename the files of others.

    Args:
      folder: need not be there.
      group: whether those of the folder's group are others too. A group with the number of its only user is not.
    """
    if not hasattr(os, "geteuid"):  # Windows, where a home is its user's
        return None
    path, reason = Path(os.path.realpath(folder)), None
    for place in (path, *path.parents):
        try:
            found = place.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{place} cannot be checked ({error.strerror})"
        if found.st_uid not in (os.geteuid(), 0):
            return f"{place} belongs to another user (number {found.st_uid})"
        if found.st_mode & stat.S_ISVTX and place != path:
            continue
        if found.st_mode & stat.S_IWOTH:
            return f"everybody may write to {place}: chmod o-w {place}"
        if not found.st_mode & stat.S_IRWXG:
            reason = None  # no group comes to what is below
        elif group and found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.geteuid()):
            reason = reason or f"a group may write to {place}: chmod g-w {place}"
    return reason


def processor() -> str:
    """Return a name for the processor at hand: its architecture, a checksum of what it can do, and its usable cores.

    Programs compiled for one kind may fail on another, and a home directory may be seen by several. XLA divides work by
    the number of cores at compilation, so a program for one core would stay slow on many.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        facts = sorted(line for line in lines if line.partition(":")[0].strip() in _CPU_FACTS)
    except OSError:
        facts = [platform.processor(), platform.node()]  # not on Linux: the computer itself has to do
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}-{zlib.crc32('|'.join(facts).encode()):08x}-{cores}"


def remove_oldest(folder: Path, limit: int) -> None:
    """Delete the files of a folder that were used the longest ago, until those that are left take `limit` bytes.

    Args:
      folder: with its subfolders; another process may use it, and delete too.
      limit: in bytes.
    """
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                stat = path.stat()
                found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
        except OSError:  # deleted meanwhile
            continue
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if excess <= 0:
            return
        try:
            path.unlink(missing_ok=True)
        except OSError:  # another user's, say
            continue
        excess -= size
