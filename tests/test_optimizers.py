"""Optimizers: one for each side, clipping, accumulation and cosine, against closed forms and PyTorch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import make_fixtures
from p2p_jax import InputError, train
from p2p_jax.config import complete, complete_experiment, load_with_overrides, resolve, stored
from p2p_jax.objectives import make_learning_rates, make_objective, make_optimizer, make_schedule
from p2p_jax.objectives.optim import decide_unit, falls_between
from p2p_jax.training import own_code, parallel, start
from support.comparers import assert_close_trees, assert_equal_trees
from support.configs import SGD, small_config, small_cyclegan_config
from support.images import random_batch
from support.networks import PIXEL_GAN, TINY
from support.runs import memory_data, rows_of

SMALLEST = {"generator": TINY, "discriminator": PIXEL_GAN}
SECOND = "discriminator_optimizer"


def in_float64():
    """Return a context in which JAX computes in float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64(True)


def trained(config, batches, devices=1, seeds=None):
    """Return the state before and those after a step on each batch, on the host, and the metrics of each."""
    objective = resolve(config.objective)(config)
    update = parallel.shard_map_update(objective.update, jax.devices()[:devices])
    states, told = [jax.device_get(jax.jit(objective.init)(jax.random.key(0), batches[0]))], []
    for i, batch in enumerate(batches):
        state, metrics, _ = update(states[-1], batch, jax.random.key(seeds[i] if seeds else i))
        states.append(jax.device_get(state))
        told.append({name: float(value) for name, value in metrics.items()})
    return states, told


def moved(states, player):
    return jax.tree.map(lambda x, y: y - x, states[0]["params"][player], states[-1]["params"][player])


def norm(tree):
    return np.sqrt(sum(np.square(np.float64(x)).sum() for x in jax.tree.leaves(tree)))


# One optimizer for each side


def test_the_second_section_says_what_differs():
    given = small_config(optimizer__b1=0.25, discriminator_optimizer={"learning_rate": 4e-4})
    config = complete_experiment(given)
    assert config[SECOND] == complete_experiment({**config.to_dict()})[SECOND]
    assert config[SECOND].to_dict() == config.optimizer.to_dict() | {"learning_rate": 4e-4}
    assert complete_experiment(small_config())[SECOND].to_dict() == {}
    other = {"factory": "optax:rmsprop", "learning_rate": 1e-3, "decay": 0.5}
    found = complete_experiment(small_config(discriminator_optimizer=other))[SECOND]
    assert found.decay == 0.5 and "b1" not in found


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["learning_rate=4e-4"], {"factory": "optax:adam", "learning_rate": 4e-4, "b1": 0.0}),
        (["b2=0.9"], {"factory": "optax:adam", "learning_rate": 3e-4, "b1": 0.0, "b2": 0.9}),
        (["factory=optax:sgd", "learning_rate=0.1"], {"factory": "optax:sgd", "learning_rate": 0.1, "momentum": None}),
    ],
)
def test_flags_of_either_section_in_any_order(flags, expected):
    common = ["--config.optimizer.b1=0.", "--config.optimizer.learning_rate=3e-4"]
    of_second = [f"--config.{SECOND}.{flag}" for flag in flags]
    for overrides in (common + of_second, of_second + common):
        found = load_with_overrides("quickstart", overrides)
        assert found[SECOND].to_dict().items() >= expected.items()
        assert (found.optimizer.b1, found.optimizer.learning_rate) == (0.0, 3e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({SECOND: {"lerning_rate": 1.0}}, f"unknown option config.{SECOND}.lerning_rate; did you mean .*learning_rate"),
        ({SECOND: {"b1": 2.0}}, rf"config.{SECOND}.b1 is 2.0; it must be a number in \[0, 1\)"),
        ({SECOND: {"factory": "optax:sgd"}}, f"config.{SECOND} has no learning_rate: set config.{SECOND}.learning"),
        ({SECOND: {"factory": "optax:addam"}}, f"config.{SECOND}.factory: .*did you mean 'adam'"),
        ({SECOND: {"factory": "optax:sgd", "learning_rate": 0.1, "b1": 0.4}}, "optax:sgd has no such"),
        ({SECOND: {"factory": "optax:global_norm", "learning_rate": 0.1}}, f"config.{SECOND}"),
        ({"optimizer": {"factory": "optax:sgd"}}, "config.optimizer has no learning_rate"),
        ({"gradients__clip": "global_nrm"}, "gradients.clip is 'global_nrm'; did you mean global_norm"),
        ({"gradients__clip": "l2"}, "clip is 'l2'; choose from global_norm, value, adaptive, or name a function"),
        ({"gradients__clip": "optax:nothing"}, "config.gradients.clip: .*module optax has no 'nothing'"),
        ({"gradients__clip": "optax:identity"}, "gradients.clip=optax:identity does not take a number"),
        ({"gradients__clip": "builtins:abs"}, "gradients.clip=builtins:abs returns float, not an optax.Gradient"),
        ({"gradients__clip_at": 2.0}, "clip_at=2 has no effect: set config.gradients.clip"),
        ({"gradients__clip_at": 0.0}, "clip_at is 0.0; it must be a number above 0"),
        ({"gradients__accumulate": 0}, "accumulate is 0; it must be a whole number of at least 1"),
        (
            {"objective": "support.networks:linear", SECOND: {"b1": 0.1}},
            f"config.{SECOND} is set, but config.objective=support.networks:linear ignores it",
        ),
        ({"schedule__kind": "cosin"}, "choose constant, linear_decay or cosine"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(changes, told):
    with pytest.raises(InputError, match=told):
        complete_experiment(small_config(**changes))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "player"), [(small_config, "discriminator"), (small_cyclegan_config, "disc_a")])
