"""``metrics.csv`` as a logger: the one that is always there, and that the others are compared with."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from p2p_jax.storage.refusals import writing
from p2p_jax.training import metrics_file


class Csv:
    """Append a line for each row.

    Args:
      path: of the file; rows after `step` are removed from it, since they are about to be written again.
      columns: names of all metrics, fixed for the life of the file.
      step: the step that training goes on from.

    Attributes:
      rows: what the file holds up to that step.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        self._path, self._columns, self.last = path, columns, step
        self.rows = metrics_file.begin(path, columns, step)

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Append the row of a step; metrics that it lacks stay empty."""
        cells = [str(step)] + [repr(row[name]) if name in row else "" for name in self._columns]
        with writing(self._path), open(self._path, "a") as file:
            file.write(",".join(cells) + "\n")

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Leave images to samples/."""

    def flush(self) -> None:
        """Bring all rows to the disk, where the drive can."""
        with open(self._path, "a") as file, contextlib.suppress(OSError):  # not all drives can
            os.fsync(file.fileno())

    def close(self) -> None:
        """Leave the file, which is whole after every row."""
