"""Layers shared by the networks: convolutions and normalisations.

Image contract: [B, H, W, C] floating point, channels last. Kernels are [kH, kW, in, out] for a convolution and
[kH, kW, out, in] for a transposed one (the axes of a PyTorch weight under ``transpose(2, 3, 1, 0)`` in both cases).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from p2p_jax.errors import InputError
from p2p_jax.nets import maps
from p2p_jax.nets.convolution import conv, conv_transpose
from p2p_jax.nets.initializers import initializer
from p2p_jax.nets.resampling import blur_upsample

NORMS = ("batch", "instance", "instance_affine", "instance_tracked", "none")
PADDINGS = ("zero", "reflect")
UPSAMPLINGS = ("transposed", "resize", "antialiased")
BIASES = ("auto", "all", "last")


class Conv(nn.Module):
    """Convolve with a square kernel; `transposed` turns it into its transpose (upsampling by `stride`).

    Input [B, H, W, I], output [B, H', W', features] in `dtype` (None: the promotion of input and parameters). What
    `padding` adds to the borders is `pad_with` (one of PADDINGS; a transposed convolution knows only zeros).
    """

    features: int
    kernel_size: int = 4
    stride: int = 2
    padding: int = 1
    pad_with: str = "zero"
    use_bias: bool = True
    transposed: bool = False
    init_type: str = "normal"
    init_gain: float = 0.02
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to [B, H, W, I]."""
        channels = (self.features, x.shape[-1]) if self.transposed else (x.shape[-1], self.features)
        kernel_init = initializer(self.init_type, self.init_gain, transposed=self.transposed)
        kernel = self.param("kernel", kernel_init, (self.kernel_size,) * 2 + channels, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        padding = self.padding
        if self.pad_with == "reflect":
            x, padding = maps.reflect(x, padding), 0
        y = (conv_transpose if self.transposed else conv)(x, kernel, self.stride, padding)
        if bias is None:
            return y
        # Added in float32 at least: its gradient is a sum over all pixels, of which bfloat16 would lose the most part.
        return maps.add(y, bias.astype(jnp.promote_types(jnp.float32, y.dtype)))


def make_upsampling(kind: str, *, kernel_size: int, pad_with: str = "zero", **settings: Any) -> Callable[..., Callable]:
    """Return a constructor ``up(features=..., name=...)`` of a layer that doubles the sides of [B, H, W, C].

    Args:
      kind: "transposed": transposed convolution with stride 2, as published. "resize": nearest-neighbour resize, then
        a 3x3 convolution, which leaves no checkerboard (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts").
        "antialiased": the same after ``resampling.blur_upsample`` and with zeros around, as in CUT.
      kernel_size: side of the transposed convolution's kernel.
      pad_with: border of the 3x3 convolution after a resize, see ``Conv``.
      **settings: attributes of ``Conv``.

    Raises:
      InputError: unknown kind.
    """
    if kind == "transposed":
        return partial(Conv, kernel_size=kernel_size, transposed=True, **settings)
    if kind not in UPSAMPLINGS:
        raise InputError(f"unknown upsampling {kind!r}: choose one of {', '.join(UPSAMPLINGS)}")
    if kind == "antialiased":
        zero_padded = partial(Conv, kernel_size=3, stride=1, **settings)
        return lambda **kwargs: lambda x: zero_padded(**kwargs)(blur_upsample(x))
    conv3 = partial(Conv, kernel_size=3, stride=1, pad_with=pad_with, **settings)
    return lambda **kwargs: lambda x: conv3(**kwargs)(x.repeat(2, axis=1).repeat(2, axis=2))


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over batch, height and width; eps 1e-5, momentum 0.9.

    Statistics are those of one device's share of the batch unless `axis_name` names the device axis to average them
    over (synchronised batch norm). They are computed in at least float32.

    Note:
      Own code rather than ``nn.BatchNorm`` for two properties of the reference: the running variance is the unbiased
      one, and a caller that does not make ``batch_stats`` mutable may still normalise by the batch's own statistics,
      which is how pix2pix translates (section 3.4 of the paper).
    """

    use_running_average: bool
    axis_name: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise [B, H, W, C]."""
        features = (x.shape[-1],)
        scale = self.param("scale", _around_one, features, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), features, self.param_dtype)
        running = _running_statistics(self, features)
        if self.use_running_average:
            mean, var = (x.value for x in running)
        else:
            values = x.astype(jnp.promote_types(jnp.float32, x.dtype))
            count = x.size // x.shape[-1]
            mean, var = (x.ravel() for x in maps.moments(values, (0, 1, 2)))
            if self.axis_name is not None and not self.is_initializing():
                count *= lax.psum(1, self.axis_name)
                own, mean = mean, lax.pmean(mean, self.axis_name)
                var = lax.pmean(var + jnp.square(own - mean), self.axis_name)
            _move(self, running, mean, var * (count / max(count - 1, 1)))
        factor = scale * lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        return maps.affine(x, factor.reshape(1, 1, 1, -1), shift.reshape(1, 1, 1, -1), self.dtype)


