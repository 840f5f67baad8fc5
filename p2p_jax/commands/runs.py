"""List the runs in a folder: what each trains, how far it is, and its latest validation.

    python -m p2p_jax runs [runs]

The newest comes last. A run is a folder with config.json in it, at any depth.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError
from p2p_jax.training import metrics_file


class Run(NamedTuple):
    """A line of the list.

    Attributes:
      name: its folder, as seen from the one that is listed.
      objective: without "p2p_jax:".
      source: of its data.
      step: of the last checkpoint; 0 before the first.
      num_steps: that it is to reach.
      validation: the metric by which the best checkpoint is kept, at its last evaluation; "" without one.
      changed: when metrics were written last, in seconds since 1970.
    """

    name: str
    objective: str
    source: str
    step: int
    num_steps: int
    validation: str
    changed: float


def find_runs(folder: Path) -> list[Run]:
    """Return the runs below a folder, the one that was trained last at the end.

    Raises:
      InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return sorted(_runs(folder), key=lambda run: run.changed)


def _runs(folder: Path) -> Iterator[Run]:
    for path in folder.rglob("config.json"):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            yield _describe(path.parent, config, str(path.parent.relative_to(folder)))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # another program's file
            continue


def _describe(run: Path, config: dict[str, Any], name: str) -> Run:
    for value, kind in ((config["objective"], str), (config["data"]["source"], str), (config["num_steps"], int)):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is not of a config")
    steps = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()]
    metrics = run / "metrics.csv"
    newest = metrics if metrics.exists() else run / "config.json"
    return Run(
        name=name,
        objective=config["objective"].removeprefix("p2p_jax:"),
        source=config["data"]["source"],
        step=max(steps, default=0),
        num_steps=config["num_steps"],
        validation=_latest(metrics, config["best_metric"]),
        changed=newest.stat().st_mtime,
    )


def _latest(metrics: Path, name: str) -> str:
    if not metrics.exists():
        return ""
    values = [row[f"eval/{name}"] for row in metrics_file.read(metrics).rows.values() if f"eval/{name}" in row]
    return f"{name} {float(values[-1]):.4g}" if values else ""


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("runs", __doc__, computes=False, opens_run=True)
    made.add_place("folder", required=False, type=Path, help="that holds the runs; runs by default")
    return made


def _shown(text: str) -> str:
    """Return text of a file without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _list(args: argparse.Namespace) -> None:
    folder = args.folder or Path("runs")
    found = find_runs(folder)
    if not found:
        print(f"there are no runs in {folder}")
        return
    rows: list[tuple[str, ...]] = [("run", "objective", "data", "step", "validation", "trained")]
    for run in found:
        trained = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
        steps = f"{run.step:,}/{run.num_steps:,}"
        texts = run.name, run.objective, run.source, steps, run.validation, trained
        rows.append(tuple(map(_shown, texts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_list, argv)
