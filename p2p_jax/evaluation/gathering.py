"""State of set metrics while images pass by one at a time, so no image stays in memory; parts can be merged.

A part of a set is the share of ``evaluate(shard="2/8")``.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from p2p_jax.evaluation import fid_kid, histograms, segmentation
from p2p_jax.evaluation.ground_truth import GroundTruth
from p2p_jax.images import palettes, pictures


class Judge(NamedTuple):
    """The references of metrics: a segmenter and the labels of the inputs, the labels of the targets, or features."""

    segmenter: Any
    inputs: Any
    targets: Any
    paired: bool
    features: Any = None


class Sets(NamedTuple):
    """The input of a set metric.

    Attributes:
      outputs: pictures, [H, W, 1 or 3] uint8: a sequence that reads each item from disk when it is used, see
        ``kept_pictures.Pictures``.
      targets: pictures of the other domain.
      judge: the reference of label metrics, see ``prepare``.
      inception: a file with Inception's weights, or None.
    """

    outputs: Sequence[np.ndarray]
    targets: Sequence[np.ndarray]
    judge: Judge
    inception: Path | None


class Gathering(Protocol):
    """A metric's state over images that pass by once, each output and target with its index in the split.

    If it has a method ``input``, called like ``output``, it also gets the inputs of the outputs.
    """

    def output(self, place: int, image: np.ndarray) -> None:
        """Add an output, [H, W, 1 or 3] uint8."""

    def target(self, place: int, image: np.ndarray) -> None:
        """Add a target; with pairs, that of the last output."""

    def kept(self) -> Any:
        """Return the state after all images of a part, fit for JSON; whole numbers and floats keep their type."""

    def add(self, kept: Any) -> None:
        """Add the state of another part of the set."""

    def result(self) -> Mapping[str, Any]:
        """Return the metric, like ``SetMetric.compute``; the order of the parts does not matter."""


Gather = Callable[[Sets, Path], Gathering]
"""``(sets, folder) -> Gathering``: the sets are still empty; files that it leaves in the folder belong to the part."""


class Histograms:
    """Colours of outputs and of targets."""

    def __init__(self, sets: Sets, folder: Path):
        del sets, folder
        self._sides = {name: histograms.LabHistograms() for name in ("outputs", "targets")}

    def output(self, place: int, image: np.ndarray) -> None:
        """Count colours."""
        self._sides["outputs"].add(image)

    def target(self, place: int, image: np.ndarray) -> None:
        """Count colours."""
        self._sides["targets"].add(image)

    def kept(self) -> dict[str, dict[str, list[int]]]:
        """Return the counts."""
        return {
            side: {name: counts.tolist() for name, counts in found.counts.items()}
            for side, found in self._sides.items()
        }

    def add(self, kept: Mapping[str, Mapping[str, list[int]]]) -> None:
        """Add counts."""
        for side, counts in kept.items():
            if counts:
                self._sides[side].add_counts({name: np.array(count, np.int64) for name, count in counts.items()})

    def result(self) -> dict[str, float]:
        """Return the intersection."""
        return self._sides["outputs"].intersection(self._sides["targets"])


class _Confusions:
    """Confusion matrices by name, summed over images."""

    def __init__(self, **confusions: segmentation.Confusion):
        self._confusions = confusions

    def kept(self) -> dict[str, list[list[int]]]:
        """Return the matrices."""
        return {name: found.total().tolist() for name, found in self._confusions.items()}

    def add(self, kept: Mapping[str, list[list[int]]]) -> None:
        """Add matrices."""
        for name, matrix in kept.items():
            self._confusions[name].add_matrix(np.array(matrix, np.int64))


class FcnScores(_Confusions):
    """The labels of a segmenter for outputs and for real photographs."""

    def __init__(self, sets: Sets, folder: Path):
        del folder
        self._judge, self._palette = sets.judge, sets.judge.inputs.palette
        self._labels = _Labels(sets.judge.inputs)
        num_classes = len(self._palette.names)
        self._fakes, self._reals = (
            segmentation.Confusion.by_segmenter(sets.judge.segmenter, num_classes) for _ in range(2)
        )
        super().__init__(outputs=self._fakes, targets=self._reals)

    def output(self, place: int, image: np.ndarray) -> None:
        """Label it with the segmenter."""
        self._fakes.add(pictures.with_channels(image, 3), self._labels[place])

    def target(self, place: int, image: np.ndarray) -> None:
        """Label it with the segmenter, if its true labels are known."""
        if self._judge.paired:
            self._reals.add(pictures.with_channels(image, 3), self._labels[place])

    def result(self) -> dict[str, Any]:
        """Return the scores of both."""
        ceiling: dict[str, Any] = {"note": "unknown: without pairs no labels belong to them"}
        found = _told(segmentation.scores(self._fakes.total()), self._palette)
        if self._judge.paired:
            ceiling = _told(segmentation.scores(self._reals.total()), self._palette)
        segmenter = self._judge.segmenter
        told = {"segmenter id": segmenter.digest} if hasattr(segmenter, "digest") else {}
        return found | {"real photographs": ceiling} | told


class LabelScores(_Confusions):
    """Label maps that a network has drawn."""

    def __init__(self, sets: Sets, folder: Path):
        del folder
        self._palette, self._labels = sets.judge.targets.palette, _Labels(sets.judge.targets)
        self._drawn = segmentation.Confusion.by_palette(self._palette)
        super().__init__(outputs=self._drawn)

    def output(self, place: int, image: np.ndarray) -> None:
        """Read the labels from the colours."""
        self._drawn.add(image, self._labels[place])

    def target(self, place: int, image: np.ndarray) -> None:
        """Do nothing: the true labels are in the label maps, at their own size."""

    def result(self) -> dict[str, Any]:
        """Return the scores."""
        return _told(segmentation.scores(self._drawn.total()), self._palette)


class InceptionPictures:
    """The pictures as files: the last bits of their features depend on which images are in a batch."""

    def __init__(self, sets: Sets, folder: Path):
        self._folder, self._weights = folder, sets.inception

    def output(self, place: int, image: np.ndarray) -> None:
        """Write it."""
        self._write("fakes", place, image)

    def target(self, place: int, image: np.ndarray) -> None:
        """Write it."""
        self._write("reals", place, image)

    def _write(self, kind: str, place: int, image: np.ndarray) -> None:
        pictures.write(self._folder / kind / f"{place:06d}.png", pictures.with_channels(image, 3))

    def kept(self) -> dict[str, Any]:
        """Return nothing: the state is in the files."""
        return {}

    def add(self, kept: Mapping[str, Any]) -> None:
        """Do nothing: the files exist already."""

    def result(self) -> dict[str, Any]:
        """Return FID and KID."""
        return fid_kid.fid_kid(self._folder / "fakes", self._folder / "reals", weights=self._weights)


class _Labels:
    """The labels of one side by index; the last ones used are kept in memory."""

    def __init__(self, truth: GroundTruth):
        self._truth = truth
        self._last: tuple[int, np.ndarray] | None = None

    def __getitem__(self, place: int) -> np.ndarray:
        if self._last is None or self._last[0] != place:
            self._last = place, self._truth[place]
        return self._last[1]


def _told(scores: segmentation.Scores, palette: palettes.Palette) -> dict[str, Any]:
    told = scores._asdict()
    per_class = {
        name: dict(zip(palette.names, told.pop(name), strict=True)) for name in list(told) if "per_class" in name
    }
    return told | per_class


def of_whole(gather: Gather) -> Callable[[Sets], Mapping[str, Any]]:
    """Return ``SetMetric.compute`` for a metric with a gathering."""

    def compute(sets: Sets) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            found = gather(sets, Path(folder))
            for place, image in enumerate(sets.outputs):
                found.output(place, image)
            for place, image in enumerate(sets.targets):
                found.target(place, image)
            return found.result()

    return compute
