"""CIE Lab against scikit-image, and what it lacks: colours that no screen has keep their lightness."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from p2p_jax.errors import InputError
from p2p_jax.images import lab

COLORS = np.stack(np.meshgrid(*[[0, 1, 2, 5, 20, 64, 127, 128, 200, 250, 254, 255]] * 3), -1).astype(np.uint8)


def lightness(pixels):
    return rgb2lab(pixels / 255)[..., 0]


def asked(seed=0, shape=(40, 50)):
    """Return colours of which most are in no screen's gamut."""
    return np.random.default_rng(seed).uniform((0, -110, -110), (100, 110, 110), (*shape, 3)).astype(np.float32)


def test_known_colours():
    found = lab.from_rgb(np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8))
    assert found.dtype == np.float32
    # Red and blue as Lindbloom's calculator gives them for sRGB and D65.
    expected = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_from_rgb_against_scikit_image():
    np.testing.assert_allclose(lab.from_rgb(COLORS), rgb2lab(COLORS / 255), atol=2e-4)


def test_every_colour_comes_back():
    np.testing.assert_array_equal(lab.to_rgb(lab.from_rgb(COLORS)), COLORS)


def test_within_the_gamut_nothing_is_changed():
    x = lab.from_rgb(np.random.default_rng(0).integers(20, 235, (64, 64, 3), np.uint8))
    x += np.random.default_rng(1).uniform(-0.3, 0.3, x.shape).astype(np.float32)
    found = lab.to_rgb(x)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(lab2rgb(x) * 255))


def test_outside_lightness_and_hue_are_kept():
    x = asked()
    found = lab.to_rgb(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = np.rint(lab2rgb(x) * 255)
    assert np.abs(lightness(cut) - x[..., 0]).max() > 20  # what cutting colours off would do
    assert np.abs(lightness(found) - x[..., 0]).max() < 0.3  # a level of 8 bits is up to 0.4 of L

    back = lab.from_rgb(found)
    chroma, before = (np.hypot(y[..., 1], y[..., 2]) for y in (back, x))
    assert (chroma <= before + 1.5).all()
    cosine = (back[..., 1:] * x[..., 1:]).sum(-1) / np.maximum(chroma * before, 1e-6)
    assert cosine[chroma > 20].min() > 0.998


def test_the_strongest_colour_that_fits_is_taken():
    x = asked()
    found = lab.to_rgb(x)
    outside = (np.abs(lab.from_rgb(found) - x) > 3).any(-1)
    assert outside.mean() > 0.5
    # It lies on the border of the gamut, to the rounding.
    assert ((found.min(-1) <= 1) | (found.max(-1) >= 254))[outside].all()


def test_without_colour_it_is_gray_and_lightness_is_cut_off():
    x = np.zeros((5, 3), np.float32)
    x[:, 0] = -10, 0, 53.585, 100, 120
    np.testing.assert_array_equal(lab.to_rgb(x), np.repeat([[0], [0], [128], [255], [255]], 3, 1))
    assert x[0, 0] == -10  # the argument is left alone


def test_any_shape_and_threads():
    x = asked(shape=(2, 3, 4))
    np.testing.assert_array_equal(lab.to_rgb(x)[1, 2], lab.to_rgb(x[1, 2]))
    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        results = list(pool.map(lab.to_rgb, [x] * 16))
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InputError, match=r"Lab need scikit-image: pip install 'p2p_jax\[images\]'"):
        lab.from_rgb(COLORS)
