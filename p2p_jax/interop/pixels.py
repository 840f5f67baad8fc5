"""Between values and the [-1, 1] of networks inside an exported function: what ``Translator`` does outside of one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from p2p_jax.images import unknown
from p2p_jax.images.domains import Domain
from p2p_jax.images.stored import Stored


def marks_unknown(domain: Domain) -> bool:
    """Return whether some values [B, H, W, C] of a domain say that nothing is known: NaN, or its number."""
    return domain.unknown and (domain.dtype.kind == "f" or unknown.is_number(domain.nodata))


def find_lost(values: np.ndarray, domain: Domain) -> np.ndarray:
    """Return which pixels have an unknown value: booleans [B, H, W, 1]."""
    if not marks_unknown(domain):
        return np.zeros((*values.shape[:3], 1), bool)
    return np.isnan(unknown.marked(Stored(values), domain.nodata).pixels).any(axis=-1, keepdims=True)


def with_unknown(images: np.ndarray, domain: Domain) -> np.ndarray:
    """Return images [B, H, W, C] with an unknown value in the first and one in the last, if the domain marks them."""
    if marks_unknown(domain) and (domain.nodata is None or unknown.holds(images.dtype, domain.nodata)):
        number = domain.nodata if unknown.is_number(domain.nodata) else np.nan
        images[0, 0, 0], images[-1, -1, -1, :1] = number, number
    return images


def in_values(
    translate: Callable[[jax.Array], jax.Array], domain_in: Domain, domain_out: Domain, lost_number: float | None
) -> Callable[[jax.Array], jax.Array]:
    """Return a translation of values of one domain to those of another.

    An unknown value is 0 for the network, the middle of the range. A pixel with one becomes unknown: NaN, or of whole
    numbers `lost_number`.

    Args:
      translate: float32 [B, H, W, C] in [-1, 1] to such images.
      domain_in: of what is given.
      domain_out: of what is made.
      lost_number: what whole numbers are where nothing is known; None: 0.
    """

    def function(values: jax.Array) -> jax.Array:
        images = _encode(values, domain_in)
        if not marks_unknown(domain_in):
            return _decode(translate(images), domain_out).astype(domain_out.dtype)
        lost = _lost(values, domain_in)
        made = _decode(translate(jnp.where(lost, 0.0, images)), domain_out)
        return _without(made, lost, domain_out.dtype, lost_number).astype(domain_out.dtype)

    return function


def _encode(values: jax.Array, domain: Domain) -> jax.Array:
    """Map values [B, H, W, C] to [-1, 1]: ``Domain.encode`` on the device."""
    low, half = (x.reshape(1, 1, 1, -1) for x in domain.line)
    return jnp.clip((values.astype(jnp.float32) - low) / half - 1, -1, 1)


def _decode(images: jax.Array, domain: Domain) -> jax.Array:
    """Map [-1, 1] to values: ``Domain.decode`` on the device, but float32 for whole numbers too."""
    low, half = (x.reshape(1, 1, 1, -1) for x in domain.line)
    numbers = (jnp.clip(images, -1, 1) + 1) * half + low
    if domain.dtype.kind == "f":
        return numbers
    limits = jnp.iinfo(domain.dtype)
    return jnp.clip(jnp.rint(numbers), limits.min, limits.max)


def _lost(values: jax.Array, domain: Domain) -> jax.Array:
    """Return which values are unknown, as ``unknown.marked`` does: booleans [B, H, W, C]."""
    floats = values.astype(jnp.float32)
    lost = jnp.isnan(floats)
    return lost | (floats == np.float32(domain.nodata)) if unknown.is_number(domain.nodata) else lost


def _without(made: jax.Array, lost: jax.Array, dtype: np.dtype, number: float | None) -> jax.Array:
    """Return values, float32, without those of unknown pixels: ``unknown.without`` on the device."""
    pixels = lost.any(axis=-1, keepdims=True)
    if dtype.kind == "f":
        return jnp.where(pixels, np.float32(np.nan), made)
    if number is None or not unknown.holds(dtype, number):
        return jnp.where(pixels, np.float32(0), made)
    mark = np.array(number).astype(dtype)
    # ONNX Runtime chooses between floats, not between numbers of 16 bits.
    is_taken = (made == np.float32(mark)) & pixels.any(axis=(1, 2), keepdims=True)
    return jnp.where(pixels, np.float32(mark), jnp.where(is_taken, np.float32(unknown.beside(mark)), made))
