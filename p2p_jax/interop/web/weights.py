"""Storage of the weights of a page's network, and the resulting difference from the run's translations."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.interop import onnx_weights
from p2p_jax.interop.onnx_format import INPUT, OUTPUT

MOST = 2.0
"""Largest difference in grey levels that a translation may have from the run's own."""
_LEVELS = 127.5  # for 1 on the scale of [-1, 1]
_SEARCHED = 8  # images to find out which tensors can have 8 bits


class Levels(NamedTuple):
    """The difference of translations from the run's, in grey levels: steps of 1/255 of the range.

    Attributes:
      largest: over all values of all images.
      mean: mean over them.
    """

    largest: float
    mean: float


class Stored(NamedTuple):
    """A model as stored for the page.

    Attributes:
      content: content of the file.
      difference: difference from the run.
      share: share of the weights stored in as few bits as requested.
    """

    content: bytes
    difference: Levels
    share: float


def compare(found: np.ndarray, expected: np.ndarray) -> Levels:
    """Return the difference of normalized images [N, H, W, C] from others; NaN is infinitely far."""
    apart = np.abs(np.clip(found, -1, 1).astype(np.float64) - np.clip(expected, -1, 1)) * _LEVELS
    apart = np.where(np.isnan(apart), np.inf, apart)
    return Levels(float(apart.max()), float(apart.mean()))


def store(model: Any, weights: str, images: np.ndarray, expected: np.ndarray) -> Stored:
    """Store a model's weights in the requested number of bits, if its translations stay close to the run's.

    Otherwise the tensors with the largest error for their size are stored in twice the bits, as few as necessary.

    Args:
      model: ``onnx.ModelProto`` in float32; not changed.
      weights: one of ``onnx_weights.WEIGHTS``.
      images: [N, H, W, C] float32 in [-1, 1], to compare on.
      expected: the run's translations of them.

    Raises:
      InputError: translations differ by more than ``MOST`` even if half of the weights have more bits; says by how
      much.
    """
    sizes = onnx_weights.sizes(model)

    def differs(wide: Collection[str], rows: slice = slice(None)) -> Levels:
        return compare(_run(_stored(model, weights, wide), images[rows]), expected[rows])

    whole, wide = differs(()), list[str]()
    if whole.largest > MOST and weights != "float32":
        some = slice(0, _SEARCHED)
        alone = {name: differs(sizes.keys() - {name}, some).largest / sizes[name] for name in sizes}
        order = sorted(sizes, key=lambda name: alone[name], reverse=True)
        count = _least(len(order), lambda count: differs(order[:count], some).largest <= MOST)
        while count < len(order) and differs(order[:count]).largest > MOST:
            count += 1
        wide = order[:count]
    share = 1 - sum(sizes[name] for name in wide) / max(sum(sizes.values()), 1)
    content = _stored(model, weights, wide)
    difference = compare(_run(content, images), expected) if wide else whole
    if share < 0.5 or difference.largest > MOST:
        wider = onnx_weights.WEIGHTS[max(onnx_weights.WEIGHTS.index(weights) - 1, 0)]
        raise InputError(
            f"weights={weights}: translations would differ from the run's by {whole.largest:.1f} grey levels, and may "
            f"by {MOST:g}"
            + (f", or half of the weights need more bits: use weights={wider}" if wider != weights else "")
        )
    return Stored(content, difference, share)


def _least(most: int, holds: Callable[[int], bool]) -> int:
    """Return the least number up to `most` that has a property, by bisection; all larger numbers must have it too."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _stored(model: Any, weights: str, wide: Collection[str] = ()) -> bytes:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx_weights.store(copy, weights, wide)
    return copy.SerializeToString()


def _run(content: bytes, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # weights become float32 once, as in the page
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], {INPUT: image[None]})[0] for image in images])
