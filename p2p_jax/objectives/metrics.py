"""Metrics of images, one value per image; the same in validation and in evaluation.

``IMAGE_METRICS`` is the table: validation, ``config.metrics``, ``config.best_metric``, the report and the ablation
tables read it. Your own metric is a ``Metric`` in a module, named in ``config.metrics`` as "module:name".
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from p2p_jax.config import resolve
from p2p_jax.errors import InputError


class Metric(NamedTuple):
    """A measure of images, one value for each.

    Attributes:
      key: its name in configs and results; an objective may add to it, as in "cycle_a".
      title: as tables print it.
      meaning: one sentence, with the range.
      lower_is_better: which way is up; None where neither is.
      compare: ``(outputs, targets) -> [N]``, in JAX, of images [N, H, W, C] float in [0, 1], each with its own target;
        None where the objective computes it by itself. NaN is unknown (``config.data.*.nodata``).
      form: how tables write it.
      in_units: ``(outputs, targets) -> [N]``, in NumPy, of images [N, H, W, C] float64 in the units of the data, such
        as metres; only in evaluation, and of images that have units. NaN is unknown.
    """

    key: str
    title: str
    meaning: str
    lower_is_better: bool | None
    compare: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    form: str = ".4f"
    in_units: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of each image over what is known of it; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum((1, 2, 3)) / known.sum((1, 2, 3))


IMAGE_METRICS = (
    Metric(
        key="l1",
        title="MAE",
        meaning="Mean absolute difference between output and target over pixels and channels, pixel values in [0, 1]; "
        "from 0, equal, to 1.",
        lower_is_better=True,
        compare=lambda output, target: jnp.nanmean(jnp.abs(target - output), (1, 2, 3)),
    ),
    Metric(
        key="psnr",
        title="PSNR",
        meaning="Peak signal-to-noise ratio of the output against the target in decibels, pixel values in [0, 1]; from "
        "0 upwards without limit. Equal images are infinite: they are counted but not in the mean. The mean is over "
        "the images' decibels.",
        lower_is_better=False,
        compare=lambda output, target: -10 * jnp.log10(jnp.nanmean(jnp.square(target - output), (1, 2, 3))),
        form=".2f",
    ),
    Metric(
        key="ssim",
        title="SSIM",
        meaning="Structural similarity of output and target, Gaussian window of 11 pixels with sigma 1.5, channels "
        "averaged; at most 1 (equal). Sides must be at least 11 pixels.",
        lower_is_better=False,
        compare=jax.vmap(partial(dm_pix.ssim, ignore_nans=True)),
        form=".3f",
    ),
    Metric(
        key="mae_units",
        title="MAE in units",
        meaning="Mean absolute error of the output in the units of its files, such as metres: how far a pixel is off "
        "on average; from 0, equal, upwards. An ending _1, _2, ... is one channel.",
        lower_is_better=True,
        form=".4g",
        in_units=lambda output, target: _mean(np.abs(output - target)),
    ),
    Metric(
        key="rmse_units",
        title="RMSE in units",
        meaning="Root of the mean squared error in the units of the output's files: never below the MAE, and far above "
        "it where a few pixels are far off; from 0 upwards. The mean is over the images' roots.",
        lower_is_better=True,
        form=".4g",
        in_units=lambda output, target: np.sqrt(_mean(np.square(output - target))),
    ),
    Metric(
        key="bias_units",
        title="bias in units",
        meaning="Mean of output minus target, with its sign, in the units of the output's files: above 0 the output is "
        "too high on average, below 0 too low. Near 0 the errors cancel; they may still be large.",
        lower_is_better=None,
        form=".4g",
        in_units=lambda output, target: _mean(output - target),
    ),
    Metric(
        key="cycle",
        title="cycle",
        meaning="Mean absolute difference between an image and its reconstruction, translated there and back, pixel "
        "values in [0, 1]; 0 to 1. An ending _a: A to B to A; _b: B to A to B; none: the mean of both. It does not say "
        "whether the translation itself is good.",
        lower_is_better=True,
    ),
    Metric(
        key="identity",
        title="identity",
        meaning="Mean absolute difference between an image and the output of the generator that translates into the "
        "image's own domain, pixel values in [0, 1]; 0 to 1.",
        lower_is_better=True,
    ),
    Metric(
        key="nce",
        title="NCE",
        meaning="CUT's contrastive loss: cross-entropy of finding a patch of the translation among those of the input "
        "by the generator's own features; from 0 upwards, the logarithm of the number of patches if all are alike. The "
        "features change with training. It says how well a network keeps its inputs, not how good they look.",
        lower_is_better=True,
    ),
)
"""The metrics that come with the library."""
_OF_PAIRS = {metric.key: metric for metric in IMAGE_METRICS if metric.compare}


def find_metrics(names: str) -> tuple[Metric, ...]:
    """Return metrics of images against their targets.

    Args:
      names: ``config.metrics``: "l1", "psnr", "ssim" or "module:name" of a ``Metric``, with commas.

    Raises:
      InputError: a name is unknown, names no ``Metric``, or two have one key.
    """
    found: dict[str, Metric] = {}
    for name in (part.strip() for part in names.split(",")):
        metric = resolve(name, "config.metrics") if ":" in name else _OF_PAIRS.get(name)
        if not isinstance(metric, Metric) or metric.compare is None:
            raise InputError(
                f"config.metrics: {name!r} is not a metric of pairs; choose from {', '.join(_OF_PAIRS)}, or name a "
                "p2p_jax.objectives.metrics.Metric with a compare, 'module:name'"
            )
        if metric.key in found:
            raise InputError(f"config.metrics names {metric.key} twice")
        found[metric.key] = metric
    return tuple(found.values())


def full_reference(
    outputs: jax.Array, targets: jax.Array, metrics: Sequence[Metric] = tuple(_OF_PAIRS.values())
) -> dict[str, jax.Array]:
    """Compare images with their targets, each with its own.

    Args:
      outputs: [N, H, W, C] float in [-1, 1]; SSIM needs sides of at least 11 pixels.
      targets: the same.
      metrics: with a ``compare``; l1, psnr and ssim by default.

    Returns:
      key -> [N].
    """
    output, target = (outputs + 1) / 2, (targets + 1) / 2
    return {metric.key: metric.compare(output, target) for metric in metrics if metric.compare is not None}


def in_units(outputs: np.ndarray, targets: np.ndarray, *, by_channel: bool) -> dict[str, np.ndarray]:
    """Compare images with their targets in the units of their values.

    Args:
      outputs: [N, H, W, C] float64 in units; NaN is unknown.
      targets: the same.
      by_channel: measure each channel by itself as well, "mae_units_1" and so on.

    Returns:
      key -> [N].
    """
    measures = {metric.key: metric.in_units for metric in IMAGE_METRICS if metric.in_units is not None}
    found = {key: measure(outputs, targets) for key, measure in measures.items()}
    for i in range(outputs.shape[-1] if by_channel else 0):
        one = slice(i, i + 1)
        found |= {f"{key}_{i + 1}": measure(outputs[..., one], targets[..., one]) for key, measure in measures.items()}
    return found
