"""The training loop: the only file that knows its order."""

import collections
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from p2p_jax import fine_tuning, monitoring, parallel
from p2p_jax.checkpoint import CONVERTED, Checkpoints, read_config, refuse_other_config
from p2p_jax.config import complete, resolve, to_json
from p2p_jax.data import Data, load
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.images.domains import of_config
from p2p_jax.objectives import Objective
from p2p_jax.options import image_shapes

PyTree = Any
_EVALUATED_PER_DEVICE = 8  # validation images at a time


def train(
    config: Mapping[str, Any] | ConfigDict,
    workdir: str | Path,
    objective: Objective | None = None,
    data: Data | None = None,
) -> PyTree:
    """Train, or go on with the training that `workdir` holds, until ``config.num_steps``.

    Args:
      config: the experiment; missing options take the defaults of ``p2p_jax.options``. It is not changed.
      workdir: the run's directory. It receives ``config.json``, ``metrics.csv``, ``samples/``, ``checkpoints/``,
        ``summary.txt`` and, where tensorboardX is installed, ``tensorboard/``.
      objective: what is trained; by default what ``config.objective`` names.
      data: the data set; by default what ``config.data`` describes, for which TensorFlow is needed.

    Returns:
      The state after the last step.

    Raises:
      InputError: the config, the data or the directory cannot be used; raised before training starts, except for a
        damaged image among very many.
      TrainingDivergedError: a loss or a parameter is no longer finite.
    """
    with contextlib.ExitStack() as stack:
        stop_requested = stack.enter_context(monitoring.stop_requests())  # first in, last out: it guards every save
        run = _open(complete(config), Path(workdir), objective, data, stack)
        config, checkpoints, state, step = run.config, run.checkpoints, run.state, run.step
        if run.data is None:
            print(f"{workdir}: this run is finished ({step:,} of {config.num_steps:,} steps); nothing to do")
            return state

        rng = jax.random.key(config.seed)
        update = parallel.compile_update(run.objective.update)
        evaluate = parallel.compile_evaluate(run.objective.evaluate, _EVALUATED_PER_DEVICE)
        columns = _metric_names(run, rng)
        sample_batch = _first_images(run.data, config.num_samples)
        log = stack.enter_context(contextlib.closing(monitoring.Log(run.workdir, columns, step, config)))
        batches = run.data.train(step)
        stack.callback(getattr(batches, "close", lambda: None))  # a generator's reading threads end with the run
        in_flight: collections.deque[tuple[int, jax.Array]] = collections.deque()
        first_step, started = step, time.monotonic()

        def due(every):
            return step % every == 0 or step == config.num_steps

        print(f"compiling for {jax.device_count()} device(s) of kind {jax.devices()[0].device_kind} ...", flush=True)
        while step < config.num_steps:
            state, metrics, finite = update(state, next(batches), rng)
            step += 1
            in_flight.append((step, finite))
            reports = due(config.log_every) or due(config.eval_every) or due(config.sample_every)
            _stop_if_diverged(in_flight, checkpoints, leave=0 if reports else 2)  # the host is at most two steps ahead

            row, results = {}, None
            if due(config.log_every):
                row = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
                log.progress(step, row)
            if due(config.eval_every) and run.data.num_val:
                results = _evaluate(evaluate, run.data, state, rng, columns)
                row |= {f"eval/{name}": value for name, value in results.items()}
                log.evaluation(step, results, run.data.num_val)
            log.metrics(step, row)
            if due(config.sample_every):
                log.samples(step, evaluate(state, sample_batch, rng)[1])

            stopping = _agreed(stop_requested.is_set(), step, config) and step < config.num_steps
            if due(config.checkpoint_every) or stopping or (results and checkpoints.is_best(results)):
                _stop_if_diverged(in_flight, checkpoints)
                if not parallel.all_finite(state):
                    raise _diverged(step, "a parameter", checkpoints)
                checkpoints.save(step, parallel.for_saving(state), results)
            if stopping:
                checkpoints.wait()
                print(f"stopped at step {step:,}; the same command goes on from there")
                return parallel.for_saving(state)
        checkpoints.wait()
        best = checkpoints.best()
        log.summary(first_step, time.monotonic() - started, run.data.num_train, run.data.num_val, results, best)
        return parallel.for_saving(state)


class _Run(NamedTuple):
    """A run, opened: everything that the loop starts from. `data` is None if no step is left to do."""

    config: ConfigDict
    workdir: Path
    objective: Objective
    data: Data | None
    checkpoints: Checkpoints
    state: PyTree
    step: int


