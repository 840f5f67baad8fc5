"""Averages of the generators over the steps (EMA): what is validated and used later, where ``config.ema`` asks for it.

Adversarial training never settles: its weights circle around what they look for, and their mean is nearer to it. Beside
the weights that are trained a state holds

    ema["params"][player], ema["batch_stats"][player]    of every player with a name that begins with "gen"

after each step ``average = beta average + (1 - beta) new``. Running statistics of norms go along: those of the weights
of the last step do not fit averaged ones.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.config import complete
from p2p_jax.errors import InputError
from p2p_jax.objectives.base import Objective

KEY = "ema"
"""Of a state: the average."""
COLLECTIONS = ("params", "batch_stats")
"""What is averaged, both by player."""
_MARK = "_p2p_jax_average"  # of the functions of an objective that has an average already: its options
_LEFT = 0.01  # of the first weights, in the average at the end of a run; more than this is reported
_ABOUT = 1e-2  # of a length, to rounding in half precision
_DIRECTIONS = ("u", "v")  # of length 1, which spectral norms keep in batch_stats; a mean of them is shorter


def averaged(objective: Objective, config: ConfigDict) -> Objective:
    """Return an objective that averages its generators as ``config.ema`` asks, or the same one where it does not.

    `translate` and `evaluate` take the average where a state has it; ``trained_alone(state)`` gives, through the same
    functions, what the weights themselves make. All else of the state is as the objective has it, and its `update` does
    not see the average. An objective that has been given an average here is returned as it is.

    Args:
      objective: any whose state has ``params``, and ``batch_stats`` if there are any, by player.
      config: complete or not.

    Raises:
      InputError: the objective has an average of another config; or, from `init`, no player has a name that begins
        with "gen".
    """
    config = complete(config)
    asked = config.ema.to_dict() if asks(config) else None
    kept = next((getattr(function, _MARK) for function in objective if hasattr(function, _MARK)), None)
    if kept is not None and kept != asked:
        raise InputError(f"the objective averages its generators by {kept}, but config.ema is {config.ema.to_dict()}")
    if asked is None or kept is not None:
        return objective

    def init(rng, batch):
        state = objective.init(rng, batch)
        if _has_average(state):
            raise InputError(
                f'the state of config.objective={config.objective} has its own entry "{KEY}", but '
                "config.ema stores its average there: rename the entry, or leave config.ema out"
            )
        return begun(state)

    def update(state, batch, rng):
        new, metrics = objective.update(trained_alone(state), batch, rng)
        weight = _weight_of_new(config, state["step"])
        average = jax.tree_util.tree_map_with_path(
            lambda path, old, x: _mix(path, old, x, weight), state[KEY], _generators(new)
        )
        return {**new, KEY: average}, metrics

    def translate(state, batch, rng):
        return objective.translate(in_use(state), batch, rng)

    def evaluate(state, batch, rng):
        return objective.evaluate(in_use(state), batch, rng)

    made = Objective(init, update, translate, evaluate)
    pairs: list[tuple[Any, Any]] = list(zip(made, objective, strict=True))
    for function, own in pairs:
        functools.update_wrapper(function, own)  # a run keeps the source of the module that it is from
        vars(function)[_MARK] = asked
    return made


def asks(config: Mapping[str, Any]) -> bool:
    """Return whether a config asks for an average."""
    section = config.get("ema") or {}
    return bool(section.get("decay") or section.get("half_life"))


def begun(state: Any) -> dict[str, Any]:
    """Return a state with its current weights as the average, in at least float32.

    Raises:
      InputError: none of its players has a name that begins with "gen".
    """
    # Copies: a step on an accelerator takes the memory of both.
    average = jax.tree.map(lambda x: jnp.array(x, _dtype_of_average(x), copy=True), _generators(state))
    if not average["params"]:
        names = ", ".join(state["params"]) if isinstance(state, Mapping) and "params" in state else "none"
        raise InputError(
            'config.ema averages the players whose names begin with "gen", in the entry "params" of the objective\'s '
            f"state, but this one has {names}: set config.ema.decay=0. and config.ema.half_life=0."
        )
    return {**state, KEY: average}


def trained_alone(state: Any) -> Any:
    """Return a state without its average: of the weights that are trained."""
    return {key: part for key, part in state.items() if key != KEY} if _has_average(state) else state


def in_use(state: Any) -> Any:
    """Return a state with the average in the place of the weights, where it has one."""
    if not _has_average(state):
        return state
    both = {key: {**state.get(key, {}), **state[KEY][key]} for key in COLLECTIONS}
    return {**trained_alone(state), **both}


def notes(config: ConfigDict) -> list[str]:
    """Say how a run averages its generators, and where its beginning would still show at its end.

    Args:
      config: complete.
    """
    if not asks(config):
        return []
    ema = config.ema
    how = f"half-life {ema.half_life:g} images" if ema.half_life else f"decay {ema.decay:g} a step"
    ramp = f", at most {ema.ramp_up:g} of the images seen" if ema.ramp_up else ""
    found = [f"generators are averaged ({how}{ramp}): validation and translation use the average (config.ema)"]
    left = _decay(config) ** config.num_steps
    if not ema.ramp_up and not config.init_from and left > _LEFT:
        found.append(
            f"note: at the end {left:.0%} of the average would still be the initial, untrained weights: set "
            "config.ema.ramp_up=0.05, or a shorter average"
        )
    return found


def _has_average(state: Any) -> bool:
    return isinstance(state, Mapping) and KEY in state


def _generators(state: Any) -> dict[str, dict[str, Any]]:
    """Return what is averaged, ``{"params": {player: ...}, "batch_stats": {player: ...}}``."""
    found = state if isinstance(state, Mapping) else {}
    return {
        key: {name: tree for name, tree in found.get(key, {}).items() if name.startswith("gen")} for key in COLLECTIONS
    }


def _dtype_of_average(x: jax.Array) -> Any:
    return jnp.promote_types(jnp.float32, x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype


def _decay(config: ConfigDict) -> float:
    """Return what a step keeps of the average, before the ramp-up."""
    ema = config.ema
    return 0.5 ** (config.batch_size / ema.half_life) if ema.half_life else ema.decay


def _weight_of_new(config: ConfigDict, step: jax.Array) -> Any:
    """Return ``1 - beta``, with all its digits where beta is nearly 1.

    As in StyleGAN2-ADA, ``beta = 0.5 ** (batch / half_life)``, the half-life being at most ``ramp_up`` of the images
    seen before this step: the first step keeps nothing of the untrained weights.
    """
    halvings = config.batch_size / config.ema.half_life if config.ema.half_life else -math.log2(config.ema.decay)
    if not config.ema.ramp_up:
        return -math.expm1(-halvings * math.log(2))
    seen = step.astype(jnp.result_type(float)) * config.batch_size
    halvings = jnp.maximum(halvings, config.batch_size / jnp.maximum(config.ema.ramp_up * seen, 1e-8))
    return -jnp.expm1(-halvings * math.log(2))


def _mix(path: tuple, old: jax.Array, new: jax.Array, weight: Any) -> jax.Array:
    """Move an average by a weight of at most 1 towards a new value; numbers that are not floating are the new ones."""
    if not jnp.issubdtype(old.dtype, jnp.floating):
        return new
    new, weight = new.astype(old.dtype), jnp.asarray(weight, old.dtype)
    # Either form is exact at its own end.
    mixed = jnp.where(weight < 0.5, old + weight * (new - old), new - (1 - weight) * (new - old))
    name = str(getattr(path[-1], "key", "")).rpartition("/")[2]
    if path[0].key == "batch_stats" and name in _DIRECTIONS:
        length, of_new = (jnp.sqrt(jnp.square(x).sum()) for x in (mixed, new))
        # A statistic of somebody's own may have that name: only those of length 1 stay so.
        mixed /= jnp.where(jnp.abs(of_new - 1) < _ABOUT, jnp.maximum(length, jnp.finfo(mixed.dtype).tiny), 1)
    return mixed
