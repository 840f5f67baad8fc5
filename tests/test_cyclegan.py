"""CycleGAN: the contract, the rows of Tables 4 and 5, identity, pool and validation in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import p2p_jax
from p2p_jax.errors import InputError
from p2p_jax.objectives import losses
from p2p_jax.testing import check_objective
from p2p_jax.training import parallel
from support.configs import SGD, small_cyclegan_config
from support.devices import assert_two_devices_equal_one
from support.images import random_batch
from support.networks import PIXEL_GAN, TINY

STILL = {"factory": "optax:sgd", "learning_rate": 0.0}
BATCH_NORM = {"generator__norm": "batch", "discriminator__norm": "batch"}
VARIANTS = {
    "as published": {},
    "synchronised batch norm": {"generator": TINY, "discriminator": PIXEL_GAN, **BATCH_NORM, "sync_batch_norm": True},
    "vanilla U-Net with dropout, bfloat16": {
        "generator": {"network": "p2p_jax.nets:UNet", "num_downs": 2, "base_width": 4},
        "inference__dropout": True,
        "loss__gan": "vanilla",
        "dtype": "bfloat16",
    },
    "gray to colour, resized, zeros, remat, no discriminators, no pool": {
        "data__input__channels": 1,
        "generator__num_blocks": 0,
        "generator__upsampling": "resize",
        "generator__padding": "zero",
        "generator__dropout_rate": 0.5,
        "generator__remat": True,
        "loss__lambda_gan": 0.0,
        "loss__lambda_identity": 0.0,
        "loss__pool_size": 0,
    },
}
tiny_config = partial(small_cyclegan_config, generator=TINY, discriminator=PIXEL_GAN)  # losses know no layers
# What the rows of the paper's Tables 4 and 5 leave out.
ROWS = {
    "cycle alone": {"loss__lambda_gan": 0.0},
    "GAN alone": {"loss__lambda_cycle": 0.0, "loss__lambda_identity": 0.0},
    "GAN + forward cycle": {"loss__cycle": "forward"},
    "GAN + backward cycle": {"loss__cycle": "backward"},
    "CycleGAN": {"loss__lambda_identity": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_contract(variant):
    config = small_cyclegan_config(**VARIANTS[variant])
    check_objective(p2p_jax.cyclegan(config), config)


def run_update(config, batch=None):
    """Return the state before, the state after, and the metrics of one update."""
    objective = p2p_jax.cyclegan(config)
    batch = batch or random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    return state, *parallel.pmap_update(objective.update)(state, batch, jax.random.key(1))[:2]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_rows_of_tables_4_and_5(row):
    config = tiny_config(**ROWS[row])
    state, new, metrics = run_update(config)
    gan = {"gen/gan_ab", "gen/gan_ba"} if "GAN" in row else set()
    discs = {f"disc/{kind}_{name}" for kind in ("real", "fake") for name in "ab"} if gan else set()
    cycles = {"gen/cycle_a"} if row != "GAN alone" and "backward" not in row else set()
    cycles |= {"gen/cycle_b"} if row != "GAN alone" and "forward" not in row else set()
    identities = {"gen/identity_a", "gen/identity_b"} if config.loss.lambda_identity else set()
    assert metrics.keys() == gan | discs | cycles | identities | {"gen/total", "lr"}
    total = sum(float(metrics[name]) for name in gan) + 10 * sum(float(metrics[name]) for name in cycles)
    total += 5 * sum(float(metrics[name]) for name in identities)
    assert float(metrics["gen/total"]) == pytest.approx(total, rel=1e-5)
    networks = {"gen_ab", "gen_ba"} | ({"disc_a", "disc_b"} if gan else set())
    assert state["params"].keys() == networks
    assert state["opt_state"].keys() == ({"generators", "discriminators"} if gan else {"generators"})
    assert state["pool"].keys() == ({"a", "b"} if gan else set())
    for name in networks:
        kernels = [jax.tree.leaves(s["params"][name])[1] for s in (state, new)]
        assert np.abs(kernels[1] - kernels[0]).max() > 1e-5, f"{name} did not move"


@pytest.mark.slow
def test_translation_is_not_disturbed_by_the_identity_pass():
    """One batched call or two, what the other losses see is the same, under batch norm too."""
    for norm in ({}, BATCH_NORM):
        with_identity, without = (
            run_update(tiny_config(loss__lambda_identity=weight, **norm))[2] for weight in (1e-6, 0.0)
        )
        for name in without.keys() - {"gen/total"}:
            assert float(with_identity[name]) == pytest.approx(float(without[name]), rel=1e-4), name


@pytest.mark.slow
def test_identity_loss_in_closed_form():
    """|G(b) - b| is what validation measures, on [0, 1] images and so halved."""
    config = tiny_config(optimizer=STILL)
    batch = random_batch(config)
    state, _, metrics = run_update(config, batch)
    results, columns = parallel.Evaluation(p2p_jax.cyclegan(config).evaluate, 2)(state, batch, jax.random.key(0))
    for name in ("cycle_a", "cycle_b", "identity_a", "identity_b"):
        assert results[name].shape == (4,)
        assert float(results[name].mean()) == pytest.approx(float(metrics[f"gen/{name}"]) / 2, rel=1e-5)
    np.testing.assert_allclose(results["cycle"], (results["cycle_a"] + results["cycle_b"]) / 2, rtol=1e-6)
    assert list(columns) == ["real A", "fake B", "rec A", "real B", "fake A", "rec B"]
    np.testing.assert_allclose(
        np.abs(columns["rec B"] - columns["real B"]).mean((1, 2, 3)) / 2, results["cycle_b"], rtol=1e-6
    )


def test_translate_goes_where_it_is_asked_to():
    config = tiny_config()
    objective, batch = p2p_jax.cyclegan(config), random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    both = objective.translate(state, batch, jax.random.key(0))
    assert both.keys() == {"fake_a", "fake_b"}
    for real, fake in (("real_a", "fake_b"), ("real_b", "fake_a")):
        one = objective.translate(state, {real: batch[real]}, jax.random.key(0))
        assert one.keys() == {fake}
        np.testing.assert_allclose(one[fake], both[fake], atol=1e-6)
    assert np.abs(both["fake_a"] - both["fake_b"]).max() > 0.01


@pytest.mark.slow
def test_discriminators_see_the_past_through_the_pool():
    """Networks that stand still make the fakes predictable; the pool hands out some of the first step's again."""
    config = tiny_config(batch_size=2, loss__pool_size=2, discriminator__init_gain=0.5, optimizer=STILL)
    objective = p2p_jax.cyclegan(config)
    update = parallel.pmap_update(objective.update)
    batches = [random_batch(config, seed) for seed in range(2)]
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batches[0]))
    fakes = [objective.translate(state, batch, jax.random.key(0)) for batch in batches]
    assert not state["pool"]["a"]["filled"].any()
    first, _, _ = jax.device_get(update(state, batches[0], jax.random.key(1)))
    for name in "ab":
        assert first["pool"][name]["filled"].all()
        np.testing.assert_allclose(first["pool"][name]["items"], fakes[0][f"fake_{name}"], atol=1e-6)
    swaps = []
    for seed in range(8):
        second, metrics, _ = update(first, batches[1], jax.random.key(seed))
        for name in "ab":
            items = np.asarray(second["pool"][name]["items"])
            came = [np.allclose(items[i], fakes[1][f"fake_{name}"][i], atol=1e-6) for i in range(2)]
            stayed = [np.allclose(items[i], fakes[0][f"fake_{name}"][i], atol=1e-6) for i in range(2)]
            assert [a != b for a, b in zip(came, stayed, strict=True)] == [True, True]  # each device has its own slot
            swaps.append((*came, round(float(metrics[f"disc/fake_{name}"]), 5)))
    outcomes = {swap[:2] for swap in swaps}
    assert len(outcomes) > 2
    for name in (0, 1):  # what the discriminator saw depends on what was swapped, and on nothing else
        of_side = set(swaps[name::2])
        assert len(of_side) == len({swap[:2] for swap in of_side}) == len({swap[2] for swap in of_side}) > 1


