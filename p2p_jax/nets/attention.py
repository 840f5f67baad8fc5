"""Where a generator changes its input, and where it keeps it (Pumarola et al. 2018, GANimation, section 4.1)."""

import jax
import jax.numpy as jnp

from p2p_jax.errors import InputError


def finish(features: jax.Array, x: jax.Array, attention_mask: bool) -> jax.Array:
    """Make the image of a generator from its last layer.

    Args:
      features: [B, H, W, C] of the last layer, which has one channel more, the last, if `attention_mask`.
      x: the generator's input, [B, H, W, C].
      attention_mask: return ``m tanh(features) + (1 - m) x``, with ``m = (1 + tanh(last channel)) / 2``.

    Returns:
      The image [B, H, W, C], at least float32; in [-1, 1] where `x` is.

    Raises:
      InputError: the image and the input have different numbers of channels and cannot be mixed.
    """
    images = jnp.tanh(features.astype(jnp.promote_types(jnp.float32, features.dtype)))
    if not attention_mask:
        return images
    images, mask = images[..., :-1], 0.5 + 0.5 * images[..., -1:]
    if images.shape[-1] != x.shape[-1]:
        raise InputError(
            f"attention_mask=True mixes the input ({x.shape[-1]} channels) with an image of {images.shape[-1]}: "
            "the numbers of channels must be equal"
        )
    return mask * images + (1 - mask) * x
