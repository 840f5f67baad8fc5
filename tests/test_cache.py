"""What is kept between runs: where, how much of it, and compiled programs that are found again."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from p2p_jax.process import cache_folder
from p2p_jax.process.compiled_programs import use_compilation_cache


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"P2P_JAX_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/p2p_jax"),
        ({"HOME": "/somewhere"}, "/somewhere/.cache/p2p_jax"),
    ],
)
def test_directory(monkeypatch, variables, expected):
    for name in ("P2P_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder.directory() == Path(expected)


def test_processor_is_told_by_what_it_can_do(monkeypatch):
    def named(cpuinfo):
        monkeypatch.setattr(Path, "read_text", lambda path: cpuinfo)
        return cache_folder.processor()

    one = named("processor: 0\nflags\t\t: sse avx\ncpu MHz: 900\n\nprocessor: 1\nflags: sse avx\n")
    assert named("processor: 3\ncpu MHz: 1200\nflags\t\t: sse avx\n") == one
    assert named("processor: 0\nflags\t\t: sse avx avx512f\n") != one
    assert set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_the_oldest_files_go_first(tmp_path):
    (tmp_path / "inner").mkdir()
    for age, name in enumerate(["new", "inner/middle", "old", "inner/oldest"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "inner/oldest", (2e9, 0))  # old, but read lately
    cache_folder.remove_oldest(tmp_path, 400)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4
    cache_folder.remove_oldest(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["new", "oldest"]


_COMPILE = """
import jax
from p2p_jax.process.compiled_programs import use_compilation_cache
use_compilation_cache()
use_compilation_cache()
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
value = jax.jit(lambda x: x * 3 + 1)(2)
print(int(value), events.count("cache_hits"), events.count("cache_misses"))
"""


def compile_elsewhere(folder):
    """Compile in another process; returns the result, the programs found in the cache, and those put there."""
    named = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    named |= {"P2P_JAX_CACHE": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    run = subprocess.run([sys.executable, "-c", _COMPILE], env=named, capture_output=True, text=True, check=True)
    return [int(number) for number in run.stdout.split()], run.stderr


def test_programs_are_found_again(tmp_path):
    (value, hits, kept), _ = compile_elsewhere(tmp_path)
    assert (value, hits) == (7, 0) and kept >= 1
    folder = tmp_path / "compiled" / cache_folder.processor()
    assert len(list(folder.iterdir())) >= kept
    assert compile_elsewhere(tmp_path)[0] == [7, kept, 0]
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])  # as a process leaves it that was killed
    (value, hits, _), warning = compile_elsewhere(tmp_path)
    assert (value, hits) == (7, 0) and "Error reading persistent compilation cache" in warning


@pytest.fixture
def no_folder():
    """Take the folder that the tests name away from JAX."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_folder_that_the_user_names_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("P2P_JAX_CACHE", str(tmp_path / "cache"))
    named = jax.config.jax_compilation_cache_dir
    use_compilation_cache()
    assert named and jax.config.jax_compilation_cache_dir == named
    assert not (tmp_path / "cache").exists()


def test_caching_that_the_user_switched_off_stays_off(no_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("P2P_JAX_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        use_compilation_cache()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_costs_a_line(no_folder, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("P2P_JAX_CACHE", str(tmp_path / "file"))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
    printed = capsys.readouterr().err
    assert printed.startswith("note: compiled programs cannot be kept in ") and printed.count("\n") == 1
    assert "P2P_JAX_CACHE" in printed


def test_other_users_cannot_put_programs_there(no_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("P2P_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    use_compilation_cache()
    assert Path(jax.config.jax_compilation_cache_dir).parent == tmp_path / "compiled"
    assert (tmp_path / "compiled").stat().st_mode & 0o777 == 0o700
