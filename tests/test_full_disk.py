"""Disks that take nothing more: one sentence with the path and what is free, the last good step, and nothing half."""

import argparse
import errno
import os
import resource
import subprocess

import jax
import numpy as np
import pytest

from p2p_jax import train
from p2p_jax.commands import resume
from p2p_jax.commands import train as train_command
from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError
from p2p_jax.objectives import pix2pix
from p2p_jax.storage.lock import locked
from p2p_jax.storage.refusals import StorageError, error_number, free, reason, sentence, sentence_of, size, writing
from p2p_jax.storage.writing import in_one_step, write_text
from p2p_jax.training import digests
from p2p_jax.training.checkpoint import find_step, restore_part, saved_steps
from p2p_jax.training.saving import Checkpoints
from support.comparers import assert_equal_trees
from support.configs import SMALL, small_config
from support.images import write_images
from support.networks import POINTWISE, linear
from support.runs import blank_state, memory_data, run_command, translate_files, write_run

CONFIG = small_config(keep_checkpoints=5)
TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "params.a/0" in OCDBT database at local file "/run/checkpoints/2/": Failed to '
    "write 303104 bytes to file 11: No space left on device [os_error_code='28']"
)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, which takes nothing more when it is full, not from root either."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(place, but=0):
    """Fill a disk, and leave so many bytes."""
    with open(place / "filled", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - but))


def remount(place, *options):
    subprocess.run(["mount", "-o", ",".join(["remount", *options]), place], check=True)


def state_of(step, count=50):
    return {"step": np.asarray(step, np.int32), "params": np.random.default_rng(step).normal(size=count)}


def restored(run, step, count):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32), state_of(step, count))
    return jax.device_get(restore_part(run, step, {**shapes, "step": jax.ShapeDtypeStruct((), np.int32)}))