@pytest.mark.slow
def test_one_optimizer_for_both_networks_of_a_side():
    state, _, _ = run_update(tiny_config())
    counts = [leaf for leaf in jax.tree.leaves(state["opt_state"]) if leaf.shape == () and leaf.dtype == jnp.int32]
    moments = sum(leaf.size for leaf in jax.tree.leaves(state["opt_state"]) if leaf.shape)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    alone = tiny_config(loss__lambda_gan=0.0)
    other = jax.eval_shape(p2p_jax.cyclegan(alone).init, jax.random.key(0), random_batch(alone))
    assert len(counts) == 2 * len(
        [x for x in jax.tree.leaves(other["opt_state"]) if x.shape == () and x.dtype == jnp.int32]
    )


@pytest.mark.slow
def test_two_devices_do_what_one_does_with_the_whole_batch():
    """Instance norm knows no neighbours, so the mean over shards is that over the batch; SGD, as Adam hides scales."""
    config = tiny_config(loss__pool_size=0, optimizer=SGD)
    moved = assert_two_devices_equal_one(config)
    assert max(jax.tree.leaves(moved)) > 1e-3


def hinge_like(name):
    """Return a loss that is ten times the usual one for the generators; named by a config below."""
    return losses.GAN_LOSSES[name]._replace(generator=lambda logits: 10 * losses.mse(logits, 1.0))


