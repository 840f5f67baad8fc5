"""What a run shows of itself: metrics through its loggers, progress, sample grids and their page."""

import collections
import concurrent.futures
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.images.domains import of_config
from p2p_jax.reporting import caution, columns_to_draw_in, draw, say
from p2p_jax.storage.writing import write_text
from p2p_jax.training import grids, loggers, metrics_file, progress
from p2p_jax.training.loggers.csv_rows import Csv
from p2p_jax.training.loggers.opening import open_others
from p2p_jax.training.pace import Pace
from p2p_jax.training.progress import format_seconds
from p2p_jax.training.samples_page import SamplesPage

_DRAW_EVERY = 0.2  # seconds between two drawings of the bar
_DAY = 86400.0
_ESTIMATED_FROM = 5.0  # seconds of training steps
_WORTH_AN_ESTIMATE = 60.0  # seconds that a run must still take


class Log:
    """Write metrics, sample grids and the summary of a run; only the first of several processes writes.

    One row per logged step goes to ``metrics.csv``, to TensorBoard where tensorboardX is installed, and to what
    ``config.loggers`` names. Grids, their page and TensorBoard are written by another thread; an error there
    is raised by a later call, `close` at the latest.

    Args:
      workdir: the run's directory.
      columns: names of all metrics, fixed for the life of the file. Those of ``metrics_file.RUN`` are filled in here.
      step: the step that training continues from. Rows after it, left by a run that went on after its last
        checkpoint, are removed: they are about to be written again.
      config: reads ``num_steps``, ``batch_size``, and what the images are and how many, in ``data``.
      multiply_adds: returns those of a step, or None; called once, in the thread, where a run takes long.
    """

    def __init__(
        self,
        workdir: Path,
        columns: Sequence[str],
        step: int,
        config: ConfigDict,
        multiply_adds: Callable[[], float | None] = lambda: None,
    ):
        self._workdir, self._config, self._multiply_adds = workdir, config, multiply_adds
        self._columns = columns
        self._writes = jax.process_index() == 0
        self.pace = Pace(step)
        self._drawn, self._estimated = -_DRAW_EVERY, False
        self._losses: dict[str, float] = {}
        self._latest: tuple[int, str] | None = None  # evaluation
        self._seconds_before = 0.0
        self._row: tuple[int, dict[str, float]] = (step, {})
        self._csv: Csv | None = None
        self._others: list[loggers.Logger] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._under_way: collections.deque[concurrent.futures.Future] = collections.deque()
        if self._writes:
            self._page = SamplesPage(workdir / "samples", step, workdir.name)
            self._csv = Csv(workdir / "metrics.csv", columns, step)
            before = [float(row.get(metrics_file.SECONDS, 0)) for row in self._csv.rows.values()]
            self._seconds_before = max(before, default=0.0)
            self._others = open_others(loggers.Run(workdir, config, columns, step, self._csv.rows))

    def metrics(self, step: int, row: Mapping[str, float]) -> None:
        """Take metrics into the row of a step; those that it lacks stay empty.

        The row is written when metrics of another step come, or by `flush`.
        """
        if self._row[0] != step:
            self.flush()
        self._row = (step, {**self._row[1], **row})

    def flush(self) -> None:
        """Append the row that was begun, if it holds anything."""
        step, row = self._row
        self._row = (step, {})
        if not row or not self._csv:
            return
        row = {name: x for name, x in {**self._of_the_run(step), **row}.items() if name in self._columns}
        self._csv.row(step, row)
        for logger in self._others:
            self._in_background(logger.row, step, row)

    def settle(self) -> None:
        """Write all rows so far to the disk: a checkpoint that is saved now goes with all of its rows."""
        self.flush()
        self._finish()
        for logger in self._others:
            logger.flush()
        if self._csv:
            self._csv.flush()

    def _of_the_run(self, step: int) -> dict[str, float]:
        """Return how far a step is, in seconds and epochs."""
        found = {metrics_file.SECONDS: round(self._seconds_before + self.pace.seconds, 3)}
        if self._config.data.num_train:
            found[metrics_file.EPOCH] = step * self._config.batch_size / self._config.data.num_train
        return found

    def reached(self, step: int) -> None:
        """Note that the devices have finished a step, and draw the bar where it can be drawn."""
        self.pace.reached(step)
        if not self._writes:
            return
        width = columns_to_draw_in()
        if width and self.pace.seconds - self._drawn >= _DRAW_EVERY:
            self._drawn = self.pace.seconds
            draw(progress.bar(*self._progress(step), min(width, 80)))
        self._estimate(step)

    def progress(self, step: int, row: Mapping[str, float]) -> None:
        """Print losses, speed and the time left, where no bar is drawn; take the losses into the row of the step."""
        self._losses = {name.removeprefix("train/"): value for name, value in row.items()}
        if self._writes and not columns_to_draw_in():
            say(progress.line(*self._progress(step)))
        speed = self.pace.speed
        of_speed = {metrics_file.SPEED: float(f"{speed * self._config.batch_size:.4g}")} if speed else {}
        self.metrics(step, {**of_speed, **row})

    def _progress(self, step: int) -> tuple[int, int, float | None, int, Mapping[str, float]]:
        return step, self._config.num_steps, self.pace.speed, self._config.batch_size, self._losses

    def _estimate(self, step: int) -> None:
        """Say once, as soon as it is known, how long a run takes that takes long."""
        speed = self.pace.speed
        if self._estimated or speed is None or self.pace.trained < _ESTIMATED_FROM:
            return
        self._estimated = True
        left = (self._config.num_steps - step) / speed
        if left < _WORTH_AN_ESTIMATE:
            return
        self._in_background(self._tell_estimate, left, speed)

    def _tell_estimate(self, left: float, speed: float) -> None:
        work = self._multiply_adds()
        of_work = f"{progress.format_number(work / 1e9)} GMAC a step, " if work else ""
        say(f"{of_work}{progress.format_number(1 / speed)} s a step: about {format_seconds(left)} to go")
        if left > _DAY and jax.default_backend() == "cpu":
            caution(
                f"this will take {format_seconds(left)} on this CPU. Use a GPU or TPU, or train less: a smaller "
                "config.data.crop_size and load_size, config.generator.base_width or config.num_steps; "
                "configs/quickstart.py learns in minutes"
            )

    def evaluation(self, step: int, results: Mapping[str, float], what: str) -> None:
        """Print the result of an evaluation, saying `what` it is of, and take it into the row of its step."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in results.items())
        if self._writes:
            say(f"step {step:,}  {what}:  {values}")
        if self._config.best_metric in results:
            self._latest = step, f"{self._config.best_metric} {results[self._config.best_metric]:.4g}"
        self.metrics(step, {f"eval/{name}": value for name, value in results.items()})

    def samples(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write ``samples/step_STEP.png``, and show it on the page; see ``grids.pictures`` for `images`."""
        if self._writes:
            self._in_background(self._write_grid, step, images, self._caption(step))

    def _caption(self, step: int) -> str:
        if self._latest is None:
            return f"step {step:,}"
        at, text = self._latest
        return f"step {step:,}  {text}" + (f" (step {at:,})" if at != step else "")

    def _write_grid(self, step: int, images: Mapping[str, np.ndarray], caption: str) -> None:
        path = self._workdir / "samples" / f"step_{step:07d}.png"
        grid = grids.write_grid(path, grids.pictures(images, of_config(self._config.data)), step, caption)
        self._page.add(path)
        for logger in self._others:
            logger.image("samples", step, grid)

    def summary(
        self,
        first_step: int,
        seconds: float,
        num_train: int,
        num_val: int,
        results: Mapping[str, float] | None,
        best: tuple[int, float] | None,
        distances: Any = None,
    ) -> None:
        """Print one paragraph on the finished run and write it to ``summary.txt``.

        For `distances` (if any, with ``names`` and ``counted``) the best of the whole run are also reported.
        """
        self._finish()
        config = self._config
        done = config.num_steps - first_step
        text = (
            f"Finished: {config.num_steps:,} steps of {config.objective} on {num_train:,} training examples from "
            f"{_source(config.data)}; the last {done:,} took {format_seconds(seconds)} "
            f"({done / seconds:.3g} steps/s overall)."
        )
        measured = distances.names if distances else []
        if results and num_val:
            values = ", ".join(f"{name} {value:.4g}" for name, value in results.items() if name not in measured)
            text += f" Validation over {num_val} images: {values}."
        if results and distances and self._writes:
            text += f" Distances over {distances.counted}: {self._last_and_best(results, measured)}."
        if best:
            text += f" Best {config.best_metric}: {best[1]:.4g} at step {best[0]:,}."
        page = self._workdir / "samples" / "index.html"
        text += f" Look at {page}; checkpoints are in {self._workdir / 'checkpoints'}."
        if self._writes:
            draw("")
            write_text(self._workdir / "summary.txt", text + "\n")
            say(text)

    def _last_and_best(self, results: Mapping[str, float], names: Sequence[str]) -> str:
        """Report the last of some figures where less is better, and the best of all rows, resumed ones too."""
        self.flush()
        rows = metrics_file.read(self._workdir / "metrics.csv").rows
        told = []
        for name in names:
            found = {at: float(row[f"eval/{name}"]) for at, row in rows.items() if f"eval/{name}" in row}
            known = [(value, at) for at, value in found.items() if math.isfinite(value)]
            told.append(f"{name} {results[name]:.4g}")
            if known and not name.startswith(("copy_", "kid_std")):
                told[-1] += f" (best {min(known)[0]:.4g} at step {min(known)[1]:,})"
        return ", ".join(told)

    def _in_background(self, write: Callable[..., None], *args: Any) -> None:
        self._finish(leave=100)  # a disk that cannot keep up must not fill the memory
        self._under_way.append(self._thread.submit(write, *args))

    def _finish(self, leave: int = 0) -> None:
        """Wait for all but the last `leave` things written in the background; raise what went wrong so far."""
        while self._under_way and (len(self._under_way) > leave or self._under_way[0].done()):
            self._under_way.popleft().result()

    def close(self) -> None:
        """Finish what is being written, and all loggers."""
        draw("")
        try:
            self.flush()
            self._finish()
        finally:
            self._thread.shutdown()
            with contextlib.ExitStack() as stack:  # all of them, also where one fails
                for logger in reversed(self._others):
                    stack.callback(logger.close)


def _source(data: ConfigDict) -> str:
    """Return where images come from: the source, and the folders that it reads."""
    return " ".join(filter(None, (data.source, data.dir or ", ".join(filter(None, (data.dir_a, data.dir_b))))))
