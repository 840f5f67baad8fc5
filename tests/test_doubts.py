"""Single images are not cut in two in silence, and splits that differ are told apart."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import layouts, load
from p2p_jax.data.inspect import inspection
from p2p_jax.data.inspect.doubts import doubt_halves
from p2p_jax.errors import InputError
from support.configs import data_config, small_config
from support.images import noise, save

REAL = Path(os.environ.get("P2P_JAX_TEST_DATA", "")) / "facades"


def scene(seed, width=64, height=64):
    """Draw a picture like a photograph: smooth, with detail everywhere and no edge in its middle."""
    rng = np.random.RandomState(seed)
    large = Image.fromarray(noise(9, 9, 3, seed=seed)).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    left, top = rng.randint(width), rng.randint(height)
    cut = np.asarray(large)[top : top + height, left : left + width]
    return np.clip(cut + rng.normal(0, 4, (height, width, 1)), 0, 255).astype(np.uint8)


def labels(seed, side=64):
    return np.asarray(Image.fromarray(noise(4, 4, 3, seed=seed)).resize((side, side), Image.Resampling.NEAREST))


def pair(seed, side=64):
    return np.concatenate([scene(seed, side, side), labels(seed, side)], axis=1)


def drawing(seed, side=64):
    """Draw lines on white that do not reach the border, as edges2shoes has them."""
    image = np.full((side, side, 3), 255, np.uint8)
    image[20:44, 20:44] = scene(seed, 24, 24)
    return image


def framed(seed, side=64):
    """Draw a pair whose right half has a frame of one colour, whose mean is no short number in binary."""
    right = scene(seed, side, side)
    right[:, 0] = 170, 170, 171
    return np.concatenate([scene(seed + 50, side, side), right], axis=1)


def write(folder, split, images):
    for i, image in enumerate(images):
        save(folder / split / f"{i}.png", image)


def options(folder, **changes):
    return data_config(**{"source": "side_by_side", "dir": str(folder), "load_size": 64, "crop_size": 64} | changes)


def doubts(folder, **changes):
    """Return what training says in refusing, and what inspection says."""
    config = options(folder, **changes)
    found = [error for error in inspection.inspect(config).errors if "single images" in error]
    try:
        load(config)
    except InputError as error:
        assert str(error) == "; ".join(found)
        return found
    assert not found
    return []


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (48, 96)])
def test_single_images_are_not_cut_in_two(tmp_path, size):
    write(tmp_path, "train", [scene(i, *size) for i in range(8)])
    write(tmp_path, "val", [pair(i) for i in range(4)])
    (found,) = doubts(tmp_path, preprocess="resize_and_crop")
    assert found.startswith(f"the files of train ({tmp_path / 'train' / '0.png'}) look like single images")
    assert "without a seam in 8 of 8" in found and "config.data.source=folders" in found
    assert doubts(tmp_path, source="side_by_side/AB") == []


def test_a_split_of_single_images_beside_pairs(tmp_path):
    write(tmp_path, "train", [pair(i) for i in range(8)])
    write(tmp_path, "val", [scene(i) for i in range(4)])
    (found,) = doubts(tmp_path)
    assert found.startswith("the files of val")
    write(tmp_path, "val", [drawing(i) for i in range(4)])  # nothing in the middle tells, but the width does
    (found,) = doubts(tmp_path)
    assert "most files are half as wide as those of train" in found


@pytest.mark.filterwarnings("error")  # 0 / 0, in the columns of one colour
@pytest.mark.parametrize(
    "make",
    [
        pair,
        framed,
        lambda seed: np.concatenate([drawing(seed), drawing(seed)], axis=1),
        lambda seed: np.concatenate([scene(seed), 255 - scene(seed)], axis=1),
        lambda seed: np.concatenate([scene(seed), scene(seed)], axis=1),
        lambda seed: np.concatenate([scene(seed, 32, 64), scene(seed + 50, 32, 64)], axis=1),  # a square file
        lambda seed: noise(64, 128, 3, seed=seed),
        lambda seed: np.asarray(
            Image.fromarray(noise(64, 128, 3, seed=seed)).resize((128, 64)).reduce(2).resize((128, 64))
        ),
        lambda seed: np.full((64, 128, 3), seed, np.uint8),
    ],
)
def test_pairs_are_not_doubted(tmp_path, make):
    for split in ("train", "val"):
        write(tmp_path, split, [make(i + 10 * (split == "val")) for i in range(8)])
    assert doubts(tmp_path) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="P2P_JAX_TEST_DATA names no folder with facades")
def test_real_sets():
    def found(name, *splits):
        data = options(REAL.parent / name, train_split=splits[0]).data
        return doubt_halves({split: layouts.find(data, split) for split in splits}, data)

    assert found("facades", "train", "val") == found("emoji", "train", "val") == found("edges2shoes", "train") == []
    (doubt,) = found("horse2zebra", "trainA")
    assert "look like single images" in doubt


def test_splits_that_differ_are_told(tmp_path, capsys):
    for name, a in (("train", noise(64, 64, 3)), ("val", noise(40, 48))):
        for i in range(3):
            save(tmp_path / name / "A" / f"{i}.png", a + np.uint8(i))
            save(tmp_path / name / "B" / f"{i}.png", noise(*a.shape[:2], 3, seed=i))
    config = small_config(data__source="folders", data__dir=str(tmp_path), data__load_size=18)
    told = [
        "images of A in val are 1 channel of uint8, those of train 3 channels of uint8",
        "images of A in val are 48x40 pixels, those of train 64x64 pixels",
        "images of B in val are 48x40 pixels, those of train 64x64 pixels",
    ]
    assert [note for note in inspection.inspect(config).warnings if "those of train" in note] == told
    load(config)
    printed = capsys.readouterr().out
    assert all(f"note: {note}" in printed for note in told)
