"""Unpaired images: two sides in one stream that know nothing of each other."""

import itertools
from collections import Counter
from functools import partial

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import Source, Unpaired, from_arrays, load, load_split, unpaired_from_arrays
from p2p_jax.data.splits import split_meant
from p2p_jax.data.stream.sources import make_source
from p2p_jax.data.toy.facades import render
from p2p_jax.data.toy.night import at_night
from p2p_jax.errors import InputError
from support.comparers import assert_equal_batches
from support.configs import data_config
from support.images import noise, save

config_of = partial(data_config, val_split="test", flip=True)


def numbered(count, start=0, size=16, channels=3):
    """Return images of one colour each: the number of the image."""
    return np.broadcast_to(
        np.arange(start, start + count, dtype=np.uint8)[:, None, None, None], (count, size, size, channels)
    )


@pytest.fixture
def load_sides(monkeypatch):
    """Return a function that loads sides of so many numbered images: A from 0, B from 100."""

    def loaded(count_a, count_b, processes=None, size=16, **changes):
        both = unpaired_from_arrays(numbered(count_a, size=size), numbered(count_b, 100, size=size))
        monkeypatch.setattr("p2p_jax.data.opening.make_source", lambda data, split: both)
        config = config_of(**changes)
        if not processes:
            return load(config)
        return [load(config, process_index=i, process_count=processes) for i in range(processes)]

    return loaded


def test_val_is_the_runs_own_validation_split(tmp_path):
    for side in "AB":
        for i in range(4):
            save(tmp_path / f"my {side}" / f"{i}.png", noise(16, 16, 3, seed=i))
    named = {"dir_a": "my A", "dir_b": "my B", "val_fraction": 0.25, "val_split": "test"}
    config = config_of(source="unpaired", dir=str(tmp_path), **named)
    asked = {name: split_meant(config.data, name) for name in (None, "val", "test", "train", "vall")}
    assert asked == {None: "test", "val": "test", "test": "test", "train": "train", "vall": "vall"}
    assert [len(names) for names in load_split(config, "test").names] == [1, 1]
    with pytest.raises(InputError, match="is the same for train and vall: its validation split is called test"):
        load_split(config, "vall")
    (tmp_path / "val").mkdir()
    with config.unlocked():
        config.data.update({"dir_a": "", "dir_b": ""})
    assert split_meant(config.data, "val") == "val"  # there is one of that name


