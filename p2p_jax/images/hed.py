"""HED, the edge detector of the pix2pix paper: Xie and Tu 2015, in NumPy, from the authors' own weights.

The network is that of ``deploy.prototxt``; the border, and what is done to its edges, are those of the scripts that
come with pix2pix (``batch_hed.py``, ``PostprocessHED.m``). The weights are ``hed_pretrained_bsds.caffemodel``, 56 MB,
to be had from the authors (github.com/s9xie/hed); there are none in this library.

A photograph of 256 x 256 takes seconds, more than a step of training: to train for long, write the edges once, and
train on the pairs.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import pictures

_STAGES = (2, 2, 3, 3, 3)  # convolutions of VGG-16 before each side output
_MOST_CHANNELS = 512
_MOST_BYTES = 2**31  # of a Protocol Buffers message
_MEAN = np.array([104.00698793, 116.66876762, 122.67891434], np.float32)  # blue, green, red
_PAD = 35  # of the first convolution, in the place of 1
_OFFSETS = (34, 35, 36, 38, 42)  # where the image begins in each side output, enlarged
Weights = dict[str, list[np.ndarray]]


def edges(image: np.ndarray, weights: str, threshold: float, smallest: int, border: int) -> np.ndarray:
    """Draw thin edges, 0 on 255, uint8 [H, W, 1]; see ``p2p_jax.images.tasks.hed_edges``."""
    kept = _thin(probability(image, weights, border), threshold, smallest)
    return np.where(kept, np.uint8(0), np.uint8(255))[..., None]


def probability(image: np.ndarray, weights: str, border: int = 128) -> np.ndarray:
    """Return how probable an edge is at every pixel: the fused output of HED.

    Args:
      image: [H, W, 1 or 3] uint8.
      weights: path of the authors' ``.caffemodel``.
      border: pixels of mirrored border to add first; the scripts' 128 costs most of the time.

    Returns:
      [H, W] float32 in [0, 1].

    Raises:
      InputError: the weights cannot be read, or are of another network.
    """
    layers = read_caffemodel(weights)
    try:
        padded = np.pad(pictures.with_channels(image, 3), ((border, border), (border, border), (0, 0)), "reflect")
        fused = _forward(padded[..., ::-1].astype(np.float32) - _MEAN, layers)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"config.task.weights: {weights} are not the weights of HED ({error!r})") from error
    return fused[border : border + image.shape[0], border : border + image.shape[1]]


def _forward(image: np.ndarray, layers: Weights) -> np.ndarray:
    """Run the network on [H, W, 3], blue first and without the mean."""
    height, width = image.shape[:2]
    x, pad, sides = image.transpose(2, 0, 1), _PAD, []
    for stage, (count, offset) in enumerate(zip(_STAGES, _OFFSETS, strict=True), 1):
        if stage > 1:
            x = _max_pool(x)
        for number in range(1, count + 1):
            kernel, bias = layers[f"conv{stage}_{number}"]
            x, pad = np.maximum(_convolve(x, kernel, bias, pad), 0), 1
        kernel, bias = layers[f"score-dsn{stage}"]
        score = np.tensordot(kernel.reshape(-1), x, 1) + bias
        if stage > 1:
            score = _enlarge(score, layers[f"upsample_{2 ** (stage - 1)}"][0], 2 ** (stage - 1))
        sides.append(score[offset : offset + height, offset : offset + width])
    kernel, bias = layers["new-score-weighting"]
    return 1 / (1 + np.exp(-np.tensordot(kernel.reshape(-1), np.stack(sides), 1) - bias))


def _convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, pad: int) -> np.ndarray:
    """Convolve [C, H, W] with a 3 x 3 kernel.

    In the padded image with its rows strung together, every place of the kernel is a shift. The products that reach
    over the end of a row are computed and cut off.
    """
    if len(bias) > _MOST_CHANNELS:
        raise ValueError(f"{len(bias):,} channels")
    kernel = kernel.reshape(len(bias), -1, 3, 3)
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad + 1)))  # one column more: the last shift ends in the last row
    channels, height, width = padded.shape
    strung, length = padded.reshape(channels, -1), (height - 2) * width - 2
    total = np.zeros((len(bias), (height - 2) * width), np.float32)
    for i in range(3):
        for j in range(3):
            start = i * width + j
            total[:, :length] += np.ascontiguousarray(kernel[:, :, i, j]) @ strung[:, start : start + length]
    return total.reshape(len(bias), height - 2, width)[..., : width - 3] + bias[:, None, None]


def _max_pool(x: np.ndarray) -> np.ndarray:
    """Halve [C, H, W]; on an odd side the last row or column is not averaged, as in Caffe."""
    channels, height, width = x.shape
    x = np.pad(x, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=-np.inf)
    return x.reshape(channels, -(-height // 2), 2, -(-width // 2), 2).max((2, 4))


def _enlarge(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Enlarge [H, W] by a transposed convolution whose kernel is twice as wide as its stride."""
    height, width = x.shape
    blocks = kernel.reshape(2, stride, 2, stride)
    out = np.zeros((height + 1, stride, width + 1, stride), np.float32)
    for i in range(2):
        for j in range(2):
            out[i : i + height, :, j : j + width] += x[:, None, :, None] * blocks[i, :, j][None, :, None, :]
    return out.reshape((height + 1) * stride, (width + 1) * stride)


