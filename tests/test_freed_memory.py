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

# Prints the share of pages that are made anew for memory that is asked for again: 80 MiB by a thread, 256 MiB by a
# program of XLA. It may take some times until what is freed in one piece is large enough.
FAULTS = """
import resource, threading
import jax, jax.numpy as jnp
import numpy as np
from p2p_jax.process import freed_memory

freed_memory.keep_freed_memory()

def by_a_thread():
    thread = threading.Thread(target=lambda: [np.ones(40 * 2**20, np.uint8), np.ones(40 * 2**20, np.uint8)])
    thread.start()
    thread.join()

def faults(ask):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    ask()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def share(ask, size):
    return min(faults(ask) for _ in range(12)) * resource.getpagesize() / size

large = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda i, y: 2 * y, jnp.full(2**26, x)))
print(share(by_a_thread, 80 * 2**20), share(lambda: large(1.0).block_until_ready(), 2**28))
"""


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
    environment = {name: value for name, value in os.environ.items() if name not in freed_memory._OWN_CHOICE}
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0", **given}  # whose pages are 2 MiB
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shares = [float(share) for share in done.stdout.split()]
    assert len(shares) == 2
    assert max(shares) < 0.1 if kept else min(shares) > 0.9


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
    environment = {name: value for name, value in os.environ.items() if name not in freed_memory._OWN_CHOICE}
    environment |= {"JAX_PLATFORMS": "cpu", "NUMPY_MADVISE_HUGEPAGE": "0"}
    command = [sys.executable, "-c", GIVEN_BACK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    full, freed, left = map(float, done.stdout.split())
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
