"""Spectral normalisation of any layer (Miyato et al. 2018, algorithm 1)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_FIRST_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """Divide the kernel of a layer by its largest singular value, as power iterations find it.

    It equals ``torch.nn.utils.parametrizations.spectral_norm``: of the kernel as a matrix with a row for each output, u
    becomes W v and then v becomes W' u, each at length 1, once whenever the layer is applied in training; what the
    kernel is divided by is u' W v, whose gradient takes u and v as constants. As there, u and v are brought close by 15
    iterations when they are drawn, so the first steps divide by the right number; the older
    ``torch.nn.utils.spectral_norm`` begins with random ones, and finds v first.

    The layer and its parameters keep their names and initial values. The vectors u [outputs] and v [the rest of the
    kernel] are in "batch_stats" under the name of this module, in at least float32, and so is the division. They move
    where `train` is set and "batch_stats" is mutable, and are used as they are elsewhere.

    Note:
      Own code rather than ``nn.SpectralNorm``, which takes the inputs of a transposed convolution for its outputs,
      iterates in evaluation too, keeps neither v nor a close first estimate, and names its vectors with slashes.

    Attributes:
      layer: its parameter "kernel" is divided.
      axis: of the outputs in the kernel: -1, or -2 for transposed convolutions.
      epsilon: least length that vectors are divided by.
    """

    layer: nn.Module
    axis: int = -1
    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, *args: Any, train: bool, **kwargs: Any) -> Any:
        """Apply the layer to `args` and `kwargs`."""

        def divide(variables: Any) -> Any:
            params = dict(variables["params"])
            return {**variables, "params": {**params, "kernel": self._divided(params["kernel"], train)}}

        if self.is_initializing():
            self.layer(*args, **kwargs)  # draws its parameters, which would be kept divided if they were drawn below
        return nn.map_variables(lambda layer: layer(*args, **kwargs), "params", divide)(self.layer)

    def _divided(self, kernel: jax.Array, train: bool) -> jax.Array:
        wide = kernel.astype(jnp.promote_types(jnp.float32, kernel.dtype))
        matrix = jnp.moveaxis(wide, self.axis, 0).reshape(wide.shape[self.axis], -1)
        still = lax.stop_gradient(matrix)
        drawn = not self.has_variable("batch_stats", "u")
        u, v = (
            self.variable("batch_stats", name, lambda side=side: self._draw(side, wide.dtype))
            for name, side in zip("uv", matrix.shape, strict=True)
        )
        found = u.value, v.value
        if drawn or (train and self.is_mutable_collection("batch_stats") and not self.is_initializing()):
            for _ in range(_FIRST_ITERATIONS if drawn else 1):
                found = self._iterate(still, found[1])
            u.value, v.value = found
        with jax.default_matmul_precision("highest"):
            largest = found[0] @ (matrix @ found[1])
        return (wide / jnp.where(largest == 0, 1, largest)).astype(kernel.dtype)

    def _draw(self, side: int, dtype: Any) -> jax.Array:
        return self._unit(jax.random.normal(self.make_rng("params"), (side,), dtype))

    def _iterate(self, matrix: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.default_matmul_precision("highest"):
            u = self._unit(matrix @ v)
            return u, self._unit(u @ matrix)

    def _unit(self, vector: jax.Array) -> jax.Array:
        return vector / jnp.maximum(jnp.linalg.norm(vector), self.epsilon)


def spectrally_normed(make: Callable[..., Any], *, train: bool, axis: int = -1) -> Callable[..., Callable]:
    """Return a constructor like `make`; its layer NAME has its vectors at ``NAME_spectral``.

    Args:
      make: constructor of a layer, a Flax module with a parameter "kernel".
      train: the vectors may move.
      axis: see ``SpectralNorm``.
    """

    def construct(*args: Any, name: str, **kwargs: Any) -> Callable:
        layer = SpectralNorm(make(*args, name=name, **kwargs), axis, name=f"{name}_spectral")
        return lambda *inputs: layer(*inputs, train=train)

    return construct
