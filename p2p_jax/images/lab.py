"""CIE 1976 L*a*b* of sRGB photographs, for the white of D65 and the 2 degree observer (scikit-image)."""

from types import ModuleType

import numpy as np

from p2p_jax.errors import InputError

_XYZ_FROM_RGB = np.array(  # of linear sRGB, as scikit-image has it
    [[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]], np.float32
)
_WHITE = np.array([0.95047, 1, 1.08883], np.float32)
_RGB_FROM_LAB_LIGHT = np.linalg.inv(_XYZ_FROM_RGB / _WHITE[:, None]).astype(np.float32)
_SLACK = 1e-4  # of linear light beyond [0, 1]: less than a step of 8 bits, more than the rounding of the constants
_HALVINGS = 12


def from_rgb(pixels: np.ndarray) -> np.ndarray:
    """Turn colours into Lab.

    Args:
      pixels: [..., 3] uint8, sRGB.

    Returns:
      [..., 3] float32: L in [0, 100], a in about [-86, 98], b in about [-108, 95].

    Raises:
      InputError: scikit-image is not installed.
    """
    return _color().rgb2lab(pixels.astype(np.float32) / 255)


def to_rgb(lab: np.ndarray) -> np.ndarray:
    """Turn Lab into the colours that a screen can show, of the lightness asked for.

    Note:
      Where sRGB has no such colour, cutting off its red, green and blue, as is usual, would change L. Here a and b are
      made smaller together, which keeps L and hue, until the colour fits.

    Args:
      lab: [..., 3] float; an L beyond [0, 100] is cut off.

    Returns:
      [..., 3] uint8, sRGB, whose L differs from that of `lab` only by the rounding to 8 bits.

    Raises:
      InputError: scikit-image is not installed.
    """
    color, shape = _color(), lab.shape
    lab = lab.astype(np.float32).reshape(-1, 3)
    lab[:, 0] = np.clip(lab[:, 0], 0, 100)
    outside = ~_fits(lab)
    lab[outside] = _reduce_chroma(lab[outside])
    return np.rint(color.lab2rgb(lab) * 255).astype(np.uint8).reshape(shape)


def _fits(lab: np.ndarray) -> np.ndarray:
    """Return which of [N, 3] colours are in sRGB."""
    f_y = (lab[:, 0] + 16) / 116
    f = np.stack([f_y + lab[:, 1] / 500, f_y, f_y - lab[:, 2] / 200], axis=-1)
    light = np.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) @ _RGB_FROM_LAB_LIGHT.T
    return np.all((light >= -_SLACK) & (light <= 1 + _SLACK), axis=-1)


def _reduce_chroma(lab: np.ndarray) -> np.ndarray:
    """Find by bisection the strongest colours of the same L and hue that are in sRGB; gray always is."""
    low, high = np.zeros((len(lab), 1), np.float32), np.ones((len(lab), 1), np.float32)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _fits(lab * _with_l(middle))[:, None]
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return lab * _with_l(low)


def _with_l(factor: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones_like(factor), factor, factor], axis=-1)


def _color() -> ModuleType:
    try:
        from skimage import color
    except ImportError as error:
        raise InputError("colours in Lab need scikit-image: pip install 'p2p_jax[images]'") from error
    return color
