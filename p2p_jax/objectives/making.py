"""The objective that a config names, with what the rest of the config puts around it."""

from ml_collections import ConfigDict

from p2p_jax.config import complete, resolve
from p2p_jax.errors import InputError
from p2p_jax.objectives.averaging import averaged
from p2p_jax.objectives.base import Objective
from p2p_jax.objectives.precision import with_precision


def make_objective(config: ConfigDict, given: Objective | None = None) -> Objective:
    """Make the objective that a config names, or take the one that is given.

    Its generators are averaged where ``config.ema`` asks for it, and its products are as exact as ``config.precision``.

    Raises:
      InputError: there is no such function, or it does not return an objective.
    """
    return with_precision(averaged(given or _named(config), config), complete(config))


def _named(config: ConfigDict) -> Objective:
    make = resolve(config.objective, "config.objective")
    if not callable(make):
        raise InputError(f"config.objective={config.objective} is not a function from a config to an Objective")
    objective = make(config)
    if not isinstance(objective, Objective) or not all(map(callable, objective)):
        raise InputError(
            f"config.objective={config.objective} returns {type(objective).__name__}, not a p2p_jax.Objective with "
            "the four functions init, update, translate and evaluate"
        )
    return objective
