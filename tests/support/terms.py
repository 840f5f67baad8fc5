"""What a lab writes to change a loss, and a discriminator whose numbers a person can work out."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp


def charbonnier(fake, real, batch):
    """Return a smooth L1."""
    return jnp.sqrt(jnp.square(fake - real) + 1e-6).mean()


def powered(fake, real, batch, power=1.0):
    """Return the mean of a power of the error: a term with a parameter."""
    return (jnp.abs(fake - real) ** power).mean()


squared = functools.partial(powered, power=2.0)


def brightness(fake, real, batch):
    """Return how far the fakes are from their inputs in brightness; `real` does not count."""
    return jnp.abs(fake.mean((1, 2, 3)) - batch["real_a"].mean((1, 2, 3))).mean()


def tenfold(x, y):
    """Return ten times L1, a distance."""
    return 10 * jnp.abs(x - y).mean()


def mean_absolute(fake, real, batch):
    """Return L1."""
    return jnp.abs(fake - real).mean()


def gan(fake, real, batch):
    """Return L1, under a name that objectives have already."""
    return mean_absolute(fake, real, batch)


total = gan  # another such name


def no_scalar(fake, real, batch):
    """Return a number for each image, which a term must not."""
    return jnp.abs(fake - real).mean((1, 2, 3))


def edges(images):
    """Return differences of neighbours as two maps of features."""
    return images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]


class Linear(nn.Module):
    """A discriminator whose logit of a pixel is the product of its values with weights."""

    scales: int = 1  # maps of logits, all alike
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        logits = nn.Dense(1, use_bias=False, param_dtype=self.param_dtype, name="pixel")(x)
        return logits if self.scales == 1 else (logits,) * self.scales


class OfSquares(nn.Module):
    """A discriminator whose logit of a pixel is half the sum of its squared values, times a weight."""

    @nn.compact
    def __call__(self, x, *, train):
        weight = self.param("weight", nn.initializers.ones_init(), ())
        return weight * 0.5 * jnp.square(x).sum(-1, keepdims=True)
