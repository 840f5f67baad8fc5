"""Saving checkpoints through Orbax, in the background: the latest ones and the best one."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from p2p_jax.errors import InputError
from p2p_jax.storage.refusals import StorageError, error_number, reason, sentence, sentence_of
from p2p_jax.training import digests
from p2p_jax.training.soundness import require_sound, saved_steps

PyTree = Any


class _Save(NamedTuple):
    """A save under way: its step, and the bytes of its arrays."""

    step: int
    size: int


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: the run's directory; made if missing.
      config: the run's config, stored with every checkpoint; reads ``keep_checkpoints``, ``best_metric``,
        ``best_mode``.
      facts: what was found in the images, stored with every checkpoint; see ``p2p_jax.config.filled_in``.
    """

    def __init__(self, workdir: Path, config: ConfigDict, facts: Mapping[str, Any] = MappingProxyType({})):
        self._config, self._facts = config, dict(facts)

        def quality(metrics):
            return metrics[config.best_metric]

        # Not max_to_keep: together with best_fn Orbax would delete the newest checkpoint when it is not the best.
        policy = AnyPreservationPolicy(
            [
                LatestN(config.keep_checkpoints),
                BestN(
                    get_metric_fn=quality,
                    reverse=config.best_mode == "min",
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._workdir = workdir
        self._under_way: _Save | None = None
        self._refused: int | None = None  # the step of the last save, if the disk did not take it
        self.directory = workdir.absolute() / "checkpoints"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"workdir={workdir} cannot be made ({reason(error, workdir)}); choose another") from error
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                best_fn=quality,
                best_mode=config.best_mode,
                preservation_policy=policy,
                # It is called in the background only by the first process, when all files of all processes are
                # written, before the checkpoint gets its name.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
            ),
        )
        best_step = self._manager.best_step()
        metrics = None if best_step is None else self._manager.metrics(best_step)
        self._best = (best_step, quality(metrics)) if best_step is not None and metrics else None

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Return step and metric of the best evaluated checkpoint, None if none was evaluated."""
        return self._best

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Return whether evaluation metrics beat those of every checkpoint so far."""
        value, best = metrics.get(self._config.best_metric, math.nan), self._best[1] if self._best else math.nan
        if math.isnan(value) or math.isnan(best):
            return not math.isnan(value)
        return value < best if self._config.best_mode == "min" else value > best

    def save(self, step: int, state: PyTree, metrics: Mapping[str, float] | None) -> None:
        """Save in the background, when the save before is done; does nothing if the step is saved already.

        Args:
          step: number of updates done.
          state: the state, see ``parallel.for_saving``.
          metrics: evaluation of this very state, None if there is none. Without ``best_metric``, which may come at an
            interval of its own, they are not stored: it cannot be the best.

        Raises:
          StorageError: this checkpoint, or the one before, cannot be written; names the last good one.
        """
        if step in self._manager.all_steps():
            return
        if metrics is not None and self._config.best_metric not in metrics:
            metrics = None
        self.wait()
        self._under_way = _Save(step, sum(x.nbytes for x in jax.tree.leaves(state)))
        with self._told():
            self._try_disk()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    config=ocp.args.JsonSave(self._config.to_dict()),
                    facts=ocp.args.JsonSave(self._facts),
                ),
                metrics=dict(metrics) if metrics is not None else None,
            )
        if metrics is not None and self.is_best(metrics):
            self._best = (step, metrics[self._config.best_metric])

    def _try_disk(self) -> None:
        """Write a little, because Orbax stumbles in many lines over a disk that takes nothing at all."""
        if jax.process_index() == 0:
            probe = self.directory / f".{os.getpid()}.part"
            try:
                probe.write_bytes(bytes(1 << 16))
            finally:
                probe.unlink(missing_ok=True)

    def _write_digests(self) -> None:
        assert self._under_way is not None
        step = self._under_way.step
        found = [*self.directory.glob(f"{step}.orbax-checkpoint-tmp*"), self.directory / str(step)]
        digests.write(found[0])  # the last one where Orbax writes in place

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one sentence what keeps the checkpoint under way from being written, and remove the part of it."""
        try:
            yield
        except Exception as error:
            assert self._under_way is not None
            (step, needed), self._under_way = self._under_way, None
            self._refused = step
            number = error_number(error)
            text = number and sentence(number, self.directory / str(step), needed)
            self._remove_parts(step)  # the room that they take may be needed to end in good order
            if not text:
                raise
            raise StorageError(f"{text}; {self._last_good()}") from error

    def _remove_parts(self, step: int) -> None:
        if jax.process_index() == 0:
            for path in self.directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, step: int, shapes: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
        """Restore a state.

        Args:
          step: a saved step.
          shapes: ``jax.ShapeDtypeStruct`` of every leaf, as ``jax.eval_shape`` gives them.
          sharding: where the arrays are put.

        Raises:
          InputError: the checkpoint is damaged.
        """
        if jax.process_count() == 1:  # the first of several has looked at it at the start
            require_sound(self._workdir, step)
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template)))["state"]

    def wait(self) -> None:
        """Wait for the saves under way.

        Raises:
          StorageError: one cannot be written; names the last good one.
        """
        if self._under_way is None:
            return
        with self._told():
            self._manager.wait_until_finished()
            if jax.process_index() == 0 and (folder := self.directory / str(self._under_way.step)).is_dir():
                with contextlib.suppress(OSError, InputError):  # the disk is full now: it is checked without them
                    digests.complete(folder)
        self._under_way = self._refused = None

    def close(self) -> None:
        """Wait for the saves under way and release the directory."""
        save = self._under_way
        try:
            self.wait()
        except BaseException:
            self._give_up(save.step if save else None)
            raise
        if self._refused is None:
            self._manager.close()
        else:
            self._give_up(self._refused)

    def _give_up(self, step: int | None) -> None:
        with contextlib.suppress(Exception):  # the error of the save again, which has been reported
            self._manager.close()
        if step is not None:  # Orbax's other threads may have written on
            self._remove_parts(step)

    @contextlib.contextmanager
    def naming_the_last(self) -> Iterator[None]:
        """Add the last good checkpoint to what is said when a disk takes nothing more.

        Raises:
          StorageError: something could not be written; in place of the error that said so.
        """
        try:
            yield
        except Exception as error:
            first = error  # a full disk stops what ends in good order, too, which then hides what came first
            while isinstance(first.__context__, StorageError):
                first = first.__context__
            text = str(first) if isinstance(first, StorageError) else sentence_of(first, self._workdir)
            if text is None:
                raise
            last = self._last_good()
            raise StorageError(text if last in text else f"{text}; {last}") from error

    def _last_good(self) -> str:
        good = [step for step in saved_steps(self._workdir) if (self.directory / str(step) / digests.NAME).is_file()]
        if not good:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is of step {good[-1]:,}; run the same command to resume from it"
