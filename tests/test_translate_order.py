"""What translating many files costs: how often a size is compiled, in which batches images go, in whose share."""

import gc
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator
from p2p_jax.inference import files, programs
from p2p_jax.inference.batches import Limits
from support.images import load, noise, save
from support.runs import translate_files


@pytest.fixture
def compiled(monkeypatch):
    """Return a list that grows by (height, width, rows) of every program that is compiled."""
    seen, real = [], programs.Programs._compile
    monkeypatch.setattr(
        programs.Programs,
        "_compile",
        lambda self, kind, rows: (seen.append((*kind.shape[:2], rows)), real(self, kind, rows))[1],
    )
    return seen


@pytest.fixture
def ran(monkeypatch):
    """Return a list that grows by (height, width, images, rows) of every batch that is run."""
    seen, real = [], programs.Programs.run
    monkeypatch.setattr(
        programs.Programs,
        "run",
        lambda self, kind, images, rows, *rest: (
            seen.append((*kind.shape[:2], len(images), rows)),
            real(self, kind, images, rows, *rest),
        )[1],
    )
    return seen


@pytest.mark.slow
def test_programs_of_the_last_sizes_are_kept(pix2pix_run, compiled):
    translator = Translator.from_workdir(pix2pix_run)
    sizes = [8 * (i + 1) for i in range(9)]
    for side in sizes:
        translator(noise(side, 8, 3))
    assert len(translator._programs) == 8 and len(compiled) == 9
    translator(noise(72, 8, 3))  # the last one
    translator(noise(16, 8, 3))  # the oldest one that is kept
    assert len(compiled) == 9
    translator(noise(8, 8, 3))  # dropped, so that now 24x8 goes
    translator(noise(16, 8, 3))
    assert [side for side, *_ in compiled] == [*sizes, 8]
    translator(noise(24, 8, 3))
    assert compiled[-1][0] == 24


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_dropped_programs_give_their_memory_back(pix2pix_run):
    """Each maps about 100 pieces of memory here."""

    def pieces():
        gc.collect()
        return Path("/proc/self/maps").read_text().count("\n")

    translator, counts = Translator.from_workdir(pix2pix_run), [pieces()]
    sizes = [(8 * h, 8 * w) for h, w in itertools.product(range(1, 7), range(1, 5))]
    for i, size in enumerate(sizes, start=1):
        translator(noise(*size, 3))
        if i % 8 == 0:
            counts.append(pieces())
    of_eight = counts[1] - counts[0]
    assert of_eight > 80
    assert counts[-1] - counts[1] < of_eight / 2  # twice as much as of eight if all 24 were kept


@pytest.mark.slow
def test_long_compiling_is_told_once_a_size(pix2pix_run, monkeypatch, capsys):
    monkeypatch.setattr(programs, "_LONG", 0.0)
    translator = Translator.from_workdir(pix2pix_run, batch_size=4)
    for count in (1, 1, 4):
        translator(noise(count, 15, 30, 3))
    assert capsys.readouterr().out == "compiling for 32x16\n"
    monkeypatch.undo()
    translator(noise(8, 8, 3))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("shape", "most"),
    [((256, 256), 8), ((128, 128), 8), ((257, 256), 6), ((512, 256), 4), ((1024, 1024), 2), ((9, 16384), 2)],
)
def test_batches_are_counted_in_pixels(shape, most):
    assert Limits(8, 8 * 256 * 256, devices=2).most((*shape, 3)) == most