TENFOLD = hinge_like("lsgan")


@pytest.mark.slow
def test_adversarial_loss_from_outside():
    usual = run_update(tiny_config())[2]
    tenfold = run_update(tiny_config(loss__gan="test_cyclegan:TENFOLD"))[2]
    assert float(tenfold["gen/gan_ab"]) == pytest.approx(10 * float(usual["gen/gan_ab"]), rel=1e-5)


@pytest.mark.parametrize("unit", ["auto", "epochs"])
def test_objective_is_made_before_the_images_are_counted(unit):
    """Only a rate that is asked for needs their number."""
    config = tiny_config(schedule__kind="linear_decay", schedule__unit=unit)
    objective, batch = p2p_jax.cyclegan(config), random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    assert objective.translate(state, {"real_a": batch["real_a"]}, jax.random.key(0))["fake_b"].shape == (4, 16, 16, 3)
    with pytest.raises(InputError, match="set config.data.num_train before"):
        parallel.pmap_update(objective.update)(state, batch, jax.random.key(0))


@pytest.mark.slow
def test_first_losses_of_undecided_discriminators():
    """Zero logits cost 1 against the label 1 and 0 against the label 0; the vanilla loss costs log 2 either way."""
    for gan, real, fake in (("lsgan", 1.0, 0.0), ("vanilla", np.log(2), np.log(2))):
        _, _, metrics = run_update(tiny_config(discriminator__init_gain=0.0, loss__gan=gan))
        for name in "ab":
            assert float(metrics[f"disc/real_{name}"]) == pytest.approx(real, rel=1e-5)
            assert float(metrics[f"disc/fake_{name}"]) == pytest.approx(fake, abs=1e-5)
        assert float(metrics["gen/gan_ab"]) == pytest.approx(real, rel=1e-5)


@pytest.mark.slow
def test_state_looks_the_same_on_any_number_of_devices():
    config = tiny_config(loss__pool_size=5)
    objective, batch = p2p_jax.cyclegan(config), random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    new = [
        jax.device_get(
            parallel.pmap_update(objective.update, jax.devices()[:count])(state, batch, jax.random.key(1))[0]
        )
        for count in (1, jax.device_count())
    ]
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, *new)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert [int(tree["pool"]["a"]["filled"].sum()) for tree in new] == [4, 5 // jax.device_count() * jax.device_count()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data__input__channels": 1},
            r"data.input.channels is 1 and data.output.channels is 3: set loss.lambda_identity=0.",
        ),
        ({"loss__lambda_L1": 1.0}, r"unknown option config.loss.lambda_L1"),
        ({"loss__lambda_cycel": 1.0}, r"did you mean loss.lambda_cycle\?"),
        ({"loss__cycle": "sideways"}, "choose both, forward or backward"),
        ({"loss__gan": "wgan"}, "choose one of vanilla, lsgan"),
        ({"loss__lambda_gan": 0.0, "loss__lambda_cycle": 0.0}, "no loss"),
        ({"loss__lambda_cycle": 0.0}, "a fraction of loss.lambda_cycle"),
        ({"loss__pool_size": -1}, "loss.pool_size is -1"),
        ({"inference__norm": "none"}, "choose auto, batch or running"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        p2p_jax.cyclegan(tiny_config(**changes))
