"""A third objective, outside the library: GcGAN, unpaired translation in one direction (Fu et al. 2019, CVPR).

    python -m p2p_jax.main --config examples/gcgan.py --workdir runs/gcgan

Instead of a translation back, it asks that translating and turning by 90 degrees commute: one generator and no cycle.
The file holds the config and the objective; the library's loop trains it unchanged, started in the folder that holds
examples/.

Hardware: any CPU. Time: 3 to 4 minutes on 2 cores. Expect night to fall on the toy facades.
"""

import jax
import jax.numpy as jnp
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
    "lambda_geometry": 20.0,
    "lambda_identity": 10.0,
}


def get_config() -> ConfigDict:
    """Return the CycleGAN quickstart with another objective."""
    config = p2p_jax.load_config("quickstart_cyclegan")
    config.objective = "examples.gcgan:make"
    config.best_metric = "geometry"
    config.loss = ConfigDict(LOSS)
    return config


def turn(images: jax.Array, quarters: int = 1) -> jax.Array:
    """Turn images [B, H, H, C] counter-clockwise by quarters of a circle."""
    return jnp.rot90(images, quarters, axes=(1, 2))


def make(config: ConfigDict) -> Objective:
    """Build the objective; its discriminators judge upright and turned images apart, as in the paper."""
    config = complete(config)
    loss = complete_section(config.loss, LOSS, "loss")
    if loss.lambda_identity and config.data.input.channels != config.data.output.channels:
        raise p2p_jax.InputError("the identity loss needs equal channels on both sides: set loss.lambda_identity=0.")
    gan_loss, learning_rates = losses.find(loss.gan), make_learning_rates(config)
    (tx, _), (disc_tx, _) = make_optimizer(config), make_optimizer(config, "discriminator_optimizer")
    build = make_networks(config)
    gen = build("generator", out_channels=config.data.output.channels)
    disc = build("discriminator")
    networks = {"gen_ab": gen, "disc_b": disc, "disc_turned": disc}
    txs = {"gen_ab": tx, "disc_b": disc_tx, "disc_turned": disc_tx}

    def init(rng, batch):
        variables = {
            name: network.init(jax.random.fold_in(rng, i), batch["real_a" if network is gen else "real_b"], train=False)
            for i, (name, network) in enumerate(networks.items())
        }
        return new_state(variables, txs)

    def update(state, batch, rng):
        params, stats, opt_state = (dict(state[key]) for key in ("params", "batch_stats", "opt_state"))
        real_a, real_b = batch["real_a"], batch["real_b"]

        def apply(name, own, stats, images, seed=0):
            rngs = {"dropout": jax.random.fold_in(rng, seed)}
            output, stats[name] = run_training(networks[name], own, stats[name], images, rngs=rngs)
            return output

        def gen_loss(own):
            new = dict(stats)
            fake, fake_turned = apply("gen_ab", own, new, real_a), apply("gen_ab", own, new, turn(real_a), 1)
            gan = gan_loss.generator(apply("disc_b", params["disc_b"], new, fake))
            gan += gan_loss.generator(apply("disc_turned", params["disc_turned"], new, fake_turned))
            geometry = losses.l1(turn(fake), fake_turned)
            terms = {"gen/gan": gan, "gen/geometry": geometry}
            total = gan + loss.lambda_geometry * geometry
            if loss.lambda_identity:
                terms["gen/identity"] = losses.l1(apply("gen_ab", own, new, real_b, 2), real_b)
                total += loss.lambda_identity * terms["gen/identity"]
            return total, (new, {"disc_b": fake, "disc_turned": fake_turned}, terms | {"gen/total": total})

        def play(name, loss_of):
            grads, aux = jax.grad(loss_of, has_aux=True)(params[name])
            params[name], opt_state[name] = descend(txs[name], grads, opt_state[name], params[name])
            return aux

        stats, fakes, metrics = play("gen_ab", gen_loss)

        def disc_loss(name, real):
            def loss_of(own):
                new = dict(stats)
                on_real = gan_loss.real(apply(name, own, new, real))
                on_fake = gan_loss.fake(apply(name, own, new, fakes[name]))
                return 0.5 * (on_real + on_fake), (new, {f"{name}/real": on_real, f"{name}/fake": on_fake})

            return loss_of

        for name, real in (("disc_b", real_b), ("disc_turned", turn(real_b))):
            stats, disc_metrics = play(name, disc_loss(name, real))
            metrics |= disc_metrics
        metrics |= learning_rates(state["step"])
        new_state = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        return new_state | {"batch_stats": average_over_devices(stats)}, average_over_devices(metrics)

    def generate(state, images, rng):
        variables = {"params": state["params"]["gen_ab"], "batch_stats": state["batch_stats"]["gen_ab"]}
        return translate_each(gen, variables, images, rng, config)

    def translate(state, batch, rng):
        return {"fake_b": generate(state, batch["real_a"], rng)}

    def evaluate(state, batch, rng):
        fake = generate(state, batch["real_a"], rng)
        turned_back = turn(generate(state, turn(batch["real_a"]), rng), -1)
        metrics = {"geometry": jnp.abs(fake - turned_back).mean((1, 2, 3)) / 2}
        return metrics, {"real A": batch["real_a"], "fake B": fake, "turned": turned_back}

    return Objective(init, update, translate, evaluate)
