"""Features that compare sets of pictures: Inception's, a segmenter's, or your own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.config import resolve
from p2p_jax.config.options import SEGMENTER
from p2p_jax.config.paths import expanded
from p2p_jax.distances import inception
from p2p_jax.errors import InputError
from p2p_jax.images.pictures import with_channels
from p2p_jax.nets.fcn import load_fcn
from p2p_jax.nets.weights import digest

INCEPTION = "inception"
_AT_ONCE = 8, 8 * 256 * 256  # pictures, and pixels, that a function gets at a time


class Features:
    """A function from pictures to features, whose answers are checked.

    Args:
      name: as given in the option.
      function: ``uint8 [N, H, W, 3] -> [N, D]`` numbers.
      option: where it is named, for messages.
      digest: identifies its weights; "" if only its code defines it.

    Attributes:
      width: D, once it is known.
      dtype: float32 or float64, once it is known.
    """

    def __init__(self, name: str, function: Callable[[np.ndarray], Any], option: str = "features", digest: str = ""):
        self.name, self.digest, self.width, self.dtype = name, digest, 0, np.dtype(np.float64)
        self._function, self._option = function, option

    def try_on(self, height: int, width: int) -> None:
        """Call it once, with black pictures of a size.

        Raises:
          InputError: it fails, or does not return features.
        """
        self._answer(np.zeros((rows_of((height, width)), height, width, 3), np.uint8))

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return the features of pictures of one size.

        The function always gets full batches (the last one is filled up), so it is compiled once for a size and its
        rounding does not depend on the number of pictures.

        Args:
          pictures: [N, H, W, 3] uint8.

        Returns:
          [N, D] of ``dtype``.

        Raises:
          InputError: the function gives something else, or another number of features than before.
        """
        most = rows_of(pictures.shape[1:3])
        parts = []
        for first in range(0, len(pictures), most):
            rows = np.minimum(np.arange(first, first + most), len(pictures) - 1)
            part = pictures[rows]
            parts.append(self._answer(part)[: len(pictures) - first])
        return np.concatenate(parts)

    def _answer(self, pictures: np.ndarray) -> np.ndarray:
        shape = list(pictures.shape)
        try:
            found = self._function(pictures)
        except InputError:
            raise
        except Exception as error:  # the function is the user's
            told = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            raise InputError(f"{self._told} fails on pictures of uint8 {shape} ({told})") from error
        try:
            array = _as_array(found)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._told} must return features, numbers of shape [N, D] ({error})") from error
        if array.ndim != 2 or len(array) != len(pictures) or not array.shape[1]:
            raise InputError(
                f"{self._told} gives {list(array.shape)} for {len(pictures)} pictures {shape}; features "
                f"are [N, D], here [{len(pictures)}, D]"
            )
        if self.width and array.shape[1] != self.width:
            raise InputError(f"{self._told} gives {array.shape[1]} features now, but gave {self.width} before")
        self.width, self.dtype = array.shape[1], array.dtype
        return array

    @property
    def _told(self) -> str:
        return f"{self._option}={self.name}"


def _as_array(found: Any) -> np.ndarray:
    """Return numbers as an array of float32 or float64; tensors of PyTorch and JAX too."""
    if hasattr(found, "detach"):
        found = found.detach().cpu()
        found = found.float() if str(found.dtype) == "torch.bfloat16" else found
    array = np.asarray(found)
    if array.dtype.kind not in "fiuV" or array.dtype.names:  # V: JAX's bfloat16
        raise TypeError(f"an array of {array.dtype}" if array.ndim else f"a {type(found).__name__}")
    return array.astype(np.float32 if array.dtype.kind in "fV" and array.dtype.itemsize <= 4 else np.float64)


def rows_of(size: tuple[int, ...]) -> int:
    """Return how many pictures of a height and width a function of features gets at a time."""
    return max(1, min(_AT_ONCE[0], _AT_ONCE[1] // max(size[0] * size[1], 1)))


class Named(NamedTuple):
    """How a message names the two options: those of a config, or arguments."""

    features: str = "features"
    weights: str = "inception"


def find_features(name: str, weights: str | Path | None = None, named: Named = Named()) -> Features:  # noqa: B008
    """Return the features of a name.

    Args:
      name: "inception", FID's network; "segmenter:FOLDER", the deepest features of a segmenter made by ``python -m
        p2p_jax segmenter``, averaged over space; or "module:name" of a function ``uint8 [N, H, W, 3] -> [N, D]``.
      weights: a file with Inception's weights; None: they are downloaded.
      named: the options, for messages.

    Raises:
      InputError: there are no such features, or something that they need is missing.
    """
    told = f"{named.features}={name}"
    if weights is not None and name != INCEPTION:
        raise InputError(f"{named.weights}={weights} is for {named.features}=inception, not for {told}")
    if name == INCEPTION:
        network = inception.load(None if weights is None else expanded(weights), named.weights)
        told_apart = digest(value.numpy() for value in network.state_dict().values())
        return Features(name, inception.as_function(network), named.features, told_apart)
    if name.startswith(SEGMENTER):
        folder = expanded(name.removeprefix(SEGMENTER))
        try:
            segmenter = load_fcn(folder)
        except InputError as error:
            raise InputError(f"{told}: {error}") from error
        return Features(name, segmenter.features, named.features, segmenter.digest)
    if ":" not in name:
        raise InputError(
            f"{told}: choose inception, segmenter:FOLDER, or 'module:name' of a function from pictures to features"
        )
    function = resolve(name, named.features)
    if not callable(function):
        raise InputError(f"{told} is not a function from pictures, uint8 [N, H, W, 3], to features [N, D]")
    return Features(name, function, named.features)


class Collected:
    """The features of pictures that pass by one at a time, each with its place."""

    def __init__(self, features: Features):
        self._features = features
        self._waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        self._places, self._found = list[int](), list[np.ndarray]()

    def add(self, place: int, picture: np.ndarray) -> None:
        """Take a picture, [H, W, 1 or 3] uint8; gray is repeated. It is looked at with the next ones of its size."""
        waiting = self._waiting.setdefault(picture.shape[:2], [])
        waiting.append((place, with_channels(picture, 3)))
        if len(waiting) == rows_of(picture.shape):
            self._look(picture.shape[:2])

    def _look(self, size: tuple[int, ...]) -> None:
        places, pictures = zip(*self._waiting.pop(size), strict=True)
        self._found.append(self._features(np.stack(pictures)))
        self._places += places

    def in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all places, in order, [N] int64, and the features there, [N, D]."""
        for size in list(self._waiting):
            self._look(size)
        order = np.argsort(self._places, kind="stable")
        none = np.zeros((0, self._features.width), self._features.dtype)
        return np.array(self._places, np.int64)[order], np.concatenate([none, *self._found])[order]
