"""What metrics of sets keep while images pass by one at a time, so that no image stays; parts can be put together.

A part of a set is what ``evaluate(shard="2/8")`` sees of it.
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
    """What metrics compare with: a segmenter and the labels of the inputs, the labels of the targets, or features."""

    segmenter: Any
    inputs: Any
    targets: Any
    paired: bool
    features: Any = None


class Sets(NamedTuple):
    """What a metric of sets sees.

    Attributes:
      outputs: pictures, [H, W, 1 or 3] uint8: a sequence of which every item is read from the disk when it is asked
        for, see ``kept_pictures.Pictures``.
      targets: pictures of the other domain.
      judge: what labels are compared with, see ``prepare``.
      inception: a file with Inception's weights, or None.
    """

    outputs: Sequence[np.ndarray]
    targets: Sequence[np.ndarray]
    judge: Judge
    inception: Path | None


class Gathering(Protocol):
    """What a metric makes of images that pass by once, each output and each target with its place in the split.

    One that has a method ``input`` too, called as ``output``, gets what the outputs were made of.
    """

    def output(self, place: int, image: np.ndarray) -> None:
        """Take an output, [H, W, 1 or 3] uint8."""

    def target(self, place: int, image: np.ndarray) -> None:
        """Take a target; in pairs that of the output before it."""

    def kept(self) -> Any:
        """Return, once all of a part have passed, what JSON can hold; whole numbers and floats stay what they are."""

    def add(self, kept: Any) -> None:
        """Add what another one kept of another part of the set."""

    def result(self) -> Mapping[str, Any]:
        """Return the measure, as ``SetMetric.compute``; the order in which parts were added makes no difference."""


Gather = Callable[[Sets, Path], Gathering]
"""``(sets, folder) -> Gathering``: the sets are empty yet; files that it leaves in the folder belong to the part."""


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
    """What a segmenter sees in outputs, and in real photographs."""

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
        """Let the segmenter label it."""
        self._fakes.add(pictures.with_channels(image, 3), self._labels[place])

    def target(self, place: int, image: np.ndarray) -> None:
        """Let the segmenter label it, if it is known which labels belong to it."""
        if self._judge.paired:
            self._reals.add(pictures.with_channels(image, 3), self._labels[place])

    def result(self) -> dict[str, Any]:
        """Return the scores of either."""
        ceiling: dict[str, Any] = {"note": "unknown: without pairs no labels belong to them"}
        found = _told(segmentation.scores(self._fakes.total()), self._palette)
        if self._judge.paired:
            ceiling = _told(segmentation.scores(self._reals.total()), self._palette)
        segmenter = self._judge.segmenter
        told = {"segmenter id": segmenter.digest} if hasattr(segmenter, "digest") else {}
        return found | {"real photographs": ceiling} | told


class LabelScores(_Confusions):
    """Label maps that were drawn."""

    def __init__(self, sets: Sets, folder: Path):
        del folder
        self._palette, self._labels = sets.judge.targets.palette, _Labels(sets.judge.targets)
        self._drawn = segmentation.Confusion.by_palette(self._palette)
        super().__init__(outputs=self._drawn)

    def output(self, place: int, image: np.ndarray) -> None:
        """Read the labels off the colours."""
        self._drawn.add(image, self._labels[place])

    def target(self, place: int, image: np.ndarray) -> None:
        """Nothing: what is true stands in the label maps, at their own size."""

    def result(self) -> dict[str, Any]:
        """Return the scores."""
        return _told(segmentation.scores(self._drawn.total()), self._palette)


class InceptionPictures:
    """The pictures themselves, as files: their features depend, in the last bits, on which are looked at together."""

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
        """Return nothing: the files are what is kept."""
        return {}

    def add(self, kept: Mapping[str, Any]) -> None:
        """Nothing: the files are there."""

    def result(self) -> dict[str, Any]:
        """Return FID and KID."""
        return fid_kid.fid_kid(self._folder / "fakes", self._folder / "reals", weights=self._weights)


class _Labels:
    """The labels of one side by their place; those asked for last are not read again."""

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
    """Return ``SetMetric.compute`` of a metric that gathers."""

    def compute(sets: Sets) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            found = gather(sets, Path(folder))
            for place, image in enumerate(sets.outputs):
                found.output(place, image)
            for place, image in enumerate(sets.targets):
                found.target(place, image)
            return found.result()

    return compute
