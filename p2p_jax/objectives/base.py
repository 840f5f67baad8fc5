"""The seam between the training loop and what is trained: an objective is four pure functions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from p2p_jax.config import complete_read_section, resolve
from p2p_jax.errors import InputError

DEVICE_AXIS = "data"
"""Name of the mapped device axis inside ``Objective.update``."""
_GIVEN = ("out_channels", "dtype", "param_dtype", "axis_name")  # of networks, by the rest of the config


class Objective(NamedTuple):
    """What is trained, as pure functions of a state pytree that holds at least an integer scalar ``"step"``.

    A batch is ``{"real_a": [B, H, W, C_a], "real_b": [B, H, W, C_b]}``, float32 in [-1, 1].

    Attributes:
      init: ``(rng, batch) -> state``. Uses only the shapes and dtypes of the batch.
      update: ``(state, batch, rng) -> (state, metrics)``. Sees one device's share of the batch, with an `rng` that
        differs by step and device; averages gradients, statistics and metrics over ``DEVICE_AXIS`` and adds 1 to
        ``state["step"]``. Metrics are scalars named like "gen/l1".
      translate: ``(state, batch, rng) -> {"fake_b": [B, H, W, C_b], ...}`` in [-1, 1]. The result for an image does
        not depend on the other images of the batch.
      evaluate: ``(state, batch, rng) -> (metrics, images)``: metrics one value per image ([B], names like "l1"), and
        images in [-1, 1] in the order of the columns of a sample grid.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    translate: Callable[..., Any]
    evaluate: Callable[..., Any]


def average_over_devices(tree: Any) -> Any:
    """Return the mean of every leaf over ``DEVICE_AXIS``; call it inside ``Objective.update``.

    On one device there is nothing to average, and XLA would copy everything all the same: a tenth of a CPU's step.
    """
    return tree if lax.psum(1, DEVICE_AXIS) == 1 else lax.pmean(tree, DEVICE_AXIS)


def make_network(section: Mapping[str, Any], name: str = "generator", **given: Any) -> nn.Module:
    """Build the network that a config section describes.

    Args:
      section: ``network`` names a module class as "package.module:name"; all other keys are its attributes. A
        generator is called as ``(x, *, train, dropout)``, a discriminator as ``(x, *, train)``; see ``nets.UNet``.
      name: of the section.
      **given: attributes that follow from the rest of the config; those that the class lacks are left out.

    Raises:
      InputError: the class does not take one of the keys, or a value of one.
    """
    attributes = complete_read_section(section, name, _GIVEN).to_dict()
    network = resolve(attributes.pop("network"))
    accepted = inspect.signature(network).parameters
    return network(**attributes, **{key: value for key, value in given.items() if key in accepted})


def make_networks(config: ConfigDict, **given: Any) -> Callable[..., nn.Module]:
    """Return ``build(section_name, **more)``, which passes the config's dtypes and batch-norm axis to every network."""
    shared = {
        "dtype": jnp.dtype(config.dtype),
        "param_dtype": jnp.dtype(config.param_dtype),
        "axis_name": DEVICE_AXIS if config.sync_batch_norm else None,
        **given,
    }
    return lambda section, **more: make_network(config[section], section, **{**shared, **more})


def run_training(network: nn.Module, params: Any, stats: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Apply a network in training mode; returns its output and its new batch statistics."""
    variables = {"params": params, "batch_stats": stats}
    output, mutated = network.apply(variables, *args, train=True, mutable=["batch_stats"], **kwargs)
    return output, mutated.get("batch_stats", {})


def translate_each(
    generator: nn.Module, variables: Mapping[str, Any], images: jax.Array, rng: jax.Array, inference: ConfigDict
) -> jax.Array:
    """Translate images [B, H, W, C] one at a time, under the switches of ``config.inference``.

    So batch statistics are those of the image itself: the papers' test-time batch size is 1, and a translation must not
    depend on its neighbours in the batch. The noise is shared by all images.
    """

    def translate_one(image):
        train, rngs = inference.norm == "batch", {"dropout": rng}
        return generator.apply(variables, image[None], train=train, dropout=inference.dropout, rngs=rngs)[0]

    return jax.vmap(translate_one)(images)


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
