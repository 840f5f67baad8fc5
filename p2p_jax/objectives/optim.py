"""Optimizers and learning rates, as ``config.optimizer`` and ``config.schedule`` describe them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from p2p_jax.config import complete_read_section, resolve
from p2p_jax.errors import InputError
from p2p_jax.objectives.base import average_over_devices

_FITS = 0.02  # of the steps, by which a schedule in epochs may differ from the run


def descend(tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    """Return parameters and optimizer state after one step with gradients averaged over the devices."""
    updates, opt_state = tx.update(average_over_devices(grads), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def make_schedule(config: ConfigDict) -> Callable[[Any], Any]:
    """Return the learning rate as a function of the step.

    "constant" keeps ``optimizer.learning_rate`` (the Lua release). "linear_decay" keeps it for
    ``schedule.constant_for`` and lowers it to zero over ``schedule.decay_over``, both counted in ``schedule.unit``.
    In epochs the rate changes once per epoch by the PyTorch release's rule, ``1 - max(0, epoch + 1 - constant) /
    (decay + 1)`` with epochs counted from 0; in steps it falls at every step. What the unit "auto" means, see
    ``decide_unit``.
    """
    rate, schedule = config.optimizer.learning_rate, ConfigDict(config.schedule.to_dict() | decide_unit(config))
    if schedule.kind == "constant":
        return optax.constant_schedule(rate)
    constant, decay = schedule.constant_for, schedule.decay_over
    counts_images = config.schedule.unit != "steps"
    if schedule.unit == "steps" and (not counts_images or config.data.num_train > 0):
        return optax.linear_schedule(rate, 0.0, transition_steps=decay, transition_begin=constant)

    def rate_of_epoch(step):
        if config.data.num_train <= 0:
            raise InputError(
                "a schedule in epochs, or of unit auto, needs the number of training images: set config.data.num_train "
                "before the objective is made, or let train() make it, which counts them"
            )
        epoch = step * config.batch_size // config.data.num_train
        return rate * jnp.clip(1 - jnp.maximum(0, epoch + 1 - constant) / (decay + 1), 0, 1)

    return rate_of_epoch


def decide_unit(config: ConfigDict) -> dict[str, Any]:
    """Return what ``schedule.unit="auto"`` means, as options of ``schedule``; nothing if the config says it itself.

    It means epochs where ``constant_for + decay_over`` of them are ``num_steps``, as in the published runs. On a set of
    another size, or for a run of another length, constant rate and decay have the same shares of the run.
    """
    schedule, steps = config.schedule, config.num_steps
    if schedule.kind == "constant" or schedule.unit != "auto":
        return {}
    epochs = schedule.constant_for + schedule.decay_over
    if abs(epochs * config.data.num_train / config.batch_size - steps) <= _FITS * steps:
        return {"unit": "epochs"}
    constant = min(round(steps * schedule.constant_for / epochs), steps - 1)
    return {"unit": "steps", "constant_for": constant, "decay_over": steps - constant}


def falls_between(config: ConfigDict) -> tuple[int, int] | None:
    """Return the first step with a lower learning rate and the first with none at all, None if the rate is constant."""
    if config.schedule.kind == "constant":
        return None
    schedule = config.schedule.to_dict() | decide_unit(config)
    if schedule["unit"] == "steps":
        return schedule["constant_for"] + 1, schedule["constant_for"] + schedule["decay_over"]
    ends = schedule["constant_for"], schedule["constant_for"] + schedule["decay_over"]
    first, last = (-(-epoch * config.data.num_train // config.batch_size) for epoch in ends)
    return first, last


def make_optimizer(config: ConfigDict) -> tuple[optax.GradientTransformation, Callable[[Any], Any]]:
    """Return the optimizer of one player and its learning-rate schedule.

    ``config.optimizer.factory`` names any optax-style factory that takes ``learning_rate``; all other keys of the
    section are its keyword arguments.
    """
    kwargs = complete_read_section(config.optimizer, "optimizer").to_dict()
    factory = resolve(kwargs.pop("factory"))
    schedule = make_schedule(config)
    try:
        tx = factory(**{**kwargs, "learning_rate": schedule})
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise InputError(f"config.optimizer does not fit {config.optimizer.factory} with {given}: {error}") from error
    if not isinstance(tx, optax.GradientTransformation):
        raise InputError(
            f"config.optimizer.factory={config.optimizer.factory} makes {type(tx).__name__}, not an "
            "optax.GradientTransformation"
        )
    return tx, schedule
