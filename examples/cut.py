"""CUT: unpaired translation in one direction by patchwise contrast (Park et al. 2020, ECCV).

    python -m p2p_jax.main --config examples/cut.py --workdir runs/cut

No cycle and no second generator: a patch of the translation must be more like the patch of the input at the same place
than like its other patches, in the features of the generator's own encoder. As in the authors' release, what is asked
of A and of B is averaged; unlike there, the generator is CycleGAN's, without smoothing where it resamples. The
library's loop trains it unchanged, started in the folder that holds examples/.

Hardware: any CPU. Time: 4 minutes on 2 cores. Expect night to fall on the toy facades, and some windows to be lit.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import p2p_jax
from p2p_jax.config import complete, complete_section
from p2p_jax.objectives import (
    Objective,
    average_over_devices,
    descend,
    losses,
    make_learning_rates,
    make_networks,
    make_optimizer,
    new_state,
    run_training,
    translate_each,
)

LOSS = {
    "gan": "lsgan",
    "lambda_nce": 1.0,
    "identity": True,  # contrast B and its translation too, which should change nothing
    "num_patches": 256,  # places of each map of features
    "temperature": 0.07,
}
HEAD_WIDTH = 256


def get_config() -> ConfigDict:
    """Return the CycleGAN quickstart with another objective."""
    config = p2p_jax.load_config("quickstart_cyclegan")
    config.objective = "examples.cut:make"
    config.best_metric = "nce"
    config.loss = ConfigDict(LOSS)
    return config


class Head(nn.Module):
    """A perceptron for every map of features: [B, N, C] -> [B, N, HEAD_WIDTH] of length 1."""

    @nn.compact
    def __call__(self, maps: list[jax.Array]) -> list[jax.Array]:
        """Return what patches are compared by."""
        found = []
        for i, x in enumerate(maps):
            x = nn.relu(nn.Dense(HEAD_WIDTH, name=f"{i}_in")(x))
            x = nn.Dense(HEAD_WIDTH, name=f"{i}_out")(x)
            found.append(x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12))
        return found


def sample(rng: jax.Array, maps: list[jax.Array], count: int) -> list[jax.Array]:
    """Take features [B, H, W, C] at places drawn without return, the same ones for the same `rng`: [B, count, C]."""
    found = []
    for i, x in enumerate(maps):
        x = x.reshape(len(x), -1, x.shape[-1])
        places = jax.random.permutation(jax.random.fold_in(rng, i), x.shape[1])[:count]
        found.append(x[:, places])
    return found


def contrast(queries: list[jax.Array], keys: list[jax.Array], temperature: float) -> jax.Array:
    """Return the mean cross-entropy [B] of finding each query [B, N, C] among the keys by their likeness."""
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        logits = jnp.einsum("bic,bjc->bij", query, key) / temperature
        total += optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(logits.shape[1])[None]).mean(-1)
    return total / len(queries)


def make(config: ConfigDict) -> Objective:
    """Build the objective; the generator must be a ResNet, whose encoder's features are used."""
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    if loss.identity and config.data.input.channels != config.data.output.channels:
        raise p2p_jax.InputError("the identity loss needs equal channels on both sides: set loss.identity=False")
    gan_loss, learning_rates = losses.find(loss.gan), make_learning_rates(config)
    (tx, _), (disc_tx, _) = make_optimizer(config), make_optimizer(config, "discriminator_optimizer")
    build = make_networks(config)
    gen = build("generator", out_channels=config.data.output.channels)
    disc, head = build("discriminator"), Head()
    num_blocks = config.generator.get("num_blocks", 9)
    blocks = sorted({1, (num_blocks + 1) // 2}) if num_blocks else []  # of nine the first and the fifth, as published
    layers = ["down_1", "down_2", *(f"block_{i}" for i in blocks)]

    def translate_and_encode(own, stats, images, rng):
        """Return translations, the features of `images` in the encoder, themselves among them, and new statistics."""
        output, found = gen.apply(
            {"params": own, "batch_stats": stats},
            images,
            train=True,
            rngs={"dropout": rng},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name in layers,
        )
        maps = [found["intermediates"][name]["__call__"][0] for name in layers]
        return output, [images, *maps], found.get("batch_stats", {})

    def init(rng, batch):
        keys = jax.random.split(rng, 4)
        gen_variables = gen.init(keys[0], batch["real_a"], train=False)
        params, stats = gen_variables["params"], gen_variables.get("batch_stats", {})
        _, maps, _ = translate_and_encode(params, stats, batch["real_a"], keys[1])
        head_variables = head.init(keys[2], sample(keys[2], maps, 1))
        disc_variables = disc.init(keys[3], batch["real_b"], train=False)
        with_head = {"network": params, "head": head_variables["params"]}
        variables = {"gen_ab": {"params": with_head, "batch_stats": stats}, "disc_b": disc_variables}
        return new_state(variables, {"gen_ab": tx, "disc_b": disc_tx})

    def compare(own_head, rng, source, translated):
        """Return the contrast [B] of a translation's features with those of its source, which stand still."""
        queries, keys = (
            head.apply({"params": own_head}, sample(rng, maps, loss.num_patches)) for maps in (translated, source)
        )
        return contrast(queries, jax.lax.stop_gradient(keys), loss.temperature)

    def update(state, batch, rng):
        params, stats, opt_state = (dict(state[key]) for key in ("params", "batch_stats", "opt_state"))
        real_a, real_b = batch["real_a"], batch["real_b"]
        noise = [jax.random.fold_in(rng, i) for i in range(6)]

        def judge(own, stats, images):
            return run_training(disc, own, stats, images)

        # The generator runs forward once on A for both players; its pullback waits for its own turn.
        def generate(own):
            fake, maps, new = translate_and_encode(own["network"], stats["gen_ab"], real_a, noise[0])
            return (fake, maps), new

        (fake_b, maps_a), pull_back, gen_stats = jax.vjp(generate, params["gen_ab"], has_aux=True)

        def disc_loss(own):
            on_fake, new = judge(own, stats["disc_b"], fake_b)
            on_real, new = judge(own, new, real_b)
            terms = {"disc/fake": gan_loss.fake(on_fake), "disc/real": gan_loss.real(on_real)}
            return 0.5 * (terms["disc/fake"] + terms["disc/real"]), (new, terms)

        grads, (stats["disc_b"], metrics) = jax.grad(disc_loss, has_aux=True)(params["disc_b"])
        params["disc_b"], opt_state["disc_b"] = descend(disc_tx, grads, opt_state["disc_b"], params["disc_b"])

        def gen_loss(own, fake_b):
            logits, disc_stats = judge(params["disc_b"], stats["disc_b"], fake_b)
            _, maps, new = translate_and_encode(own["network"], gen_stats, fake_b, noise[1])
            nce = compare(own["head"], noise[2], maps_a, maps).mean()
            terms = {"gen/gan": gan_loss.generator(logits), "gen/nce": nce}
            if loss.identity:
                same, maps_b, new = translate_and_encode(own["network"], new, real_b, noise[3])
                _, maps, new = translate_and_encode(own["network"], new, same, noise[4])
                terms["gen/nce_identity"] = compare(own["head"], noise[5], maps_b, maps).mean()
                nce = (nce + terms["gen/nce_identity"]) / 2
            terms["gen/total"] = terms["gen/gan"] + loss.lambda_nce * nce
            return terms["gen/total"], (new, disc_stats, terms)

        (grads, grad_fake), aux = jax.grad(gen_loss, argnums=(0, 1), has_aux=True)(params["gen_ab"], fake_b)
        (through_fake,) = pull_back((grad_fake, jax.tree.map(jnp.zeros_like, maps_a)))
        grads = jax.tree.map(jnp.add, grads, through_fake)
        params["gen_ab"], opt_state["gen_ab"] = descend(tx, grads, opt_state["gen_ab"], params["gen_ab"])
        stats["gen_ab"], stats["disc_b"], terms = aux
        metrics |= terms | learning_rates(state["step"])
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        return new | {"batch_stats": average_over_devices(stats)}, average_over_devices(metrics)

    def generate(state, images, rng):
        variables = {"params": state["params"]["gen_ab"]["network"], "batch_stats": state["batch_stats"]["gen_ab"]}
        return translate_each(gen, variables, images, rng, config)

    def translate(state, batch, rng):
        return {"fake_b": generate(state, batch["real_a"], rng)}

    def evaluate(state, batch, rng):
        real_a, own = batch["real_a"], state["params"]["gen_ab"]
        fake_b = generate(state, real_a, rng)
        source, translated = (
            translate_and_encode(own["network"], state["batch_stats"]["gen_ab"], images, rng)[1]
            for images in (real_a, fake_b)
        )
        metrics = {"nce": compare(own["head"], rng, source, translated)}
        return metrics, {"real A": real_a, "fake B": fake_b}

    return Objective(init, update, translate, evaluate)
