"""TensorFlow, imported on first use: it takes seconds, and many accelerator machines have none."""

import atexit
import contextlib
import functools
import os
import sys
import weakref
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


@functools.cache
def tensorflow() -> ModuleType:
    """Return the tensorflow module, with accelerators hidden from it so that JAX keeps their memory.

    Raises:
      InputError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # nothing here gains from it, and it announces itself
    try:
        with _without_keras():
            import tensorflow as tf
    except ImportError as error:
        raise InputError(
            "reading data sets, or checkpoints of TensorFlow, needs TensorFlow, which is not installed: "
            "pip install 'p2p_jax[data]'"
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keep an import of TensorFlow from loading Keras, which is a third of its time and not used here.

    TensorFlow takes it for one that is not installed. ``tf.keras`` loads it when it is first used.
    """
    absent = "keras" not in sys.modules
    if absent:
        sys.modules["keras"] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        if absent:
            del sys.modules["keras"]


def iterate(dataset: "tf.data.Dataset") -> Generator[Any, None, None]:
    """Iterate over a dataset as NumPy arrays, read ahead of time.

    Raises:
      tf.errors.OpError: an element cannot be read.
    """
    elements = _iterate(dataset)
    _open.add(elements)
    return elements


def _iterate(dataset: "tf.data.Dataset") -> Generator[Any, None, None]:
    yield from dataset.prefetch(tensorflow().data.AUTOTUNE).as_numpy_iterator()


_open: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End what is still being read: as Python ends, it ends TensorFlow's threads that run functions of Python.

    TensorFlow would wait for these functions for ever.
    """
    for elements in list(_open):
        with contextlib.suppress(ValueError):  # it is running, in another thread
            elements.close()
