"""Inputs made of photographs: edges, holes, few pixels, noise (pix2pix, section 4 and appendix 6.2).

Such a function is ``function(image, rng, **options) -> image``: `image` is a photograph, uint8 [H, W, 1 or 3], `rng`
the only source of chance, and the result uint8 of the same height and width. A config names one as ``task.input`` and
its options next to it; your own need not be here.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import hed, pictures
from p2p_jax.images.domains import Domain
from p2p_jax.images.resize import resize

Task = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def bind(function: Callable[..., np.ndarray], options: Mapping[str, Any]) -> Task:
    """Return a function with its options, as ``config.task`` gives them, filled in.

    Args:
      function: ``(image, rng, **options) -> image``.
      options: by name.

    Raises:
      InputError: the function has no such option, needs one that is not given, or has a number for its default where
        something else is given; names it.
    """
    if not callable(function):
        raise InputError(f"config.task.input names {function!r}, which is not a function of an image")
    parameters = {p.name: p for p in list(inspect.signature(function).parameters.values())[2:]}
    open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    known = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    maker = getattr(function, "__name__", str(function))
    for option, value in options.items():
        if option not in known and not open_ended:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean config.task.{close[0]}?" if close else f"the options are {', '.join(known) or 'none'}"
            raise InputError(f"unknown option config.task.{option}: {maker} does not take it; {hint}")
        if option in known and isinstance(known[option].default, int | float):
            _require(option, value, isinstance(value, int | float), "a number")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise InputError(f"config.task.{option} is missing: {maker} needs it")
    return lambda image, rng: function(image, rng, **options)


def make_values(task: Task, photograph: np.ndarray, rng: np.random.Generator, domain: Domain) -> np.ndarray:
    """Make an input of a photograph, as values of its domain.

    Args:
      task: what makes it.
      photograph: [H, W, C], raw.
      rng: of the task.
      domain: of the input.

    Raises:
      InputError: the result is not an image of the domain.
    """
    made = task(photograph, rng)
    made = made[..., None] if made.ndim == 2 else made
    if fault := domain.fault(made.dtype, made.shape[-1], has_palette=False):
        raise InputError(f"the result of config.task.input {fault}")
    return domain.values(domain.raw(made))


def canny_edges(
    image: np.ndarray, rng: np.random.Generator, *, sigma: float = 2.0, low: float = 0.1, high: float = 0.2
) -> np.ndarray:
    """Draw the edges of Canny 1986 as dark lines on white, as those of edges2shoes are (scikit-image).

    Args:
      image: [H, W, 1 or 3] uint8.
      rng: not used.
      sigma: of the Gaussian that smooths first, in pixels; more finds fewer edges.
      low: gradient, of luma in [0, 1], that an edge needs where it goes on.
      high: gradient that it needs somewhere.

    Returns:
      [H, W, 1] uint8: 0 on edges, else 255.

    Raises:
      InputError: `sigma` or the thresholds cannot be used, or scikit-image is not installed.
    """
    _require("sigma", sigma, sigma > 0, "more than 0")
    _require("low", low, 0 <= low <= high <= 1, "from 0 to config.task.high, which is at most 1")
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise InputError("Canny's edges need scikit-image: pip install 'p2p_jax[images]'") from error
    luma = pictures.with_channels(image, 1)[..., 0].astype(np.float32) / 255
    edges = canny(luma, sigma=sigma, low_threshold=low, high_threshold=high, mode="nearest")
    return np.where(edges, np.uint8(0), np.uint8(255))[..., None]


def hed_edges(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    weights: str,
    threshold: float = 25 / 255,
    smallest: int = 5,
    border: int = 128,
) -> np.ndarray:
    """Draw the edges of HED (Xie and Tu 2015), as the paper does, as dark lines on white: see ``p2p_jax.images.hed``.

    Args:
      image: [H, W, 1 or 3] uint8.
      rng: not used.
      weights: path of the authors' ``hed_pretrained_bsds.caffemodel``.
      threshold: probability that an edge needs.
      smallest: pixels that a piece needs.
      border: pixels of mirrored border to add first; fewer take less time.

    Returns:
      [H, W, 1] uint8: 0 on edges, else 255.

    Raises:
      InputError: an option cannot be used, the weights cannot be read, or scikit-image is not installed.
    """
    _require("threshold", threshold, 0 <= threshold <= 1, "from 0 to 1")
    _require("border", border, border >= 0, "at least 0")
    return hed.edges(image, weights, threshold, smallest, border)


def centre_hole(
    image: np.ndarray, rng: np.random.Generator, *, size: float = 0.5, value: float | None = None
) -> np.ndarray:
    """Take a rectangle out of the middle, as Pathak et al. 2016, section 4.1, do for inpainting.

    Note:
      They fill it with the mean colour of ImageNet; here it is that of the image itself.

    Args:
      image: [H, W, C] of any whole or floating numbers.
      rng: not used.
      size: of height and of width, the share that the hole takes; in (0, 1].
      value: what it is filled with; None: the mean colour of what is left, or of the image if nothing is.

    Returns:
      [H, W, C] of the same dtype.

    Raises:
      InputError: `size` cannot be used.
    """
    _require("size", size, 0 < size <= 1, "more than 0 and at most 1")
    height, width = image.shape[:2]
    hole_height, hole_width = max(1, round(height * size)), max(1, round(width * size))
    top, left = (height - hole_height) // 2, (width - hole_width) // 2
    hole = np.zeros((height, width), bool)
    hole[top : top + hole_height, left : left + hole_width] = True
    kept = image[~hole] if not hole.all() else image.reshape(-1, image.shape[-1])
    color = kept.mean(axis=0, dtype=np.float64) if value is None else np.full(image.shape[-1], value)
    return np.where(hole[..., None], _like(color, image.dtype), image)


def low_resolution(image: np.ndarray, rng: np.random.Generator, *, factor: int = 4) -> np.ndarray:
    """Make an image small and large again, for super-resolution: by an antialiased bicubic filter both ways.

    Args:
      image: [H, W, C] of any whole or floating numbers.
      rng: not used.
      factor: height and width are divided by it.

    Returns:
      [H, W, C] of the same dtype.

    Raises:
      InputError: `factor` cannot be used.
    """
    _require("factor", factor, factor > 1, "more than 1")
    height, width = image.shape[:2]
    small = resize(image, (max(1, round(height / factor)), max(1, round(width / factor))))
    return resize(small, (height, width))


def gaussian_noise(image: np.ndarray, rng: np.random.Generator, *, sigma: float = 25.0) -> np.ndarray:
    """Add noise, for denoising: independent, normally distributed.

    Args:
      image: [H, W, C] of any whole or floating numbers.
      rng: where the noise comes from.
      sigma: its standard deviation, in units of the image: of 8 bits, in levels.

    Returns:
      [H, W, C] of the same dtype; whole numbers are rounded and kept in its range.

    Raises:
      InputError: `sigma` cannot be used.
    """
    _require("sigma", sigma, sigma >= 0, "at least 0")
    return _like(image + np.float32(sigma) * rng.standard_normal(image.shape, np.float32), image.dtype)


def _like(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round to a dtype and keep in its range."""
    if dtype.kind == "f":
        return numbers.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(numbers), limits.min, limits.max).astype(dtype)


def _require(option: str, value: Any, good: bool, wanted: str) -> None:
    if not good:
        raise InputError(f"config.task.{option} is {value!r}; it must be {wanted}")
