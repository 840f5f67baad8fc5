"""pix2pix: a conditional GAN plus L1 on paired images (Isola et al. 2017, section 3)."""

from typing import Any

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
    descend,
    make_networks,
    make_optimizer,
    run_training,
    translate_each,
)
from p2p_jax.objectives.metrics import find_metrics, full_reference

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
      config: complete or not; reads ``generator``, ``discriminator``, ``optimizer``, ``schedule``, ``loss``
        (see ``LOSS``), ``inference``, ``dtype``, ``param_dtype``, ``sync_batch_norm`` and ``data``. The rows of
        Table 1 are L1: ``lambda_gan=0``; GAN: ``conditional=False, lambda_l1=0``; cGAN: ``lambda_l1=0``; L1+GAN:
        ``conditional=False``; L1+cGAN: the default.

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
    build = make_networks(config)
    gen = build("generator", out_channels=config.data.channels_b)
    gen_single = build("generator", out_channels=config.data.channels_b, axis_name=None)
    disc: Any = build("discriminator") if loss.lambda_gan else None
    gan_loss = losses.find(loss.gan)
    metrics = find_metrics(config.metrics)
    tx, learning_rate = make_optimizer(config)

    def discriminate(params, stats, real_a, image):
        x = jnp.concatenate([real_a, image.astype(real_a.dtype)], axis=-1) if loss.conditional else image
        return run_training(disc, params, stats, x)

    def init(rng, batch):
        gen_rng, disc_rng = jax.random.split(rng)
        variables = {"generator": gen.init(gen_rng, batch["real_a"], train=False)}
        if disc is not None:
            pair = [batch["real_a"], batch["real_b"]] if loss.conditional else [batch["real_b"]]
            variables["discriminator"] = disc.init(disc_rng, jnp.concatenate(pair, axis=-1), train=False)
        return {
            "step": jnp.zeros((), jnp.int32),
            "params": {name: value["params"] for name, value in variables.items()},
            "batch_stats": {name: value.get("batch_stats", {}) for name, value in variables.items()},
            "opt_state": {name: tx.init(value["params"]) for name, value in variables.items()},
        }

    def update(state, batch, rng):
        real_a, real_b = batch["real_a"], batch["real_b"]
        params, stats, opt_state = dict(state["params"]), dict(state["batch_stats"]), dict(state["opt_state"])
        metrics = {"lr": learning_rate(state["step"])}

        # The generator runs forward once: both players see the same fake, and its pullback waits for the
        # generator's turn.
        def generate(gen_params):
            return run_training(gen, gen_params, stats["generator"], real_a, rngs={"dropout": rng})

        fake_b, generator_vjp, gen_stats = jax.vjp(generate, params["generator"], has_aux=True)

        if disc is not None:

            def disc_loss(disc_params):
                logits_fake, new_stats = discriminate(disc_params, stats["discriminator"], real_a, fake_b)
                logits_real, new_stats = discriminate(disc_params, new_stats, real_a, real_b)
                fake, real = gan_loss.fake(logits_fake), gan_loss.real(logits_real)
                return 0.5 * (fake + real), (new_stats, {"disc/fake": fake, "disc/real": real})

            grads, (stats["discriminator"], disc_metrics) = jax.grad(disc_loss, has_aux=True)(params["discriminator"])
            params["discriminator"], opt_state["discriminator"] = descend(
                tx, grads, opt_state["discriminator"], params["discriminator"]
            )
            metrics |= disc_metrics

        def gen_loss(fake_b):
            terms = {"gen/l1": losses.l1(fake_b, real_b)}
            total, disc_stats = loss.lambda_l1 * terms["gen/l1"], {}
            if disc is not None:
                logits, disc_stats = discriminate(params["discriminator"], stats["discriminator"], real_a, fake_b)
                terms["gen/gan"] = gan_loss.generator(logits)
                total += loss.lambda_gan * terms["gen/gan"]
            return total, (disc_stats, terms | {"gen/total": total})

        grad_fake, (disc_stats, gen_metrics) = jax.grad(gen_loss, has_aux=True)(fake_b)
        (grads,) = generator_vjp(grad_fake)
        params["generator"], opt_state["generator"] = descend(tx, grads, opt_state["generator"], params["generator"])
        metrics |= gen_metrics
        stats["generator"] = gen_stats
        if disc is not None:
            stats["discriminator"] = disc_stats

        state = {
            "step": state["step"] + 1,
            "params": params,
            "batch_stats": average_over_devices(stats),
            "opt_state": opt_state,
        }
        return state, average_over_devices(metrics)

    def translate(state, batch, rng):
        variables = {"params": state["params"]["generator"], "batch_stats": state["batch_stats"]["generator"]}
        return {"fake_b": translate_each(gen_single, variables, batch["real_a"], rng, config.inference)}

    def evaluate(state, batch, rng):
        real_b, fake_b = batch["real_b"], translate(state, batch, rng)["fake_b"]
        return full_reference(fake_b, real_b, metrics), {"input": batch["real_a"], "output": fake_b, "target": real_b}

    return Objective(init, update, translate, evaluate)
