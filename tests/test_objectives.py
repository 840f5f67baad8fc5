"""Objectives: the contract, the rows of Table 1, schedules and optimizers in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import p2p_jax
from p2p_jax import parallel
from p2p_jax.objectives import losses, make_optimizer, make_schedule
from p2p_jax.testing import check_objective
from support.configs import small_config
from support.images import random_batch

TABLE_1 = {
    "L1": {"loss__lambda_gan": 0.0},
    "GAN": {"loss__conditional": False, "loss__lambda_l1": 0.0},
    "cGAN": {"loss__lambda_l1": 0.0},
    "L1+GAN": {"loss__conditional": False},
    "L1+cGAN": {},
}
VARIANTS = {
    **TABLE_1,
    "encoder-decoder": {"generator__skips": False},
    "PixelGAN": {"discriminator__receptive_field": 1},
    "34x34": {"discriminator__receptive_field": 34},
    "lsgan": {"loss__gan": "lsgan"},
    "instance norm": {"generator__norm": "instance", "discriminator__norm": "instance"},
    "synchronised": {"sync_batch_norm": True},
    "bfloat16": {"dtype": "bfloat16"},
    "running statistics": {"inference__norm": "running", "inference__dropout": False},
    "gray to colour": {"data__channels_a": 1},
    "sgd": {"optimizer__factory": "optax:sgd", "optimizer__learning_rate": 0.1},
    "pytorch dropout": {"generator__dropout_layout": "pytorch", "generator__num_downs": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_contract(variant):
    config = small_config(**VARIANTS[variant])
    check_objective(p2p_jax.pix2pix(config), config)


def run_update(config, batch=None, seed=0):
    objective = p2p_jax.pix2pix(config)
    batch = batch or random_batch(config)
    state = jax.jit(objective.init)(jax.random.key(seed), batch)
    return state, *parallel.pmap_update(objective.update)(state, batch, jax.random.key(1))[:2]


@pytest.mark.parametrize("row", TABLE_1)
def test_rows_of_table_1(row):
    config = small_config(**TABLE_1[row])
    state, new, metrics = run_update(config)
    uses_gan, uses_l1, conditional = "GAN" in row, "L1" in row, "cGAN" in row
    assert set(state["params"]) == ({"generator", "discriminator"} if uses_gan else {"generator"})
    assert ({"disc/real", "disc/fake", "gen/gan"} <= metrics.keys()) == uses_gan
    expected = 100 * uses_l1 * metrics["gen/l1"] + (metrics["gen/gan"] if uses_gan else 0)
    assert float(metrics["gen/total"]) == pytest.approx(float(expected), rel=1e-5)
    if uses_gan:
        assert state["params"]["discriminator"]["conv_1"]["kernel"].shape[2] == (6 if conditional else 3)
        moved = (
            new["params"]["discriminator"]["conv_1"]["kernel"] - state["params"]["discriminator"]["conv_1"]["kernel"]
        )
        assert np.abs(moved).max() > 0


def test_first_discriminator_losses_of_an_undecided_discriminator():
    """Zero logits cost log 2 on either side."""
    config = small_config(discriminator__init_gain=0.0)
    _, _, metrics = run_update(config)
    for name in ("disc/real", "disc/fake"):
        assert float(metrics[name]) == pytest.approx(np.log(2), rel=1e-5)


def test_generator_plays_against_the_updated_discriminator():
    """A discriminator that takes one large step meets the generator with it: gen/gan changes within that update."""

    def metrics_with(rate):
        return run_update(small_config(optimizer={"factory": "optax:sgd", "learning_rate": rate}))[2]

    before, after = metrics_with(0.0), metrics_with(1.0)
    assert float(before["disc/fake"]) == pytest.approx(float(after["disc/fake"]), rel=1e-6)
    assert abs(float(after["gen/gan"]) - float(before["gen/gan"])) > 0.05


def test_losses_in_closed_form():
    logits = jnp.array([-2.0, 0.0, 3.0])
    assert float(losses.bce(logits, 1.0)) == pytest.approx(np.log1p(np.exp(-np.asarray(logits))).mean(), rel=1e-6)
    assert float(losses.bce(logits, 0.0)) == pytest.approx(np.log1p(np.exp(np.asarray(logits))).mean(), rel=1e-6)
    assert float(losses.mse(logits, 1.0)) == pytest.approx((9 + 1 + 4) / 3)
    assert float(losses.l1(logits, jnp.array([0.0, 1.0, 1.0]))) == pytest.approx(5 / 3)
    assert float(losses.GAN_LOSSES["lsgan"].generator(logits)) == pytest.approx((9 + 1 + 4) / 3)


def test_constant_schedule():
    schedule = make_schedule(small_config())
    assert [float(schedule(step)) for step in (0, 10**6)] == pytest.approx([2e-4, 2e-4])


def test_linear_decay_in_steps():
    schedule = make_schedule(
        small_config(
            schedule__kind="linear_decay",
            schedule__unit="steps",
            schedule__constant_for=100,
            schedule__decay_over=50,
        )
    )
    rates = [float(schedule(step)) for step in (0, 100, 125, 150, 999)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 0, 0])


def test_linear_decay_in_epochs_follows_the_pytorch_release():
    """One epoch is 10 images, 5 steps of 2: lr * (1 - max(0, epoch + 1 - 3) / (4 + 1)) for epochs 0 to 6."""
    config = small_config(
        batch_size=2,
        data__num_train=10,
        schedule__kind="linear_decay",
        schedule__constant_for=3,
        schedule__decay_over=4,
    )
    schedule = make_schedule(config)
    rates = [float(schedule(5 * epoch + step)) / 2e-4 for epoch in range(7) for step in (0, 4)]
    assert rates == pytest.approx(np.repeat([1, 1, 1, 0.8, 0.6, 0.4, 0.2], 2), rel=1e-5)
    assert float(schedule(5 * 100)) == 0


def test_adam_as_published():
    tx, _ = make_optimizer(small_config())
    params, grads = jnp.array([1.0, 1.0]), jnp.array([0.5, -2.0])
    state = tx.init(params)
    m = v = np.zeros(2)
    expected = np.ones(2)
    for t in range(1, 4):
        updates, state = tx.update(grads * t, state, params)
        params = optax.apply_updates(params, updates)
        m = 0.5 * m + 0.5 * np.asarray(grads) * t
        v = 0.999 * v + 0.001 * (np.asarray(grads) * t) ** 2
        expected = expected - 2e-4 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_any_optax_optimizer():
    config = small_config(
        optimizer={"factory": "optax:rmsprop", "learning_rate": 1e-3, "decay": 0.5},
    )
    tx, _ = make_optimizer(config)
    updates, _ = tx.update(jnp.array([2.0]), tx.init(jnp.array([0.0])))
    assert float(updates[0]) == pytest.approx(-1e-3 / np.sqrt(0.5), rel=1e-4)


def test_dropout_differs_between_devices():
    """Both devices get the same images; their fakes, and so the average, must not be those of one device alone."""
    config = small_config(batch_size=2, loss__lambda_gan=0.0)
    image = random_batch(config, size=1)
    twice = {k: np.repeat(v, 2, axis=0) for k, v in image.items()}
    _, _, both = run_update(config, twice)
    objective = p2p_jax.pix2pix(config)
    state = jax.jit(objective.init)(jax.random.key(0), twice)
    one = parallel.pmap_update(objective.update, jax.devices()[:1])(state, image, jax.random.key(1))[1]
    assert abs(float(both["gen/l1"]) - float(one["gen/l1"])) > 1e-7


def test_translation_uses_the_stored_switches():
    batch = random_batch(small_config())

    def translate(seed=0, **inference):
        config = small_config(**{f"inference__{k}": v for k, v in inference.items()})
        objective = p2p_jax.pix2pix(config)
        state = jax.jit(objective.init)(jax.random.key(0), batch)
        return objective.translate(state, batch, jax.random.key(seed))["fake_b"]

    assert np.array_equal(translate(dropout=False), translate(dropout=False, seed=1))
    assert not np.array_equal(translate(dropout=True), translate(dropout=True, seed=1))
    difference = np.abs(translate(dropout=False, norm="running") - translate(dropout=False, norm="batch"))
    assert difference.max() > 1e-4
