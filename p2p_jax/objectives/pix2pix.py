"""pix2pix: a conditional GAN plus L1 on paired images (Isola et al. 2017, section 3)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.config import Option, complete, complete_section
from p2p_jax.config.options import is_unpaired
from p2p_jax.errors import InputError
from p2p_jax.objectives import losses
from p2p_jax.objectives.base import (
    Objective,
    average_over_devices,
    make_networks,
    new_state,
    run_training,
    translate_each,
)
from p2p_jax.objectives.metrics import find_metrics, full_reference
from p2p_jax.objectives.optim import descend, make_learning_rates, make_optimizer
from p2p_jax.objectives.unknown import Unknown, unknown_pixels

LOSS = (
    Option("gan", str, "vanilla", 'vanilla (cross-entropy), lsgan (squares) or "module:name" of a losses.GanLoss'),
    Option("lambda_gan", float, 1.0, "0 leaves the discriminator out", "[0, inf)"),
    Option("lambda_l1", float, 100.0, "weight of the L1 distance to the target", "[0, inf)"),
    Option("conditional", bool, True, "the discriminator sees the input too"),
)
"""Options of ``config.loss``."""


def pix2pix(config: ConfigDict) -> Objective:
    """Build the pix2pix objective.

    The discriminator minimises ``(loss(D(x, G(x)), 0) + loss(D(x, y), 1)) / 2``; then the generator minimises
    ``lambda_gan loss(D(x, G(x)), 1) + lambda_l1 |y - G(x)|`` through the updated discriminator, on the same G(x).

    Args:
      config: complete or not; reads ``generator``, ``discriminator``, ``optimizer``, ``discriminator_optimizer``,
        ``gradients``, ``schedule``, ``loss`` (see ``LOSS``), ``inference``, ``metrics``, ``dtype``, ``param_dtype``,
        ``sync_batch_norm`` and ``data``. The rows of Table 1 are L1: ``lambda_gan=0``; GAN:
        ``conditional=False, lambda_l1=0``; cGAN: ``lambda_l1=0``; L1+GAN: ``conditional=False``; L1+cGAN: the default.

    Returns:
      An ``Objective`` whose state is ``{"step", "params", "batch_stats", "opt_state"}``, the last three with the
      entries "generator" and, unless ``lambda_gan`` is 0, "discriminator".

    Raises:
      InputError: a setting is unknown or contradicts another.
    """
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    if is_unpaired(config.data.source):
        raise InputError(
            f"pix2pix learns from pairs, and config.data.source={config.data.source} has none: start from a CycleGAN "
            "config such as configs/horse2zebra.py"
        )
    if loss.lambda_gan == 0 and loss.lambda_l1 == 0:
        raise InputError("loss.lambda_gan and loss.lambda_l1 are both 0: the generator would have no loss")
    gan_loss, unknown = losses.find(loss.gan), unknown_pixels(config)
    build = make_networks(config)
    gen = build("generator", out_channels=config.data.output.channels)
    translate, evaluate = _translation(gen, config)
    tx, learning_rate = make_optimizer(config)
    disc_tx, _ = make_optimizer(config, "discriminator_optimizer")
    learning_rates = make_learning_rates(config)
    if loss.lambda_gan == 0:
        return Objective(*_l1_alone(gen, loss.lambda_l1, tx, learning_rate, unknown), translate, evaluate)
    disc = build("discriminator")

    def discriminate(params, stats, real_a, image, rng):
        x = jnp.concatenate([real_a, image.astype(real_a.dtype)], axis=-1) if loss.conditional else image
        return run_training(disc, params, stats, x, rngs={"dropout": rng})

    def init(rng, batch):
        gen_rng, disc_rng = jax.random.split(rng)
        seen = [batch["real_a"], batch["real_b"]] if loss.conditional else [batch["real_b"]]
        variables = {
            "generator": gen.init(gen_rng, batch["real_a"], train=False),
            "discriminator": disc.init(disc_rng, jnp.concatenate(seen, axis=-1), train=False),
        }
        return new_state(variables, {"generator": tx, "discriminator": disc_tx})

    def update(state, batch, rng):
        target = batch["real_b"]
        real_a, real_b = unknown.fill(batch["real_a"]), unknown.fill(target)
        params, stats, opt_state = dict(state["params"]), dict(state["batch_stats"]), dict(state["opt_state"])

        fake_rng, real_rng, gen_rng = jax.random.split(jax.random.fold_in(rng, 1), 3)  # of noise in the discriminator

        # The generator runs forward once: both players see the same fake, and its pullback waits for the
        # generator's turn.
        def generate(gen_params):
            return run_training(gen, gen_params, stats["generator"], real_a, rngs={"dropout": rng})

        fake_b, generator_vjp, stats["generator"] = jax.vjp(generate, params["generator"], has_aux=True)

        def disc_loss(disc_params):
            shown = unknown.hide(fake_b, target)
            logits_fake, new_stats = discriminate(disc_params, stats["discriminator"], real_a, shown, fake_rng)
            logits_real, new_stats = discriminate(disc_params, new_stats, real_a, real_b, real_rng)
            fake, real = gan_loss.fake(logits_fake), gan_loss.real(logits_real)
            return 0.5 * (fake + real), (new_stats, {"disc/fake": fake, "disc/real": real})

        grads, (stats["discriminator"], disc_terms) = jax.grad(disc_loss, has_aux=True)(params["discriminator"])
        params["discriminator"], opt_state["discriminator"] = descend(
            disc_tx, grads, opt_state["discriminator"], params["discriminator"]
        )

        def gen_loss(fake_b):
            shown = unknown.hide(fake_b, target)
            logits, disc_stats = discriminate(params["discriminator"], stats["discriminator"], real_a, shown, gen_rng)
            l1, gan = unknown.l1(fake_b, target), gan_loss.generator(logits)
            total = loss.lambda_l1 * l1 + loss.lambda_gan * gan
            return total, (disc_stats, {"gen/l1": l1, "gen/gan": gan, "gen/total": total})

        grad_fake, (stats["discriminator"], gen_terms) = jax.grad(gen_loss, has_aux=True)(fake_b)
        (grads,) = generator_vjp(grad_fake)
        params["generator"], opt_state["generator"] = descend(tx, grads, opt_state["generator"], params["generator"])

        metrics = learning_rates(state["step"]) | disc_terms | gen_terms
        stats = average_over_devices(stats)
        state = {"step": state["step"] + 1, "params": params, "batch_stats": stats, "opt_state": opt_state}
        return state, average_over_devices(metrics)

    return Objective(init, update, translate, evaluate)


def _l1_alone(
    gen: nn.Module, lambda_l1: float, tx: Any, learning_rate: Callable, unknown: Unknown
) -> tuple[Callable, Callable]:
    """Return init and update of the row "L1" of Table 1: there is no discriminator."""

    def init(rng, batch):
        gen_rng, _ = jax.random.split(rng)
        return new_state({"generator": gen.init(gen_rng, batch["real_a"], train=False)}, tx)

    def update(state, batch, rng):
        def gen_loss(gen_params):
            stats = state["batch_stats"]["generator"]
            fake_b, stats = run_training(gen, gen_params, stats, unknown.fill(batch["real_a"]), rngs={"dropout": rng})
            l1 = unknown.l1(fake_b, batch["real_b"])
            total = lambda_l1 * l1
            return total, (stats, {"gen/l1": l1, "gen/total": total})

        params = state["params"]["generator"]
        grads, (stats, terms) = jax.grad(gen_loss, has_aux=True)(params)
        params, opt_state = descend(tx, grads, state["opt_state"]["generator"], params)
        metrics = {"lr": learning_rate(state["step"])} | terms
        state = {
            "step": state["step"] + 1,
            "params": {"generator": params},
            "batch_stats": {"generator": average_over_devices(stats)},
            "opt_state": {"generator": opt_state},
        }
        return state, average_over_devices(metrics)

    return init, update


def _translation(gen: nn.Module, config: ConfigDict) -> tuple[Callable, Callable]:
    """Return translate and evaluate."""
    metrics, unknown = find_metrics(config.metrics), unknown_pixels(config)

    def translate(state, batch, rng):
        variables = {"params": state["params"]["generator"], "batch_stats": state["batch_stats"]["generator"]}
        return {"fake_b": translate_each(gen, variables, unknown.fill(batch["real_a"]), rng, config)}

    def evaluate(state, batch, rng):
        real_b, fake_b = batch["real_b"], unknown.mark(translate(state, batch, rng)["fake_b"], batch["real_a"])
        return full_reference(fake_b, real_b, metrics), {"input": batch["real_a"], "output": fake_b, "target": real_b}

    return translate, evaluate
