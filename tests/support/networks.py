"""Networks and an objective that compile at once, for tests of what is built on them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from p2p_jax.nets.layers import Conv, make_norm
from p2p_jax.objectives import DEVICE_AXIS, Objective, make_optimizer
from p2p_jax.objectives.metrics import full_reference

TINY = {"network": "support.networks:Tiny"}
"""``config.generator``."""
PIXEL_GAN = {"receptive_field": 1, "base_width": 2, "norm": "instance"}
"""``config.discriminator``: the library's smallest."""
POINTWISE = {"network": "support.networks:Pointwise"}
"""``config.generator``."""


class Tiny(nn.Module):
    """A generator of two convolutions with a norm and dropout between them."""

    out_channels: int = 3
    norm: str = "instance"
    dropout_rate: float = 0.0
    init_gain: float = 0.5
    dtype: Any = None
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train, dropout=None):
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = make_norm(self.norm, use_running_average=not train, axis_name=self.axis_name, **dtypes)
        x = Conv(3, 3, 1, 1, init_gain=self.init_gain, **dtypes, name="first")(x)
        x = nn.relu(norm(name="norm")(x))
        active = train if dropout is None else dropout
        x = nn.Dropout(self.dropout_rate, deterministic=not active)(x)
        x = Conv(self.out_channels, 1, 1, 0, init_gain=self.init_gain, **dtypes, name="last")(x)
        return jnp.tanh(x.astype(jnp.promote_types(jnp.float32, x.dtype)))


class Pointwise(nn.Module):
    """A generator that sees one pixel and normalises nothing: where the network does not matter, it costs nothing."""

    out_channels: int = 3
    norm: str = "none"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, dropout=None):
        return jnp.tanh(nn.Dense(self.out_channels, dtype=self.dtype, param_dtype=self.param_dtype, name="mix")(x))


class Halved(nn.Module):
    """No generator: its images have half the size."""

    out_channels: int = 3

    @nn.compact
    def __call__(self, x, *, train, dropout=None):
        return nn.Conv(self.out_channels, (3, 3), strides=2)(x)


class Gray(nn.Module):
    """No generator of colours: it does not ask for their number."""

    @nn.compact
    def __call__(self, x, *, train, dropout=None):
        return nn.Conv(1, (3, 3))(x)


class Untrained(nn.Module):
    """Neither: it cannot be told whether it is trained."""

    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (3, 3))(x)


class OneScore(nn.Module):
    """No discriminator of patches: it returns one number for each image."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(1)(x).mean((1, 2))


class Constant(nn.Module):
    """Nothing to train."""

    def __call__(self, x, *, train, dropout=None):
        return x


def linear(config) -> Objective:
    """Make an objective for tests of the loop: a linear map of each pixel with noise, learnt by the config's optimizer.

    What an update does depends on the state, on every image of the batch, on the rng and on the number of the step; its
    state has parameters, statistics, an optimizer's state and the step, as those of the library have.
    ``config.extra.noise`` is how much noise there is, 0.1 by default.
    """
    tx, learning_rate = make_optimizer(config)
    scale = config.extra.get("noise", 0.1)
    channels = config.data.input.channels, config.data.output.channels

    def generate(params, images, rng=None):
        noise = 0.0 if rng is None else scale * jax.random.normal(rng, (*images.shape[:-1], channels[1]))
        return jnp.tanh(images @ params["mix"] + params["bias"] + noise)

    def init(rng, batch):
        mix = 0.5 * jax.random.normal(rng, channels)
        params = {"generator": {"mix": mix, "bias": jnp.zeros((1, 1, 1, channels[1]))}}
        stats = {"generator": {"mean": jnp.zeros(channels[1])}}
        return {"step": jnp.int32(0), "params": params, "batch_stats": stats, "opt_state": tx.init(params)}

    def update(state, batch, rng):
        def loss(params):
            fake_b = generate(params["generator"], batch["real_a"], rng)
            return jnp.square(fake_b - batch["real_b"]).mean(), fake_b.mean((0, 1, 2))

        (value, mean), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
        value, mean, grads = jax.lax.pmean((value, mean, grads), DEVICE_AXIS)
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = jax.tree.map(lambda x, by: x + by, state["params"], updates)
        stats = {"generator": {"mean": 0.9 * state["batch_stats"]["generator"]["mean"] + 0.1 * mean}}
        new = {"step": state["step"] + 1, "params": params, "batch_stats": stats, "opt_state": opt_state}
        return new, {"gen/l2": value, "lr": learning_rate(state["step"])}

    def translate(state, batch, rng):
        return {"fake_b": generate(state["params"]["generator"], batch["real_a"])}

    def evaluate(state, batch, rng):
        fake_b = translate(state, batch, rng)["fake_b"]
        columns = {"input": batch["real_a"], "output": fake_b, "target": batch["real_b"]}
        return full_reference(fake_b, batch["real_b"]), columns

    return Objective(init, update, translate, evaluate)


def draw_state(shapes, gain: float = 8.0, seed: int = 1):
    """Fill a state with random weights, large enough for images with contrast, and with running statistics."""
    rng = np.random.RandomState(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if "batch_stats" in name:
            return rng.uniform(0.5, 2, leaf.shape).astype(leaf.dtype)
        if "kernel" in name:
            return rng.normal(0, 0.02 * gain, leaf.shape).astype(leaf.dtype)
        return np.full(leaf.shape, "scale" in name, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
