"""Memory that a training step on CPUs gives back stays with the process, because the next step asks for it again."""

import ctypes
import importlib.util
import os
import platform
from importlib.metadata import entry_points
from typing import Any

import jax

PyTree = Any

# Of mallopt(3), in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_OWN_CHOICE = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_INLINE = "jax_cpu_enable_async_dispatch"
_kept = False


def keep_freed_memory() -> None:
    """Tell the C library to keep what is freed; to be called before JAX, or TensorFlow, starts its threads.

    XLA asks for the gigabytes of a step when it starts and frees them when it ends. By default they go back to the
    system, which clears every page of them again: a tenth to a half of the time of a step. Called once threads are
    running it saves less of that. The process stays as large as it has been. Nothing is done without glibc, where an
    accelerator may compute, or where an environment variable says what the user wants of ``malloc``.

    The heap of the first thread alone holds blocks of more than 64 MiB. So that thread runs XLA's programs itself
    (JAX's asynchronous dispatch is switched off, unless an environment variable of its name says otherwise).
    """
    global _kept
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _OWN_CHOICE) or _has_accelerator():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    libc.mallopt(_M_TOP_PAD, 2**27)  # more than the 64 MiB of a heap of another thread: none of these is given back
    if _INLINE.upper() not in os.environ:
        jax.config.update(_INLINE, False)
    _kept = True


def give_back() -> None:
    """Give the system what is free at this moment, if it is kept otherwise.

    For after compiling, which frees gigabytes in pieces: the next program's large blocks would come on top.
    """
    if _kept:
        ctypes.CDLL(None).malloc_trim(0)


def arrived(placed: PyTree) -> PyTree:
    """Return arrays that were put on devices, on CPUs once they are there.

    JAX runs a program whose inputs are still on their way in another thread, which has no heap for its large blocks.
    """
    return jax.block_until_ready(placed) if _kept else placed


def _has_accelerator() -> bool:
    """Return whether JAX may compute elsewhere than on a CPU, without starting it."""
    options: Any = jax.config  # which has its options only once it runs
    if options.jax_platforms == "cpu":
        return False
    return bool(entry_points(group="jax_plugins")) or any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
