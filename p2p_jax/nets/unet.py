"""U-Net and encoder-decoder generators (Isola et al. 2017, section 3.2.1 and appendix 6.1.1)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets.attention import finish
from p2p_jax.nets.initializers import INITIALIZERS
from p2p_jax.nets.layers import (
    BIASES,
    NORMS,
    UPSAMPLINGS,
    Conv,
    compute_again,
    has_biases,
    leaky_relu,
    make_norm,
    make_upsampling,
)

DROPOUT_LAYOUTS = ("paper", "pytorch")


class UNet(nn.Module):
    """Encoder-decoder with skip connections; every convolution is 4x4 with stride 2, but for ``upsampling="resize"``.

    Encoder widths are ``base_width * (1, 2, 4, 8, 8, ...)`` over `num_downs` layers, mirrored by the decoder; encoder
    layer i (after its norm, before its activation) is concatenated in front of decoder output i. With ``skips=False``
    it is the paper's encoder-decoder ablation (Table 2).

    Attributes:
      out_channels: channels of the generated image.
      num_downs: encoder layers; image sides must be multiples of ``2 ** num_downs``.
      base_width: channels of the first encoder layer.
      skips: concatenate encoder outputs to decoder outputs.
      norm: "batch", "instance", "instance_affine" (with a scale and a bias per channel), "instance_tracked" (which
        keeps running statistics, as the PyTorch release from 2018-06 to 2019-01) or "none".
      biases: which convolutions have biases: "all", only the "last", or "auto": only the last with batch norm, else
        all, as published.
      bottleneck_norm: normalise the innermost encoder layer too, as the paper's text printed before its erratum. At
        batch size 1 on a 1x1 map batch norm returns exactly zero there.
      dropout_rate: probability of zeroing an activation.
      dropout_layout: "paper": decoder layers 1 to 3 (also the Lua and TensorFlow releases). "pytorch": decoder layers
        2 to ``num_downs - 4``, the PyTorch release's 512-to-512 blocks.
      upsampling: "transposed" convolutions, "resize" and convolution, or "antialiased", see
        ``layers.make_upsampling``.
      attention_mask: keep the input where a mask that the network draws says so, see ``attention.finish``; input and
        output have as many channels.
      remat: compute the inside of the network again for the gradient instead of keeping it: less memory for large
        images and batches, a third more arithmetic in the generator.
      init_type, init_gain: kernel initialiser, see ``initializers.initializer``.
      dtype: computation dtype; None promotes input and parameters. The output tanh is at least float32.
      param_dtype: dtype of the parameters.
      axis_name: device axis over which batch norm is synchronised; None keeps it per device.
    """

    out_channels: int = 3
    num_downs: int = attribute(8, bounds="[2, 16]")
    base_width: int = attribute(64, bounds="[1, 65536]")
    skips: bool = True
    norm: str = attribute("batch", choices=NORMS)
    biases: str = attribute("auto", choices=BIASES)
    bottleneck_norm: bool = False
    dropout_rate: float = attribute(0.5, bounds="[0, 1)")
    dropout_layout: str = attribute("paper", choices=DROPOUT_LAYOUTS)
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
          x: [B, H, W, C] in [-1, 1]; H and W multiples of ``2 ** num_downs``.
          train: normalise by the batch's own statistics (and update the running ones where ``batch_stats`` is
            mutable); False uses the running ones.
          dropout: draw dropout from the "dropout" rng; None means the same as `train`. At test time it is
            ``config.inference.dropout``.
          until: the last layer of the encoder to compute; see ``ResNet``.

        Returns:
          [B, H, W, out_channels] in [-1, 1], at least float32; what was computed last, if `until` says so.

        Raises:
          InputError: a side is not a multiple of ``2 ** num_downs``, or an attribute is unknown.
        """
        self._check(x)
        dropout = train if dropout is None else dropout

        def translate(network, x):
            return network._layers(x, train, dropout, until)

        return (compute_again(translate) if self.remat else translate)(self, x)

    @nn.nowrap
    def _layers(self, x: jax.Array, train: bool, dropout: bool, until: str | None) -> jax.Array:
        settings = {
            "init_type": self.init_type,
            "init_gain": self.init_gain,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        use_bias = has_biases(self.biases, self.norm)
        conv = partial(Conv, use_bias=use_bias, **settings)
        up = make_upsampling(self.upsampling, kernel_size=4, **settings)
        norm = make_norm(
            self.norm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        depth = self.num_downs
        widths = [self.base_width * min(2**i, 8) for i in range(depth)]

        images, encoded = x, []
        for i, width in enumerate(widths, start=1):
            x = conv(features=width, name=f"down_{i}")(x if i == 1 else leaky_relu(x))
            if 1 < i < depth or (i == depth and self.bottleneck_norm):
                x = norm(name=f"down_{i}_norm")(x)
            encoded.append(x)
            if until == f"down_{i}":
                return x
        for i in range(depth, 1, -1):
            x = up(features=widths[i - 2], use_bias=use_bias, name=f"up_{i}")(nn.relu(x))
            x = norm(name=f"up_{i}_norm")(x)
            if self.has_dropout(i):
                x = nn.Dropout(self.dropout_rate, name=f"up_{i}_dropout")(x, deterministic=not dropout)
            if self.skips:
                x = jnp.concatenate([encoded[i - 2], x], axis=-1)
        x = up(features=self.out_channels + self.attention_mask, name="up_1")(nn.relu(x))
        return finish(x, images, self.attention_mask)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Layers of the features that CUT compares: the input, and the widest maps of the encoder."""
        return "input", *(f"down_{i}" for i in range(1, min(5, self.num_downs)))

    def has_dropout(self, level: int) -> bool:
        """Return whether the decoder layer at `level` (num_downs innermost, 1 the output) is followed by dropout."""
        position = self.num_downs - level + 1  # the papers count decoder layers from the innermost: d1, d2, ...
        if self.dropout_layout == "paper":
            return position <= 3 and level > 1
        return 2 <= position <= self.num_downs - 4

    def _check(self, x: jax.Array) -> None:
        if self.dropout_layout not in DROPOUT_LAYOUTS:
            raise InputError(
                f"unknown dropout_layout {self.dropout_layout!r}: choose one of {', '.join(DROPOUT_LAYOUTS)}"
            )
        if self.num_downs < 2:
            raise InputError(f"num_downs is {self.num_downs}; a U-Net needs at least 2")
        multiple = 2**self.num_downs
        if x.ndim != 4 or x.shape[1] % multiple or x.shape[2] % multiple:
            raise InputError(
                f"a U-Net with num_downs={self.num_downs} takes [B, H, W, C] with H and W multiples of {multiple}, "
                f"not {x.shape}; change the image size or num_downs"
            )


UNet256 = partial(UNet, num_downs=8)
UNet128 = partial(UNet, num_downs=7)
EncoderDecoder = partial(UNet, skips=False)
