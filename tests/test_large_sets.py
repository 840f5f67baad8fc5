"""Sets of millions of examples: opened without reading them or naming them all, and resumed anywhere at once."""

import threading
import tracemalloc
import zipfile

import numpy as np
import pytest

from benchmarks import large_sets
from p2p_jax.data import Source, load, load_split
from p2p_jax.data.containers import opening
from p2p_jax.data.containers.archive import Archive
from p2p_jax.data.containers.contents import Joined, Names
from p2p_jax.data.spread import evenly
from p2p_jax.data.stream.sides import make_sides
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_config
from support.comparers import assert_equal_streams
from support.configs import data_config
from support.streams import take

MILLIONS = 5_000_000


class Counting:
    """A source of five million pairs, whose number can be read in their pixels; counts what is asked of it."""

    def __init__(self):
        self.read, self.named, self._lock = [], 0, threading.Lock()

    def _name(self, index):
        self.named += 1
        return f"pair {index}"

    def _load(self, index):
        with self._lock:
            self.read.append(index)
        digits = np.array([index // 256**k % 256 for k in range(3)], np.uint8)
        image = np.broadcast_to(digits, (16, 16, 3)).copy()
        return image, 255 - image

    def source(self):
        return Source(Names(MILLIONS, self._name), load=self._load, identity="5e6")


def numbers(batch):
    digits = np.rint((batch["real_a"][:, 0, 0].astype(np.float64) + 1) * 127.5).astype(int)
    return (digits @ [1, 256, 256**2]).tolist()


@pytest.fixture
def counting():
    pytest.importorskip("tensorflow")
    return Counting()


def test_millions_are_opened_without_reading_or_naming_them(counting):
    tracemalloc.start()
    data = load(data_config(), train=counting.source())
    batch = next(data.train(1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.num_train == MILLIONS and data.fingerprint == "5e6"
    assert len(counting.read) < 2_000 and counting.named < 100
    assert peak < 100e6  # a list of the names would be four times that
    assert len(set(numbers(batch))) == 4


@pytest.mark.slow
def test_a_resume_at_a_million_steps_reads_no_more_than_a_start(counting):
    data = load(data_config(cache_mb=0), train=counting.source())
    before = take(data.train(999_998), 4)
    found = {}
    for step in (0, 1_000_000):
        counting.read.clear()
        batches = data.train(step)
        first = next(batches)
        batches.close()
        assert set(numbers(first)) <= set(counting.read)
        found[step] = len(counting.read)
        assert found[step] < 500  # what is read ahead depends on the machine
        if step:
            np.testing.assert_array_equal(first["real_a"], before[2]["real_a"])
            np.testing.assert_array_equal(first["real_b"], before[2]["real_b"])


def test_millions_are_shuffled_into_permutations(counting):
    config = data_config()
    [side] = make_sides(counting.source(), config, of_config(config.data))
    around = [p for k in (1, 2) for p in range(k * MILLIONS - 100, k * MILLIONS + 100)]
    found = {p: int(side.shuffled(p, seed=3)) for p in around}
    passes = [[found[p] for p in around if p // MILLIONS == k] for k in range(3)]
    assert [len(set(one)) for one in passes] == [100, 200, 100]
    assert passes[0] != passes[1][:100] and all(0 <= x < MILLIONS for x in found.values())
    assert min(found.values()) < MILLIONS / 10 and max(found.values()) > MILLIONS * 9 / 10


def test_names_are_made_when_they_are_asked_for():
    names = Names(MILLIONS, lambda i: f"#{i}")
    assert (len(names), names[7], names[-1], names[3:6]) == (MILLIONS, "#7", "#4999999", ["#3", "#4", "#5"])
    with pytest.raises(IndexError):
        names[MILLIONS]
    joined = Joined([3, 0, 2])
    assert [joined.find(i) for i in range(len(joined))] == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert evenly(range(5), 10) == [0, 1, 2, 3, 4] and evenly(range(MILLIONS), 3) == [0, 2_499_999, 4_999_999]


@pytest.mark.slow
@pytest.mark.parametrize("container", ["zip", "array_record", "hugging_face"])
def test_containers_of_the_benchmark_hold_the_same_images(container, tmp_path):
    library = {"zip": "zipfile", "array_record": "array_record", "hugging_face": "datasets"}
    pytest.importorskip(library[container])
    contents = large_sets.images(16)
    folder = large_sets.make_folder(tmp_path / "folder", 300, contents)
    path = large_sets.MAKERS[container](tmp_path / container, 300, contents)
    sizes = {"load_size": 18, "crop_size": 16, "val_split": ""}
    known = load(data_config(source="side_by_side/AB", dir=str(folder), **sizes))
    data = load(data_config(source=f"{container}/side_by_side/AB", dir=str(path), **sizes))
    assert data.num_train == known.num_train == 300
    assert_equal_streams(take(data.train(1_000_000), 3), take(known.train(1_000_000), 3))


def test_the_directory_of_a_zip_file_takes_little_memory(tmp_path):
    count = 40_000
    path = large_sets.make_zip(tmp_path / "zip", count, large_sets.images(8))
    with zipfile.ZipFile(path) as archive:
        known = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
        contents = archive.read("train/0000999.png")
    tracemalloc.start()
    archive = Archive(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(zip(archive.names, archive.sizes.tolist(), archive.crcs.tolist(), strict=True)) == known
    assert archive.read(999) == contents
    assert peak < 600 * count  # five million in 3 GB; the objects of zipfile alone take more


def test_of_many_examples_some_are_looked_at(tmp_path, monkeypatch):
    path = large_sets.make_zip(tmp_path / "zip", 400, large_sets.images(16))
    monkeypatch.setattr("p2p_jax.data.containers.opening._WHOLE", 300)
    monkeypatch.setattr(opening, "_SOME", 50)
    read, original = [], Archive.read
    monkeypatch.setattr(Archive, "read", lambda self, number: read.append(number) or original(self, number))
    config = data_config(source="zip/side_by_side/AB", dir=str(path), val_split="")
    split = load_split(config, "train")
    assert len(set(read)) == 50 and {0, 399} <= set(read)
    assert split.original(0, 17).shape == (16, 16, 3)
    with path.open("r+b") as file:  # 000018 is not among those that are looked at
        data = file.read()
        file.seek(data.index(b"train/0000018.png") + 40)
        file.write(b"\0\0\0\0")
    with pytest.raises(InputError, match=r"zip!train/0000018\.png cannot be unpacked \(its checksum is wrong\)"):
        load_split(config, "train").original(0, 18)


@pytest.mark.slow
def test_the_benchmark_reports_both_steps(tmp_path, monkeypatch, capsys):
    given = ["large_sets", "--count=300", "--size=16", "--repeats=1", "--step=70", f"--folder={tmp_path}"]
    monkeypatch.setattr("sys.argv", given)
    large_sets.main()
    told = capsys.readouterr().out
    assert "step 0: 300 examples open after" in told and "step 70: 300 examples open after" in told
