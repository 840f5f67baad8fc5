"""Objectives outside the library: the contract, and training and resuming by the library's own loop."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import p2p_jax
from p2p_jax.config import complete, load, resolve
from p2p_jax.config.options import is_unpaired
from p2p_jax.testing import check_objective
from p2p_jax.training import parallel
from support.comparers import assert_equal_trees
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch
from support.runs import blank_state, memory_data

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(params=sorted(p.stem for p in EXAMPLES.glob("*.py")))
def config(request, monkeypatch):
    """An example's own config, made small."""
    monkeypatch.chdir(EXAMPLES.parent)  # where its module is found
    example = load(str(EXAMPLES / f"{request.param}.py"))
    make_small = small_cyclegan_config if is_unpaired(example.data.source) else small_config
    small = make_small(batch_size=2, objective=example.objective, best_metric=example.best_metric)
    with small.unlocked():
        small.discriminator.norm = example.discriminator.norm
    return complete({**small.to_dict(), "loss": example.loss.to_dict()})


@pytest.mark.slow
def test_examples_keep_the_contract(config):
    check_objective(resolve(config.objective)(config), config)


@pytest.mark.slow
def test_examples_take_two_optimizers(config):
    """Of other factories, with states of other structures."""
    second = {"factory": "optax:rmsprop", "learning_rate": 1e-3}
    config = complete({**config.to_dict(), "discriminator_optimizer": second})
    objective = resolve(config.objective)(config)
    check_objective(objective, config, run=False)
    state, batch = blank_state(objective, config), random_batch(config)
    update = parallel.shard_map_update(objective.update)
    assert "lr_discriminator" in jax.eval_shape(update.run, state, batch, jax.random.key(0))[1]
    moments = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state["opt_state"])]
    of_judges = [place for place in moments if place.startswith(("['disc", "['critic"))]
    assert of_judges and not any(".mu" in place for place in of_judges)
    assert any(".mu" in place for place in set(moments) - set(of_judges))


@pytest.mark.slow
def test_examples_are_trained_and_resumed_by_the_loop(config, tmp_path):
    data = memory_data(config)
    whole = p2p_jax.train(config, tmp_path / "run", data=data)
    assert "Finished: 4 steps of examples." in (tmp_path / "run" / "summary.txt").read_text()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")  # as if it had been killed before
    resumed = p2p_jax.train(config, tmp_path / "run", data=data)
    assert int(resumed["step"]) == config.num_steps
    assert_equal_trees(resumed, whole)


def test_quarter_turns():
    turn = resolve("examples.gcgan:turn")
    images = np.random.RandomState(0).uniform(-1, 1, (1, 4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(turn(turn(images, 2), 2), images)
    np.testing.assert_array_equal(turn(images)[0, 0], images[0, :, -1])  # the right side becomes the upper one
    np.testing.assert_array_equal(turn(turn(images), -1), images)
