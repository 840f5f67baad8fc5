"""The Frechet distance of two sets of features (Heusel et al. 2017), in float64, of any number of images.

FID is ``|m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2)``. With A and B the centred features divided by ``sqrt(N - 1)``,
``S1 = A^T A`` and ``S2 = B^T B``, the eigenvalues of ``S1 S2`` that are not 0 are the squares of the singular values of
``A B^T``; the last trace is their sum. This avoids the root of a matrix, which is inexact with fewer images than
features, and needs only the singular values of a matrix as large as the smaller of the two numbers.
"""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """What the distance needs of a set.

    Attributes:
      mean: [D].
      factor: [at most D, D]; the covariance is ``factor.T @ factor``.
      trace: of the covariance.
    """

    mean: np.ndarray
    factor: np.ndarray
    trace: float


def moments(features: np.ndarray) -> Moments:
    """Return mean and covariance of features [N, D], N being at least 2."""
    count, width = features.shape
    mean = features.mean(0, dtype=np.float64)
    centred = (features - mean) / np.sqrt(count - 1)
    factor = np.asarray(np.linalg.qr(centred, mode="r")) if count > width else centred
    return Moments(mean, factor, float(np.square(centred).sum()))


def frechet(one: Moments, other: Moments) -> float:
    """Return the distance; 0 is equal. It is symmetric."""
    apart = one.mean - other.mean
    shared = np.linalg.svd(one.factor @ other.factor.T, compute_uv=False).sum()
    return max(float(apart @ apart + one.trace + other.trace - 2 * shared), 0.0)  # never below, but for rounding
