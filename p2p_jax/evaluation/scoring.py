"""Scores the images of an evaluation one by one: their metrics, and the data for set metrics and the report."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape
from p2p_jax.data import Split
from p2p_jax.evaluation import units
from p2p_jax.evaluation.gallery import Gallery
from p2p_jax.evaluation.passing import Passing
from p2p_jax.evaluation.predictions import Prediction, as_picture, predict, sides, targets_of
from p2p_jax.images.domains import of_config
from p2p_jax.images.shown import has_colours
from p2p_jax.inference import Translator, tiling
from p2p_jax.inference.run import Run
from p2p_jax.objectives.metrics import find_metrics, full_reference
from p2p_jax.process.freed_memory import arrived
from p2p_jax.training import parallel
from p2p_jax.training.grids import pictures

_PER_DEVICE = 8
_LONGEST_SHOWN = 512  # pixels of a side of a picture in the report
_MOST_SIZES = 32  # with compiled programs in memory
_Scored = tuple[dict[str, Any], dict[str, np.ndarray]]  # metrics of one image, and its columns


def row_names(split: Split) -> list[str]:
    """Return the names of all rows of an evaluation: those of images, or of both sides without pairs."""
    count = max(map(len, split.names))
    rows = ([names[i % len(names)] for names in split.names] for i in range(count))
    return [a if split.paired else f"{a} | {b}" for a, b in rows]


def score(
    run: Run, translator: Translator, split: Split, passing: Passing | None, gallery: Gallery | None
) -> list[dict[str, Any]]:
    """Score every image of a split, or of its shard.

    Args:
      run: the run, as it is evaluated.
      translator: translator of the run.
      split: the split to evaluate.
      passing: gets outputs and targets; None: no set metric is requested.
      gallery: gets pictures for the report; None: there is no report.

    Returns:
      A row for each image: ``name`` and metrics.
    """
    metrics_of_pairs = find_metrics(run.config.metrics)
    whole_pairs = split.whole and split.paired
    of_crops = run.config.best_metric not in {metric.key for metric in metrics_of_pairs}  # cycles, for example
    own: Iterator[_Scored] = itertools.repeat(({}, {}))
    missing = whole_pairs
    if of_crops or not whole_pairs:
        own = _own_metrics(run, split)
        first = next(own)
        own = itertools.chain([first], own)
        missing |= split.paired and any(metric.key not in first[0] for metric in metrics_of_pairs)
    in_units = split.paired and units.has_units(translator.domain_out)
    names, rows = row_names(split), list[dict[str, Any]]()
    translates = passing is not None or in_units or missing
    predictions = predict(translator, split) if translates else iter(())
    compare = _by_sizes(partial(full_reference, metrics=metrics_of_pairs))

    for place, (metrics, columns) in zip(split.places(len(names)), own, strict=False):
        row: dict[str, Any] = {"name": names[place]} | metrics
        prediction = next(predictions, None) if split.paired else None
        if prediction is not None:
            assert prediction.target is not None
            compared = compare(prediction.output[None], prediction.target[None])
            row |= {name: float(value[0]) for name, value in compared.items() if name not in row}
            if in_units:
                row |= units.errors(translator.domain_out, prediction.output, prediction.target)
            if whole_pairs:
                columns = shown(translator, prediction)
            if passing is not None:
                _pass_input(translator, prediction, place, passing)
                passing.output(place, as_picture(translator, prediction.output, prediction.input))
                passing.target(place, as_picture(translator, prediction.target, prediction.input))
        rows.append(row)
        if gallery is not None:
            gallery.add(place, row, columns)
    if passing is not None and not split.paired:
        _pass_unpaired(translator, split, predictions, passing)
    return rows


def _by_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function for images of any sizes; old programs are dropped before there are too many."""
    compiled: Any = jax.jit(function)
    sizes: set[tuple[tuple[int, ...], ...]] = set()

    def run(*images):
        size = tuple(image.shape for image in images)
        if size not in sizes and len(sizes) == _MOST_SIZES:
            compiled.clear_cache()
            sizes.clear()
        sizes.add(size)
        return compiled(*arrived(jax.device_put(images)))

    return run


def _pass_unpaired(translator: Translator, split: Split, predictions: Iterator[Prediction], passing: Passing) -> None:
    """Pass on all outputs, and then all images of the other domain, which may differ in number."""
    given, wanted, _ = sides(translator, split)
    count = {name: len(names) for name, names in zip(("real_a", "real_b"), split.names, strict=True)}
    for place, prediction in zip(split.places(count[given]), predictions, strict=True):
        _pass_input(translator, prediction, place, passing)
        passing.output(place, as_picture(translator, prediction.output, prediction.input))
    for place, target in zip(split.places(count[wanted]), targets_of(translator, split), strict=True):
        passing.target(place, target)


def _pass_input(translator: Translator, prediction: Prediction, place: int, passing: Passing) -> None:
    """Pass on an input, if a metric uses it and its picture shows what a copy would look like."""
    if passing.takes_inputs and has_colours(translator.domain_in):
        passing.input(place, translator.domain_in.picture(prediction.input))


def _own_metrics(run: Run, split: Split) -> Iterator[_Scored]:
    """Yield the objective's own metrics and columns of every image, computed as in validation during training."""
    kept, rebuild = run.restore(run.objective.evaluate)
    own = parallel.Evaluation(lambda kept, batch, rng: run.objective.evaluate(rebuild(kept), batch, rng), _PER_DEVICE)
    domains = of_config(run.config.data)
    for batch in split.batches(own.part):
        if split.whole:  # one example with sides of different sizes: a grid of crops covers each
            metrics, images = own(kept, _grid(batch, run.config.data), run.rng)
            metrics = {name: value.mean(keepdims=True) for name, value in metrics.items()}
        else:
            metrics, images = own(kept, batch, run.rng)
        images = pictures(images, domains)
        for i in range(len(batch["real_a"])):
            row = {key: float(value[i]) for key, value in metrics.items()}
            yield row, {key: image[i] for key, image in images.items()}


def _grid(batch: Mapping[str, np.ndarray], data: ConfigDict) -> dict[str, np.ndarray]:
    """Return crops that cover an image of either side; those of the side that needs fewer are repeated."""
    crop = crop_shape(data)
    cut = {name: tiling.cut(images[0], crop, 0)[0] for name, images in batch.items()}
    most = max(map(len, cut.values()))
    return {name: crops[np.arange(most) % len(crops)] for name, crops in cut.items()}


def shown(translator: Translator, prediction: Prediction) -> dict[str, np.ndarray]:
    """Return the columns of a whole image, with every n-th pixel if it is large."""
    step = -(-max(prediction.input.shape[:2]) // _LONGEST_SHOWN)
    images = {"input": prediction.input, "output": prediction.output, "target": prediction.target}
    small = {name: image[None, ::step, ::step] for name, image in images.items() if image is not None}
    return {name: image[0] for name, image in pictures(small, of_config(translator.config.data)).items()}
