"""Paths as people write them."""

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home folder; where there is no such home, it is a name like any other."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
