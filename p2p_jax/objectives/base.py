"""The seam between the training loop and what is trained: an objective is four pure functions."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from ml_collections import ConfigDict

from p2p_jax.config import complete_read_section, resolve
from p2p_jax.config.options import image_shapes
from p2p_jax.config.readers import OF_THE_CONFIG
from p2p_jax.errors import InputError

DEVICE_AXIS = "data"
"""Name of the mapped device axis inside ``Objective.update``."""
Batch = Mapping[str, jax.Array]
State = Any


class Init(Protocol):
    """Make the first state."""

    def __call__(self, rng: jax.Array, batch: Batch) -> State:
        """Use only the shapes and dtypes of the batch."""


class Update(Protocol):
    """Train for one step."""

    def __call__(self, state: State, batch: Batch, rng: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        """Return the next state, with 1 added to its "step", and metrics: scalars named like "gen/l1".

        Sees one device's share of the batch, with an `rng` that differs by step and device; averages gradients,
        statistics and metrics over ``DEVICE_AXIS``.
        """


class Translate(Protocol):
    """Translate images."""

    def __call__(self, state: State, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """Return "fake_b" [B, H, W, C_b], and what else there is, in [-1, 1].

        The result for an image does not depend on the other images of the batch.
        """


class Evaluate(Protocol):
    """Judge translations in validation."""

    def __call__(self, state: State, batch: Batch, rng: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Return metrics, one value per image ([B], names like "l1"), and the columns of a sample grid, in order.

        Columns are images [B, H, W, C] in [-1, 1].
        """


class Objective(NamedTuple):
    """What is trained, as pure functions of a state pytree that holds at least an integer scalar ``"step"``.

    A batch is ``{"real_a": [B, H, W, C_a], "real_b": [B, H, W, C_b]}``, float32 in [-1, 1].

    Attributes:
      init: ``(rng, batch) -> state``, see ``Init``.
      update: ``(state, batch, rng) -> (state, metrics)``, see ``Update``.
      translate: ``(state, batch, rng) -> {"fake_b": images, ...}``, see ``Translate``.
      evaluate: ``(state, batch, rng) -> (metrics, images)``, see ``Evaluate``.
    """

    init: Init
    update: Update
    translate: Translate
    evaluate: Evaluate


def average_over_devices(tree: Any) -> Any:
    """Return the mean of every leaf over ``DEVICE_AXIS``; call it inside ``Objective.update``.

    On one device there is nothing to average, and XLA would copy everything all the same: a tenth of a CPU's step.

    Raises:
      InputError: it is not called inside of a training step.
    """
    try:
        devices = lax.psum(1, DEVICE_AXIS)
    except NameError:
        raise InputError(
            "Objective.update averages over devices, so it cannot be called as it is: for a step by hand use "
            "p2p_jax.testing.one_step(objective, state, batch, rng)"
        ) from None
    return tree if devices == 1 else lax.pmean(tree, DEVICE_AXIS)


def make_network(section: Mapping[str, Any], name: str = "generator", **given: Any) -> nn.Module:
    """Build the network that a config section describes.

    Args:
      section: ``network`` names a module class as "package.module:name"; all other keys are its attributes. A
        generator is called as ``(x, *, train, dropout)``, a discriminator as ``(x, *, train)``; see ``nets.UNet``.
      name: of the section.
      **given: attributes that follow from the rest of the config; those that the class lacks are left out.

    Raises:
      InputError: it is not a subclass of ``flax.linen.Module``, or does not take one of the keys, or a value of one.
    """
    if "network" in section:
        _require_network(section["network"], f"config.{name}.network")
    attributes = complete_read_section(section, name, OF_THE_CONFIG).to_dict()
    network = resolve(attributes.pop("network"))
    accepted = inspect.signature(network).parameters
    return network(**attributes, **{key: value for key, value in given.items() if key in accepted})


def _require_network(reference: str, option: str) -> None:
    """Refuse anything that is not a network class, before calling it."""
    kind = resolve(reference, option)
    while isinstance(kind, functools.partial):  # as UNet256 is one of UNet
        kind = kind.func
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise InputError(f"{option}={reference} is not a network: it must be a subclass of flax.linen.Module")


def make_networks(config: ConfigDict, **given: Any) -> Callable[..., nn.Module]:
    """Return ``build(section_name, **more)``, which passes the config's dtypes and batch-norm axis to every network."""
    shared = {
        "dtype": jnp.dtype(config.dtype),
        "param_dtype": jnp.dtype(config.param_dtype),
        "axis_name": DEVICE_AXIS if config.sync_batch_norm else None,
        **given,
    }

    def build(section, **more):
        network = make_network(config[section], section, **{**shared, **more})
        _require_call(network, section, config[section].network)
        return network

    return build


