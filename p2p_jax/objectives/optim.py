"""Optimizers and learning rates, as ``optimizer``, ``gradients`` and ``schedule`` of a config describe them."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from p2p_jax.config import complete_read_section, resolve
from p2p_jax.errors import InputError
from p2p_jax.objectives.base import average_over_devices

CLIPS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "global_norm": optax.clip_by_global_norm,
    "value": optax.clip,
    "adaptive": optax.adaptive_grad_clip,
}
"""Ways of clipping gradients, by their names in ``config.gradients.clip``."""
_FITS = 0.02  # of the steps, by which a schedule in epochs may differ from the run


def descend(tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    """Return parameters and optimizer state after one step with gradients averaged over the devices."""
    updates, opt_state = tx.update(average_over_devices(grads), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def make_schedule(config: ConfigDict, section: str = "optimizer") -> Callable[[Any], Any]:
    """Return the learning rate as a function of the step.

    "constant" keeps the section's ``learning_rate`` (the Lua release). "linear_decay" keeps it for
    ``schedule.constant_for`` and lowers it to zero over ``schedule.decay_over``, both counted in ``schedule.unit``.
    In epochs the rate changes once per epoch by the PyTorch release's rule, ``1 - max(0, epoch + 1 - constant) /
    (decay + 1)`` with epochs counted from 0; in steps it falls at every step. "cosine" lowers it along half a cosine,
    ``(1 + cos(pi max(0, t - constant) / decay)) / 2`` with epochs or steps `t` counted from 0 (Loshchilov and Hutter
    2017, without restarts; PyTorch's CosineAnnealingLR). What the unit "auto" means, see ``decide_unit``.

    Args:
      config: complete; `num_steps`, steps and epochs count batches, regardless of ``gradients.accumulate``.
      section: "optimizer", or "discriminator_optimizer", whose rate has the same shape.

    Raises:
      InputError: the section has no learning rate, or epochs are asked for and ``data.num_train`` is not known; this
        when it is called.
    """
    rate, schedule = _rate(config, section), ConfigDict(config.schedule.to_dict() | decide_unit(config))
    if schedule.kind == "constant":
        return optax.constant_schedule(rate)
    constant, decay = schedule.constant_for, schedule.decay_over
    counts_images = config.schedule.unit != "steps"
    in_steps = schedule.unit == "steps" and (not counts_images or config.data.num_train > 0)
    if in_steps and schedule.kind == "linear_decay":
        return optax.linear_schedule(rate, 0.0, transition_steps=decay, transition_begin=constant)

    def epoch_of(step):
        if config.data.num_train <= 0:
            raise InputError(
                "a schedule in epochs, or with unit auto, needs the number of training images: use train(), which "
                "counts them, or set config.data.num_train before making the objective"
            )
        return step * config.batch_size // config.data.num_train

    def linear(step):
        return rate * jnp.clip(1 - jnp.maximum(0, epoch_of(step) + 1 - constant) / (decay + 1), 0, 1)

    def cosine(step):
        done = jnp.clip(((step if in_steps else epoch_of(step)) - constant) / decay, 0, 1)
        return rate * jnp.square(jnp.cos(jnp.pi / 2 * done)) * (done < 1)  # half of 1 + cos, nothing at its end

    return linear if schedule.kind == "linear_decay" else cosine


def _rate(config: ConfigDict, section: str) -> float:
    rate = _completed(config, section).get("learning_rate")
    if rate is None:
        raise InputError(f"config.{section} has no learning_rate: set config.{section}.learning_rate, such as 2e-4")
    return rate


def _completed(config: ConfigDict, section: str) -> ConfigDict:
    """Return the section of an optimizer with all that its factory takes.

    What ``discriminator_optimizer`` leaves open is the other one's, where both have one factory.
    """
    common = complete_read_section(config.optimizer, "optimizer")
    given = config[section].to_dict()
    if section == "optimizer" or not given:
        return common
    factory = given.get("factory", common.factory)
    inherited = common.to_dict() if factory == common.factory else {}
    return complete_read_section({**inherited, **given, "factory": factory}, section)


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
    falls, ends = schedule["constant_for"], schedule["constant_for"] + schedule["decay_over"]
    falls += schedule["kind"] == "cosine"  # whose first epoch has the full rate
    first, last = (-(-epoch * config.data.num_train // config.batch_size) for epoch in (falls, ends))
    return first, last


def make_optimizer(
    config: ConfigDict, section: str = "optimizer"
) -> tuple[optax.GradientTransformation, Callable[[Any], Any]]:
    """Return the optimizer of one side of players and its learning-rate schedule.

    ``factory`` of the section names any optax-style factory that takes ``learning_rate``; all other keys are its
    keyword arguments. Before it gradients are clipped as ``config.gradients.clip`` says, by the norm of the side's
    gradient as a whole, value by value, or adaptively (Brock et al. 2021).

    With ``gradients.accumulate=k`` a side's weights do not change for k batches; then they make one step along the mean
    of the k gradients, clipped once. What is seen of the other side is what it was at each batch. In pix2pix the
    discriminator makes its step before the generator's gradient of the same batch: so of the generator's k gradients
    the last one is through the discriminator after its step, the others through the one before it.

    Args:
      config: complete; reads ``optimizer``, ``discriminator_optimizer``, ``schedule``, ``gradients``.
      section: "optimizer" of generators, or "discriminator_optimizer"; where that is empty, both are the same.

    Returns:
      The optimizer, and the learning rate as a function of the step, which counts batches.

    Raises:
      InputError: an option is unknown or its value cannot be used; it is named.
    """
    kwargs, schedule = _completed(config, section).to_dict(), make_schedule(config, section)
    every, named = config.gradients.accumulate, section if config[section] else "optimizer"
    reference = kwargs.pop("factory")
    factory = resolve(reference, f"config.{named}.factory")
    # The j-th step of an optimizer, from 0 on, is that of the batch j k + k - 1.
    rate = schedule if every == 1 else lambda count: schedule(count * every + every - 1)
    try:
        tx = factory(**{**kwargs, "learning_rate": rate})
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise InputError(f"config.{named} does not fit {reference} with {given}: {error}") from error
    if not isinstance(tx, optax.GradientTransformation):
        raise InputError(
            f"config.{named}.factory={reference} returns {type(tx).__name__}, not an optax.GradientTransformation"
        )
    if config.gradients.clip:
        tx = optax.chain(_clip(config.gradients.clip, config.gradients.clip_at), tx)
    if every > 1:
        tx = _accumulated(tx, every, jnp.promote_types(jnp.float32, config.param_dtype))
    return tx, schedule


def make_learning_rates(config: ConfigDict) -> Callable[[Any], dict[str, Any]]:
    """Return the learning rates to log at a step, as a function of the step.

    That is "lr", and "lr_discriminator" where the discriminators have their own optimizer.
    """
    schedules = {name: make_schedule(config, section) for name, section in _sections(config).items()}
    return lambda step: {name: schedule(step) for name, schedule in schedules.items()}


def full_rates(config: ConfigDict) -> dict[str, float]:
    """Return the learning rates before they fall, by the names that ``make_learning_rates`` gives them."""
    return {name: _rate(config, section) for name, section in _sections(config).items()}


def _sections(config: ConfigDict) -> dict[str, str]:
    own = {"lr_discriminator": "discriminator_optimizer"} if config.discriminator_optimizer else {}
    return {"lr": "optimizer"} | own


def _clip(name: str, at: float) -> optax.GradientTransformation:
    """Return what clips gradients.

    Raises:
      InputError: nothing is called so, or it makes something else.
    """
    if ":" not in name and name not in CLIPS:
        close = difflib.get_close_matches(name, CLIPS, n=1)
        hint = (
            f"did you mean {close[0]}?" if close else f"choose from {', '.join(CLIPS)}, or name a function, module:name"
        )
        raise InputError(f"config.gradients.clip is {name!r}; {hint}")
    make = resolve(name, "config.gradients.clip") if ":" in name else CLIPS[name]
    try:
        clip = make(at)
    except TypeError as error:
        raise InputError(f"config.gradients.clip={name} does not take a number: {error}") from error
    if not isinstance(clip, optax.GradientTransformation):
        raise InputError(
            f"config.gradients.clip={name} returns {type(clip).__name__}, not an optax.GradientTransformation"
        )
    return clip


def _accumulated(tx: optax.GradientTransformation, every: int, dtype: Any) -> optax.GradientTransformation:
    """Return an optimizer that makes one step of `every` batches, along the mean gradient, which is kept in `dtype`."""
    known = inspect.signature(optax.MultiSteps).parameters  # Optax 0.2.6 keeps it in the parameters' own
    options = {"accumulator_dtype": dtype} if "accumulator_dtype" in known else {}
    return optax.MultiSteps(tx, every, **options).gradient_transformation()
