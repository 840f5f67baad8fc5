"""The table of finished runs: cells, the notes needed to read them, and Markdown."""

from collections.abc import Mapping
from typing import Any

from p2p_jax.evaluation.budgets import giga
from p2p_jax.evaluation.comparison_table import ARROWS, ON_CROPS, form_of, rows_as_markdown
from p2p_jax.evaluation.report_tables import better, known

_NOTHING = "\u2013"


def cells(told: Mapping[str, Any]) -> list[list[str]]:
    """Return the table as texts, starting with the header."""
    names = list(dict.fromkeys(name for row in told["runs"] for name in row["metrics"]))
    data = told["data"]["source"]
    titles = [f"{name}{ARROWS[_better(told, name)]}" for name in names]
    lines = [["", "objective", "data", "step", "GMAC", "M parameters", *titles, "best"]]
    for row in told["runs"]:
        spent = _NOTHING if row["multiply_adds"] is None else giga(row["multiply_adds"])
        step = f"{row['step']:,} of {row['num_steps']:,}"
        values = [_mean(row, name) for name in names]
        parameters = f"{row['parameters'] / 1e6:.3g}"
        lines.append([row["name"], row["objective"], data, step, spent, parameters, *values, _best(row)])
    return lines


def _better(told: Mapping[str, Any], name: str) -> str | None:
    for row in told["runs"]:
        if name in row["metrics"]:
            if name == row["best_metric"]:
                return "lower" if row["best_mode"] == "min" else "higher"
            return better(name, row["described"])
    return None


def _mean(row: Mapping[str, Any], name: str) -> str:
    value = row["metrics"].get(name, {}).get("mean")
    return _NOTHING if value is None else format(value, form_of(name))


def _best(row: Mapping[str, Any]) -> str:
    if row["best"] is None:
        return _NOTHING
    return f"{row['best_metric']} {row['best']['value']:{form_of(row['best_metric'])}} at {row['best']['step']:,}"


def notes(told: Mapping[str, Any]) -> list[str]:
    """Return the notes needed to read the table, a sentence or two each."""
    data, (height, width) = told["data"], told["size"]
    found = [
        f"{data['source']} {data['dir']}".strip() + f" at {width}x{height}: the means over the {data['num_images']:,} "
        f"images of {data['split']}, {data['seen']}, for the checkpoint of the given step. Nothing was trained for "
        "this table.",
        *([ON_CROPS] if "crop" in data["seen"] else []),
        "best: the best evaluation during training, from metrics.csv; it was selected on the same images, so it is too "
        "optimistic.",
        "GMAC: 1e9 multiply-adds of convolutions and matrix products, over all steps up to the checkpoint. Parameters "
        "are those of the translator.",
        "Each row is one run: a difference between two may be chance. Several seeds say more.",
    ]
    units = dict.fromkeys(
        f"{name}: {metric.meaning}"
        for row in told["runs"]
        for name in row["metrics"]
        if name.endswith("_units") and (metric := known(name)) is not None
    )
    found += units
    for row in told["runs"]:
        found += [f"{row['name']}: {doubt}" for doubt in row["doubts"]]
        if row["init_from"]:
            found.append(f"{row['name']} began with the weights of {row['init_from']}, whose cost is not in its GMAC.")
        if row["weights"] == "average":
            found.append(f"{row['name']}: the average of the weights over the steps.")
    return found


def markdown(told: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with what must be known to read it."""
    parts = ["# Comparison of runs", rows_as_markdown(cells(told)), "\n".join(f"- {note}" for note in notes(told))]
    first, *others = told["runs"]
    apart = [f"- {row['name']}: {_options(row, first['name'])}" for row in others]
    parts += [f"What sets them apart from {first['name']}:", "\n".join(apart)]
    return "\n\n".join(parts) + "\n"


def _options(row: Mapping[str, Any], first: str) -> str:
    theirs = row["differs_from"]
    told = [f"`{key}={value}` ({first}: `{theirs[key]}`)" for key, value in row["differs"].items()]
    return ", ".join(told) or "no option"
