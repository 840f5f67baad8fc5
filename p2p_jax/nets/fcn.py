"""The library's own segmenter: an FCN-8s (Long, Shelhamer and Darrell 2015), small enough to be trained on a CPU.

The segmenter of the papers (Caffe, trained on Cityscapes) is not available to everybody. Scores by this one are
reported under its own name, never next to published ones.
"""

import json
import math
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from p2p_jax.errors import InputError
from p2p_jax.images.palettes import Palette, palette_from_json
from p2p_jax.nets.layers import BatchNorm, Conv
from p2p_jax.nets.weights import digest
from p2p_jax.storage.writing import belonging_together, unfinished_folder

STRIDES = (1, 2, 4, 8)
_WIDTHS = (1, 2, 4, 8, 8)  # of the five stages, in base widths
_FACTS, _PARAMS = "segmenter.json", "params.msgpack"
_AT_ONCE = 8, 8 * 512 * 512  # images and pixels that are labelled at a time


class FCN(nn.Module):
    """Score every pixel for every class (sections 3 and 4 of the paper).

    A plain backbone of five stages; the features of the last three are scored by 1x1 convolutions, and fused from
    coarse to fine by doubling the sides and adding; the sum is enlarged to the image. Batch norm, by running statistics
    when not training, makes each image's labels independent of the others in a batch.

    Note:
      The paper's strides of 8, 16 and 32 are for images of 500 pixels. With `stride` below 8 the first stages do not
      halve the sides, so that smaller images keep as many cells: what enlarging them first would do, at less cost.

    Attributes:
      num_classes: K.
      base_width: channels of the first stage; the later ones have 2, 4, 8 and 8 times as many.
      stride: pixels per cell of the finest scores: 1, 2, 4 or 8, as in the name FCN-8s.
    """

    num_classes: int
    base_width: int = 32
    stride: int = 8

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Return logits.

        Args:
          images: [B, H, W, 3] in [-1, 1]; the sides are multiples of ``4 * stride``.
          train: normalise by the batch's own statistics, and update the running ones.

        Returns:
          [B, H, W, K] float32.
        """

        def layer(x, width, *, halve):
            size, stride = (4, 2) if halve else (3, 1)
            x = Conv(width, size, stride, padding=1, use_bias=False, init_type="kaiming")(x)
            return nn.relu(BatchNorm(use_running_average=not train)(x))

        x, scores = images, []
        whole = len(STRIDES) - 1 - STRIDES.index(self.stride)  # stages that do not halve
        for stage, factor in enumerate(_WIDTHS):
            x = layer(x, factor * self.base_width, halve=stage >= whole)
            if stage:
                x = layer(x, factor * self.base_width, halve=False)
            if stage >= 2:
                scores.append(Conv(self.num_classes, kernel_size=1, stride=1, padding=0, init_gain=0.01)(x))
        self.sow("intermediates", f"stage_{len(_WIDTHS) - 1}", x)
        fused = scores.pop()
        while scores:
            finer = scores.pop()
            fused = jax.image.resize(fused, finer.shape, "bilinear") + finer
        return jax.image.resize(fused, (*images.shape[:3], self.num_classes), "bilinear")


class OwnSegmenter:
    """A trained FCN as a function ``uint8 [N, H, W, 3] -> int32 [N, H, W]``, of any number and size.

    Args:
      variables: of the network.
      facts: stored with them: at least ``architecture``, ``palette`` and ``seed``.

    Attributes:
      name: shown with scores.
      palette: the colours of its classes.
      digest: 12 hexadecimal digits that identify its weights.
      facts: see above; also what it was trained on, and how well it did.
    """

    def __init__(self, variables: Any, facts: dict[str, Any]):
        self.facts, self.variables = facts, variables
        self.palette: Palette = palette_from_json(facts["palette"])
        self.name = f"own FCN-8s, seed {facts['seed']}"
        self.digest = digest(jax.tree.leaves(variables))
        self._network = FCN(len(self.palette.names), **facts["architecture"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Label images.

        Args:
          images: [N, H, W, 3] uint8. Sides are filled up to the network's multiple by repeating the border.

        Returns:
          [N, H, W] int32 in 0 ... K - 1.

        Raises:
          InputError: the images have another type or shape.
        """
        filled = self._filled(images)
        (height, width), images = images.shape[1:3], filled
        # A power of two, so few batch sizes are compiled.
        fits = max(1, min(_AT_ONCE[0], _AT_ONCE[1] // (images.shape[1] * images.shape[2])))
        most = 2 ** int(math.log2(fits))
        labels = np.empty((len(images), height, width), np.int32)
        for start in range(0, len(images), most):
            part = images[start : start + most]
            count = len(part)
            rest = 2 ** math.ceil(math.log2(count)) - count
            part = np.pad(part, [(0, rest), (0, 0), (0, 0), (0, 0)])
            labels[start : start + count] = np.asarray(_label(self._network, self.variables, part))[
                :count, :height, :width
            ]
        return labels

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features of the last stage, averaged over space: what distances of sets compare.

        Args:
          images: [N, H, W, 3] uint8, filled up as for labels.

        Returns:
          [N, D] float32, D being 8 base widths.

        Raises:
          InputError: the images have another type or shape.
        """
        return np.asarray(_deepest(self._network, self.variables, self._filled(images)))

    def _filled(self, images: np.ndarray) -> np.ndarray:
        """Return images padded to sides that the network takes."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(f"a segmenter takes uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}")
        fill = [(0, 0), *((0, -side % (4 * self._network.stride)) for side in images.shape[1:3]), (0, 0)]
        return np.pad(images, fill, mode="edge")

    def save(self, directory: Path, *, overwrite: bool = False) -> None:
        """Write a directory for ``load_fcn``; it appears when it is complete.

        Raises:
          InputError: see ``check_output``.
        """
        with belonging_together(directory.parent):  # another writer may have taken the old one away for a moment
            check_output(directory, overwrite=overwrite)
        with unfinished_folder(directory) as made:
            (made / _PARAMS).write_bytes(serialization.to_bytes(jax.device_get(self.variables)))
            (made / _FACTS).write_text(json.dumps(self.facts, indent=2) + "\n")
            with belonging_together(made.parent):
                if directory.exists():
                    shutil.rmtree(directory)
                os.replace(made, directory)


@partial(jax.jit, static_argnums=0)
def _label(network: FCN, variables: Any, images: jax.Array) -> jax.Array:
    logits: Any = network.apply(variables, to_floats(images), train=False)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@partial(jax.jit, static_argnums=0)
def _deepest(network: FCN, variables: Any, images: jax.Array) -> jax.Array:
    _, kept = network.apply(variables, to_floats(images), train=False, mutable=["intermediates"])
    return kept["intermediates"][f"stage_{len(_WIDTHS) - 1}"][0].mean((1, 2))


def to_floats(images: jax.Array) -> jax.Array:
    """Map uint8 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def check_output(directory: Path, *, overwrite: bool) -> None:
    """Check that a segmenter may be written there.

    Raises:
      InputError: the folder exists and is not a segmenter, or `overwrite` is not set.
    """
    if not directory.exists():
        return
    if not (directory / _FACTS).is_file():
        raise InputError(f"{directory} exists but is not a segmenter; choose another `output`")
    if not overwrite:
        raise InputError(f"{directory} holds a segmenter; choose another `output`, or give `overwrite` to replace it")


def load_fcn(directory: str | Path) -> OwnSegmenter:
    """Return the segmenter that ``python -m p2p_jax segmenter`` wrote.

    Raises:
      InputError: the directory holds none, or it is damaged.
    """
    directory = Path(directory)
    try:
        facts = json.loads((directory / _FACTS).read_text())
        stored = serialization.msgpack_restore((directory / _PARAMS).read_bytes())
        network = FCN(len(palette_from_json(facts["palette"]).names), **facts["architecture"])
        shapes = jax.eval_shape(lambda: init(network, seed=0))
        fits = jax.tree.map(lambda x, y: x.shape == y.shape and x.dtype == y.dtype, shapes, stored)
        if not all(jax.tree.leaves(fits)):
            raise ValueError("parameters of another architecture")
        return OwnSegmenter(stored, facts)
    except FileNotFoundError:
        raise InputError(
            f"{directory} is not a segmenter ({_FACTS} and {_PARAMS}); train one: python -m p2p_jax segmenter"
        ) from None
    except Exception as error:  # msgpack has no common class of errors
        raise InputError(f"the segmenter in {directory} is damaged ({error}); train it again") from error


def init(network: FCN, seed: int) -> Any:
    """Return the variables of an untrained network."""
    side = 4 * network.stride
    return jax.jit(partial(network.init, train=False))(jax.random.key(seed), jnp.zeros((1, side, side, 3)))
