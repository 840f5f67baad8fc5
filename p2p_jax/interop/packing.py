"""Packs a trained run as one model file: its generators and metadata, and nothing about the machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from p2p_jax import __version__
from p2p_jax.config.options import crop_shape
from p2p_jax.config.stored import Trust, outside
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_config
from p2p_jax.inference import Translator
from p2p_jax.inference.run import Run, lacks_statistics, named, open_run
from p2p_jax.interop.exportable import describe
from p2p_jax.interop.known_metrics import known_metrics
from p2p_jax.interop.places import without_places
from p2p_jax.objectives import Objective, averaging
from p2p_jax.storage.tensor_file import SUFFIX
from p2p_jax.training import model_file

DTYPES = ("float32", "float16")
_STATISTICS = "batch_stats/"


class Packed(NamedTuple):
    """A packed model file.

    Attributes:
      path: path of the file.
      megabytes: size of the file.
      about: its metadata, by ``model_file.SUBJECTS``.
      digest: SHA-256 of its content.
      difference: for float16, the largest difference from the run on noise, on the scale of [-1, 1]; 0 for float32.
      notes: notes about the file, each a sentence.
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
    """Write the generators of a run, with all metadata, to one file that holds only data.

    Without `direction` it holds everything that translation and validation read: both generators of CycleGAN, the
    generator and the heads of CUT. Places of this machine are left out (``data.dir``, similar options and every
    absolute path in the config), and names of images too.

    Args:
      workdir: directory of the run, or a model file to pack again.
      output: the file, FILE.safetensors; an existing model file is replaced.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA": pack only the generator of this direction.
      dtype: dtype of the weights, "float32" or "float16"; by default "float32", or that of the model file. Statistics
        of norms stay in float32.
      licence: licence for other users, such as "cc-by-4.0"; by default that of the model file.
      objective: the objective that was trained, if it was given to ``p2p_jax.train``.
      trust: code outside the library that the run's config may name; see ``Translator.from_workdir``.
      raw: use the generators as they were after the step, if the run has an average of them.

    Raises:
      InputError: the run, checkpoint or direction does not exist, float16 cannot hold the weights, or the file cannot
        be written.
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
            "direction": run.config.data.direction,  # direction of training: from real_a to real_b
            "step": run.step,
            "weights": run.weights,
            "dtype": dtype,
            "num_parameters": sum(array.size for name, array in arrays.items() if name.startswith("params/")),
            "checkpoint_ids": ids,  # of the run's weights, before rounding
        },
        "domains": dict(zip(("input", "output"), map(describe, of_config(run.config.data)), strict=True)),
        "data": _data(run, stripped),
        "licence": {"name": licence or (run.file.about["licence"].get("name", "") if run.file else "")},
        "metrics": run.file.about["metrics"] if run.file else {"found": known_metrics(run, ids)},
    }
    if stripped:
        notes.append(
            f"left out, because they name places of this machine: {', '.join(f'config.{x}' for x in stripped)}"
        )
    if named := sorted({name for names in outside(config).values() for name in names}):
        notes.append(
            f"its config names code outside the library, {', '.join(named)}, which is not in the file: to open the "
            "file, you need that code, and must trust it by name"
        )
    difference = 0.0
    if dtype == "float16":
        difference = _difference(first, run, arrays)
    told = model_file.write(output, arrays, about)
    return Packed(output, output.stat().st_size / 1e6, about, told, difference, tuple(notes))


def _ids(run: Run, first: Translator, directions: tuple[str, ...]) -> dict[str, str]:
    """Return ids of the run's weights, one for each direction."""
    if run.file:
        known = run.file.about["model"].get("checkpoint_ids")
        return {way: str(known[way]) for way in directions if isinstance(known, Mapping) and way in known}
    others = [way for way in directions if way != first.direction]
    translators = [first, *(Translator(run, direction=way, batch_size=1) for way in others)]
    return {translator.direction: translator.checkpoint_id for translator in translators}


def _check_output(output: Path) -> Path:
    if output.suffix.lower() != SUFFIX:
        raise InputError(
            f"output={output}: the name of a model file must end with {SUFFIX}, such as "
            f"{output.with_suffix(SUFFIX).name}"
        )
    output = Path(os.path.realpath(output))
    if output.is_dir() or (output.exists() and not output.is_file()):
        raise InputError(f"output={output} exists and is not a plain file; choose another name")
    if output.is_file():
        try:
            model_file.read_about(output)
        except InputError as error:
            raise InputError(
                f"output={output} would replace a file that is not a model file; choose another name"
            ) from error
    return output


def _check_licence(licence: str) -> str:
    try:
        return model_file.check_licence(licence.strip())
    except ValueError as error:
        raise InputError(f"licence={licence[:40]!r}: give the name of a licence, such as cc-by-4.0") from error


def _arrays(
    run: Run, directions: tuple[str, ...], *, whole: bool, dtype: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the weights for the file, by the names of a state without an average, and notes about them."""
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
            continue  # the average comes first and is used
        if jnp.issubdtype(array.dtype, jnp.floating):
            if array.dtype == np.float64 and not notes:
                notes.append("weights of float64 were rounded to float32")
            array = array.astype(np.float32)
            if not np.isfinite(array).all():
                raise InputError(
                    f"{run.workdir}, step {run.step}: {plain} holds numbers that are not finite: its training diverged"
                )
            array = _rounded(array, plain, dtype)
        arrays[plain] = array
    return arrays, notes


def _statistics(run: Run, shapes: Any, players: set[str]) -> set[str]:
    """Return the names of the running statistics of players, if the run has any."""
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
    """Return weights in the dtype of the file; everything else stays in float32."""
    if dtype == "float32" or not name.startswith("params/"):
        return array
    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise InputError(f"dtype={dtype} is too small for the numbers of {name}: use float32")
    return array.astype(np.float16)


def _difference(translator: Translator, run: Run, arrays: Mapping[str, np.ndarray]) -> float:
    """Return the difference between translations with rounded weights and the run's, on noise of the training size."""
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
    """Return facts about the images: source, count and size; no names and no places."""
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
