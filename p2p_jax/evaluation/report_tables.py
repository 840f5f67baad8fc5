"""The text parts of the report: the evaluated run, the metrics, and how they were computed."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.evaluation.set_metrics import SET_METRICS
from p2p_jax.objectives.metrics import IMAGE_METRICS

_BINS = 24
_IN_UNITS = {metric.key for metric in IMAGE_METRICS if metric.in_units}
_OF_CHANNEL = re.compile(r"(\w+_units)_(\d+)")


class Known(NamedTuple):
    """Facts about a metric: one sentence with the range, and which direction is better (None: not stated)."""

    meaning: str
    lower_is_better: bool | None


def known(name: str, described: Mapping[str, Mapping[str, Any]] | None = None) -> Known | None:
    """Return the facts about a metric by its name, such as "cycle_a"; None if it is unknown.

    Args:
      name: name in the results.
      described: descriptions in the results; otherwise the tables of metrics are used.
    """
    entries = _of_tables() | {
        key: Known(entry["meaning"], entry.get("lower_is_better")) for key, entry in (described or {}).items()
    }
    base = name.partition(" [")[0]
    while base not in entries and "_" in base:
        base = base.rpartition("_")[0]
    return entries.get(base)


def _of_tables() -> dict[str, Known]:
    entries = {metric.key: Known(metric.meaning, metric.lower_is_better) for metric in IMAGE_METRICS}
    for metric in SET_METRICS:
        entries[metric.title] = Known(metric.meaning, metric.lower_is_better)
        entries |= {part: Known(*what) for part, what in metric.parts.items()}
    return entries


def better(name: str, described: Mapping[str, Mapping[str, Any]] | None = None) -> str | None:
    """Return "lower" or "higher", whichever is better, or None if unknown."""
    metric = known(name, described)
    if metric is None or metric.lower_is_better is None:
        return None
    return "lower" if metric.lower_is_better else "higher"


def text_of(value: Any) -> str:
    """Return a value as readable text; "n/a" if it is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:#.4g}".removesuffix(".")
    return str(value)


def identity(results: Mapping[str, Any]) -> str:
    """Return the list of facts about the evaluation, as HTML; missing ones are left out."""
    config = results.get("config", {})
    source = config.get("data", {}).get("source", "")
    paired = {"True": "with targets", "False": "without targets"}.get(str(results.get("paired")), "")
    dropout = {"True": "on", "False": "off"}.get(str(results.get("dropout")))
    created = str(results.get("created") or "").replace("T", " ").replace("+00:00", " UTC")
    norm = {"batch": "statistics of the translated image itself", "running": "running statistics of training"}
    weights = {"average": "the average of the generators over the steps", "raw": ""}
    facts = [
        ("Checkpoint", f"step {text_of(results.get('step'))}", results.get("checkpoint", "")),
        ("Checkpoint id", results.get("checkpoint_id"), ""),
        ("Weights", results.get("weights"), weights.get(str(results.get("weights")), "as they were after the step")),
        ("Direction", results.get("direction"), ""),
        (
            "Data",
            f"{text_of(results.get('num_images'))} images of {results.get('split')}",
            ", ".join(filter(None, (source, paired))),
        ),
        ("Normalisation", results.get("norm"), norm.get(str(results.get("norm")), "")),
        ("Dropout", dropout, ""),
        ("Objective", config.get("objective"), ""),
        ("Parameters", f"{count:,}" if (count := results.get("num_parameters")) else None, ""),
        ("Computed", created, ", ".join(f"{k} {v}" for k, v in results.get("versions", {}).items())),
    ]
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}{_small(note)}</dd></div>"
        for name, value, note in facts
        if value
    )
    return f'<dl class="identity">{"".join(cells)}</dl>'


def metrics(results: Mapping[str, Any]) -> str:
    """Return a card for every per-image metric and a table for every set metric, as HTML.

    Metrics of single channels share a table.
    """
    cards = [
        _card(name, summary, [row.get(name) for row in results["images"]], better(name, results.get("described")))
        for name, summary in results.get("metrics", {}).items()
        if not is_of_channel(name)
    ]
    articles = [f"<article><h3>{escape(k)}</h3>{_tables(v)}</article>" for k, v in _sets(results)]
    if channels := _of_channels(results.get("metrics", {})):
        articles.insert(0, f"<article><h3>By channel, in units</h3>{_table(channels)}</article>")
    if not cards and not articles:
        return "<p>No metric was asked for.</p>"
    html = f'<div class="metrics">{"".join(cards)}</div>' if cards else ""
    return html + (f'<div class="sets">{"".join(articles)}</div>' if articles else "")


def is_of_channel(name: str) -> bool:
    """Return whether a metric is for one channel, such as "mae_units_1"."""
    return _OF_CHANNEL.fullmatch(name) is not None


