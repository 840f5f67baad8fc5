"""A trained run as one model file: its generators, what is known of them, and nothing of the machine they are from."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from p2p_jax import __version__
from p2p_jax.config.options import SEGMENTER, crop_shape
from p2p_jax.config.stored import Trust, outside, stays_inside
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_config
from p2p_jax.inference import Translator
from p2p_jax.inference.run import Run, lacks_statistics, named, open_run
from p2p_jax.interop.exportable import describe
from p2p_jax.interop.known_metrics import known_metrics
from p2p_jax.objectives import Objective, averaging
from p2p_jax.storage.tensor_file import SUFFIX
from p2p_jax.training import model_file

DTYPES = ("float32", "float16")
_PLACES = ("init_from", "data.dir", "task.weights", "distances.weights")
_PLACES_INSIDE = ("data.dir_a", "data.dir_b")  # as a rule in the folder of the images, such as {split}/A
_STATISTICS = "batch_stats/"
_ABSOLUTE = re.compile(r"""(?:^|[\s,;=:"'(])(?:/[^/\s]|~|\\\\|[A-Za-z]:[/\\]|file:)""")


class Packed(NamedTuple):
    """A model file that was written.

    Attributes:
      path: of the file.
      megabytes: its size.
      about: what it tells of itself, by ``model_file.SUBJECTS``.
      digest: SHA-256 of all that is in it.
      difference: of float16, the largest to the run's own translation of noise, on the scale of [-1, 1]; 0 of float32.
      notes: what is to be known about it, each a sentence.
    """

    path: Path
    megabytes: float
    about: dict[str, Any]
    digest: str
    difference: float
    notes: tuple[str, ...]


def pack(
    workdir: str | Path,
    output: str | Path,
    checkpoint: str | int = "latest",
    direction: str | None = None,
    *,
    dtype: str | None = None,
    licence: str = "",
    objective: Objective | None = None,
    trust: Trust = (),
    raw: bool = False,
) -> Packed:
    """Write the generators of a run, with all that is known of them, to one file that is only data.

    Without `direction` it holds all that translation and validation read: both generators of CycleGAN, the generator
    and the heads of CUT. What names places of this machine, ``data.dir`` and the like and any absolute path in the
    config, does not go along, nor do names of images.

    Args:
      workdir: the run's directory; or a model file, of which another one is made.
      output: the file, FILE.safetensors; a model file that is there is replaced.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA": only the generator of this way.
      dtype: of the weights: "float32", by default that, or of a model file its own; or "float16". Statistics of norms
        stay in float32.
      licence: under which others may use it, such as "cc-by-4.0"; of a model file by default its own.
      objective: what was trained, if it was given to ``p2p_jax.train``.
      trust: code outside the library that the run's config may name; see ``Translator.from_workdir``.
      raw: take the generators as they were after the step, where the run has an average of them.

    Raises:
      InputError: no such run, checkpoint or direction, weights that float16 cannot hold, or the file cannot be written.
    """
    output = _check_output(Path(output))
    licence = _check_licence(licence)
    if dtype not in (None, *DTYPES):
        raise InputError(f"dtype={dtype}: choose one of {', '.join(DTYPES)}")
    if direction not in (None, "AtoB", "BtoA"):
        raise InputError(f"direction={direction}: choose AtoB or BtoA")
    run = open_run(workdir, checkpoint, objective=objective, trust=trust, raw=raw)
    dtype = dtype or (run.file.about["model"].get("dtype", "float32") if run.file else "float32")
    first = Translator(run, direction=direction, batch_size=1)
    directions = (direction,) if direction else first.directions
    ids = _ids(run, first, directions)
    arrays, notes = _arrays(run, directions, whole=direction is None, dtype=dtype)
    config, stripped = without_places(run.config.to_dict())
    about = {
        "p2p_jax": {"format": model_file.FORMAT, "version": __version__, "jax": jax.__version__},
        "config": config,
        "model": {
            "objective": run.config.objective,
            "directions": list(directions),
            "direction": run.config.data.direction,  # of its training: from real_a to real_b
            "step": run.step,
            "weights": run.weights,
            "dtype": dtype,
            "num_parameters": sum(array.size for name, array in arrays.items() if name.startswith("params/")),
            "checkpoint_ids": ids,  # as the run has them, before they are rounded
        },
        "domains": dict(zip(("input", "output"), map(describe, of_config(run.config.data)), strict=True)),
        "data": _data(run, stripped),
        "licence": {"name": licence or (run.file.about["licence"].get("name", "") if run.file else "")},
        "metrics": run.file.about["metrics"] if run.file else {"found": known_metrics(run, ids)},
    }
    if stripped:
        notes.append(f"left out, as it names places of this machine: {', '.join(f'config.{x}' for x in stripped)}")
    if named := sorted({name for names in outside(config).values() for name in names}):
        notes.append(
            f"its config names code outside the library, {', '.join(named)}, which does not go along: whoever opens "
            "the file needs it, and has to trust it by name"
        )
    difference = 0.0
    if dtype == "float16":
        difference = _difference(first, run, arrays)
    told = model_file.write(output, arrays, about)
    return Packed(output, output.stat().st_size / 1e6, about, told, difference, tuple(notes))


def _ids(run: Run, first: Translator, directions: tuple[str, ...]) -> dict[str, str]:
    """Return what tells the run's weights of each direction from others."""
    if run.file:
        known = run.file.about["model"].get("checkpoint_ids")
        return {way: str(known[way]) for way in directions if isinstance(known, Mapping) and way in known}
    others = [way for way in directions if way != first.direction]
    translators = [first, *(Translator(run, direction=way, batch_size=1) for way in others)]
    return {translator.direction: translator.checkpoint_id for translator in translators}


def without_places(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a config without what names places of the machine that it is from, and the options that were emptied.

    Places are what the options for them hold, and in any option a text that is an absolute path.
    """
    stripped: list[str] = []

    def clean(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {name: clean(part, f"{key}.{name}" if key else str(name)) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [clean(part, f"{key}[{number}]") for number, part in enumerate(value)]
        if isinstance(value, str) and value and _is_place(value, key):
            stripped.append(key)
            return ""
        return value

    return clean(config, ""), stripped


def _is_place(text: str, key: str) -> bool:
    folder = key == "distances.features" and text.startswith(SEGMENTER)
    leads_out = key in _PLACES_INSIDE and not stays_inside(text)
    return key in _PLACES or folder or leads_out or _ABSOLUTE.search(text) is not None


def _check_output(output: Path) -> Path:
    if output.suffix.lower() != SUFFIX:
        raise InputError(f"output={output}: a model file ends with {SUFFIX}, such as {output.with_suffix(SUFFIX).name}")
    output = Path(os.path.realpath(output))
    if output.is_dir() or (output.exists() and not output.is_file()):
        raise InputError(f"output={output} exists and is not a plain file; choose another name")
    if output.is_file():
        try:
            model_file.read_about(output)
        except InputError as error:
            raise InputError(
                f"output={output} would replace a file that is no model file; choose another name"
            ) from error
    return output


def _check_licence(licence: str) -> str:
    try:
        return model_file.check_licence(licence.strip())
    except ValueError as error:
        raise InputError(f"licence={licence[:40]!r}: write the name of one, such as cc-by-4.0") from error


def _arrays(
    run: Run, directions: tuple[str, ...], *, whole: bool, dtype: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what goes into the file, by the names of a state without an average, and what is to be said about it."""
    shapes, average = run.shapes, f"{averaging.KEY}/"
    names: set[str] = set()
    for direction in directions:
        forward = direction == run.config.data.direction
        given, fake = ("real_a", "fake_b") if forward else ("real_b", "fake_a")

        def translate(state, images, rng, given=given, fake=fake):
            return run.objective.translate(state, {given: images}, rng)[fake]

        names.update(run.read_by(translate, run.batch[given], shapes))
    if whole:
        names.update(run.read_by(run.objective.evaluate, None, shapes))
    parts = [name.removeprefix(average).split("/") for name in names]
    players = {part[1] for part in parts if part[0] == "params"}
    names.update(_statistics(run, shapes, players))
    arrays, notes = dict[str, np.ndarray](), list[str]()
    for name, value in run.values(names, shapes).items():
        array, plain = np.asarray(value), name.removeprefix(average)
        if plain in arrays:
            continue  # an average comes first, and is what is used
        if jnp.issubdtype(array.dtype, jnp.floating):
            if array.dtype == np.float64 and not notes:
                notes.append("weights of float64 were rounded to float32")
            array = array.astype(np.float32)
            if not np.isfinite(array).all():
                raise InputError(
                    f"{run.workdir}, step {run.step}: {plain} holds numbers that are not finite: it diverged"
                )
            array = _rounded(array, plain, dtype)
        arrays[plain] = array
    return arrays, notes


def _statistics(run: Run, shapes: Any, players: set[str]) -> set[str]:
    """Return the names of the running statistics of players, where the run has kept any."""
    if run.file is not None:
        return {x for x in run.file.arrays if x.startswith(_STATISTICS) and x.split("/")[1] in players}
    if lacks_statistics(run.workdir):
        return set()
    known = [name for name in named(shapes) if name.removeprefix(f"{averaging.KEY}/").startswith(_STATISTICS)]
    has_average = {name.removeprefix(f"{averaging.KEY}/") for name in known if name.startswith(averaging.KEY)}
    if run.weights == "average":
        known = [name for name in known if name.startswith(averaging.KEY) or name not in has_average]
    else:
        known = [name for name in known if not name.startswith(averaging.KEY)]
    return {name for name in known if name.removeprefix(f"{averaging.KEY}/").split("/")[1] in players}


def _rounded(array: np.ndarray, name: str, dtype: str) -> np.ndarray:
    """Return weights in the dtype of the file; everything but weights stays in float32."""
    if dtype == "float32" or not name.startswith("params/"):
        return array
    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise InputError(f"dtype={dtype} does not reach as far as the numbers of {name} do: take float32")
    return array.astype(np.float16)


def _difference(translator: Translator, run: Run, arrays: Mapping[str, np.ndarray]) -> float:
    """Return how far the translation with rounded weights is from the run's own, on noise of the size of training."""
    forward = translator.direction == run.config.data.direction
    given, fake = ("real_a", "fake_b") if forward else ("real_b", "fake_a")
    shapes = run.batch[given]
    images = np.random.default_rng(0).uniform(-1, 1, shapes.shape).astype(np.float32)

    def translate(state, images, rng):
        return run.objective.translate(state, {given: images}, rng)[fake]

    read = run.read_by(translate, shapes)
    kept, rebuild = run.restore(translate, batch=shapes)
    average = f"{averaging.KEY}/"
    rounded = [arrays[name.removeprefix(average)].astype(x.dtype) for name, x in zip(read, kept, strict=True)]
    function = jax.jit(lambda kept, images: translate(rebuild(kept), images, run.rng))
    first, second = (np.asarray(function(x, images), np.float32) for x in (kept, rounded))
    return float(np.abs(np.clip(first, -1, 1) - np.clip(second, -1, 1)).max())


def _data(run: Run, stripped: list[str]) -> dict[str, Any]:
    """Return what is known of the images: the source, how many, of what size; no names and no places."""
    if run.file:
        return run.file.about["data"]
    facts, data = run.facts, run.config.data
    counts = {name: found["count"] for name, found in (facts.get("images") or {}).items()}
    return {
        "source": data.source,
        "num_train": facts.get("num_train") or data.num_train,
        "images": counts,
        "train_split": data.train_split,
        "val_split": data.val_split,
        "crop": list(crop_shape(data)),
        "fingerprint": facts.get("fingerprint", ""),
        "left_out": stripped,
    }
