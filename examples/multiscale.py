"""pix2pixHD's losses: discriminators at several scales and feature matching (Wang et al. 2018, section 3).

    python -m p2p_jax.main --config examples/multiscale.py --workdir runs/multiscale

Each discriminator sees the images at half the size of the one before. In place of L1 the generator is asked to excite
their inner layers as the real image does; here, all losses are means over the scales, and a layer is looked at before
its activation. Translation and evaluation are pix2pix's. The library's loop trains it unchanged, started in the folder
that holds examples/.

Hardware: any CPU. Time: 3 to 4 minutes on 2 cores. Expect a validation L1 of about 0.06, which it is not trained on.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import p2p_jax
from p2p_jax.config import complete, complete_section
from p2p_jax.nets.resampling import halve
from p2p_jax.objectives import (
    Objective,
    average_over_devices,
    descend,
    losses,
    make_learning_rates,
    make_networks,
    make_optimizer,
    run_training,
)

LOSS = {
    "gan": "lsgan",
    "num_scales": 2,  # 3 in the paper, whose images are 32 times as wide
    "lambda_feature": 10.0,
}


def get_config() -> ConfigDict:
    """Return the quickstart with another objective."""
    config = p2p_jax.load_config("quickstart")
    config.objective = "examples.multiscale:make"
    config.loss = ConfigDict(LOSS)
    config.discriminator.norm = "instance"
    return config


def make(config: ConfigDict) -> Objective:
    """Build the objective; its state is that of pix2pix, with one discriminator for every scale."""
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    base = p2p_jax.pix2pix(complete({**config.to_dict(), "loss": {}}))
    gan_loss, learning_rates = losses.find(loss.gan), make_learning_rates(config)
    (tx, _), (disc_tx, _) = make_optimizer(config), make_optimizer(config, "discriminator_optimizer")
    build = make_networks(config)
    gen, disc = build("generator", out_channels=config.data.output.channels), build("discriminator")
    scales = [f"scale_{i}" for i in range(1, loss.num_scales + 1)]

    def init(rng, batch):
        state = base.init(rng, batch)
        pair = jnp.concatenate([batch["real_a"], batch["real_b"]], axis=-1)
        variables = {}
        for i, scale in enumerate(scales):
            variables[scale] = disc.init(jax.random.fold_in(rng, i), pair, train=False)
            pair = halve(pair)
        params = {scale: value["params"] for scale, value in variables.items()}
        stats = {scale: value.get("batch_stats", {}) for scale, value in variables.items()}
        for key, value in {"params": params, "batch_stats": stats, "opt_state": disc_tx.init(params)}.items():
            state[key] = {**state[key], "discriminator": value}
        return state

    def judge(own, stats, real_a, image):
        """Return the logits at every scale, the results of all layers before them, and new statistics."""
        pair, logits, features, stats = jnp.concatenate([real_a, image], axis=-1), [], [], dict(stats)
        for scale in scales:
            result, found = disc.apply(
                {"params": own[scale], "batch_stats": stats[scale]},
                pair,
                train=True,
                mutable=["batch_stats", "intermediates"],
                capture_intermediates=lambda module, _: (module.name or "").startswith("conv_"),
            )
            stats[scale] = found.get("batch_stats", {})
            layers = {name: value["__call__"][0] for name, value in found["intermediates"].items()}
            # Of a convolution that is normalised, the normalised result.
            features.append([y for name, y in layers.items() if f"{name}_norm" not in layers])
            logits.append(result)
            pair = halve(pair)
        return logits, features, stats

    def mean(numbers):
        return sum(numbers) / len(scales)

    def update(state, batch, rng):
        params, stats, opt_state = (dict(state[key]) for key in ("params", "batch_stats", "opt_state"))
        real_a, real_b = batch["real_a"], batch["real_b"]

        def generate(own):
            return run_training(gen, own, stats["generator"], real_a, rngs={"dropout": rng})

        fake_b, pull_back, stats["generator"] = jax.vjp(generate, params["generator"], has_aux=True)

        def disc_loss(own):
            on_fake, _, new = judge(own, stats["discriminator"], real_a, fake_b)
            on_real, _, new = judge(own, new, real_a, real_b)
            terms = {"disc/fake": mean(map(gan_loss.fake, on_fake)), "disc/real": mean(map(gan_loss.real, on_real))}
            return 0.5 * (terms["disc/fake"] + terms["disc/real"]), (new, terms)

        grads, (stats["discriminator"], metrics) = jax.grad(disc_loss, has_aux=True)(params["discriminator"])
        params["discriminator"], opt_state["discriminator"] = descend(
            disc_tx, grads, opt_state["discriminator"], params["discriminator"]
        )
        _, wanted, _ = judge(params["discriminator"], stats["discriminator"], real_a, real_b)

        def gen_loss(fake_b):
            logits, found, new = judge(params["discriminator"], stats["discriminator"], real_a, fake_b)
            layers = [sum(map(losses.l1, x, y)) for x, y in zip(found, wanted, strict=True)]
            terms = {"gen/gan": mean(map(gan_loss.generator, logits)), "gen/feature": mean(layers)}
            terms["gen/l1"] = losses.l1(fake_b, real_b)  # to be seen, not to be learnt from
            return terms["gen/gan"] + loss.lambda_feature * terms["gen/feature"], (new, terms)

        grad_fake, (stats["discriminator"], terms) = jax.grad(gen_loss, has_aux=True)(fake_b)
        (grads,) = pull_back(grad_fake)
        params["generator"], opt_state["generator"] = descend(tx, grads, opt_state["generator"], params["generator"])
        metrics |= terms | learning_rates(state["step"])
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        return new | {"batch_stats": average_over_devices(stats)}, average_over_devices(metrics)

    return base._replace(init=init, update=update)