def test_each_side_learns_at_its_own_rate(make, player):
    config = make(optimizer=SGD, **SMALLEST)
    quick = make(optimizer=SGD, discriminator_optimizer={"learning_rate": 0.03}, **SMALLEST)
    batches = [random_batch(config)]
    (states, told), (faster, told_too) = (trained(x, batches) for x in (config, quick))
    expected = jax.tree.map(lambda x: 3 * x, moved(states, player))
    assert norm(expected) > 1e-4
    assert_close_trees(moved(faster, player), expected, atol=1e-6)
    for name in states[0]["params"]:
        if name.startswith("gen_"):  # of pix2pix it meets the discriminator after its step
            assert_equal_trees(moved(faster, name), moved(states, name))
    assert told_too[0]["lr"] == told[0]["lr"] == np.float32(0.01)
    assert told_too[0]["lr_discriminator"] == np.float32(0.03) and "lr_discriminator" not in told[0]


def test_both_rates_have_one_shape():
    steps = {"schedule__unit": "steps", "schedule__constant_for": 10, "schedule__decay_over": 10}
    config = small_config(schedule__kind="linear_decay", discriminator_optimizer={"learning_rate": 8e-4}, **steps)
    rates = make_learning_rates(config)
    assert {name: float(x) for name, x in rates(0).items()} == pytest.approx({"lr": 2e-4, "lr_discriminator": 8e-4})
    assert {name: float(x) for name, x in rates(15).items()} == pytest.approx({"lr": 1e-4, "lr_discriminator": 4e-4})


# Clipping


def own_clip(at):
    """Turn gradients round, `at` times as long."""
    return optax.scale(-at)


