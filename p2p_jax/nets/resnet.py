"""ResNet generator of CycleGAN (Zhu et al. 2017, section 4 and appendix 7.2; Johnson et al. 2016)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets import convolution
from p2p_jax.nets.attention import finish
from p2p_jax.nets.initializers import INITIALIZERS
from p2p_jax.nets.layers import (
    BIASES,
    NORMS,
    PADDINGS,
    UPSAMPLINGS,
    Conv,
    compute_again,
    has_biases,
    make_norm,
    make_upsampling,
)
from p2p_jax.nets.resampling import DOWNSAMPLINGS, blur_downsample, check_downsampling

_NUM_DOWNS = 2
_ENCODER = ("input", "padded", "stem", "down_1", "down_2")  # where features are taken before the blocks


class Widths(NamedTuple):
    """Channels that the layers of a ResNet give: of the stem, downsamplings, inside of each block, and upsamplings."""

    stem: int
    downs: tuple[int, ...]
    blocks: tuple[int, ...]
    ups: tuple[int, ...]


def widths_of(bases: Sequence[int]) -> Widths:
    """Multiply the width of each layer, as it would be at the full side of the image, by its place: 1, 2, 4 ... 2, 1.

    Args:
      bases: of the stem, of each downsampling, of the inside of each block, and of each upsampling.
    """
    deepest = 2**_NUM_DOWNS
    downs, blocks, ups = bases[1 : 1 + _NUM_DOWNS], bases[1 + _NUM_DOWNS : -_NUM_DOWNS], bases[-_NUM_DOWNS:]
    return Widths(
        bases[0],
        tuple(base * 2**i for i, base in enumerate(downs, 1)),
        tuple(base * deepest for base in blocks),
        tuple(base * deepest // 2**i for i, base in enumerate(ups, 1)),
    )


class ResNet(nn.Module):
    """Down twice, through residual blocks, and up again: ``c7s1-64, d128, d256, R256 x n, u128, u64, c7s1-3``.

    Attributes:
      out_channels: channels of the generated image.
      num_blocks: residual blocks; the paper has 6 at 128x128 and 9 from 256x256 on.
      base_width: channels of the first layer; they double with each of the two downsamplings.
      norm: "instance", "instance_affine" (with a scale and a bias per channel), "instance_tracked" (which keeps
        running statistics, as the PyTorch release from 2018-06 to 2019-01), "batch" or "none".
      biases: which convolutions have biases: "all", only the "last", or "auto": only the last with batch norm, else
        all, as published.
      padding: "reflect" or "zero", of all convolutions but the two downsampling and the two transposed or antialiased
        ones, which are always padded with zeros.
      dropout_rate: probability of zeroing an activation between the two convolutions of a block; 0 in the paper.
      downsampling: "strided" convolutions, as published, or "antialiased": convolutions of stride 1, each followed,
        after norm and ReLU, by ``resampling.blur_downsample``, as in CUT (Park et al. 2020).
      upsampling: "transposed" convolutions, "resize" and convolution, or "antialiased", as in CUT; see
        ``layers.make_upsampling``.
      attention_mask: keep the input where a mask that the network draws says so, see ``attention.finish``; input and
        output have as many channels.
      remat: compute the inside of the encoder, of every block and of the decoder again for the gradient instead of
        keeping it: less memory for large images and batches, a third more arithmetic.
      init_type, init_gain: kernel initialiser, see ``initializers.initializer``.
      dtype: computation dtype; None promotes input and parameters. The output tanh is at least float32.
      param_dtype: dtype of the parameters.
      axis_name: device axis over which batch norm is synchronised; None keeps it per device.
    """

    out_channels: int = 3
    num_blocks: int = attribute(9, bounds="[0, 1000]")
    base_width: int = attribute(64, bounds="[1, 65536]")
    norm: str = attribute("instance", choices=NORMS)
    biases: str = attribute("auto", choices=BIASES)
    padding: str = attribute("reflect", choices=PADDINGS)
    dropout_rate: float = attribute(0.0, bounds="[0, 1)")
    downsampling: str = attribute("strided", choices=DOWNSAMPLINGS)
    upsampling: str = attribute("transposed", choices=UPSAMPLINGS)
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
          x: [B, H, W, C] in [-1, 1]; H and W multiples of 4.
          train: normalise by the batch's own statistics (and update the running ones where ``batch_stats`` is
            mutable); False uses the running ones. Instance norm knows no difference.
          dropout: draw dropout from the "dropout" rng; None means the same as `train`.
          until: the last layer of the encoder or block to compute; its features are what intermediates
            are captured for.

        Returns:
          [B, H, W, out_channels] in [-1, 1], at least float32; what was computed last, if `until` says so.

        Raises:
          InputError: a side is not a multiple of 4 or too small to be reflected, or an attribute is unknown.
        """
        self._check(x)
        dropout = train if dropout is None else dropout
        settings = {
            "init_type": self.init_type,
            "init_gain": self.init_gain,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        use_bias = has_biases(self.biases, self.norm)
        conv = partial(Conv, use_bias=use_bias, **settings)
        padded = partial(conv, stride=1, pad_with=self.padding)
        up = make_upsampling(self.upsampling, kernel_size=3, pad_with=self.padding, use_bias=use_bias, **settings)
        norm = make_norm(
            self.norm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        dropout_rate = self.dropout_rate if dropout else 0.0
        block_conv = self._block_conv(padded, settings)
        widths, blurs = self._widths(), self.downsampling == "antialiased"

        def encode(_, x):
            x = padded(features=widths.stem, kernel_size=7, padding=3, name="stem")(x)
            x = nn.relu(norm(name="stem_norm")(x))
            for i, width in enumerate(widths.downs, 1):
                x = conv(features=width, kernel_size=3, stride=1 if blurs else 2, name=f"down_{i}")(x)
                x = nn.relu(norm(name=f"down_{i}_norm")(x))
                x = blur_downsample(x) if blurs else x
            return x

        def decode(_, x):
            for i, width in zip(range(_NUM_DOWNS, 0, -1), widths.ups, strict=True):
                x = up(features=width, name=f"up_{i}")(x)
                x = nn.relu(norm(name=f"up_{i}_norm")(x))
            channels = self.out_channels + self.attention_mask
            return padded(features=channels, kernel_size=7, padding=3, use_bias=True, name="output")(x)

        wrap: Callable[[Any], Any] = compute_again if self.remat else lambda part: part
        images = x
        x = wrap(encode)(self, x)
        if until in _ENCODER:
            return x
        block = partial(wrap(ResidualBlock), block_conv, norm)
        if until is None and not dropout_rate and self._repeats(x, widths.blocks):
            x = self._repeat(block(widths.blocks[0], parent=None), x)
        else:
            for i, width in enumerate(widths.blocks, 1):
                x = block(width, dropout_rate, name=f"block_{i}")(x)
                if until == f"block_{i}":
                    return x
        x = wrap(decode)(self, x)
        return finish(x, images, self.attention_mask)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Layers of the features that CUT compares: of nine blocks the first and the fifth, as published."""
        first = "padded" if self.padding == "reflect" else "input"
        blocks = sorted({1, min(5, self.num_blocks)}) if self.num_blocks else []
        return first, "down_1", "down_2", *(f"block_{i}" for i in blocks)

    def _widths(self) -> Widths:
        return widths_of([self.base_width] * (_NUM_DOWNS + self.num_blocks + 3))

    def _block_conv(self, padded: Callable[..., nn.Module], settings: Mapping[str, Any]) -> Callable[..., nn.Module]:
        """Return the constructor of the convolutions in blocks; `padded` is that of those that keep the sides."""
        return padded

    def _repeats(self, x: jax.Array, widths: Sequence[int]) -> bool:
        """Return whether the blocks are one loop: on CPUs, where they have equal shapes, and nothing but parameters."""
        plain = self.is_initializing() or self.is_mutable_collection("intermediates")
        alike = len(set(widths)) == 1 < len(widths) and not self.variables.get("batch_stats")
        return alike and not plain and convolution.detours(x.shape)

    def _repeat(self, block: nn.Module, x: jax.Array) -> jax.Array:
        """Apply a block with the parameters of one after the other.

        XLA compiles its operations once. It would compile those of every block, and keep them in memory.
        """
        each = [self.variables["params"][f"block_{i}"] for i in range(1, self.num_blocks + 1)]

        def next_block(x: jax.Array, params: Any) -> tuple[Any, None]:
            return block.apply({"params": params}, x), None

        return jax.lax.scan(next_block, x, jax.tree.map(lambda *same: jnp.stack(same), *each))[0]

    def _check(self, x: jax.Array) -> None:
        if self.padding not in PADDINGS:
            raise InputError(f"unknown padding {self.padding!r}: choose one of {', '.join(PADDINGS)}")
        check_downsampling(self.downsampling)
        if self.num_blocks < 0:
            raise InputError(f"num_blocks is {self.num_blocks}; it must be at least 0")
        multiple = 2**_NUM_DOWNS
        # Reflection takes a border's pixels from inside the map, so a map must be wider than its border.
        smallest = 2 * multiple if self.padding == "reflect" else multiple
        if (
            x.ndim != 4
            or x.shape[1] % multiple
            or x.shape[2] % multiple
            or any(side < smallest for side in x.shape[1:3])
        ):
            raise InputError(
                f"a ResNet with padding={self.padding!r} takes [B, H, W, C] with H and W multiples of {multiple} and "
                f"at least {smallest}, not {x.shape}; change the image size"
            )


class ResidualBlock(nn.Module):
    """Add to [B, H, W, C] what two 3x3 convolutions make of it; nothing comes after the sum.

    Attributes:
      conv: constructor of a convolution that keeps the sides when its padding is 1.
      norm: constructor of a normalisation.
      features: channels between the convolutions.
      dropout_rate: probability of zeroing an activation between the convolutions; 0 draws no noise.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., Callable[[jax.Array], jax.Array]]
    features: int
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to [B, H, W, C]."""
        conv = partial(self.conv, kernel_size=3)
        y = nn.relu(self.norm(name="conv_1_norm")(conv(features=self.features, name="conv_1")(x)))
        y = nn.Dropout(self.dropout_rate, name="dropout")(y, deterministic=not self.dropout_rate)
        return x + self.norm(name="conv_2_norm")(conv(features=x.shape[-1], name="conv_2")(y))


ResNet9 = partial(ResNet, num_blocks=9)
ResNet6 = partial(ResNet, num_blocks=6)
