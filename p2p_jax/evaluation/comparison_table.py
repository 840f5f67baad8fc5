"""The table of a comparison: results of each config over its seeds, as data, Markdown and CSV."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.data import spreadsheets
from p2p_jax.evaluation import seen
from p2p_jax.evaluation.budgets import GIGA, Plan, giga
from p2p_jax.evaluation.report_tables import better
from p2p_jax.evaluation.series import Outcome
from p2p_jax.objectives.metrics import IMAGE_METRICS, find_metrics
from p2p_jax.training import metrics_file

_FORMS = {metric.key: metric.form for metric in IMAGE_METRICS}
ARROWS = {"lower": " \u2193", "higher": " \u2191", None: ""}
"""Signs after the names of metrics that say which direction is better."""
ON_CROPS = "The verb evaluate takes whole images unless it is asked for crops, so its numbers differ from these."
"""Note on numbers of crops."""
_COST = ("steps", "GMAC a step", "GMAC a run", "seconds", "M parameters", "GMAC an image", "ms an image")


def report(
    plans: Sequence[Plan], seeds: Sequence[int], outcomes: Mapping[str, Outcome], *, equal: str, num_images: int
) -> dict[str, Any]:
    """Combine the outcomes of runs.

    Args:
      plans: the experiments, in order.
      seeds: the seeds of each experiment.
      outcomes: "NAME/seed_SEED" -> outcome of the run, with "results" if it is done.
      equal: what is equal for all experiments, see ``budgets.plan``.
      num_images: number of validation images.

    Returns:
      The content of ``table.json``. A mean is over the finished seeds with a finite value, ``count`` of them; ``std``
      is the sample standard deviation, None for a single value.
    """
    data = plans[0].config.data
    return {
        "data": {
            "source": data.source,
            "dir": data.dir,
            "split": data.val_split,
            "num_images": num_images,
            "seen": seen.in_validation(data),
        },
        "size": [data.crop_size, data.crop_width or data.crop_size],
        "equal": equal,
        "seeds": list(seeds),
        "configs": [_row(one, seeds, outcomes) for one in plans],
    }


def _row(one: Plan, seeds: Sequence[int], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    runs = {}
    for seed in seeds:
        outcome = outcomes[f"{one.name}/seed_{seed}"]
        results = outcome.get("results", {})
        told = {key: outcome[key] for key in ("state", "reason") if key in outcome}
        runs[seed] = told | {key: results[key] for key in ("seconds", "milliseconds", "device") if key in results}
        if results:
            runs[seed]["metrics"] = _metrics(one.config, results["evaluations"])
    done = {seed: run for seed, run in runs.items() if run["state"] == "done"}
    names = list(dict.fromkeys(name for run in done.values() for name in run["metrics"]))
    metrics = {
        name: {
            "better": _better(name, one.config),
            **{
                which: summary(run["metrics"][name][which] for run in done.values() if name in run["metrics"])
                for which in ("last", "best")
            },
        }
        for name in names
    }
    return {
        "name": one.name,
        "differs": dict(one.differs),
        "num_steps": one.config.num_steps,
        "evaluations": one.evaluations,
        "step_multiply_adds": one.cost.step,
        "multiply_adds": one.total,
        "image_multiply_adds": one.cost.image,
        "doubts": one.doubts,
        "trained_parameters": one.cost.trained,
        "parameters": one.cost.translator,
        "done": len(done),
        "seconds": summary(run["seconds"] for run in done.values()),
        "milliseconds": summary(run["milliseconds"] for run in done.values()),
        "metrics": metrics,
        "best_metric": one.config.best_metric,
        "runs": {str(seed): run for seed, run in runs.items()},
    }


def _metrics(config: ConfigDict, evaluations: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, dict[str, Any]]:
    """Return, for every metric, the value of the last checkpoint, and the best of all evaluations with its step."""
    found = {}
    for name, pairs in evaluations.items():
        last = {step: value for step, value in pairs if math.isfinite(value)}.get(config.num_steps)
        direction = _better(name, config)
        best = metrics_file.best(pairs, "min" if direction == "lower" else "max") if direction else None
        step, value = best or (None, None)
        found[name] = {"last": last, "best": value, "best_step": step}
    return found


def _better(name: str, config: ConfigDict) -> str | None:
    """Return "lower" or "higher", None if it is not known for a metric."""
    if name.startswith(("copy_kid", "copy_fid", "kid_std")):
        return None  # the same at every step, and a spread
    if name == config.best_metric:
        return "lower" if config.best_mode == "min" else "higher"
    described = {
        metric.key: {"meaning": metric.meaning, "lower_is_better": metric.lower_is_better}
        for metric in find_metrics(config.metrics)
    }
    return better(name.removeprefix("raw_"), described)  # for the generator itself, next to its average


def summary(values: Iterable[float | None]) -> dict[str, Any]:
    """Return mean, sample standard deviation (None for one value) and count of the known values."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "count": len(known),
    }