CLIPS = {  # of the gradient (3, -4) of the weights (1, 1) and 12 of 0.1
    "": ([3, -4], 12),
    "global_norm": ([3 * 2 / 13, -4 * 2 / 13], 12 * 2 / 13),
    "value": ([2, -2], 2),
    "test_optimizers:own_clip": ([-6, 8], -24),
    # Each output of a kernel to `at` times the norm of its weights, here 2 sqrt(2) and 0.2.
    "adaptive": ([3 * 2 * np.sqrt(2) / 5, -4 * 2 * np.sqrt(2) / 5], 0.2),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_gradients_are_clipped_by_name(clip):
    config = small_config(optimizer=SGD, gradients__clip=clip, gradients__clip_at=2.0 if clip else 1.0)
    for section in ("optimizer", SECOND):
        tx, _ = make_optimizer(config, section)
        params = {"kernel": jnp.array([[1.0], [1.0]]), "other": jnp.array([[0.1]])}
        grads = {"kernel": jnp.array([[3.0], [-4.0]]), "other": jnp.array([[12.0]])}
        updates, _ = tx.update(grads, tx.init(params), params)
        kernel, other = CLIPS[clip]
        np.testing.assert_allclose(updates["kernel"][:, 0], -0.01 * np.array(kernel), rtol=1e-5)
        np.testing.assert_allclose(updates["other"], [[-0.01 * other]], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config])
def test_what_is_clipped_is_the_average_over_devices(make):
    clipped = {"gradients__clip": "global_norm", "gradients__clip_at": 0.01}
    config = make(batch_size=2, optimizer=SGD | {"learning_rate": 1.0}, **clipped, **SMALLEST)
    if "pool_size" in config.loss:
        with config.unlocked():
            config.loss.pool_size = 0
    batches = [random_batch(config)]
    one, two = (trained(config, batches, devices)[0] for devices in (1, 2))
    sides = {name[:3] for name in one[0]["params"]}
    for side in sides:
        steps = [{name: moved(x, name) for name in x[0]["params"] if name.startswith(side)} for x in (one, two)]
        assert norm(steps[0]) == pytest.approx(0.01, rel=1e-3)  # of CycleGAN's both networks of a side together
        assert_close_trees(steps[1], steps[0], atol=2e-6)


def test_code_that_clips_is_told_stored_and_not_trusted(tmp_path):
    config = small_config(
        gradients__clip="test_optimizers:own_clip",
        discriminator_optimizer={"factory": "test_optimizers:own_clip", "learning_rate": 0.1},
    )
    named = {f"{SECOND}.factory": ["test_optimizers:own_clip"], "gradients.clip": ["test_optimizers:own_clip"]}
    assert stored.outside(config) == named
    with pytest.raises(
        InputError, match=r'config.gradients.clip names my_lab:clip: code outside.*trust=\["my_lab:clip"\]'
    ):
        stored.require_trust({"gradients": {"clip": "my_lab:clip"}}, tmp_path / "config.json")
    with pytest.raises(InputError, match=f"config.{SECOND}.factory names my_lab:adam"):
        stored.require_trust({SECOND: {"factory": "my_lab:adam"}}, tmp_path / "config.json")
    for section in ("gradients", "ema", SECOND):
        with pytest.raises(InputError, match=f"config.{section} is 3; it must be a section"):
            stored.require_trust({section: 3}, tmp_path / "config.json")
    assert stored.outside(small_config(gradients__clip="adaptive", discriminator_optimizer=SGD)) == {}
    own_code.store(tmp_path, config)
    record = json.loads((tmp_path / "code.json").read_text())
    assert record["references"] == named and "test_optimizers" in record["modules"]


