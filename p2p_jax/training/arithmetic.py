"""Multiply-adds of a program, counted in its JAX trace: nothing is compiled, and nothing is computed.

Only ``conv_general_dilated`` and ``dot_general`` are counted, however they are nested: in compiled functions, custom
derivatives, parts that are computed again (`remat`), loops, branches. All else (norms, activations,
random numbers, optimizers) is bound by memory on every device. See ``training.work`` for each of them.

Which branch is taken is followed where it can be known beforehand: numbers that are computed only from given ones, such
as the number of the step, are computed.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from p2p_jax.errors import InputError
from p2p_jax.nets.convolution import in_plain_form
from p2p_jax.training.work import Work, of_convolution, of_product

_LARGEST = 256  # numbers of an array that is computed to follow branches
_TURNS = 10_000  # of a loop, followed one by one
_OPAQUE = ("pallas_call", "ffi_call", "custom_call", "pure_callback", "io_callback", "ragged_dot_general")
_SAME = ("psum", "psum_invariant", "pmax", "pmin", "all_gather_invariant")  # over one device


class _Later:
    """A value that is computed on demand; None if it cannot be."""

    def __init__(self, compute: Callable[[], Any]):
        self._compute: Callable[[], Any] | None = compute
        self._value: Any = None

    def get(self) -> Any:
        if self._compute is not None:
            self._value, self._compute = self._compute(), None
        return self._value


_Known = _Later | None  # None: it depends on what is not known


def known(value: Any) -> _Known:
    """Return a value as ``count`` takes it."""
    return _Later(lambda: value)


def traced(function: Callable, *shapes: Any, axes: Sequence[tuple[str, int]] = ()) -> core.ClosedJaxpr:
    """Trace a function with every convolution as one operation, and leave out what nobody needs, as XLA does.

    Args:
      function: of pytrees of arrays.
      *shapes: of its arguments, ``jax.ShapeDtypeStruct``.
      axes: name and size of the device axes that it knows.
    """
    with in_plain_form():
        found = jax.make_jaxpr(function, axis_env=list(axes))(*shapes)
    jaxpr, _ = partial_eval.dce_jaxpr(found.jaxpr, [True] * len(found.jaxpr.outvars), instantiate=True)
    return core.ClosedJaxpr(jaxpr, found.consts)


def count(program: core.ClosedJaxpr, given: Sequence[_Known] | None = None) -> Work:
    """Count the multiply-adds of a program.

    Args:
      program: as ``traced`` returns it.
      given: its arguments, where they are known.

    Raises:
      InputError: there is work in a loop with an unknown number of iterations, or in an operation that JAX hides.
    """
    return _walk(program, given or [None] * len(program.jaxpr.invars))[0]


def _walk(program: Any, given: Sequence[_Known]) -> tuple[Work, list[_Known]]:
    """Return the work of a program, and its results where they are known."""
    jaxpr, consts = getattr(program, "jaxpr", program), getattr(program, "consts", ())
    values: dict[Any, _Known] = dict(zip(jaxpr.constvars, map(known, consts), strict=True))
    values |= dict(zip(jaxpr.invars, given, strict=True))

    def look_up(x: Any) -> _Known:
        return known(x.val) if isinstance(x, core.Literal) else values[x]

    work = Work()
    for equation in jaxpr.eqns:
        found, results = _one(equation, [look_up(x) for x in equation.invars])
        work = work.plus(found)
        values |= dict(zip(equation.outvars, results, strict=True))
    return work, [look_up(x) for x in jaxpr.outvars]


def _one(equation: Any, given: list[_Known]) -> tuple[Work, list[_Known]]:
    name, params = equation.primitive.name, equation.params
    unknown: list[_Known] = [None] * len(equation.outvars)
    if name == "conv_general_dilated":
        return Work(of_convolution(equation)), unknown
    if name == "dot_general":
        return Work(of_product(equation)), unknown
    if name in _OPAQUE:
        return Work(doubts=frozenset({f"the work inside {name} is not counted"})), unknown
    if name in _SAME:
        return Work(), given[: len(unknown)]
    if name == "cond":
        return _of_branches(params["branches"], given[0], given[1:])
    if name == "scan":
        return _of_scan(equation, given), _computed(equation, given)
    if name == "while":
        return _of_while(params, given), _computed(equation, given)
    parts = [part for part in jax.tree.leaves(params, is_leaf=_is_program) if _is_program(part)]
    called = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if _is_program(params.get(key))), None)
    if called is not None and _fits(called, equation):
        return _walk(called, given)
    if any(_walk(part, [None] * len(_inner(part).invars))[0].most() for part in parts):
        raise InputError(f"the work of {name} cannot be counted: it contains convolutions or matrix products")
    return Work(), _computed(equation, given)


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _inner(program: Any) -> Any:
    return getattr(program, "jaxpr", program)


def _fits(program: Any, equation: Any) -> bool:
    """Return whether a program has the inputs and outputs of the operation that calls it."""
    pairs = [(_inner(program).invars, equation.invars), (_inner(program).outvars, equation.outvars)]
    return all(
        len(ours) == len(theirs) and all(a.aval.shape == b.aval.shape for a, b in zip(ours, theirs, strict=True))
        for ours, theirs in pairs
    )


def _of_branches(branches: Sequence[Any], index: _Known, given: list[_Known]) -> tuple[Work, list[_Known]]:
    walked = [_walk(branch, given) for branch in branches]
    works = tuple(work for work, _ in walked)

    def choose(same: Sequence[_Known]) -> Any:
        at, values = _value(index), [_value(x) for x in same]
        if at is None or any(value is None for value in values):
            return None
        return jnp.stack([jnp.asarray(value) for value in values])[_clipped(at, len(branches))]

    results = zip(*(found for _, found in walked), strict=True)
    chosen: list[_Known] = [_Later(partial(choose, same)) if index and all(same) else None for same in results]
    if all(work == works[0] for work in works) and not works[0].choices:
        return works[0], chosen
    at = _value(index)
    if at is None:
        dearest = max(works, key=Work.most)
        doubt = "which branch runs is not known in advance: the most expensive one is counted"
        return Work(dearest.most(), doubts=frozenset({doubt}).union(*(work.doubts for work in works))), chosen
    at = _clipped(at, len(branches))
    if not isinstance(at, jax.core.Tracer):
        return walked[int(at)]
    return Work(0, ((at, works),), frozenset().union(*(work.doubts for work in works))), chosen


def _clipped(index: Any, count: int) -> Any:
    return jnp.clip(jnp.asarray(index).astype(jnp.int32), 0, count - 1)


def _value(x: _Known) -> Any:
    return None if x is None else x.get()


def _of_scan(equation: Any, given: list[_Known]) -> Work:
    params = equation.params
    body, turns = params["jaxpr"], params["length"]
    sliced = _differ(_inner(body).invars, equation.invars)
    carried = len(given) - sliced
    consts = carried - (len(equation.outvars) - _differ(_inner(body).outvars, equation.outvars))
    each = _walk(body, [*given[:consts], *[None] * (len(given) - consts)])[0]
    if not each.doubts or turns > _TURNS or not any(given[consts:]):
        return each.times(turns)
    # Turn by turn: values known at the start, such as the number of the turn, may decide which branches are taken.
    work, state = Work(), given[consts:carried]
    for turn in reversed(range(turns)) if params["reverse"] else range(turns):
        slices = [None if _value(x) is None else known(_value(x)[turn]) for x in given[carried:]]
        found, results = _walk(body, [*given[:consts], *state, *slices])
        work, state = work.plus(found), [_kept(x) for x in results[: carried - consts]]
    return work


def _differ(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    """Return how many arrays of a loop's turn are slices of those of the loop."""
    return sum(len(a.aval.shape) != len(b.aval.shape) for a, b in zip(ours, theirs, strict=True))


