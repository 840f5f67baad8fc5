"""Files and folders under way: names that nobody foresees, writers that do not meet, leftovers of killed ones."""

import os
import re
import stat
import threading
import time

import pytest

from p2p_jax.errors import InputError
from p2p_jax.storage import unfinished as module
from p2p_jax.storage import writing
from p2p_jax.storage.unfinished import Unfinished, remove_abandoned
from support.processes import environment, python, start

WRITE = """
    import sys, time
    from pathlib import Path
    from p2p_jax.storage.writing import unfinished, unfinished_folder
    made = unfinished_folder if sys.argv[2] == "folder" else unfinished
    with made(Path(sys.argv[1])) as path:
        (path / "in" if path.is_dir() else path).write_text("half")
        print(path, flush=True)
        time.sleep(60)
"""


@pytest.fixture(autouse=True)
def looks_anew():
    module._looked_at.clear()


def age(path, seconds=60):
    os.utime(path, (time.time() - seconds,) * 2)


def test_names_cannot_be_foreseen(tmp_path):
    made = [Unfinished(tmp_path / "x.PNG") for _ in range(8)]
    tokens = {re.fullmatch(r"\.x\.PNG\.([0-9a-f]{24})\.part\.png", one.path.name)[1] for one in made}
    assert len(tokens) == 8 and len({token[:8] for token in tokens}) == 1
    assert all(one.path.stat().st_size == 0 for one in made)
    for one in made:
        one.close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_lies_there_is_not_followed(tmp_path, monkeypatch):
    """Where the name could be foreseen after all, nothing is written through what lies under it."""
    monkeypatch.setattr(module.secrets, "token_hex", lambda count: "ab" * count)
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / f".x.txt.{module._HERE}{'ab' * 8}.part.txt").symlink_to(secret)
    with pytest.raises(InputError, match="x.txt cannot be written"), writing.in_one_step(tmp_path / "x.txt"):
        raise AssertionError("it was opened")
    assert secret.read_text() == "mine"


@pytest.mark.parametrize("name", ["a" * 250 + ".png", "ü" * 120 + ".txt", "x." + "e" * 200])
def test_long_names_can_be_written(tmp_path, name):
    writing.write_text(tmp_path / name, "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "whole")]


def test_modes_are_those_of_plain_files(tmp_path):
    old = os.umask(0o027)
    try:
        writing.write_text(tmp_path / "x", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    texts = [str(number) * 50_000 for number in range(8)]
    together, seen = threading.Barrier(9), set()

    def write(text):
        together.wait()
        for _ in range(20):
            writing.write_text(tmp_path / "x.txt", text)

    writing.write_text(tmp_path / "x.txt", texts[0])
    threads = [threading.Thread(target=write, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    together.wait()
    while any(thread.is_alive() for thread in threads):
        seen.add((tmp_path / "x.txt").read_text())
    assert seen <= set(texts) and [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path, kind):
    process = start(python(WRITE, tmp_path / "x.txt", kind), environment())
    path = tmp_path / os.path.basename(process.stdout.readline().strip())
    age(path)
    writing.write_text(tmp_path / "y.txt", "")
    assert path.exists()  # its writer lives
    process.kill()
    process.communicate()
    assert path.exists()
    module._looked_at.clear()  # as another process
    writing.write_text(tmp_path / "x.txt", "whole")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.txt", "y.txt"]


def test_nothing_else_is_taken_for_a_leftover(tmp_path):
    ours = f"{module._HERE}{'0' * 16}"
    kept = [f".x.{'0' * 24}.part", f"x.{ours}.part", f".x.{ours}.part.png.jpg", f".x.{ours}", ".x.part.png"]
    for name in kept:
        (tmp_path / name).write_text("")
    (tmp_path / f".link.{ours}.part").symlink_to(tmp_path / kept[0])
    for name in [*kept, f".young.{ours}.part"]:
        (tmp_path / name).write_text("")
    for name in kept:
        age(tmp_path / name)
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, f".link.{ours}.part", f".young.{ours}.part"}


def test_what_belongs_together_is_put_in_place_together(tmp_path):
    """Two writers of three files each: what is found is always all of one."""
    done, odd = threading.Event(), []

    def write(text):
        while not done.is_set():
            with writing.belonging_together(tmp_path):
                for name in "abc":
                    writing.write_text(tmp_path / name, text)

    threads = [threading.Thread(target=write, args=[text]) for text in "12"]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with writing.belonging_together(tmp_path):
            found = {path.read_text() for name in "abc" if (path := tmp_path / name).exists()}
        odd += [found] if len(found) > 1 else []
    done.set()
    for thread in threads:
        thread.join()
    assert odd == []
