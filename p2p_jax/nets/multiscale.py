"""PatchGANs at several scales (Wang et al. 2018, "pix2pixHD", section 3.2)."""

import dataclasses

import flax.linen as nn
import jax

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets.patchgan import RECEPTIVE_FIELDS, PatchGAN
from p2p_jax.nets.resampling import halve


class MultiScalePatchGAN(PatchGAN):
    """Judge images by several PatchGANs, each with its own weights and at half the size of the one before.

    The other attributes are those of every ``PatchGAN``; pix2pixHD has 3 scales, ``norm="instance"`` and ``padding=2``.

    Attributes:
      num_scales: how many; each is called scale_1, scale_2 ..., from the whole size on.
    """

    num_scales: int = attribute(2, bounds="[1, 8]")
    sees_images_alone = PatchGAN.sees_images_alone

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:  # type: ignore[override]
        """Return logits of every scale.

        Args:
          x: see ``PatchGAN``.
          train: see ``PatchGAN``.

        Returns:
          [B, h, w, 1] for each scale, the finest first, at least float32.

        Raises:
          InputError: as ``PatchGAN``, or the image is too small for the coarsest scale.
        """
        num_strided = RECEPTIVE_FIELDS.get(self.receptive_field, 0)
        # A side of n pixels becomes n / 2, rounded up, so 2 (n - 1) + 1 are enough for n.
        smallest = (3 * 2**num_strided - 1) * 2 ** (self.num_scales - 1) + 1 if num_strided else 1
        if min(x.shape[1:3]) < smallest:
            raise InputError(
                f"a MultiScalePatchGAN with num_scales={self.num_scales} and receptive_field={self.receptive_field} "
                f"needs images of at least {smallest}x{smallest} pixels, not {x.shape[1]}x{x.shape[2]}; choose fewer "
                "scales or a smaller receptive_field"
            )
        kept = [field.name for field in dataclasses.fields(PatchGAN) if field.name not in ("parent", "name")]
        settings = {name: getattr(self, name) for name in kept}
        logits = []
        for i in range(1, self.num_scales + 1):
            logits.append(PatchGAN(**settings, name=f"scale_{i}")(x, train=train))
            x = halve(x) if i < self.num_scales else x
        return tuple(logits)
