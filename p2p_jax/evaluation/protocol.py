"""The evaluation of a run: what is computed over which images, and how it is told."""

import csv
import datetime
import io
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import p2p_jax
from p2p_jax import parallel
from p2p_jax.config import complete
from p2p_jax.data import Split, load_split
from p2p_jax.errors import InputError
from p2p_jax.evaluation import distribution, image_metrics, palettes, report, segmentation
from p2p_jax.evaluation.ground_truth import GroundTruth
from p2p_jax.evaluation.predictions import predict, sides
from p2p_jax.inference import Translator, pictures
from p2p_jax.inference.run import Run, open_run
from p2p_jax.monitoring import to_uint8, write_atomically

METRICS = ("image", "histogram", "fcn", "labels", "fid")
"""What can be asked for: per-image metrics; colour histograms; labels to photographs judged by a segmenter; photographs
to labels; FID and KID."""
_PER_DEVICE = 8


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
) -> dict[str, Any]:
    """Evaluate a run over every image of a split.

    Args:
      workdir: the run's directory.
      split: such as "test"; by default the config's ``data.val_split``.
      metrics: some of ``METRICS``; by default "image", "histogram" where scikit-image is installed, and "fcn" if a
        `segmenter` is given.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA", for the metrics of whole sets; see ``Translator.from_workdir``.
      norm: "batch" or "running"; by default as stored.
      dropout: keep the noise of training; by default as stored.
      data_dir: the folder of the data set, if it is no longer where the config says.
      segmenter: for "fcn": "module:name" of a function ``uint8 [N, H, W, 3] -> int labels [N, H, W]``, or a directory
        made by ``python -m p2p_jax.train_segmenter``.
      palette: for "fcn" and "labels": the colours of the label maps, see ``palettes.find_palette``; by default the
        segmenter's, or recognised.
      label_ids: for "fcn" and "labels": class numbers in place of colours, see ``GroundTruth``; numbers that are no
        class are not scored.
      inception: for "fid": a file with Inception's weights, where they cannot be downloaded.
      output: a folder that receives ``results.json``, ``images.csv`` and ``report.html``.

    Returns:
      What ``results.json`` holds: ``metrics`` (mean, standard deviation and count of every per-image metric),
      ``set_metrics`` (of all images together), ``images`` (a row per image), and what was evaluated.

    Raises:
      InputError: no such run, split or metric, or something a metric needs is missing.
    """
    run = open_run(workdir, checkpoint, norm, dropout)
    if data_dir is not None:
        data = run.config.data.to_dict() | {"dir": data_dir}
        run = run._replace(config=complete(run.config.to_dict() | {"data": data}))
    if run.config.data.dir and not Path(run.config.data.dir).is_dir():
        raise InputError(f"there is no folder {run.config.data.dir} with the run's images: say where, with --data_dir")
    split = split or run.config.data.val_split
    if not split:
        raise InputError(f"{workdir} was trained without validation: name the split to evaluate on, --split")
    asked = _metrics_asked(metrics, segmenter)
    translator = Translator(run, direction=direction)
    if "fid" in asked:
        distribution.check(inception)
    opened = load_split(run.config, split)
    forward = translator.direction == run.config.data.direction
    judge = _make_judge(asked, opened, forward, segmenter, palette, label_ids)

    rows, columns = _per_image(run, opened)
    results = _identity(run, translator, split, opened) | {"metrics": {}, "set_metrics": {}, "images": rows}
    if asked - {"image"} or (opened.paired and "l1" not in rows[0]):
        outputs, targets = [], []
        for i, prediction in enumerate(predict(translator, opened)):
            outputs.append(to_uint8(prediction.output))
            if prediction.target is not None:
                compared = image_metrics.full_reference(prediction.output[None], prediction.target[None])
                rows[i] |= {name: float(value[0]) for name, value in compared.items() if name not in rows[i]}
                targets.append(to_uint8(prediction.target))
        targets = targets or list(_targets(translator, opened))
        results["set_metrics"] = _of_sets(asked, outputs, targets, judge, inception)
    for name in [key for key in rows[0] if key != "name"]:
        values = np.array([row[name] for row in rows], np.float64)
        results["metrics"][name] = {"mean": values.mean(), "std": values.std(), "count": len(values)}
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
    write_atomically(output / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(results["images"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(results["images"])
    write_atomically(output / "images.csv", table.getvalue())
    report.write_report(output / "report.html", results, columns, history if history.exists() else None)


def _metrics_asked(metrics: Sequence[str] | None, segmenter: str | None) -> set[str]:
    if metrics is not None:
        for name in metrics:
            if name not in METRICS:
                raise InputError(f"--metrics {name}: choose from {', '.join(METRICS)}")
        return set(metrics)
    asked = {"image", "fcn"} if segmenter else {"image"}
    try:
        image_metrics.LabHistograms()
    except InputError as error:
        print(f"note: histogram is left out; {error}")
        return asked
    return asked | {"histogram"}


def _per_image(run: Run, split: Split) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """Return the objective's own metrics and columns of images, computed as in validation during training."""
    kept, rebuild = run.restore(run.objective.evaluate)
    own = parallel.compile_evaluate(
        lambda kept, batch, rng: run.objective.evaluate(rebuild(kept), batch, rng), _PER_DEVICE
    )
    rows: list[dict[str, Any]] = []
    columns: list[dict[str, np.ndarray]] = []
    for batch in split.batches(_PER_DEVICE * jax.local_device_count()):
        metrics, images = own(kept, batch, run.rng)
        images = {name: to_uint8(image) for name, image in images.items()}
        for i in range(len(batch["real_a"])):
            a, b = (names[len(rows) % len(names)] for names in split.names)
            name = {"name": a if split.paired else f"{a} | {b}"}
            rows.append(name | {key: float(value[i]) for key, value in metrics.items()})
            columns.append({key: image[i] for key, image in images.items()})
    return rows, columns


def _targets(translator: Translator, split: Split) -> Iterator[np.ndarray]:
    """Yield every image of the domain of destination once, as uint8."""
    _, wanted, _ = sides(translator, split)
    left = len(split.names[int(wanted == "real_b")])
    for batch in split.batches(_PER_DEVICE):
        yield from to_uint8(batch[wanted][:left])
        left = max(left - len(batch[wanted]), 0)


def _identity(run: Run, translator: Translator, split: str, opened: Split) -> dict[str, Any]:
    """Return what is evaluated."""
    sizes = [len(names) for names in opened.names]
    return {
        "run": run.workdir.absolute().name,
        "step": run.step,
        "checkpoint_id": translator.checkpoint_id,
        "direction": translator.direction,
        "split": split,
        "num_images": max(sizes),
        "paired": opened.paired,
        "norm": run.config.inference.norm,
        "dropout": run.config.inference.dropout,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"p2p_jax": p2p_jax.__version__, "jax": jax.__version__},
        "config": run.config.to_dict(),
    }


class _Judge(NamedTuple):
    """What the label metrics compare with: a segmenter and the labels of the inputs, or the labels of the targets."""

    segmenter: Any
    inputs: Any
    targets: Any


def _make_judge(
    asked: set[str],
    split: Split,
    forward: bool,
    segmenter: str | None,
    palette: str | None,
    label_ids: str | Path | None,
) -> _Judge:
    """Check and open what the label metrics need."""
    if "fcn" in asked and segmenter is None:
        raise InputError(
            "fcn needs --segmenter: a directory made by python -m p2p_jax.train_segmenter, or 'module:name'"
        )
    found = segmentation.find_segmenter(segmenter) if segmenter and "fcn" in asked else None
    colors = palettes.find_palette(palette) if palette else getattr(found, "palette", None)
    ids = None if label_ids is None else Path(label_ids)
    sides = {"fcn": 0 if forward else 1, "labels": 1 if forward else 0}
    truths = {name: GroundTruth(split, side, colors, ids) if name in asked else None for name, side in sides.items()}
    return _Judge(found, truths["fcn"], truths["labels"])


def _of_sets(
    asked: set[str],
    outputs: list[np.ndarray],
    targets: list[np.ndarray],
    judge: "_Judge",
    inception: str | Path | None,
) -> dict[str, Any]:
    """Return the metrics of all images together."""
    found: dict[str, Any] = {}
    if "histogram" in asked:
        fakes, reals = image_metrics.LabHistograms(), image_metrics.LabHistograms()
        for image in outputs:
            fakes.add(image)
        for image in targets:
            reals.add(image)
        found["histogram intersection"] = fakes.intersection(reals) | {"count": len(outputs)}
    if "fcn" in asked:
        palette, segmenter = judge.inputs.palette, judge.segmenter
        scores = {
            kind: segmentation.fcn_score(
                (pictures.with_channels(image, 3) for image in images), judge.inputs, segmenter, len(palette.names)
            )
            for kind, images in (("fake", outputs), ("real", targets))
        }
        name = getattr(segmenter, "name", getattr(segmenter, "__name__", "segmenter"))
        found[f"FCN score [{name}]"] = _told(scores["fake"], palette) | {
            "real photographs": _told(scores["real"], palette),
            "count": len(outputs),
        }
    if "labels" in asked:
        palette = judge.targets.palette
        score = segmentation.palette_score(outputs, judge.targets, palette)
        found["labels, nearest palette colour"] = _told(score, palette) | {"count": len(outputs)}
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


def _plain(tree: Any) -> Any:
    """Return a tree that JSON can hold: numbers of Python, and None for what is not a finite number."""
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
