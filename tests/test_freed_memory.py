"""Freed memory stays with the process where training computes on a CPU, unless the user wants it otherwise."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_jax.process import freed_memory
from p2p_jax.training import loop
from support.configs import small_config

# The share of pages that are made anew for memory that is asked for again. It may take some times until what is freed
# in one piece is large enough.
SHARE = """
import resource, threading
import jax, jax.numpy as jnp
import numpy as np
from p2p_jax.process import freed_memory

freed_memory.keep_freed_memory()

def faults(ask):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(ask())
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def share(ask, size):
    return min(faults(ask) for _ in range(12)) * resource.getpagesize() / size
"""
# Of 80 MiB that a thread asks for, and of 256 MiB for a program of XLA.
FAULTS = (
    SHARE
    + """
def by_a_thread():
    thread = threading.Thread(target=lambda: [np.ones(40 * 2**20, np.uint8), np.ones(40 * 2**20, np.uint8)])
    thread.start()
    thread.join()

large = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda i, y: 2 * y, jnp.full(2**26, x)))
print(share(by_a_thread, 80 * 2**20), share(lambda: large(1.0), 2**28))
"""
)


def printed(code: str, **given: str) -> list[float]:
    """Return the numbers that code prints in a process where `given` is all that is said about memory."""
    environment = {name: value for name, value in os.environ.items() if name not in freed_memory._OWN_CHOICE}
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0", **given}  # whose pages are 2 MiB
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"JAX_PLATFORMS": "cpu"}, True),
        ({"JAX_PLATFORMS": "cpu", "MALLOC_TRIM_THRESHOLD_": "131072"}, False),
        ({"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": ""}, False),
    ],
)
def test_what_is_freed_is_used_again(given, kept):
    shares = printed(FAULTS, **given)
    assert len(shares) == 2
    assert max(shares) < 0.1 if kept else min(shares) > 0.9


# Of what an evaluation, a translation and a step ask for, to the size of their batch, which was just put on the device.
FRESH_BATCHES = (
    SHARE
    + """
from p2p_jax.inference.programs import Kind, Programs
from p2p_jax.training import parallel

side = 2560
batch = {"real_a": np.ones(1 + 3 * side**2, np.float32)[1:].reshape(1, side, side, 3)}  # JAX copies what is not aligned
state, rng = parallel.replicate({"step": np.int32(0)}), jax.random.key(0)

def work(images):
    return images + jax.lax.fori_loop(0, 3, lambda i, y: jnp.cumsum(y, axis=1), images).mean()

def update(state, batch, rng):
    return {"step": state["step"] + 1}, {"total": work(batch["real_a"]).mean()}

def evaluate(state, batch, rng):
    return {"mean": work(batch["real_a"]).mean((1, 2, 3))}, {}

step, evaluation = parallel.compile_update(update), parallel.Evaluation(evaluate, 1)
programs = Programs(lambda weights, images: work(images), state, parallel._mesh())
kind = Kind((side, side, 3), np.dtype(np.float32), False)

def one_step():
    global state
    state, *results = step(state, batch, rng)
    return results

for run in (
    lambda: evaluation(state, batch, rng),
    lambda: programs.run(kind, batch["real_a"], 1),
    one_step,
):
    print(share(run, batch["real_a"].nbytes))
"""
)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_fresh_batches_take_the_memory_of_those_before():
    shares = printed(FRESH_BATCHES, JAX_PLATFORMS="cpu", XLA_FLAGS="")
    assert len(shares) == 3
    assert max(shares) < 0.1


# Prints the MiB in use when 512 small blocks are there, when they are freed, and when they are given back.
GIVEN_BACK = """
import resource
import numpy as np
from p2p_jax.process import freed_memory

def in_use():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

freed_memory.keep_freed_memory()
blocks = [np.ones(2**20, np.uint8) for _ in range(512)]
full = in_use()
del blocks[:-1]
freed = in_use()
freed_memory.give_back()
print(full, freed, in_use())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_is_free_is_given_back():
    full, freed, left = printed(GIVEN_BACK, JAX_PLATFORMS="cpu")
    assert full - freed < 50
    assert freed - left > 450


def test_nothing_is_given_back_where_nothing_is_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: asked.append(name))
    monkeypatch.setattr(freed_memory, "_kept", False)
    freed_memory.give_back()
    assert asked == []


def test_a_training_gives_back_before_and_after_its_first_step(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(loop, "give_back", lambda: told.append("given back"))
    monkeypatch.setattr(loop.Checkpoints, "save", lambda self, step, *args: told.append(step))
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    loop.train(small_config(**linear, num_steps=3, checkpoint_every=1), tmp_path / "run")
    assert told == ["given back", "given back", 1, 2, 3]


def test_nothing_is_done_where_an_accelerator_may_compute(monkeypatch):
    asked = []
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: asked.append(name))
    monkeypatch.setattr(freed_memory.platform, "libc_ver", lambda: ("glibc", "2.39"))
    for name in freed_memory._OWN_CHOICE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(freed_memory, "_has_accelerator", lambda: True)
    freed_memory.keep_freed_memory()
    assert asked == []


@pytest.mark.parametrize(
    ("platforms", "plugins", "found"),
    [("cpu", ["cuda12"], False), (None, ["cuda12"], True), (None, [], False), ("cuda,cpu", ["cuda12"], True)],
)
def test_accelerators_are_seen_without_starting_jax(platforms, plugins, found, monkeypatch):
    monkeypatch.setattr(freed_memory, "jax", type("", (), {"config": type("", (), {"jax_platforms": platforms})}))
    monkeypatch.setattr(freed_memory, "entry_points", lambda group: plugins)
    monkeypatch.setattr(freed_memory.importlib.util, "find_spec", lambda name: None)
    assert freed_memory._has_accelerator() is found