def numbers(image):
    """Return the number of each image of a batch."""
    return np.rint((image[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def streamed(data, count, first_step=0):
    """Return the numbers of the first images of a stream: those of A and those of B."""
    a, b = [], []
    for batch in data.train(first_step):
        a += numbers(batch["real_a"])
        b += numbers(batch["real_b"])
        if len(a) >= count:
            return a[:count], b[:count]


def test_counts_and_contract(load_sides, capsys):
    data = load_sides(5, 3, size=20)
    assert (data.num_train, data.num_val) == (5, 5)
    assert "5 + 3 unpaired images in train, 5 + 3 in test; AtoB" in capsys.readouterr().out
    for image in next(data.train(0)).values():
        assert image.shape == (4, 16, 16, 3) and image.dtype == np.float32
        assert abs(image).max() <= 1


@pytest.mark.slow
def test_stream_is_a_function_of_seed_and_step(load_sides):
    noise = {"size": 40, "data__load_size": 18}
    batches = list(itertools.islice(load_sides(5, 3, **noise).train(0), 9))
    for step in (1, 4, 8):
        assert_equal_batches(next(load_sides(5, 3, **noise).train(step)), batches[step])
    assert streamed(load_sides(5, 3, seed=1), 20) != streamed(load_sides(5, 3), 20)


def test_every_pass_over_a_side_is_a_permutation_of_it(load_sides):
    a, b = streamed(load_sides(5, 3), 60)
    assert Counter(a) == {i: 12 for i in range(5)}
    assert Counter(b) == {100 + i: 20 for i in range(3)}
    passes_a, passes_b = ([tuple(x[i : i + n]) for i in range(0, 60, n)] for x, n in ((a, 5), (b, 3)))
    assert {tuple(sorted(x)) for x in passes_a} == {tuple(range(5))}
    assert {tuple(sorted(x)) for x in passes_b} == {(100, 101, 102)}
    assert len(set(passes_a)) > 6 and len(set(passes_b)) > 3


@pytest.mark.slow
def test_orders_are_independent(load_sides):
    a, b = streamed(load_sides(8, 8), 64)
    assert a != [i - 100 for i in b]
    assert len(set(zip(a, b, strict=True))) > 30  # of 64 pairs that there are
    assert streamed(load_sides(3, 8), 64)[1] == b  # B's order does not know A
    assert streamed(load_sides(8, 5), 64)[0] == a


@pytest.mark.parametrize("flip", [True, False])
def test_crops_and_flips_are_independent(monkeypatch, flip):
    ramp = np.broadcast_to(np.arange(18, dtype=np.uint8) * 10, (18, 18))
    image = np.stack([ramp, ramp.T, ramp], axis=-1)[None]
    monkeypatch.setattr("p2p_jax.data.opening.make_source", lambda *_: unpaired_from_arrays(image, image))
    data = load(config_of(data__load_size=18, data__flip=flip, batch_size=64))
    seen = []
    for real in next(data.train(0)).values():
        values = np.rint((real + 1) * 127.5 / 10).astype(int)
        flipped = values[:, 0, 0, 0] > values[:, 0, 1, 0]
        assert flip or not flipped.any()
        left = np.where(flipped, values[:, 0, -1, 0], values[:, 0, 0, 0])
        seen.append(list(zip(values[:, 0, 0, 1].tolist(), left.tolist(), flipped.tolist(), strict=True)))
    assert set(seen[0]) == set(seen[1]) == set(itertools.product(range(3), range(3), (False, True)[: 1 + flip]))
    equal = [x == y for x, y in zip(*seen, strict=True)]
    assert sum(equal) < 20  # 64 / 9 or 64 / 18 by chance


@pytest.mark.slow
def test_processes_share_each_batch(load_sides):
    whole, shares = load_sides(5, 3), load_sides(5, 3, processes=2)
    for step in (0, 7):
        parts = [next(share.train(step)) for share in shares]
        assert_equal_batches({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, next(whole.train(step)))
    together = [pair for batch in whole.validation(2) for pair in zip(*map(numbers, batch.values()), strict=True)]
    for i, share in enumerate(shares):
        mine = [pair for batch in share.validation(2) for pair in zip(*map(numbers, batch.values()), strict=True)]
        assert mine == together[i::2]


@pytest.mark.parametrize("counts", [(5, 2), (2, 5), (4, 4)])
def test_validation_passes_once_over_the_longer_side(load_sides, counts):
    batches = list(load_sides(*counts).validation(2))
    a, b = ([n for batch in batches for n in numbers(batch[key])] for key in ("real_a", "real_b"))
    length = max(counts)
    assert a == [i % counts[0] for i in range(length)]
    assert b == [100 + i % counts[1] for i in range(length)]


@pytest.mark.slow
def test_direction_swaps_the_sides(load_sides):
    one, other = (load_sides(5, 3, size=40, data__load_size=18, data__direction=d) for d in ("AtoB", "BtoA"))
    for there, back in ((one.train(3), other.train(3)), (one.validation(4), other.validation(4))):
        first, second = next(there), next(back)
        assert_equal_batches(first, {"real_a": second["real_b"], "real_b": second["real_a"]})
    assert min(numbers(next(other.validation(4))["real_a"])) >= 100
    assert other.fingerprint == one.fingerprint


def write_sides(root, layout="{split}A {split}B", counts=(3, 2)):
    """Write noise whose names and sizes match nowhere."""
    rng = np.random.RandomState(0)
    for split in ("train", "test"):
        for side, folder in enumerate(layout.format(split=split).split()):
            (root / folder).mkdir(parents=True)
            for i in range(counts[side]):
                image = rng.randint(0, 256, (16 + i, 20 + side, 3), np.uint8)
                Image.fromarray(image).save(root / folder / f"{'xy'[side]}{i}.{'png' if i else 'bmp'}")
    return root


def folder_config(root, **changes):
    return config_of(data__source="unpaired", data__dir=str(root), **changes)


@pytest.mark.parametrize("layout", ["{split}/A {split}/B", "A/{split} B/{split}", "{split}A {split}B"])
def test_two_folders_without_partners(tmp_path, layout, capsys):
    data = load(folder_config(write_sides(tmp_path, layout)))
    assert (data.num_train, data.num_val) == (3, 3)
    assert "3 + 2 unpaired images in train, 3 + 2 in test" in capsys.readouterr().out
    batch = next(data.validation(3))
    np.testing.assert_array_equal(batch["real_b"][0], batch["real_b"][2])
    first = Image.open(tmp_path / layout.format(split="test").split()[0] / "x0.bmp")
    resized = np.asarray(first.resize((16, 16), Image.Resampling.BICUBIC), np.float32)
    assert np.abs((batch["real_a"][0] + 1) * 127.5 - resized).max() <= 1.01


@pytest.mark.parametrize("channels", [(3, 3), (1, 3), (3, 1)])
def test_gray_images_among_colour_ones(tmp_path, channels):
    path = write_sides(tmp_path) / "testB" / "y1.png"
    Image.open(path).convert("L").resize((16, 16)).save(path)
    config = folder_config(tmp_path, data__input__channels=channels[0], data__output__channels=channels[1])
    batch = next(load(config).validation(3))
    assert (batch["real_a"].shape[-1], batch["real_b"].shape[-1]) == channels
    gray = np.rint((batch["real_b"][1] + 1) * 127.5)
    np.testing.assert_array_equal(gray, np.broadcast_to(np.asarray(Image.open(path))[..., None], gray.shape))


def test_fingerprint_knows_both_sides(tmp_path):
    prints = [load(folder_config(write_sides(tmp_path))).fingerprint]
    for folder in ("trainA", "testB"):
        Image.new("RGB", (9, 9)).save(tmp_path / folder / "new.png")
        prints.append(load(folder_config(tmp_path)).fingerprint)
    assert len(set(prints)) == 3


def damage(root, side):
    return next((root / f"train{side}").glob("*1.png"))


@pytest.mark.parametrize("side", ["A", "B"])
@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:99]), "cannot be read"),
        (lambda path: Image.new("RGBA", (9, 9)).save(path), "has transparent parts"),
    ],
)
def test_faults_of_either_side_are_named_before_training(tmp_path, side, save, message):
    path = damage(write_sides(tmp_path), side)
    save(path)
    with pytest.raises(InputError, match=rf"train{side}.{path.name} {message}"):
        load(folder_config(tmp_path))


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_damaged_file_of_either_side_is_named_when_it_is_met(tmp_path, side, monkeypatch):
    monkeypatch.setattr("p2p_jax.data.checks.PIXELS_READ", 0)
    path = damage(write_sides(tmp_path), side)
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(InputError, match=rf"train{side}.{path.name} cannot be read"):
        list(itertools.islice(load(folder_config(tmp_path)).train(0), 3))
    (tmp_path / f"train{side}").rename(tmp_path / "kept")
    (tmp_path / f"test{side}").rename(tmp_path / f"train{side}")
    (tmp_path / "kept").rename(tmp_path / f"test{side}")
    with pytest.raises(InputError, match=rf"test{side}.{path.name} cannot be read"):
        list(load(folder_config(tmp_path)).validation(2))


