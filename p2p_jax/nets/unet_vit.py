"""U-Net with a pixel-wise vision transformer as its bottleneck, of UVCGAN (Torbunov et al. 2022, section 3.1)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets.attention import finish
from p2p_jax.nets.initializers import INITIALIZERS, initializer
from p2p_jax.nets.layers import NORMS, Conv, compute_again, make_norm


class UNetViT(nn.Module):
    """Encoder and decoder with skips, of two 3x3 convolutions a level, and a transformer with pixels as tokens.

    Every convolution of a level comes after a norm and before a leaky ReLU (slope 0.01). Levels are joined by 2x2
    convolutions of stride 2 on the way down, and by nearest-neighbour resizing and a 3x3 convolution on the way up.
    The tokens keep their whole map in view: a translation of an image of another size than trained on has other
    positions between the same borders.

    Attributes:
      out_channels: channels of the generated image.
      num_downs: levels; image sides are multiples of ``2 ** num_downs``, and tokens are the pixels that are left.
      base_width: channels of the first level; they double with each.
      norm: of the convolutions, see ``UNet``; the transformer has layer norms.
      num_blocks: blocks of the transformer.
      width: of its tokens; a multiple of `num_heads`.
      num_heads: of its attention.
      ffn_width: of the layer within each block.
      embed_width: sines of learned frequencies that encode a token's position; 0 leaves positions out.
      attention_mask: keep the input where a mask that the network draws says so, see ``attention.finish``; input and
        output have as many channels.
      remat: compute the inside of every level and block again for the gradient instead of keeping it.
      init_type, init_gain: initialiser of all kernels, see ``initializers.initializer``.
      dtype: computation dtype; None promotes input and parameters. Attention's softmax and the output tanh are at least
        float32.
      param_dtype: dtype of the parameters.
      axis_name: device axis over which batch norm is synchronised; None keeps it per device.
    """

    out_channels: int = 3
    num_downs: int = attribute(4, bounds="[1, 16]")
    base_width: int = attribute(48, bounds="[1, 65536]")
    norm: str = attribute("instance", choices=NORMS)
    num_blocks: int = attribute(12, bounds="[0, 1000]")
    width: int = attribute(384, bounds="[1, 65536]")
    num_heads: int = attribute(6, bounds="[1, 1024]")
    ffn_width: int = attribute(1536, bounds="[1, 65536]")
    embed_width: int = attribute(384, bounds="[0, 65536]")
    attention_mask: bool = False
    remat: bool = False
    init_type: str = attribute("normal", choices=INITIALIZERS)
    init_gain: float = attribute(0.02, bounds="[0, inf)")
    dtype: Any = None
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, dropout: bool | None = None, until: str | None = None
    ) -> jax.Array:
        """Translate images.

        Args:
          x: [B, H, W, C] in [-1, 1]; H and W multiples of ``2 ** num_downs``.
          train: normalise by the batch's own statistics (and update the running ones where ``batch_stats`` is
            mutable); False uses the running ones. Instance norm knows no difference.
          dropout: of no effect; there is none.
          until: the last layer to compute, a downsampling or the transformer; see ``ResNet``.

        Returns:
          [B, H, W, out_channels] in [-1, 1], at least float32; what was computed last, if `until` says so.

        Raises:
          InputError: a side is not a multiple of ``2 ** num_downs``, or `width` is not one of `num_heads`.
        """
        del dropout
        self._check(x)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., nn.Module] = partial(Conv, init_type=self.init_type, init_gain=self.init_gain, **dtypes)
        norm = make_norm(self.norm, use_running_average=not train, axis_name=self.axis_name, **dtypes)
        widths = [self.base_width * 2**i for i in range(self.num_downs)]

        def level(way, i, before, after):
            """Return two convolutions; the first keeps the width of the level, the second gives `after` channels."""

            def apply(_, x):
                for j, features in enumerate((before, after), 1):
                    x = norm(name=f"{way}_{i}_conv_{j}_norm")(x)
                    x = nn.leaky_relu(conv(features, kernel_size=3, stride=1, name=f"{way}_{i}_conv_{j}")(x))
                return x

            return wrap(apply)

        wrap: Callable[[Any], Any] = compute_again if self.remat else lambda part: part
        images = x
        x = nn.leaky_relu(conv(widths[0], kernel_size=3, stride=1, name="stem")(x))
        encoded = []
        for i, width in enumerate(widths, 1):
            encoded.append(level("down", i, width, width)(self, x))
            x = conv(width, kernel_size=2, stride=2, padding=0, name=f"down_{i}")(encoded[-1])
            if until == f"down_{i}":
                return x
        x = PixelTransformer(
            self.num_blocks,
            self.width,
            self.num_heads,
            self.ffn_width,
            self.embed_width,
            remat=self.remat,
            kernel_init=initializer(self.init_type, self.init_gain),
            name="transformer",
            **dtypes,
        )(x)
        if until == "transformer":
            return x
        for i, width in zip(range(self.num_downs, 0, -1), widths[::-1], strict=True):
            x = conv(width, kernel_size=3, stride=1, name=f"up_{i}")(x.repeat(2, axis=1).repeat(2, axis=2))
            x = jnp.concatenate([x, encoded[i - 1]], axis=-1)
            x = level("up", i, width, widths[max(i - 2, 0)])(self, x)
        channels = self.out_channels + self.attention_mask
        x = conv(channels, kernel_size=1, stride=1, padding=0, name="output")(x)
        return finish(x, images, self.attention_mask)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Layers of the features that CUT compares: the input, and maps of the encoder."""
        return "input", *(f"down_{i}" for i in range(1, min(4, self.num_downs) + 1))

    def _check(self, x: jax.Array) -> None:
        multiple = 2**self.num_downs
        if x.ndim != 4 or x.shape[1] % multiple or x.shape[2] % multiple:
            raise InputError(
                f"a UNetViT with num_downs={self.num_downs} takes [B, H, W, C] with H and W multiples of {multiple}, "
                f"not {x.shape}; change the image size or num_downs"
            )
        if self.width % self.num_heads:
            raise InputError(f"width={self.width} of a UNetViT is not a multiple of num_heads={self.num_heads}")


