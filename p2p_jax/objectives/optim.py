"""Optimizers and learning rates, as ``config.optimizer`` and ``config.schedule`` describe them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from p2p_jax.config import complete_read_section, resolve
from p2p_jax.errors import InputError
from p2p_jax.objectives.base import average_over_devices


def descend(tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    """Return parameters and optimizer state after one step with gradients averaged over the devices."""
    updates, opt_state = tx.update(average_over_devices(grads), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def make_schedule(config: ConfigDict) -> Callable[[Any], Any]:
    """Return the learning rate as a function of the step.

    "constant" keeps ``optimizer.learning_rate`` (the Lua release). "linear_decay" keeps it for
    ``schedule.constant_for`` and lowers it to zero over ``schedule.decay_over``, both counted in ``schedule.unit``.
    In epochs the rate changes once per epoch by the PyTorch release's rule, ``1 - max(0, epoch + 1 - constant) /
    (decay + 1)`` with epochs counted from 0; in steps it falls at every step.
    """
    rate, schedule = config.optimizer.learning_rate, config.schedule
    if schedule.kind == "constant":
        return optax.constant_schedule(rate)
    constant, decay = schedule.constant_for, schedule.decay_over
    if schedule.unit == "steps":
        return optax.linear_schedule(rate, 0.0, transition_steps=decay, transition_begin=constant)

    def rate_of_epoch(step):
        if config.data.num_train <= 0:
            raise InputError(
                "a schedule in epochs needs the number of training images: set config.data.num_train before the "
                "objective is made, or let train() make it, which counts them"
            )
        epoch = step * config.batch_size // config.data.num_train
        return rate * jnp.clip(1 - jnp.maximum(0, epoch + 1 - constant) / (decay + 1), 0, 1)

    return rate_of_epoch


def make_optimizer(config: ConfigDict) -> tuple[optax.GradientTransformation, Callable[[Any], Any]]:
    """Return the optimizer of one player and its learning-rate schedule.

    ``config.optimizer.factory`` names any optax-style factory that takes ``learning_rate``; all other keys of the
    section are its keyword arguments.
    """
    kwargs = complete_read_section(config.optimizer, "optimizer").to_dict()
    factory = resolve(kwargs.pop("factory"))
    schedule = make_schedule(config)
    try:
        return factory(**{**kwargs, "learning_rate": schedule}), schedule
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise InputError(f"config.optimizer does not fit {config.optimizer.factory} with {given}: {error}") from error