def _thin(edge: np.ndarray, threshold: float, smallest: int) -> np.ndarray:
    """Keep the ridges of [H, W] that reach a threshold, one pixel wide, as bool; small pieces are left out."""
    from scipy import ndimage

    try:
        from skimage.morphology import thin
    except ImportError as error:
        raise InputError("HED's edges need scikit-image: pip install 'p2p_jax[images]'") from error
    thinned = thin(_ridges(edge) >= max(threshold, np.finfo(np.float32).eps))
    pieces, _ = ndimage.label(thinned, np.ones((3, 3)))
    return thinned & (np.bincount(pieces.ravel())[pieces] >= smallest)


def _ridges(edge: np.ndarray) -> np.ndarray:
    """Put to 0 what is less than its neighbours across the edge (edgesNms of Dollar and Zitnick 2013, r=1, m=1.01)."""
    from scipy import ndimage

    triangle = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1], np.float32) / 25
    smooth = ndimage.convolve1d(ndimage.convolve1d(edge, triangle, axis=0), triangle, axis=1)
    along_y, along_x = np.gradient(smooth)
    (xy, xx), yy = np.gradient(along_x), np.gradient(along_y, axis=0)
    angle = np.mod(np.arctan(yy * np.sign(-xy) / (xx + 1e-5)), np.pi)
    rows, columns = np.indices(edge.shape)
    kept = edge.copy()
    for side in (-1, 1):
        places = rows + side * np.sin(angle), columns + side * np.cos(angle)
        kept[ndimage.map_coordinates(edge, places, order=1, mode="nearest") > 1.01 * edge] = 0
    return kept


@functools.cache
def read_caffemodel(path: str) -> Weights:
    """Read the parameters of every layer from a network that Caffe has saved (``NetParameter`` of its caffe.proto).

    Returns:
      By the name of the layer its blobs, each a flat float32 array.

    Raises:
      InputError: there is no such file, or it is not such a network.
    """
    layers: Weights = {}
    try:
        if Path(path).stat().st_size >= _MOST_BYTES:
            raise ValueError("it is longer than any Protocol Buffers message")
        for number, layer in _fields(memoryview(Path(path).read_bytes())):
            if number in (2, 100):  # V1LayerParameter, LayerParameter
                of_name, of_blobs = (4, 6) if number == 2 else (1, 7)
                fields = list(_fields(layer))
                name = next(bytes(value).decode() for field, value in fields if field == of_name)
                layers[name] = [_blob(value) for field, value in fields if field == of_blobs]
    except (OSError, ValueError, TypeError, IndexError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"config.task.weights: {path} cannot be read as a .caffemodel ({reason})") from error
    return layers


def _blob(message: memoryview) -> np.ndarray:
    return np.concatenate([np.frombuffer(value, "<f4") for field, value in _fields(message) if field == 5])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Iterate over a Protocol Buffers message: ``(number, bytes)`` of its fields; those of plain numbers are passed."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        size = {0: 0, 1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 0:
            _, at = _varint(message, at)
        elif key & 7 == 2:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + size]
        elif not size:
            raise ValueError("it is not a Protocol Buffers message")
        at += size
    if at > len(message):
        raise ValueError("it ends too early")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):  # a number has ten bytes at most
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("it is not a Protocol Buffers message")
