"""The training loop: the only file that knows its order."""

import collections
import contextlib
import functools
import itertools
import math
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.cluster.agreeing import by_the_first
from p2p_jax.config import complete, complete_experiment
from p2p_jax.config.paths import expanded
from p2p_jax.config.stored import Trust, all_references, trusted
from p2p_jax.data import Data
from p2p_jax.errors import InputError, TrainingDivergedError, TrainingInterrupt
from p2p_jax.images.domains import of_config
from p2p_jax.objectives import Objective, precision
from p2p_jax.process.freed_memory import give_back
from p2p_jax.reporting import quiet, say
from p2p_jax.storage.lock import locked
from p2p_jax.training import cost, metrics_file, monitoring, parallel, start
from p2p_jax.training.dispatches import dispatch
from p2p_jax.training.saving import Checkpoints
from p2p_jax.training.stopping import stop_requests

PyTree = Any


def train(
    config: Mapping[str, Any] | ConfigDict,
    workdir: str | Path,
    objective: Objective | None = None,
    data: Data | None = None,
    trust: Trust = (),
) -> PyTree:
    """Train, or go on with the training that `workdir` holds, until ``config.num_steps``.

    ``p2p_jax.prepare_process()``, called before, makes it start and train faster.

    Args:
      config: the experiment; missing options take the defaults of ``p2p_jax.config.options``. It is not changed.
      workdir: the run's directory. It receives ``config.json``, ``facts.json``, ``metrics.csv``, ``samples/``,
        ``checkpoints/``, ``summary.txt`` and, where tensorboardX is installed, ``tensorboard/``.
      objective: what is trained; by default what ``config.objective`` names.
      data: the data set, regardless of ``config.data.resident``; by default the one in ``config.data``.
      trust: code outside the library, "module:name", that the stored config of ``config.init_from`` (the run that this
        one starts from) may name; what `config` itself names is trusted.

    Returns:
      The state after the last step, or after the step where SIGTERM or a closed terminal (SIGHUP) stopped it.

    Raises:
      TrainingInterrupt: a KeyboardInterrupt: Ctrl-C came, and the state was saved.
      InputError: the config, the data or the directory cannot be used, or another training holds it; mostly raised
        before training starts.
      TrainingDivergedError: a loss or a parameter is no longer finite.
    """
    with contextlib.ExitStack() as stack:
        if jax.process_index() > 0:  # one of several processes speaks for all
            stack.enter_context(quiet())
        stop_request = stack.enter_context(stop_requests())  # it guards every save
        stop_request.saves = False  # before the first step there is nothing to save
        config = complete(config) if objective else complete_experiment(config)
        lock = stack.enter_context(by_the_first(lambda: locked(expanded(workdir))))
        trusted_code = trusted(trust) | all_references(config)
        run, make_state = start.prepare(config, expanded(workdir), objective, data, stack, trusted_code)
        config, checkpoints, step = run.config, run.checkpoints, run.step
        stack.enter_context(checkpoints.naming_the_last())
        if run.data is None:
            say(f"{workdir}: already at step {step:,}, and config.num_steps is {config.num_steps:,}; nothing to do")
            return parallel.for_saving(make_state())

        rng = jax.random.key(config.seed)
        has_unknown = any(domain.unknown for domain in of_config(config.data))
        sample_batch = _first_images(run.data, config.num_samples)
        dispatches = stack.enter_context(contextlib.closing(dispatch(config, run.objective, run.data, step)))
        update, batch = next(dispatches)
        first = iter([(update, batch)])
        names = update.metrics(run.shapes, batch, rng)
        evaluated = run.eval_metrics + (run.distances.names if run.distances else [])
        columns = [*metrics_file.RUN, *(f"train/{name}" for name in names), *(f"eval/{name}" for name in evaluated)]
        work = functools.partial(_multiply_adds, config, run.objective)
        log = stack.enter_context(contextlib.closing(monitoring.Log(run.workdir, columns, step, config, work)))
        in_flight: collections.deque[_InFlight] = collections.deque()
        first_step = step

        def due(every):
            return step % every == 0 or step == config.num_steps

        say(f"{run.workdir}: {config.objective}, {_num_parameters(run.shapes):,} parameters")
        exact, kind = precision.in_force(config), jax.devices()[0].device_kind
        say(f"compiling for {jax.device_count()} device(s) of kind {kind}, products in {exact} ...")
        with log.pace.apart():
            update.compile(run.shapes, batch, rng)
            state = make_state()
        del make_state  # a restored state is not kept
        stop_request.saves = True
        if step == 0:
            with log.pace.apart():
                log.samples(0, run.evaluate(state, sample_batch, rng)[1])
        give_back()
        for update, batch in itertools.chain(first, dispatches):
            with log.pace.compiling(update):
                state, metrics, finite = update.run(state, batch, rng)
            step += finite.size
            if step == first_step + finite.size:
                give_back()
            logged = metrics if due(config.log_every) else {}
            jax.tree.map(lambda x: x.copy_to_host_async(), (finite, logged))
            in_flight.append(_InFlight(step, finite, logged))
            distances = run.distances if run.distances and due(run.distances.every) else None
            looks = due(config.eval_every) or due(config.sample_every) or distances
            _settle(in_flight, log, checkpoints, leave=0 if looks else 2)  # the host is at most two dispatches ahead

            results = None
            with log.pace.apart():
                if due(config.eval_every) and run.data.num_val:
                    results = _evaluate(run, state, rng, has_unknown)
                    log.evaluation(step, results, f"validation over {run.data.num_val} images")
                if distances:
                    found = distances(state)
                    log.evaluation(step, found, f"distances over {distances.counted}")
                    results = {**(results or {}), **found}
                if due(config.sample_every):
                    log.samples(step, run.evaluate(state, sample_batch, rng)[1])
                log.flush()

            stopping = step < config.num_steps and _agreed(stop_request.signum, step, config)
            if lock and lock.lost:
                raise InputError(lock.lost)
            if due(config.checkpoint_every) or stopping or (results and checkpoints.is_best(results)):
                _settle(in_flight, log, checkpoints)
                log.settle()  # no row before a checkpoint is ever written again
                if not parallel.all_finite(state):
                    raise _diverged(step, "a parameter", checkpoints)
                with log.pace.apart():
                    checkpoints.save(step, parallel.for_saving(state), results)
            if stopping:
                checkpoints.wait()
                told = f"stopped at step {step:,}; run the same command to resume"
                if objective is None and data is None:  # the run's directory says all
                    told += f", or p2p-jax resume {shlex.quote(str(workdir))}"
                say(told)
                if stopping == signal.SIGINT:  # who called it, in a notebook say, must not go on as if it were done
                    raise TrainingInterrupt(told)
                return parallel.for_saving(state)
        checkpoints.wait()
        counts = run.data.num_train, run.data.num_val
        log.summary(first_step, log.pace.seconds, *counts, results, checkpoints.best(), run.distances)
        return parallel.for_saving(state)


