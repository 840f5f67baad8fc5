"""The evaluation of a run: what is computed over which images, and how it is told."""

import csv
import datetime
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import p2p_jax
from p2p_jax.config import resolve, with_facts
from p2p_jax.config.options import crop_shape
from p2p_jax.data import Split, load_split
from p2p_jax.data.splits import as_split
from p2p_jax.errors import InputError
from p2p_jax.evaluation import report, set_metrics
from p2p_jax.evaluation.predictions import Prediction, as_picture, predict, targets_of, with_data_dir
from p2p_jax.images.domains import of_config
from p2p_jax.images.writing import write_text
from p2p_jax.inference import Translator, tiling
from p2p_jax.inference.run import Run, open_run
from p2p_jax.objectives.metrics import IMAGE_METRICS, Metric, find_metrics, full_reference
from p2p_jax.reporting import say
from p2p_jax.training import parallel
from p2p_jax.training.checkpoint import read_facts
from p2p_jax.training.monitoring import pictures

_PER_DEVICE = 8
_LONGEST_SHOWN = 512  # pixels of a side of a picture in the report
_IN_UNITS = ("uint16", "int16", "float")  # kinds whose errors are also told in their own units


def evaluate(
    workdir: str | Path,
    *,
    split: str | None = None,
    metrics: Sequence[str] | None = None,
    checkpoint: str | int = "latest",
    direction: str | None = None,
    norm: str | None = None,
    dropout: bool | None = None,
    data_dir: str | None = None,
    segmenter: str | None = None,
    palette: str | None = None,
    label_ids: str | Path | None = None,
    inception: str | Path | None = None,
    output: str | Path | None = None,
    data: Any = None,
    whole: bool = True,
    tile: int | None = None,
) -> dict[str, Any]:
    """Evaluate a run over every image of a split.

    Args:
      workdir: the run's directory.
      split: such as "test"; by default the config's ``data.val_split``.
      metrics: some of ``METRICS``; by default "histogram" where scikit-image is installed, and "fcn" if a
        `segmenter` is given.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA", for the metrics of whole sets; see ``Translator.from_workdir``.
      norm: "batch" or "running"; by default as stored.
      dropout: keep the noise of training; by default as stored.
      data_dir: the folder of the data set, if it is no longer where the config says.
      segmenter: for "fcn": "module:name" of a function ``uint8 [N, H, W, 3] -> int labels [N, H, W]``, or a directory
        made by ``python -m p2p_jax segmenter``.
      palette: for "fcn" and "labels": the colours of the label maps, see ``palettes.find_palette``; by default the
        segmenter's, or recognised.
      label_ids: for "fcn" and "labels": class numbers in place of colours, see ``GroundTruth``; numbers that are no
        class are not scored.
      inception: for "fid": a file with Inception's weights, where they cannot be downloaded.
      data: images in place of those of the config's data set, for a run that was trained on data given to ``train``: a
        ``Source`` (``from_arrays(a, b)``), ``Unpaired``, ``Split``, or the validation set of a ``Data``.
      whole: evaluate whole images where training sees crops; False: the crop out of the middle of each that validation
        during training sees.
      tile: translate whole images with a longer side in tiles, see ``Translator.from_workdir``.
      output: a folder that receives ``results.json``, ``images.csv`` and ``report.html``.

    Returns:
      What ``results.json`` holds: ``metrics`` (mean, standard deviation and count of every per-image metric, and of
      infinite values, which are not in the mean),
      ``set_metrics`` (of all images together), ``images`` (a row per image), and what was evaluated. In pairs whose
      outputs are uint16, int16 or floats there is also ``mae_units``, the mean absolute error in their own units.

    Raises:
      InputError: no such run, split or metric, or something a metric needs is missing.
    """
    if output is not None and not Path(output).is_dir() and Path(output).exists():
        raise InputError(f"output={output} is a file; name a folder")
    run = open_run(workdir, checkpoint, norm, dropout)
    run = run._replace(config=with_data_dir(run.config, data_dir))
    split = split or ("given" if data is not None else run.config.data.val_split)
    if not split:
        raise InputError(f"{workdir} was trained without validation: name the split to evaluate on, `split`")
    translator = Translator(run, direction=direction, tile=tile)
    if data is None:
        opened = load_split(run.config, split, whole=whole)
        _compare_images(run, split, opened)
    else:
        opened = as_split(data, run.config, paired=len(translator.directions) == 1, whole=whole)
    if any(opened.nodata.values()):  # unlike the images of training, these have unknown values
        config = with_facts(run.config, opened.nodata)
        run = run._replace(config=config, objective=resolve(config.objective)(config))
        translator = Translator(run, direction=direction, tile=tile)
    asked, judge = set_metrics.prepare(
        opened,
        of_config(run.config.data),
        metrics=metrics,
        forward=translator.direction == run.config.data.direction,
        segmenter=segmenter,
        palette=palette,
        label_ids=label_ids,
        inception=inception,
    )

    metrics_of_pairs = find_metrics(run.config.metrics)
    whole_pairs = opened.whole and opened.paired
    of_crops = run.config.best_metric not in {metric.key for metric in metrics_of_pairs}  # cycles, say
    rows, columns = _per_image(run, opened) if of_crops or not whole_pairs else _whole_pairs(opened)
    columns = [] if whole_pairs else columns
    results = _identity(run, translator, checkpoint, split, opened) | {"metrics": {}, "set_metrics": {}, "images": rows}
    has_unknown = any(domain.unknown for domain in of_config(run.config.data))
    in_units = opened.paired and translator.domain_out.kind in _IN_UNITS and translator.domain_out.is_measured
    missing = opened.paired and any(metric.key not in rows[0] for metric in metrics_of_pairs)
    if asked or in_units or missing:
        compare = jax.jit(partial(full_reference, metrics=metrics_of_pairs))
        outputs, targets = [], []
        for i, prediction in enumerate(predict(translator, opened)):
            outputs.append(as_picture(translator, prediction.output, prediction.input))
            if whole_pairs:
                columns.append(_shown(translator, prediction))
            if prediction.target is not None:
                compared = compare(prediction.output[None], prediction.target[None])
                rows[i] |= {name: float(value[0]) for name, value in compared.items() if name not in rows[i]}
                if in_units:
                    rows[i]["mae_units"] = _error_in_units(translator, prediction.output, prediction.target)
                targets.append(as_picture(translator, prediction.target, prediction.input))
        targets = targets or list(targets_of(translator, opened))
        weights = None if inception is None else Path(inception)
        results["set_metrics"] = set_metrics.of_sets(asked, set_metrics.Sets(outputs, targets, judge, weights))
    for name in [key for key in rows[0] if key != "name"]:
        results["metrics"][name] = _summary(np.array([row[name] for row in rows], np.float64), has_unknown)
    results["described"] = _described(results["metrics"], metrics_of_pairs, asked)
    results = _plain(results)
    if output is not None:
        write(Path(output), results, columns, Path(workdir) / "metrics.csv")
    return results