def _kept(x: _Known) -> _Known:
    """Compute a value now, so values of many turns do not wait for each other."""
    value = _value(x)
    return None if value is None else known(value)


def _of_while(params: Any, given: list[_Known]) -> Work:
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    asking, doing, state = given[:first], given[first:second], [_kept(x) for x in given[second:]]
    if not _walk(body, [*doing, *[None] * len(state)])[0].most():
        return Work()
    work = Work()
    for _ in range(_TURNS):
        goes_on = _value(_walk(condition, [*asking, *state])[1][0])
        if goes_on is None or isinstance(goes_on, jax.core.Tracer):
            break
        if not bool(goes_on):
            return work
        found, results = _walk(body, [*doing, *state])
        work, state = work.plus(found), [_kept(x) for x in results]
    raise InputError(
        "multiply-adds cannot be counted: a while loop contains convolutions or matrix products, and its number of "
        "iterations is not known in advance"
    )


def _computed(equation: Any, given: list[_Known]) -> list[_Known]:
    """Return the results of an operation on known values; unknown are those of unknown values, and of large ones."""
    small = all(math.prod(x.aval.shape) <= _LARGEST for x in (*equation.invars, *equation.outvars))
    if not small or not all(given) or equation.effects:
        return [None] * len(equation.outvars)

    def compute() -> list[Any]:
        values, nothing = [_value(x) for x in given], [None] * len(equation.outvars)
        if any(value is None for value in values):
            return nothing
        try:
            results = equation.primitive.bind(*values, **equation.params)
        except (NameError, NotImplementedError):  # it asks for a device axis, or cannot be done for many steps at once
            return nothing
        return list(results) if equation.primitive.multiple_results else [results]

    together = _Later(compute)
    return [_Later(partial(lambda i: together.get()[i], i)) for i in range(len(equation.outvars))]