def _require_call(network: nn.Module, section: str, reference: str) -> None:
    """Refuse a network that cannot be called as ``make_network`` says."""
    keywords = {"generator": ("train", "dropout")}.get(section, ("train",))
    try:
        inspect.signature(network.__call__).bind("x", **dict.fromkeys(keywords))
    except TypeError as error:
        takes = {"generator": "(x, *, train, dropout=None)"}.get(section, "(x, *, train)")
        raise InputError(f"config.{section}.network: {reference} must take {takes}, but {error}") from None


def init_network(
    config: ConfigDict, section: str, network: nn.Module, rng: jax.Array, images: jax.Array, channels: int = 0
) -> dict[str, Any]:
    """Return the first variables of a network, and check in the same trace what it returns.

    Args:
      config: names the network.
      section: "generator" or "discriminator".
      network: made by ``make_networks``.
      rng: of the weights.
      images: [N, H, W, C]; only their shape and dtype count; for a conditional discriminator with the condition's
        channels before the picture's.
      channels: of a generator's images.

    Raises:
      InputError: a generator does not return [N, H, W, channels], a discriminator not one or several maps of logits
        [N, h, w, 1], or it has no parameters; names the network.
    """
    output, variables = network.init_with_output(rng, images, train=False)
    named, shown = f"config.{section}.network: {config[section].network} must", list(images.shape)
    if section == "generator":
        wanted = [*images.shape[:3], channels]
        if not hasattr(output, "shape") or list(output.shape) != wanted:
            way = "" if hasattr(network, "out_channels") else f"; an attribute out_channels is given {channels}"
            raise InputError(f"{named} return {wanted} for images {shown}, not {_shapes(output)}{way}")
    elif not jax.tree.leaves(output) or not all(_are_logits(x, len(images)) for x in jax.tree.leaves(output)):
        logits = f"one or several maps of logits [{len(images)}, h, w, 1]"
        raise InputError(f"{named} return {logits} for images {shown}, not {_shapes(output)}")
    if "params" not in variables:
        raise InputError(f"{named} have parameters")
    return dict(variables)


def _are_logits(output: jax.Array, count: int) -> bool:
    return jnp.ndim(output) == 4 and output.shape[0] == count and output.shape[-1] == 1


def _shapes(output: Any) -> str:
    """Return the shapes of arrays in words."""
    found = [str(list(jnp.shape(x))) for x in jax.tree.leaves(output)]
    return " and ".join(found) or "nothing"


def blank_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    """Return a batch of one gray example, float32: ``Init`` makes a state from its shapes and dtypes."""
    return {name: np.zeros((1, *shape), np.float32) for name, shape in image_shapes(config.data).items()}


def new_state(
    variables: Mapping[str, Mapping[str, Any]],
    tx: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    sides: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return the state of players before the first step.

    Args:
      variables: player -> what its network's ``init`` returns.
      tx: the optimizer of each side, or side -> its optimizer.
      sides: side -> the players that one optimizer trains together; by default each is trained by its own, of its name.

    Returns:
      ``{"step", "params", "batch_stats", "opt_state"}``, params and batch_stats by player, opt_state by side.
    """
    params = {name: value["params"] for name, value in variables.items()}
    if sides is None:
        trained = params
    else:
        trained = {side: {name: params[name] for name in names} for side, names in sides.items()}
    of_side = tx if isinstance(tx, Mapping) else dict.fromkeys(trained, tx)
    opt_state = {side: of_side[side].init(value) for side, value in trained.items()}
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "batch_stats": {name: value.get("batch_stats", {}) for name, value in variables.items()},
        "opt_state": opt_state,
    }


def run_training(network: nn.Module, params: Any, stats: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Apply a network in training mode; returns its output and its new batch statistics."""
    variables = {"params": params, "batch_stats": stats}
    output, mutated = network.apply(variables, *args, train=True, mutable=["batch_stats"], **kwargs)
    return output, mutated.get("batch_stats", {})


def translate_each(
    generator: nn.Module, variables: Mapping[str, Any], images: jax.Array, rng: jax.Array, config: ConfigDict
) -> jax.Array:
    """Translate images [B, H, W, C] one at a time, under the switches of ``config.inference``.

    So batch statistics are those of the image itself: the papers' test-time batch size is 1, and a translation must not
    depend on its neighbours in the batch. The noise is shared by all images.
    """
    train, dropout = statistics(config) == "batch", config.inference.dropout
    if hasattr(generator, "axis_name"):
        generator = generator.clone(axis_name=None)  # one image has no devices to average over

    def translate_one(image):
        return generator.apply(variables, image[None], train=train, dropout=dropout, rngs={"dropout": rng})[0]

    return jax.vmap(translate_one)(images)


def statistics(config: ConfigDict) -> str:
    """Return "batch" or "running": the statistics that batch norm takes in translation.

    ``config.inference.norm="auto"`` takes the image's own, as the papers do, where every device trains on one image a
    step. A network that was trained on the statistics of several has not learnt to work with those of one.
    """
    if config.inference.norm != "auto":
        return config.inference.norm
    return "batch" if config.batch_size <= jax.device_count() else "running"
