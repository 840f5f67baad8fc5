"""The loggers of a run, for its rows and sample grids: metrics.csv, TensorBoard, and other services.

A logger is an object with the five parts of `Logger`; it is made by a function of one argument, the `Run`.
``config.loggers`` names those other than metrics.csv and TensorBoard: "wandb", "mlflow", "trackio", or "module:name" of
your own, made in the same way.
"""

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import resolve
from p2p_jax.errors import InputError
from p2p_jax.storage.writing import write_text

FOLDER = "loggers"
"""The folder of a run where loggers keep what they need to resume the same run of their service."""
SERVICES = {
    "wandb": "p2p_jax.training.loggers.weights_and_biases:WeightsAndBiases",
    "mlflow": "p2p_jax.training.loggers.mlflow_runs:MLflow",
    "trackio": "p2p_jax.training.loggers.trackio_runs:Trackio",
}
"""The services that have a name in ``config.loggers``, which is also that of their package and of our extra."""
_ID = re.compile(r"[\w.-]{1,128}")


class Run(NamedTuple):
    """What a logger learns at a start.

    Attributes:
      workdir: the run's directory.
      config: the experiment, complete.
      columns: the names of all metrics that may come.
      step: that training goes on from; 0 at the first start.
      rows: what metrics.csv holds up to that step, step -> metric -> number as text.
    """

    workdir: Path
    config: ConfigDict
    columns: Sequence[str]
    step: int
    rows: Mapping[int, Mapping[str, str]]

    @property
    def name(self) -> str:
        """The run's name for people: the last two parts of its directory, such as "runs/facades"."""
        return "/".join(self.workdir.absolute().parts[-2:])

    def remembered(self, service: str) -> str | None:
        """Return the name under which a service knows this run from an earlier start; None at the first one."""
        try:
            found = json.loads((self.workdir / FOLDER / f"{service}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        id = found.get("id") if isinstance(found, dict) else None
        return id if isinstance(id, str) and _ID.fullmatch(id) else None

    def remember(self, service: str, id: str) -> None:
        """Keep the name under which a service knows this run."""
        write_text(self.workdir / FOLDER / f"{service}.json", json.dumps({"id": id}) + "\n")


class Logger(Protocol):
    """What takes the rows of a run.

    It is made by a call with a `Run`, when the training is about to begin, and only in the first of several processes.
    A step comes once, in order: rows and grids that the run's directory holds and the logger does not, those after
    `last`, are sent first, and what comes again after a kill is left out. All calls come from one thread of the
    logger's own; what it raises is said once, and ends neither the training nor metrics.csv.

    Attributes:
      last: the last step that the logger holds from earlier starts; -1: none, ``run.step``: it asks for no old rows.
    """

    last: int

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Take the metrics of a step, which are those of a row in metrics.csv."""

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Take a sample grid, [H, W, 3] uint8, before the row of its step."""

    def flush(self) -> None:
        """Bring to the disk, or send, what came so far: a checkpoint is about to be saved."""

    def close(self) -> None:
        """Finish: training has ended, or was stopped and may go on later."""


Factory = Callable[[Run], Logger]


def find(names: str) -> dict[str, Factory]:
    """Return what makes the loggers that a config names.

    Args:
      names: ``config.loggers``: "wandb", "mlflow", "trackio" or "module:name", with commas; "": none.

    Returns:
      Name -> function from `Run` to `Logger`.

    Raises:
      InputError: a name is unknown, or the package of a service is not installed; gives the command that installs it.
    """
    found: dict[str, Factory] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name in found:
            raise InputError(f"config.loggers names {name} twice")
        if ":" not in name and name not in SERVICES:
            raise InputError(
                f"config.loggers: {name!r} is not a logger; choose from {', '.join(SERVICES)}, or name your own, "
                "'module:name'. metrics.csv is always written, and TensorBoard if tensorboardX is installed"
            )
        found[name] = resolve(SERVICES.get(name, name), "config.loggers")
        if not callable(found[name]):
            raise InputError(f"config.loggers: {name} is not a class or a function of one argument, the run")
        if name in SERVICES:
            _require(name)
    return found


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"config.loggers={package} needs the package {package} ({error}): pip install 'p2p_jax[{package}]'"
        ) from error
