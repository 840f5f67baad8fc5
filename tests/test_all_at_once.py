"""Everything that is built in beyond the papers, switched on at once: a run that is interrupted goes on to the bit."""

import jax
import numpy as np
import pytest

from p2p_jax import train
from p2p_jax.objectives import blank_batch, make_objective
from p2p_jax.training import parallel
from p2p_jax.training.checkpoint import restore_part
from support.comparers import assert_equal_trees
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch
from support.networks import PIXEL_GAN, TINY
from support.runs import memory_data, rows_of, write_run

EVERYTHING = {
    "generator": TINY,
    "discriminator": {**PIXEL_GAN, "spectral_norm": True},
    "loss__gan": "relativistic",
    "loss__r1_gamma": 0.5,
    "loss__r2_gamma": 0.25,
    "loss__lambda_gp": 0.125,
    "loss__penalty_every": 2,
    "loss__diff_augment": "color,translation,cutout",
    "loss__terms": "support.terms:charbonnier=2",
    "ema__half_life": 100.0,
    "ema__ramp_up": 0.5,
    "discriminator_optimizer": {"learning_rate": 4e-4},
    "gradients__clip": "global_norm",
    "gradients__accumulate": 2,
    "schedule__kind": "cosine",
    "schedule__unit": "steps",
    "schedule__constant_for": 1,
    "schedule__decay_over": 9,
    "distances__features": "support.features:colours",
    "distances__every": 2,
    "num_steps": 6,
    "eval_every": 3,
}
OF_DISTANCES = {"loss__perceptual": "support.terms:edges", "loss__lambda_perceptual": 0.5, "loss__distance": "l2"}
MAKERS = {
    "pix2pix": lambda **changes: small_config(**{**EVERYTHING, **OF_DISTANCES, **changes}),
    "cyclegan": lambda **changes: small_cyclegan_config(**{**EVERYTHING, **OF_DISTANCES, **changes}),
    "cut": lambda **changes: small_cyclegan_config(
        **{
            **EVERYTHING,
            "objective": "p2p_jax:cut",
            "best_metric": "kid",
            "loss": {"num_patches": 8, "head_width": 4, "layers": "first"},
            **changes,
        }
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cyclegan", "cut"])
def test_a_state_that_was_saved_goes_on_to_the_bit(kind, tmp_path):
    """All that the next steps depend on is in the checkpoint: in the middle of an accumulation, before a penalty."""
    config = MAKERS[kind]()
    objective, rng = make_objective(config), jax.random.key(1)
    step = parallel.compile_update(objective.update)
    state = parallel.replicate(objective.init(jax.random.key(0), blank_batch(config)))
    for seed in range(3):
        state, _, _ = step(state, random_batch(config, seed), rng)
    saved = jax.device_get(state)
    write_run(tmp_path, config, saved, 3)
    restored = restore_part(tmp_path, 3, jax.eval_shape(lambda x: x, state))
    ends = []
    for now in (state, parallel.replicate(restored)):
        for seed in range(3, 6):
            now, metrics, _ = step(now, random_batch(config, seed), rng)
        ends.append((now, metrics))
    assert_equal_trees(*ends)
    assert float(metrics["lr_discriminator"]) == pytest.approx(2 * float(metrics["lr"]))
    apart = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ends[0][0]["params"], saved["params"])), strict=True)
    ]
    assert max(apart) > 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_bit(tmp_path):
    """The same of a whole training, with its averages and its distances."""

    def run(workdir, **changes):
        config = MAKERS["pix2pix"](**changes)
        return train(config, tmp_path / workdir, data=memory_data(config))

    whole = run("whole")
    run("parts", num_steps=3)
    assert_equal_trees(run("parts"), whole)
    shown = [[row for row in rows_of(tmp_path / name) if int(row["step"]) > 3] for name in ("parts", "whole")]
    assert shown[0] == shown[1]
    raw, average = whole["params"]["generator"], whole["ema"]["params"]["generator"]
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), raw, average))) > 0
    last = rows_of(tmp_path / "whole")[-1]
    assert {"eval/kid", "eval/raw_kid", "eval/copy_kid"} <= {name for name, value in last.items() if value}
