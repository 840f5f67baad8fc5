"""The results of an evaluation: numbers over all images, facts about the evaluation, and the files."""

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import p2p_jax
from p2p_jax.config.options import CROPPED
from p2p_jax.data import Split, spreadsheets
from p2p_jax.errors import InputError
from p2p_jax.evaluation import report, units
from p2p_jax.evaluation.gallery import Gallery
from p2p_jax.evaluation.set_metrics import SetMetric
from p2p_jax.images.domains import of_config
from p2p_jax.inference import Translator
from p2p_jax.inference.run import Run
from p2p_jax.objectives.metrics import IMAGE_METRICS, Metric, find_metrics
from p2p_jax.reporting import say
from p2p_jax.storage.refusals import reason
from p2p_jax.storage.writing import write_text
from p2p_jax.training import metrics_file


def tell(
    identity: Mapping[str, Any],
    config: ConfigDict,
    rows: Sequence[Mapping[str, Any]],
    asked: Sequence[SetMetric],
    of_sets: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Args:
      identity: facts about the evaluation.
      config: config of the run.
      rows: rows of all images, in order.
      asked: the set metrics.
      of_sets: their values, by title.
    """
    has_unknown = any(domain.unknown for domain in of_config(config.data))
    metrics = {
        name: _summary(np.array([row[name] for row in rows], np.float64), has_unknown)
        for name in rows[0]
        if name != "name"
    }
    found = dict(identity) | {"metrics": metrics, "set_metrics": of_sets, "images": rows}
    return _plain(found | {"described": _described(metrics, find_metrics(config.metrics), asked)})


def write(output: Path, results: Mapping[str, Any], gallery: Gallery, history: Path) -> None:
    """Write ``results.json``, ``images.csv`` and ``report.html`` into a folder that the caller has locked.

    Args:
      output: the folder.
      results: the results of ``evaluate``.
      gallery: the pictures to show.
      history: the run's ``metrics.csv``.

    Raises:
      InputError: a file cannot be written.
    """
    curves = history if history.exists() else None
    if curves and (found := metrics_file.read(curves)).changed and not found.rows:
        say(f"note: the report has no curves of the training: {curves} cannot be read ({found.changed})")
        curves = None
    try:
        write_text(output / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
        write_text(output / "images.csv", spreadsheets.table(list(results["images"][0]), results["images"]))
        report.write_report(output / "report.html", results, gallery, curves)
    except OSError as error:
        raise InputError(
            f"the results cannot be written into {output} ({reason(error, output)}); name another `output`"
        ) from error


def _summary(values: np.ndarray, has_unknown: bool) -> dict[str, Any]:
    """Return mean and standard deviation; infinite values, such as the PSNR of equal images, are only counted.

    With `has_unknown`, so are NaN values: those of images without known pixels.
    """
    kept = values[np.isfinite(values) if has_unknown else ~np.isinf(values)]
    summary = {"mean": kept.mean(), "std": kept.std()} if len(kept) else {"mean": None, "std": None}
    apart = {"infinite": int(np.isinf(values).sum()), "unknown": int(np.isnan(values).sum()) if has_unknown else 0}
    return summary | {"count": len(values)} | {name: count for name, count in apart.items() if count}


def _described(names: Iterable[str], of_images: Sequence[Metric], of_sets: Sequence[SetMetric]) -> dict[str, Any]:
    """Return the meaning of the metrics, so results explain themselves wherever they are read."""
    described: dict[str, Any] = {}
    for name in names:
        for metric in (*of_images, *IMAGE_METRICS):
            if name == metric.key or name.startswith(f"{metric.key}_"):
                described[metric.key] = {"meaning": metric.meaning, "lower_is_better": metric.lower_is_better}
    for found in of_sets:
        described[found.title] = {"meaning": found.meaning, "lower_is_better": found.lower_is_better}
        for part, (meaning, lower_is_better) in found.parts.items():
            described[part] = {"meaning": meaning, "lower_is_better": lower_is_better}
    return described


def identify(run: Run, translator: Translator, checkpoint: str | int, split: str, opened: Split) -> dict[str, Any]:
    """Return the facts about the evaluation."""
    sizes, domain = [len(names) for names in opened.names], translator.domain_out
    return {
        "run": run.name if run.file else run.workdir.absolute().name,
        "step": run.step,
        "checkpoint": str(checkpoint),
        "weights": run.weights,
        "norm": run.config.inference.norm,
        "dropout": run.config.inference.dropout,
        "num_parameters": translator.num_parameters,
        "checkpoint_id": translator.checkpoint_id,
        "direction": translator.direction,
        "split": split,
        "num_images": max(sizes),
        "paired": opened.paired,
        "seen": _seen(opened, run.config.data),
        **({"units": units.describe(domain)} if opened.paired and units.has_units(domain) else {}),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"p2p_jax": p2p_jax.__version__, "jax": jax.__version__},
        "config": run.config.to_dict(),
    }


def _seen(opened: Split, data: ConfigDict) -> str:
    """Return which part of the images is evaluated."""
    if opened.whole:
        return "whole images" if opened.paired else "a grid of crops that covers every image"
    if data.preprocess in CROPPED:
        return "the centre crop of each image"
    return "whole images, at the size that the network sees"


def _plain(tree: Any) -> Any:
    """Return a tree fit for JSON: Python numbers, and None for numbers that are not finite."""
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
