"""Toy facades: the same on every machine, exact labels, and a photograph that can be told from its labels."""

import zlib

import numpy as np
import pytest

from p2p_jax.data.toy.facades import CLASSES, PALETTE, SPLIT_SIZES, ToyFacade
from p2p_jax.data.toy.night import at_night
from p2p_jax.errors import InputError
from support.environment import draw_facade as render


@pytest.fixture(scope="module")
def hundred() -> list[ToyFacade]:
    return [render(index, "train", 64) for index in range(100)]


def _material(classes: np.ndarray) -> str:
    """Read the material off the label map, by the rule in the module's docstring."""
    pillar, blind, course = (CLASSES.index(name) in classes for name in ("pillar", "blind", "molding"))
    return "stone" if pillar else "ochre" if blind else "stucco" if course else "brick"


@pytest.mark.parametrize(
    ("split", "index", "crc"),
    [
        ("train", 0, 3739598728),
        ("train", 7, 1829841667),
        ("val", 3, 2410994272),
        ("test", 99, 787613840),
    ],
)
def test_classes_are_those_drawn_when_this_was_written(split, index, crc):
    assert zlib.crc32(render(index, split, 64).classes.tobytes()) == crc


def test_an_example_does_not_depend_on_those_drawn_before_it():
    first = render(5, "val", 64)
    render(6, "val", 64)
    for once, again in zip(first, render(5, "val", 64), strict=True):
        np.testing.assert_array_equal(once, again)


def test_no_two_examples_share_a_label_map_within_or_across_splits(hundred):
    maps = [example.classes.tobytes() for example in hundred]
    maps += [render(index, split, 64).classes.tobytes() for split in ("val", "test") for index in range(25)]
    assert len(set(maps)) == 150


def test_splits_have_the_sizes_of_the_cmp_facades():
    assert SPLIT_SIZES == {"train": 400, "val": 100, "test": 100}


@pytest.mark.parametrize("size", [64, 100, 256])
def test_shapes_and_palette(size):
    photo, labels, classes = render(1, "test", size)
    assert photo.shape == labels.shape == (size, size, 3) and classes.shape == (size, size)
    assert photo.dtype == labels.dtype == classes.dtype == np.uint8
    np.testing.assert_array_equal(labels, PALETTE[classes])


def test_palette_has_twelve_different_colours_in_the_order_of_the_classes():
    assert PALETTE.shape == (len(CLASSES), 3) == (12, 3) and len(np.unique(PALETTE, axis=0)) == 12
    assert tuple(PALETTE[CLASSES.index("window")]) == (0, 85, 255)
    assert tuple(PALETTE[CLASSES.index("shop")]) == (170, 0, 0)


def test_small_and_large_show_the_same_house():
    for index in range(8):
        small, large = render(index, "train", 64), render(index, "train", 256)
        assert np.mean(small.classes == large.classes[2::4, 2::4]) > 0.98
        blocks = large.photo.reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(blocks - small.photo).mean() < 4  # of 255; the grain differs


def test_every_class_is_common(hundred):
    pixels = np.bincount(np.concatenate([example.classes.ravel() for example in hundred]), minlength=12)
    assert pixels.min() / pixels.sum() > 0.008
    presence = np.mean([[(example.classes == k).any() for k in range(12)] for example in hundred], axis=0)
    assert presence.min() > 0.15
    np.testing.assert_array_equal(presence[:5], 1)  # background, facade, window, door, cornice


@pytest.mark.slow
def test_the_photograph_can_be_told_from_the_labels(hundred):
    """Fit colour linearly to the labels within two pixels and the height, one fit per material."""
    told, total = 0.0, 0.0
    y, x = np.mgrid[2:62, 2:62].reshape(2, -1)[:, ::13]  # one pixel in thirteen will do
    shifts = [(0, 0)] + [(d * k, d * (1 - k)) for d in (-2, -1, 1, 2) for k in (0, 1)]
    for style in ("stone", "ochre", "stucco", "brick"):
        houses = [example for example in hundred if _material(example.classes) == style]
        sums, products = [], []
        for classes, photo in ((e.classes, e.photo) for e in houses):
            near = np.hstack([np.eye(12)[classes[y + dy, x + dx]] for dy, dx in shifts])
            here, height = near[:, :12], y[:, None] / 64
            features = np.hstack([near, here * height, here * height**2])
            colours = photo[y, x].astype(float)
            sums.append((features.T @ features, features.T @ colours))
            products.append((features, colours))
        half = len(houses) // 2  # fit on one half of the houses, judge on the other
        left, right = (sum(part) for part in zip(*sums[:half], strict=True))
        weights = np.linalg.solve(left + 0.1 * np.eye(len(left)), right)
        for features, colours in products[half:]:
            told += np.square(colours - features @ weights).sum()
            total += np.square(colours - np.mean([c.mean(0) for _, c in products[half:]], axis=0)).sum()
    assert 1 - told / total > 0.65


