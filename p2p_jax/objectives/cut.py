"""CUT and FastCUT: unpaired translation in one direction, by patchwise contrast (Park et al. 2020, section 3)."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.config import Option, complete, complete_section
from p2p_jax.errors import InputError
from p2p_jax.objectives import adversary, patch_nce, terms
from p2p_jax.objectives.base import (
    Objective,
    average_over_devices,
    init_network,
    make_networks,
    new_state,
    statistics,
    translate_each,
)
from p2p_jax.objectives.optim import descend, make_learning_rates, make_optimizer
from p2p_jax.objectives.unknown import unknown_pixels

LOSS = (
    Option(
        "gan", str, "lsgan", 'lsgan (squared error), vanilla, hinge, relativistic or "module:name" of a losses.GanLoss'
    ),
    Option("lambda_gan", float, 1.0, "0 leaves the discriminator out", "[0, inf)"),
    Option("lambda_nce", float, 1.0, "weight of the contrastive loss; in FastCUT 10; 0 leaves it out", "[0, inf)"),
    Option("identity", bool, True, "contrast B with its own translation too, and average both; not in FastCUT"),
    Option("flip_equivariance", bool, False, "translate mirrored images in half the steps; only in FastCUT"),
    Option("num_patches", int, 256, "patches sampled from each feature map", "[2, 65536]"),
    Option("temperature", float, 0.07, "of the contrastive loss", "(0, inf)"),
    Option("head_width", int, 256, "width of the MLP heads that compare patches", "[1, 65536]"),
    Option("layers", str, "", 'generator layers to take features from, comma-separated, in order; "": its defaults'),
    *(option for option in terms.OPTIONS if option.name == "terms"),
    *adversary.OPTIONS,
)
"""Options of ``config.loss``."""


def cut(config: ConfigDict) -> Objective:
    """Build the objective of CUT, or of FastCUT.

    ``gen_ab`` maps A to B, ``disc_b`` judges images of B, and ``head`` (the release's F) maps features of the
    generator's own encoder to what patches are compared by. First the discriminator minimises
    ``(loss(disc_b(G(a)), 0) + loss(disc_b(b), 1)) / 2``; then generator and head minimise, through the
    updated discriminator and on the same G(a),

        lambda_gan loss(disc_b(G(a)), 1) + lambda_nce (nce(a, G(a)) + nce(b, G(b))) / 2

    where nce is ``patch_nce.contrast`` of the features of an image and of its translation at the same, randomly drawn
    places. Without ``identity`` it is ``lambda_nce nce(a, G(a))``. With ``flip_equivariance`` the images are mirrored
    in half of the steps before they are translated; the features of what comes out are mirrored back and compared with
    those of the images as they were.

    For features the generator runs as far as the last of its layers; those of a and b are of the run that translates
    them (unless that saw them mirrored). Running statistics of a batch norm are those of translations of A.

    Args:
      config: complete or not; reads ``generator``, ``discriminator``, ``optimizer``, ``discriminator_optimizer``,
        ``gradients``, ``schedule``, ``loss`` (see ``LOSS``), ``inference``, ``dtype``, ``param_dtype``,
        ``sync_batch_norm`` and ``data``. ``published.cut`` and ``published.fast_cut`` are the published settings. Any
        generator with submodules that give feature maps will do,
        see ``patch_nce.find_layers``.

    Returns:
      An ``Objective`` with the state ``{"step", "params", "batch_stats", "opt_state"}``, the last three with the
      entries "gen_ab", "head" unless ``lambda_nce`` is 0, and "disc_b" unless ``lambda_gan`` is 0. It translates only A
      to B. Validation measures "nce", and "identity_b" where A and B have equal channels.

    Raises:
      InputError: a setting is unknown or contradicts another.

    Note:
      The release resizes without crops while the rate falls; here ``data`` stays as it is for the whole run.
    """
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    same_channels = config.data.input.channels == config.data.output.channels
    own_terms = terms.OwnTerms(loss, unknown := unknown_pixels(config))
    _check(loss, same_channels, bool(own_terms))
    build = make_networks(config)
    gen = build("generator", out_channels=config.data.output.channels)
    disc = build("discriminator") if loss.lambda_gan else None
    game = adversary.make_adversary(disc, loss, real_first=False)
    layers = patch_nce.find_layers(gen, loss.layers) if loss.lambda_nce else ()
    encoder = patch_nce.Encoder(gen, layers)
    head = patch_nce.Head(
        loss.head_width,
        getattr(gen, "init_type", "xavier"),
        getattr(gen, "init_gain", 0.02),
        jnp.dtype(config.dtype),
        jnp.dtype(config.param_dtype),
    )
    identity = bool(loss.identity and loss.lambda_nce)
    tx, disc_tx = (make_optimizer(config, section)[0] for section in ("optimizer", "discriminator_optimizer"))
    txs, learning_rates = {"gen_ab": tx, "head": tx, "disc_b": disc_tx}, make_learning_rates(config)

    def init(rng, batch):
        gen_rng, head_rng, disc_rng = jax.random.split(rng, 3)
        channels = config.data.output.channels
        variables: dict[str, Any] = {
            "gen_ab": init_network(config, "generator", gen, gen_rng, batch["real_a"], channels)
        }
        if layers:
            maps = encoder.check(variables["gen_ab"], batch["real_a"], train=False)
            features = [jnp.zeros((1, 1, x.shape[-1]), x.dtype) for x in maps]
            variables["head"] = head.init(head_rng, features)
        if disc:
            variables["disc_b"] = init_network(config, "discriminator", disc, disc_rng, batch["real_b"])
        return new_state(variables, {player: txs[player] for player in variables})

    def run(params, stats, images, rng, *, whole):
        """Apply the generator, or only its encoder, to several batches in training mode.

        Returns:
          The translations of each, if it is the whole; the features of each; the batch statistics after the first.
        """

        def apply(images, rng):
            variables, given = {"params": params, "batch_stats": stats}, {"train": True, "rngs": {"dropout": rng}}
            if whole:
                return encoder.translate(variables, images, update_stats=True, **given)
            return None, encoder.encode(variables, images, **given), stats

        if stats:  # batch statistics of one call would be those of all
            found = [apply(x, jax.random.fold_in(rng, i)) for i, x in enumerate(images)]
            return [output for output, _, _ in found], [maps for _, maps, _ in found], found[0][2]
        outputs, maps, new_stats = apply(jnp.concatenate(images), rng)
        each = zip(*(jnp.split(x, len(images)) for x in maps), strict=True) if maps else ([] for _ in images)
        return jnp.split(outputs, len(images)) if whole else None, list(each), new_stats

    def compare(params, rng, real, sources, translations):
        """Return the contrastive loss [B] between features of translations and of their source images."""
        places = patch_nce.draw_places(rng, sources, loss.num_patches)

        def project(maps):
            return head.apply({"params": params}, patch_nce.take(maps, places))

        known, counts = unknown.known(real), None
        if known is not None:
            counts = patch_nce.take(patch_nce.spread(known, sources, layers), places)
        return patch_nce.contrast(project(translations), project(sources), loss.temperature, counts)

    def update(state, batch, rng):
        params, stats, opt_state = (dict(state[key]) for key in ("params", "batch_stats", "opt_state"))
        gen_rng, key_rng, query_rng, flip_rng, disc_rng, game_rng, *places_rngs = jax.random.split(rng, 8)
        metrics = learning_rates(state["step"])
        flipped = jax.random.bernoulli(flip_rng) if loss.flip_equivariance else None

        def turn(images):
            return images if flipped is None else jnp.where(flipped, images[:, :, ::-1], images)

        def learn(player, grads):
            params[player], opt_state[player] = descend(txs[player], grads, opt_state[player], params[player])

        reals = [batch["real_a"], batch["real_b"]] if identity else [batch["real_a"]]
        seen = [turn(x) for x in reals]  # by the generator
        real_b = unknown.fill(batch["real_b"])

        # The generator runs forward once: both players see the same fake, and its pullback waits for its own turn.
        def generate(own):
            fakes, maps, new_stats = run(own, stats["gen_ab"], [unknown.fill(x) for x in seen], gen_rng, whole=True)
            fakes = [unknown.hide(fake, real) for fake, real in zip(fakes, seen, strict=True)]
            return fakes, (maps, new_stats)

        fakes, pull_back, (keys, gen_stats) = jax.vjp(generate, params["gen_ab"], has_aux=True)
        if layers and flipped is not None:
            given = params["gen_ab"], stats["gen_ab"], [unknown.fill(x) for x in reals]
            _, keys, _ = run(*given, key_rng, whole=False)
        old_stats, stats["gen_ab"] = stats["gen_ab"], gen_stats

        if game:

            def disc_loss(own):
                given = own, stats["disc_b"], real_b, fakes[0], None, disc_rng
                return game.discriminator_loss(*given, state["step"])

            grads, (stats["disc_b"], found) = jax.grad(disc_loss, has_aux=True)(params["disc_b"])
            learn("disc_b", grads)
            metrics |= {f"disc/{name}": value for name, value in found.items()}

        def gen_loss(own, own_head, fakes):
            found: dict[str, jax.Array] = {}
            total, disc_stats = jnp.zeros(()), None
            if game:
                old = params["disc_b"], stats["disc_b"]
                found["gen/gan"], disc_stats = game.generator_loss(*old, fakes[0], real_b, None, game_rng)
                total += loss.lambda_gan * found["gen/gan"]
            if layers:
                _, queries, _ = run(own, old_stats, fakes, query_rng, whole=False)
                names = ("gen/nce", "gen/nce_identity")
                for name, key, real, its_keys, maps in zip(names, places_rngs, reals, keys, queries, strict=False):
                    found[name] = compare(own_head, key, real, its_keys, [turn(x) for x in maps]).mean()
                    total += loss.lambda_nce * found[name] / len(reals)
            if own_terms:
                weighted, each = own_terms(fakes[0], batch["real_b"], batch | {"real_a": seen[0]})
                total, found = total + weighted, terms.beside(found, each)
            return total, (disc_stats, found | {"gen/total": total})

        given = params["gen_ab"], params.get("head", {}), fakes
        grads, (disc_stats, found) = jax.grad(gen_loss, argnums=(0, 1, 2), has_aux=True)(*given)
        if game:
            stats["disc_b"] = disc_stats
        (through_fakes,) = pull_back(grads[2])
        learn("gen_ab", jax.tree.map(jnp.add, grads[0], through_fakes))
        if layers:
            learn("head", grads[1])

        stats = average_over_devices(stats)
        state = {"step": state["step"] + 1, "params": params, "batch_stats": stats, "opt_state": opt_state}
        return state, average_over_devices(metrics | found)

    def generate(state, images, rng):
        variables = {"params": state["params"]["gen_ab"], "batch_stats": state["batch_stats"]["gen_ab"]}
        return translate_each(gen, variables, unknown.fill(images), rng, config)

    def translate(state, batch, rng):
        return {"fake_b": generate(state, batch["real_a"], rng)}

    def evaluate(state, batch, rng):
        real_a, real_b = batch["real_a"], batch["real_b"]
        fake_b = generate(state, real_a, rng)
        metrics, columns = {}, {"real A": real_a, "fake B": unknown.mark(fake_b, real_a), "real B": real_b}
        if layers:
            metrics["nce"] = jax.vmap(lambda real, fake: nce_of_one(state, real[None], fake[None], rng)[0])(
                real_a, fake_b
            )
        if same_channels:
            columns["identity B"] = unknown.mark(generate(state, real_b, rng), real_b)
            metrics["identity_b"] = jnp.nanmean(jnp.abs(columns["identity B"] - real_b), (1, 2, 3)) / 2
        return metrics, columns

    def nce_of_one(state, real, fake, rng):
        """Return the contrast [1] of one image, by the statistics that translation takes."""
        variables = {"params": state["params"]["gen_ab"], "batch_stats": state["batch_stats"]["gen_ab"]}
        alone = gen.clone(axis_name=None) if hasattr(gen, "axis_name") else gen
        train = statistics(config) == "batch"
        keys, queries = (
            patch_nce.Encoder(alone, layers).encode(variables, x, train=train, dropout=False)
            for x in (unknown.fill(real), unknown.hide(fake, real))
        )
        return compare(state["params"]["head"], rng, real, keys, queries)

    return Objective(init, update, translate, evaluate)


def _check(loss: ConfigDict, same_channels: bool, has_terms: bool) -> None:
    if not (loss.lambda_gan or loss.lambda_nce or has_terms):
        raise InputError("loss.lambda_gan and loss.lambda_nce are both 0, so the generator has no loss: set one")
    if loss.lambda_nce and not same_channels:
        raise InputError(
            "loss.lambda_nce compares inputs and translations with one encoder, but data.input.channels "
            "differs from data.output.channels: make them equal, or set loss.lambda_nce=0."
        )
