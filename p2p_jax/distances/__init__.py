"""How far one set of images is from another, by features of a network: FID and KID, in training and afterwards."""

from p2p_jax.distances.comparing import MEANINGS, NAMES, Reals
from p2p_jax.distances.features import INCEPTION, Collected, Features, Named, find_features

__all__ = ["INCEPTION", "MEANINGS", "NAMES", "Collected", "Features", "Named", "Reals", "find_features"]
