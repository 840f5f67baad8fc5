"""Compares experiments: trained at equal cost with several seeds, measured on the same images."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import complete_experiment
from p2p_jax.config.stored import Trust, outside, trusted
from p2p_jax.data import load_split
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.evaluation import budgets, comparison_page, series
from p2p_jax.evaluation.comparison_table import csv_table, markdown, report
from p2p_jax.evaluation.gallery import data_uri
from p2p_jax.evaluation.predictions import translations
from p2p_jax.evaluation.scoring import shown
from p2p_jax.inference import Translator
from p2p_jax.reporting import say
from p2p_jax.storage.writing import write_text
from p2p_jax.training import metrics_file
from p2p_jax.training.checkpoint import find_step, read_config
from p2p_jax.training.loop import train
from p2p_jax.training.soundness import saved_steps
from p2p_jax.training.start import check_measures
from p2p_jax.training.stopping import stop_requests

_RESULTS, _SESSIONS = "compare.json", "sessions.json"  # in the directory of a run
_REPEATS, _PATIENCE = 20, 5.0  # timed translations: 20, or fewer if 5 seconds are over, but at least 3


def compare(
    configs: Mapping[str, ConfigDict],
    output: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    equal: str = "gmac",
    gmac: float | None = None,
    num_images: int = 12,
    trust: Trust = (),
) -> dict[str, Any]:
    """Train experiments at equal cost, each with several seeds, and compare their results.

    The runs are ordinary runs in ``output/NAME/seed_SEED``. ``table.md``, ``table.json``, ``runs.csv`` and
    ``comparison.html`` are updated after each one. Call it again to resume: finished runs are neither trained nor
    translated again.

    Args:
      configs: name -> config, complete or not; with equal data set, split and size. ``num_steps`` of the first one sets
        the cost of all.
      output: folder for the runs, tables and the page; made if missing.
      seeds: seeds to train each config with, instead of its own.
      equal: "gmac": all train for as many multiply-adds as the first one, and a learning rate of unit "auto" fits the
        steps of each; "steps": every config keeps its ``num_steps``.
      gmac: multiply-adds of one training in 1e9, instead of those of the first config.
      num_images: largest number of validation images on the page, spread evenly over the split.
      trust: code outside the library that the config of the run in ``config.init_from`` may name.

    Returns:
      The content of ``table.json``. A run's ``state`` is "done", "diverged", "stopped" (by SIGTERM or Ctrl-C; the runs
      after it are not started) or "to do".

    Raises:
      InputError: the configs cannot be compared, one is not valid, or `output` holds runs of another config; raised
        before training starts.
    """
    output, names = Path(output), frozenset([trust] if isinstance(trust, str) else trust)
    trusted(names)  # refuses another form
    seeds = _checked(seeds)
    if num_images < 1:
        raise InputError(f"num_images={num_images}: must be at least 1")
    if not configs:
        raise InputError("there is nothing to compare: name a config")
    completed = {name: complete_experiment(config) for name, config in configs.items()}
    first = next(iter(completed.values()))
    if not (split := first.data.val_split):
        raise InputError("config.data.val_split is empty: a comparison needs validation images")
    opened = load_split(first, split)
    chosen = evenly(range(len(opened.names[0])), num_images)
    plans = budgets.plan(completed, equal, gmac)
    counts = len(opened.names[0]), len(opened.names[-1])
    for one in plans:
        try:
            check_measures(one.config, counts)
        except InputError as error:
            raise InputError(f"{one.name}: {error}") from error
    runs = {f"{one.name}/seed_{seed}": series.changed(one.config, {"seed": seed}) for seed in seeds for one in plans}
    for name, config in runs.items():
        _refuse_other_run(output / name, config)
    say(budgets.describe(plans, len(seeds)))

    outcomes: dict[str, series.Outcome] = {name: {"state": "to do"} for name in runs}
    told: dict[str, Any] = {}

    def do(name: str) -> series.Outcome:
        trusting = {"trust": own} if (own := names.union(*outside(runs[name]).values())) else {}
        return _run(runs[name], output / name, chosen, trusting)

    def tell(name: str, outcome: series.Outcome) -> None:
        outcomes[name] = outcome
        told.update(report(plans, seeds, outcomes, equal=equal, num_images=max(map(len, opened.names))))
        texts = [json.dumps(told, indent=2, default=str) + "\n", markdown(told), csv_table(told)]
        for file, text in zip(budgets.FILES, texts, strict=False):
            write_text(output / file, text)
        pictures = {run: found["results"]["pictures"] for run, found in outcomes.items() if "results" in found}
        comparison_page.write(output / budgets.FILES[-1], told, pictures)

    series.work_off(output, list(runs), do, tell)
    return told


def _checked(seeds: Sequence[int]) -> list[int]:
    found = list(seeds)
    if not found or len(set(found)) < len(found) or any(type(seed) is not int or seed < 0 for seed in found):
        raise InputError(f"seeds={','.join(map(str, found))}: give different whole numbers from 0 on")
    return found


def _refuse_other_run(workdir: Path, config: ConfigDict) -> None:
    """Check that a run may be resumed with this config, and is not past its end."""
    series.refuse_other_run(workdir, config)
    if (steps := saved_steps(workdir)) and steps[-1] > config.num_steps:
        raise InputError(
            f"{workdir} has trained for {steps[-1]:,} steps, but is now to train for {config.num_steps:,}: give the "
            "same steps as before, or a new `output`"
        )


def _run(config: ConfigDict, workdir: Path, chosen: Sequence[int], trusting: Mapping[str, Any]) -> series.Outcome:
    """Finish a run and measure it; finished work is not repeated."""
    steps = saved_steps(workdir)
    if not steps or steps[-1] < config.num_steps:
        with _timed(workdir):
            outcome = series.bring_to_its_end(train, config, workdir, **trusting)
        if outcome["state"] != "trained":
            return outcome
    stored, path = read_config(workdir, **trusting), workdir / _RESULTS
    assert stored is not None
    identity = {"step": find_step(workdir, stored, "latest"), "config": stored.to_dict(), "images": list(chosen)}
    identity = json.loads(json.dumps(identity, default=str))
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):  # damaged: compute it again
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["identity"] == identity:
            say(f"{workdir} is done")
            return {"state": "done", "results": found}
    with stop_requests() as stop:
        stop.saves = False  # Ctrl-C ends it at once
        results = {"identity": identity, **_measured(workdir, chosen, trusting)}
        write_text(path, json.dumps(results, indent=1) + "\n")
        if stop.is_set():
            return {"state": "stopped", "reason": "stopped after its training and measurement", "results": results}
    return {"state": "done", "results": results}


def _measured(workdir: Path, chosen: Sequence[int], trusting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a finished run for the table and the page."""
    translator = Translator.from_workdir(workdir, batch_size=1, **trusting)
    config = translator.config
    say(f"{workdir}: translating {len(chosen)} images of {config.data.val_split}")
    pictures = []
    for prediction in translations(translator, load_split(config, config.data.val_split), chosen):
        columns = shown(translator, prediction)
        pictures.append({"name": prediction.name} | {name: data_uri(image) for name, image in columns.items()})
    return {
        "seconds": _seconds(workdir),
        "milliseconds": _milliseconds(translator, prediction.input),
        "device": jax.devices()[0].device_kind,
        "evaluations": metrics_file.evaluations(workdir / "metrics.csv"),
        "pictures": pictures,
    }


