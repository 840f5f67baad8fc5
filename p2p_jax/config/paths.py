"""Paths as people write them."""

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home folder; without such a home, it stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
