"""Losses of the two players on images [B, H, W, C] and logits [B, h, w, 1]; each returns a float scalar."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from p2p_jax.config import resolve
from p2p_jax.errors import InputError


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean absolute difference (Isola et al. 2017, equation 3)."""
    return jnp.abs(x - y).mean()


def bce(logits: jax.Array, label: float) -> jax.Array:
    """Return the mean binary cross-entropy of logits against one label (Goodfellow et al. 2014)."""
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, label)).mean()


def mse(logits: jax.Array, label: float) -> jax.Array:
    """Return the mean squared error of logits against one label (LSGAN, Mao et al. 2017)."""
    return jnp.square(logits - label).mean()


class GanLoss(NamedTuple):
    """An adversarial loss: functions of maps of logits [B, h, w, 1], each returns a float scalar.

    Attributes:
      real: what the discriminator minimises on logits of real images.
      fake: what it minimises on those of generated ones; half of both together is its loss.
      generator: what the generator minimises on logits of its images.
      relative: all three get differences in place of logits: real minus generated for `real`, generated minus real for
        the others, image by image in the order of the batch (relativistic pairing, Jolicoeur-Martineau 2019).
    """

    real: Callable[[jax.Array], jax.Array]
    fake: Callable[[jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]
    relative: bool = False


def _labelled(loss: Callable[[jax.Array, float], jax.Array]) -> GanLoss:
    """Return the non-saturating game with labels 1 for real and 0 for fake."""
    return GanLoss(
        real=lambda logits: loss(logits, 1.0),
        fake=lambda logits: loss(logits, 0.0),
        generator=lambda logits: loss(logits, 1.0),
    )


_VANILLA = _labelled(bce)
GAN_LOSSES = {
    "vanilla": _VANILLA,
    "lsgan": _labelled(mse),
    "hinge": GanLoss(
        real=lambda logits: jax.nn.relu(1 - logits).mean(),
        fake=lambda logits: jax.nn.relu(1 + logits).mean(),
        generator=lambda logits: -logits.mean(),
    ),
    "relativistic": _VANILLA._replace(relative=True),
}
"""The adversarial losses that come with the library.

vanilla: Goodfellow et al. 2014, cross-entropy. lsgan: Mao et al. 2017. hinge: Lim and Ye 2017, as in SAGAN (Zhang et
al. 2019). relativistic: of pairs, ``softplus(D(fake) - D(real))`` for the discriminator and with the sign turned for
the generator (R3GAN, Huang et al. 2024, equation 2), to be used with ``loss.r1_gamma`` and ``loss.r2_gamma``.
"""


def find(name: str, *, relative: bool = False) -> GanLoss:
    """Return the adversarial loss of that name, or the ``GanLoss`` that "module:name" names.

    Args:
      name: "vanilla", "lsgan", "hinge", "relativistic" or "module:name".
      relative: the caller compares real images with generated ones, as losses that are relative ask for.

    Raises:
      InputError: unknown name, or a relative loss for a caller that does not compare.
    """
    if ":" in name:
        loss = resolve(name, "config.loss.gan")
        if not isinstance(loss, GanLoss):
            raise InputError(f"config.loss.gan={name} is not a p2p_jax.losses.GanLoss, but {type(loss).__name__}")
    elif name in GAN_LOSSES:
        loss = GAN_LOSSES[name]
    else:
        raise InputError(f"loss.gan is {name!r}; choose one of {', '.join(GAN_LOSSES)} or 'module:name'")
    if loss.relative and not relative:
        raise InputError(f"config.loss.gan={name} compares pairs, which this objective does not do: choose another one")
    return loss


def perceptual(features: Callable[[jax.Array], Sequence[jax.Array]]) -> Callable[..., jax.Array]:
    """Return a distance of images in the features of a network (Zhang et al. 2018, LPIPS, section 3).

    In every map of features each pixel is divided by its length; squared differences are summed over the channels,
    averaged over the pixels, and summed over the maps. That is LPIPS without its learnt weights; features may have
    such weights in them.

    Args:
      features: ``images [B, H, W, C] in [-1, 1] -> maps [B, h, w, c]``, one or several.

    Returns:
      ``(x, y) -> scalar``, the mean over the batch. Further arguments do not count: it may be one of ``loss.terms``.

    Raises:
      InputError: there is no map; when it is called.
    """

    def distance(x: jax.Array, y: jax.Array, *_: object) -> jax.Array:
        pairs = zip(_maps(features(x)), _maps(features(y)), strict=True)
        return sum((jnp.square(_unit(a) - _unit(b)).sum(-1).mean() for a, b in pairs), start=jnp.zeros(()))

    return distance


def _maps(found: Any) -> list[jax.Array]:
    """Return feature maps as a list; a single map is not a list of images."""
    maps = [found] if hasattr(found, "shape") else list(found or ())
    if not maps or any(len(jnp.shape(x)) != 4 for x in maps):
        shapes = ", ".join(str(list(jnp.shape(x))) for x in maps) or "none"
        raise InputError(f"a perceptual distance needs one or more feature maps [B, h, w, c], not {shapes}")
    return maps


def _unit(features: jax.Array) -> jax.Array:
    # The length of zero features is not differentiable, hence the small number inside of the root.
    return features * jax.lax.rsqrt(jnp.square(features).sum(-1, keepdims=True) + 1e-10)
