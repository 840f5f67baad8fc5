"""The start of a training: everything that can be wrong is checked, and the state is restored or made."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from p2p_jax.cluster import distributed
from p2p_jax.config import completed_like, to_json, with_facts
from p2p_jax.config.options import crop_shape
from p2p_jax.config.stored import Trust, outside
from p2p_jax.data import Data, load
from p2p_jax.data.elsewhere import remember_start
from p2p_jax.data.given import check_given
from p2p_jax.errors import InputError
from p2p_jax.objectives import Objective, averaging, blank_batch, make_objective, precision, statistics
from p2p_jax.objectives.metrics import find_metrics
from p2p_jax.objectives.optim import decide_unit, falls_between, full_rates
from p2p_jax.reporting import say
from p2p_jax.training import computed_on, digests, fine_tuning, own_code, parallel
from p2p_jax.training.checkpoint import CONVERTED, read_config, read_facts
from p2p_jax.training.distances import Distances, open_features, require_same_features
from p2p_jax.training.loggers import find as find_loggers
from p2p_jax.training.resuming import as_facts, refuse_links, refuse_other_config, refuse_other_images, write_names
from p2p_jax.training.saving import Checkpoints
from p2p_jax.training.soundness import settle

PyTree = Any
_EVALUATED_PER_DEVICE = 8  # validation images at a time
_IDLE = 0.1  # share of a run's steps that may have a learning rate of 0


class _Counted(NamedTuple):
    """The number of validation images, as in ``Data``."""

    num_val: int
    val_counts: tuple[int, int]


class Start(NamedTuple):
    """Everything that the loop starts from: the config filled in. `data` is None if no step is left to do.

    `shapes` are those of the state, with dtypes.
    """

    config: ConfigDict
    workdir: Path
    objective: Objective
    data: Data | None
    checkpoints: Checkpoints
    shapes: PyTree
    step: int
    evaluate: parallel.Evaluation
    eval_metrics: list[str]
    distances: Distances | None


def prepare(
    config: ConfigDict,
    workdir: Path,
    objective: Objective | None,
    data: Data | None,
    stack: contextlib.ExitStack,
    trust: Trust = (),
) -> tuple[Start, Callable[[], PyTree]]:
    """Check everything that can be wrong, the cheap things first, and restore the state if there is one.

    Args:
      config: complete.
      workdir: the run's directory.
      objective: what is trained; None: what the config names.
      data: the data set; None: what the config describes.
      stack: what is opened is closed with it.
      trust: code outside the library that the stored config of another run may name, ``config.init_from``.

    Returns:
      What the loop starts from, and a function that returns the first state: what compiling takes can be given back
      before there is one.

    Raises:
      InputError: the config, the data or the directory cannot be used.
    """
    parallel.check_batch_size(config.batch_size)
    if "float64" in (config.dtype, config.param_dtype) and not jax.config.read("jax_enable_x64"):
        raise InputError("float64 is switched off in JAX: set the environment variable JAX_ENABLE_X64=1")
    refuse_links(workdir)
    stored, changed = read_config(workdir, None), {}
    facts = {} if stored is None else read_facts(workdir)  # those of a start that saved nothing do not count
    checkpoints, step = None, 0
    if stored is not None and (workdir / CONVERTED).is_file():
        raise InputError(
            f"{workdir} holds converted weights, not a training run; give a new `workdir` and "
            f"--config.init_from={workdir}"
        )
    if stored is not None:
        stored = stored if objective else completed_like(stored, config)
        changed = refuse_other_config(workdir, stored, config)
        if objective:
            own_code.compare(workdir)
        else:
            own_code.offer(workdir, outside(config))
    find_loggers(config.loggers)
    settle(workdir)
    if stored is not None:
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config, facts)))
        step = checkpoints.latest_step() or 0
    distributed.require_same(
        "the newest checkpoint", str(step), "wait until all hosts see the same `workdir`, then start again"
    )
    source = fine_tuning.find_source(config.init_from, workdir, trust) if config.init_from and stored is None else None
    features = open_features(config) if config.distances.features and step < config.num_steps else None
    if step < config.num_steps:
        given = data is not None
        if data is None:
            data = load(config, process_index=jax.process_index(), process_count=jax.process_count())
        else:
            data = check_given(data, config, jax.process_count())
        found = _found(config, data, facts, given=given)
        if stored is not None:
            refuse_other_images(workdir, facts, found, data.identities)
        _require_enough(config, data.num_train)
        if told := computed_on.difference(facts.get("computed_on", {}), found["computed_on"]):
            say(f"{workdir}: {told}")
        if features and (weights := require_same_features(facts, features)):
            found["distances"] = weights
        facts = found
        for key, (old, new) in changed.items():
            say(f"config.{key} is now {new!r} (it was {old!r})")
    else:
        data = None
    asked, config = config, with_facts(config, facts)
    if data is not None:
        _tell_learning_rate(config, workdir if stored is not None else None)
        for note in averaging.notes(config):
            say(note)

    given_objective, objective = objective, make_objective(config, objective)
    rng, batch, init = jax.random.key(config.seed), blank_batch(config), parallel.compile_init(objective.init)
    try:
        shapes = jax.eval_shape(init, rng, batch)  # a trace that the call uses again
    except InputError as error:
        if str(error).startswith("config."):  # it names the option itself
            raise
        height, width = crop_shape(config.data)
        raise InputError(f"images of config.data.crop_size={height} (width {width}): {error}") from error
    if data is not None and "inference" in facts and _has_batch_norm(shapes):
        own = {"batch": "the image's own statistics", "running": "running statistics"}[facts["inference"]["norm"]]
        say(f"batch norm: validation and translation use {own} (config.inference.norm=auto)")
    evaluate = parallel.Evaluation(objective.evaluate, _EVALUATED_PER_DEVICE)
    names = evaluate.metrics(shapes, batch, rng)
    find_metrics(config.metrics)  # evaluation uses them with every objective
    distances = Distances(config, objective, shapes, data, features) if features and data is not None else None
    _require_names(config, names, distances)

    state = None
    if checkpoints and checkpoints.latest_step() is not None:
        say(f"{workdir}: found a checkpoint of step {step:,}")
        state = checkpoints.restore(step, shapes, parallel.state_sharding())
    elif source:
        state = parallel.replicate(fine_tuning.take_weights(source, init(rng, batch), config))

    def make_state():
        return parallel.replicate(init(rng, batch)) if state is None else state

    checkpoints = checkpoints or stack.enter_context(contextlib.closing(Checkpoints(workdir, asked, facts)))
    if data is not None and jax.process_index() == 0:
        digests.write_recorded(workdir / "facts.json", json.dumps(facts, indent=2) + "\n")
        digests.write_recorded(workdir / "config.json", to_json(asked))
        own_code.store(workdir, asked, given_objective or ())
        write_names(workdir, data.identities)
        remember_start(workdir, asked)
    if distances:
        distances.look()
    start = Start(config, workdir, objective, data, checkpoints, shapes, step, evaluate, names, distances)
    return start, make_state


def check_measures(config: ConfigDict, counts: tuple[int, int]) -> None:
    """Check that a run can measure what its config asks for, without a look at images.

    Args:
      config: complete.
      counts: of the validation images, A and B.

    Raises:
      InputError: a metric is unknown or says nothing, or features cannot be had.
    """
    objective = make_objective(config)
    rng, batch = jax.random.key(config.seed), blank_batch(config)
    shapes = jax.eval_shape(objective.init, rng, batch)
    names = list(jax.eval_shape(objective.evaluate, shapes, batch, rng)[0])
    find_metrics(config.metrics)
    features = open_features(config) if config.distances.features else None
    images: Any = _Counted(max(counts), counts)  # it asks for no more before it looks
    distances = Distances(config, objective, shapes, images, features) if features else None
    _require_names(config, names, distances)


def _require_names(config: ConfigDict, names: list[str], distances: Distances | None) -> None:
    """Refuse a best metric that there is not, and metrics that distances would hide."""
    if twice := sorted(set(names) & set(distances.names if distances else ())):
        raise InputError(
            f"the objective and config.distances.features both have a metric {twice[0]}: rename one of them"
        )
    known = names + (distances.names if distances else [])
    if config.best_metric not in known and (distances or not config.distances.features):
        hint = "" if config.distances.features else "; kid and fid come with config.distances.features"
        raise InputError(f"config.best_metric is {config.best_metric!r}; the objective has {', '.join(known)}{hint}")
    if distances and config.best_metric in distances.names and config.best_metric.startswith(("copy_", "kid_std")):
        raise InputError(
            f"config.best_metric={config.best_metric} does not say how good a checkpoint is: choose kid or fid, or a "
            "metric of images"
        )
    if distances and config.best_metric in distances.names and config.best_mode == "max":
        raise InputError(f"config.best_mode=max would keep the worst {config.best_metric}: set config.best_mode=min")


def _found(config: ConfigDict, data: Data, before: Mapping[str, Any], *, given: bool) -> dict[str, Any]:
    """Return what ``facts.json`` is to hold; what a run has decided at its first start stays.

    Raises:
      InputError: the processes have not the same images.
    """
    images = as_facts(data.identities)
    alike = json.dumps([data.fingerprint, images])
    distributed.require_same("the training data", alike, "every host needs the same files")
    found = {"num_train": int(data.num_train), "fingerprint": data.fingerprint, **data.facts}
    if images or "images" in before:
        found["images"] = images or before["images"]  # what is given may not know itself
    if given:
        found["source"] = "given"
    if config.inference.norm == "auto":  # on however many devices it goes on
        found["inference"] = before.get("inference") or {"norm": statistics(config)}
    if config.schedule.unit == "auto" and config.schedule.kind != "constant":  # more steps do not stretch it
        counted = with_facts(config, {"num_train": data.num_train})
        found["schedule"] = before.get("schedule") or decide_unit(counted)
    found["computed_on"] = computed_on.found(precision.in_force(config))
    return found


def _require_enough(config: ConfigDict, num_train: int) -> None:
    """Refuse another number of training images than the config says, or fewer than a batch has."""
    if config.data.num_train not in (0, num_train):
        raise InputError(
            f"there are {num_train} training images, but config.data.num_train={config.data.num_train} expects another "
            "number: look for missing or new files, or leave config.data.num_train out"
        )
    if config.batch_size > num_train:
        raise InputError(f"config.batch_size is {config.batch_size}, but there are {num_train} training examples")


def _tell_learning_rate(config: ConfigDict, begun: Path | None) -> None:
    """Report when the learning rate falls; refuse a run with many steps at a rate of 0."""
    found = falls_between(config)
    if found is None:
        return
    falls, ends = found
    rates = full_rates(config)
    told = f"{rates['lr']:g}" + "".join(f" (discriminators {x:g})" for name, x in rates.items() if name != "lr")
    say(f"learning rate: {told}, falling from step {falls:,}, 0 from step {ends:,}; {config.num_steps:,} steps in all")
    idle = config.num_steps - ends
    if config.schedule.beyond_zero or idle <= config.num_steps * _IDLE:
        return
    if begun is None:
        way = "set config.schedule.unit=auto, which fits the schedule to the run"
    else:
        way = f"to train longer, start a new run from these weights: a new `workdir` and config.init_from={begun}"
    raise InputError(
        f"the learning rate is 0 from step {ends:,} on, so {idle:,} of the {config.num_steps:,} steps would "
        f"change no weight: {way}; or set config.num_steps={ends}; or config.schedule.beyond_zero=True to allow it"
    )


def _has_batch_norm(state: PyTree) -> bool:
    """Return whether a generator of a state keeps running statistics."""
    stats = state.get("batch_stats", {}) if isinstance(state, Mapping) else {}
    return any(jax.tree.leaves(stats[name]) for name in stats if name.startswith("gen"))