def test_walls_of_one_material_have_one_colour(hundred):
    walls = [np.median(e.photo[e.classes == CLASSES.index("facade")], axis=0)
             for e in hundred if _material(e.classes) == "ochre"]  # fmt: skip
    assert len(walls) > 10
    assert np.std(walls, axis=0).max() < 10  # of 255


@pytest.mark.parametrize(
    ("index", "split", "size", "message"),
    [
        (0, "valid", 64, "train, val, test"),
        (400, "train", 64, "0 to 399"),
        (-1, "test", 64, "0 to 99"),
        (0, "train", 8, "16 to 1024"),
        (0, "train", 2048, "16 to 1024"),
    ],
)
def test_wrong_arguments_are_named(index, split, size, message):
    with pytest.raises(InputError, match=message):
        render(index, split, size)


def _mean(photo: np.ndarray, where: np.ndarray) -> np.ndarray:
    return photo[where].astype(float).mean(axis=0)


@pytest.mark.parametrize("size", [64, 100, 256])
def test_night_has_dark_skies_and_lit_windows(size):
    for index in range(4):
        facade = render(index, "train", size)
        night = at_night(facade)
        assert night.shape == facade.photo.shape and night.dtype == np.uint8
        np.testing.assert_array_equal(night, at_night(render(index, "train", size)))
        sky = np.zeros((size, size), bool)
        sky[: size // 10] = facade.classes[: size // 10] == CLASSES.index("background")
        day, dark = _mean(facade.photo, sky), _mean(night, sky)
        assert dark.mean() < 0.4 * day.mean() and dark[2] > 2 * dark[:2].max()  # blue
        wall, window = (_mean(night, facade.classes == CLASSES.index(name)) for name in ("facade", "window"))
        assert wall.mean() < 0.6 * _mean(facade.photo, facade.classes == CLASSES.index("facade")).mean()
        assert window.sum() > 1.3 * wall.sum()  # brighter, with all its bars
        assert window[0] / window[2] > 2 * wall[0] / wall[2]  # warmer
        if (shop := facade.classes == CLASSES.index("shop")).any():
            assert _mean(night, shop)[0] > 1.5 * wall[0]


def test_night_is_a_small_and_large_picture_of_one_house():
    for index in range(4):
        small, large = (at_night(render(index, "val", size)) for size in (64, 256))
        assert np.abs(large.reshape(64, 4, 64, 4, 3).mean((1, 3)) - small).mean() < 5  # of 255


def test_panes_are_the_brighter_the_darker_they_were(hundred):
    panes = hundred[0].classes == CLASSES.index("window")
    day, night = (photo[panes].mean(axis=-1) for photo in (hundred[0].photo, at_night(hundred[0])))
    assert np.corrcoef(day, night)[0, 1] < -0.95


def test_the_day_can_be_told_from_the_night(hundred):
    """Fit day colour to night colour, class by class; judge on other houses."""
    nights = np.stack([at_night(facade) for facade in hundred]) / 255
    days = np.stack([facade.photo for facade in hundred]) / 255
    classes = np.stack([facade.classes for facade in hundred])
    told = total = 0.0
    for k in range(len(CLASSES)):
        (x, y), (x_new, y_new) = ((p[h][classes[h] == k] for p in (nights, days)) for h in (slice(50), slice(50, 100)))
        x, x_new = (np.hstack([np.ones((len(v), 1)), v, v**2, np.sqrt(v)]) for v in (x, x_new))
        told += np.square(y_new - x_new @ np.linalg.lstsq(x, y, rcond=None)[0]).sum()
        total += np.square(y_new - y.mean(axis=0)).sum()
    assert 1 - told / total > 0.9
