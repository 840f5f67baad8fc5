"""Checkpoints: state and config together through Orbax, the latest ones and the best one.

A run's directory holds ``config.json``, what was asked for, ``facts.json``, what was found in the images, and
``checkpoints/STEP/{state,config,facts,metrics}`` with ``digests.json``; a step directory appears under its name only
when it is complete, so a kill during a save costs only that save. Nothing is restored that is not as it was written.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from p2p_jax.config import complete, filled_in, stored, with_facts
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.storage.tensor_file import is_tensor_file
from p2p_jax.training import digests, own_code
from p2p_jax.training.soundness import fault, folder_of, others, require_sound, saved_steps

PyTree = Any
CONVERTED = "converted_from.json"
"""In the directory of a converted run: a description of the original weights."""


def find_step(workdir: Path, config: ConfigDict, checkpoint: str | int) -> int:
    """Return the step of a saved checkpoint.

    Args:
      workdir: the run's directory.
      config: the run's config; reads ``best_metric`` and ``best_mode``.
      checkpoint: "latest", "best" (of those that were evaluated) or a step.

    Raises:
      InputError: there is no such checkpoint, or it is damaged; names those that exist.
    """
    step = _find_step(workdir, config, checkpoint)
    require_sound(workdir, step)
    return step


def _find_step(workdir: Path, config: ConfigDict, checkpoint: str | int) -> int:
    steps = saved_steps(workdir)
    if not steps:
        raise InputError(f"{workdir} holds no checkpoint; train first: python -m p2p_jax.main --workdir {workdir} ...")
    if checkpoint == "latest":
        return steps[-1]
    if checkpoint == "best":
        metrics = {step: folder_of(workdir, step) / "metrics" / "metrics" for step in steps}
        for step in steps:
            if why := fault(workdir, step, part="metrics/"):
                damaged = f"{folder_of(workdir, step)} is damaged ({why}), so the best one is not known"
                raise InputError(f"{damaged}; {others(workdir, step)}")
        values = {step: _metric(path, config.best_metric) for step, path in metrics.items() if path.exists()}
        quality = {step: found for step, found in values.items() if not math.isnan(found)}
        if not quality:
            raise InputError(
                f"no checkpoint in {workdir} was evaluated, so there is no best one; choose latest or a step"
            )
        return (min if config.best_mode == "min" else max)(quality, key=quality.__getitem__)
    if str(checkpoint).isdecimal() and int(checkpoint) in steps:
        return int(checkpoint)
    raise InputError(f"{workdir} has no checkpoint {checkpoint}; choose latest, best or one of {steps}")


def _metric(path: Path, name: str) -> float:
    """Return a metric of a checkpoint; what is not a number where it has none."""
    try:
        return float(json.loads(path.read_bytes()).get(name, math.nan))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}), so the best one is not known; choose a step") from error


def saved_config(workdir: Path, step: int, trust: Trust = ()) -> dict[str, Any]:
    """Return the config stored with a checkpoint, filled in, as it was written, with no option added.

    Raises:
      InputError: it cannot be read, or names networks outside the library that are not in `trust`.
    """
    config_file, facts_file = (workdir / "checkpoints" / str(step) / name / "metadata" for name in ("config", "facts"))
    try:
        config, facts = json.loads(config_file.read_text()), json.loads(facts_file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        folder = workdir / "checkpoints" / str(step)
        raise InputError(f"{folder} cannot be read ({error}); use another checkpoint") from error
    stored.require_trust(config, config_file, trust, used=("generator", "discriminator"))
    return filled_in(config, stored.require_plain_facts(facts, facts_file))


def saved_shapes(workdir: Path, step: int) -> PyTree:
    """Return the structure of a saved state, as its checkpoint describes it, without making the objective.

    Tuples and NamedTuples have become lists and dicts.

    Returns:
      A leaf with ``shape`` and ``dtype`` for every array.

    Raises:
      InputError: the checkpoint is damaged.
    """
    require_sound(workdir, step)
    path = workdir.absolute() / "checkpoints" / str(step) / "state"
    try:
        return dict(ocp.PyTreeCheckpointHandler().metadata(path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the checkpoint {path} is damaged ({type(error).__name__}); use another") from error


def restore_part(workdir: Path, step: int, shapes: PyTree) -> PyTree:
    """Restore some leaves of a saved state, each onto the first device of this host.

    Args:
      workdir: the run's directory.
      step: a saved step.
      shapes: the structure of the state: ``jax.ShapeDtypeStruct`` where a leaf is wanted, else ``ocp.PLACEHOLDER``.

    Raises:
      InputError: the checkpoint is damaged, or what was saved has another structure or other shapes.
    """
    require_sound(workdir, step)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    template = jax.tree.map(
        lambda x: x if x is ocp.PLACEHOLDER else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    restore_args = ocp.checkpoint_utils.construct_restore_args(template)
    path = workdir.absolute() / "checkpoints" / str(step) / "state"
    try:
        return ocp.PyTreeCheckpointer().restore(
            path, args=ocp.args.PyTreeRestore(item=template, restore_args=restore_args)
        )
    except Exception as error:  # TensorStore has no error type for unreadable data
        if isinstance(error, ValueError | KeyError) and "tensorstore" not in str(error):
            reason = str(error).strip().partition("\n")[0][:300]  # Orbax goes on with all the leaves
            raise InputError(f"the checkpoint {path} does not fit the config of its run: {reason}") from error
        raise InputError(f"the checkpoint {path} is damaged ({type(error).__name__}); use another") from error


def _saved(workdir: Path, name: str = "config") -> list[Path]:
    """Return the config, or what else has that name, of every checkpoint, the newest last."""
    return [folder_of(workdir, step) / name / "metadata" for step in saved_steps(workdir)]


def read_config(workdir: Path, trust: Trust | None = ()) -> ConfigDict | None:
    """Return the config stored in a run's directory, as it was asked for; None if nothing was saved there yet.

    Args:
      workdir: the run's directory.
      trust: code outside the library that the config may name, "module:name"; None: any, as it is only compared.

    Raises:
      InputError: the directory or the config cannot be read, there are checkpoints without a config, or the config
        names code that is not trusted.
    """
    path, saved = workdir / "config.json", _saved(workdir)
    if not saved and (workdir.is_dir() or not workdir.exists()):
        return None
    digests.require_recorded(path, saved)
    try:
        found = json.loads(path.read_bytes())  # editors of Windows may put a mark before it, which this takes
    except FileNotFoundError:
        raise InputError(
            f"{workdir} has checkpoints but no config.json; each checkpoint holds a copy: cp {saved[-1]} {path}"
        ) from None
    except NotADirectoryError:
        more = f"; to start from a model file, use --config.init_from={workdir}" if is_tensor_file(workdir) else ""
        raise InputError(f"workdir={workdir} is a file; name a directory{more}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    outside = stored.require_trust(found, path, trust)
    if trust is not None:
        own_code.offer(workdir, outside)
    try:
        return complete(found)
    except InputError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read ({error}); restore it or choose another `workdir`")


def read_facts(workdir: Path) -> dict[str, Any]:
    """Return what a run found in its images, from ``facts.json`` or its newest checkpoint; empty if there is none.

    Raises:
      InputError: the file cannot be read.
    """
    path = workdir / "facts.json"
    copies = _saved(workdir, "facts")
    digests.require_recorded(path, copies)
    for file in (path, *reversed(copies)):
        if file.is_file():
            try:
                return stored.require_plain_facts(json.loads(file.read_bytes()), file)
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"{file} cannot be read ({error}); delete it: checkpoints hold copies") from error
    return {}


def read_filled_in(workdir: Path, trust: Trust = ()) -> ConfigDict | None:
    """Return the config stored in a run's directory with what was found in its images; see ``read_config``.

    Raises:
      InputError: see ``read_config``; or what was found cannot be used.
    """
    config = read_config(workdir, trust)
    if config is None:
        return None
    facts = read_facts(workdir)
    try:
        return with_facts(config, facts)
    except InputError as error:
        raise InputError(f"facts.json in {workdir} (facts about its images) cannot be used: {error}") from error
