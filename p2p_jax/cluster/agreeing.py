"""Processes exchange values here, so all do the same. All must call these functions at the same place."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from p2p_jax.errors import InputError

_T = TypeVar("_T")


def only_the_first(work: Callable[[], _T]) -> _T | None:
    """Do something only on process 0, which the others wait for.

    Returns:
      What it returns, on process 0; None on the others.

    Raises:
      InputError: that of process 0; raised in all of them.
    """
    found, refused = None, None
    if jax.process_index() == 0:
        try:
            found = work()
        except InputError as error:
            refused = error
    if jax.process_count() > 1 and (told := broadcast(str(refused or ""))):
        raise refused or InputError(told)
    if refused:
        raise refused
    return found


@contextlib.contextmanager
def by_the_first(enter: Callable[[], AbstractContextManager[_T]]) -> Iterator[_T | None]:
    """Enter a context only on process 0; see ``only_the_first``."""
    with contextlib.ExitStack() as stack:
        yield only_the_first(lambda: stack.enter_context(enter()))


def broadcast(text: str) -> str:
    """Return the text of process 0, on all processes."""
    own = np.frombuffer((text or "\0").encode(), np.uint8)  # there must be something to send
    buffer = np.zeros(int(multihost_utils.broadcast_one_to_all(np.int32(len(own)))), np.uint8)
    if jax.process_index() == 0:
        buffer[:] = own
    return multihost_utils.broadcast_one_to_all(buffer).tobytes().decode().rstrip("\0")


def gather(flag: bool) -> list[int]:
    """Return the processes where `flag` is set; all get the same answer."""
    return np.flatnonzero(multihost_utils.process_allgather(np.array(flag))).tolist()


def named(processes: list[int]) -> str:
    """Return what processes are called in messages."""
    return f"process{'es' if len(processes) > 1 else ''} {', '.join(map(str, processes))}"
