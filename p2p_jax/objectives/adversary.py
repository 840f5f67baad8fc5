"""The game of a discriminator against the images of a generator: what either minimises."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from p2p_jax.config import Option
from p2p_jax.objectives import losses
from p2p_jax.objectives.base import run_training
from p2p_jax.objectives.diff_augment import NAMES, find_augmentation

OPTIONS = (
    Option("r1_gamma", float, 0.0, "weight of R1, the discriminator's gradient penalty at real images", "[0, inf)"),
    Option("r2_gamma", float, 0.0, "weight of R2, the same penalty at generated images", "[0, inf)"),
    Option("lambda_gp", float, 0.0, "weight of the zero-centred penalty between real and generated", "[0, inf)"),
    Option("penalty_every", int, 1, "apply the penalties every N steps, times N", "[1, inf)"),
    Option(
        "diff_augment",
        str,
        "",
        f"random changes to all images that the discriminator sees, comma-separated: {', '.join(NAMES)}",
    ),
)
"""Options of ``config.loss`` that every objective with a discriminator has, besides ``gan``."""
Stats = Any
Terms = dict[str, jax.Array]


class Adversary(NamedTuple):
    """A discriminator and the rules of its game; see ``make_adversary``.

    Images are [B, H, W, C] in [-1, 1]. A conditional discriminator also sees `condition`, as many images;
    None: it sees only the images. A discriminator returns logits [B, h, w, 1] or a tuple of such maps; losses
    and scores are averaged over them.
    """

    network: nn.Module
    gan: losses.GanLoss
    loss: ConfigDict
    augment: Callable[..., tuple]
    real_first: bool

    def judge(
        self, params: Any, stats: Stats, images: jax.Array, condition: jax.Array | None, rng: jax.Array
    ) -> tuple[Any, Stats]:
        """Return the logits of images, changed at random as the config says, and new batch statistics."""
        return run_training(self.network, params, stats, self._shown(images, condition, rng), rngs={"dropout": rng})

    def _shown(self, images: jax.Array, condition: jax.Array | None, rng: jax.Array) -> jax.Array:
        """Return what the network sees."""
        images, condition = self.augment(images, condition, jax.random.fold_in(rng, 1))
        if condition is not None:
            images = jnp.concatenate([condition, images.astype(condition.dtype)], axis=-1)
        return images

    def discriminator_loss(
        self,
        params: Any,
        stats: Stats,
        real: jax.Array,
        fake: jax.Array,
        condition: jax.Array | None,
        rng: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[Stats, Terms]]:
        """Return what the discriminator minimises, its new statistics, and the terms "real", "fake", "r1" and so on.

        Args:
          params: of the discriminator.
          stats: its batch statistics.
          real: real images.
          fake: generated ones; no gradient goes into them.
          condition: of both.
          rng: of all draws.
          step: counts the updates from 0; every ``loss.penalty_every``-th has the penalties.
        """
        real_rng, fake_rng, penalty_rng = jax.random.split(rng, 3)
        seen = {"real": (real, condition, real_rng), "fake": (fake, condition, fake_rng)}
        on_real, on_fake, new_stats = self._judge_both(params, stats, seen)
        on_real, on_fake = self._compared(on_real, on_fake)
        terms = {"fake": _mean(self.gan.fake, on_fake), "real": _mean(self.gan.real, on_real)}
        total = 0.5 * (terms["fake"] + terms["real"])
        if self._has_penalties:
            penalty, slopes = self._penalty(params, stats, seen, penalty_rng, step)
            total += penalty
            terms |= slopes
        return total, (new_stats, terms)

    def generator_loss(
        self,
        params: Any,
        stats: Stats,
        fake: jax.Array,
        real: jax.Array,
        condition: jax.Array | None,
        rng: jax.Array,
    ) -> tuple[jax.Array, Stats]:
        """Return what the generator minimises by its images `fake`, and new statistics of the discriminator.

        `real` counts only where the loss is relative.
        """
        fake_rng, real_rng = jax.random.split(rng)
        on_real = None
        if self.gan.relative:
            on_real, stats = self.judge(params, stats, real, condition, real_rng)
        on_fake, stats = self.judge(params, stats, fake, condition, fake_rng)
        if self.gan.relative:
            _, on_fake = self._compared(on_real, on_fake)
        return _mean(self.gan.generator, on_fake), stats

    def _judge_both(self, params: Any, stats: Stats, seen: dict[str, tuple]) -> tuple[Any, Any, Stats]:
        """Return the logits of real and of generated images, and new batch statistics."""
        if "sees_images_alone" in vars(type(self.network)) and self.network.sees_images_alone:
            both = jnp.concatenate([self._shown(*seen[name]) for name in ("real", "fake")])
            logits, stats = run_training(self.network, params, stats, both)
            count = len(seen["real"][0])
            on_real, on_fake = jax.tree.map(lambda x: x[:count], logits), jax.tree.map(lambda x: x[count:], logits)
            return on_real, on_fake, stats
        logits = {}
        for name in ("real", "fake") if self.real_first else ("fake", "real"):
            logits[name], stats = self.judge(params, stats, *seen[name])
        return logits["real"], logits["fake"], stats

    def _compared(self, on_real: Any, on_fake: Any) -> tuple[Any, Any]:
        """Return logits as the loss takes them."""
        if not self.gan.relative:
            return on_real, on_fake
        difference = jax.tree.map(jnp.subtract, on_real, on_fake)
        return difference, jax.tree.map(jnp.negative, difference)

    @property
    def _has_penalties(self) -> bool:
        return bool(self.loss.r1_gamma or self.loss.r2_gamma or self.loss.lambda_gp)

    def _penalty(
        self, params: Any, stats: Stats, seen: dict[str, tuple], rng: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, Terms]:
        """Return the weighted penalties of a step, and each by itself where every step has them."""
        share_rng, mixture_rng = jax.random.split(rng)
        share = jax.random.uniform(share_rng)
        (real, condition, _), (fake, *_) = seen["real"], seen["fake"]
        mixture = share * real + (1 - share) * fake
        asked = {
            "r1": (self.loss.r1_gamma / 2, seen["real"]),
            "r2": (self.loss.r2_gamma / 2, seen["fake"]),
            "gp": (self.loss.lambda_gp, (mixture, condition, mixture_rng)),
        }
        asked = {name: given for name, given in asked.items() if given[0]}

        def slopes():
            return {name: self._slope(params, stats, *place) for name, (_, place) in asked.items()}

        every = self.loss.penalty_every
        if every == 1:
            found = slopes()
        else:
            found = lax.cond(step % every == 0, slopes, lambda: dict.fromkeys(asked, jnp.zeros(())))
        total = sum((every * weight * found[name] for name, (weight, _) in asked.items()), start=jnp.zeros(()))
        return total, found if every == 1 else {}

    def _slope(
        self, params: Any, stats: Stats, images: jax.Array, condition: jax.Array | None, rng: jax.Array
    ) -> jax.Array:
        """Return the squared gradient of the mean score by only the picture, summed over it; the mean over images."""

        def score(images):
            logits, _ = self.judge(params, stats, images, condition, rng)
            return _mean(lambda x: x.mean((1, 2, 3)).sum(), logits)  # the logits' mean of each image

        return jnp.square(jax.grad(score)(images)).sum((1, 2, 3)).mean()


def make_adversary(network: nn.Module | None, loss: ConfigDict, *, real_first: bool) -> Adversary | None:
    """Return the game of a discriminator; None if there is none, and then only names in the config are checked.

    The discriminator minimises ``(real(D(y)) + fake(D(G(x)))) / 2`` of the adversarial loss and, as far as their
    weights are not 0, the penalties

        r1_gamma / 2 |dD/dy|^2 at real images (Mescheder et al. 2018, equation 9),
        r2_gamma / 2 |dD/dy|^2 at generated ones (R2),
        lambda_gp |dD/dy|^2 at alpha y + (1 - alpha) G(x), one alpha ~ U(0, 1) a batch (UVCGAN v2, Torbunov et al.),

    where D is an image's mean logit, the derivative is by the picture and not by the condition, and the square is
    summed over height, width and channels. Only every ``penalty_every``-th step has them, times ``penalty_every``
    (StyleGAN2, Karras et al. 2020, section 3.1); they are then not in the metrics. A batch norm in the discriminator
    would mix the images' slopes: use "instance" or "none" with a penalty.

    Args:
      network: called as ``(x, *, train)``; once for real and generated images where its class has a true attribute
        ``sees_images_alone``, as ``PatchGAN`` may have. A class derived from it says so itself, or is called twice.
      loss: with ``gan`` and ``OPTIONS``.
      real_first: the discriminator sees the real images first, which counts only for running statistics.

    Raises:
      InputError: an unknown loss or augmentation.
    """
    gan, augment = losses.find(loss.gan, relative=True), find_augmentation(loss.diff_augment)
    return None if network is None else Adversary(network, gan, loss, augment, real_first)


def _mean(loss: Callable[[jax.Array], jax.Array], logits: Any) -> jax.Array:
    """Return the mean of a loss over the maps of logits."""
    maps = jax.tree.leaves(logits)
    return sum(map(loss, maps), start=jnp.zeros(())) / len(maps)