def _milliseconds(translator: Translator, image: np.ndarray) -> float:
    """Return the time of one image in a batch of 1, from host memory and back: the median, after compiling."""
    times, until = list[float](), time.monotonic() + _PATIENCE
    while len(times) < 3 or (len(times) < _REPEATS and time.monotonic() < until):
        start = time.perf_counter()
        translator(image[None], normalized=True)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


@contextlib.contextmanager
def _timed(workdir: Path) -> Iterator[None]:
    """Record start and end of a training, in the run's directory; a killed one ends with its last metrics."""
    path, sessions = workdir / _SESSIONS, _sessions(workdir)
    sessions.append([time.time(), None])
    write_text(path, json.dumps(sessions) + "\n")
    try:
        yield
    finally:
        sessions[-1][1] = time.time()
        write_text(path, json.dumps(sessions) + "\n")


def _sessions(workdir: Path) -> list[list[float | None]]:
    """Return start and end of every session of a training, in seconds since 1970."""
    found: list[list[float | None]] = []
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        found = [[float(begun), None if end is None else float(end)] for begun, end in _read(workdir)]
    if found and found[-1][1] is None:
        begun, metrics = found[-1][0], workdir / "metrics.csv"
        found[-1][1] = max(begun or 0.0, metrics.stat().st_mtime if metrics.exists() else 0.0)
    return found


def _read(workdir: Path) -> Any:
    return json.loads((workdir / _SESSIONS).read_text(encoding="utf-8"))


def _seconds(workdir: Path) -> float | None:
    """Return the duration of a training over all its sessions; None if unknown."""
    return sum((end or 0.0) - (begun or 0.0) for begun, end in _sessions(workdir)) or None
