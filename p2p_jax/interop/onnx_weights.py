"""Weights of an ONNX model stored in fewer bits; computation stays in float32, which every runtime supports."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError

WEIGHTS = ("float32", "float16", "int8")
"""The ways to store weights."""
_LEAST = 256  # numbers in the smallest tensor worth storing in fewer bits
_HALF = float(np.finfo(np.float16).max)


class Quantized(NamedTuple):
    """A tensor as whole numbers.

    Attributes:
      numbers: int8, of the shape of the tensor.
      scales: [C] float32; ``numbers * scales`` along `axis` is about the tensor.
      axis: axis of the scales.
    """

    numbers: np.ndarray
    scales: np.ndarray
    axis: int

    @property
    def tensor(self) -> np.ndarray:
        """The restored tensor, float32."""
        shape = [-1 if axis == self.axis else 1 for axis in range(self.numbers.ndim)]
        return self.numbers.astype(np.float32) * self.scales.reshape(shape)


def quantize(tensor: np.ndarray) -> Quantized:
    """Round a tensor to whole numbers from -127 to 127 with one scale per channel, along the axis with the least loss.

    Args:
      tensor: tensor of floats with at least one axis.
    """
    found = [_along(tensor, axis) for axis in range(tensor.ndim)]
    return min(found, key=lambda one: float(np.square(one.tensor - tensor).sum()))


def _along(tensor: np.ndarray, axis: int) -> Quantized:
    others = tuple(other for other in range(tensor.ndim) if other != axis)
    largest = np.abs(tensor).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    return Quantized(np.rint(tensor / scales).astype(np.int8), scales.ravel(), axis)


def sizes(model: Any) -> dict[str, int]:
    """Return the tensors that ``store`` stores in fewer bits: name -> count of numbers."""
    return {name: tensor.size for name, tensor in _tensors(model)}


def store(model: Any, weights: str, wide: Collection[str] = ()) -> None:
    """Store the weights of a model in fewer bits; its first computation makes them float32 again.

    A runtime that folds constants does so once, when it loads the model. Tensors that are small or do not fit stay
    unchanged.

    Args:
      model: ``onnx.ModelProto``, changed in place.
      weights: one of ``WEIGHTS``.
      wide: names of tensors to store one step wider: float16 instead of int8, float32 instead of float16.

    Raises:
      InputError: `weights` is not one of these.
    """
    import onnx
    from onnx import helper, numpy_helper

    if weights not in WEIGHTS:
        raise InputError(f"weights={weights}: choose one of {', '.join(WEIGHTS)}")
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
    """Return the weights that are large enough to matter and fit into numbers of 16 bits."""
    from onnx import numpy_helper

    found = ((x.name, numpy_helper.to_array(x)) for x in model.graph.initializer)
    return [
        (name, tensor)
        for name, tensor in found
        if tensor.dtype == np.float32 and tensor.size >= _LEAST and np.abs(tensor).max() <= _HALF
    ]