def columns(told: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    """Return name, "last" or "best", and direction of every metric in a table, in order."""
    found: dict[str, str | None] = {}
    for row in told["configs"]:
        for name, metric in row["metrics"].items():
            found[name] = found.get(name) or metric["better"]
    return [
        (name, which, direction)
        for name, direction in found.items()
        for which in (("last", "best") if direction else ("last",))
    ]


def cells(told: Mapping[str, Any]) -> list[list[str]]:
    """Return the table as texts, starting with the header."""
    shown = columns(told)
    titles = [f"{name}{ARROWS[direction]} {which}" for name, which, direction in shown]
    lines = [["", "seeds", *titles, *_COST]]
    for row in told["configs"]:
        seeds = f"{row['done']} of {len(told['seeds'])}" if row["done"] < len(told["seeds"]) else str(row["done"])
        lines.append([row["name"], seeds, *(_metric(row, name, which) for name, which, _ in shown), *_costs(row)])
    return lines


def _metric(row: Mapping[str, Any], name: str, which: str) -> str:
    found = row["metrics"].get(name, {}).get(which)
    text = spread(found, form_of(name))
    if found and 0 < found["count"] < row["done"]:
        text += f" ({found['count']} of {row['done']})"
    return text


def form_of(name: str) -> str:
    """Return the display name of a metric, such as "cycle_a"."""
    base = name
    while base not in _FORMS and "_" in base:
        base = base.rpartition("_")[0]
    return _FORMS.get(base, ".4g")


def _costs(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['num_steps']:,}",
        giga(row["step_multiply_adds"]),
        giga(row["multiply_adds"]),
        spread(row["seconds"], ",.0f"),
        f"{row['parameters'] / 1e6:.3g}",
        giga(row["image_multiply_adds"]),
        spread(row["milliseconds"], ".3g"),
    ]


def spread(found: Mapping[str, Any] | None, form: str) -> str:
    """Return a mean and its spread as text; a single value has no spread."""
    if not found or found["mean"] is None:
        return "\u2013"
    mean = format(found["mean"], form)
    return mean if found["std"] is None else f"{mean} \u00b1 {format(found['std'], form)}"


def notes(told: Mapping[str, Any]) -> list[str]:
    """Return the notes needed to read the table, a sentence or two each."""
    data, seeds = told["data"], len(told["seeds"])
    height, width = told["size"]
    known = {
        "gmac": "All train for as many multiply-adds as the first one, so their steps differ.",
        "steps": "All keep the steps of their configs, regardless of the cost of a step.",
    }
    found = [
        f"{data['source']} {data['dir']}".strip() + f" at {width}x{height}, validated on {data['num_images']:,} images "
        f"of {data['split']}, {data['seen']}. {known[told['equal']]}",
        *([ON_CROPS] if "crop" in data["seen"] else []),
        f"\u00b1 is the sample standard deviation over {seeds} seeds; it says nothing about other images."
        if seeds > 1
        else "One seed has no spread: a difference between two single runs may be chance.",
        "last: the last checkpoint. best: the best evaluation during training, for each metric by itself; it is "
        "selected on the same images, so it is too optimistic.",
        "GMAC are 1e9 multiply-adds of convolutions and matrix products. Seconds are those of the training, including "
        "compilation, validation and checkpoints. Parameters, GMAC and ms an image are those of a translation; "
        f"ms: one image at a time, the median{_devices(told)}.",
    ]
    for row in told["configs"]:
        found += [f"{row['name']}: {doubt}" for doubt in row["doubts"]]
        found += [
            f"{row['name']}, seed {seed}: {run['state']}" + (f"; {run['reason']}" if "reason" in run else "")
            for seed, run in row["runs"].items()
            if run["state"] != "done"
        ]
    return found


def _devices(told: Mapping[str, Any]) -> str:
    kinds = {run["device"] for row in told["configs"] for run in row["runs"].values() if "device" in run}
    return f", on {' and '.join(sorted(kinds))}" if kinds else ""


def markdown(told: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with the notes needed to read it."""
    table = rows_as_markdown(cells(told))
    told_of = [f"- {row['name']}: {_differences(row)}" for row in told["configs"][1:]]
    parts = ["# Comparison", table, "\n".join(f"- {note}" for note in notes(told))]
    if told_of:
        parts += [f"Differences from {told['configs'][0]['name']}:", "\n".join(told_of)]
    return "\n\n".join(parts) + "\n"


def rows_as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return a table; its first line is the header."""
    head, *rows = cells
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _differences(row: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in row["differs"].items()) or "nothing but the steps"


def csv_table(told: Mapping[str, Any]) -> str:
    """Return one row for every run."""
    names = [name for name, which, _ in columns(told) if which == "last"]
    head = ["config", "seed", "state", "steps", "gmac", "seconds", "milliseconds"]
    head += [f"{name}_{part}" for name in names for part in ("last", "best", "best_step")]
    rows = []
    for row in told["configs"]:
        for seed, run in row["runs"].items():
            found = {
                "config": row["name"],
                "seed": int(seed),
                "state": run["state"],
                "steps": row["num_steps"],
                "gmac": row["multiply_adds"] / GIGA,
            }
            for name in names:
                metric = run.get("metrics", {}).get(name, {})
                found |= {f"{name}_{part}": metric.get(part) for part in ("last", "best", "best_step")}
            rows.append({key: run.get(key) for key in head} | found)
    return spreadsheets.table(head, rows)
