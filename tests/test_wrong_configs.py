"""Shipped configs with one senseless change: each is refused by a sentence that names the option, or makes sense.

What makes sense is said here again, apart from the table of options. Everything is traced, nothing compiled.
"""

import functools
import json
import math
import random

import jax
import jax.numpy as jnp
import pytest

from make_config_fixtures import NAMES
from p2p_jax.config import complete_experiment, load, resolve
from p2p_jax.config.options import image_shapes
from p2p_jax.errors import InputError
from p2p_jax.objectives.metrics import find_metrics

VALUES = [None, "", "nothing", "no", 0, 1, 3, -1, 7_000_000, 10**12, 0.0, 0.5, 2.5, -1e-3, 1e30]
VALUES += [math.nan, math.inf, -math.inf, True, False, [1], {"a": 1}, (2, 3)]
BELOW_1 = {"b1", "b2", "dropout_rate", "scale_jitter", "photometric", "val_fraction"}
NOT_0 = {"num_steps", "batch_size", "log_every", "sample_every", "eval_every", "checkpoint_every", "keep_checkpoints"}
NOT_0 |= {"num_samples", "load_size", "crop_size", "max_pixels", "channels", "decay_over", "base_width", "num_downs"}
FREE_TEXT = {"dir", "dir_a", "dir_b", "suffix_a", "suffix_b", "train_split", "val_split", "source", "init_from"}
OF_THE_TASK = {"sigma", "low", "high", "size", "value", "factor"}  # checked where the task makes an image


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


@functools.cache
def shipped(name):
    return complete_experiment(load(name)).to_dict()


def mutated(seed):
    """Return a shipped config with one option changed or misspelt, the option's path, and its old and new values."""
    draw = random.Random(seed)
    config = json.loads(json.dumps(shipped(draw.choice(NAMES))))
    path, old = draw.choice([leaf for leaf in leaves(config) if leaf[0][-1] != "extra"])
    section = config
    for key in path[:-1]:
        section = section[key]
    if draw.random() < 0.1:
        section[path[-1] + "s"] = section.pop(path[-1])
        return config, path, old, "misspelt"
    section[path[-1]] = draw.choice([value for value in VALUES if (type(value), value) != (type(old), old)])
    return config, path, old, section[path[-1]]


def makes_sense(path, old, new):
    """Tell whether a value might be meant."""
    key = path[-1]
    if old is None or key in OF_THE_TASK or (old == {} and new is None):  # no section is an empty one
        return True
    if type(old) is float:
        fits = type(new) in (int, float) and math.isfinite(new) and new >= 0
        return fits and (new < 1 or key not in BELOW_1)
    if type(old) is int:
        return type(new) is int and new >= 0 and (new > 0 or key not in NOT_0)
    if type(old) is str:
        return type(new) is str and (key in FREE_TEXT or (new == "" and key[:5] in ("range", "palet")))
    return type(new) is type(old)


@functools.cache
def names_of_metrics(text):
    """Trace a config's objective; return the names of what it evaluates."""
    config = complete_experiment(json.loads(text))
    objective = resolve(config.objective)(config)
    batch = {key: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for key, shape in image_shapes(config.data).items()}
    state = jax.eval_shape(objective.init, jax.random.key(0), batch)
    return set(jax.eval_shape(objective.evaluate, state, batch, jax.random.key(0))[0])


def as_traced(config):
    """Return what of a config changes its networks and losses, so that all that traces alike is traced once."""
    data = ("crop_size", "crop_width", "input", "output", "source")
    kept = ("objective", "dtype", "param_dtype", "sync_batch_norm", "generator", "discriminator", "loss", "optimizer")
    traced = {key: config[key] for key in kept} | {"data": {key: config["data"][key] for key in data}}
    traced["data"] |= {"preprocess": "crop", "num_train": 1}
    return json.dumps(traced, sort_keys=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(11))
def test_330_senseless_changes(part):
    refused = 0
    for seed in range(30 * part, 30 * part + 30):
        config, path, old, new = mutated(seed)
        what = f"seed {seed}: {'.'.join(path)} from {old!r} to {new!r}"
        try:
            complete = complete_experiment(config)
            find_metrics(complete.metrics)
            if config["dtype"] == "float64" or config["data"]["crop_size"] > 2048 or new in (7_000_000, 10**12):
                assert makes_sense(path, old, new), what
                continue  # of a size that no network is made for, to be traced
            if complete.best_metric not in names_of_metrics(as_traced(config)):
                assert path == ("best_metric",), what  # train() refuses it by name, see test_config.py
                refused += 1
                continue
        except InputError as error:
            named = path[-1] in str(error)
            of_size = path[-1].startswith("crop") and "change the image size" in str(error)  # a network cannot say more
            assert named or of_size, f"{what}: {error}"
            refused += 1
        else:
            assert new != "misspelt" and makes_sense(path, old, new), what
    assert refused > 10
