"""What it means to be equal: to the bit, but for rounding, in every pixel."""

import itertools
from collections.abc import Iterable, Mapping

import jax
import numpy as np


def assert_equal_trees(found, expected) -> None:
    """Assert that two trees have one structure and the same numbers, to the bit."""
    found, expected = jax.device_get(found), jax.device_get(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(a, b), f"{jax.tree_util.keystr(path)} differs"


def assert_close_trees(found, expected, *, rtol=0.0, atol=0.0, of_largest=0.0, least=0.0) -> None:
    """Assert that two trees are the same but for rounding.

    Args:
      found: any tree of arrays.
      expected: a tree of the same structure.
      rtol: relative to each number.
      atol: absolute.
      of_largest: relative to the largest number of each array, or to `least` where that is larger.
      least: see `of_largest`.
    """
    found, expected = jax.device_get(found), jax.device_get(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        room = atol + of_largest * max(float(np.abs(b).max(initial=0)), least) if of_largest else atol
        np.testing.assert_allclose(a, b, rtol=rtol, atol=room)


def assert_equal_batches(found: Mapping, expected: Mapping) -> None:
    """Assert that two batches have the same images of the same names."""
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def assert_equal_streams(found: Iterable[Mapping], expected: Iterable[Mapping]) -> None:
    """Assert that two streams have as many batches, and the same ones."""
    for a, b in itertools.zip_longest(found, expected):
        assert_equal_batches(a, b)


def same_pixels(found: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether pixels of 8 bits are equal but for roundings of sums in another order."""
    return found.shape == expected.shape and bool(np.abs(found.astype(int) - expected).max() <= 1)