def write(output: Path, results: Mapping[str, Any], columns: Sequence[Mapping[str, np.ndarray]], history: Path) -> None:
    """Write ``results.json``, ``images.csv`` and ``report.html`` into a folder.

    Args:
      output: the folder; made if missing.
      results: what ``evaluate`` returns.
      columns: for every row of ``results["images"]`` the images to show, name -> [H, W, C] uint8.
      history: the run's ``metrics.csv``.
    """
    write_text(output / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(results["images"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(results["images"])
    write_text(output / "images.csv", table.getvalue())
    report.write_report(output / "report.html", results, columns, history if history.exists() else None)


def _compare_images(run: Run, split: str, opened: Split) -> None:
    """Note a split of other images than those with which the run was trained."""
    whole = read_facts(run.workdir).get("fingerprint", "")
    begun = dict(zip((run.config.data.train_split, run.config.data.val_split), whole.split("-"), strict=False))
    if split in begun and begun[split] not in ("", opened.fingerprint):
        say(f"note: the images of {split} are others, or more or fewer, than when the run was trained")


def _whole_pairs(opened: Split) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """Return rows with the names alone, which their translations fill, and no columns yet."""
    return [{"name": name} for name in opened.names[0]], []


def _shown(translator: Translator, prediction: Prediction) -> dict[str, np.ndarray]:
    """Return the columns of a whole image, with every n-th pixel of a large one."""
    step = -(-max(prediction.input.shape[:2]) // _LONGEST_SHOWN)
    images = {"input": prediction.input, "output": prediction.output, "target": prediction.target}
    small = {name: image[None, ::step, ::step] for name, image in images.items() if image is not None}
    return {name: image[0] for name, image in pictures(small, of_config(translator.config.data)).items()}


def _summary(values: np.ndarray, has_unknown: bool) -> dict[str, Any]:
    """Return mean and standard deviation; infinite values, such as the PSNR of equal images, are counted apart.

    So are, with `has_unknown`, those that are not a number: of images of which no pixel is known.
    """
    kept = values[np.isfinite(values) if has_unknown else ~np.isinf(values)]
    summary = {"mean": kept.mean(), "std": kept.std()} if len(kept) else {"mean": None, "std": None}
    apart = {"infinite": int(np.isinf(values).sum()), "unknown": int(np.isnan(values).sum()) if has_unknown else 0}
    return summary | {"count": len(values)} | {name: count for name, count in apart.items() if count}


def _error_in_units(translator: Translator, output: np.ndarray, target: np.ndarray) -> float:
    values = (translator.domain_out.decode(x).astype(np.float64) for x in (output, target))
    known = np.isfinite(output) & np.isfinite(target)
    return float(np.abs(np.subtract(*values))[known].mean()) if known.any() else math.nan


def _per_image(run: Run, split: Split) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """Return the objective's own metrics and columns of images, computed as in validation during training."""
    kept, rebuild = run.restore(run.objective.evaluate)
    own = parallel.compile_evaluate(
        lambda kept, batch, rng: run.objective.evaluate(rebuild(kept), batch, rng), _PER_DEVICE
    )
    domains = of_config(run.config.data)
    rows: list[dict[str, Any]] = []
    columns: list[dict[str, np.ndarray]] = []
    for batch in split.batches(_PER_DEVICE * jax.local_device_count()):
        if split.whole:  # of one example, whose sides may be of two sizes: a grid of crops of each covers it
            metrics, images = own(kept, _grid(batch, run.config.data), run.rng)
            metrics = {name: value.mean(keepdims=True) for name, value in metrics.items()}
        else:
            metrics, images = own(kept, batch, run.rng)
        images = pictures(images, domains)
        for i in range(len(batch["real_a"])):
            a, b = (names[len(rows) % len(names)] for names in split.names)
            name = {"name": a if split.paired else f"{a} | {b}"}
            rows.append(name | {key: float(value[i]) for key, value in metrics.items()})
            columns.append({key: image[i] for key, image in images.items()})
    return rows, columns


def _grid(batch: Mapping[str, np.ndarray], data: ConfigDict) -> dict[str, np.ndarray]:
    """Return crops that cover all of an image of either side; those of the side that needs fewer are repeated."""
    crop = crop_shape(data)
    cut = {name: tiling.cut(images[0], crop, 0)[0] for name, images in batch.items()}
    most = max(map(len, cut.values()))
    return {name: crops[np.arange(most) % len(crops)] for name, crops in cut.items()}


def _described(
    names: Iterable[str], of_images: Sequence[Metric], of_sets: Sequence[set_metrics.SetMetric]
) -> dict[str, Any]:
    """Return what the metrics mean, so that results explain themselves wherever they are read."""
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


def _identity(run: Run, translator: Translator, checkpoint: str | int, split: str, opened: Split) -> dict[str, Any]:
    """Return what is evaluated."""
    sizes = [len(names) for names in opened.names]
    return {
        "run": run.workdir.absolute().name,
        "step": run.step,
        "checkpoint": str(checkpoint),
        "num_parameters": translator.num_parameters,
        "checkpoint_id": translator.checkpoint_id,
        "direction": translator.direction,
        "split": split,
        "num_images": max(sizes),
        "paired": opened.paired,
        "seen": _seen(opened, run.config.data),
        "norm": run.config.inference.norm,
        "dropout": run.config.inference.dropout,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"p2p_jax": p2p_jax.__version__, "jax": jax.__version__},
        "config": run.config.to_dict(),
    }


def _seen(opened: Split, data: ConfigDict) -> str:
    """Say which part of the images is evaluated."""
    if opened.whole:
        return "whole images" if opened.paired else "a grid of crops that covers every image"
    if data.preprocess in ("crop", "scale_width_and_crop"):
        return "the crop out of the middle of each image"
    return "whole images, at the size that the network sees"


def _plain(tree: Any) -> Any:
    """Return a tree that JSON can hold: numbers of Python, and None for what is not a finite number."""
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
