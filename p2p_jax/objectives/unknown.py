"""Unknown pixels: NaN in a batch, of a side with ``config.data.*.nodata``.

They are 0, the middle of the range, for every network; a generator's output there is 0 for discriminators too, so
they carry no information; and errors leave them out. If no side has them, none of this is computed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.images.domains import of_config
from p2p_jax.objectives import losses


class Unknown(NamedTuple):
    """What is done with unknown pixels.

    Attributes:
      fill: ``images -> images`` with 0 for unknown values.
      hide: ``(fakes, reals) -> fakes`` with 0 where the value of the real image is unknown.
      mark: ``(fakes, given) -> fakes`` that are unknown where any channel of their source images is.
      l1: ``losses.l1`` over the known values of the second argument.
      known: ``images -> [B, H, W, 1]``, 1 where all channels are known and 0 elsewhere; None where all are everywhere.
    """

    fill: Callable[[jax.Array], jax.Array]
    hide: Callable[[jax.Array, jax.Array], jax.Array]
    mark: Callable[[jax.Array, jax.Array], jax.Array]
    l1: Callable[[jax.Array, jax.Array], jax.Array]
    known: Callable[[jax.Array], jax.Array | None]


def unknown_pixels(config: ConfigDict) -> Unknown:
    """Return what is done with the unknown pixels of a config's images: nothing, if it has none."""
    if any(domain.unknown for domain in of_config(config.data)):
        return Unknown(fill, hide, mark, l1, known)
    return Unknown(lambda x: x, lambda fakes, reals: fakes, lambda fakes, given: fakes, losses.l1, lambda images: None)


def fill(images: jax.Array) -> jax.Array:
    """Return images with 0 where nothing is known."""
    return jnp.where(jnp.isnan(images), jnp.zeros_like(images), images)


def hide(fakes: jax.Array, reals: jax.Array) -> jax.Array:
    """Return fakes with 0 where nothing is known of the real images, channel by channel where they have the same."""
    lost = jnp.isnan(reals)
    lost = lost if lost.shape == fakes.shape else lost.any(-1, keepdims=True)
    return jnp.where(lost, jnp.zeros_like(fakes), fakes)


def mark(fakes: jax.Array, given: jax.Array) -> jax.Array:
    """Return fakes with NaN where their source images are unknown."""
    return jnp.where(jnp.isnan(given).any(-1, keepdims=True), jnp.full_like(fakes, jnp.nan), fakes)


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean absolute difference over the known values of `y`; 0 where there is none."""
    known = ~jnp.isnan(y)
    return jnp.abs(jnp.where(known, x - fill(y), 0)).sum() / jnp.maximum(known.sum(), 1)


def known(images: jax.Array) -> jax.Array:
    """Return [B, H, W, 1] with 1 where all channels of a pixel are known, and 0 elsewhere."""
    return 1.0 - jnp.isnan(images).any(-1, keepdims=True)
