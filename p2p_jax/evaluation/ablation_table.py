"""The ablation tables of the pix2pix paper: their rows, the published numbers, and ours next to them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from p2p_jax.evaluation.set_metrics import number, of_title
from p2p_jax.objectives.metrics import IMAGE_METRICS

TABLES = ("losses", "generators", "patches")
"""Tables 1, 2 and 3 of Isola et al. 2017."""

Score = tuple[float, float, float]  # pixel accuracy, class accuracy, class IoU


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      label: its name in the paper.
      run: the folder of its run; rows of several tables that are the same experiment share it.
      changes: option -> value, the differences from the whole method.
      paper: the published FCN score on Cityscapes, labels to photographs.
      paper_labels: the published score of photographs to labels, if there is one.
    """

    label: str
    run: str
    changes: dict[str, Any]
    paper: Score
    paper_labels: Score | None = None


_L1 = {"loss.lambda_gan": 0.0}
_GAN = {"loss.lambda_l1": 0.0, "loss.conditional": False}
_CGAN = {"loss.lambda_l1": 0.0}
_L1_GAN = {"loss.conditional": False}
_NO_SKIPS = {"generator.skips": False}
_PATCHES = {1: (0.39, 0.15, 0.10), 16: (0.65, 0.21, 0.17), 70: (0.66, 0.23, 0.17), 286: (0.42, 0.16, 0.11)}

_REAL: Score = (0.80, 0.26, 0.21)  # real photographs at 256x256
_TITLES = {
    "losses": ("Table 1: losses", ""),
    "generators": ("Table 2: generators", "The paper trained these with batches of 10."),
    "patches": ("Table 3: patch sizes of the discriminator", ""),
}
_TO_PHOTOS, _TO_LABELS = "labels to photographs", "photographs to labels"
_SCORE = ("pixel_accuracy", "class_accuracy", "class_iou")
_IMAGE_METRICS = {metric.key: metric for metric in IMAGE_METRICS if metric.compare}


def rows(table: str, config: ConfigDict) -> list[Row]:
    """Return the rows of a table.

    Args:
      table: one of ``TABLES``.
      config: complete config of the whole method (U-Net, L1+cGAN); all rows use its patch, except in Table 3.
    """
    if table == "losses":
        return [
            Row("L1", "L1", _L1, (0.42, 0.15, 0.11), (0.86, 0.42, 0.35)),
            Row("GAN", "GAN", _GAN, (0.22, 0.05, 0.01)),
            Row("cGAN", "cGAN", _CGAN, (0.57, 0.22, 0.16), (0.74, 0.28, 0.22)),
            Row("L1+GAN", "L1+GAN", _L1_GAN, (0.64, 0.20, 0.15)),
            Row("L1+cGAN", "L1+cGAN", {}, (0.66, 0.23, 0.17), (0.83, 0.36, 0.29)),
        ]
    if table == "generators":
        return [
            Row("encoder-decoder (L1)", "encoder-decoder-L1", _NO_SKIPS | _L1, (0.35, 0.12, 0.08)),
            Row("encoder-decoder (L1+cGAN)", "encoder-decoder-L1+cGAN", _NO_SKIPS, (0.29, 0.09, 0.05)),
            Row("U-Net (L1)", "L1", _L1, (0.48, 0.18, 0.13)),
            Row("U-Net (L1+cGAN)", "L1+cGAN", {}, (0.55, 0.20, 0.14)),
        ]
    own = config.discriminator.get("receptive_field", 70)
    return [
        Row(
            f"{side}x{side}",
            "L1+cGAN" if side == own else f"L1+cGAN-patch{side}",
            {} if side == own else {"discriminator.receptive_field": side},
            paper,
        )
        for side, paper in _PATCHES.items()
    ]


