"""Exports a trained run as a web page that translates in the browser, checked against the run."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import p2p_jax
from p2p_jax.config.options import crop_shape
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.images import palettes
from p2p_jax.images.opacity import WHITE
from p2p_jax.inference import Translator
from p2p_jax.interop import onnx_format, onnx_weights
from p2p_jax.interop.exportable import Exportable, make_exportable, open_in_float32
from p2p_jax.interop.exporting import write_checked
from p2p_jax.interop.web import examples, page, runtime
from p2p_jax.interop.web import weights as storing
from p2p_jax.interop.web.examples import Examples
from p2p_jax.interop.web.weights import Levels
from p2p_jax.objectives import Objective
from p2p_jax.storage.refusals import reason
from p2p_jax.storage.writing import belonging_together, unfinished_folder

_FORMAT = "p2p_jax web page"
_TOLERANCE = 1e-4  # for the model in float32, on the scale of [-1, 1]


class Way(NamedTuple):
    """One direction of a page.

    Attributes:
      direction: "AtoB" or "BtoA".
      megabytes: size of its model.
      difference: difference from the run's own translation without noise.
      share: share of the weights stored in as few bits as requested.
      seconds: time for one image of the training size in ONNX Runtime, outside a browser, on the CPU.
    """

    direction: str
    megabytes: float
    difference: Levels
    share: float
    seconds: float


class Page(NamedTuple):
    """An exported page.

    Attributes:
      folder: folder of the page.
      megabytes: size of all its files.
      size: height and width of the training images.
      ways: its directions.
      compared_on: the images of the comparison.
      runtime: version of onnxruntime-web.
      notes: differences between the page and the run, in sentences.
    """

    folder: Path
    megabytes: float
    size: tuple[int, int]
    ways: tuple[Way, ...]
    compared_on: str
    runtime: str
    notes: tuple[str, ...]


def export_web(
    workdir: str | Path,
    output: str | Path,
    checkpoint: str | int = "latest",
    direction: str | None = None,
    norm: str | None = None,
    *,
    weights: str = "float16",
    runtime_path: str | Path | None = None,
    data_dir: str | None = None,
    split: str | None = None,
    palette: str | None = None,
    title: str | None = None,
    objective: Objective | None = None,
    trust: Trust = (),
    raw: bool = False,
) -> Page:
    """Write a run as a folder for any web server; the page sends no requests to other servers.

    Args:
      workdir: directory of the run.
      output: the folder; an earlier page in it is replaced, other content is not.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA"; by default all directions that the run was trained for.
      norm: "batch" or "running"; as stored by default.
      weights: "float32", "float16" or "int8", see ``weights.store``; computation is in float32.
      runtime_path: the npm package onnxruntime-web, see ``runtime.find``.
      data_dir: the folder of the data set, if it is no longer where the config says.
      split: split of the data set to compare translations on; the validation split by default.
      palette: colours to draw with, see ``palettes.find_palette``; by default those of the run's labels, declared or
        detected.
      title: title of the page; the run's name by default.
      objective: the objective that was trained, if it was given to ``p2p_jax.train``.
      trust: code outside the library that the run's config may name; see ``Translator.from_workdir``.
      raw: use the generator as it was after the step, if the run has an average of it.

    Raises:
      InputError: the run does not exist, its images are not pictures, something is missing, the folder is not ours, or
        translations differ from the run's; then nothing is written.
    """
    onnx_format.require("web")
    if weights not in onnx_weights.WEIGHTS:
        raise InputError(f"weights={weights}: choose one of {', '.join(onnx_weights.WEIGHTS)}")
    output = _check_output(Path(output))
    found = runtime.find(runtime_path)
    colors = palettes.find_palette(palette) if palette else None
    run, noisy = open_in_float32(workdir, checkpoint, norm, objective, trust, raw)
    first = Translator(run, direction=direction, batch_size=2)
    others = () if direction else tuple(name for name in first.directions if name != first.direction)
    translators = [first, *(Translator(run, direction=name, batch_size=2) for name in others)]
    for translator in translators:
        page.check_domain(translator.domain_in, "takes")
        page.check_domain(translator.domain_out, "makes")
    compared = examples.find(run, data_dir, split)
    title = title or run.name
    try:
        with unfinished_folder(output) as folder:
            folder.mkdir(exist_ok=True)
            ways, told, notes = [], [], dict[str, None]()
            for translator in translators:
                exportable = make_exportable(translator, pixels=False, noisy=noisy)
                way, model = _write_model(translator, exportable, compared, weights, folder)
                ways.append(way)
                told.append(_way(translator, exportable, model, way, colors, compared))
                notes.update(dict.fromkeys(exportable.notes))
            facts = _facts(first, exportable, compared, ways, weights)
            page.write(folder, _manifest(first, title, told, facts), found)
            megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
            _put(folder, output)
    except OSError as error:
        raise InputError(f"output={output} cannot be written ({reason(error, output)})") from error
    size = crop_shape(run.config.data)
    return Page(output, megabytes, size, tuple(ways), compared.told, found.version, tuple(notes))


def _check_output(output: Path) -> Path:
    """Return the resolved path; refuse a folder that is neither new nor a page of ours."""
    output = Path(os.path.realpath(output))
    if os.path.lexists(output) and not output.is_dir():
        raise InputError(f"output={output} is a file; format=web writes a folder")
    if output.is_dir() and any(output.iterdir()) and not _is_ours(output):
        raise InputError(f"output={output} holds other files; name a new folder")
    return output


def _is_ours(folder: Path) -> bool:
    try:
        return json.loads((folder / page.MANIFEST).read_bytes())["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _put(made: Path, wanted: Path) -> None:
    """Replace one folder by another; the old one is removed."""
    made.chmod(0o755)
    with belonging_together(wanted.parent):
        if not wanted.exists():
            os.rename(made, wanted)
            return
        with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=f".{wanted.name}-") as aside:
            os.rename(wanted, Path(aside, "old"))
            os.rename(made, wanted)


def _write_model(
    translator: Translator, exportable: Exportable, compared: Examples, weights: str, folder: Path
) -> tuple[Way, Path]:
    """Write the model of a direction, checked at several sizes in float32, and as stored on the examples."""
    import onnx

    path = folder / f"{translator.direction}.onnx"
    exported = write_checked(translator, exportable, "onnx", path, _TOLERANCE)
    images = compared.images["real_a" if translator.direction == translator.config.data.direction else "real_b"]
    with jax.default_matmul_precision("highest"):
        expected = translator(images, normalized=True)
    stored = storing.store(onnx.load(path), weights, images, expected)
    path.write_bytes(stored.content)
    megabytes = len(stored.content) / 1e6
    return Way(translator.direction, megabytes, stored.difference, stored.share, exported.seconds), path


def _way(
    translator: Translator,
    exportable: Exportable,
    model: Path,
    way: Way,
    colors: palettes.Palette | None,
    compared: Examples,
) -> dict[str, Any]:
    """Return the facts about a direction for the page's script."""
    content, sizes = model.read_bytes(), exportable.sizes
    forward = translator.direction == translator.config.data.direction
    domain, shown = translator.domain_in, None
    if compared.are_real and domain.kind == "uint8":
        shown = domain.picture(compared.images["real_a" if forward else "real_b"])
    task = translator.config.task.to_dict().get("input", "") if forward else ""
    return {
        "name": translator.direction,
        "label": " to ".join(translator.direction.split("to")),
        "model": model.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": page.describe(domain),
        "output": page.describe(translator.domain_out),
        "steps": list(crop_shape(translator.config.data) if exportable.is_fixed else sizes.steps),
        "smallest": sizes.smallest,
        "fixed": exportable.is_fixed,
        "draw": page.drawn_with(domain, task, colors, shown),
        "difference": way.difference._asdict(),
    }