def test_missing_folders_are_named(tmp_path):
    write_sides(tmp_path)
    with pytest.raises(
        InputError, match=r"no pair of folders val/A and val/B, .*testA, testB.*val_split= trains without"
    ):
        load(folder_config(tmp_path, data__val_split="val"))
    for path in (tmp_path / "testB").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no image in .*testB"):
        load(folder_config(tmp_path))


def test_duplicates_are_named_by_side(tmp_path, capsys):
    write_sides(tmp_path)
    for copy in ("trainA/copy.bmp", "trainB/z.bmp", "testA/z.bmp"):
        (tmp_path / copy).write_bytes((tmp_path / "trainA" / "x0.bmp").read_bytes())
    load(folder_config(tmp_path))
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")] == [
        "note: 1 image is more than once in trainA (copy.bmp = x0.bmp)",
        "note: 1 image of trainB also is in trainA (z.bmp = copy.bmp)",
        "note: 1 image of testA also is in trainA (z.bmp = copy.bmp): validation scores look too good",
        "note: 1 image of testA also is in trainB (z.bmp = z.bmp): validation scores look too good",
    ]


def test_arrays_of_different_shapes(monkeypatch):
    both = unpaired_from_arrays(numbered(3, 1, size=20, channels=1), numbered(2, 5, size=40)[:, :30])
    monkeypatch.setattr("p2p_jax.data.opening.make_source", lambda *_: both)
    batch = next(load(config_of(data__input__channels=1)).validation(3))
    assert {key: image.shape for key, image in batch.items()} == {"real_a": (3, 16, 16, 1), "real_b": (3, 16, 16, 3)}
    assert numbers(batch["real_a"]) == [1, 2, 3] and numbers(batch["real_b"]) == [5, 6, 5]
    with pytest.raises(InputError, match="one is float64"):
        unpaired_from_arrays(numbered(3), np.zeros((2, 4, 4, 3)))


