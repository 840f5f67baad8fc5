"""Compiled programs are kept on disk, so the next start need not compile them again."""

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from p2p_jax.process import cache_folder

_LIMIT = 2 * 2**30  # bytes on disk
_WORTH_KEEPING = 0.3  # seconds of compilation; reading a program back takes about a tenth of them


def use_compilation_cache() -> None:
    """Keep what JAX compiles in the folder ``compiled`` of ``cache_folder.directory()``.

    Nothing is changed where the user has named a folder (``JAX_COMPILATION_CACHE_DIR``, ``jax_compilation_cache_dir``)
    or switched caching off (``JAX_ENABLE_COMPILATION_CACHE=false``). A folder that cannot be written, or into which
    others may write, is not used, and costs a line on standard error: a program put there would be run. Each kind of
    processor has a folder of its own. Programs unused for longest are deleted once all take 2 GiB.
    """
    options: Any = jax.config  # which has them only once it runs
    if not options.jax_enable_compilation_cache or _is_unsafe():
        return
    if named := options.jax_compilation_cache_dir:
        if "://" not in named and (reason := cache_folder.distrusted(Path(named))):
            _note(f"JAX's folder of compiled programs: {reason}; others who can write there can run code here")
        return
    folder = cache_folder.directory() / "compiled" / cache_folder.processor()
    try:
        _prepare(folder)
        reason = cache_folder.distrusted(folder) or _foreign_file(folder)
    except OSError as error:
        reason = error.strerror
    if reason:
        _note(
            f"compiled programs cannot be kept in {folder} ({reason}); every start will compile again; "
            "set $P2P_JAX_CACHE to another folder"
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _foreign_file(folder: Path) -> str | None:
    """Return what is wrong if a program in the folder was put there by somebody else, when that was possible."""
    if hasattr(os, "geteuid"):
        for name in os.listdir(folder):
            if (folder / name).lstat().st_uid not in (os.geteuid(), 0):
                return f"{folder / name} belongs to another user; delete the folder"
    return None


def _prepare(folder: Path) -> None:
    """Make the folder, try to write in it, and delete what has not been used for longest.

    JAX's own limit (``jax_compilation_cache_max_size``) needs a package that not everyone has, filelock.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write here can run programs as this user
    folder.mkdir(mode=0o700, exist_ok=True)
    if cache_folder.distrusted(folder):
        return  # nothing is written, and nothing deleted
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0")
    cache_folder.remove_oldest(folder.parent, _LIMIT)


def _is_unsafe() -> bool:
    """Return whether reading programs back may crash: large ones overflow a stack of jaxlib before 0.10 on macOS."""
    return platform.system() == "Darwin" and jax.__version_info__ < (0, 10)
