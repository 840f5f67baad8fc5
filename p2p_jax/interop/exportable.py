"""A run's translation as one function of images only, of any size, for formats of other programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

import p2p_jax
from p2p_jax.config import complete
from p2p_jax.config.options import crop_shape
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.images import unknown
from p2p_jax.images.domains import NUMBERS, Domain
from p2p_jax.inference import Translator
from p2p_jax.inference.run import Run, open_run
from p2p_jax.inference.sizes import Sizes, find_sizes
from p2p_jax.interop.pixels import in_values
from p2p_jax.interop.places import without_places
from p2p_jax.objectives import Objective, make_network, make_objective

Weights = list[jax.Array]


class Exportable(NamedTuple):
    """A function of images, with its metadata.

    Attributes:
      function: ``(weights, images [B, H, W, C_in]) -> [B, H, W, C_out]``; each image is translated independently.
      weights: the part of the run's state that it reads, float32.
      images: shape and dtype of its images; free sizes are symbolic, as in ``jax.export``.
      sizes: sizes that the network takes.
      domains: domains of input and output values; None if both are normalized.
      metadata: facts for the user of the file, fit for JSON.
      notes: differences between the exported function and the run, in sentences.
    """

    function: Callable[[Weights, jax.Array], jax.Array]
    weights: Weights
    images: jax.ShapeDtypeStruct
    sizes: Sizes
    domains: tuple[Domain, Domain] | None
    metadata: dict[str, Any]
    notes: tuple[str, ...]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Translate images with the stored weights."""
        return self.function(self.weights, images)

    @property
    def is_fixed(self) -> bool:
        """Whether it takes images of only one size."""
        return all(isinstance(side, int) for side in self.images.shape[1:3])


def open_in_float32(
    workdir: str | Path,
    checkpoint: str | int,
    norm: str | None,
    objective: Objective | None,
    trust: Trust = (),
    raw: bool = False,
) -> tuple[Run, bool]:
    """Open a run for float32, regardless of the dtype of training, and without noise.

    Returns:
      The run, with its own config except for the switches, and whether its own translations have noise.

    Raises:
      InputError: see ``Translator.from_workdir``, which also explains the arguments.
    """
    run = open_run(workdir, checkpoint, norm, False, objective, trust, raw)
    stored = run.stored_config(trust)
    exact = {"dtype": "float32", "precision": "auto"}
    if objective is None and any(run.config[name] != value for name, value in exact.items()):
        run = run._replace(objective=make_objective(complete(run.config.to_dict() | exact)))
    draws = getattr(make_network(run.config.generator), "dropout_rate", 1.0) > 0
    return run, stored is not None and stored.inference.dropout and draws


