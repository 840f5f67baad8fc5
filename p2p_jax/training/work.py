"""Multiply-adds of single operations, by their shapes, and of many together.

A convolution costs a kernel's worth of products at every output, those with zeros of its padding too, as such figures
are given everywhere. Zeros between the pixels are not work: so a convolution, its transpose and the gradients of both
cost the same.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np


class Work(NamedTuple):
    """Multiply-adds.

    Attributes:
      fixed: those that are always done.
      choices: of each branch which one is taken, as a number or what JAX traces of it, and what each of them costs.
      doubts: why it is not certain, in words.
    """

    fixed: int = 0
    choices: "tuple[tuple[Any, tuple[Work, ...]], ...]" = ()
    doubts: frozenset[str] = frozenset()

    def plus(self, other: "Work") -> "Work":
        """Return both, one after the other."""
        return Work(self.fixed + other.fixed, self.choices + other.choices, self.doubts | other.doubts)

    def times(self, turns: int) -> "Work":
        """Return the work of that many repetitions."""
        choices = tuple((index, tuple(work.times(turns) for work in works)) for index, works in self.choices)
        return Work(turns * self.fixed, choices, self.doubts)

    def most(self) -> int:
        """Return what it costs if always the dearest branch is taken."""
        return self.fixed + sum(max(work.most() for work in works) for _, works in self.choices)

    def indices(self) -> Iterator[Any]:
        """Yield which branches are taken, in the order that ``total`` expects."""
        for index, works in self.choices:
            yield index
            for work in works:
                yield from work.indices()

    def total(self, indices: Iterator[np.ndarray]) -> np.ndarray | float:
        """Return the multiply-adds, given numbers for the branches that are taken, all of one shape."""
        result: Any = float(self.fixed)
        for _, works in self.choices:
            index = next(indices)
            for i, work in enumerate(works):
                result = result + np.where(index == i, work.total(indices), 0.0)
        return result


def of_convolution(equation: Any) -> int:
    """Return the multiply-adds of a ``conv_general_dilated`` in a traced program."""
    lhs, rhs = (x.aval.shape for x in equation.invars)
    (out,), params = (x.aval.shape for x in equation.outvars), equation.params
    lhs_axes, rhs_axes, out_axes = params["dimension_numbers"]
    products = out[out_axes[0]] * out[out_axes[1]] * rhs[rhs_axes[1]]
    for i, (low, _) in enumerate(params["padding"]):
        side, taps, steps = lhs[lhs_axes[2 + i]], rhs[rhs_axes[2 + i]], out[out_axes[2 + i]]
        spread, apart = params["lhs_dilation"][i], params["rhs_dilation"][i]
        products *= _pairs(side, taps, steps, params["window_strides"][i], low, spread, apart)
    return products


def _pairs(side: int, taps: int, steps: int, stride: int, low: int, spread: int, apart: int) -> int:
    """Return how many pairs of a tap and an output meet no zero between pixels, along one axis.

    Beyond the border of the image they meet zeros, which count. But a pixel meets a tap once, and an output once: so
    the same is counted whichever of pixels, taps and outputs an operation has as its result.
    """
    pairs = taps * steps
    if spread > 1:
        places = stride * np.arange(steps)[:, None] + apart * np.arange(taps) - low
        pairs = int(np.count_nonzero(places % spread == 0))
    return min(pairs, side * taps, side * steps)


def of_product(equation: Any) -> int:
    """Return the multiply-adds of a ``dot_general`` in a traced program."""
    lhs, rhs = (x.aval.shape for x in equation.invars)
    (summed, other_summed), (_, other_batch) = equation.params["dimension_numbers"]
    free = [side for axis, side in enumerate(rhs) if axis not in (*other_summed, *other_batch)]
    return math.prod(lhs) * math.prod(free)