# Accumulation


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["sgd", "adam"])
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config])
def test_several_batches_equal_one_of_all_their_images(make, factory):
    """All terms of CycleGAN, whose players stand still together; of pix2pix those without a discriminator."""
    rate = {"sgd": SGD | {"momentum": 0.9}, "adam": {"learning_rate": 1e-3}}[factory]
    dtypes = {"dtype": "float64", "param_dtype": "float64"}
    loss = {"loss__lambda_gan": 0.0} if make is small_config else {"loss__pool_size": 0}
    common = dict(optimizer=rate, gradients__clip="global_norm", gradients__clip_at=0.5, **loss, **dtypes, **SMALLEST)
    with in_float64():
        parts = make(batch_size=2, gradients__accumulate=3, **common)
        whole = make(batch_size=6, **common)
        batches = [random_batch(parts, seed=i) for i in range(6)]
        together = [
            {name: np.concatenate([batch[name] for batch in batches[i : i + 3]]) for name in batches[0]} for i in (0, 3)
        ]
        small, large = trained(parts, batches)[0], trained(whole, together)[0]
    for i in (1, 2, 4, 5):
        assert_equal_trees(small[i]["params"], small[i - i % 3]["params"])
    for i in (1, 2):
        change = norm(jax.tree.map(np.subtract, large[i]["params"], large[i - 1]["params"]))
        assert change > 1e-3
        assert_close_trees(small[3 * i]["params"], large[i]["params"], atol=1e-12 if factory == "sgd" else 1e-9)
    assert int(small[-1]["step"]) == 6  # steps are batches


def test_of_pix2pix_the_last_gradient_is_through_the_new_discriminator():
    """As the docstring of ``make_optimizer`` says: with one batch again and again, only the last loss is another."""
    config = small_config(optimizer=SGD | {"learning_rate": 0.5}, gradients__accumulate=3, **SMALLEST)
    states, told = trained(config, [random_batch(config)] * 3, seeds=[0, 0, 0])
    losses = [metrics["gen/gan"] for metrics in told]
    assert losses[0] == losses[1] and abs(losses[2] - losses[1]) > 1e-4
    assert told[0]["disc/fake"] == told[2]["disc/fake"]
    assert_equal_trees(states[2]["params"], states[0]["params"])
    assert all(norm(moved(states, player)) > 1e-4 for player in states[0]["params"])


def test_schedules_count_batches():
    """The rate of a step of the optimizer is that of the batch at which it is made."""
    steps = {"schedule__unit": "steps", "schedule__constant_for": 2, "schedule__decay_over": 10}
    config = small_config(optimizer=SGD, gradients__accumulate=4, schedule__kind="linear_decay", **steps)
    tx, schedule = make_optimizer(config)
    params = jnp.array([0.0])
    state = tx.init(params)
    for batch in range(12):
        updates, state = tx.update(jnp.array([1.0]), state, params)
        expected = -0.01 * (1 - max(0, batch - 2) / 10) if batch % 4 == 3 else 0.0
        np.testing.assert_allclose(updates, [expected], rtol=1e-6)
        assert float(schedule(batch)) == pytest.approx(0.01 * (1 - max(0, batch - 2) / 10), abs=1e-9)


def test_bfloat16_gradients_are_summed_in_float32():
    """A small gradient after a large one is not lost in the mean."""
    if jax.tree.leaves(optax.MultiSteps(optax.sgd(1.0), 2).init(jnp.zeros(1, jnp.bfloat16)).acc_grads)[0].dtype != (
        jnp.float32
    ):
        pytest.skip("this Optax keeps them in the parameters' dtype")
    config = small_config(optimizer=SGD | {"learning_rate": 1.0}, gradients__accumulate=3, param_dtype="bfloat16")
    tx, _ = make_optimizer(config)
    params, total = jnp.zeros(1, jnp.bfloat16), jnp.zeros(1, jnp.bfloat16)
    state = tx.init(params)
    for grad in (512.0, 1.0, -512.0):
        updates, state = tx.update(jnp.array([grad], jnp.bfloat16), state, params)
        total += updates
    assert float(total[0]) == pytest.approx(-1 / 3, rel=0.01)


# Cosine


@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_cosine_in_closed_form(unit):
    config = small_config(
        batch_size=4,
        data__num_train=20,
        schedule__kind="cosine",
        schedule__unit=unit,
        schedule__constant_for=3,
        schedule__decay_over=4,
    )
    schedule, length = make_schedule(config), {"steps": 1, "epochs": 5}[unit]
    shares = [1, 1, 1, 1, (1 + np.sqrt(0.5)) / 2, 0.5, (1 - np.sqrt(0.5)) / 2, 0, 0]
    for i, share in enumerate(shares):
        for step in {length * i, length * (i + 1) - 1}:
            assert float(schedule(step)) == pytest.approx(2e-4 * share, rel=1e-5)
    assert float(schedule(length * 7)) == 0.0
    assert falls_between(config) == {"steps": (4, 7), "epochs": (20, 35)}[unit]
    traced = jax.jit(schedule)(jnp.int32(length * 5))
    assert float(traced) == pytest.approx(1e-4, rel=1e-5)


