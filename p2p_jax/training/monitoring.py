"""What a run shows of itself: metrics through its loggers, progress lines, sample grids."""

import collections
import concurrent.futures
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from p2p_jax.images.domains import Domain, of_config
from p2p_jax.reporting import say
from p2p_jax.storage.writing import unfinished, write_text
from p2p_jax.training import loggers, metrics_file
from p2p_jax.training.loggers.csv_rows import Csv
from p2p_jax.training.loggers.opening import open_others

_ROWS_OF_SPEED = 10


class Log:
    """Write metrics, sample grids and the summary of a run; only the first of several processes writes.

    One row per logged step goes to ``metrics.csv``, to TensorBoard where tensorboardX is installed, and to what
    ``config.loggers`` names. Grids and TensorBoard are written by a thread of their own; what fails there is raised by
    a later call, `close` at the latest.

    Args:
      workdir: the run's directory.
      columns: names of all metrics, fixed for the life of the file.
      step: the step that training continues from. Rows after it, left by a run that went on after its last
        checkpoint, are removed: they are about to be written again.
      config: reads ``num_steps``, ``batch_size`` and what the images are, in ``data``.
    """

    def __init__(self, workdir: Path, columns: Sequence[str], step: int, config: ConfigDict):
        self._workdir, self._config = workdir, config
        self._writes = jax.process_index() == 0
        self._reported = collections.deque([(step, time.monotonic())], maxlen=_ROWS_OF_SPEED + 1)
        self._compiles = True
        self._row: tuple[int, dict[str, float]] = (step, {})
        self._csv: Csv | None = None
        self._others: list[loggers.Logger] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._under_way: collections.deque[concurrent.futures.Future] = collections.deque()
        if self._writes:
            (workdir / "samples").mkdir(parents=True, exist_ok=True)
            self._csv = Csv(workdir / "metrics.csv", columns, step)
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
        self._csv.row(step, row)
        for logger in self._others:
            self._in_background(logger.row, step, row)

    def settle(self) -> None:
        """Bring to the disk what was told so far: a checkpoint that is saved now goes with all of its rows."""
        self.flush()
        self._finish()
        for logger in self._others:
            logger.flush()
        if self._csv:
            self._csv.flush()

    def progress(self, step: int, row: Mapping[str, float]) -> None:
        """Print losses, speed over the last rows, and the time left; take the losses into the row of the step.

        Over several rows, because the devices are ahead of the host: where it waits for them, rows come in a bunch.
        """
        first, since = self._reported[0]
        now = time.monotonic()
        speed = (step - first) / max(now - since, 1e-9)
        compiling = ", with compiling" if self._compiles else ""
        if self._compiles:
            self._compiles = False
            self._reported.clear()
        self._reported.append((step, now))
        values = "  ".join(f"{name.removeprefix('train/')} {value:.4g}" for name, value in row.items())
        left = format_seconds((self._config.num_steps - step) / speed)
        if self._writes:
            say(
                f"step {step:,}/{self._config.num_steps:,}  {values}  {speed:.3g} steps/s  "
                f"{speed * self._config.batch_size:.3g} images/s{compiling}  {left} left",
            )
        self.metrics(step, row)

    def evaluation(self, step: int, results: Mapping[str, float], what: str) -> None:
        """Print the result of an evaluation, saying `what` it is of, and take it into the row of its step."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in results.items())
        if self._writes:
            say(f"step {step:,}  {what}:  {values}")
        self.metrics(step, {f"eval/{name}": value for name, value in results.items()})

    def samples(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write ``samples/step_STEP.png``; see ``pictures`` for `images`."""
        if self._writes:
            self._in_background(self._write_grid, step, images)

    def _write_grid(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        grid = make_grid(pictures(images, of_config(self._config.data)))
        path = self._workdir / "samples" / f"step_{step:07d}.png"
        with unfinished(path) as partial:  # who looks on while it is written sees a whole file or none
            Image.fromarray(grid).save(partial, "PNG")
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

        Of `distances`, where there are any, with ``names`` and ``counted``, also the best of the whole run are told.
        """
        self._finish()
        config = self._config
        done = config.num_steps - first_step
        text = (
            f"Finished: {config.num_steps:,} steps of {config.objective} on {num_train:,} training examples from "
            f"{config.data.source}; the last {done:,} took {format_seconds(seconds)} "
            f"({done / seconds:.3g} steps/s with everything)."
        )
        measured = distances.names if distances else []
        if results and num_val:
            values = ", ".join(f"{name} {value:.4g}" for name, value in results.items() if name not in measured)
            text += f" Validation over {num_val} images: {values}."
        if results and distances and self._writes:
            text += f" Distances over {distances.counted}: {self._last_and_best(results, measured)}."
        if best:
            text += f" Best {config.best_metric}: {best[1]:.4g} at step {best[0]:,}."
        last_grid = self._workdir / "samples" / f"step_{config.num_steps:07d}.png"
        text += f" Look at {last_grid}; checkpoints are in {self._workdir / 'checkpoints'}."
        if self._writes:
            write_text(self._workdir / "summary.txt", text + "\n")
            say(text)

    def _last_and_best(self, results: Mapping[str, float], names: Sequence[str]) -> str:
        """Say the last of some figures of which less is better, and the best of all rows, resumed ones too."""
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
        try:
            self.flush()
            self._finish()
        finally:
            self._thread.shutdown()
            with contextlib.ExitStack() as stack:  # all of them, also where one fails
                for logger in reversed(self._others):
                    stack.callback(logger.close)


def format_seconds(seconds: float) -> str:
    """Return a duration as a person says it, such as "2 h 05 min"."""
    if not math.isfinite(seconds) or seconds > 1e8:
        return "unknown"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def pictures(columns: Mapping[str, np.ndarray], domains: tuple[Domain, Domain]) -> dict[str, np.ndarray]:
    """Turn the images of a grid's columns into pictures to look at; see ``Domain.picture``.

    Args:
      columns: name -> [N, H, W, C] in [-1, 1].
      domains: a and b. A column is of the one that alone has its number of channels; if both have it, "input" and names
        that end in " A" are of a and all others of b; if neither, its first channels are shown. An ab of Lab is shown
        with the first L in its row.

    Returns:
      name -> [N, H, W, 1 or 3] uint8.
    """
    kinds = {name: _domain_of(name, images.shape[-1], domains) for name, images in columns.items()}
    lightness = next((np.asarray(columns[name]) for name, domain in kinds.items() if domain.kind == "lab_l"), None)
    return {name: domain.picture(columns[name], lightness) for name, domain in kinds.items()}


def _domain_of(name: str, channels: int, domains: tuple[Domain, Domain]) -> Domain:
    fitting = [domain for domain in domains if domain.channels == channels]
    if not fitting:
        return Domain("float", channels)
    return fitting[0 if name == "input" or name.endswith(" A") else -1]


def make_grid(columns: Mapping[str, np.ndarray], gap: int = 4) -> np.ndarray:
    """Lay images out in named columns, one row per example.

    Args:
      columns: name -> [N, H, W, 1 or 3] uint8; N, H and W are the same for all.
      gap: white pixels between the images.

    Returns:
      [height, width, 3] uint8.
    """
    font = ImageFont.load_default()
    title = 16
    num_rows, height, width = next(iter(columns.values())).shape[:3]
    size = (len(columns) * (width + gap) - gap, title + num_rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, images) in enumerate(columns.items()):
        left = i * (width + gap)
        draw.text((left + 2, 2), name, fill="black", font=font)
        for row, image in enumerate(images):
            image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
            sheet.paste(Image.fromarray(image), (left, title + row * (height + gap)))
    return np.asarray(sheet)
