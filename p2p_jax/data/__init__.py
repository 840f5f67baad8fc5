"""Data: images as a stream that is a function of the seed and the step. The only room that uses TensorFlow."""

from p2p_jax.data.dataset import Data, load
from p2p_jax.data.splits import Split, load_split
from p2p_jax.data.stream.sources import Source, Unpaired, from_arrays, make_source, unpaired_from_arrays

__all__ = [
    "Data",
    "Source",
    "Split",
    "Unpaired",
    "from_arrays",
    "load",
    "load_split",
    "make_source",
    "unpaired_from_arrays",
]