def test_what_is_said():
    assert error_number(ValueError(TENSORSTORE)) == errno.ENOSPC
    assert error_number(ValueError("28")) is None and error_number(OSError(errno.ENOENT, "gone")) is None
    assert sentence_of(ValueError("a wrong value")) is None
    assert [size(n) for n in (0, 999, 1000, 65_536, 650e6, 5.2e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "65.5 kB",
        "650 MB",
        "5.2 TB",
    ]
    total = os.statvfs("/").f_blocks * os.statvfs("/").f_frsize
    assert free("/no/such/folder").endswith(f" of {size(total)} are free")
    told = sentence(errno.ENOSPC, "/no/such/file", needed=650_000_000)
    assert told.startswith("/no/such/file cannot be written (No space left on device; ")
    assert told.endswith(" are free, and about 650 MB are needed): make room, or choose a place on another disk")
    assert sentence(errno.EROFS, "/x").startswith("/x cannot be written (Read-only file system): choose a place on")
    assert "this user's disk quota is used up" in sentence(errno.EDQUOT, "/x")
    assert sentence_of(PermissionError(13, "", "/proc/self/mem")).startswith("/proc/self/mem cannot be read or written")
    assert sentence_of(full(), "/x/y").startswith("/x/y cannot be written (No space")
    assert sentence_of(full()) == (
        "a file cannot be written (No space left on device): make room, or choose a place on another disk"
    )
    assert reason(full(), "/x").startswith("No space left on device; ") and reason(ValueError("odd"), "/x") == "odd"


@pytest.mark.parametrize(
    ("named", "ours"), [(None, True), ("out.png", True), (".out.png.7.part", True), ("a.png", False)]
)
def test_only_what_is_written_is_said_to_be(tmp_path, named, ours):
    error = PermissionError(errno.EACCES, "Permission denied", None if named is None else str(tmp_path / named))
    with pytest.raises((StorageError, PermissionError)) as found, writing(tmp_path / "out.png"):
        raise error
    assert isinstance(found.value, StorageError) == ours
    with pytest.raises(PermissionError), writing(tmp_path / "out.png"):
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/else/out.png")


def test_a_command_ends_with_one_line(capsys):
    def work(args: argparse.Namespace) -> None:
        raise full()

    parser = Parser("some", "text", computes=False)
    parser.add_argument("--output")
    with pytest.raises(SystemExit) as ended:
        parser.do(work, ["--output", "/some/place"])
    assert ended.value.code.startswith("error: /some/place cannot be written (No space left on device; ")
    with pytest.raises(FileNotFoundError):
        parser.do(lambda _: os.stat("/no/such/file"), [])


def test_text_on_a_full_disk(small_disk):
    path = small_disk / "notes.txt"
    write_text(path, "before")
    fill(small_disk)
    with pytest.raises(
        StorageError, match=r"disk/notes.txt cannot be written \(No space .*; 0 bytes of 1.0 MB are free\)"
    ):
        write_text(path, "x" * 9000)
    with (
        pytest.raises(InputError, match=r"disk/made/a.bin cannot be written \(No space"),
        in_one_step(small_disk / "made" / "a.bin") as temporary,
    ):
        temporary.write_bytes(bytes(9000))
    assert path.read_text() == "before" and {p.name for p in small_disk.iterdir()} <= {"notes.txt", "filled", "made"}
    (small_disk / "filled").unlink()
    remount(small_disk, "ro")
    for target in (path, small_disk / "new" / "notes.txt"):
        with pytest.raises(
            StorageError, match=rf"{target} cannot be written \(Read-only file system\): choose a place"
        ):
            write_text(target, "x")


@pytest.mark.parametrize("left", [0, 1 << 17])
def test_checkpoints_on_a_full_disk(small_disk, left):
    """With nothing left the save cannot begin; with a little, Orbax's thread in the background stumbles."""
    run, count = small_disk / "run", 50_000
    checkpoints = Checkpoints(run, CONFIG)
    checkpoints.save(1, state_of(1, 50), {"l1": 0.5})
    checkpoints.wait()
    fill(small_disk, but=left)
    with pytest.raises(StorageError) as refused:
        checkpoints.save(2, state_of(2, count), {"l1": 0.1})
        checkpoints.wait()
    told = str(refused.value)
    assert told.startswith(f"{run / 'checkpoints' / '2'} cannot be written (No space left on device; ")
    assert "are free, and about 400 kB are needed): make room, or choose a place on another disk; " in told
    assert told.endswith("; the last good checkpoint is of step 1; run the same command to resume from it")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["1"]
    (small_disk / "filled").unlink()
    checkpoints.save(3, state_of(3, 50), {"l1": 0.4})  # it can go on once there is room
    checkpoints.close()
    assert saved_steps(run) == [1, 3] and find_step(run, CONFIG, "best") == 3


def test_a_refused_save_is_reported_once(tmp_path, monkeypatch):
    """Orbax may say it again, without the file's name or the last good step, when it is closed."""
    checkpoints = Checkpoints(tmp_path / "run", CONFIG)
    checkpoints.save(1, state_of(1), None)
    checkpoints.wait()

    def refuse(*_, **__):
        raise full()

    with monkeypatch.context() as patch:
        for name in ("save", "close"):
            patch.setattr(checkpoints._manager, name, refuse)
        with pytest.raises(StorageError, match="checkpoints/2 cannot .*; the last good checkpoint is of step 1; run"):
            checkpoints.save(2, state_of(2), None)
        part = tmp_path / "run" / "checkpoints" / "2.orbax-checkpoint-tmp"
        part.mkdir()
        checkpoints.close()
        assert not part.exists()
    checkpoints.save(3, state_of(3), None)
    checkpoints.wait()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):  # not reported yet
        patch.setattr(checkpoints._manager, "close", refuse)
        checkpoints.close()
    checkpoints.close()
    assert saved_steps(tmp_path / "run") == [1, 3]


def test_a_lock_on_a_full_disk_says_what_is_free(small_disk):
    fill(small_disk)
    told = r"run cannot be written \(No space left on device; .* free\); choose another"
    with pytest.raises(InputError, match=told), locked(small_disk / "run"):
        pass


