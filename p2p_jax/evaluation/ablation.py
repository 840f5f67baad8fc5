"""The ablation tables of the pix2pix paper: the grid of runs, their training and scoring."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from p2p_jax.config import complete_experiment
from p2p_jax.config.options import image_shapes
from p2p_jax.config.stored import Trust, outside, trusted
from p2p_jax.data import load_split
from p2p_jax.data.splits import split_meant
from p2p_jax.errors import InputError
from p2p_jax.evaluation import series, set_metrics
from p2p_jax.evaluation.ablation_table import TABLES, Row, markdown, report, rows
from p2p_jax.evaluation.protocol import evaluate
from p2p_jax.evaluation.segmentation import find_segmenter
from p2p_jax.evaluation.series import changed
from p2p_jax.images.domains import of_config
from p2p_jax.objectives import make_objective
from p2p_jax.reporting import say
from p2p_jax.storage.writing import write_text
from p2p_jax.training.checkpoint import find_step, read_config
from p2p_jax.training.loop import train

# The whole method; every row removes a part of it.
_WHOLE = {"loss.lambda_gan": 1.0, "loss.lambda_l1": 100.0, "loss.conditional": True, "generator.skips": True}


def ablate(
    config: ConfigDict,
    output: str | Path,
    *,
    tables: Sequence[str] = TABLES,
    split: str | None = None,
    trust: Trust = (),
    **scoring: Any,
) -> dict[str, Any]:
    """Train and score the rows of ablation tables; ``table.md`` and ``table.json`` are updated as it goes.

    Every row is an ordinary run in ``output/RUN``, with a report in its ``evaluation`` folder. Call it again to resume:
    finished runs are not trained again, and scores are computed again only for another checkpoint or other `scoring`. A
    row that does not fit the config's image size is left out, and a row that diverges has no score; the table says why.

    Args:
      config: the whole method, U-Net with L1+cGAN on pairs; size, length, data and patch are your choice.
      output: folder for the runs and the tables; made if missing.
      tables: some of ``TABLES``.
      split: split to score on; the config's ``data.val_split`` by default.
      trust: code outside the library that the config of the run in ``config.init_from`` may name.
      **scoring: `metrics`, `segmenter`, `palette`, `label_ids` and `inception` as ``evaluate`` takes them.

    Returns:
      The content of ``table.json``. A row's ``state`` is "scored", "left out", "diverged", "stopped" (by SIGTERM or
      Ctrl-C; the rows after it are not started) or "to do".

    Raises:
      InputError: the config is not the whole method, no row can run, `output` holds runs of another config, or the
        scoring lacks something; raised before training starts.
    """
    config, output = complete_experiment(config), Path(output)
    names = trusted(trust).union(*outside(config).values())
    trusting = {"trust": names} if names else {}
    for table in tables:
        if table not in TABLES:
            raise InputError(f"there is no table {table}; choose from {', '.join(TABLES)}")
    split = split_meant(config.data, split)
    if not split:
        raise InputError("config.data.val_split is empty: name the split to score on with `split`")
    _check_whole(config)
    # Errors that evaluation would otherwise find only after the first row is trained.
    needs = scoring | set_metrics.features_of(config, None, scoring.get("inception"))
    set_metrics.prepare(load_split(config, split), of_config(config.data), **needs)
    asked = {"split": split, **scoring}
    grid = {table: rows(table, config) for table in tables}
    runs = {row.run: row for table in grid.values() for row in table}
    outcomes: dict[str, series.Outcome] = {name: _prepare(config, row, output / name) for name, row in runs.items()}
    possible = [name for name, outcome in outcomes.items() if outcome["state"] != "left out"]
    if not possible:
        raise InputError("no row can run: " + next(iter(outcomes.values()))["reason"])

    for name in [name for name in runs if name not in possible]:
        say(f"{name} is left out: {outcomes[name]['reason']}")
    told: dict[str, Any] = {}

    def do(name: str) -> series.Outcome:
        return _run(changed(config, runs[name].changes), output / name, asked, trusting)

    def tell(name: str, outcome: series.Outcome) -> None:
        outcomes[name] = outcome
        told.update(report(config, asked, grid, outcomes))
        write_text(output / "table.json", json.dumps(told, indent=2, default=str) + "\n")
        write_text(output / "table.md", markdown(told))

    series.work_off(output, possible, do, tell)
    return told


def _check_whole(config: ConfigDict) -> None:
    """Refuse a config that lacks a part that a row removes, or an objective without such a part."""
    for option, default in _WHOLE.items():
        value = _value(config, option, default)
        if not value:
            raise InputError(
                f"config.{option} is {value!r}; each row removes a part of the whole method, so set every part"
            )
    losses = {option: default for option, default in _WHOLE.items() if option.startswith("loss.")}
    _trace(changed(config, {option: _value(config, option, default) for option, default in losses.items()}))


def _prepare(config: ConfigDict, row: Row, workdir: Path) -> dict[str, Any]:
    """Return the outcome before training, "left out" if the row cannot run; refuse the folder of another run."""
    try:
        own = changed(config, row.changes)
        _trace(own)
    except InputError as error:
        return {"state": "left out", "reason": str(error)}
    series.refuse_other_run(workdir, own)
    return {"state": "to do"}


def _run(config: ConfigDict, workdir: Path, asked: dict[str, Any], trusting: dict[str, Any]) -> series.Outcome:
    """Finish a run and score it; finished work is not repeated."""
    outcome = series.bring_to_its_end(train, config, workdir, **trusting)
    if outcome["state"] != "trained":
        return outcome
    return {"state": "scored", "results": _scored(workdir, asked, trusting)}


def _scored(workdir: Path, asked: dict[str, Any], trusting: dict[str, Any]) -> dict[str, Any]:
    """Return the run's results without single images, from ``results.json`` if it matches the request."""
    stored, path = read_config(workdir, **trusting), workdir / "results.json"
    assert stored is not None
    identity = {"step": find_step(workdir, stored, "latest"), "config": stored.to_dict(), "asked": asked}
    if asked.get("segmenter"):  # it may have been trained again under the same name
        identity["segmenter"] = getattr(find_segmenter(asked["segmenter"]), "digest", None)
    identity = json.loads(json.dumps(identity, default=str))
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):  # damaged: compute it again
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["identity"] == identity:
            return found
    folder = workdir / "evaluation" / f"{asked['split']}_{identity['step']}"
    results = evaluate(workdir, output=folder, **trusting, **asked)
    found = {"identity": identity} | {key: results[key] for key in ("step", "num_images", "metrics", "set_metrics")}
    write_text(path, json.dumps(found, indent=2) + "\n")
    return found


def _value(config: ConfigDict, option: str, default: Any) -> Any:
    section, _, key = option.partition(".")
    return config[section].get(key, default)


def _trace(config: ConfigDict) -> None:
    """Make the objective and trace its networks at the config's size, to find what does not fit."""
    shapes = image_shapes(config.data)
    batch = {name: jax.ShapeDtypeStruct((1, *shape), "float32") for name, shape in shapes.items()}
    jax.eval_shape(make_objective(config).init, jax.random.key(0), batch)
