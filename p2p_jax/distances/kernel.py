"""The kernel distance of two sets of features (Binkowski et al. 2018), in float64: unbiased, with its spread.

The squared maximum mean discrepancy under the kernel ``(x.y / D + 1) ** 3``. It is the mean over subsets of at most
1,000 images, which is that over all images where they are no more, and so what torch-fidelity gives. Where subsets are
whole sets, they would all be the same; so the spread is that over subsets of half the images at most, which estimates
the standard error of the figure. Subsets are the same at every call, and those that torch-fidelity draws.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

SUBSETS, LARGEST, SEED = 100, 1000, 2020
_ROWS = 1024  # of a kernel that are in memory
_Picks = Sequence[np.ndarray]  # for each subset the places of its images


class Kid(NamedTuple):
    """The distance: mean over subsets, and standard deviation between them."""

    mean: float
    std: float


class KernelDistance:
    """The distance of sets of `count` images from a fixed set; what depends only on the fixed set is kept.

    Args:
      reals: [N, D] features of the set that stays.
      count: of the images of the others, at least 2.
      size: of the subsets of both figures; by default the rule above.
      subsets: how many.
      seed: of the subsets.
    """

    def __init__(
        self, reals: np.ndarray, count: int, *, size: int | None = None, subsets: int = SUBSETS, seed: int = SEED
    ):
        self._reals = np.asarray(reals, np.float64)
        fewest = min(count, len(reals))
        of_mean = size or min(fewest, LARGEST)
        of_spread = size or min(of_mean, max(fewest // 2, 2))
        self._is_one = of_mean == of_spread
        fakes, own = _draw(count, len(reals), of_mean, subsets, seed)
        self._means = len(fakes)
        if not self._is_one:
            of_halves = _draw(count, len(reals), of_spread, subsets, seed)
            fakes, own = fakes + of_halves[0], own + of_halves[1]
        self._fakes, self._own = fakes, own
        self._sums = _within(self._reals, own)

    def __call__(self, fakes: np.ndarray) -> Kid:
        """Return the distance of features [count, D]."""
        fakes = np.asarray(fakes, np.float64)
        sizes = np.array([len(places) for places in self._own])
        same = (_within(fakes, self._fakes) + self._sums) / (sizes * (sizes - 1))
        found = same - 2 * _sums(fakes, self._reals, self._fakes, self._own) / sizes**2
        means, spread = (found, found) if self._is_one else (found[: self._means], found[self._means :])
        return Kid(float(means.mean()), float(spread.std()))


def kid(fakes: np.ndarray, reals: np.ndarray, **options: int | None) -> Kid:
    """Return the distance of two sets of features, [N, D] each; see ``KernelDistance`` for the options."""
    return KernelDistance(reals, len(fakes), **options)(fakes)  # type: ignore[arg-type]


def _draw(first: int, second: int, size: int, subsets: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw subsets of two sets of images of these sizes, as torch-fidelity does; one if they are the whole sets."""
    if first == second == size:
        return [np.arange(first)], [np.arange(second)]
    rng = np.random.RandomState(seed)
    drawn = [[rng.choice(count, size, replace=False) for count in (first, second)] for _ in range(subsets)]
    return [one for one, _ in drawn], [other for _, other in drawn]


def _within(features: np.ndarray, picks: _Picks) -> np.ndarray:
    """Return the sum of the kernel over all pairs of two different images of each subset."""
    alone = (np.einsum("nd,nd->n", features, features) / features.shape[1] + 1) ** 3
    return _sums(features, features, picks, picks) - np.array([alone[places].sum() for places in picks])


def _sums(x: np.ndarray, y: np.ndarray, of_x: _Picks, of_y: _Picks) -> np.ndarray:
    """Return the sum of the kernel over all pairs of each subset, [subsets].

    The kernel of all images is cheaper than those of many subsets, unless there are very many images.
    """
    if len(x) * len(y) > sum(len(a) * len(b) for a, b in zip(of_x, of_y, strict=True)):
        pairs = zip(of_x, of_y, strict=True)
        return np.array([sum(part.sum() for _, part in _kernel(x[a], y[b])) for a, b in pairs])
    in_x, in_y, found = _members(of_x, len(x)), _members(of_y, len(y)), np.zeros(len(of_x))
    for rows, part in _kernel(x, y):
        found += np.einsum("ns,ns->s", in_x[rows], part @ in_y)
    return found


def _kernel(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the kernel between all images, some rows at a time."""
    for first in range(0, len(x), _ROWS):
        rows = slice(first, first + _ROWS)
        part = x[rows] @ y.T / x.shape[1] + 1
        yield rows, part * part * part


def _members(picks: _Picks, count: int) -> np.ndarray:
    """Return the membership of images in subsets, [count, subsets]: 1 or 0."""
    found = np.zeros((count, len(picks)))
    for i, places in enumerate(picks):
        found[places, i] = 1
    return found
