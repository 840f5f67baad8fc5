"""Metrics of images against their targets, one value per image; the same in validation and in evaluation."""

import jax
import jax.numpy as jnp
from dm_pix import psnr, ssim


def full_reference(outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    """Compare images with their targets, each with its own.

    Args:
      outputs: [N, H, W, C] float in [-1, 1]; SSIM needs sides of at least 11 pixels.
      targets: the same.

    Returns:
      ``{"l1": [N], "psnr": [N], "ssim": [N]}`` on images in [0, 1]: mean absolute error; peak signal-to-noise ratio in
      decibels (infinite for equal images); structural similarity (Gaussian window of 11 pixels, sigma 1.5), its
      channels averaged.
    """
    output, target = (outputs + 1) / 2, (targets + 1) / 2
    return {
        "l1": jnp.abs(target - output).mean((1, 2, 3)),
        "psnr": jax.vmap(psnr)(output, target),
        "ssim": jax.vmap(ssim)(output, target),
    }
