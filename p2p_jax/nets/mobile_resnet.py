"""The small ResNet generator of GAN-Compression (Li et al. 2020, section 3 and appendix).

Its blocks are those of MobileNet (Howard et al. 2017, section 3.1): a convolution of every channel by itself, and then
one of 1x1 that mixes the channels of a pixel.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets.convolution import is_plain
from p2p_jax.nets.initializers import initializer
from p2p_jax.nets.layers import Conv, InstanceNorm
from p2p_jax.nets.resnet import ResNet, Widths, widths_of

_THIRDS = 3  # of the blocks, each with its own width
_AROUND = 5  # layers other than the blocks: stem, two downsamplings, two upsamplings


class MobileResNet(ResNet):
    """A ``ResNet`` with separable convolutions in its blocks; every layer may have its own width.

    Its other attributes are those of ``ResNet``; `biases` and `norm` are of the layers around the separable
    convolutions, which always have biases and an instance norm within, as published.

    Attributes:
      channels: widths in the place of `base_width`, as GAN-Compression writes them: "24_16_32_16_32_64_16_24" are those
        of the stem, of the two downsamplings, of the inside of the blocks, third by third, and of the two upsamplings.
        6 numbers have one for all blocks, 5 + `num_blocks` one for every block. Each is multiplied by 1, 2, 4 ... 4, 2,
        1, the scale of its place. "": `base_width` everywhere.
    """

    channels: str = attribute("")

    def _widths(self) -> Widths:
        if not self.channels:
            return super()._widths()
        return widths_of(spread(self.channels, self.num_blocks))

    def _block_conv(self, padded: Callable[..., nn.Module], settings: Mapping[str, Any]) -> Callable[..., nn.Module]:
        return partial(SeparableConv, pad_with=self.padding, **settings)


def spread(channels: str, num_blocks: int) -> list[int]:
    """Return a number for the stem, each downsampling, each block and each upsampling; see ``MobileResNet.channels``.

    Raises:
      InputError: it is not such a text, or of another number of blocks.
    """
    parts = channels.split("_")
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 and int(part) for part in parts):
        raise InputError(f'channels={channels!r} must be widths of at least 1, such as "24_16_32_16_32_64_16_24"')
    widths = [int(part) for part in parts]
    inside = widths[3:-2]
    if len(widths) == _AROUND + 1:
        inside = inside * num_blocks
    elif len(widths) == _AROUND + _THIRDS and num_blocks > _THIRDS:
        # The last third takes what is left over.
        inside = [inside[min(i // (num_blocks // _THIRDS), _THIRDS - 1)] for i in range(num_blocks)]
    if len(inside) != num_blocks or len(widths) < _AROUND:
        raise InputError(
            f"channels={channels!r} has {len(widths)} widths; a MobileResNet with {num_blocks} blocks needs "
            f"{_AROUND + 1}, {_AROUND + _THIRDS} or {_AROUND + num_blocks}"
        )
    return [*widths[:3], *inside, *widths[-2:]]


class SeparableConv(nn.Module):
    """Convolve every channel of [B, H, W, C] by itself, normalise (instance norm), and mix the channels of a pixel.

    Attributes:
      features: channels of the result; its sides are those of the input.
      kernel_size: odd side of the kernels.
      pad_with: what continues the borders, one of ``layers.PADDINGS``.
      init_type, init_gain: kernel initialiser, see ``initializers.initializer``.
      dtype, param_dtype: see ``layers.Conv``.
    """

    features: int
    kernel_size: int = 3
    pad_with: str = "reflect"
    init_type: str = "normal"
    init_gain: float = 0.02
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to [B, H, W, C]."""
        settings: dict[str, Any] = {"init_type": self.init_type, "init_gain": self.init_gain}
        settings |= {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = DepthwiseConv(self.kernel_size, self.pad_with, name="depthwise", **settings)(x)
        x = InstanceNorm(dtype=self.dtype, param_dtype=self.param_dtype, name="norm")(x)
        return Conv(self.features, kernel_size=1, stride=1, padding=0, name="pointwise", **settings)(x)


class DepthwiseConv(nn.Module):
    """Convolve every channel by itself and add a bias: [B, H, W, C] to the same shape; the kernel is [k, k, 1, C].

    It is a sum of shifted products, rounded once: XLA makes one loop of it, which on CPUs is far faster than its
    convolution of as many groups as channels, the plain form (see ``convolution.in_plain_form``).
    """

    kernel_size: int = 3
    pad_with: str = "reflect"
    init_type: str = "normal"
    init_gain: float = 0.02
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to [B, H, W, C]."""
        size, features = self.kernel_size, x.shape[-1]
        kernel_init = initializer(self.init_type, self.init_gain)
        kernel = self.param("kernel", kernel_init, (size, size, 1, features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (features,), self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        height, width, pad = x.shape[1], x.shape[2], size // 2
        mode = "reflect" if self.pad_with == "reflect" else "constant"
        padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
        wide = jnp.promote_types(jnp.float32, x.dtype)
        if is_plain():
            layout = ("NHWC", "HWIO", "NHWC")
            y = lax.conv_general_dilated(
                padded, kernel, (1, 1), "VALID", dimension_numbers=layout, feature_group_count=features
            )
            return (y.astype(wide) + bias.astype(wide).reshape(1, 1, 1, -1)).astype(x.dtype)
        total = jnp.zeros(x.shape, wide) + bias.astype(wide).reshape(1, 1, 1, -1)
        for i in range(size):
            for j in range(size):
                tap = padded[:, i : i + height, j : j + width].astype(wide)
                total += tap * kernel[i, j].astype(wide).reshape(1, 1, 1, -1)
        return total.astype(x.dtype)
