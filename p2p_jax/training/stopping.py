"""Requests to stop a training: it saves first, and then ends in the way that the request expects."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_ASKING = ("SIGTERM", "SIGINT", "SIGHUP")  # the last: its terminal was closed. Windows has none
_WILL = "will save a checkpoint and stop (Ctrl-C now: stops at once)"


class StopRequest(threading.Event):
    """Set when a signal has asked to stop.

    Attributes:
      signum: of the first such signal; 0 before.
      saves: whether there may be something to save; Ctrl-C interrupts at once while there is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signum = 0
        self.saves = True


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM, Ctrl-C and a closed terminal into an event that the loop looks at; a second Ctrl-C ends at once.

    Outside the main thread, where Python hears no signals, nothing ever sets it. A SIGHUP that is ignored, as ``nohup``
    has it, stays so. The handlers that were there before come back afterwards.
    """
    event = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(signum, frame):
        if signum == signal.SIGINT and not event.saves:
            signal.default_int_handler(signum, frame)
        event.signum = event.signum or signum
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(OSError):  # not print, which fails where it interrupts another print
            os.write(1, f"\n{signal.Signals(signum).name}: {_WILL}\n".encode())

    before = {}
    try:
        for name in _ASKING:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue
            before[number] = signal.signal(number, handle)
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