def test_source_from_outside_the_library(tmp_path, monkeypatch):
    (tmp_path / "my_sides.py").write_text(
        "import numpy as np\nfrom p2p_jax.data import unpaired_from_arrays\n"
        "def make(data, split):\n"
        "    return unpaired_from_arrays(np.full((7, 16, 16, 3), 50, np.uint8), np.full((9, 8, 8, 3), 150, np.uint8))\n"
    )
    monkeypatch.chdir(tmp_path)
    data = load(config_of(data__source="my_sides:make"))
    assert data.num_train == 9
    batch = next(data.train(0))
    assert set(numbers(batch["real_a"])) == {50} and set(numbers(batch["real_b"])) == {150}


def test_a_source_that_reads_another_number_of_images_is_named(monkeypatch):
    pairs = from_arrays(numbered(3), numbered(3), ["one", "two", "three"])
    side = Source(["single", "other"], lambda index: pairs.read(index)[:1])
    bare = Source(["bare"], lambda index: pairs.read(index)[0])
    for wrong, name in (
        (Unpaired(side, pairs), "one"),
        (side, "single"),
        (bare, "bare"),
        (Unpaired(side, bare), "bare"),
    ):
        monkeypatch.setattr("p2p_jax.data.opening.make_source", lambda *_, wrong=wrong: wrong)
        with pytest.raises(InputError, match=rf"source of {name}: read\(\) must return a tuple of two images"):
            load(config_of())


@pytest.mark.slow
def test_toy_unpaired_shows_other_houses_by_day_and_at_night(capsys):
    config = config_of(data__source="toy_unpaired", data__val_split="val", data__load_size=20)
    sides = make_source(config.data, "val")
    assert (len(sides.a.names), len(sides.b.names)) == (50, 50)
    np.testing.assert_array_equal(sides.a.read(7)[0], render(7, "val", 16).photo)
    np.testing.assert_array_equal(sides.b.read(7)[0], at_night(render(57, "val", 16)))
    data = load(config)
    assert (data.num_train, data.num_val) == (200, 50)
    assert "200 + 200 unpaired images in train, 50 + 50 in val" in capsys.readouterr().out
    batch = next(data.validation(50))
    assert batch["real_a"].mean() > batch["real_b"].mean() + 0.5
    with pytest.raises(InputError, match="splits train, val, test, not 'dev'"):
        make_source(config.data, "dev")
