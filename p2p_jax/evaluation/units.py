"""Errors in the units of the data, such as metres: which images have units, and their errors."""

import numpy as np

from p2p_jax.images.domains import Domain
from p2p_jax.objectives.metrics import in_units

_KINDS = ("uint16", "int16", "float")
_MOST_SHOWN = 4  # ranges of channels


def has_units(domain: Domain) -> bool:
    """Return whether errors of a domain make sense in its own units: its values are numbers, not 8-bit pictures."""
    return domain.kind in _KINDS and domain.is_measured


def errors(domain: Domain, output: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return the errors of an image in the units of its domain.

    Channels with different ranges are also measured one by one: in the mean over all, the channel with the largest
    numbers hides the others.

    Args:
      domain: of both; see ``has_units``.
      output: [H, W, C] float in [-1, 1]; NaN is unknown.
      target: the same.

    Returns:
      "mae_units", "rmse_units" and "bias_units", and for single channels with the number added, "mae_units_1".
    """
    values = [np.where(np.isfinite(x), domain.decode(x).astype(np.float64), np.nan)[None] for x in (output, target)]
    found = in_units(*values, by_channel=len(_ranges(domain)) > 1)
    return {name: float(value[0]) for name, value in found.items()}


def describe(domain: Domain) -> str:
    """Return a sentence on the units of a domain."""
    ranges = [f"{low:g} to {high:g}" for low, high in _ranges(domain)]
    more = f" and {len(ranges) - _MOST_SHOWN} more" if len(ranges) > _MOST_SHOWN else ""
    told = f"from {', '.join(ranges[:_MOST_SHOWN])}{more}"
    each = ", by channel; names of errors of one channel end with its number" if len(ranges) > 1 else ""
    return f"The units of the output files: {domain.kind} values {told}{each}."


def _ranges(domain: Domain) -> list[tuple[float, float]]:
    """Return the ranges of the channels, or the single range of all."""
    ranges = list(zip(domain.low, domain.high, strict=True))
    return ranges if len(set(ranges)) > 1 else ranges[:1]
