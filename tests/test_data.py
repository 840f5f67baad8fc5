"""The data stream: a function of (seed, step), faithful preparation, and one clear error for each fault."""

import itertools

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import from_arrays, load
from p2p_jax.data.files import describe_duplicates, find_duplicates
from p2p_jax.data.stream.sources import make_source
from p2p_jax.errors import InputError
from support.comparers import assert_equal_batches
from support.configs import pairs_config, small_config
from support.processes import run_python
from support.streams import take


def write_pairs(folder, count, size=(16, 16), start=0, seed=0):
    """Write side-by-side files whose left half is a photograph-like noise and whose right half is its negative."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    for i in range(start, start + count):
        a = rng.randint(0, 256, (*size, 3), np.uint8)
        Image.fromarray(np.concatenate([a, 255 - a], axis=1)).save(folder / f"{i:03d}.png")


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path / "train", 5)
    write_pairs(tmp_path / "val", 3, seed=1)
    return tmp_path


@pytest.mark.slow
def test_counts_and_contract(folder, capsys):
    data = load(pairs_config(folder))
    assert (data.num_train, data.num_val) == (5, 3)
    assert "5 pairs in train, 3 in val" in capsys.readouterr().out
    batch = next(data.train(0))
    for image in batch.values():
        assert image.shape == (4, 16, 16, 3)
        assert image.dtype == np.float32
        assert -1 <= image.min() < -0.9
        assert 0.9 < image.max() <= 1
    np.testing.assert_allclose(batch["real_a"], -batch["real_b"], atol=1e-6)


@pytest.mark.slow
def test_stream_is_a_function_of_seed_and_step(folder):
    config = pairs_config(folder, data__load_size=18)
    batches = take(load(config).train(0), 9)
    for step in (1, 4, 8):
        assert_equal_batches(next(load(config).train(step)), batches[step])
    other = next(load(pairs_config(folder, data__load_size=18, seed=1)).train(0))
    assert not np.array_equal(other["real_a"], batches[0]["real_a"])


@pytest.mark.slow
def test_every_epoch_is_another_permutation_of_all_images(folder):
    config = pairs_config(folder, data__flip=False, batch_size=2)
    epochs = []
    images = np.concatenate([batch["real_a"] for batch in take(load(config).train(0), 20)])
    for start in range(0, 40, 5):
        epochs.append([image.tobytes() for image in images[start : start + 5]])
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4


@pytest.mark.slow
def test_processes_share_each_batch(folder):
    config = pairs_config(folder, data__load_size=18)
    whole = load(config)
    shares = [load(config, process_index=i, process_count=2) for i in range(2)]
    for step in (0, 7):
        parts = [next(share.train(step)) for share in shares]
        assert_equal_batches({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, next(whole.train(step)))
    parts = [np.concatenate([b["real_a"] for b in share.validation(1)]) for share in shares]
    together = np.concatenate([b["real_a"] for b in whole.validation(2)])
    np.testing.assert_array_equal(together[0::2], parts[0])
    np.testing.assert_array_equal(together[1::2], parts[1])


@pytest.mark.slow
def test_validation_is_whole_and_in_order(folder):
    sizes = [len(batch["real_a"]) for batch in load(pairs_config(folder)).validation(2)]
    assert sizes == [2, 1]
    first = next(load(pairs_config(folder)).validation(2))["real_a"][0]
    stored = np.asarray(Image.open(folder / "val" / "000.png"))[:, :16]
    np.testing.assert_array_equal(np.rint((first + 1) * 127.5), stored)


@pytest.mark.slow
def test_direction_swaps_once(folder):
    one, other = (next(load(pairs_config(folder, data__direction=d)).train(3)) for d in ("AtoB", "BtoA"))
    assert_equal_batches(one, {"real_a": other["real_b"], "real_b": other["real_a"]})


@pytest.mark.slow
def test_crop_and_flip_are_the_same_for_both_images(folder):
    config = pairs_config(folder, data__load_size=24)
    for batch in take(load(config).train(0), 5):
        # b is the negative of a, and bicubic resizing commutes with that, up to rounding and clipping.
        assert np.abs(batch["real_a"] + batch["real_b"]).max() <= 1.01 / 127.5


@pytest.mark.slow
def test_random_crops_reach_every_offset_and_both_flips(tmp_path):
    ramp = np.broadcast_to(np.arange(18, dtype=np.uint8) * 10, (18, 18))
    image = np.stack([ramp, ramp.T, ramp], axis=-1)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(np.concatenate([image, image], axis=1)).save(tmp_path / split / "0.png")
    config = pairs_config(tmp_path, data__load_size=18, batch_size=32)
    seen = set()
    for batch in take(load(config).train(0), 4):
        values = np.rint((batch["real_a"] + 1) * 127.5 / 10).astype(int)
        flipped = values[:, 0, 0, 0] > values[:, 0, 1, 0]
        left = np.where(flipped, values[:, 0, -1, 0], values[:, 0, 0, 0])
        seen |= set(zip(values[:, 0, 0, 1].tolist(), left.tolist(), flipped.tolist(), strict=True))
    assert seen == set(itertools.product(range(3), range(3), (False, True)))


@pytest.mark.slow
def test_resize_is_pillows_antialiased_bicubic(tmp_path):
    rng = np.random.RandomState(0)
    smooth = Image.fromarray(rng.randint(0, 256, (5, 5, 3), np.uint8)).resize((40, 40), Image.Resampling.BICUBIC)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(np.concatenate([np.asarray(smooth)] * 2, axis=1)).save(tmp_path / split / "0.png")
    for size in (16, 64):
        config = pairs_config(tmp_path, data__load_size=size, data__crop_size=size)
        ours = np.rint((next(load(config).validation(1))["real_a"][0] + 1) * 127.5)
        pillow = np.asarray(smooth.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        assert np.abs(ours - pillow).max() <= 1


@pytest.mark.parametrize("stored_mode", ["1", "L", "RGB", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_colour_are_converted_per_side(tmp_path, stored_mode, channels):
    for split in ("train", "val"):
        write_pairs(tmp_path / split, 1)
        path = tmp_path / split / "000.png"
        Image.open(path).convert(stored_mode).save(path)
    config = pairs_config(tmp_path, data__input__channels=channels, data__output__channels=3)
    batch = next(load(config).validation(1))
    assert batch["real_a"].shape[-1] == channels
    assert batch["real_b"].shape[-1] == 3
    left = Image.open(path).convert("RGB").crop((0, 0, 16, 16))
    expected = np.asarray(left if channels == 3 else left.convert("L"), np.float32).reshape(16, 16, channels)
    assert np.abs((batch["real_a"][0] + 1) * 127.5 - expected).max() < 1.001


@pytest.mark.parametrize("layout", ["{split}/A {split}/B", "A/{split} B/{split}", "{split}A {split}B"])
def test_two_folders_are_matched_by_stem(tmp_path, layout):
    rng = np.random.RandomState(0)
    for split in ("train", "val"):
        for i, folder in enumerate(layout.format(split=split).split()):
            (tmp_path / folder).mkdir(parents=True)
            for name in ("x", "y", "z"):
                image = np.full((16, 16, 3), 10 * "xyz".index(name) + 100 * i, np.uint8) + rng.randint(0, 3)
                Image.fromarray(image).save(tmp_path / folder / f"{name}.{'png' if i else 'bmp'}")
    config = pairs_config(tmp_path, data__source="folders", data__flip=False)
    batch = next(load(config).validation(3))
    means = np.rint((np.stack([batch["real_a"], batch["real_b"]]).mean((2, 3, 4)) + 1) * 127.5)
    assert np.abs(means - [[0, 10, 20], [100, 110, 120]]).max() <= 2


@pytest.mark.slow
def test_toy_facades_need_no_files():
    data = load(small_config(data__load_size=64, data__crop_size=64))
    assert (data.num_train, data.num_val) == (400, 100)
    labels = np.rint((next(data.train(0))["real_a"][0] + 1) * 127.5)
    assert len(np.unique(labels.reshape(-1, 3), axis=0)) <= 12


def test_no_validation_split(folder):
    data = load(pairs_config(folder, data__val_split=""))
    assert data.num_val == 0
    assert list(data.validation(2)) == []


@pytest.mark.slow
def test_fingerprint_knows_the_files_but_not_their_place(folder, tmp_path):
    before = load(pairs_config(folder)).fingerprint
    moved = folder.rename(tmp_path.with_name(tmp_path.name + "_moved"))
    assert load(pairs_config(moved)).fingerprint == before
    write_pairs(moved / "val", 1, seed=2, size=(20, 16))
    changed = load(pairs_config(moved)).fingerprint
    assert changed != before
    write_pairs(moved / "train", 1, start=99)
    assert load(pairs_config(moved)).fingerprint not in (before, changed)


def test_source_from_outside_the_library(tmp_path, monkeypatch):
    (tmp_path / "my_source.py").write_text(
        "import numpy as np\nfrom p2p_jax.data import from_arrays\n"
        "def make(data, split):\n"
        "    a = np.full((7, 16, 16, 3), 50, np.uint8)\n"
        "    return from_arrays(a, a + 100)\n"
    )
    monkeypatch.chdir(tmp_path)
    data = load(small_config(data__source="my_source:make", data__direction="AtoB", data__load_size=16))
    assert data.num_train == 7
    assert np.rint((next(data.train(0))["real_b"] + 1) * 127.5).mean() == 150


def corrupt(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS = {
    "truncated": (lambda d: corrupt(d / "train" / "002.png"), r"002\.png cannot be read"),
    "zero bytes": (lambda d: (d / "train" / "002.png").write_bytes(b""), r"002\.png cannot be read"),
    "no image": (lambda d: (d / "train" / "002.png").write_bytes(b"text"), r"002\.png cannot be read"),
    "odd width": (
        lambda d: Image.new("RGB", (33, 16)).save(d / "train" / "x.png"),
        r"x\.png is 33 pixels wide: it cannot be cut",
    ),
    "alpha": (
        lambda d: Image.new("RGBA", (32, 16)).save(d / "train" / "x.png"),
        r"x\.png has transparent parts \(100\.0% of its pixels\).* set config\.data\.background=white",
    ),
    "palette with transparency": (
        lambda d: Image.new("P", (32, 16)).save(d / "train" / "x.png", transparency=0),
        r"x\.png has transparent parts",
    ),
    "other format": (
        lambda d: Image.new("RGB", (32, 16)).save(d / "train" / "x.png", format="TIFF"),
        r"x\.png is a TIFF file, but its name says otherwise",
    ),
    "folders only": (
        lambda d: [p.unlink() for p in (d / "train").iterdir()] + [(d / "train" / "more").mkdir()],
        r"no image in .*it is empty",
    ),
    "empty folder": (lambda d: [p.unlink() for p in (d / "train").iterdir()], r"no image in .*train .*it is empty"),
    "other files": (
        lambda d: [p.rename(p.with_suffix(".gif")) for p in (d / "train").iterdir()],
        r"no image in .*it holds 5 \.gif",
    ),
    "no split": (
        lambda d: (d / "val").rename(d / "test"),
        r"no folder .*val; .* holds test, train: .* name .*val_split",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_before_training(folder, fault):
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(InputError, match=message):
        load(pairs_config(folder))


@pytest.mark.slow
def test_a_damaged_file_among_very_many_is_named_when_it_is_met(folder, monkeypatch):
    monkeypatch.setattr("p2p_jax.data.checks.PIXELS_READ", 0)
    path = folder / "train" / "003.png"
    contents = path.read_bytes()
    path.write_bytes(contents[:60] + bytes(20) + contents[80:])  # its end is there
    with pytest.raises(InputError, match=r"train.003\.png cannot be read"):
        take(load(pairs_config(folder)).train(0), 3)


def test_a_file_that_ends_too_early_is_named_at_the_start_however_many_there_are(folder, monkeypatch):
    monkeypatch.setattr("p2p_jax.data.checks.PIXELS_READ", 0)
    corrupt(folder / "train" / "003.png")
    with pytest.raises(InputError, match=r"train.003\.png cannot be read"):
        load(pairs_config(folder))


def test_files_that_are_no_images_are_counted(folder, capsys):
    (folder / "train" / "notes.txt").write_text("x")
    assert load(pairs_config(folder)).num_train == 5
    assert "5 images; not images, left out: 1 .txt" in capsys.readouterr().out


def two_folders(tmp_path):
    for name in ("A", "B"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for stem in "xyz":
            Image.new("RGB", (16, 16)).save(tmp_path / "train" / name / f"{stem}.png")
    return tmp_path / "train"


def test_two_folders_unequal_counts(tmp_path):
    (two_folders(tmp_path) / "B" / "y.png").unlink()
    message = (
        r"1 of 3 \+ 2 images have no partner .*A.y\.png; add .*train/B/y\.png \(or with another ending\), remove this"
    )
    with pytest.raises(InputError, match=message) as raised:
        make_source(pairs_config(tmp_path, data__source="folders").data, "train")
    assert "CycleGAN" not in str(raised.value)
    for name in "xy":
        (tmp_path / "train" / "A" / f"{name}.png").rename(tmp_path / "train" / "A" / f"other {name}.png")
    with pytest.raises(
        InputError, match=r"3 of 3 \+ 2 .*if the images have no partners at all, train a CycleGAN: .*=unpaired"
    ):
        make_source(pairs_config(tmp_path, data__source="folders").data, "train")


def test_two_folders_of_different_sizes(tmp_path):
    Image.new("RGB", (16, 20)).save(two_folders(tmp_path) / "B" / "y.png")
    with pytest.raises(InputError, match=r"A.y\.png is 16x16 pixels but its partner .*B.y\.png is 16x20"):
        make_source(pairs_config(tmp_path, data__source="folders").data, "train")


def test_two_folders_with_one_stem_twice(tmp_path):
    Image.new("RGB", (16, 16)).save(two_folders(tmp_path) / "A" / "y.jpg")
    with pytest.raises(InputError, match="have the same stem"):
        make_source(pairs_config(tmp_path, data__source="folders").data, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data__source": "side_by_sid"},
            "choose toy_facades, toy_unpaired, side_by_side, side_by_side/AB, side_by_side/BA, folders, suffixes, csv, "
            "photos, unpaired",
        ),
        ({"data__dir": ""}, "--config.data.dir=FOLDER"),
        ({"data__dir": "no/such/folder"}, "there is no folder no/such/folder"),
        ({"data__source": "folders"}, "has no pair of folders train/A and train/B"),
        ({"data__source": "toy_facades", "data__val_split": "valid"}, "splits train, val, test, not 'valid'"),
    ],
)
def test_wrong_sources_are_named(folder, changes, message):
    with pytest.raises(InputError, match=message):
        load(pairs_config(folder, **changes))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 4, 4, 3), np.float64, "float64"),
        ((1, 4, 4), np.uint8, r"\(1, 4, 4\)"),
        ((0, 4, 4, 3), np.uint8, "at least one image"),
        ((1, 4, 5, 3), np.uint8, "have the same N, H, W"),
    ],
)
def test_arrays_of_another_kind_are_refused(shape, dtype, message):
    with pytest.raises(InputError, match=message):
        from_arrays(np.zeros(shape, dtype), np.zeros((shape[0], 4, 4, 3), np.uint8))


def test_large_counts_are_readable(capsys, monkeypatch):
    many = from_arrays(np.zeros((1_067, 16, 16, 3), np.uint8), np.zeros((1_067, 16, 16, 3), np.uint8))
    monkeypatch.setattr("p2p_jax.data.opening.make_source", lambda data, split: many)
    load(small_config())
    assert "1,067 pairs in train, 1,067 in val" in capsys.readouterr().out


def test_duplicates_are_named_but_not_refused(folder, capsys):
    contents = (folder / "train" / "001.png").read_bytes()
    for copy in ("train/copy.png", "val/held_out.png"):
        (folder / copy).write_bytes(contents)
    assert load(pairs_config(folder)).num_train == 6
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: 1 image is more than once in train (001.png = copy.png)",
        "note: 1 image of val also is in train (held_out.png = 001.png): validation scores look too good",
    ]


def test_one_split_for_both_purposes_is_no_duplicate(folder, capsys):
    load(pairs_config(folder, data__val_split="train"))
    assert "note" not in capsys.readouterr().out


def test_duplicates_are_files_of_the_same_bytes(tmp_path):
    tail = bytes(range(256)) * 40
    contents = {"a": b"1" + tail, "b": b"2" + tail, "c": b"1" + tail, "d": tail, "e": b"", "f": b"", "g": b"x"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    found = find_duplicates([tmp_path / name for name in reversed(contents)])
    assert [[path.name for path in group] for group in found] == [["f", "e"], ["c", "a"]]


def test_duplicates_are_told_by_kind_and_only_few_by_name(tmp_path):
    folders = {label: [tmp_path / f"{label}-{i}" for i in range(6)] for label in ("A", "B", "test")}
    for paths in folders.values():
        for i, path in enumerate(paths):
            path.write_bytes(b"%d" % (i % 5 if paths is folders["A"] else i))
    folders["B"][5].unlink()
    folders["B"].pop()
    for path in folders["test"][1:]:
        path.write_bytes(path.name.encode())
    assert list(describe_duplicates(folders, {"test"})) == [
        "1 image is more than once in A (A-0 = A-5)",
        "5 images of B also are in A (B-0 = A-0, B-1 = A-1, B-2 = A-2, ...)",
        "1 image of test also is in A (test-0 = A-0): validation scores look too good",
        "1 image of test also is in B (test-0 = B-0): validation scores look too good",
    ]


@pytest.mark.slow
def test_archive_name_with_a_copy_of_ones_own(folder):
    data = load(pairs_config(folder, data__source="pix2pix/facades"))
    assert data.num_train == 5


@pytest.mark.slow
def test_keras_is_loaded_only_by_who_asks_for_it():
    code = """
        import sys
        from p2p_jax.data.stream.backend import tensorflow

        tf = tensorflow()
        print("keras" in sys.modules, tf.keras.layers.Dense(2)(tf.ones((1, 3))).shape, "keras" in sys.modules)
    """
    assert run_python(code) == "False (1, 2) True\n"
