"""Experiments side by side: trained at equal cost with several seeds, measured on the same images, and told."""

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
_REPEATS, _PATIENCE = 20, 5.0  # translations that are timed: so many, but at least 3, for so many seconds


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
    """Train experiments at equal cost, each with several seeds, and put what they came to side by side.

    Every run is an ordinary one in ``output/NAME/seed_SEED``. ``table.md``, ``table.json``, ``runs.csv`` and
    ``comparison.html`` are brought up to date after each. Called again it goes on where it stopped: what is finished is
    neither trained nor translated again.

    Args:
      configs: name -> config, complete or not; of one data set, split and size. The first one's ``num_steps`` say how
        much all may cost.
      output: folder of the runs and of what tells of them; made if missing.
      seeds: that each config is trained with, in place of its own.
      equal: "gmac": all train for as many multiply-adds as the first one, the learning rate of unit "auto" fits the
        steps of each; "steps": every config keeps its ``num_steps``.
      gmac: multiply-adds of one training in 1e9, in place of those of the first config.
      num_images: validation images that the page shows at most, evenly over the split.
      trust: code outside the library that the config of a run may name that a ``config.init_from`` names.

    Returns:
      What ``table.json`` holds. A run's ``state`` is "done", "diverged", "stopped" (by SIGTERM or Ctrl-C; no other run
      was begun after it) or "to do".

    Raises:
      InputError: the configs cannot be compared or one cannot be made, or `output` holds runs of another config; raised
        before training starts.
    """
    output, names = Path(output), frozenset([trust] if isinstance(trust, str) else trust)
    trusted(names)  # refuses another form
    seeds = _checked(seeds)
    if num_images < 1:
        raise InputError(f"num_images={num_images}: show at least one")
    if not configs:
        raise InputError("there is nothing to compare: name a config")
    completed = {name: complete_experiment(config) for name, config in configs.items()}
    first = next(iter(completed.values()))
    if not (split := first.data.val_split):
        raise InputError("config.data.val_split is empty: without validation there is nothing to compare by")
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
        raise InputError(f"seeds={','.join(map(str, found))}: whole numbers from 0 on, each of them once")
    return found


def _refuse_other_run(workdir: Path, config: ConfigDict) -> None:
    """Check that a run may go on with this config, and has not gone further."""
    series.refuse_other_run(workdir, config)
    if (steps := saved_steps(workdir)) and steps[-1] > config.num_steps:
        raise InputError(
            f"{workdir} has trained for {steps[-1]:,} steps, and now it is to have {config.num_steps:,}: give as much "
            "as before, or a new `output`"
        )


def _run(config: ConfigDict, workdir: Path, chosen: Sequence[int], trusting: Mapping[str, Any]) -> series.Outcome:
    """Bring a run to its end and measure it; what was done before is not done again."""
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
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):  # damaged: made again
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["identity"] == identity:
            say(f"{workdir} is done")
            return {"state": "done", "results": found}
    with stop_requests() as stop:
        stop.saves = False  # Ctrl-C ends it at once
        results = {"identity": identity, **_measured(workdir, chosen, trusting)}
        write_text(path, json.dumps(results, indent=1) + "\n")
        if stop.is_set():
            return {"state": "stopped", "reason": "stopped after its training; it is measured", "results": results}
    return {"state": "done", "results": results}


def _measured(workdir: Path, chosen: Sequence[int], trusting: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table and the page show of a finished run."""
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
    """Return how long one image takes by itself, from the host's memory and back: the median, after compiling."""
    times, until = list[float](), time.monotonic() + _PATIENCE
    while len(times) < 3 or (len(times) < _REPEATS and time.monotonic() < until):
        start = time.perf_counter()
        translator(image[None], normalized=True)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


@contextlib.contextmanager
def _timed(workdir: Path) -> Iterator[None]:
    """Note when a training begins and ends, in the run's directory; one that was killed ends with its last metrics."""
    path, sessions = workdir / _SESSIONS, _sessions(workdir)
    sessions.append([time.time(), None])
    write_text(path, json.dumps(sessions) + "\n")
    try:
        yield
    finally:
        sessions[-1][1] = time.time()
        write_text(path, json.dumps(sessions) + "\n")


def _sessions(workdir: Path) -> list[list[float | None]]:
    """Return beginning and end of every session of a training, in seconds since 1970."""
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
    """Return how long a training took, over all its sessions; None where that is not known."""
    return sum((end or 0.0) - (begun or 0.0) for begun, end in _sessions(workdir)) or None
