"""Patchwise contrast (PatchNCE): a patch of a translation belongs to the patch of the input at its place.

Contrastive Learning for Unpaired Image-to-Image Translation (CUT, Park et al. 2020, section 3.2).
"""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import lax

from p2p_jax.errors import InputError
from p2p_jax.nets.initializers import initializer
from p2p_jax.nets.maps import reflect

INPUT, PADDED = "input", "padded"
"""Layers that are not submodules: the image itself, and the image with its reflected border."""
_BORDER = 3  # of the published network
_EPSILON = 1e-7


def find_layers(network: nn.Module, asked: str) -> tuple[str, ...]:
    """Return the layers of a generator for comparing the features of patches.

    Args:
      network: the generator; one that has an attribute ``feature_layers`` says itself which they are.
      asked: ``config.loss.layers``: names of submodules with commas, "block_1/conv_1" in a nested one, ``INPUT`` or
        ``PADDED``, in the order they are computed; "": those of the network.

    Raises:
      InputError: neither names any, or a name appears twice.
    """
    if not asked:
        layers = getattr(network, "feature_layers", None)
        if layers is None:
            raise InputError(
                f"config.loss.layers: {type(network).__name__} does not say which features to compare patches by; "
                "name some of its submodules in order, such as input,down_1,block_1"
            )
        return tuple(layers)
    names = tuple(name.strip() for name in asked.split(","))
    if len(set(names)) < len(names) or not all(names):
        raise InputError(f"config.loss.layers={asked!r} must be different layer names, comma-separated")
    return names


class Encoder:
    """A generator, seen with the features of some of its layers.

    Args:
      network: called as ``(x, *, train, dropout)``. One that also takes ``until``, the name of a submodule, computes
        nothing behind it, see ``nets.ResNet``; of another XLA drops what nobody uses.
      layers: see ``find_layers``.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]):
        self._network, self._layers = network, tuple(layers)
        self._stops = "until" in inspect.signature(type(network).__call__).parameters

    def translate(
        self, variables: Any, images: jax.Array, *, update_stats: bool, **kwargs: Any
    ) -> tuple[jax.Array, list[jax.Array], Any]:
        """Apply the whole network.

        Args:
          variables: with "params" and "batch_stats".
          images: [B, H, W, C].
          update_stats: let running statistics move.
          **kwargs: what else the network is called with.

        Returns:
          What it returns; the layers' features, [B, h, w, C] each; and the batch statistics.

        Raises:
          InputError: there is no such layer, or it does not give a feature map.
        """
        mutable = ["intermediates", "batch_stats"] if update_stats else ["intermediates"]
        output, state = self._network.apply(
            variables,
            images,
            mutable=mutable,
            capture_intermediates=lambda module, _: "/".join(module.path) in self._layers,
            **kwargs,
        )
        found = flatten_dict(state.get("intermediates", {}), sep="/")
        return output, [self._features(name, images, found) for name in self._layers], state.get("batch_stats", {})

    def encode(self, variables: Any, images: jax.Array, **kwargs: Any) -> list[jax.Array]:
        """Apply the network as far as the last of its layers; see ``translate``."""
        if self._stops:
            kwargs["until"] = self._layers[-1].partition("/")[0]
        return self.translate(variables, images, update_stats=False, **kwargs)[1]

    def check(self, variables: Any, images: jax.Array, **kwargs: Any) -> list[jax.ShapeDtypeStruct]:
        """Return the shapes of the features.

        Raises:
          InputError: there is no such layer, the order differs, or it does not give a feature map.
        """
        return jax.eval_shape(lambda v, x: self.encode(v, x, **kwargs), variables, images)

    def _names(self, images: jax.Array) -> list[str]:
        """Return the names of the network's submodules, in the order they are computed."""
        found: list[str] = []

        def note(module, _):
            if len(module.path) == 1:
                found.append(module.name)
            return False

        jax.eval_shape(
            lambda x: self._network.init(jax.random.key(0), x, train=False, capture_intermediates=note), images
        )
        return list(dict.fromkeys(found))

    def _features(self, name: str, images: jax.Array, found: dict[str, Any]) -> jax.Array:
        if name == INPUT:
            return images
        if name == PADDED:
            return reflect(images, _BORDER)
        maps = found.get(f"{name}/__call__", (None,))[0]
        if maps is None:
            raise InputError(
                f"config.loss.layers: {type(self._network).__name__} computes no {name} up to "
                f"{self._layers[-1]}; name layers in the order they are computed: it has "
                f"{', '.join(self._names(images))}"
            )
        if not hasattr(maps, "ndim") or maps.ndim != 4:
            raise InputError(f"config.loss.layers: {name} does not give a feature map [B, H, W, C]")
        return maps