@pytest.mark.parametrize(("constant", "decay"), [(0, 7), (3, 9), (100, 100)])
@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_cosine_equals_pytorch(constant, decay, unit):
    torch = pytest.importorskip("torch")
    weights = torch.optim.SGD([torch.zeros(1, dtype=torch.float64)], lr=2e-4)
    schedulers = torch.optim.lr_scheduler
    falling = schedulers.CosineAnnealingLR(weights, T_max=decay)
    told = schedulers.SequentialLR(
        weights, [schedulers.ConstantLR(weights, 1.0), falling], milestones=[constant]
    ) if constant else falling  # fmt: skip
    options = {"schedule__unit": unit, "schedule__constant_for": constant, "schedule__decay_over": decay}
    with in_float64():
        schedule = make_schedule(small_config(schedule__kind="cosine", data__num_train=4, **options))
        for i in range(constant + decay + 1):
            assert float(schedule(i)) == pytest.approx(weights.param_groups[0]["lr"], rel=1e-9, abs=1e-18)
            weights.step()
            told.step()


def test_cosine_fits_the_run():
    """With unit=auto, as linear_decay does: 100 epochs and 100 are the halves of any other run."""
    config = small_config(schedule__kind="cosine", data__num_train=300, num_steps=1_000)
    assert decide_unit(config) == {"unit": "steps", "constant_for": 500, "decay_over": 500}
    schedule = make_schedule(config)
    assert [float(schedule(x)) for x in (0, 500, 750, 1_000)] == pytest.approx([2e-4, 2e-4, 1e-4, 0.0])
    assert falls_between(config) == (501, 1_000)
    published = small_config(schedule__kind="cosine", data__num_train=400, batch_size=4, num_steps=20_000)
    assert decide_unit(published) == {"unit": "epochs"}
    assert falls_between(published) == (10_100, 20_000)
    assert float(make_schedule(published)(10_099)) == pytest.approx(2e-4)
    assert 0 < float(make_schedule(published)(10_100)) < 2e-4 * (1 - 1e-5)


@pytest.mark.slow
def test_a_run_with_cosine_says_when_it_falls_and_refuses_to_idle(tmp_path, capsys):
    linear = {"objective": "support.networks:linear", "optimizer": SGD, "schedule__kind": "cosine"}
    config = small_config(num_steps=6, **linear)
    train(config, tmp_path / "run", data=memory_data(config))
    told = "learning rate: 0.01, falling from step 4, 0 from step 6; 6 steps in all"
    assert told in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "facts.json").read_text())["schedule"] == {
        "unit": "steps", "constant_for": 3, "decay_over": 3
    }  # fmt: skip
    rates = [float(row["train/lr"]) for row in rows_of(tmp_path / "run")]
    assert rates == pytest.approx([0.01] * 4 + [0.0075, 0.0025])
    second = config.to_dict() | {"discriminator_optimizer": {"learning_rate": 0.04}}
    start._tell_learning_rate(complete(second | {"data": second["data"] | {"num_train": 8}}), None)
    assert "learning rate: 0.01 (discriminators 0.04), falling from step 4," in capsys.readouterr().out
    idle = small_config(num_steps=6, schedule__unit="steps", schedule__constant_for=1, schedule__decay_over=2, **linear)
    with pytest.raises(InputError, match="the learning rate is 0 from step 3 on, so 3 of the 6 steps"):
        train(idle, tmp_path / "idle", data=memory_data(idle))