def make_exportable(translator: Translator, *, pixels: bool, noisy: bool) -> Exportable:
    """Make the function that an opened run's translator computes on images of fitting sizes.

    Args:
      translator: translator of a run in float32 and without noise.
      pixels: take and return values of the run's domains instead of normalized images.
      noisy: whether the run's own translations have noise.

    Raises:
      InputError: `pixels` is given, and the values do not map linearly to [-1, 1].
    """
    run, data = translator.run, translator.config.data
    state_shapes = run.shapes
    forward = translator.direction == data.direction
    given, fake = ("real_a", "fake_b") if forward else ("real_b", "fake_a")
    if pixels:
        _check_kinds(translator)
    domains = (translator.domain_in, translator.domain_out) if pixels else None

    def translate(state, images):
        return run.objective.translate(state, {given: images}, run.rng)[fake].astype(jnp.float32)

    kept, rebuild = run.restore(lambda state, images, rng: translate(state, images), batch=run.batch[given])
    weights = [_in_float32(leaf) for leaf in kept]

    def function(weights, images):
        state = rebuild(weights)
        if domains is None:
            return translate(state, images)
        return in_values(lambda given: translate(state, given), *domains, translator.lost_number)(images)

    def fault(*shape):
        """Return why images of a shape are not accepted; "" if they are."""
        images = jax.ShapeDtypeStruct((*shape, translator.channels_in), jnp.float32)
        try:
            found = jax.eval_shape(translate, state_shapes, images).shape
        except Exception as error:  # of any kind: a symbolic size cannot be computed
            return str(error).strip().split("\n")[0]
        return "" if found == (*shape, translator.channels_out) else f"it makes {found} of {shape}"

    crop = crop_shape(data)
    sizes = find_sizes(lambda height, width: not fault(1, height, width), crop)
    noise = "the noise z (dropout) of the run's own translations is left out: the exported function is deterministic"
    notes = [noise] if noisy else []
    batch, *sides = _symbols(sizes)
    if reason := fault(batch, *sides):
        batch, sides = *export.symbolic_shape("batch"), list(crop)
        if not fault(1, crop[0] + sizes.multiple, crop[1] + sizes.multiple):
            notes.append(
                f"images must be {crop[0]}x{crop[1]}, because the network cannot be traced for any size: {reason}"
            )
    dtype = jnp.float32 if domains is None else domains[0].dtype
    spec = jax.ShapeDtypeStruct((batch, *sides, translator.channels_in), dtype)
    metadata = _metadata(translator, sizes, spec, pixels)
    return Exportable(function, weights, spec, sizes, domains, metadata, tuple(notes))


def _symbols(sizes: Sizes) -> tuple[Any, ...]:
    """Return the symbolic batch, height and width of images that a network takes."""
    least = -(-sizes.smallest // sizes.multiple)
    constraints = [f"{side} >= {least}" for side in ("h", "w")] if least > 1 else []
    return tuple(export.symbolic_shape(f"batch, {sizes.multiple}*h, {sizes.multiple}*w", constraints=constraints))


def _in_float32(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _check_kinds(translator: Translator) -> None:
    mend = "leave `pixels` out; the file's metadata says how values map to [-1, 1]"
    for name, domain in (("takes", translator.domain_in), ("makes", translator.domain_out)):
        if domain.kind not in NUMBERS:
            raise InputError(f"`pixels`: the run {name} {domain.kind}, which do not map linearly to [-1, 1]: {mend}")
        if not domain.is_measured:
            raise InputError(f"`pixels`: the range of the values that the run {name} is not known: {mend}")


def _metadata(translator: Translator, sizes: Sizes, images: jax.ShapeDtypeStruct, pixels: bool) -> dict[str, Any]:
    run = translator.run
    return {
        "p2p_jax": p2p_jax.__version__,
        "jax": jax.__version__,
        "run": run.name,
        "step": run.step,
        "weights": translator.weights,
        "checkpoint_id": translator.checkpoint_id,
        "objective": run.config.objective,
        "direction": translator.direction,
        "layout": "NHWC",
        "shape": [str(side) if not isinstance(side, int) else side for side in images.shape],
        "multiple": sizes.multiple,  # Translator pads height and width to it
        "pixels": pixels,
        "range": "values" if pixels else [-1, 1],
        "input": describe(translator.domain_in),
        "output": describe(translator.domain_out),
        "norm": run.config.inference.norm,
        "dropout": False,
        "dtype": "float32",  # dtype of the computation
        "config": without_places(run.config.to_dict())[0],
    }


def describe(domain: Domain) -> dict[str, Any]:
    """Return a domain for JSON.

    ``range`` holds, for each channel, the values that become -1 and 1. ``nodata`` is the number that marks unknown
    values, "nan" where only NaN does, None if no value of the domain says so.
    """
    unmarked = "nan" if domain.unknown and domain.dtype.kind == "f" else None
    return {
        "kind": domain.kind,
        "dtype": str(domain.dtype),
        "channels": domain.channels,
        "range": [list(pair) for pair in zip(domain.low, domain.high, strict=True)],
        "nodata": domain.nodata if unknown.is_number(domain.nodata) else unmarked,
        "palette": domain.palette.to_json() if domain.palette is not None else None,
    }