@pytest.mark.parametrize(
    ("count", "devices", "rows"), [(1, 1, 1), (8, 1, 8), (9, 1, 5), (11, 1, 6), (17, 1, 6), (1, 2, 2), (11, 2, 6)]
)
def test_batches_of_a_known_number_are_alike(count, devices, rows):
    limits = Limits(8, 8 * 256 * 256, devices)
    assert limits.even((64, 64, 3), count) == rows
    batches = -(-count // rows)
    assert batches == -(-count // 8) and batches * rows - count < batches * devices


@pytest.mark.slow
def test_large_images_go_one_by_one(pix2pix_run, ran):
    translator = Translator.from_workdir(pix2pix_run, batch_size=4)
    images = np.stack([noise(512, 640, 3, seed=i) for i in range(3)])
    found = translator(images)
    assert ran == [(512, 640, 2, 2), (512, 640, 1, 2)]  # one for each of two devices; 4 images have 262,144 pixels
    assert found.shape == images.shape


def mixed_folder(folder):
    """Write 24 images of six sizes in turns, one damaged, and lone ones of four more; return all sizes."""
    sizes = {}
    for i in range(24):
        sizes[f"{i:02}.png"] = (16, 8 * (1 + i % 6))
    for i in range(4):
        sizes[f"lone{i}.png"] = (24, 8 * (1 + i))
    for i, (name, size) in enumerate(sizes.items()):
        save(folder / name, noise(*size, 3, seed=i))
    (folder / "05.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    return sizes


@pytest.mark.slow
def test_files_of_one_size_follow_each_other(pix2pix_run, tmp_path, compiled, ran):
    """Ten sizes, of which eight programs are kept, are ten programs; a lone image is computed once for each device."""
    sizes = mixed_folder(tmp_path / "in")
    assert translate_files(pix2pix_run, tmp_path / "in", tmp_path / "out") == 1  # one is damaged
    assert sorted((height, width) for height, width, _ in compiled) == sorted(set(sizes.values()))
    assert len(ran) == 10
    counts = {size: list(sizes.values()).count(size) - (size == sizes["05.png"]) for size in set(sizes.values())}
    assert {(height, width): images for height, width, images, _ in ran} == counts
    assert all(rows == images + images % 2 for _, _, images, rows in ran)  # on two devices
    translator = Translator.from_workdir(pix2pix_run)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(sizes.keys() - {"05.png"})
    for name in ("00.png", "07.png", "lone3.png"):
        difference = load(tmp_path / "out" / name).astype(int) - translator(load(tmp_path / "in" / name))
        assert np.abs(difference).max() <= 1


@pytest.mark.slow
def test_sizes_are_those_that_are_translated(pix2pix_run, tmp_path, compiled):
    """Turned by their EXIF orientation, resized, padded: the header is asked for what the network will see."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    for i, shape in enumerate([(16, 40), (40, 16), (40, 16), (15, 37)]):
        image = Image.fromarray(noise(*shape, 3, seed=i))
        image.save(tmp_path / "in" / f"{i}.jpg", **({"exif": exif} if shape == (40, 16) else {}))
    assert translate_files(pix2pix_run, tmp_path / "in", tmp_path / "out") == 0
    assert compiled == [(16, 40, 4)]
    compiled.clear()
    assert translate_files(pix2pix_run, tmp_path / "in", tmp_path / "twice", "--size", "x2") == 0
    assert compiled == [(32, 80, 4)]


@pytest.mark.slow
def test_a_lone_image_is_no_full_batch_when_many_wait(pix2pix_run, ran):
    translator = Translator.from_workdir(pix2pix_run, batch_size=4)
    sizes = [(8 * (1 + i), 8) for i in range(20)]
    found = dict(translator.stream([(i, noise(*size, 3)) for i, size in enumerate(sizes)]))
    assert [found[i].shape[:2] for i in range(20)] == sizes
    assert all((images, rows) == (1, 2) for _, _, images, rows in ran) and len(ran) == 20


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_all_files_and_each_is_in_one(pix2pix_run, tmp_path, count, capsys):
    names = [f"{name}.png" for name in "cabd"]
    for i, name in enumerate(names):
        save(tmp_path / "in" / name, noise(8, 8, 3, seed=i))
    written = []
    for index in range(1, count + 1):
        before = set((tmp_path / "out").glob("*"))
        assert translate_files(pix2pix_run, tmp_path / "in", tmp_path / "out", "--shard", f"{index}/{count}") == 0
        new = sorted(path.name for path in set((tmp_path / "out").glob("*")) - before)
        assert new == sorted(names)[index - 1 :: count]
        written += new
        printed = capsys.readouterr().out
        assert f"share {index}/{count}: {len(new)} of 4 images" in printed
    assert sorted(written) == sorted(names)


def test_shares_do_not_depend_on_the_order_of_jobs():
    jobs = [files.Job(Path(f"in/{name}"), Path(f"out/{name}")) for name in ("b", "a", "d", "c", "e")]
    assert files.shard(jobs, 2, 2) == files.shard(jobs[::-1], 2, 2) == [jobs[0], jobs[2]]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "1/2/3", "a/b", "-1/4", "1/", "", "1.0/2", "²/4"])
def test_wrong_shares_are_one_error(pix2pix_run, tmp_path, text):
    save(tmp_path / "in" / "a.png", noise(8, 8, 3))
    error = translate_files(pix2pix_run, tmp_path / "in", tmp_path / "out", f"--shard={text}")
    assert error.startswith(f"error: --shard {text}: ") and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_shares_of_what_cannot_be_shared(pix2pix_run, tmp_path):
    save(tmp_path / "in" / "a.jpg", noise(8, 8, 3))
    np.save(tmp_path / "stack.npy", noise(2, 8, 8, 3))
    error = translate_files(pix2pix_run, tmp_path / "stack.npy", tmp_path / "out.npy", "--shard", "1/2")
    assert "--shard divides image files" in error
    error = translate_files(pix2pix_run, tmp_path / "in", tmp_path / "in", "--format", "png", "--shard", "1/2")
    assert "--shard needs another folder as --output" in error
