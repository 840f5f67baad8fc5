"""PatchGAN discriminators (Isola et al. 2017, section 3.2.2 and appendix 6.1.2)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from p2p_jax.config import attribute
from p2p_jax.errors import InputError
from p2p_jax.nets.initializers import INITIALIZERS
from p2p_jax.nets.layers import BIASES, NORMS, Conv, has_biases, leaky_relu, make_norm
from p2p_jax.nets.resampling import DOWNSAMPLINGS, blur_downsample, check_downsampling
from p2p_jax.nets.spectral_norm import spectrally_normed

# Receptive field of one logit in pixels -> convolutions with stride 2 (0: the PixelGAN, 1x1 kernels throughout).
RECEPTIVE_FIELDS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


class PatchGAN(nn.Module):
    """Classify overlapping patches as real or generated; one logit per patch, no sigmoid.

    Attributes:
      receptive_field: side of the patch in pixels: 1, 16, 34, 70, 142 or 286.
      base_width: channels of the first layer.
      norm: "batch", "instance", "instance_affine" (with a scale and a bias per channel), "instance_tracked" (which
        keeps running statistics, as the PyTorch release from 2018-06 to 2019-01) or "none".
      biases: which convolutions have biases: "all"; "last": only the first and the last (in the PixelGAN only the
        first); or "auto": as "last" with batch norm, else all, as published.
      padding: zeros around the maps of every 4x4 convolution: 1, or 2 in the PyTorch release before 2017-09-23, where
        maps of logits are larger.
      downsampling: "strided" convolutions, as published, or "antialiased": convolutions of stride 1, each followed,
        after its leaky ReLU, by ``resampling.blur_downsample``, as in CUT (Park et al. 2020). The patches are larger
        then: 18, 40, 84, 172 and 348 pixels for 16 to 286; the PixelGAN is the same.
      spectral_norm: divide every kernel by its largest singular value, see ``spectral_norm.SpectralNorm``; usually in
        the place of another norm (``norm="none"``).
      init_type, init_gain, dtype, param_dtype, axis_name: as for ``UNet``. Logits are at least float32.
    """

    receptive_field: int = attribute(70, choices=tuple(RECEPTIVE_FIELDS))
    base_width: int = attribute(64, bounds="[1, 65536]")
    norm: str = attribute("batch", choices=NORMS)
    biases: str = attribute("auto", choices=BIASES)
    padding: int = attribute(1, choices=(1, 2))
    downsampling: str = attribute("strided", choices=DOWNSAMPLINGS)
    spectral_norm: bool = False
    init_type: str = attribute("normal", choices=INITIALIZERS)
    init_gain: float = attribute(0.02, bounds="[0, inf)")
    dtype: Any = None
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def sees_images_alone(self) -> bool:
        """Whether no image and no call changes the logits of another, so that one call may judge real and generated."""
        return self.norm in ("instance", "instance_affine", "none") and not self.spectral_norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Return logits.

        Args:
          x: [B, H, W, C] in [-1, 1]; for a conditional discriminator input and output concatenated on channels.
          train: normalise by the batch's own statistics, and let the vectors of the spectral norm move; False uses
            those that are kept.

        Returns:
          [B, h, w, 1] logits, at least float32; at 256x256 h = w = 126, 62, 30, 14, 6 for fields 16 to 286 (with
          the padding of 1), with any downsampling.

        Raises:
          InputError: unknown receptive field or downsampling, or an image too small to hold one patch's layers.
        """
        if self.receptive_field not in RECEPTIVE_FIELDS:
            choices = ", ".join(map(str, RECEPTIVE_FIELDS))
            raise InputError(f"unknown receptive_field {self.receptive_field}: choose one of {choices}")
        check_downsampling(self.downsampling)
        num_strided, blurs = RECEPTIVE_FIELDS[self.receptive_field], self.downsampling == "antialiased"
        smallest = 3 * 2**num_strided  # the last two convolutions, without stride, take a pixel each
        if num_strided and min(x.shape[1:3]) < smallest:
            raise InputError(
                f"a PatchGAN with receptive_field={self.receptive_field} needs images of at least "
                f"{smallest}x{smallest} pixels, not {x.shape[1]}x{x.shape[2]}; choose a smaller receptive_field"
            )
        conv: Callable[..., Callable[[jax.Array], jax.Array]] = partial(
            Conv,
            padding=self.padding,
            init_type=self.init_type,
            init_gain=self.init_gain,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        if self.spectral_norm:
            conv = spectrally_normed(conv, train=train)
        norm = make_norm(
            self.norm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        bias_before_norm = has_biases(self.biases, self.norm)
        if num_strided == 0:
            pointwise = partial(conv, kernel_size=1, stride=1, padding=0)
            x = leaky_relu(pointwise(features=self.base_width, name="conv_1")(x))
            x = pointwise(features=self.base_width * 2, use_bias=bias_before_norm, name="conv_2")(x)
            x = leaky_relu(norm(name="conv_2_norm")(x))
            logits = pointwise(features=1, use_bias=bias_before_norm, name="logits")(x)
        else:
            step = 1 if blurs else 2
            x = leaky_relu(conv(features=self.base_width, stride=step, name="conv_1")(x))
            x = blur_downsample(x) if blurs else x
            for i in range(1, num_strided + 1):
                width = self.base_width * min(2**i, 8)
                stride = step if i < num_strided else 1
                x = conv(features=width, stride=stride, use_bias=bias_before_norm, name=f"conv_{i + 1}")(x)
                x = leaky_relu(norm(name=f"conv_{i + 1}_norm")(x))
                x = blur_downsample(x) if blurs and i < num_strided else x
            logits = conv(features=1, stride=1, name="logits")(x)
        return logits.astype(jnp.promote_types(jnp.float32, logits.dtype))
