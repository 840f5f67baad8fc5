"""pix2pix: a conditional GAN plus L1 on paired images (Isola et al. 2017, section 3)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.config import Option, complete, complete_section
from p2p_jax.config.options import is_unpaired
from p2p_jax.errors import InputError
from p2p_jax.objectives import adversary, terms
from p2p_jax.objectives.base import (
    Objective,
    average_over_devices,
    init_network,
    make_networks,
    new_state,
    run_training,
    translate_each,
)
from p2p_jax.objectives.metrics import find_metrics, full_reference
from p2p_jax.objectives.optim import descend, make_learning_rates, make_optimizer
from p2p_jax.objectives.unknown import unknown_pixels

LOSS = (
    Option(
        "gan",
        str,
        "vanilla",
        'vanilla (cross-entropy), lsgan, hinge, relativistic or "module:name" of a losses.GanLoss',
    ),
    Option("lambda_gan", float, 1.0, "0 leaves the discriminator out", "[0, inf)"),
    Option("lambda_l1", float, 100.0, "weight of the L1 distance to the target", "[0, inf)"),
    Option("conditional", bool, True, "the discriminator also sees the input"),
    *terms.OPTIONS,
    *adversary.OPTIONS,
)
"""Options of ``config.loss``."""


def pix2pix(config: ConfigDict) -> Objective:
    """Build the pix2pix objective.

    The discriminator minimises ``(loss(D(x, G(x)), 0) + loss(D(x, y), 1)) / 2``; then the generator minimises
    ``lambda_gan loss(D(x, G(x)), 1) + lambda_l1 |y - G(x)|`` through the updated discriminator, on the same G(x).
    Other losses, penalties and augmentation: ``adversary``. Other distances and more terms of the generator: ``terms``.

    Args:
      config: complete or not; reads ``generator``, ``discriminator``, ``optimizer``, ``discriminator_optimizer``,
        ``gradients``, ``schedule``, ``loss`` (see ``LOSS``), ``inference``, ``metrics``, ``dtype``, ``param_dtype``,
        ``sync_batch_norm`` and ``data``. The rows of Table 1 are L1: ``lambda_gan=0``; GAN:
        ``conditional=False, lambda_l1=0``; cGAN: ``lambda_l1=0``; L1+GAN: ``conditional=False``; L1+cGAN: the default.

    Returns:
      An ``Objective`` with the state ``{"step", "params", "batch_stats", "opt_state"}``, the last three with the
      entries "generator" and, unless ``lambda_gan`` is 0, "discriminator".

    Raises:
      InputError: a setting is unknown or contradicts another.
    """
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    unknown = unknown_pixels(config)
    distance, perceptual = terms.find_distance(loss, unknown), terms.find_perceptual(loss, unknown)
    own_terms = terms.OwnTerms(loss, unknown)
    _check(config, loss, bool(own_terms))
    build = make_networks(config)
    gen = build("generator", out_channels=config.data.output.channels)
    disc = build("discriminator") if loss.lambda_gan else None
    game = adversary.make_adversary(disc, loss, real_first=False)
    sections = {"generator": "optimizer", "discriminator": "discriminator_optimizer"}
    txs = {player: make_optimizer(config, section)[0] for player, section in sections.items()}
    learning_rates = make_learning_rates(config)
    named = "gen/l1" if loss.distance == "l1" else "gen/distance"

    def init(rng, batch):
        gen_rng, disc_rng = jax.random.split(rng)
        channels = config.data.output.channels
        variables = {"generator": init_network(config, "generator", gen, gen_rng, batch["real_a"], channels)}
        if disc:
            seen = [batch["real_a"], batch["real_b"]] if loss.conditional else [batch["real_b"]]
            judged = jnp.concatenate(seen, axis=-1)
            variables["discriminator"] = init_network(config, "discriminator", disc, disc_rng, judged)
        return new_state(variables, {player: txs[player] for player in variables})

    def update(state, batch, rng):
        target = batch["real_b"]
        real_a, real_b = unknown.fill(batch["real_a"]), unknown.fill(target)
        condition = real_a if loss.conditional else None
        params, stats, opt_state = dict(state["params"]), dict(state["batch_stats"]), dict(state["opt_state"])
        metrics = learning_rates(state["step"])
        disc_rng, gen_rng = jax.random.split(jax.random.fold_in(rng, 1))  # of noise in the discriminator

        def learn(player, grads):
            params[player], opt_state[player] = descend(txs[player], grads, opt_state[player], params[player])

        # The generator runs forward once: both players see the same fake, and its pullback waits for the
        # generator's turn.
        def generate(gen_params):
            return run_training(gen, gen_params, stats["generator"], real_a, rngs={"dropout": rng})

        fake_b, generator_vjp, stats["generator"] = jax.vjp(generate, params["generator"], has_aux=True)

        if game:

            def disc_loss(disc_params):
                shown = unknown.hide(fake_b, target)
                old = stats["discriminator"]
                return game.discriminator_loss(disc_params, old, real_b, shown, condition, disc_rng, state["step"])

            grads, (stats["discriminator"], found) = jax.grad(disc_loss, has_aux=True)(params["discriminator"])
            learn("discriminator", grads)
            metrics |= {f"disc/{name}": value for name, value in found.items()}

        def gen_loss(fake_b):
            found = {named: distance(fake_b, target)}
            total, new_stats = loss.lambda_l1 * found[named], None
            if game:
                shown = unknown.hide(fake_b, target)
                old, own = stats["discriminator"], params["discriminator"]
                found["gen/gan"], new_stats = game.generator_loss(own, old, shown, real_b, condition, gen_rng)
                total += loss.lambda_gan * found["gen/gan"]
            if perceptual:
                found["gen/perceptual"] = perceptual(fake_b, target)
                total += loss.lambda_perceptual * found["gen/perceptual"]
            if own_terms:
                weighted, each = own_terms(fake_b, target, batch)
                total, found = total + weighted, terms.beside(found, each)
            return total, (new_stats, found | {"gen/total": total})

        grad_fake, (disc_stats, found) = jax.grad(gen_loss, has_aux=True)(fake_b)
        if game:
            stats["discriminator"] = disc_stats
        (grads,) = generator_vjp(grad_fake)
        learn("generator", grads)

        stats = average_over_devices(stats)
        state = {"step": state["step"] + 1, "params": params, "batch_stats": stats, "opt_state": opt_state}
        return state, average_over_devices(metrics | found)

    return Objective(init, update, *_translation(gen, config))


def _check(config: ConfigDict, loss: ConfigDict, has_terms: bool) -> None:
    if is_unpaired(config.data.source):
        raise InputError(
            f"pix2pix learns from pairs, but config.data.source={config.data.source} has none: start from a CycleGAN "
            "config such as configs/horse2zebra.py"
        )
    if not (loss.lambda_gan or loss.lambda_l1 or loss.lambda_perceptual or has_terms):
        raise InputError("loss.lambda_gan and loss.lambda_l1 are both 0, so the generator has no loss: set one")


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
