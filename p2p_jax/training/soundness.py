"""Checkpoints that a disk has damaged: noticed before they are used, and set aside before a training goes on."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from p2p_jax.cluster.agreeing import only_the_first
from p2p_jax.errors import InputError
from p2p_jax.reporting import caution, say
from p2p_jax.storage.refusals import StorageError, writing
from p2p_jax.storage.unfinished import remove_abandoned
from p2p_jax.storage.writing import first_free
from p2p_jax.training import digests

_SMALL = 1 << 20  # bytes of a file that is always read
_SOUND: dict[Path, tuple] = {}  # the checkpoints that this process found sound, with their files' sizes and times


def saved_steps(workdir: Path) -> list[int]:
    """Return the steps of all complete checkpoints in a run's directory, damaged ones too, the newest last."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and name.isascii() and name == str(int(name)))


def folder_of(workdir: Path, step: int) -> Path:
    """Return the folder of a checkpoint."""
    return workdir / "checkpoints" / str(step)


def fault(workdir: Path, step: int, *, quick: bool = False, part: str = "") -> str | None:
    """Say what is wrong with a checkpoint; None if all that is in it is as it was written.

    Args:
      workdir: the run's directory.
      step: of the checkpoint.
      quick: do not read long files: that they have their length will do.
      part: look only at files with names that begin so, such as "metrics/".

    Raises:
      InputError: a file may not be read.
    """
    folder = folder_of(workdir, step)
    try:
        if not folder.is_dir():
            return "it is not a folder"
        if not any(folder.iterdir()):
            return "it is empty"
        if os.path.lexists(folder / digests.NAME):
            return digests.fault(folder, part, _SMALL if quick else None)
        return _fault_without_digests(folder, quick=quick)
    except PermissionError as error:
        raise StorageError(
            f"the checkpoint {folder} cannot be read (Permission denied: {error.filename}): let this user read it, or "
            "move it out of the folder to use an older one"
        ) from error


def require_sound(workdir: Path, step: int, choose: Callable[[int], str] = "checkpoint={}".format) -> None:
    """Check that a checkpoint is as it was written; what was found sound is not read again.

    Args:
      workdir: the run's directory.
      step: of the checkpoint.
      choose: says how another step is chosen.

    Raises:
      InputError: it is damaged, or no longer there; names those that are good.
    """
    folder = folder_of(workdir, step)
    seen = _signature(folder)
    if seen and _SOUND.get(folder.absolute()) == seen:
        return
    is_of_before = (folder / "config" / "metadata").is_file() and not os.path.lexists(folder / digests.NAME)
    if is_of_before:  # whether it is whole shows when it is read
        say(f"{folder} has no {digests.NAME}: an earlier version saved it, so changed bits in it are not noticed")
    elif not os.path.lexists(folder):
        gone = "is gone: the run is still training and keeps only the newest ones"
        raise InputError(f"the checkpoint {folder} {gone}; {others(workdir, step, choose)}")
    elif why := fault(workdir, step):
        raise InputError(f"the checkpoint {folder} is damaged: {why}; {others(workdir, step, choose)}")
    _SOUND[folder.absolute()] = seen


def others(workdir: Path, step: int, choose: Callable[[int], str] = "checkpoint={}".format) -> str:
    """Name the other checkpoints that are good."""
    good = [other for other in saved_steps(workdir) if other != step and not _fault_of_another(workdir, other)]
    if not good:
        return f"{workdir} holds no other good one"
    return f"good: {', '.join(map(str, good))}; choose one, such as {choose(good[-1])}"


def settle(workdir: Path) -> None:
    """Make a run's directory ready to go on: damaged checkpoints are set aside, what killed saves left is removed.

    Nothing of a checkpoint is deleted: it gets a name that no step has, ``damaged-STEP``. This run must be the only one
    that writes into the directory; of its processes all call this, and the first one does it.

    Raises:
      InputError: no checkpoint is good; they stay where they are then.
    """
    only_the_first(lambda: _settle(workdir))


def _settle(workdir: Path) -> None:
    _remove_unfinished(workdir)
    steps, bad = saved_steps(workdir), dict[int, str]()
    newest = None  # that is good; of older ones only short files are looked at, as they may never be used
    for step in reversed(steps):
        why = fault(workdir, step, quick=newest is not None)
        if why is not None:
            bad[step] = why
        elif newest is None:
            newest = step
    if not bad:
        return
    if newest is None:
        told = "; ".join(f"{step}: {why}" for step, why in sorted(bad.items(), reverse=True))
        raise InputError(
            f"no checkpoint of {workdir} is good ({told}): put a copy of one in its place, or give a new `workdir` to "
            "start again; nothing was changed"
        )
    for step, why in sorted(bad.items()):
        aside = _set_aside(folder_of(workdir, step))
        again = f"; the run resumes from step {newest:,} and repeats the steps after it" if step > newest else ""
        caution(f"the checkpoint {folder_of(workdir, step)} is damaged: {why}. It is kept as {aside.name}{again}")


def _fault_of_another(workdir: Path, step: int) -> str | None:
    try:
        return fault(workdir, step)
    except InputError as error:
        return str(error)


def _fault_without_digests(folder: Path, *, quick: bool) -> str | None:
    """Say what is wrong with a checkpoint of an earlier version, as far as that shows."""
    for name in ("config/metadata", "facts/metadata", "metrics/metrics"):
        if name != "config/metadata" and not (folder / name).parent.exists():
            continue  # none was stored
        try:
            json.loads((folder / name).read_text(encoding="utf-8"))
        except PermissionError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    if not (folder / "state").is_dir():
        return "it has no folder `state`"
    return None if quick else _unreadable(folder.absolute() / "state")


def _unreadable(state: Path) -> str | None:
    """Read all of a state, where nothing else shows whether it is complete."""
    try:
        shapes = dict(ocp.PyTreeCheckpointHandler().metadata(state))
        arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        ocp.PyTreeCheckpointer().restore(state, args=ocp.args.PyTreeRestore(restore_args=arrays))
    except Exception as error:  # TensorStore has no error type for unreadable data
        return f"its arrays cannot be read ({type(error).__name__})"
    return None


def _set_aside(folder: Path) -> Path:
    numbers = itertools.chain([""], (f"-{i}" for i in itertools.count(2)))
    target = first_free(folder.with_name(f"damaged-{folder.name}{number}") for number in numbers)
    with writing(target):
        folder.rename(target)
    return target


def _remove_unfinished(workdir: Path) -> None:
    """Remove what killed processes were writing: Orbax's folders, and files of ours."""
    for path in (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in workdir.glob(".seen_by_all_*"):
        path.unlink(missing_ok=True)
    for folder in (workdir, workdir / "samples", *(workdir / "checkpoints").glob("*")):
        remove_abandoned(folder)


def _signature(folder: Path) -> tuple:
    """Return what changes when a file of a checkpoint is written again; empty if that is not known."""
    try:
        names = [*digests.files_in(folder), *[digests.NAME] * os.path.lexists(folder / digests.NAME)]
        stats = [(name, (folder / name).stat()) for name in names]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in stats)