def _open(
    config: ConfigDict,
    workdir: Path,
    objective: Objective | None,
    data: Data | None,
    stack: contextlib.ExitStack,
) -> _Run:
    """Check everything that can be wrong, the cheap things first, and restore or make the state."""
    parallel.check_batch_size(config.batch_size)
    if "float64" in (config.dtype, config.param_dtype) and not jax.config.read("jax_enable_x64"):
        raise InputError("float64 is switched off in JAX: set the environment variable JAX_ENABLE_X64=1")
    stored, checkpoints, step = read_config(workdir), None, 0
    if stored is not None and (workdir / CONVERTED).is_file():
        raise InputError(
            f"{workdir} holds converted weights, not a training run; give a new --workdir and "
            f"--config.init_from={workdir}"
        )
    if stored is not None:
        config = _with_data_facts(config, stored.data.num_train, stored.data.fingerprint, _open_facts(config, stored))
        refuse_other_config(workdir, stored, config)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config)))
        step = checkpoints.latest_step() or 0
    source = fine_tuning.find_source(config.init_from, workdir) if config.init_from and not step else None
    if step < config.num_steps:
        data = data or load(config, process_index=jax.process_index(), process_count=jax.process_count())
        config = _with_data_facts(config, data.num_train, data.fingerprint, getattr(data, "facts", {}))
        changed = refuse_other_config(workdir, stored, config) if stored is not None else {}
        for key, (old, new) in changed.items():
            print(f"config.{key} is now {new!r} (it was {old!r})")
    else:
        data = None

    objective = objective or resolve(config.objective)(config)
    rng, batch = jax.random.key(config.seed), _blank_batch(config)
    shapes = jax.eval_shape(objective.init, rng, batch)
    names = jax.eval_shape(objective.evaluate, shapes, batch, rng)[0]
    if config.best_metric not in names:
        raise InputError(f"config.best_metric is {config.best_metric!r}; the objective has {', '.join(names)}")

    if checkpoints and step:
        print(f"{workdir}: found a checkpoint of step {step:,}")
        state = checkpoints.restore(step, shapes, parallel.state_sharding())
    else:
        state = jax.jit(objective.init)(rng, batch)
        state = parallel.replicate(fine_tuning.take_weights(source, state, config) if source else state)
    checkpoints = checkpoints or stack.enter_context(contextlib.closing(Checkpoints(workdir, config)))
    if data is not None and jax.process_index() == 0:
        monitoring.write_atomically(workdir / "config.json", to_json(config))
    return _Run(config, workdir, objective, data, checkpoints, state, step)


def _open_facts(config: ConfigDict, stored: ConfigDict) -> dict[str, str]:
    """Return the facts that the first start of a run found in the images, where the config leaves them open."""
    facts = {}
    for side, domain in zip("ab", of_config(config.data), strict=True):
        if not domain.is_measured:
            facts[f"range_{side}"] = stored.data[f"range_{side}"]
        if domain.is_labels and domain.palette is None:
            facts[f"palette_{side}"] = stored.data[f"palette_{side}"]
    return facts


def _with_data_facts(config: ConfigDict, num_train: int, fingerprint: str, found: Mapping[str, str]) -> ConfigDict:
    """Return a copy that says how many training examples there are, what they are recognised by, and what was found."""
    if config.data.num_train not in (0, num_train):
        raise InputError(
            f"config.data.num_train is {config.data.num_train}, but there are {num_train} training examples"
        )
    facts = {"num_train": num_train, "fingerprint": fingerprint, **found}
    return complete({**config.to_dict(), "data": {**config.data.to_dict(), **facts}})


def _blank_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    """Return a batch of one gray example: its shapes and dtypes are what a state is made from."""
    return {name: np.zeros((1, *shape), np.float32) for name, shape in image_shapes(config.data).items()}


def _metric_names(run: _Run, rng: jax.Array) -> list[str]:
    """Return the columns of metrics.csv, found by tracing alone."""
    batch = {k: v[None] for k, v in _blank_batch(run.config).items()}
    update = jax.vmap(run.objective.update, in_axes=(None, 0, None), axis_name=parallel.DEVICE_AXIS)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), run.state)
    metrics = jax.eval_shape(update, shapes, batch, rng)[1]
    results = jax.eval_shape(run.objective.evaluate, shapes, _blank_batch(run.config), rng)[0]
    return [f"train/{name}" for name in metrics] + [f"eval/{name}" for name in results]


def _first_images(data: Data, count: int) -> dict[str, np.ndarray]:
    """Return the first validation images (training images if there are none), the rows of every sample grid."""
    found = next(data.validation(count), None) if data.num_val else None
    if found is not None:
        return found
    batches = data.train(0)
    found = next(batches)
    while len(found["real_a"]) < count:
        found = {k: np.concatenate([v, new]) for (k, v), new in zip(found.items(), next(batches).values(), strict=True)}
    return {k: v[:count] for k, v in found.items()}


def _evaluate(
    evaluate: Callable, data: Data, state: PyTree, rng: jax.Array, columns: Sequence[str]
) -> dict[str, float]:
    """Return the mean of every metric over all validation images of all processes."""
    totals = {name.removeprefix("eval/"): 0.0 for name in columns if name.startswith("eval/")}
    for batch in data.validation(_EVALUATED_PER_DEVICE * jax.local_device_count()):
        for name, values in evaluate(state, batch, rng)[0].items():
            totals[name] += float(values.sum(dtype=np.float64))
    sums = parallel.sum_over_processes(np.array(list(totals.values())))
    return {name: float(value) / data.num_val for name, value in zip(totals, sums, strict=True)}


def _agreed(stop: bool, step: int, config: ConfigDict) -> bool:
    """Tell whether to stop now; several processes agree at logged steps, so that none goes on alone."""
    if jax.process_count() > 1 and step % config.log_every:
        return False
    return parallel.any_process(stop)


def _stop_if_diverged(
    in_flight: collections.deque[tuple[int, jax.Array]], checkpoints: Checkpoints, leave: int = 0
) -> None:
    """Wait for all but the last `leave` steps; raise TrainingDivergedError for the first with a loss not finite."""
    while len(in_flight) > leave:
        step, finite = in_flight.popleft()
        if not finite:
            raise _diverged(step, "a loss", checkpoints)


def _diverged(step: int, what: str, checkpoints: Checkpoints) -> TrainingDivergedError:
    good = checkpoints.latest_step()
    kept = f"The last good checkpoint is {checkpoints.directory / str(good)}" if good else "There is no checkpoint yet"
    return TrainingDivergedError(
        f"{what} is not finite (NaN or infinite) at step {step:,}. {kept}. A lower config.optimizer.learning_rate in a "
        "new --workdir, and a look at the input images, are the usual mends."
    )
