"""What is kept between runs: where, how much of it, and compiled programs that are found again."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.slow
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


# Who else may write there.


@pytest.fixture
def private(tmp_path):
    """A folder of this user's alone, in which others may be let in."""
    (tmp_path / "cache").mkdir(mode=0o755)
    return tmp_path / "cache"


def opened(folder, name, mode):
    made = folder / name
    made.mkdir()
    made.chmod(mode)
    return made


@pytest.mark.parametrize(
    ("modes", "reason"),
    [
        ((0o755, 0o755), None),
        ((0o700, 0o777), "everybody may write to .*/b: chmod o-w"),
        ((0o1777, 0o755), None),  # as /tmp
        ((0o755, 0o777), "everybody may write to .*/b: chmod o-w"),
        ((0o755, 0o1777), "everybody may write to .*/b: chmod o-w"),
        ((0o777, 0o755), "everybody may write to .*/a: chmod o-w"),
        ((0o777, 0o700), "everybody may write to .*/a: chmod o-w"),
    ],
)
def test_folders_of_others_are_told(private, modes, reason):
    folder = opened(opened(private, "a", modes[0]), "b", modes[1])
    found = cache_folder.distrusted(folder)
    assert found is None if reason is None else re.match(reason, found)


def test_a_group_of_others_is_told(private, monkeypatch):
    folder, above = opened(private, "a", 0o775), Path(private.parent)
    assert cache_folder.distrusted(folder) is None  # the group has the number of its only user
    real = Path.stat

    def of_a_group(path):
        found = real(path)
        mode = 0o755 if path == above else found.st_mode
        return SimpleNamespace(st_uid=found.st_uid, st_gid=4711, st_mode=mode if path in (folder, above) else 0o755)

    monkeypatch.setattr(Path, "stat", of_a_group)
    assert re.match("a group may write to .*/a: chmod g-w", cache_folder.distrusted(folder))
    assert cache_folder.distrusted(folder, group=False) is None


def test_a_folder_of_another_user_is_told(private, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4711)
    owner = private.stat().st_uid
    if owner == 0:
        pytest.skip("what is root's is trusted")
    assert f"belongs to another user (number {owner})" in cache_folder.distrusted(private)


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
@pytest.mark.parametrize("what", ["folder", "above", "file"])
def test_programs_that_another_user_may_have_put_there_are_not_run(no_folder, private, monkeypatch, capsys, what):
    folder = private / "compiled" / cache_folder.processor()
    folder.mkdir(parents=True)
    (folder / "program").write_bytes(b"theirs")
    os.chown({"folder": folder, "above": private, "file": folder / "program"}[what], 4711, -1)
    monkeypatch.setenv("P2P_JAX_CACHE", str(private))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
    printed = capsys.readouterr().err
    assert printed.startswith(f"note: compiled programs cannot be kept in {folder} (") and printed.count("\n") == 1
    assert "belongs to another user" in printed and (folder / "program").read_bytes() == b"theirs"


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_programs_are_not_run_from_where_everybody_may_write(no_folder, private, monkeypatch, capsys, mode):
    folder = private / "compiled" / cache_folder.processor()
    folder.mkdir(parents=True)
    folder.chmod(mode)
    (folder / "program").write_bytes(b"theirs")
    monkeypatch.setenv("P2P_JAX_CACHE", str(private))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
    assert f"everybody may write to {folder}: chmod o-w" in capsys.readouterr().err
    folder.chmod(0o755)
    (folder / "program").unlink()
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_a_new_folder_is_its_users_alone(no_folder, private, monkeypatch):
    monkeypatch.setenv("P2P_JAX_CACHE", str(private / "new"))
    old = os.umask(0)
    try:
        use_compilation_cache()
    finally:
        os.umask(old)
    made = private / "new" / "compiled"
    assert {path.stat().st_mode & 0o777 for path in (made, made / cache_folder.processor())} == {0o700}
    assert jax.config.jax_compilation_cache_dir is None or (private / "new").stat().st_mode & 0o002


def test_a_folder_that_the_user_names_is_told_to_be_open(monkeypatch, private, capsys):
    before = jax.config.jax_compilation_cache_dir
    folder = opened(private, "named", 0o777)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    try:
        use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(folder)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert f"everybody may write to {folder}" in capsys.readouterr().err
