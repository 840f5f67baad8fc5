"""Weights of an ONNX model stored in fewer bits; what is computed stays float32, which every runtime can."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError

WEIGHTS = ("float32", "float16", "int8")
"""How they may be stored."""
_LEAST = 256  # numbers in a tensor that is worth it
_HALF = float(np.finfo(np.float16).max)


class Quantized(NamedTuple):
    """A tensor as whole numbers.

    Attributes:
      numbers: int8, of the tensor's shape.
      scales: [C] float32; ``numbers * scales`` along `axis` is about the tensor.
      axis: of the tensor.
    """

    numbers: np.ndarray
    scales: np.ndarray
    axis: int

    @property
    def tensor(self) -> np.ndarray:
        """What stands for the tensor, float32."""
        shape = [-1 if axis == self.axis else 1 for axis in range(self.numbers.ndim)]
        return self.numbers.astype(np.float32) * self.scales.reshape(shape)


def quantize(tensor: np.ndarray) -> Quantized:
    """Round a tensor to whole numbers from -127 to 127 with one scale a channel, along the axis that loses least.

    Args:
      tensor: of floats, of any number of axes but none.
    """
    found = [_along(tensor, axis) for axis in range(tensor.ndim)]
    return min(found, key=lambda one: float(np.square(one.tensor - tensor).sum()))


def _along(tensor: np.ndarray, axis: int) -> Quantized:
    others = tuple(other for other in range(tensor.ndim) if other != axis)
    largest = np.abs(tensor).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    return Quantized(np.rint(tensor / scales).astype(np.int8), scales.ravel(), axis)


def sizes(model: Any) -> dict[str, int]:
    """Return the tensors that ``store`` stores in fewer bits: name -> how many numbers it has."""
    return {name: tensor.size for name, tensor in _tensors(model)}


def store(model: Any, weights: str, wide: Collection[str] = ()) -> None:
    """Store the weights of a model in fewer bits, and make them float32 again as its first computation.

    A runtime that folds constants does that once, when it loads the model. Small tensors, whose bytes do not matter,
    and such as do not fit stay as they are.

    Args:
      model: ``onnx.ModelProto``, changed in place.
      weights: one of ``WEIGHTS``.
      wide: names of tensors that are stored in the next wider way: float16 in place of int8, float32 of float16.

    Raises:
      InputError: `weights` is another word.
    """
    import onnx
    from onnx import helper, numpy_helper

    if weights not in WEIGHTS:
        raise InputError(f"weights={weights}: choose {', '.join(WEIGHTS)}")
    found = dict(_tensors(model)) if weights != "float32" else {}
    kept, nodes = [x for x in model.graph.initializer if x.name not in found], []
    for name, tensor in found.items():
        way = WEIGHTS[WEIGHTS.index(weights) - (name in wide)]
        if way == "float32":
            kept.append(numpy_helper.from_array(tensor, name))
            continue
        if way == "float16":
            kept.append(numpy_helper.from_array(tensor.astype(np.float16), f"{name}_float16"))
            nodes.append(helper.make_node("Cast", [f"{name}_float16"], [name], to=onnx.TensorProto.FLOAT))
            continue
        rounded = quantize(tensor)
        kept.append(numpy_helper.from_array(rounded.numbers, f"{name}_int8"))
        kept.append(numpy_helper.from_array(rounded.scales, f"{name}_scales"))
        inputs = [f"{name}_int8", f"{name}_scales"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=rounded.axis))
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)


def _tensors(model: Any) -> list[tuple[str, np.ndarray]]:
    """Return the weights that are large enough to matter and small enough to be numbers of 16 bits."""
    from onnx import numpy_helper

    found = ((x.name, numpy_helper.to_array(x)) for x in model.graph.initializer)
    return [
        (name, tensor)
        for name, tensor in found
        if tensor.dtype == np.float32 and tensor.size >= _LEAST and np.abs(tensor).max() <= _HALF
    ]
