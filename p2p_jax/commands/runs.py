"""List the runs in a folder: what each one trains, its progress, its latest and best validation.

    python -m p2p_jax runs [runs]

The newest run is the last. A run is a folder with config.json in it, at any depth; links are not followed. The step is
that of the last checkpoint. A terminal shows long names shortened; files and pipes get them whole.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError
from p2p_jax.reporting import printable
from p2p_jax.training import metrics_file

_OF_RUN = {"checkpoints", "samples", "tensorboard", "code", "evaluation"}  # folders in a run; they hold no other run
_WIDTH = 100  # columns that fit any terminal
_DAY = 24 * 3600


class Run(NamedTuple):
    """A line of the list.

    Attributes:
      name: its folder, relative to the listed one.
      objective: its objective, without "p2p_jax:".
      data: name of the data folder, or of the source if there is none.
      step: step of the last checkpoint; 0 before the first.
      num_steps: number of steps to train.
      metric: metric that selects the best checkpoint.
      latest: value of the metric at the last evaluation; None before the first.
      best: step and value of the best evaluation; None before the first.
      changed: time of the last write of metrics, in seconds since 1970.
      size: size of all its files in bytes.
      fault: why the run cannot be read; "" if it can.
    """

    name: str
    objective: str = ""
    data: str = ""
    step: int = 0
    num_steps: int = 0
    metric: str = ""
    latest: float | None = None
    best: tuple[int, float] | None = None
    changed: float = 0.0
    size: int = 0
    fault: str = ""


def find_runs(folder: Path) -> list[Run]:
    """Return the runs below a folder, in order of their last training, newest last.

    Raises:
      InputError: the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return sorted(_runs(folder), key=lambda run: run.changed)


def _runs(folder: Path) -> Iterator[Run]:
    for place, folders, files in os.walk(folder):
        run = Path(place)
        if "config.json" not in files:
            continue
        is_run = _looks_like_run(folders, files)
        if is_run:
            folders[:] = [name for name in folders if name not in _OF_RUN]
        name = str(run.relative_to(folder)) if run != folder else run.resolve().name
        try:
            yield _describe(run, name)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if is_run:  # otherwise it is another program's file
                yield Run(name, changed=_changed(run), size=_size(run), fault=_fault(error))


def _looks_like_run(folders: Sequence[str], files: Sequence[str]) -> bool:
    return "checkpoints" in folders or not {"facts.json", "metrics.csv"}.isdisjoint(files)


def _fault(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return "damaged: config.json is not a config" + (f" ({error.strerror})" if isinstance(error, OSError) else "")


def _describe(run: Path, name: str) -> Run:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    data = config["data"]
    texts = config["objective"], data["source"], data.get("dir", ""), config["best_metric"], config["best_mode"]
    if not all(isinstance(text, str) for text in texts) or type(config["num_steps"]) is not int:
        raise TypeError("types that a config does not have")
    evaluated = _evaluated(run / "metrics.csv", config["best_metric"])
    return Run(
        name=name,
        objective=config["objective"].removeprefix("p2p_jax:"),
        data=Path(data.get("dir", "")).name or data["source"].rpartition("/")[2],
        step=max((int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()), default=0),
        num_steps=config["num_steps"],
        metric=config["best_metric"],
        latest=evaluated[-1][1] if evaluated else None,
        best=metrics_file.best(evaluated, config["best_mode"]),
        changed=_changed(run),
        size=_size(run),
    )


def _evaluated(metrics: Path, name: str) -> list[tuple[int, float]]:
    return metrics_file.evaluations(metrics).get(name, []) if metrics.exists() else []


def _changed(run: Path) -> float:
    for file in (run / "metrics.csv", run / "config.json"):
        if file.exists():
            return file.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; files that vanish or may not be read count as 0."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += _size(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass
    return total


def table(runs: Sequence[Run], width: int | None, now: float) -> list[str]:
    """Return the lines of the list, starting with the header.

    Args:
      runs: the runs, in order.
      width: columns that the lines may take; longer names are shortened as far as possible. None: no limit.
      now: current time in seconds since 1970.
    """
    head = ["run", "objective", "data", "step", "latest", "best", "changed", "size"]
    rows = [head, *([printable(text) for text in _cells(run, now)] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for i in (2, 1, 0):  # the name last: other commands take it
        excess = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
        widths[i] -= min(max(excess, 0), max(widths[i] - 12, 0))
    lines = ["  ".join(_short(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)) for row in rows]
    faults = [f"{printable(run.name)}: {printable(run.fault)}" for run in runs if run.fault]
    return [*(line.rstrip() for line in lines), *faults]


def _cells(run: Run, now: float) -> list[str]:
    if run.fault:
        return [run.name, "damaged", "", "", "", "", _ago(now - run.changed, run.changed), _bytes(run.size)]
    latest = "" if run.latest is None else f"{run.metric} {_value(run.latest)}"
    best = "" if run.best is None else f"{_value(run.best[1])} at {_steps(run.best[0])}"
    step = f"{_steps(run.step)}/{_steps(run.num_steps)}"
    return [
        run.name,
        run.objective,
        run.data,
        step,
        latest,
        best,
        _ago(now - run.changed, run.changed),
        _bytes(run.size),
    ]


def _value(value: float) -> str:
    return f"{value:.4f}" if 0.001 <= abs(value) < 1 else f"{value:.4g}"


def _steps(count: int) -> str:
    """Return a number of steps as text, in thousands from ten thousand on."""
    return f"{count:,}" if count < 10_000 else f"{count / 1000:.4g}k"


def _ago(seconds: float, moment: float) -> str:
    """Return how long ago something was; after thirty days, the date."""
    for unit, length in (("d", _DAY), ("h", 3600), ("min", 60)):
        if seconds >= 30 * _DAY:
            return time.strftime("%Y-%m-%d", time.localtime(moment))
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _short(text: str, width: int) -> str:
    """Return a text with its middle cut out if it is too long."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}\u2026{text[-end:]}"


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("runs", __doc__, computes=False, opens_run=True)
    made.add_place("folder", required=False, type=Path, help="folder of the runs; runs by default")
    return made


def _list(args: argparse.Namespace) -> None:
    folder = args.folder or Path("runs")
    found = find_runs(folder)
    if not found:
        print(f"there are no runs in {folder}")
        return
    width = max(shutil.get_terminal_size().columns, _WIDTH) if sys.stdout.isatty() else None
    print("\n".join(table(found, width, time.time())))


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_list, argv)
