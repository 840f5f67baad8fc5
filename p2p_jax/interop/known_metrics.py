"""Known measurements of a run's weights: from validation and from ``evaluate``, each with the number of images."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2p_jax.inference.run import Run
from p2p_jax.objectives import averaging
from p2p_jax.reporting import say
from p2p_jax.training.soundness import folder_of

_LONGEST = 1 << 26  # bytes of the largest results.json that is read


def known_metrics(run: Run, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the measurements of a run's weights, each ``{"by", "split", "num_images", "metrics", ...}``.

    Args:
      run: a run opened from its directory.
      ids: ``Translator.checkpoint_id`` of each direction; results of other weights are recognised by it.
    """
    found = [_validation(run), *(_evaluation(path, run, ids) for path in _results(run.workdir))]
    return [told for told in found if told]


def _results(workdir: Path) -> list[Path]:
    return sorted(path for path in workdir.glob("evaluation/*/results.json") if path.is_file())


def _validation(run: Run) -> dict[str, Any] | None:
    """Return the validation results of this step, if there are any."""
    path, data = folder_of(run.workdir, run.step) / "metrics" / "metrics", run.config.data
    told = _read(path)
    if told is None or (averaging.asks(run.config) and run.weights == "raw"):  # validation uses the average
        return None
    metrics = {str(name): {"mean": value} for name, value in told.items() if _is_number(value)}
    count = (run.facts.get("images") or {}).get(data.val_split, {}).get("count")
    rest = {"split": data.val_split, "num_images": count, "seen": "as training sees them", "set_metrics": {}}
    return {"by": "validation", "metrics": metrics, **rest} if metrics else None


def _evaluation(path: Path, run: Run, ids: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the results of an evaluation of exactly these weights."""
    told = _read(path)
    if told is None or told.get("step") != run.step or told.get("checkpoint_id") is None:
        return None
    if told["checkpoint_id"] != ids.get(str(told.get("direction"))):
        return None
    try:
        metrics = {
            str(name): {key: value[key] for key in ("mean", "std") if _is_number(value.get(key))}
            for name, value in told["metrics"].items()
        }
        sets = {
            str(name): {str(key): x for key, x in value.items() if _is_number(x)}
            for name, value in told["set_metrics"].items()
        }
        keys = ("split", "num_images", "seen", "direction", "paired", "norm", "dropout", "created")
        rest = {key: told[key] for key in keys if isinstance(told[key], str | int | bool)}
    except (KeyError, TypeError, AttributeError):
        say(f"note: {path} was not written by evaluate, and is ignored")
        return None
    return {"by": "evaluate", "metrics": metrics, "set_metrics": sets, **rest}


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        if path.stat().st_size > _LONGEST:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