def test_a_file_that_may_not_grow(tmp_path):
    """Without a disk to mount: the limit of a process, which fails in the same place."""
    checkpoints = Checkpoints(tmp_path / "run", CONFIG)
    checkpoints.save(1, state_of(1), None)
    checkpoints.wait()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, before[1]))
    try:
        checkpoints.save(2, state_of(2, 100_000), None)
        with pytest.raises(
            StorageError, match=r"checkpoints/2 cannot be written \(File too large.*step 1; run the same"
        ):
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["1"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match=r"workdir=.*run cannot be made"):
        Checkpoints(tmp_path / "run", CONFIG)
    assert (tmp_path / "run").read_text() == "mine"


def test_what_came_first_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", CONFIG)
    with (
        pytest.raises(StorageError, match=r"^/x/metrics.csv cannot .*; there is no checkpoint yet$"),
        checkpoints.naming_the_last(),
    ):
        try:
            with writing("/x/metrics.csv"):
                raise full()
        finally:
            raise full()  # the file is closed, which writes what is left
    checkpoints.save(4, state_of(4), None)
    checkpoints.close()
    with (
        pytest.raises(StorageError, match=r"run cannot be written .*; the last good checkpoint is of step 4; run"),
        checkpoints.naming_the_last(),
    ):
        raise full()
    with pytest.raises(KeyError), checkpoints.naming_the_last():
        raise KeyError("another kind")


def test_the_digests_of_late_files_need_no_room(small_disk, monkeypatch):
    def complete(folder):
        raise full()

    monkeypatch.setattr(digests, "complete", complete)
    checkpoints = Checkpoints(small_disk / "run", CONFIG)
    checkpoints.save(1, state_of(1), None)
    checkpoints.close()
    assert find_step(small_disk / "run", CONFIG, "latest") == 1


@pytest.mark.slow
def test_a_training_ends_in_one_sentence(small_disk):
    config = small_config(num_steps=400, checkpoint_every=20, eval_every=400, sample_every=20, keep_checkpoints=100)
    fill(small_disk, but=400_000)
    with pytest.raises(StorageError, match=r"disk/run.* cannot be written \(No space .*the last good checkpoint is of"):
        train(config, small_disk / "run", linear(config), memory_data(config))
    steps = saved_steps(small_disk / "run")
    assert steps and steps == list(range(20, steps[-1] + 1, 20))
    (small_disk / "filled").unlink()
    remount(small_disk, "size=30m")
    state = train(config, small_disk / "run", linear(config), memory_data(config))
    whole = train(config, small_disk / "whole", linear(config), memory_data(config))
    assert_equal_trees(jax.device_get(state), jax.device_get(whole))


@pytest.mark.slow
def test_a_translation_ends_at_the_first_file(small_disk, tmp_path):
    config = small_config(generator=POINTWISE, data__num_train=8)
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), blank_state(pix2pix(config), config))
    run = write_run(tmp_path / "run", config, state, 3)
    write_images(tmp_path / "images", 5)
    fill(small_disk)
    told = translate_files(run, tmp_path / "images", small_disk / "out")
    assert told.startswith(f"error: {small_disk / 'out'}") and told.count("cannot be written (No space left") == 1
    remount(small_disk, "ro")
    told = translate_files(run, tmp_path / "images", small_disk / "other")
    assert (
        told.startswith(f"error: {small_disk / 'other'}")
        and "cannot be written (Read-only file system): choose a place" in told
    )
    assert "\n" not in told


@pytest.mark.slow
def test_a_training_by_command_on_a_full_disk(small_disk, tmp_path, capfd):
    config = tmp_path / "config.py"
    config.write_text(f"def get_config():\n    return { ({**SMALL, 'num_steps': 200, 'keep_checkpoints': 100})!r}\n")
    remount(small_disk, "size=3m")
    told = run_command(train_command, config, "--workdir", small_disk / "run")
    assert "cannot be written (No space left on device; " in told and "the last good checkpoint is of step" in told
    assert "Traceback" not in capfd.readouterr().err
    remount(small_disk, "size=100m")
    assert run_command(resume, small_disk / "run", "--config.keep_checkpoints=1", "--config.num_steps=100") == 0
    assert saved_steps(small_disk / "run")[-1] == 100