# All of it


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config])
def test_resumed_to_the_bit_between_two_steps_of_an_optimizer(make, tmp_path):
    config = make(
        num_steps=7,
        schedule__kind="cosine",
        schedule__unit="steps",
        schedule__constant_for=1,
        schedule__decay_over=8,
        discriminator_optimizer={"learning_rate": 1e-3, "b1": 0.0},
        gradients={"clip": "adaptive", "clip_at": 0.01, "accumulate": 3},
        ema={"half_life": 12.0, "ramp_up": 0.5},
        **SMALLEST,
    )
    data = memory_data(config)
    whole = train(config, tmp_path / "whole", data=data)
    for steps in (1, 4, 7):  # inside of three batches
        found = train({**config.to_dict(), "num_steps": steps}, tmp_path / "parts", data=data)
    assert_equal_trees(found, whole)
    (row, *_) = rows_of(tmp_path / "whole")
    assert (float(row["train/lr"]), float(row["train/lr_discriminator"])) == pytest.approx((2e-4, 1e-3))


class _Clipped:
    """An optimizer of PyTorch that first shortens the gradient of all its weights together."""

    def __init__(self, torch, weights, rate, longest):
        self.torch, self.longest, self.lengths = torch, longest, []
        self.optimizer = torch.optim.SGD(weights, lr=rate)

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self):
        weights = self.optimizer.param_groups[0]["params"]
        length = self.torch.sqrt(sum(x.grad.square().sum() for x in weights))
        self.lengths.append(float(length))
        if length > self.longest:
            for x in weights:
                x.grad *= self.longest / length
        self.optimizer.step()


@pytest.mark.slow
def test_two_rates_and_clipping_follow_pytorch():
    torch = pytest.importorskip("torch")
    torch_twin = pytest.importorskip("torch_twin")
    rates, longest, num_steps = (0.01, 0.04), 2.0, 8
    twins = []
    for name, variables in make_fixtures.training_weights("pix2pix").items():
        section, channels = make_fixtures.PLAYERS["pix2pix"][name]
        network, kwargs = make_fixtures._section("pix2pix", section)
        twins.append(getattr(torch_twin, network)(channels, **kwargs).double())
        torch_twin.load_variables(twins[-1], variables)
    optimizers = [
        _Clipped(torch, list(twin.parameters()), rate, longest) for twin, rate in zip(twins, rates, strict=True)
    ]
    images = make_fixtures.training_images("pix2pix")
    expected = []
    for i in range(num_steps):
        real_a, real_b = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in make_fixtures.batch_of_step(images, i))
        expected.append({k: float(v) for k, v in torch_twin.pix2pix_step(*twins, *optimizers, real_a, real_b).items()})
    lengths = np.concatenate([optimizer.lengths for optimizer in optimizers])
    assert (lengths > longest).any() and (lengths < longest).any()

    config = complete(
        {
            **make_fixtures.TRAINING["pix2pix"],
            "dtype": "float64",
            "param_dtype": "float64",
            "optimizer": SGD | {"learning_rate": rates[0]},
            "discriminator_optimizer": {"learning_rate": rates[1]},
            "gradients": {"clip": "global_norm", "clip_at": longest},
        }
    )
    with in_float64():
        objective = make_objective(config)
        batches = [
            dict(zip(("real_a", "real_b"), make_fixtures.batch_of_step(images, i), strict=True))
            for i in range(num_steps)
        ]
        shapes = jax.eval_shape(objective.init, jax.random.key(0), batches[0])
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        for player, variables in make_fixtures.training_weights("pix2pix").items():
            for collection, tree in variables.items():
                state[collection][player] = jax.tree.map(lambda x: jnp.asarray(x, "float64"), tree)
        update = parallel.shard_map_update(objective.update, jax.devices()[:1])
        for i in range(num_steps):
            state, metrics, _ = update(state, batches[i], jax.random.key(i))
            for name, value in expected[i].items():
                np.testing.assert_allclose(float(metrics[name]), value, rtol=1e-9, err_msg=f"{name}, step {i}")
