"""Metrics of all images together, and their requirements: colours, labels, distributions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from p2p_jax.config import resolve
from p2p_jax.data import Split
from p2p_jax.distances import INCEPTION, MEANINGS, find_features
from p2p_jax.errors import InputError
from p2p_jax.evaluation import fid_kid, gathering, histograms, segmentation
from p2p_jax.evaluation.distances_of_sets import SetDistances
from p2p_jax.evaluation.gathering import Gather, Judge, Sets
from p2p_jax.evaluation.ground_truth import GroundTruth
from p2p_jax.images import palettes
from p2p_jax.images.domains import Domain
from p2p_jax.reporting import say


class Asked(NamedTuple):
    """What is available to the metrics before anything is computed; `domain` is that of the outputs."""

    split: Split
    domain: Domain
    segmenter: str | None
    inception: str | Path | None
    features: str = ""


class SetMetric(NamedTuple):
    """A measure of all outputs together.

    Attributes:
      key: name to request it by.
      title: its name in results.
      meaning: one sentence, with the range; "" if the descriptions of its parts suffice.
      compute: ``Sets -> {name: number}``; values that are mappings are printed next to each other or below.
      check: raises InputError if a requirement is missing, before anything is computed.
      lower_is_better: whether lower is better; None if its parts differ.
      parts: names of numbers that `compute` returns -> their meaning and whether lower is better.
      cell: text of the numbers in one cell of an ablation table; None, as for your own metrics: all, with slashes.
      suffix: end of the title, which depends on the segmenter or features.
      gather: computes the same from images that pass by once, without keeping them, and in parts (``shard``), which
        `compute` cannot; see ``gathering.Gathering``.
    """

    key: str
    title: str
    meaning: str
    compute: Callable[[Sets], Mapping[str, Any]]
    check: Callable[[Asked], Any] = lambda asked: None
    lower_is_better: bool | None = None
    parts: Mapping[str, tuple[str, bool]] = {}
    cell: Callable[[Mapping[str, Any]], str] | None = None
    suffix: Callable[[Sets], str] = lambda sets: ""
    gather: Gather | None = None


def number(value: float | None, form: str) -> str:
    """Return a number as in a table; a missing one is a dash."""
    return "–" if value is None else f"{value:{form}}"


def _segmenter_name(sets: Sets) -> str:
    segmenter = sets.judge.segmenter
    return f" [{getattr(segmenter, 'name', getattr(segmenter, '__name__', 'segmenter'))}]"


def _needs_photographs(asked: Asked) -> None:
    if not asked.domain.is_photograph:
        raise InputError(
            f"the metric histogram is for colours of photographs; outputs of the run are {asked.domain.kind}"
        )
    histograms.LabHistograms()  # needs an extra


def _needs_segmenter(asked: Asked) -> None:
    if asked.segmenter is None:
        raise InputError("fcn needs `segmenter`: a directory made by python -m p2p_jax segmenter, or 'module:name'")


def _needs_features(asked: Asked) -> None:
    if not asked.features:
        raise InputError(
            "the metric distances needs `features`: inception, segmenter:FOLDER, or 'module:name' of a function from "
            "pictures to features; the run's config names none (config.distances.features)"
        )
    if min(map(len, asked.split.names)) < 2:
        raise InputError("the metric distances needs at least 2 images of each kind, better thousands")


def _needs_pairs(asked: Asked) -> None:
    if not asked.split.paired:
        raise InputError("the metric labels needs a paired data set")


_SCORES = {
    "pixel_accuracy": ("Fraction of all pixels with the right class; 0 to 1.", False),
    "class_accuracy": ("Fraction of a class's pixels labelled right, mean over classes; 0 to 1.", False),
    "class_iou": ("Intersection over union of a class's pixels, mean over classes; 0 to 1.", False),
}


def _score_cell(found: Mapping[str, Any]) -> str:
    return " / ".join(number(found[name], ".2f") for name in _SCORES if name in found)


SET_METRICS = (
    SetMetric(
        key="histogram",
        title="histogram intersection",
        meaning="Shared mass of the colour distributions of all outputs and all targets in Lab, sum of min(p, q) over "
        "bins, each channel by itself; 0 to 1, equal.",
        compute=gathering.of_whole(gathering.Histograms),
        gather=gathering.Histograms,
        check=_needs_photographs,
        lower_is_better=False,
        cell=lambda found: " / ".join(number(found[name], ".2f") for name in ("L", "a", "b") if name in found),
    ),
    SetMetric(
        key="fcn",
        title="FCN score",
        meaning="Outputs are labelled by the named segmenter and compared with the ground-truth labels at the labels' "
        "own resolution, one confusion matrix over all images. The same for real photographs is the ceiling. Scores of "
        "different segmenters do not compare.",
        compute=gathering.of_whole(gathering.FcnScores),
        gather=gathering.FcnScores,
        check=_needs_segmenter,
        lower_is_better=False,
        parts=_SCORES,
        cell=_score_cell,
        suffix=_segmenter_name,
    ),
    SetMetric(
        key="labels",
        title="labels, nearest palette colour",
        meaning="Outputs are label maps: each pixel counts as the class whose colour is nearest, and is compared with "
        "the ground truth, one confusion matrix over all images.",
        compute=gathering.of_whole(gathering.LabelScores),
        gather=gathering.LabelScores,
        check=_needs_pairs,
        lower_is_better=False,
        parts=_SCORES,
        cell=_score_cell,
    ),
    SetMetric(
        key="fid",
        title="FID and KID",
        meaning="",
        compute=gathering.of_whole(gathering.InceptionPictures),
        gather=gathering.InceptionPictures,
        check=lambda asked: fid_kid.check(asked.inception),
        parts={
            "fid": (
                "Frechet distance of Gaussians fitted to Inception features of outputs and of real images; 0 is equal. "
                "It is biased upwards for few images: compare it only at equal counts.",
                True,
            ),
            "kid_mean": (
                "Squared maximum mean discrepancy of the same features, unbiased, with its standard deviation over "
                "subsets; about 0 where the distributions are equal.",
                True,
            ),
        },
        cell=lambda found: f"{found['fid']:.1f}, {found['kid_mean']:.4f}",
    ),
    SetMetric(
        key="distances",
        title="distances",
        meaning="Distance of outputs from real images in the named features, as in validation during training. "
        "Distances in different features do not compare.",
        compute=gathering.of_whole(SetDistances),
        gather=SetDistances,
        check=_needs_features,
        parts={name: (meaning, True) for name, meaning in MEANINGS.items()},
        cell=lambda found: f"{number(found['fid'], '.4g')}, {number(found['kid'], '.4f')}",
        suffix=lambda sets: f" [{sets.judge.features.name}]",
    ),
)
"""The set metrics of the library; results, report and ablation tables use this table."""
METRICS = tuple(metric.key for metric in SET_METRICS)


def find(name: str) -> SetMetric:
    """Return a metric by its key, or your own by "module:name".

    Raises:
      InputError: there is no metric of that name.
    """
    known = {metric.key: metric for metric in SET_METRICS}
    metric = resolve(name, f"metrics={name}") if ":" in name else known.get(name)
    if not isinstance(metric, SetMetric):
        raise InputError(f"metrics={name}: choose from {', '.join(METRICS)}, or name a SetMetric as 'module:name'")
    return metric


def of_title(name: str) -> SetMetric | None:
    """Return the metric with that name in results; None if it is not in the table."""
    return next((metric for metric in SET_METRICS if name.partition(" [")[0] == metric.title), None)


def features_of(config: ConfigDict, features: str | None = None, inception: str | Path | None = None) -> dict[str, Any]:
    """Return `features` and `inception` for ``prepare``; if no features are named, those of a run's validation."""
    if features is not None:
        return {"features": features, "inception": inception}
    return {"features": config.distances.features, "inception": inception or config.distances.weights or None}


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
    features: str = "",
) -> tuple[list[SetMetric], Judge]:
    """Check and open the requirements of metrics, without long work.

    Args:
      split: the split to evaluate.
      domains: domains of ``real_a`` and ``real_b``.
      metrics: see ``evaluate``, also for the others.
      forward: whether to translate ``real_a`` to ``real_b``, not the other way.
      segmenter: for "fcn".
      palette: for "fcn" and "labels".
      label_ids: for "fcn" and "labels".
      inception: for "fid", and for features of "inception".
      features: for "distances"; "" names none.

    Returns:
      The metrics, and the references of label metrics.

    Raises:
      InputError: a metric is unknown, or a requirement is missing.
    """
    at_hand = Asked(split, domains[1 if forward else 0], segmenter, inception, features)
    chosen = _metrics_asked(metrics, at_hand)
    asked = {metric.key for metric in chosen}
    for metric in chosen:
        metric.check(at_hand)
    found = segmentation.find_segmenter(segmenter) if segmenter and "fcn" in asked else None
    colors = palettes.find_palette(palette) if palette else getattr(found, "palette", None)
    ids = None if label_ids is None else Path(label_ids)
    sides = {"fcn": 0 if forward else 1, "labels": 1 if forward else 0}
    truths = {
        name: GroundTruth(split, side, colors, ids, domains[side]) if name in asked else None
        for name, side in sides.items()
    }
    weights = inception if features == INCEPTION else None
    looked_at = find_features(features, weights) if "distances" in asked else None
    return chosen, Judge(found, truths["fcn"], truths["labels"], split.paired, looked_at)


def _metrics_asked(metrics: Sequence[str] | None, at_hand: Asked) -> list[SetMetric]:
    if metrics is not None:
        return [find(name) for name in dict.fromkeys(metrics)]
    names = ["fcn"] if at_hand.segmenter else []
    try:
        _needs_photographs(at_hand)
        names.insert(0, "histogram")
    except InputError as error:
        say(f"note: histogram is left out; {error}")
    return [find(name) for name in names]
