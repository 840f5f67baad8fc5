"""The line that shows how far a training is: at most 80 columns, with a bar where it can be drawn in place."""

import math
from collections.abc import Mapping

_BAR = 12  # columns


def line(
    step: int, num_steps: int, speed: float | None, batch_size: int, values: Mapping[str, float], width: int = 80
) -> str:
    """Return the plain line of a logged step, for pipes and files.

    Args:
      step: the last one that is done, of `num_steps`.
      num_steps: of the whole run.
      speed: steps a second; None: not known yet.
      batch_size: images of a step.
      values: losses by name, "train/" left out; as many are shown as fit; all are in ``metrics.csv``.
      width: columns that there are.
    """
    return _fitted([f"step {step:,}/{num_steps:,}", *_speed(step, num_steps, speed, batch_size)], values, width)


def bar(
    step: int, num_steps: int, speed: float | None, batch_size: int, values: Mapping[str, float], width: int = 80
) -> str:
    """Return the line with a bar, to be drawn over itself; see ``line``."""
    done = _BAR * step // num_steps
    drawn = f"[{'#' * done}{'-' * (_BAR - done)}] {step:,}/{num_steps:,}"
    return _fitted([drawn, *_speed(step, num_steps, speed, batch_size)], values, width)


def _speed(step: int, num_steps: int, speed: float | None, batch_size: int) -> list[str]:
    if speed is None:
        return []
    return [f"{format_number(speed * batch_size)} images/s", f"{format_seconds((num_steps - step) / speed)} left"]


def _fitted(parts: list[str], values: Mapping[str, float], width: int) -> str:
    """Join parts, and behind them as many values as fit; what a player minimises comes first."""
    shown = "  ".join(parts)
    for name in sorted(values, key=lambda name: not name.split("/")[-1].startswith("total")):
        more = f"{shown}  {name} {values[name]:.3g}"
        if len(more) > width:
            break
        shown = more
    return shown[:width]


def format_number(number: float) -> str:
    """Return a number with about three digits, without an exponent: 1,234, 12.3, 0.0123."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}" if number >= 0.001 else f"{number:.1e}"


def format_seconds(seconds: float) -> str:
    """Return a duration as a person says it, such as "2 h 05 min"."""
    if not math.isfinite(seconds) or seconds > 1e8:
        return "unknown"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"