class PixelTransformer(nn.Module):
    """Let all pixels of a map see each other: [B, H, W, C] to the same shape.

    Attributes:
      num_blocks, width, num_heads, ffn_width, embed_width, remat, dtype, param_dtype: see ``UNetViT``.
      kernel_init: initialiser of all kernels.
    """

    num_blocks: int
    width: int
    num_heads: int
    ffn_width: int
    embed_width: int
    remat: bool = False
    kernel_init: Callable[..., jax.Array] = initializer("normal")
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to [B, H, W, C]."""
        batch, height, width, channels = x.shape
        settings = {"kernel_init": self.kernel_init, "dtype": self.dtype, "param_dtype": self.param_dtype}
        tokens = x.reshape(batch, height * width, channels)
        if self.embed_width:
            # In float32 at least: bfloat16 has the same number for pixels next to each other on a large map.
            exact = jnp.promote_types(jnp.float32, x.dtype)
            embed = nn.Dense(self.embed_width, name="positions", **{**settings, "dtype": exact})
            waves = jnp.sin(embed(places(height, width).astype(exact)))
            waves = jnp.broadcast_to(waves, (batch, *waves.shape)).astype(x.dtype)
            tokens = jnp.concatenate([waves, tokens], axis=-1)
        tokens = nn.Dense(self.width, name="input", **settings)(tokens)
        block = compute_again(TransformerBlock) if self.remat else TransformerBlock
        for i in range(1, self.num_blocks + 1):
            tokens = block(self.num_heads, self.ffn_width, name=f"block_{i}", **settings)(tokens)
        return nn.Dense(channels, name="output", **settings)(tokens).reshape(x.shape)


def places(height: int, width: int) -> jax.Array:
    """Return row and column of every pixel, row by row, each from -1 at one border to 1 at the other: [H W, 2]."""
    # Without linspace, which cannot be exported for any size.
    rows, columns = (2 * jnp.arange(side) / jnp.maximum(side - 1, 1) - 1 for side in (height, width))
    return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(height * width, 2)


class TransformerBlock(nn.Module):
    """Attention and two layers with GELU, each after a layer norm and added with one learned factor that begins at 0.

    The factor is ReZero's (Bachlechner et al. 2020): an untrained block changes nothing.
    """

    num_heads: int
    ffn_width: int
    kernel_init: Callable[..., jax.Array] = initializer("normal")
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to tokens [B, N, C]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        settings = {"kernel_init": self.kernel_init, **dtypes}
        norm = partial(nn.LayerNorm, epsilon=1e-5, **dtypes)
        factor = self.param("rezero", nn.initializers.zeros_init(), (), self.param_dtype)
        narrow = jnp.dtype(self.dtype or x.dtype).itemsize < 4  # Flax would take float64 for narrow too
        attend = nn.MultiHeadAttention(self.num_heads, force_fp32_for_softmax=narrow, name="attention", **settings)
        x = self._add(x, factor, attend(norm(name="attention_norm")(x)))
        inside = nn.gelu(
            nn.Dense(self.ffn_width, name="ffn_in", **settings)(norm(name="ffn_norm")(x)), approximate=False
        )
        return self._add(x, factor, nn.Dense(x.shape[-1], name="ffn_out", **settings)(inside))

    @nn.nowrap
    def _add(self, x: jax.Array, factor: jax.Array, change: jax.Array) -> jax.Array:
        return (x + factor * change).astype(x.dtype)
