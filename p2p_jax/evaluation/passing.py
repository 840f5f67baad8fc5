"""The set metrics while images pass by: no image is kept in memory, and few on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.evaluation.gathering import Judge, Sets
from p2p_jax.evaluation.kept_pictures import Pictures, Scratch
from p2p_jax.evaluation.set_metrics import SetMetric


class Passing:
    """Feeds the set metrics with images, once and one at a time.

    Args:
      metrics: the requested metrics.
      judge: see ``prepare``.
      inception: weights for "fid".
      scratch: folder for pictures that a metric needs all at once.
    """

    def __init__(self, metrics: Sequence[SetMetric], judge: Judge, inception: Path | None, scratch: Scratch):
        self._outputs, self._targets = Pictures(scratch), Pictures(scratch)
        self._sets = Sets(self._outputs, self._targets, judge, inception)
        self._metrics, self._count = metrics, 0
        self._keeps = any(metric.gather is None for metric in metrics)
        self._gathered = {
            metric.key: metric.gather(self._sets, scratch.folder / metric.key) for metric in metrics if metric.gather
        }

    @property
    def takes_inputs(self) -> bool:
        """Whether any metric uses the inputs of outputs."""
        return any(hasattr(found, "input") for found in self._gathered.values())

    def input(self, place: int, image: np.ndarray) -> None:
        """Add an input, [H, W, 1 or 3] uint8, with the index of its output."""
        for found in self._gathered.values():
            if hasattr(found, "input"):
                found.input(place, image)

    def output(self, place: int, image: np.ndarray) -> None:
        """Add an output, [H, W, 1 or 3] uint8, with its index among all outputs."""
        self._count += 1
        for found in self._gathered.values():
            found.output(place, image)
        if self._keeps:
            self._outputs.append(image)

    def target(self, place: int, image: np.ndarray) -> None:
        """Add a target, with its index among all targets."""
        for found in self._gathered.values():
            found.target(place, image)
        if self._keeps:
            self._targets.append(image)

    def kept(self) -> dict[str, Any]:
        """Return the state of a part, fit for JSON; its files belong to it, see ``gathering.Gather``."""
        return {"count": self._count, "metrics": {key: found.kept() for key, found in self._gathered.items()}}

    def add(self, kept: Mapping[str, Any]) -> None:
        """Add the state of another part."""
        self._count += kept["count"]
        for key, found in self._gathered.items():
            found.add(kept["metrics"][key])

    def results(self) -> dict[str, Any]:
        """Return the metrics by title, each with the number of images."""
        return {
            metric.title + metric.suffix(self._sets): {**self._compute(metric), "count": self._count}
            for metric in self._metrics
        }

    def _compute(self, metric: SetMetric) -> Mapping[str, Any]:
        return self._gathered[metric.key].result() if metric.gather else metric.compute(self._sets)


def refuse_parts(metrics: Sequence[SetMetric], names: Sequence[str] | None) -> None:
    """Refuse metrics with parts that cannot be merged.

    Args:
      metrics: the requested metrics.
      names: the names they were requested by; None: the default ones.

    Raises:
      InputError: there is such a metric; names it.
    """
    for metric, name in zip(metrics, names or [metric.key for metric in metrics], strict=True):
        if metric.gather is None:
            raise InputError(
                f"the metric {name} cannot be merged from parts, because it has no `gather` (see SetMetric): "
                "leave it out of `metrics`, or evaluate without `shard`"
            )
