"""A function as one flat list of JAX's primitives, for converters that support primitives but not calls."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core

_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def flatten(
    function: Callable[[jax.Array], jax.Array], given: jax.ShapeDtypeStruct
) -> Callable[[jax.Array], jax.Array]:
    """Return the same function without calls, with everything that does not depend on its argument precomputed.

    Calls with their own derivatives are inlined, since an export is not differentiated. Some operations are
    simplified: a gather at one known position is a slice, a single row is its own reverse, and unused results are left
    out. A sum over several axes is computed one axis at a time, the last one first: on images with channels last, ONNX
    Runtime is then up to eighty times faster (and rounds less).

    Args:
      function: function from one array to one array.
      given: shape, which may be symbolic, and dtype of its argument.
    """
    closed = jax.make_jaxpr(lambda images: function(images))(given)  # it needs a hash, which methods may lack
    flat = jax.make_jaxpr(lambda images: _run(closed.jaxpr, closed.consts, [images])[0])(given)
    needed = _needed(flat.jaxpr)
    return lambda images: _run(flat.jaxpr.replace(eqns=needed), flat.consts, [images])[0]


def _needed(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """Return the equations that the results depend on."""
    wanted, found = set(jaxpr.outvars) - {x for x in jaxpr.outvars if isinstance(x, core.Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            found.append(equation)
            wanted.update(x for x in equation.invars if not isinstance(x, core.Literal))
    return found[::-1]


def _run(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(x):
        return x.val if isinstance(x, core.Literal) else values[x]

    for equation in jaxpr.eqns:
        found = _apply(equation, [read(x) for x in equation.invars])
        values.update(zip(equation.outvars, found, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _apply(equation: core.JaxprEqn, args: list[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    body = next((params[name] for name in _BODIES if name in params), None)
    if primitive.name in _CALLS and body is not None:
        closed = isinstance(body, core.ClosedJaxpr)
        return _run(body.jaxpr if closed else body, body.consts if closed else (), args)
    known = not any(isinstance(x, jax.core.Tracer) for x in args)
    sizes = [side for x in equation.outvars for side in getattr(x.aval, "shape", ())]
    if known and primitive.name != "dim_as_value" and all(isinstance(side, int) for side in sizes):
        with jax.ensure_compile_time_eval():
            found = primitive.bind(*args, **params)
    elif primitive.name == "reduce_sum":
        found = args[0]
        for axis in sorted(params["axes"], reverse=True):
            found = primitive.bind(found, **{**params, "axes": (axis,)})
    elif primitive.name == "rev" and all(args[0].shape[axis] == 1 for axis in params["dimensions"]):
        found = args[0]
    elif primitive.name == "gather" and _is_slice(args, params):
        found = _slice(args, params)
    else:
        found = primitive.bind(*args, **params)
    return found if primitive.multiple_results else [found]


def _is_slice(args: list[Any], params: dict[str, Any]) -> bool:
    """Return whether a gather takes one piece, at a position that is known and inside."""
    inside = params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return inside and not isinstance(args[1], jax.core.Tracer) and np.ndim(args[1]) == 1


def _slice(args: list[Any], params: dict[str, Any]) -> jax.Array:
    operand, place = args
    where, sizes = params["dimension_numbers"], params["slice_sizes"]
    starts = [0] * operand.ndim
    for axis, start in zip(where.start_index_map, np.asarray(place).tolist(), strict=True):
        starts[axis] = start
    limits = [start + size for start, size in zip(starts, sizes, strict=True)]
    return lax.squeeze(lax.slice(operand, starts, limits), where.collapsed_slice_dims)
