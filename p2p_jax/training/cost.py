"""The cost of an experiment, on any device: multiply-adds of a training step and of a translation, and parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from ml_collections import ConfigDict

from p2p_jax.config import complete, complete_experiment, with_facts
from p2p_jax.config.options import image_shapes
from p2p_jax.objectives import DEVICE_AXIS, Objective, make_objective
from p2p_jax.training import arithmetic

_AT_ONCE = 2**16  # steps


class Cost(NamedTuple):
    """The cost of an experiment.

    Attributes:
      step: multiply-adds of a training step on the whole batch, the mean over all steps of the run.
      image: multiply-adds of the translation of one image, A to B, at the size of training.
      trained: parameters that are trained; 0 if the state does not say (it has no "params").
      translator: parameters and statistics that a translation takes.
      doubts: why the multiply-adds are not certain, in words; empty if they are.
    """

    step: float
    image: float
    trained: int
    translator: int
    doubts: tuple[str, ...] = ()


def measure(config: ConfigDict, objective: Objective | None = None) -> Cost:
    """Count what an experiment costs, by only tracing it; what counts as a multiply-add, see ``training.arithmetic``.

    Branches that depend on the number of the step (a term in every 16th step, say) or on the step's random numbers are
    followed through all steps of the run.

    Args:
      config: complete or not; reads ``num_steps``, ``batch_size`` and what the objective reads.
      objective: what is trained; by default what ``config.objective`` names.

    Raises:
      InputError: the experiment cannot be made, or there is work in a loop with an unknown number of iterations.
    """
    config = complete(config) if objective else complete_experiment(config)
    if not config.data.num_train:  # the learning rate may ask for it
        config = with_facts(config, {"num_train": config.batch_size})
    objective = objective or make_objective(config)
    rng = jax.random.key(config.seed)
    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.float32)
        for name, shape in image_shapes(config.data).items()
    }
    state = jax.eval_shape(objective.init, rng, batch)
    step, doubts = _of_steps(objective, state, batch, config)
    one = {name: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for name, x in batch.items()}
    translation = arithmetic.traced(lambda *given: objective.translate(*given)["fake_b"], state, one, rng)
    of_image = arithmetic.count(translation)
    params = state["params"] if isinstance(state, Mapping) and "params" in state else ()
    return Cost(
        step,
        of_image.most(),
        sum(x.size for x in jax.tree.leaves(params)),
        _read(translation, len(jax.tree.leaves(state))),
        tuple(sorted(doubts | of_image.doubts)),
    )


def _of_steps(
    objective: Objective, state: Any, batch: Mapping[str, Any], config: ConfigDict
) -> tuple[float, frozenset[str]]:
    """Return the multiply-adds of a step, the mean over the run, and the doubts about them."""
    rng = jax.random.key(config.seed)
    program = arithmetic.traced(objective.update, state, batch, rng, axes=[(DEVICE_AXIS, 1)])
    places = [path for path, _ in jax.tree_util.tree_leaves_with_path((state, batch, rng))]
    of_step, of_rng = places.index((jax.tree_util.SequenceKey(0), *_path_of_step(state))), len(places) - 1
    given = [arithmetic.known(None) if i in (of_step, of_rng) else None for i in range(len(places))]
    found: list[arithmetic.Work] = []

    def follow(step: jax.Array) -> list[jax.Array]:
        # As the loop has them, on one device.
        given[of_step] = arithmetic.known(step)
        given[of_rng] = arithmetic.known(jax.random.fold_in(jax.random.fold_in(rng, step), 0))
        found.append(arithmetic.count(program, given))
        return list(found[-1].indices())

    total = 0.0
    for first in range(0, config.num_steps, _AT_ONCE):
        steps = jnp.arange(first, min(first + _AT_ONCE, config.num_steps), dtype=jnp.int32)
        indices = jax.vmap(follow)(steps)
        work = found.pop()
        if not work.choices:  # every step is like any other
            return float(work.fixed), work.doubts
        total += float(np.sum(work.total(map(np.asarray, indices))))
    return total / config.num_steps, work.doubts


def _path_of_step(state: Any) -> tuple[Any, ...]:
    """Return where in a state the number of the step is."""
    for path, _ in jax.tree_util.tree_leaves_with_path(state):
        if len(path) == 1 and getattr(path[0], "key", getattr(path[0], "name", None)) == "step":
            return path
    raise KeyError("step")


def _read(program: core.ClosedJaxpr, count: int) -> int:
    """Return how many floating-point numbers a program reads in its first `count` arguments."""
    read = {x for equation in program.jaxpr.eqns for x in equation.invars if not isinstance(x, core.Literal)}
    leaves = [x for x in program.jaxpr.invars[:count] if x in read]
    return sum(x.aval.size for x in leaves if jnp.issubdtype(x.aval.dtype, jnp.floating))
