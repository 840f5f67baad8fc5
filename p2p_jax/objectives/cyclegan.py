"""CycleGAN: two translations that undo each other, learnt from unpaired images (Zhu et al. 2017, section 3)."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.config import Option, complete, complete_section
from p2p_jax.errors import InputError
from p2p_jax.objectives import adversary, pool, terms
from p2p_jax.objectives.base import (
    DEVICE_AXIS,
    Objective,
    average_over_devices,
    init_network,
    make_networks,
    new_state,
    run_training,
    translate_each,
)
from p2p_jax.objectives.optim import descend, make_learning_rates, make_optimizer
from p2p_jax.objectives.unknown import unknown_pixels

_STREAMS = ("fake_b", "identity_b", "fake_a", "identity_a", "rec_a", "rec_b")  # each has its own noise
CYCLES = {"both": ("a", "b"), "forward": ("a",), "backward": ("b",)}

LOSS = (
    Option(
        "gan", str, "lsgan", 'lsgan (squared error), vanilla, hinge, relativistic or "module:name" of a losses.GanLoss'
    ),
    Option("lambda_gan", float, 1.0, "0 leaves the discriminators out", "[0, inf)"),
    Option("lambda_cycle", float, 10.0, "0 leaves the cycles out", "[0, inf)"),
    Option("cycle", str, "both", "forward: only a -> b -> a; backward: only b -> a -> b", choices=tuple(CYCLES)),
    Option("lambda_identity", float, 0.0, "fraction of lambda_cycle; in the paper 0.5 for paintings", "[0, inf)"),
    Option("pool_size", int, 50, "fakes of each domain kept for its discriminator, over all devices", "[0, 1000000]"),
    *terms.OPTIONS,
    *adversary.OPTIONS,
)
"""Options of ``config.loss``."""


def cyclegan(config: ConfigDict) -> Objective:
    """Build the CycleGAN objective.

    ``gen_ab`` (the paper's G) maps A to B, ``gen_ba`` (F) B to A; ``disc_b`` (D_Y) judges images of B, ``disc_a`` (D_X)
    of A. First both generators minimise, against the discriminators as they are,

        lambda_gan (loss(disc_b(G(a)), 1) + loss(disc_a(F(b)), 1)) + lambda_cycle (|F(G(a)) - a| + |G(F(b)) - b|)
        + lambda_cycle lambda_identity (|G(b) - b| + |F(a) - a|);

    then both discriminators minimise, each on its domain, ``(loss(D(real), 1) + loss(D(fake), 0)) / 2``, with fakes
    that went through a history pool. Other losses, penalties and augmentation: ``adversary``. Other distances in place
    of ``|.|``: ``terms``; a perceptual one is added to that of a cycle, and terms from outside to those of each
    translation, where "real_a" is its input and "real_b" an image of its target domain.

    Args:
      config: complete or not; reads ``generator`` and ``discriminator`` (each describes both networks of its side),
        ``optimizer``, ``discriminator_optimizer``, ``gradients``, ``schedule``, ``loss`` (see ``LOSS``), ``inference``,
        ``dtype``, ``param_dtype``, ``sync_batch_norm`` and ``data``. The rows of Tables 4 and 5 are cycle only:
        ``lambda_gan=0``; GAN only: ``lambda_cycle=0``; GAN + forward cycle: ``cycle="forward"``; GAN + backward cycle:
        ``cycle="backward"``; CycleGAN: the default. The networks are those named in the config;
        configs/horse2zebra.py has the published.

    Returns:
      An ``Objective`` with the state ``{"step", "params", "batch_stats", "opt_state", "pool"}``: params and batch_stats
      with the entries "gen_ab", "gen_ba" and, unless ``lambda_gan`` is 0, "disc_a", "disc_b"; opt_state with
      "generators" and "discriminators", one optimizer for both networks of a side; pool with "a" and "b", or empty.

    Raises:
      InputError: a setting is unknown or contradicts another.
    """
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    unknown = unknown_pixels(config)
    distance, perceptual = terms.find_distance(loss, unknown), terms.find_perceptual(loss, unknown)
    own_terms = terms.OwnTerms(loss, unknown)
    _check(loss, config, bool(own_terms))
    build, data = make_networks(config), config.data
    channels = {"gen_ab": data.output.channels, "gen_ba": data.input.channels}
    networks = {name: build("generator", out_channels=number) for name, number in channels.items()}
    sides = {"generators": ("gen_ab", "gen_ba")}
    disc = build("discriminator") if loss.lambda_gan else None
    game = adversary.make_adversary(disc, loss, real_first=True)
    if disc:
        networks |= dict.fromkeys(("disc_a", "disc_b"), disc)
        sides["discriminators"] = ("disc_a", "disc_b")
    cycles = CYCLES[loss.cycle] if loss.lambda_cycle else ()
    identity = bool(loss.lambda_identity and loss.lambda_cycle)
    sections = {"generators": "optimizer", "discriminators": "discriminator_optimizer"}
    txs = {side: make_optimizer(config, section)[0] for side, section in sections.items()}
    learning_rates = make_learning_rates(config)

    def init(rng, batch):
        sees = {"gen_ab": "real_a", "gen_ba": "real_b", "disc_a": "real_a", "disc_b": "real_b"}
        variables = {}
        for i, (name, network) in enumerate(networks.items()):
            section = "generator" if name in channels else "discriminator"
            given = network, jax.random.fold_in(rng, i), batch[sees[name]]
            variables[name] = init_network(config, section, *given, channels.get(name, 0))
        dtype = jnp.promote_types(jnp.float32, config.dtype)  # what generators return
        fakes = {name: jax.ShapeDtypeStruct(batch[f"real_{name}"].shape[1:], dtype) for name in ("a", "b")}
        uses_pool = loss.lambda_gan and loss.pool_size
        pools = {name: pool.init(loss.pool_size, fake) for name, fake in fakes.items()} if uses_pool else {}
        return new_state(variables, txs, sides) | {"pool": pools}

    def update(state, batch, rng):
        dropout_rng, pool_rng = jax.random.split(rng)
        judging_rng = jax.random.fold_in(dropout_rng, len(_STREAMS))
        reals, batch = batch, {name: unknown.fill(images) for name, images in batch.items()}
        params, opt_state = dict(state["params"]), dict(state["opt_state"])

        def run(params, stats, name, images, stream):
            """Apply a generator in training mode and put its new batch statistics in their place."""
            rngs = {"dropout": jax.random.fold_in(dropout_rng, _STREAMS.index(stream))}
            output, stats[name] = run_training(networks[name], params[name], stats[name], images, rngs=rngs)
            return output

        def translate_and_identity(params, stats, name, to):
            """Return G(source) and, if wanted, G(target), where the target is of the domain `to`."""
            source, target = batch["real_b" if to == "a" else "real_a"], batch[f"real_{to}"]
            if not identity:
                return run(params, stats, name, source, f"fake_{to}"), None
            if stats[name]:  # batch statistics of one call would be those of both domains
                same = run(params, stats, name, target, f"identity_{to}")
                return run(params, stats, name, source, f"fake_{to}"), same
            together = run(params, stats, name, jnp.concatenate([source, target]), f"fake_{to}")
            return jnp.split(together, 2)

        def gen_loss(generators):
            gens, stats = params | generators, dict(state["batch_stats"])
            real_a, real_b = reals["real_a"], reals["real_b"]
            fake_b, idt_b = translate_and_identity(gens, stats, "gen_ab", to="b")
            fake_a, idt_a = translate_and_identity(gens, stats, "gen_ba", to="a")
            fake_b, fake_a = unknown.hide(fake_b, real_a), unknown.hide(fake_a, real_b)
            found: dict[str, jax.Array] = {}
            total = jnp.zeros(())
            fakes = {"a": fake_a, "b": fake_b}
            if game:
                for i, (name, way) in enumerate((("b", "ab"), ("a", "ba"))):
                    disc, real, key = f"disc_{name}", batch[f"real_{name}"], jax.random.fold_in(judging_rng, i)
                    gan, stats[disc] = game.generator_loss(params[disc], stats[disc], fakes[name], real, None, key)
                    found[f"gen/gan_{way}"] = gan
                total += loss.lambda_gan * (found["gen/gan_ab"] + found["gen/gan_ba"])
            for name, way, back in (("a", "ba", fake_b), ("b", "ab", fake_a)):
                if name in cycles:
                    rec, real = run(gens, stats, f"gen_{way}", back, f"rec_{name}"), reals[f"real_{name}"]
                    found[f"gen/cycle_{name}"] = distance(rec, real)
                    total += loss.lambda_cycle * found[f"gen/cycle_{name}"]
                    if perceptual:
                        found[f"gen/perceptual_{name}"] = perceptual(rec, real)
                        total += loss.lambda_perceptual * found[f"gen/perceptual_{name}"]
            if identity:
                found |= {"gen/identity_a": distance(idt_a, real_a), "gen/identity_b": distance(idt_b, real_b)}
                weight = loss.lambda_cycle * loss.lambda_identity
                total += weight * (found["gen/identity_a"] + found["gen/identity_b"])
            if own_terms:
                turned = {"real_a": real_b, "real_b": real_a}
                for fake, real, given, way in ((fake_b, real_b, reals, "_ab"), (fake_a, real_a, turned, "_ba")):
                    weighted, each = own_terms(fake, real, given, way)
                    total, found = total + weighted, terms.beside(found, each)
            return total, (stats, fakes, found | {"gen/total": total})

        def disc_loss(discriminators):
            assert game  # it is played where there is one
            stats = dict(gen_stats)
            found: dict[str, jax.Array] = {}
            total = jnp.zeros(())
            for i, name in enumerate(("a", "b"), start=2):
                disc, key = f"disc_{name}", jax.random.fold_in(judging_rng, i)
                given = discriminators[disc], stats[disc], batch[f"real_{name}"], fakes[name], None, key, state["step"]
                its_loss, (stats[disc], its_terms) = game.discriminator_loss(*given)
                found |= {f"disc/{term}_{name}": value for term, value in its_terms.items()}
                total += its_loss
            return total, (stats, found)

        def play(side, loss_of):
            """Update both networks of a side; returns the auxiliary values of its loss."""
            players = {name: params[name] for name in sides[side]}
            grads, aux = jax.grad(loss_of, has_aux=True)(players)
            players, opt_state[side] = descend(txs[side], grads, opt_state[side], players)
            params.update(players)
            return aux

        gen_stats, fakes, metrics = play("generators", gen_loss)
        metrics |= learning_rates(state["step"])
        stats, pools = gen_stats, dict(state["pool"])
        if loss.lambda_gan:
            for i, name in enumerate(pools):
                key = jax.random.fold_in(pool_rng, i)
                pools[name], fakes[name] = pool.query_on_devices(pools[name], fakes[name], key, DEVICE_AXIS)
            stats, disc_metrics = play("discriminators", disc_loss)
            metrics |= disc_metrics

        state = {
            "step": state["step"] + 1,
            "params": params,
            "batch_stats": average_over_devices(stats),
            "opt_state": opt_state,
            "pool": pools,
        }
        return state, average_over_devices(metrics)

    def generate(state, name, images, rng):
        variables = {"params": state["params"][name], "batch_stats": state["batch_stats"][name]}
        return unknown.mark(translate_each(networks[name], variables, unknown.fill(images), rng, config), images)

    def translate(state, batch, rng):
        directions = {"fake_b": ("gen_ab", "real_a"), "fake_a": ("gen_ba", "real_b")}
        given = {fake: (name, batch[real]) for fake, (name, real) in directions.items() if real in batch}
        return {fake: unknown.fill(generate(state, *images, rng)) for fake, images in given.items()}

    def evaluate(state, batch, rng):
        real_a, real_b = batch["real_a"], batch["real_b"]
        fakes = {"fake_b": generate(state, "gen_ab", real_a, rng), "fake_a": generate(state, "gen_ba", real_b, rng)}
        rec_a = generate(state, "gen_ba", fakes["fake_b"], rng)
        rec_b = generate(state, "gen_ab", fakes["fake_a"], rng)

        def error(x, y):
            return jnp.nanmean(jnp.abs(x - y), (1, 2, 3)) / 2  # on [0, 1] images, where both are known

        metrics = {"cycle_a": error(rec_a, real_a), "cycle_b": error(rec_b, real_b)}
        metrics["cycle"] = (metrics["cycle_a"] + metrics["cycle_b"]) / 2
        if data.input.channels == data.output.channels:
            metrics["identity_a"] = error(generate(state, "gen_ba", real_a, rng), real_a)
            metrics["identity_b"] = error(generate(state, "gen_ab", real_b, rng), real_b)
        columns = {"real A": real_a, "fake B": fakes["fake_b"], "rec A": rec_a}
        return metrics, columns | {"real B": real_b, "fake A": fakes["fake_a"], "rec B": rec_b}

    return Objective(init, update, translate, evaluate)


def _check(loss: ConfigDict, config: ConfigDict, has_terms: bool) -> None:
    if not (loss.lambda_gan or loss.lambda_cycle or has_terms):
        raise InputError("loss.lambda_gan and loss.lambda_cycle are both 0, so the generators have no loss: set one")
    if loss.lambda_identity and loss.lambda_cycle == 0:
        raise InputError(
            "loss.lambda_identity is a fraction of loss.lambda_cycle, but that is 0: set loss.lambda_identity=0."
        )
    a, b = config.data.input.channels, config.data.output.channels
    if loss.lambda_identity and a != b:
        raise InputError(
            f"loss.lambda_identity feeds images of either domain to both generators, but "
            f"data.input.channels is {a} and data.output.channels is {b}: set loss.lambda_identity=0., or make the "
            "channels equal"
        )
