"""Locks that the kernel keeps on open files, and frees however the process ends. Some systems have none."""

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def take(file: int) -> bool | None:
    """Lock an open file or folder, unless another has locked it.

    Args:
      file: its descriptor; closing it lets the lock go.

    Returns:
      Whether it is locked now; None where the system, or the file system, has no such locks.
    """
    return _flock(file, 0 if fcntl is None else fcntl.LOCK_NB)


def wait_for(file: int) -> None:
    """Lock an open file or folder when all others have let it go; without locks it does not wait."""
    _flock(file, 0)


def _flock(file: int, more: int) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | more)
    except BlockingIOError:
        return False
    except OSError:  # of a file system without locks
        return None
    return True
