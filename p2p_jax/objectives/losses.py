"""Losses of the two players on images [B, H, W, C] and logits [B, h, w, 1]; each returns a float scalar."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from p2p_jax.config import resolve
from p2p_jax.errors import InputError


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean absolute difference (Isola et al. 2017, equation 3)."""
    return jnp.abs(x - y).mean()


def bce(logits: jax.Array, label: float) -> jax.Array:
    """Return the mean binary cross-entropy of logits against one label (Goodfellow et al. 2014)."""
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, label)).mean()


def mse(logits: jax.Array, label: float) -> jax.Array:
    """Return the mean squared error of logits against one label (LSGAN, Mao et al. 2017)."""
    return jnp.square(logits - label).mean()


class GanLoss(NamedTuple):
    """An adversarial loss: what the discriminator minimises on real and fake logits, and the generator on fake ones."""

    real: Callable[[jax.Array], jax.Array]
    fake: Callable[[jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]


def _labelled(loss: Callable[[jax.Array, float], jax.Array]) -> GanLoss:
    """Return the non-saturating game with labels 1 for real and 0 for fake."""
    return GanLoss(
        real=lambda logits: loss(logits, 1.0),
        fake=lambda logits: loss(logits, 0.0),
        generator=lambda logits: loss(logits, 1.0),
    )


GAN_LOSSES = {"vanilla": _labelled(bce), "lsgan": _labelled(mse)}


def find(name: str) -> GanLoss:
    """Return the adversarial loss of that name, or the ``GanLoss`` that "module:name" names.

    Raises:
      InputError: unknown name.
    """
    if ":" in name:
        loss = resolve(name, "config.loss.gan")
        if not isinstance(loss, GanLoss):
            raise InputError(f"config.loss.gan={name} is not a p2p_jax.losses.GanLoss, but {type(loss).__name__}")
        return loss
    if name not in GAN_LOSSES:
        raise InputError(f"loss.gan is {name!r}; choose one of {', '.join(GAN_LOSSES)} or 'module:name'")
    return GAN_LOSSES[name]
