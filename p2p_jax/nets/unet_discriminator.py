"""U-Net discriminator (Schönfeld et al. 2020), in the form of Real-ESRGAN (Wang et al. 2021, section 3.3)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets.initializers import INITIALIZERS
from p2p_jax.nets.layers import Conv, leaky_relu
from p2p_jax.nets.resampling import blur_upsample
from p2p_jax.nets.spectral_norm import spectrally_normed


class UNetDiscriminator(nn.Module):
    """Judge an image as a whole, by patches of its encoder's deepest map, and every pixel of it, by its decoder.

    Encoder: a 3x3 convolution, then 4x4 convolutions of stride 2 with doubling widths. Decoder: bilinear resizing to
    twice the sides, a 3x3 convolution, and the encoder's map of that size added; two more 3x3 convolutions, and the
    logits. No norm but the spectral one; leaky ReLU with a slope of 0.2 after every convolution.

    Attributes:
      base_width: channels of the first layer.
      num_downs: convolutions of stride 2; image sides are multiples of ``2 ** num_downs``.
      encoder_logits: judge the deepest map too, by a 3x3 convolution, as in the U-Net GAN, which sums up the map and so
        has one number for the image; here it is one for every patch. False: only pixels, as in Real-ESRGAN, with the
        same parameters: 4,376,897 for 3 channels.
      spectral_norm: of all convolutions but the first one and those that give logits, as in Real-ESRGAN; see
        ``spectral_norm.SpectralNorm``.
      init_type, init_gain, dtype, param_dtype: as for ``UNet``. Logits are at least float32.
    """

    base_width: int = attribute(64, bounds="[1, 65536]")
    num_downs: int = attribute(3, bounds="[1, 16]")
    encoder_logits: bool = True
    spectral_norm: bool = True
    init_type: str = attribute("normal", choices=INITIALIZERS)
    init_gain: float = attribute(0.02, bounds="[0, inf)")
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def sees_images_alone(self) -> bool:
        """See ``PatchGAN``."""
        return not self.spectral_norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Return logits.

        Args:
          x: [B, H, W, C] in [-1, 1]; for a conditional discriminator input and output concatenated on channels.
          train: let the vectors of the spectral norm move; False uses those that are kept.

        Returns:
          [B, H / 2 ** num_downs, likewise W, 1] of patches and [B, H, W, 1] of pixels; only the latter without
          `encoder_logits`.

        Raises:
          InputError: a side is not a multiple of ``2 ** num_downs``.
        """
        multiple = 2**self.num_downs
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise InputError(
                f"a UNetDiscriminator with num_downs={self.num_downs} takes images whose sides are multiples of "
                f"{multiple}, not {x.shape[1]}x{x.shape[2]}; change the image size or num_downs"
            )
        plain = partial(
            Conv,
            kernel_size=3,
            stride=1,
            init_type=self.init_type,
            init_gain=self.init_gain,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        conv: Callable[..., Callable[[jax.Array], jax.Array]] = partial(plain, use_bias=False)
        if self.spectral_norm:
            conv = spectrally_normed(conv, train=train)
        widths = [self.base_width * 2**i for i in range(self.num_downs + 1)]

        x = leaky_relu(plain(widths[0], name="stem")(x))
        encoded = []
        for i, width in enumerate(widths[1:], 1):
            encoded.append(x)
            x = leaky_relu(conv(features=width, kernel_size=4, stride=2, name=f"down_{i}")(x))
        patches = plain(1, name="encoder_logits")(x) if self.encoder_logits else None
        for i in range(self.num_downs, 0, -1):
            x = leaky_relu(conv(features=widths[i - 1], name=f"up_{i}")(blur_upsample(x))) + encoded[i - 1]
        for i in (1, 2):
            x = leaky_relu(conv(features=widths[0], name=f"last_{i}")(x))
        pixels = plain(1, name="logits")(x)
        found = [y.astype(jnp.promote_types(jnp.float32, y.dtype)) for y in (patches, pixels) if y is not None]
        return (found[0], found[1]) if self.encoder_logits else found[0]
