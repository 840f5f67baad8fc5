"""DiffAugment in closed form: what is shifted, cut out and coloured, and by how much."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.objectives import diff_augment
from p2p_jax.objectives.diff_augment import find_augmentation

SHAPE = (64, 16, 24, 3)


@pytest.fixture(scope="module")
def pictures():
    return 0.1 + jax.random.uniform(jax.random.key(0), SHAPE)  # no zeros: these come in alone


def shifts_of(moved, pictures):
    """Return by how many pixels each image was shifted down and right, found by trying all."""
    found = []
    for image, original in zip(np.asarray(moved), np.asarray(pictures), strict=True):
        padded = np.pad(original, ((3, 3), (4, 4), (0, 0)))
        matches = [
            (3 - i, 4 - j) for i in range(7) for j in range(9) if np.array_equal(padded[i : i + 16, j : j + 24], image)
        ]
        assert len(matches) == 1, "an image is no shift of the original by at most an eighth of each side"
        found += matches
    return np.array(found)


def test_translation_shifts_by_an_eighth_of_each_side_at_most(pictures):
    found = shifts_of(diff_augment.translation(pictures, jax.random.key(1)), pictures)
    assert set(found[:, 0]) == set(range(-2, 3))
    assert set(found[:, 1]) == set(range(-3, 4))
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.4  # rows and columns are drawn apart


def test_cutout_takes_half_of_each_side_wherever_its_centre_falls(pictures):
    cut = np.asarray(diff_augment.cutout(pictures, jax.random.key(2)) == 0)
    assert (cut == cut[..., :1]).all()
    heights, widths = cut[..., 0].any(2).sum(1), cut[..., 0].any(1).sum(1)
    np.testing.assert_array_equal(cut[..., 0].sum((1, 2)), heights * widths)  # a rectangle
    assert heights.max() == 8 and widths.max() == 12
    assert heights.min() < 8 and widths.min() < 12  # beyond the border
    assert heights.min() >= 4 and widths.min() >= 6  # the centre is inside
    kept = np.where(cut, 0, pictures)
    np.testing.assert_array_equal(kept, diff_augment.cutout(pictures, jax.random.key(2)))


def test_color_changes_brightness_saturation_and_contrast(pictures):
    """Of a gray image only brightness and contrast are seen; both are found from its mean and its deviation."""
    gray = jnp.repeat(pictures[..., :1], 3, -1)
    changed = diff_augment.color(gray, jax.random.key(3))
    np.testing.assert_allclose(changed[..., 0], changed[..., 2], atol=1e-5)
    contrast = np.asarray(changed.std((1, 2, 3)) / gray.std((1, 2, 3)))
    brightness = np.asarray(changed.mean((1, 2, 3)) - gray.mean((1, 2, 3)))
    assert 0.5 <= contrast.min() < 0.6 and 1.4 < contrast.max() <= 1.5
    assert -0.5 <= brightness.min() < -0.4 and 0.4 < brightness.max() <= 0.5
    coloured = diff_augment.color(pictures, jax.random.key(3))
    spread = np.asarray((coloured - coloured.mean(3, keepdims=True)).std((1, 2, 3)))
    original = np.asarray((pictures - pictures.mean(3, keepdims=True)).std((1, 2, 3)))
    saturation = spread / original / contrast
    assert 0 <= saturation.min() < 0.15 and 1.85 < saturation.max() <= 2.0001
    correlations = np.corrcoef([contrast, brightness, saturation])
    assert np.abs(correlations - np.eye(3)).max() < 0.5  # each is drawn by itself


def test_gradients_come_through_and_nothing_is_changed_unasked(pictures):
    slope = jax.grad(lambda x: diff_augment.translation(x, jax.random.key(1)).sum())(pictures)
    inside = np.asarray(slope)[:, 2:-2, 3:-3]
    np.testing.assert_array_equal(inside, np.ones_like(inside))
    assert set(np.unique(slope)) == {0, 1}
    augment = find_augmentation("")
    same, condition = augment(pictures, None, jax.random.key(0))
    assert same is pictures and condition is None


def test_colors_are_of_the_picture_alone(pictures):
    changed, condition = find_augmentation("color")(pictures, pictures, jax.random.key(4))
    np.testing.assert_array_equal(condition, pictures)
    assert np.abs(changed - pictures).max() > 0.1
