"""Metrics of images, one value per image; the same in validation and in evaluation.

``IMAGE_METRICS`` is the table: validation, ``config.metrics``, ``config.best_metric``, the report and the ablation
tables read it. A metric of one's own is a ``Metric`` in a module, named in ``config.metrics`` as "module:name".
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp

from p2p_jax.config import resolve
from p2p_jax.errors import InputError


class Metric(NamedTuple):
    """A measure of images, one value for each.

    Attributes:
      key: its name in configs and results; an objective may add to it, as in "cycle_a".
      title: as tables print it.
      meaning: one sentence, with the range.
      lower_is_better: which way is up.
      compare: ``(outputs, targets) -> [N]``, in JAX, of images [N, H, W, C] float in [0, 1], each with its own target;
        None where the objective computes it by itself. NaN is unknown (``config.data.*.nodata``).
      form: how tables write it.
    """

    key: str
    title: str
    meaning: str
    lower_is_better: bool
    compare: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    form: str = ".4f"


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
        "0 upwards without limit, infinite for equal images, which are counted and not in the mean. The mean is that "
        "of the images' decibels.",
        lower_is_better=False,
        compare=lambda output, target: -10 * jnp.log10(jnp.nanmean(jnp.square(target - output), (1, 2, 3))),
        form=".2f",
    ),
    Metric(
        key="ssim",
        title="SSIM",
        meaning="Structural similarity of output and target, Gaussian window of 11 pixels with sigma 1.5, channels "
        "averaged; at most 1, equal. Sides must be of 11 pixels at least.",
        lower_is_better=False,
        compare=jax.vmap(partial(dm_pix.ssim, ignore_nans=True)),
        form=".3f",
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
        meaning="Mean absolute difference between an image and what the generator makes of it that leads into the "
        "image's own domain, pixel values in [0, 1]; 0 to 1.",
        lower_is_better=True,
    ),
    Metric(
        key="nce",
        title="NCE",
        meaning="Contrast of CUT: cross-entropy of finding a patch of the translation among those of the input by the "
        "generator's own features; from 0 upwards, the logarithm of the number of patches if all are alike. The "
        "features change with training, so it says how well a network keeps its inputs, and not how good they look.",
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
                f"config.metrics: {name!r} is not a metric of pairs; choose of {', '.join(_OF_PAIRS)}, or name a "
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
