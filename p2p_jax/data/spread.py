"""A part of many things that represents all of them."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")


def evenly(items: Sequence[_T], at_most: int) -> list[_T]:
    """Return so many items, evenly over all of them."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(len(items), at_most)).astype(int))]
