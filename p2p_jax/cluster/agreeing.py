"""What several processes tell each other, so that all do the same; all must call it at the same place."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from p2p_jax.errors import InputError

_T = TypeVar("_T")


@contextlib.contextmanager
def by_the_first(enter: Callable[[], AbstractContextManager[_T]]) -> Iterator[_T | None]:
    """Enter a context on process 0 alone.

    Returns:
      What the context gives, on process 0; None on the others.

    Raises:
      InputError: that of process 0; raised in all of them.
    """
    with contextlib.ExitStack() as stack:
        found, refused = None, ""
        if jax.process_index() == 0:
            try:
                found = stack.enter_context(enter())
            except InputError as error:
                refused = str(error)
        if jax.process_count() > 1:
            refused = broadcast(refused)
        if refused:
            raise InputError(refused)
        yield found


def broadcast(text: str) -> str:
    """Return the text of process 0, on all processes."""
    own = np.frombuffer((text or "\0").encode(), np.uint8)  # there must be something to send
    buffer = np.zeros(int(multihost_utils.broadcast_one_to_all(np.int32(len(own)))), np.uint8)
    if jax.process_index() == 0:
        buffer[:] = own
    return multihost_utils.broadcast_one_to_all(buffer).tobytes().decode().rstrip("\0")


def gather(flag: bool) -> list[int]:
    """Return on which processes `flag` is set; all get the same answer."""
    return np.flatnonzero(multihost_utils.process_allgather(np.array(flag))).tolist()


def named(processes: list[int]) -> str:
    """Return what processes are called in messages."""
    return f"process{'es' if len(processes) > 1 else ''} {', '.join(map(str, processes))}"
