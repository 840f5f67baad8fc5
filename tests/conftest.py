"""Two simulated devices, strict rank promotion, and a small experiment for all tests."""

import os

# Tests compile much and compute little: optimisation passes that cost more than they gain here are left out.
CHEAP_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
DEVICES = os.environ.get("P2P_JAX_TEST_DEVICES", "2")
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES} {CHEAP_COMPILATION}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import atexit
import shutil
import tempfile
from pathlib import Path

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the tests' own subprocesses inherit the directory
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="p2p_jax_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest
from jax.extend import core

from p2p_jax import train
from p2p_jax.config import complete
from p2p_jax.data import Data

jax.config.update("jax_numpy_rank_promotion", "raise")

SMALL = {
    "num_steps": 4,
    "batch_size": 4,
    "log_every": 1,
    "sample_every": 2,
    "eval_every": 2,
    "checkpoint_every": 2,
    "num_samples": 2,
    "data": {"source": "toy_facades", "direction": "BtoA", "load_size": 18, "crop_size": 16},
    "generator": {"num_downs": 3, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4},
    "loss": {"lambda_l1": 100.0},
}
SMALL_CYCLEGAN = {
    **SMALL,
    "objective": "p2p_jax:cyclegan",
    "best_metric": "cycle",
    "data": {"source": "toy_unpaired", "load_size": 18, "crop_size": 16},
    "generator": {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4, "norm": "instance"},
    "loss": {"lambda_identity": 0.5, "pool_size": 4},
    "inference": {"norm": "batch", "dropout": False},
}


def small_cyclegan_config(**changes):
    """Return the small experiment without pairs; see ``small_config``."""
    return small_config(SMALL_CYCLEGAN, **changes)


def small_config(base=SMALL, **changes):
    """Return the small experiment; ``section__key=value`` changes an option in a section."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (config.setdefault(section, {}) if section else config)[key] = value
    return complete(config)


def random_batch(config, seed=0, size=None):
    """Return a batch of noise in [-1, 1]."""
    rng, side = np.random.RandomState(seed), config.data.crop_size
    shape = (size or config.batch_size, side, side)
    return {
        "real_a": rng.uniform(-1, 1, (*shape, config.data.channels_a)).astype(np.float32),
        "real_b": rng.uniform(-1, 1, (*shape, config.data.channels_b)).astype(np.float32),
    }


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Map [-1, 1] to whole numbers in [0, 255], rounding to the nearest."""
    return np.rint((np.clip(np.asarray(images, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def memory_data(config, num_train=8, num_val=3):
    """Return a data set of noise in memory: a function of the seed and the step, without TensorFlow."""

    def train(first_step):
        step = first_step
        while True:
            yield random_batch(config, seed=config.seed * 100_003 + step)
            step += 1

    def validation(batch_size):
        batch = random_batch(config, seed=7, size=num_val)
        for i in range(0, num_val, batch_size):
            yield {key: value[i : i + batch_size] for key, value in batch.items()}

    return Data(num_train=num_train, num_val=num_val, fingerprint="noise", train=train, validation=validation)


def equations(jaxpr):
    """Yield all equations of a traced program, those of its parts too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)):
            if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
                yield from equations(getattr(value, "jaxpr", value))


@pytest.fixture(autouse=True)
def forget_compiled_programs():
    """Drop compiled programs now and then: each maps memory, of which Linux allows a process 65,530 pieces.

    Past that XLA crashes; the tests of CycleGAN alone come to half of it.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def config():
    return small_config()


@pytest.fixture(scope="session")
def pix2pix_run(tmp_path_factory):
    """A run's directory, labels to toy facades, with checkpoints at steps 2 and 4; read it only."""
    workdir = tmp_path_factory.mktemp("runs") / "pix2pix"
    train(small_config(), workdir)
    return workdir


@pytest.fixture(scope="session")
def cyclegan_run(tmp_path_factory):
    """The same without pairs."""
    workdir = tmp_path_factory.mktemp("runs") / "cyclegan"
    train(small_cyclegan_config(), workdir)
    return workdir
