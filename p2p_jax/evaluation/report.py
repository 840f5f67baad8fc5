"""The report of an evaluation: one HTML file that contains everything it shows and needs no network."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.evaluation import report_tables
from p2p_jax.evaluation.gallery import MAX_IMAGES, NUM_CASES, QUALITY, Gallery, choose_rows, data_uri, finite
from p2p_jax.evaluation.pages import fill
from p2p_jax.storage.writing import write_text
from p2p_jax.training import metrics_file

__all__ = ["MAX_IMAGES", "choose_rows", "data_uri", "read_panels", "write_report"]
_MAX_POINTS = 1_000  # points of a curve


def write_report(
    path: Path,
    results: Mapping[str, Any],
    images: Gallery | Sequence[Mapping[str, np.ndarray]],
    history: Path | None,
    *,
    max_images: int = MAX_IMAGES,
) -> None:
    """Write the report, in one step: a kill leaves the old file or the new one.

    Args:
      path: the HTML file; its folder is made if missing.
      results: what ``python -m p2p_jax evaluate`` writes as JSON: ``images`` with a row for each image (``name`` and
        metrics), ``metrics`` and ``set_metrics``, the ``config``, and what was evaluated.
      images: for every row its pictures, column -> [H, W, 1 or 3] uint8; or a gallery that holds them.
      history: the run's ``metrics.csv``, for the training curves; None leaves them out.
      max_images: largest number of rows with pictures; of more rows, ``choose_rows`` selects, and the page says so. A
        gallery has its own limit.

    Raises:
      ValueError: `images` and the rows do not match, or a picture has another shape or dtype.
      InputError: `history` is not a table of metrics.
    """
    rows = results["images"]
    count = images.num_rows if isinstance(images, Gallery) else len(images)
    if count != len(rows):
        raise ValueError(f"{len(rows)} rows of results but pictures of {count}")
    metrics = [name for name in results.get("metrics", {}) if rows and name in rows[0]]
    metrics = [name for name in metrics if not report_tables.is_of_channel(name)]
    if not isinstance(images, Gallery):
        given, images = images, Gallery(count, max_images)
        for i, row in enumerate(rows):
            images.add(i, {name: row.get(name) for name in metrics}, given[i])
    pictures, shown = images.chosen(rows, metrics)
    columns = list(dict.fromkeys(column for one in shown for column in one["cells"]))
    compare = _compared(columns, results)
    first = columns.index(compare[0]) // 3 * 3 if columns else 0
    panels, averaged = read_panels(history) if history is not None else ([], 1)
    steps = [step for panel in panels for series in panel["series"] for step, _ in series["points"]]
    data = {
        "results": results,
        "better": {name: report_tables.better(name, results.get("described")) for name in metrics},
        "metric": _ranked_by(metrics, results.get("config", {}).get("best_metric")),
        "num_cases": NUM_CASES,
        "columns": columns,
        "compare": compare,
        "strip": columns[first : first + 3],
        "pictures": pictures,
        "shown": shown,
        "panels": panels,
        "steps": [min(steps, default=0), max(steps, default=0)],
    }
    write_text(path, _page(data, _curves_note(averaged), len(shown)))


def _ranked_by(metrics: Sequence[str], best: str | None) -> str | None:
    """Return the metric that best and worst images are chosen by at first; an error in units stands for its l1."""
    if best == "l1" and "mae_units" in metrics:
        return "mae_units"
    return best if best in metrics else next(iter(metrics), None)


def read_panels(history: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a run's metrics into charts: one for each metric, with its domains and splits.

    Args:
      history: ``metrics.csv`` of a run.

    Returns:
      ``[{"title": "l1", "series": [{"name": "eval/l1", "points": [[step, value], ...]}]}, ...]``, evaluations first,
      None for a value that is not finite; and the largest number of logged values averaged into one point.

    Raises:
      InputError: the file cannot be read, or is not such a table.
    """
    table = metrics_file.read(history)
    if table.changed and not table.rows:
        raise InputError(f"{history} is not a table of metrics as a training run writes it ({table.changed})")
    series: dict[str, list[tuple[int, float]]] = {}
    for step, row in table.rows.items():
        for name, cell in row.items():
            if name in (metrics_file.SECONDS, metrics_file.EPOCH):  # they only say where a step is
                continue
            series.setdefault(name, []).append((step, float(cell)))
    panels: dict[str, dict[str, Any]] = {}
    averaged = 1
    for name in sorted(series, key=lambda name: not name.startswith("eval/")):
        size = math.ceil(len(series[name]) / _MAX_POINTS)
        averaged = max(averaged, size)
        panel = panels.setdefault(_title(name), {"title": _title(name), "series": []})
        panel["series"].append({"name": name, "points": list(_thin(series[name], size))})
    return list(panels.values()), averaged


