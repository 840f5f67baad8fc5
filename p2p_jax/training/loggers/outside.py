"""Loggers from outside the library, kept from holding up or ending a training."""

import contextlib
import math
import queue
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from p2p_jax.reporting import caution, say
from p2p_jax.training.loggers import Factory, Logger, Run

_MOST = 500  # rows and grids that wait
_PATIENCE = 60  # seconds, at the end of a training


class Outside:
    """A logger in its own thread: its first error is reported once, and it is off until the next start.

    The thread makes the logger, sends it the rows and grids of the run's directory that it lacks, and then what comes,
    each step once.

    Args:
      name: as ``config.loggers`` has it.
      make: what makes it.
      run: what it is made with.
      patience: seconds that `close` waits for.
    """

    def __init__(self, name: str, make: Factory, run: Run, patience: float = _PATIENCE):
        self._name, self._make, self._run, self._patience = name, make, run, patience
        self.last = run.step
        self._is_off = False
        self._waiting: queue.Queue[tuple[float, str, tuple[Any, ...]]] = queue.Queue(_MOST)
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Hand on the metrics of a step."""
        self._put(step, "row", step, row)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Hand on a sample grid, [H, W, 3] uint8."""
        self._put(step, "image", name, step, image)

    def flush(self) -> None:
        """Ask the logger to flush, and do not wait for it."""
        self._put(math.inf, "flush")

    def close(self) -> None:
        """Wait for a while until all has been sent."""
        self._put(math.inf, "close")
        self._thread.join(0.5)
        if self._thread.is_alive():
            say(f"waiting up to {self._patience:g} s for {self._name} to receive everything ...")
            self._thread.join(self._patience)
        if self._thread.is_alive():
            self._turn_off(f"had not received everything after {self._patience:g} s")

    def _put(self, step: float, what: str, *args: Any) -> None:
        if self._is_off:
            return
        try:
            self._waiting.put_nowait((step, what, args))
        except queue.Full:
            self._turn_off(f"is {_MOST} rows behind")

    def _work(self) -> None:
        logger: Logger | None = None
        try:
            logger = self._make(self._run)
            last = logger.last
            _catch_up(logger, self._run, last)
            what = ""
            while what != "close" and not self._is_off:
                step, what, args = self._waiting.get()
                if step > last:
                    getattr(logger, what)(*args)
        except (Exception, SystemExit) as error:
            self._turn_off(f"failed ({type(error).__name__}: {_first_line(error)})")
            with contextlib.suppress(Exception, SystemExit):
                if logger is not None:
                    logger.close()

    def _turn_off(self, reason: str) -> None:
        if self._is_off:
            return
        self._is_off = True
        caution(
            f"the logger {self._name} {reason}; it is off until the next start. Training goes on, and "
            f"{self._run.workdir / 'metrics.csv'} holds all rows"
        )


def _catch_up(logger: Logger, run: Run, last: int) -> None:
    """Send what the run's directory holds of earlier starts, and the logger does not."""
    found = {
        int(path.stem[5:]): path for path in (run.workdir / "samples").glob("step_*.png") if path.stem[5:].isdigit()
    }
    grids = {at: path for at, path in found.items() if at <= run.step > 0}  # a first start has none of before
    for at in sorted(step for step in run.rows.keys() | grids.keys() if step > last):
        if at in grids:
            logger.image("samples", at, np.asarray(Image.open(grids[at]).convert("RGB")))
        if at in run.rows:
            logger.row(at, {name: float(cell) for name, cell in run.rows[at].items()})


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
