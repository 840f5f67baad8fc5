"""Ctrl-C in a command: one line, status 130, which shells expect, and no traceback.

The first Ctrl-C lets the command clean up, and a training save. A second one ends the process at once, even when
Python cannot run a handler, as during a compilation.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from p2p_jax.errors import TrainingInterrupt

STATUS = 130
"""Exit status of an interrupted process: 128 plus the number of SIGINT."""
_owned = threading.Event()  # this process runs a command and nothing else


def expect() -> None:
    """Let Ctrl-C end this process with one line, from now on and during imports.

    Call this only in a process that runs nothing but a command.
    """
    if threading.current_thread() is threading.main_thread():
        _owned.set()
        _end_at_next()


def _end_at_next() -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: _end("interrupted"))


def _end(line: str) -> None:
    """Write a line on standard error and end this process at once."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
    os._exit(STATUS)


@contextlib.contextmanager
def in_one_line(*expected: type[BaseException]) -> Iterator[None]:
    """Run a command's work in this context.

    Args:
      *expected: errors that are raised unchanged, interrupted or not.

    Raises:
      SystemExit: after Ctrl-C; with status 130, after the line.
    """
    hears = threading.current_thread() is threading.main_thread()
    hears = hears and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # as in a shell's background job
    with _listening() if hears else contextlib.nullcontext(threading.Event()) as interrupted:
        try:
            yield
        except BaseException as error:
            is_interrupt = isinstance(error, KeyboardInterrupt)
            if isinstance(error, (*expected, SystemExit)) or not (is_interrupt or interrupted.is_set()):
                raise
            if not isinstance(error, TrainingInterrupt):  # already printed
                # Other errors after Ctrl-C come from it: libraries turn it into errors of their own.
                print((is_interrupt and str(error)) or "interrupted", file=sys.stderr)
            if _owned.is_set():  # do not wait for threads that libraries left running
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError, ValueError):
                        stream.flush()
                os._exit(STATUS)
            raise SystemExit(STATUS) from None


def _imports(frame: FrameType | None) -> bool:
    """Return whether a module is being imported; an exception in a C++ module prints many lines and aborts."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _listening() -> Iterator[threading.Event]:
    """Make Ctrl-C raise KeyboardInterrupt and set an event; the second one ends a command's own process."""
    interrupted = threading.Event()
    ignored = sys.unraisablehook

    def unraisable(told):
        if _owned.is_set() and isinstance(told.exc_value, KeyboardInterrupt):  # it was lost; the work would continue
            _end("interrupted")
        ignored(told)

    def handle(signum, frame):
        interrupted.set()
        if _owned.is_set() and _imports(frame):
            _end("interrupted")
        signal.default_int_handler(signum, frame)

    def listen():
        count = 0
        while heard := os.read(reading, 1):
            count += heard[0] == signal.SIGINT
            if count > 1 and _owned.is_set():
                _end("interrupted twice: ended at once")

    before = signal.signal(signal.SIGINT, handle)
    sys.unraisablehook = unraisable
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    others = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # C writes to it even while Python is busy
    thread = threading.Thread(target=listen, name="p2p_jax interrupts", daemon=True)
    thread.start()
    try:
        yield interrupted
    finally:
        if _owned.is_set():
            _end_at_next()
        else:
            signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(others)
        sys.unraisablehook = ignored
        os.close(writing)
        thread.join()
        os.close(reading)