def _title(name: str) -> str:
    """Return the chart of a metric: "train/gen/gan_ab" belongs to "gen/gan", real and fake to "disc".

    KID and FID of copies of the input are lines in the charts of KID and FID.
    """
    metric = name.removeprefix("train/").removeprefix("eval/")
    metric = re.sub(r"_(a|b|ab|ba)$", "", metric)
    metric = re.sub(r"^(copy|raw)_(?=(kid|fid)$)", "", metric)
    return re.sub(r"^disc/(real|fake)$", "disc", metric)


def _thin(points: Sequence[tuple[int, float]], size: int) -> Iterable[list[Any]]:
    """Yield the mean of every `size` points, at the step of the last of them."""
    for i in range(0, len(points), size):
        group = points[i : i + size]
        yield [group[-1][0], finite(sum(value for _, value in group) / len(group))]


def _curves_note(averaged: int) -> str:
    note = (
        "Point at a chart, or use its arrow keys, to read it. The dotted line is the evaluated checkpoint. train/ is "
        "the value of one step, on its batch and the scale of the loss; eval/ is the mean over the validation split, "
        "or a distance of the whole split: the two may have different scales."
    )
    return note + (f" Each point is the mean of up to {averaged} logged values." if averaged > 1 else "")


def _compared(columns: Sequence[str], results: Mapping[str, Any]) -> list[str]:
    """Return the two columns that the sliders compare at first."""
    forward = results.get("direction") == results.get("config", {}).get("data", {}).get("direction", "AtoB")
    unpaired = ["real A", "fake B"] if forward else ["real B", "fake A"]
    for pair in (["output", "target"], ["input", "output"], unpaired):
        if set(pair) <= set(columns):
            return pair
    return [*columns, *columns[-1:]][:2]


def _page(data: Mapping[str, Any], curves_note: str, num_shown: int) -> str:
    results = data["results"]
    lossy = sum(picture["uri"].startswith("data:image/jpeg") for picture in data["pictures"])
    pictures = (
        f"{lossy:,} of the {len(data['pictures']):,} pictures of this page are JPEG at quality {QUALITY}, the others "
        "are PNG, without loss; all metrics were computed before compression."
    )
    total, gallery_note = len(results["images"]), ""
    if num_shown < total:
        gallery_note = (
            f'<p class="notice">This file holds the pictures of {num_shown:,} of the {total:,} images: the best and '
            "the worst by every metric, and of the others an even sample. The metrics use all images.</p>"
        )
    return fill(
        "report.html",
        ["report.css"],
        ["report_curves.js", "report.js"],
        title=escape(f"{results.get('run')}, step {report_tables.text_of(results.get('step'))}: evaluation"),
        run=escape(str(results.get("run"))),
        identity=report_tables.identity(results),
        metrics=report_tables.metrics(results),
        curves_note=escape(curves_note),
        gallery_note=gallery_note,
        method=report_tables.method(results, pictures),
        config=escape(json.dumps(results.get("config", {}), indent=2, sort_keys=True, default=str)),
        data=_script_json(data),
    )


def _script_json(tree: Any) -> str:
    """Return JSON that is safe inside a script element: no text in it can end the element or open a comment."""
    return json.dumps(_plain(tree), separators=(",", ":"), allow_nan=False, default=str).replace("<", "\\u003c")


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    tree = tree.item() if isinstance(tree, np.generic) else tree
    return finite(tree) if isinstance(tree, float) else tree
