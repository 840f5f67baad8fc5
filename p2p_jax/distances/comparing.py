"""How far one set of features is from another: KID and FID."""

from collections.abc import Mapping

import numpy as np

from p2p_jax.distances.frechet import Moments, frechet, moments
from p2p_jax.distances.kernel import KernelDistance

NAMES = ("kid", "kid_std", "fid")
MEANINGS = {
    "kid": "Squared maximum mean discrepancy of features of outputs and of real images, unbiased; about 0 where the "
    "distributions are equal, and below 0 by chance.",
    "kid_std": "Standard deviation of KID over subsets of half the images, at most 1,000: its standard error.",
    "fid": "Frechet distance of Gaussians fitted to features of outputs and of real images; 0 is equal. It is biased "
    "upwards for few images: compare it only at equal counts.",
    "copy_kid": "KID with the inputs in place of outputs: the KID of a run that only copies.",
    "copy_fid": "FID with the inputs in place of outputs.",
}
_FEWEST = 2


class Reals:
    """The features of real images, compared with those of several other sets; what stays the same is kept.

    Args:
      features: [N, D], N being at least 2.
    """

    def __init__(self, features: np.ndarray):
        self._features = features
        self._moments: Moments | None = None
        self._kernels: dict[int, KernelDistance] = {}

    def distances(self, fakes: np.ndarray) -> Mapping[str, float]:
        """Return ``NAMES`` -> how far features [M, D] are from these; not a number where those are not all finite.

        Raises:
          ValueError: there are fewer than 2 on a side.
        """
        if min(len(fakes), len(self._features)) < _FEWEST:
            raise ValueError(f"{len(fakes)} and {len(self._features)} images; a distance needs {_FEWEST} of each")
        if not (np.isfinite(fakes).all() and np.isfinite(self._features).all()):
            return dict.fromkeys(NAMES, float("nan"))
        if len(fakes) not in self._kernels:
            self._kernels[len(fakes)] = KernelDistance(self._features, len(fakes))
        if self._moments is None:
            self._moments = moments(self._features)
        kernel = self._kernels[len(fakes)](fakes)
        return {"kid": kernel.mean, "kid_std": kernel.std, "fid": frechet(moments(fakes), self._moments)}