def report(
    config: ConfigDict,
    asked: Mapping[str, Any],
    grid: Mapping[str, Sequence[Row]],
    outcomes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Combine the outcomes of runs with the paper's numbers.

    Args:
      config: the whole method.
      asked: what the rows are scored on, see ``evaluate``.
      grid: table -> its rows.
      outcomes: run -> ``{"state"}``, with ``"reason"`` or, for "scored", ``"results"``.

    Returns:
      The content of ``table.json``.
    """
    tables = []
    for name, table in grid.items():
        told: list[dict[str, Any]] = []
        for row in table:
            outcome = outcomes[row.run]
            results = {k: v for k, v in outcome.get("results", {}).items() if k != "identity"}
            paper = {_TO_PHOTOS: _named(row.paper), _TO_LABELS: _named(row.paper_labels)}
            state = {key: outcome.get(key) for key in ("state", "reason")}
            told.append(
                {"label": row.label, "run": row.run, "changes": row.changes, **state, **results, "paper": paper}
            )
        tables.append({"name": name, "title": _TITLES[name][0], "note": _TITLES[name][1], "rows": told})
    return {
        "asked": dict(asked),
        "config": config.to_dict(),
        "paper, real photographs": _named(_REAL),
        "tables": tables,
    }


def _named(score: Score | None) -> dict[str, float] | None:
    return None if score is None else dict(zip(_SCORE, score, strict=True))


def markdown(report: Mapping[str, Any]) -> str:
    """Return the tables of a report as Markdown."""
    config, asked = report["config"], report["asked"]
    task = _task(report)
    parts = [
        "# Ablation of pix2pix",
        f"{config['data']['source']} at {config['data']['crop_size']}x{config['data']['crop_size']}, "
        f"{config['num_steps']:,} steps in batches of {config['batch_size']}, seed {config['seed']}, "
        f"scored on the split {asked['split']}. FCN scores and scores of labels are pixel accuracy / class accuracy / "
        "class IoU, histogram intersections L / a / b.",
        f"The last column is the paper's (Isola et al. 2017): Cityscapes, {task}, "
        + ("other segmenter: " if task == _TO_PHOTOS else "")
        + "not comparable in absolute terms, compare the order.",
    ]
    for table in report["tables"]:
        parts += [f"## {table['title']}", _markdown_table(report, table["rows"], task)]
        parts += [table["note"]] if table["note"] else []
        reasons = [f"- {row['label']}: {row['state']}; {row['reason']}" for row in table["rows"] if row["reason"]]
        parts += ["\n".join(reasons)] if reasons else []
    return "\n\n".join(parts) + "\n"


def _task(report: Mapping[str, Any]) -> str:
    """Return the task of the published numbers to compare with: the one scored, or labels to photographs."""
    sets = {name for table in report["tables"] for row in table["rows"] for name in row.get("set_metrics", ())}
    keys = {metric.key for metric in map(of_title, sets) if metric}
    return _TO_LABELS if "labels" in keys and "fcn" not in keys else _TO_PHOTOS


def _markdown_table(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], task: str) -> str:
    scored = [row for row in rows if row["state"] == "scored"]
    sets = list(dict.fromkeys(name for row in scored for name in row["set_metrics"]))
    of_images = list(dict.fromkeys(name for row in scored for name in row["metrics"])) or list(_IMAGE_METRICS)
    titles = [_IMAGE_METRICS[name].title if name in _IMAGE_METRICS else name for name in of_images]
    lines = [["", "images", "steps", *titles, *sets, "paper, FCN score" if task == _TO_PHOTOS else "paper"]]
    for row in rows:
        if row["state"] == "scored":
            means = [_mean(name, row["metrics"].get(name)) for name in of_images]
            own = [str(row["num_images"]), f"{row['step']:,}", *means]
            own += [cell_text(name, row["set_metrics"][name]) for name in sets]
        else:
            own = [row["state"], *["–"] * (len(lines[0]) - 3)]
        lines.append([row["label"], *own, _published(row["paper"][task])])
    if task == _TO_PHOTOS:
        real = [_published(scored[0]["set_metrics"][name].get("real photographs")) for name in sets]
        dashes = ["–"] * (2 + len(of_images))
        lines.append(["real photographs", *dashes, *real, _published(report["paper, real photographs"])])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell_text(name: str, found: Mapping[str, Any]) -> str:
    """Return the numbers of results as one cell of a table."""
    metric = of_title(name)
    if metric is not None and metric.cell is not None:
        return metric.cell(found)
    numbers = [value for key, value in found.items() if key != "count" and isinstance(value, int | float)]
    return " / ".join(number(value, ".4g") for value in numbers)


def _mean(name: str, found: Mapping[str, Any] | None) -> str:
    form = _IMAGE_METRICS[name].form if name in _IMAGE_METRICS else ".4g"
    return "–" if found is None else number(found["mean"], form)


def _published(score: Mapping[str, Any] | None) -> str:
    """Return a score of the paper, or of real photographs, as text."""
    return "–" if score is None else " / ".join(number(score[name], ".2f") for name in _SCORE if name in score)
