"""How fast a training goes, and how long the rest of it takes: a running mean over the last half minute of steps."""

import collections
import contextlib
import time
from collections.abc import Hashable, Iterator

_WINDOW = 30.0  # seconds of training that the running mean is over
_APART = 0.1  # seconds between two points of it


class Pace:
    """A clock that runs only during training steps.

    Args:
      step: that training begins with, or goes on from.
    """

    def __init__(self, step: int):
        self._started, self._elsewhere = time.monotonic(), 0.0
        self._points = collections.deque([(step, 0.0)])
        self._latest = (step, 0.0)
        self._compiled = set[Hashable]()

    @property
    def seconds(self) -> float:
        """Seconds since the start, with everything."""
        return time.monotonic() - self._started

    @property
    def trained(self) -> float:
        """Seconds that training steps took so far."""
        return self._latest[1]

    @property
    def speed(self) -> float | None:
        """Steps a second, without compiling, validation and saving; None before there are two points to measure."""
        (first, since), (step, now) = self._points[0], self._latest
        return (step - first) / (now - since) if step > first and now > since else None

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Leave what is done in the block out of the speed."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._elsewhere += time.monotonic() - begun

    def compiling(self, program: Hashable) -> contextlib.AbstractContextManager[None]:
        """Leave the first run of a program out of the speed: it is compiled in it."""
        if program in self._compiled:
            return contextlib.nullcontext()
        self._compiled.add(program)
        return self.apart()

    def reached(self, step: int) -> None:
        """Note that the devices have finished a step."""
        self._latest = (step, self.seconds - self._elsewhere)
        if self._latest[1] - self._points[-1][1] >= _APART:
            self._points.append(self._latest)
        while len(self._points) > 2 and self._latest[1] - self._points[1][1] > _WINDOW:
            self._points.popleft()
