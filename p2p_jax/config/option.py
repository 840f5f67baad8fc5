"""One option: its type, default, allowed values, and meaning."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_TYPES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


class Option(NamedTuple):
    """One line of a table of options.

    Attributes:
      name: its name in a config, with its section: "data.flip".
      type: bool, int, float or str; None: anything.
      default: its value where a config does not set it.
      meaning: what it does, in a line.
      bounds: the interval of its numbers, such as "[0, 1)" or "[1, inf)"; "": any that is finite.
      choices: the only values that it may have; (): no such list.
      may_change: "runs": between two starts of one run, because it does not alter what a step computes; "processes":
        between processes that train together too; "": never.
    """

    name: str
    type: type | None
    default: Any
    meaning: str = ""
    bounds: str = ""
    choices: tuple[Any, ...] = ()
    may_change: str = ""

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value, or None."""
        if value is None and self.default is None:
            return None
        if self.choices:
            fits = any(type(value) is type(choice) and value == choice for choice in self.choices)
            return None if fits else f"choose {_listed(self.choices)}"
        if self.type is None or (_is_of(value, self.type) and _lies_in(value, self.bounds)):
            return None
        return f"it must be {self.wanted}"

    @property
    def wanted(self) -> str:
        """What values it takes, in words."""
        if self.choices:
            return _listed(self.choices)
        if self.type is None:
            return "anything"
        words = _TYPES[self.type]
        if not self.bounds:
            return words
        low, _, high = self.bounds[1:-1].partition(", ")
        if self.bounds.startswith("[") and high == "inf":
            return f"{words} of at least {low}"
        return f"{words} above {low}" if high == "inf" else f"{words} in {self.bounds}"


def attribute(default: Any, *, bounds: str = "", choices: Sequence[Any] = ()) -> Any:
    """Return a field of a network's class with its allowed values; see ``Option``."""
    return dataclasses.field(default=default, metadata={"bounds": bounds, "choices": tuple(choices)})


def as_options(options: Sequence[Option] | Mapping[str, Any]) -> dict[str, Option]:
    """Return options by their names; for a plain mapping to defaults, the types are those of the defaults."""
    if not isinstance(options, Mapping):
        return {option.name: option for option in options}
    return {name: Option(name, type_of(default), default) for name, default in options.items()}


def type_of(default: Any) -> type | None:
    """Return the type of an option that has this default: None where the default does not show it."""
    return type(default) if type(default) in _TYPES else None


def _is_of(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def _lies_in(value: Any, bounds: str) -> bool:
    if not bounds:
        return True
    low, high = map(float, bounds[1:-1].split(", "))
    above = value >= low if bounds[0] == "[" else value > low
    below = value <= high if bounds[-1] == "]" else value < high
    return above and below


def _listed(choices: Sequence[Any]) -> str:
    *rest, last = [str(choice) if choice != "" else '""' for choice in choices]
    return f"{', '.join(rest)} or {last}" if rest else last
