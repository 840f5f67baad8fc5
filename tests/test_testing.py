"""The contract finds each way to break it; what it says of the library's own objectives is tested beside these."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.objectives import DEVICE_AXIS, make_objective
from p2p_jax.testing import check_objective, one_step
from p2p_jax.training import parallel
from support.configs import SGD, small_config, small_cut_config, small_cyclegan_config
from support.images import random_batch
from support.networks import linear

CONFIG = small_config(optimizer=SGD)
SOUND = linear(CONFIG)


def mean_of(batch):
    return batch["real_a"].mean()


def after_update(change):
    """Return an update whose new state is changed by a function of (state, batch, rng)."""

    def update(state, batch, rng):
        new, metrics = SOUND.update(state, batch, rng)
        return {**new, **change(new, batch, rng)}, metrics

    return {"update": update}


def with_metrics(**more):
    """Return an update that reports more."""

    def update(state, batch, rng):
        new, metrics = SOUND.update(state, batch, rng)
        return new, metrics | {name: value(batch) for name, value in more.items()}

    return {"update": update}


def translated(change):
    def translate(state, batch, rng):
        return change(SOUND.translate(state, batch, rng), batch)

    return {"translate": translate}


def evaluated(change):
    def evaluate(state, batch, rng):
        return change(*SOUND.evaluate(state, batch, rng))

    return {"evaluate": evaluate}


def init_with(**more):
    return {"init": lambda rng, batch: SOUND.init(rng, batch) | {k: v(batch) for k, v in more.items()}}


def shifted(by):
    """Return an init whose statistics are off by a function of the batch."""

    def init(rng, batch):
        state = SOUND.init(rng, batch)
        return {**state, "batch_stats": jax.tree.map(lambda x: x + by(batch), state["batch_stats"])}

    return {"init": init}


BROKEN = {  # what is broken -> the functions that break it, what is said, whether tracing alone tells
    "init looks at the images": (shifted(mean_of), "more than the rng and the shapes", False),
    "init keeps the batch": (init_with(seen=lambda batch: batch["real_a"]), "more than the rng and the shapes", True),
    "init starts late": (init_with(step=lambda batch: jnp.int32(3)), "start at step 0", False),
    "a new entry": (after_update(lambda new, batch, rng: {"new": new["step"]}), "changes the structure", True),
    "another dtype": (after_update(lambda new, *_: {"step": new["step"] * 1.0}), "changes the structure", True),
    "no step": (after_update(lambda new, *_: {"step": new["step"] - 1}), "add 1 to the step", False),
    "a metric per image": (with_metrics(many=lambda batch: batch["real_a"][:, 0, 0, 0]), "must be scalars", True),
    "a metric that is not finite": (with_metrics(bad=lambda batch: mean_of(batch) / 0), "not finite", False),
    "nothing learnt": (
        {"update": lambda state, batch, rng: ({**state, "step": state["step"] + 1}, {"a": jnp.float32(0)})},
        "changes nothing",
        False,
    ),
    "not averaged": (
        after_update(
            lambda new, batch, _: {"batch_stats": jax.tree.map(lambda x: x + mean_of(batch), new["batch_stats"])}
        ),
        "not averaged",
        False,
    ),
    "own noise on each device": (
        after_update(
            lambda new, _, rng: {
                "batch_stats": jax.tree.map(lambda x: x + jax.random.normal(rng, x.shape), new["batch_stats"])
            }
        ),
        "not averaged",
        False,
    ),
    "no image": (translated(lambda fakes, _: {}), "translate returned no images", True),
    "one image of many": (translated(lambda fakes, _: {"fake_b": fakes["fake_b"][:1]}), "another batch size", True),
    "out of range": (translated(lambda fakes, _: {"fake_b": 3 * fakes["fake_b"]}), r"leaves \[-1, 1\]", False),
    "neighbours": (
        translated(lambda fakes, batch: {"fake_b": fakes["fake_b"] * jnp.abs(mean_of(batch)) * 9}),
        "depends on the other images",
        False,
    ),
    "one number for all": (evaluated(lambda m, c: (m | {"l1": m["l1"].mean()}, c)), "one l1 per image", True),
    "a number that is not finite": (evaluated(lambda m, c: (m | {"l1": m["l1"] / 0}, c)), "l1 is not finite", False),
    "no column": (evaluated(lambda m, c: (m, {})), "evaluate returned no images", True),
    "a short column": (evaluated(lambda m, c: (m, {"input": c["input"][:1]})), "column of the grid", True),
}


def test_a_sound_objective_passes():
    check_objective(SOUND, CONFIG)
    averaged = after_update(
        lambda new, batch, _: {
            "batch_stats": jax.tree.map(lambda x: x + jax.lax.pmean(mean_of(batch), DEVICE_AXIS), new["batch_stats"])
        }
    )
    check_objective(SOUND._replace(**averaged), CONFIG)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(name):
    functions, message, traced = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        check_objective(SOUND._replace(**functions), CONFIG, run=not traced)


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config, small_cut_config])
def test_one_step_is_that_of_the_training_on_one_device(make):
    config = make(optimizer=SGD)
    objective, batch, rng = make_objective(config), random_batch(config), jax.random.key(5)
    state = {**jax.device_get(objective.init(rng, batch)), "step": np.int32(7)}
    new, metrics = one_step(objective, state, batch, rng)
    expected, its_metrics, _ = parallel.shard_map_update(objective.update, jax.local_devices()[:1])(state, batch, rng)
    assert int(new["step"]) == 8 and int(state["step"]) == 7
    assert metrics == its_metrics and metrics["gen/total"] > 0
    jax.tree.map(np.testing.assert_array_equal, new, expected)


@pytest.mark.slow
def test_a_step_that_is_not_mapped_over_devices_names_the_way():
    config = small_config()
    objective, batch, rng = make_objective(config), random_batch(config), jax.random.key(0)
    with pytest.raises(InputError, match=r"use p2p_jax.testing.one_step\(objective, state, batch, rng\)$"):
        objective.update(objective.init(rng, batch), batch, rng)