class _InFlight(NamedTuple):
    """A dispatch that the devices may still be at: its last step, and of that step metrics to log or none."""

    step: int
    finite: jax.Array
    metrics: Mapping[str, jax.Array]


def _num_parameters(state: PyTree) -> int:
    """Return how many parameters are trained; of all numbers of a state that has no "params"."""
    params = state["params"] if isinstance(state, Mapping) and "params" in state else state
    return sum(x.size for x in jax.tree.leaves(params))


def _multiply_adds(config: ConfigDict, objective: Objective) -> float | None:
    """Return the multiply-adds of a step, or None where they cannot be counted."""
    try:
        return cost.measure(config, objective).step
    except Exception:  # the user's objective: only this figure is missing then
        return None


def _first_images(data: Data, count: int) -> dict[str, np.ndarray]:
    """Return the first validation images (training images if there are none), the rows of every sample grid."""
    if data.num_val and (found := next(data.validation(count), None)) is not None:
        return found
    batches = data.train(0)
    found = next(batches)
    while len(found["real_a"]) < count:
        found = {k: np.concatenate([v, new]) for (k, v), new in zip(found.items(), next(batches).values(), strict=True)}
    return {k: v[:count] for k, v in found.items()}


def _evaluate(run: start.Start, state: PyTree, rng: jax.Array, has_unknown: bool) -> dict[str, float]:
    """Return the mean of every metric over all validation images of all processes.

    Infinite values, such as the PSNR of equal images, are left out, unless all are; and the NaN of images without a
    known pixel.
    """
    assert run.data
    totals = {name: np.zeros(2) for name in run.eval_metrics}  # the sum of what is not infinite, and how many they are
    for batch in run.data.validation(run.evaluate.part):
        for name, values in run.evaluate(state, batch, rng)[0].items():
            values = np.asarray(values, np.float64)
            kept = values[np.isfinite(values) if has_unknown else ~np.isinf(values)]
            totals[name] += kept.sum(), kept.size
    sums = parallel.sum_over_processes(np.array(list(totals.values())))
    return {
        name: float(total / count) if count else math.inf for name, (total, count) in zip(totals, sums, strict=True)
    }


def _agreed(signum: int, step: int, config: ConfigDict) -> int:
    """Return the signal to stop at now, or 0; several processes agree at logged steps, so none goes on by itself."""
    if jax.process_count() > 1 and step % config.log_every:
        return 0
    return parallel.highest(signum)


def _settle(
    in_flight: collections.deque[_InFlight], log: monitoring.Log, checkpoints: Checkpoints, leave: int = 0
) -> None:
    """Wait for all but the last `leave` dispatches and log them; raise TrainingDivergedError for the first bad step."""
    while len(in_flight) > leave:
        step, finite, metrics = in_flight.popleft()
        bad = np.flatnonzero(~np.asarray(finite))
        if len(bad):
            raise _diverged(step - finite.size + 1 + int(bad[0]), "a loss", checkpoints)
        log.reached(step)
        if metrics:
            row = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
            log.progress(step, row)


def _diverged(step: int, what: str, checkpoints: Checkpoints) -> TrainingDivergedError:
    good = checkpoints.latest_step()
    kept = f"The last good checkpoint is {checkpoints.directory / str(good)}" if good else "There is no checkpoint yet"
    return TrainingDivergedError(
        f"{what} is not finite (NaN or infinite) at step {step:,}. {kept}. Try a lower "
        "config.optimizer.learning_rate in a new `workdir`, and check the input images."
    )