class InstanceNorm(nn.Module):
    """Instance normalisation (Ulyanov et al. 2016): biased variance, eps 1e-5.

    Without parameters, as CycleGAN has it, unless `affine` gives every channel a scale and a bias, and without running
    statistics unless it is `tracked`, PyTorch's ``track_running_stats``: then it keeps the average of the images'
    statistics, used by `use_running_average`.
    """

    affine: bool = False
    tracked: bool = False
    use_running_average: bool = False
    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise [B, H, W, C]."""
        mean, var = self._statistics(x)
        factor = lax.rsqrt(var + self.epsilon)
        shift = -mean * factor
        if self.affine:
            scale = self.param("scale", _around_one, x.shape[-1:], self.param_dtype).reshape(1, 1, 1, -1)
            bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], self.param_dtype).reshape(1, 1, 1, -1)
            factor, shift = factor * scale, shift * scale + bias
        return maps.affine(x, factor, shift, self.dtype)

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and variance, [B or 1, 1, 1, C]."""
        running = _running_statistics(self, x.shape[-1:]) if self.tracked else ()
        if self.tracked and self.use_running_average:
            mean, var = (x.value.reshape(1, 1, 1, -1) for x in running)
            return mean, var
        mean, var = maps.moments(x.astype(jnp.promote_types(jnp.float32, x.dtype)), (1, 2))
        if self.tracked:
            count = x.shape[1] * x.shape[2]
            _move(self, running, mean.mean((0, 1, 2)), var.mean((0, 1, 2)) * (count / max(count - 1, 1)))
        return mean, var


def _running_statistics(norm: nn.Module, features: tuple[int, ...]) -> tuple[nn.Variable, nn.Variable]:
    """Return the running mean and variance that a norm keeps."""
    dtype = jnp.promote_types(jnp.float32, norm.param_dtype)
    shapes = {"mean": jnp.zeros, "var": jnp.ones}
    mean, var = (norm.variable("batch_stats", name, init, features, dtype) for name, init in shapes.items())
    return mean, var


def _move(norm: nn.Module, running: tuple[nn.Variable, ...], *found: jax.Array) -> None:
    """Move running statistics towards those of a batch, where they may change."""
    if norm.is_mutable_collection("batch_stats") and not norm.is_initializing():
        for variable, new in zip(running, found, strict=True):
            old = variable.value
            variable.value = (norm.momentum * old + (1 - norm.momentum) * new).astype(old.dtype)


def _around_one(rng: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draw scales of norms from N(1, 0.02)."""
    return 1 + 0.02 * jax.random.normal(rng, shape, dtype)


def make_norm(
    kind: str, *, use_running_average: bool, axis_name: str | None, dtype: Any, param_dtype: Any
) -> Callable[..., Callable[[jax.Array], jax.Array]]:
    """Return a constructor ``norm(name=...)`` of the normalisation layer called `kind` (one of NORMS)."""
    if kind == "batch":
        return partial(
            BatchNorm,
            use_running_average=use_running_average,
            axis_name=axis_name,
            dtype=dtype,
            param_dtype=param_dtype,
        )
    if kind in ("instance", "instance_affine"):
        return partial(InstanceNorm, affine=kind == "instance_affine", dtype=dtype, param_dtype=param_dtype)
    if kind == "instance_tracked":
        return partial(
            InstanceNorm,
            tracked=True,
            use_running_average=use_running_average,
            dtype=dtype,
            param_dtype=param_dtype,
        )
    if kind == "none":
        return lambda name: lambda x: x
    raise InputError(f"unknown norm {kind!r}: choose one of {', '.join(NORMS)}")


def has_biases(biases: str, norm: str) -> bool:
    """Return whether the convolutions before a norm have biases; a batch norm makes them superfluous.

    Args:
      biases: "auto": unless the norm is "batch", as published; "all": they have; "last": only the last convolution.
      norm: one of NORMS.

    Raises:
      InputError: `biases` is not one of BIASES.
    """
    if biases not in BIASES:
        raise InputError(f"unknown biases {biases!r}: choose one of {', '.join(BIASES)}")
    return biases == "all" or (biases == "auto" and norm != "batch")


def leaky_relu(x: jax.Array) -> jax.Array:
    """Apply LeakyReLU with the papers' slope of 0.2."""
    return nn.leaky_relu(x, 0.2)


def compute_again(part: Callable) -> Callable:
    """Return a part of a network that keeps little more than its input for its gradient.

    All between input and result is computed again, but for sums that devices share: they are small, and the devices
    need not wait for each other twice. Names of parameters and statistics stay.

    Args:
      part: a module class, or a function of the module that it belongs to and an array.
    """
    return nn.remat(part, policy=lambda primitive, *_, **__: primitive.name in ("reduce_sum", "psum"))