class Head(nn.Module):
    """A perceptron of two layers for each map of features; what patches are compared by is of length 1.

    Attributes:
      width: of both layers.
      init_type, init_gain: kernel initialiser, see ``nets.initializers.initializer``; biases begin at 0.
      dtype: computation dtype; None promotes features and parameters. Lengths are taken in at least float32.
      param_dtype: dtype of the parameters.
    """

    width: int = 256
    init_type: str = "xavier"
    init_gain: float = 0.02
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        """Map features [B, N, C] of each map to [B, N, width]."""
        dense = partial(
            nn.Dense,
            self.width,
            kernel_init=initializer(self.init_type, self.init_gain),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        return [unit(dense(name=f"{i}_out")(nn.relu(dense(name=f"{i}_in")(x)))) for i, x in enumerate(features)]


def unit(x: jax.Array) -> jax.Array:
    """Divide vectors [..., C] by their length plus 1e-7; zeros stay zeros and have a gradient of 0."""
    x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    square = jnp.square(x).sum(-1, keepdims=True)
    some = square > 0
    return jnp.where(some, x / (jnp.sqrt(jnp.where(some, square, 1)) + _EPSILON), jnp.zeros_like(x))


def draw_places(rng: jax.Array, maps: Sequence[Any], count: int) -> list[jax.Array]:
    """Draw places of each map [B, H, W, C], `count` of them without replacement, or all if there are fewer.

    They are the same for all images of a batch: [count], numbered row by row.
    """
    sizes = [x.shape[1] * x.shape[2] for x in maps]
    return [jax.random.permutation(jax.random.fold_in(rng, i), size)[:count] for i, size in enumerate(sizes)]


def take(maps: Sequence[jax.Array], places: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the features [B, N, C] of each map [B, H, W, C] at its places [N]."""
    flat = [x.reshape(len(x), -1, x.shape[-1]) for x in maps]
    return [x.at[:, i].get(unique_indices=True, mode="promise_in_bounds") for x, i in zip(flat, places, strict=True)]


def spread(known: jax.Array, maps: Sequence[jax.Array], layers: Sequence[str]) -> list[jax.Array]:
    """Return for every map [B, h, w, C] where it is known, [B, h, w, 1]: where the nearest pixel of the image is.

    Args:
      known: [B, H, W, 1] of the images, see ``unknown.known``.
      maps: of the layers.
      layers: see ``find_layers``.
    """
    found = []
    for name, x in zip(layers, maps, strict=True):
        marks = known
        if name == PADDED:
            marks = reflect(known, _BORDER)
        rows, columns = (jnp.arange(n) * m // n for n, m in zip(x.shape[1:3], marks.shape[1:3], strict=True))
        found.append(marks[:, rows][:, :, columns])
    return found


def contrast(
    queries: Sequence[jax.Array],
    keys: Sequence[jax.Array],
    temperature: float,
    known: Sequence[jax.Array] | None = None,
) -> jax.Array:
    """Return the loss of each image: how badly a query finds the key of its own place among those of all places.

    It is the cross-entropy of ``softmax(query . key / temperature)`` over the keys of the same image (equation 3),
    averaged over the places of a map and then over the maps (equation 4). Keys are constants: they get no gradient.

    Args:
      queries: [B, N, C] of each map, of length 1.
      keys: the same.
      temperature: above 0.
      known: [B, N, 1] of each map; places where it is 0 do not count, neither as queries nor as keys. None: all count.

    Returns:
      [B], at least float32; log(N) where all patches are alike.

    Note:
      The authors' release puts exp(-10 / temperature) in the place of a query's own key among its negatives: at the
      published temperature nothing, e-62.
    """
    total = jnp.zeros(())
    for i, (query, key) in enumerate(zip(queries, keys, strict=True)):
        # The product is small, and rounding it as accelerators like to would be multiplied by 1 / temperature.
        logits = jnp.einsum("bic,bjc->bij", query, lax.stop_gradient(key), precision=lax.Precision.HIGHEST)
        logits /= temperature
        own = jnp.arange(logits.shape[1])
        counts = jnp.ones(logits.shape[:2], logits.dtype)
        if known is not None:
            counts = known[i][..., 0].astype(logits.dtype)
            others = (counts[:, None] > 0) | (own[:, None] == own[None])[None]
            logits = jnp.where(others, logits, -jnp.inf)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, own[None])
        total += (losses * counts).sum(-1) / jnp.maximum(counts.sum(-1), 1)
    return total / len(queries)
