"""Trackio as a logger: curves on this machine (``trackio show``), or in a Space that ``TRACKIO_SPACE_ID`` names."""

import os
import uuid
from collections.abc import Mapping

import numpy as np

from p2p_jax.training.loggers import Run

_TAKEN = ("project", "run", "timestamp", "step", "time", "metrics")  # names that Trackio wants for itself


class Trackio:
    """A run of Trackio, in the project "p2p_jax" or that of ``TRACKIO_PROJECT``."""

    def __init__(self, run: Run):
        import trackio

        self._trackio = trackio
        name = run.remembered("trackio") or f"{run.workdir.absolute().name}-{uuid.uuid4().hex[:6]}"
        run.remember("trackio", name)
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or "p2p_jax",
            name=name,
            resume="allow",
            config=run.config.to_dict(),
            embed=False,
        )
        self.last = self._run._next_step - 1  # the last step that it holds; this has no public name

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._run.log({f"run/{name}" if name in _TAKEN else name: x for name, x in row.items()}, step=step)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Send a sample grid."""
        self._run.log({name: self._trackio.Image(image)}, step=step)

    def flush(self) -> None:
        """Nothing: a thread of Trackio stores what came within a second."""

    def close(self) -> None:
        """Wait until everything has been stored."""
        self._run.finish()
