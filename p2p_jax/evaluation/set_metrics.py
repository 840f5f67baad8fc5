"""Metrics of all images together, and what they need: colours, labels, distributions."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.data import Split
from p2p_jax.errors import InputError
from p2p_jax.evaluation import distribution, histograms, segmentation
from p2p_jax.evaluation.ground_truth import GroundTruth
from p2p_jax.images import palettes, pictures
from p2p_jax.images.domains import Domain

METRICS = ("histogram", "fcn", "labels", "fid")
"""What can be asked for of whole sets: colour histograms; labels to photographs judged by a segmenter; photographs
to labels; FID and KID."""


class Judge(NamedTuple):
    """What the label metrics compare with: a segmenter and the labels of the inputs, or the labels of the targets."""

    segmenter: Any
    inputs: Any
    targets: Any
    paired: bool


def prepare(
    split: Split,
    domains: tuple[Domain, Domain],
    *,
    metrics: Sequence[str] | None = None,
    forward: bool = True,
    segmenter: str | None = None,
    palette: str | None = None,
    label_ids: str | Path | None = None,
    inception: str | Path | None = None,
) -> tuple[set[str], Judge]:
    """Check and open what metrics need; nothing that takes long is done.

    Args:
      split: what is evaluated on.
      domains: of ``real_a`` and ``real_b``.
      metrics: see ``evaluate``; so are the others.
      forward: translate ``real_a`` to ``real_b``, and not the other way.
      segmenter: for "fcn".
      palette: for "fcn" and "labels".
      label_ids: for "fcn" and "labels".
      inception: for "fid".

    Returns:
      The names of the metrics, and what labels are compared with.

    Raises:
      InputError: a metric is unknown, or something that it needs is missing.
    """
    asked = _metrics_asked(metrics, segmenter)
    if "fid" in asked:
        distribution.check(inception)
    if "fcn" in asked and segmenter is None:
        raise InputError("fcn needs `segmenter`: a directory made by python -m p2p_jax segmenter, or 'module:name'")
    if "labels" in asked and not split.paired:
        raise InputError("labels compares with the labels of the very photograph: it needs a paired data set")
    found = segmentation.find_segmenter(segmenter) if segmenter and "fcn" in asked else None
    colors = palettes.find_palette(palette) if palette else getattr(found, "palette", None)
    ids = None if label_ids is None else Path(label_ids)
    sides = {"fcn": 0 if forward else 1, "labels": 1 if forward else 0}
    truths = {
        name: GroundTruth(split, side, colors, ids, domains[side]) if name in asked else None
        for name, side in sides.items()
    }
    return asked, Judge(found, truths["fcn"], truths["labels"], split.paired)


def _metrics_asked(metrics: Sequence[str] | None, segmenter: str | None) -> set[str]:
    if metrics is not None:
        for name in metrics:
            if name not in METRICS:
                raise InputError(f"metrics={name}: choose from {', '.join(METRICS)}")
        if "histogram" in metrics:
            histograms.LabHistograms()  # needs an extra
        return set(metrics)
    asked = {"fcn"} if segmenter else set()
    try:
        histograms.LabHistograms()
    except InputError as error:
        print(f"note: histogram is left out; {error}")
        return asked
    return asked | {"histogram"}


def of_sets(
    asked: set[str],
    outputs: list[np.ndarray],
    targets: list[np.ndarray],
    judge: Judge,
    inception: str | Path | None,
) -> dict[str, Any]:
    """Return the metrics of all images together.

    Args:
      asked: names of metrics.
      outputs: pictures, [H, W, 1 or 3] uint8.
      targets: pictures of the other domain.
      judge: as ``prepare`` returns it.
      inception: for "fid".
    """
    found: dict[str, Any] = {}
    if "histogram" in asked:
        fakes, reals = histograms.LabHistograms(), histograms.LabHistograms()
        for image in outputs:
            fakes.add(image)
        for image in targets:
            reals.add(image)
        found["histogram intersection"] = fakes.intersection(reals) | {"count": len(outputs)}
    if "fcn" in asked:
        palette, segmenter = judge.inputs.palette, judge.segmenter

        def score(images):
            photographs = (pictures.with_channels(image, 3) for image in images)
            return _told(segmentation.fcn_score(photographs, judge.inputs, segmenter, len(palette.names)), palette)

        name = getattr(segmenter, "name", getattr(segmenter, "__name__", "segmenter"))
        # Which labels belong to a photograph of an unpaired set is not known.
        ceiling = score(targets) if judge.paired else {"note": "unknown: without pairs no labels belong to them"}
        found[f"FCN score [{name}]"] = score(outputs) | {"real photographs": ceiling, "count": len(outputs)}
        if hasattr(segmenter, "digest"):
            found[f"FCN score [{name}]"]["segmenter id"] = segmenter.digest
    if "labels" in asked:
        palette = judge.targets.palette
        drawn = segmentation.palette_score(outputs, judge.targets, palette)
        found["labels, nearest palette colour"] = _told(drawn, palette) | {"count": len(outputs)}
    if "fid" in asked:
        with tempfile.TemporaryDirectory() as folder:
            for kind, images in (("fakes", outputs), ("reals", targets)):
                for i, image in enumerate(images):
                    pictures.write(Path(folder) / kind / f"{i:06d}.png", pictures.with_channels(image, 3))
            found["FID and KID"] = distribution.fid_kid(
                Path(folder) / "fakes", Path(folder) / "reals", weights=None if inception is None else Path(inception)
            )
    return found


def _told(scores: segmentation.Scores, palette: palettes.Palette) -> dict[str, Any]:
    told = scores._asdict()
    per_class = {
        name: dict(zip(palette.names, told.pop(name), strict=True)) for name in list(told) if "per_class" in name
    }
    return told | per_class
