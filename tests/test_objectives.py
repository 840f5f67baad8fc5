"""Objectives: the contract, the rows of Table 1, schedules and optimizers in closed form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import p2p_jax
from p2p_jax.config import complete, complete_experiment, resolve
from p2p_jax.objectives import DEVICE_AXIS, losses, make_optimizer, make_schedule
from p2p_jax.objectives.optim import decide_unit, falls_between
from p2p_jax.testing import check_objective
from p2p_jax.training import parallel
from support.configs import SGD, small_config, small_cyclegan_config
from support.images import random_batch
from support.runs import blank_state

TABLE_1 = {
    "L1": {"loss__lambda_gan": 0.0},
    "GAN": {"loss__conditional": False, "loss__lambda_l1": 0.0},
    "cGAN": {"loss__lambda_l1": 0.0},
    "L1+GAN": {"loss__conditional": False},
    "L1+cGAN": {},
}
STRUCTURES = {  # other parts, other sums over devices, other ways through the networks
    "L1": TABLE_1["L1"],
    "GAN": TABLE_1["GAN"],
    "L1+cGAN": {},
    "synchronised": {"sync_batch_norm": True},
    "bfloat16": {"dtype": "bfloat16"},
    "running statistics": {"inference__norm": "running", "inference__dropout": False},
}


def kernels(state, player):
    """Return the shapes of a player's kernels."""
    return {name: layer["kernel"].shape for name, layer in state["params"][player].items() if "kernel" in layer}


VARIANTS = {  # changes of the published objective -> what they change in its state, and into what
    "cGAN": (TABLE_1["cGAN"], lambda state: set(state["params"]), {"generator", "discriminator"}),
    "L1+GAN": (TABLE_1["L1+GAN"], lambda state: kernels(state, "discriminator")["conv_1"], (4, 4, 3, 4)),
    "encoder-decoder": (
        {"generator__skips": False}, lambda state: kernels(state, "generator")["up_1"], (4, 4, 3, 4)
    ),
    "PixelGAN": (
        {"discriminator__receptive_field": 1},
        lambda state: [shape[:2] for shape in kernels(state, "discriminator").values()],
        [(1, 1)] * 3,
    ),
    "34x34": ({"discriminator__receptive_field": 34}, lambda state: len(kernels(state, "discriminator")), 4),
    "instance norm": (
        {"generator__norm": "instance", "discriminator__norm": "instance"},
        lambda state: len(jax.tree.leaves(state["batch_stats"])),
        0,
    ),
    "gray to colour": (
        {"data__input__channels": 1},
        lambda state: (kernels(state, "generator")["down_1"], kernels(state, "discriminator")["conv_1"]),
        ((4, 4, 1, 4), (4, 4, 4, 4)),
    ),
    "sgd": ({"optimizer": SGD}, lambda state: sum(x.size for x in jax.tree.leaves(state["opt_state"])), 2),
    "pytorch dropout": (
        {"generator__dropout_layout": "pytorch", "generator__num_downs": 4},
        lambda state: len(kernels(state, "generator")),
        8,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_contract(structure):
    config = small_config(**STRUCTURES[structure])
    check_objective(p2p_jax.pix2pix(config), config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_contract_of_variants_as_far_as_shapes_tell(variant):
    changes, look, expected = VARIANTS[variant]
    config = small_config(**changes)
    objective = p2p_jax.pix2pix(config)
    check_objective(objective, config, run=False)
    assert look(blank_state(objective, config)) == expected


def run_update(config, batch=None, seed=0):
    objective = p2p_jax.pix2pix(config)
    batch = batch or random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(seed), batch))
    return state, *parallel.pmap_update(objective.update)(state, batch, jax.random.key(1))[:2]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(("gan", "real", "fake"), [("vanilla", np.log(2), np.log(2)), ("lsgan", 1.0, 0.0)])
def test_first_losses_of_an_undecided_discriminator(gan, real, fake):
    """Zero logits cost log 2 on either side; with squared errors 1 against the label 1 and 0 against the label 0."""
    _, _, metrics = run_update(small_config(discriminator__init_gain=0.0, loss__gan=gan))
    assert float(metrics["disc/real"]) == pytest.approx(real, rel=1e-5)
    assert float(metrics["disc/fake"]) == pytest.approx(fake, abs=1e-5)
    assert float(metrics["gen/gan"]) == pytest.approx(real, rel=1e-3)  # after the discriminator's first step


@pytest.mark.slow
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
        num_steps=35,
        data__num_train=10,
        schedule__kind="linear_decay",
        schedule__constant_for=3,
        schedule__decay_over=4,
    )
    schedule = make_schedule(config)
    rates = [float(schedule(5 * epoch + step)) / 2e-4 for epoch in range(7) for step in (0, 4)]
    assert rates == pytest.approx(np.repeat([1, 1, 1, 0.8, 0.6, 0.4, 0.2], 2), rel=1e-5)
    assert float(schedule(5 * 100)) == 0


@pytest.mark.parametrize(
    ("name", "options", "unit", "ends"),
    [
        ("horse2zebra", {"num_train": 1334}, "epochs", (133_400, 266_800)),  # as published
        ("horse2zebra", {"num_train": 250, "num_steps": 100_000}, "steps", (50_001, 100_000)),
        ("horse2zebra", {"num_train": 1334, "batch_size": 4}, "steps", (133_401, 266_800)),
        ("edges2shoes", {"num_train": 300, "num_steps": 30_000}, "steps", (16_001, 30_000)),  # 8 and 7 of 15 parts
        ("quickstart_cyclegan", {"num_train": 200}, "steps", (1_001, 1_500)),  # says it itself
    ],
)
def test_a_published_schedule_fits_the_run(name, options, unit, ends):
    """On another set, or for a run of another length, constant rate and decay have the same shares."""
    config = p2p_jax.load_config(name)
    config.schedule.kind = "linear_decay"
    config.data.num_train = options.pop("num_train")
    config.update(options)
    config = complete_experiment(config)
    assert (config.schedule.to_dict() | decide_unit(config))["unit"] == unit
    assert falls_between(config) == ends
    rates, full = make_schedule(config), config.optimizer.learning_rate
    first, last = ends
    assert float(rates(first - 1)) == pytest.approx(full)
    assert float(rates(first)) < full * (1 - 1e-6)
    assert float(rates(last - 1)) > 0 == float(rates(last))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


class NoisyJudge(nn.Module):
    """A discriminator with dropout of its own."""

    dtype: object = None
    param_dtype: object = None

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Conv(1, (4, 4), strides=4)(x)


@pytest.mark.slow
@pytest.mark.parametrize("make_config", [small_config, small_cyclegan_config])
def test_a_discriminator_may_have_noise(make_config):
    config = make_config()
    config.discriminator = {"network": f"{__name__}:NoisyJudge"}
    objective = resolve(config.objective)(config)
    batch = random_batch(complete(config))
    state = objective.init(jax.random.key(0), batch)
    update = jax.jit(jax.vmap(objective.update, in_axes=(None, 0, None), axis_name=DEVICE_AXIS))
    one = {name: x[None] for name, x in batch.items()}
    metrics = [update(state, one, jax.random.key(seed))[1] for seed in (1, 1, 2)]
    name = next(name for name in metrics[0] if name.startswith("disc/real"))
    first, again, other = (float(found[name][0]) for found in metrics)
    assert first == again != other
