"""Looks into traced programs."""

from collections.abc import Iterator

import jax
from jax.extend import core


def equations(jaxpr) -> Iterator:
    """Yield all equations of a traced program, those of its parts too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)):
            if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
                yield from equations(getattr(value, "jaxpr", value))
