"""What all tests are given: a ready process, compiled programs that are kept, and small runs that are shared."""

from support import environment  # before JAX

# isort: split

import gc
import itertools
import os
from pathlib import Path

import jax
import pytest

from p2p_jax import train
from p2p_jax.config import stored
from p2p_jax.inference import programs
from p2p_jax.nets import convolution
from support import skipped
from support.configs import small_config, small_cyclegan_config

_finished = itertools.count(1)  # tests


def pytest_collection_finish(session):
    """Leave all that is loaded by now out of Python's searches for garbage, which tracing would start often."""
    gc.collect()
    gc.freeze()


def pytest_configure(config):
    """Look once at the programs that earlier runs have kept, and leave the user's home alone; workers inherit it."""
    skipped.register(config)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        environment.tidy_programs()
        environment.leave_home()


@pytest.fixture(autouse=True)
def forget_compiled_programs():
    """Drop compiled programs now and then: each maps memory, of which Linux allows a process 65,530 pieces.

    Past that XLA crashes; the tests of CycleGAN alone come to half of it.
    """
    yield
    maps = Path("/proc/self/maps")
    if next(_finished) % 5 == 0 and maps.exists() and maps.read_text().count("\n") > 40_000:
        jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def no_word_of_slow_compiling():
    """Leave out the one line that is printed or not as the machine is idle or busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "_LONG", 1e6)
        yield


@pytest.fixture(scope="module", autouse=True)
def trust_of_the_tests(request):
    """Let tests open runs with code of the tests' own, where trust is not what they are about."""
    name, trusted = request.module.__name__, stored.trusted
    own = {f"{name}:{thing}" for thing in vars(request.module)}
    own |= {f"support.networks:{thing}" for thing in ("Pointwise", "Tiny", "linear")}
    with pytest.MonkeyPatch.context() as patch:
        if name not in ("test_trust", "test_pack_hostile"):
            patch.setattr(stored, "trusted", lambda trust: trusted(trust) | own)
        yield


@pytest.fixture
def fast_convolutions(monkeypatch):
    """Let convolutions take the way that they take outside the tests: matrix products on CPUs."""
    monkeypatch.setattr(convolution, "detours", environment.choose_fast_convolutions)


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