def _of_channels(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the means of the metrics of single channels: metric -> channel -> mean."""
    found: dict[str, dict[str, Any]] = {}
    for name, summary in summaries.items():
        if match := _OF_CHANNEL.fullmatch(name):
            found.setdefault(match[1], {})[f"channel {match[2]}"] = summary.get("mean")
    return found


def method(results: Mapping[str, Any], pictures: str) -> str:
    """Return one line on each computation, as HTML.

    Args:
      results: results of the evaluation.
      pictures: how the page's pictures were made from the images.
    """
    count, split = text_of(results.get("num_images")), results.get("split")
    seen = results.get("seen", "at the size that the network sees")
    lines = [("Images", f"All {count} images of the split {split}: {seen}.")]
    if results.get("units"):
        lines.append(("Units", results["units"]))
    if results.get("metrics"):
        lines.append(
            (
                "Mean",
                "Of the values of the images; after \u00b1 their standard deviation, not an error of the mean.",
            )
        )
    names = [name for name in results.get("metrics", {}) if not is_of_channel(name)]
    for name, found in _sets(results):
        names += [name, *(key for key, value in found.items() if not isinstance(value, Mapping | str))]
    told: dict[Known, list[str]] = {}
    for name in names:
        metric = known(name, results.get("described"))
        if metric is not None and metric.meaning:
            told.setdefault(metric, []).append(name)
    lines += [(", ".join(dict.fromkeys(names)), metric.meaning) for metric, names in told.items()]
    lines.append(("Pictures", pictures))
    return '<dl class="method">' + "".join(f"<dt>{escape(a)}</dt><dd>{escape(str(b))}</dd>" for a, b in lines) + "</dl>"


def _sets(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the set metrics; a bare number counts as ``{"value": number}``."""
    found = results.get("set_metrics", {}).items()
    return [(name, value if isinstance(value, Mapping) else {"value": value}) for name, value in found]


def _small(text: Any) -> str:
    return f"<small>{escape(str(text))}</small>" if text else ""


def _card(name: str, summary: Mapping[str, Any], values: Sequence[Any], better: str | None) -> str:
    """Return the card of a metric; one in units has an explanation, because no paper uses it."""
    finite = np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)
    note = {"lower": "lower is better", "higher": "higher is better", None: ""}[better]
    html = (
        f'<article class="metric"><h3>{escape(name)}<span class="better">{note}</span></h3>'
        f'<p class="mean">{text_of(summary.get("mean"))} <small>&plusmn; {text_of(summary.get("std"))} between '
        f"the {text_of(summary.get('count'))} images{_left_out(summary)}</small></p>"
    )
    if len(finite):
        low, middle, high = (text_of(float(v)) for v in np.percentile(finite, (0, 50, 100)))
        label = f"Distribution over images from {low} to {high}, median {middle}"
        html += _histogram(finite, label) + f'<p class="ends"><span>{low}</span><span>median {middle}</span>'
        html += f"<span>{high}</span></p>"
    metric = known(name) if name in _IN_UNITS else None
    return html + (f'<p class="meaning">{escape(metric.meaning)}</p>' if metric else "") + "</article>"


def _left_out(summary: Mapping[str, Any]) -> str:
    kinds = [kind for kind in ("infinite", "unknown") if summary.get(kind)]
    return "".join(f", {summary[kind]} {kind} and not in the mean" for kind in kinds)


def _histogram(values: np.ndarray, label: str) -> str:
    low, high = values.min(), values.max()
    span = (low, high) if high - low > 1e-12 * max(abs(low), abs(high)) else (low - 0.5, low + 0.5)
    counts, _ = np.histogram(values, bins=_BINS, range=span)
    heights = counts / counts.max() * 40
    bars = "".join(
        f'<rect x="{i * 10 + 1}" y="{40 - h:.1f}" width="8" height="{h:.1f}"/>' for i, h in enumerate(heights) if h
    )
    size = f'viewBox="0 0 {_BINS * 10} 40" preserveAspectRatio="none"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{bars}</svg>'


def _tables(found: Mapping[str, Any]) -> str:
    """Return numbers as a table: mappings with equal names side by side, all others folded, text below."""
    numbers = {k: v for k, v in found.items() if not isinstance(v, Mapping | str)}
    columns: dict[str, Mapping[str, Any]] = {"": numbers}
    others: dict[str, Any] = {}
    notes = [v for v in found.values() if isinstance(v, str)]
    for name, value in found.items():
        if isinstance(value, Mapping):
            inner = {k: v for k, v in value.items() if not isinstance(v, Mapping | str)}
            if inner.keys() & numbers.keys():
                columns[name] = inner
                others |= {f"{name}: {k}": v for k, v in value.items() if isinstance(v, Mapping)}
                notes += [f"{name}: {v}" for v in value.values() if isinstance(v, str)]
            else:
                others[name] = value
    html = _table(columns) if numbers else ""
    html += "".join(f"<p>{escape(note)}</p>" for note in notes)
    groups: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for name, value in others.items():
        groups.setdefault(tuple(value), {})[name] = value
    for group in groups.values():
        summary = ", ".join(group)
        if all("per_class" in name for name in group):
            group, summary = {re.sub("_?per_class_?", "", name): v for name, v in group.items()}, "Per class"
        nested = any(isinstance(v, Mapping) for value in group.values() for v in value.values())
        inside = "".join(f"<h3>{escape(k)}</h3>{_tables(v)}" for k, v in group.items()) if nested else _table(group)
        html += f"<details><summary>{escape(summary)}</summary>{inside}</details>"
    return html


def _table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with a row for every name that occurs in a column."""
    head = ""
    if len(columns) > 1:
        titles = "".join(f'<th scope="col">{_breakable(name or "generated")}</th>' for name in columns)
        head = f"<thead><tr><th></th>{titles}</tr></thead>"
    body = "".join(
        f'<tr><th scope="row">{_breakable(name)}</th>'
        + "".join(f"<td>{escape(text_of(c[name])) if name in c else ''}</td>" for c in columns.values())
        + "</tr>"
        for name in _union(columns.values())
    )
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _breakable(name: str) -> str:
    return escape(name).replace("_", "_<wbr>")


def _union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
