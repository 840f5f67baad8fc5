"""MLflow as a logger. ``MLFLOW_TRACKING_URI`` names a server; without it a local file mlflow.db is used."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from p2p_jax.config import flat
from p2p_jax.training.loggers import Run

_STEP = "p2p_jax.step"  # a tag that is written together with a row
_AT_ONCE, _LONGEST = 100, 500  # parameters in a call, and letters of one
_NOT_IN_NAMES = re.compile(r"[^\w.\- :/]")


class MLflow:
    """A run of MLflow, in the experiment "p2p_jax" or that of ``MLFLOW_EXPERIMENT_NAME``."""

    def __init__(self, run: Run):
        import mlflow
        from mlflow.entities import Metric, RunTag

        self._metric, self._tag = Metric, RunTag
        self._client = mlflow.MlflowClient()
        found = self._find(run.remembered("mlflow"))
        if found is None:
            found = self._begin(run)
            run.remember("mlflow", found.info.run_id)
        else:
            self._client.update_run(found.info.run_id, status="RUNNING")
        self._id = found.info.run_id
        self.last = int(found.data.tags.get(_STEP, -1))

    def _find(self, id: str | None) -> Any:
        """Return the run of an earlier start, or None if there is none, or somebody has deleted it."""
        from mlflow.exceptions import MlflowException

        if id is None:
            return None
        try:
            found = self._client.get_run(id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return found if found.info.lifecycle_stage == "active" else None

    def _begin(self, run: Run) -> Any:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "p2p_jax"
        experiment = self._client.get_experiment_by_name(name)
        made = self._client.create_run(
            experiment.experiment_id if experiment else self._client.create_experiment(name), run_name=run.name
        )
        options = [Param(_name(key), str(value)[:_LONGEST]) for key, value in flat(run.config.to_dict()).items()]
        for first in range(0, len(options), _AT_ONCE):
            self._client.log_batch(made.info.run_id, params=options[first : first + _AT_ONCE])
        return made

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Send the metrics of a step in one call, with the step: either both are there or neither."""
        now = int(time.time() * 1000)
        metrics = [self._metric(_name(name), value, now, step) for name, value in row.items()]
        self._client.log_batch(self._id, metrics=metrics, tags=[self._tag(_STEP, str(step))])

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Send a sample grid."""
        self._client.log_image(self._id, image, key=name, step=step)

    def flush(self) -> None:
        """Nothing: a row has been stored when `row` returns."""

    def close(self) -> None:
        """End the run for now."""
        self._client.set_terminated(self._id)


def _name(name: str) -> str:
    """Return a name with the letters that MLflow takes."""
    return _NOT_IN_NAMES.sub("_", name)