def _manifest(
    translator: Translator,
    title: str,
    ways: Sequence[dict[str, Any]],
    facts: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    background = translator.domain_in.background or WHITE
    return {
        "format": _FORMAT,
        "p2p_jax": p2p_jax.__version__,
        "title": title,
        "run": translator.run.name,
        "step": translator.step,
        "checkpoint_id": translator.checkpoint_id,
        "size": list(crop_shape(translator.config.data)),
        "background": "#" + bytes(background).hex(),
        "facts": [list(fact) for fact in facts],
        "directions": list(ways),
    }


def _facts(
    translator: Translator,
    exportable: Exportable,
    compared: Examples,
    ways: Sequence[Way],
    weights: str,
) -> list[tuple[str, str]]:
    """Return the facts on the page about itself, as names and texts."""
    told = exportable.metadata
    models = ", ".join(f"{way.direction} {way.megabytes:.1f} MB" for way in ways)
    largest = max(way.difference.largest for way in ways)
    mean = float(np.mean([way.difference.mean for way in ways]))
    facts = [
        ("Network", f"{told['run']}, step {translator.step:,}, {told['objective'].partition(':')[2]}"),
        ("Weights", f"{weights}; {models}; digest {translator.checkpoint_id}"),
        ("Compared with the run", f"largest difference {largest:.2f} grey levels, mean {mean:.3f}, on {compared.told}"),
        ("Made with", f"p2p_jax {p2p_jax.__version__}"),
    ]
    return [*facts, *(("Note", note) for note in exportable.notes)]
