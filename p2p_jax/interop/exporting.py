"""A trained run as a file for other programs, checked against the run before it takes its place."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from p2p_jax.config.options import crop_shape
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.inference import Translator
from p2p_jax.interop import onnx_format, stablehlo
from p2p_jax.interop.exportable import Exportable, make_exportable, open_in_float32
from p2p_jax.objectives import Objective
from p2p_jax.storage.refusals import reason
from p2p_jax.storage.writing import belonging_together, unfinished_folder
from p2p_jax.training.checkpoint import CONVERTED

Call = Callable[[np.ndarray], np.ndarray]
FORMATS: dict[str, Any] = {"onnx": onnx_format, "stablehlo": stablehlo}
_MOST_ROUNDED = 0.01  # share of whole numbers that may be rounded the other way
_ROUNDS = 5  # in which latencies are measured


class Difference(NamedTuple):
    """How far an exported translation is from the run's own.

    Attributes:
      largest: on the scale of [-1, 1].
      values: the same in values of the output's domain, where these are what is exported.
      share: of the values, those that differ by more than is tolerated: whole numbers rounded the other way.
    """

    largest: float
    values: float | None
    share: float


class Exported(NamedTuple):
    """A translation that was written.

    Attributes:
      path: of the file.
      megabytes: its size.
      images: shape of its images, as numbers and expressions.
      sizes: heights and widths at which it was checked, in batches of 1 and 2.
      difference: what was found there.
      seconds: for one image of the size of training, as loaded from the file, on the CPU.
      jax_seconds: the same for the run's network as JAX compiles it.
      metadata: as in the file.
      notes: what the file does otherwise than the run, in sentences.
    """

    path: Path
    megabytes: float
    images: tuple[int | str, ...]
    sizes: tuple[tuple[int, int], ...]
    difference: Difference
    seconds: float
    jax_seconds: float
    metadata: dict[str, Any]
    notes: tuple[str, ...]


def export(
    workdir: str | Path,
    format: str,
    output: str | Path,
    checkpoint: str | int = "latest",
    direction: str | None = None,
    norm: str | None = None,
    *,
    pixels: bool = False,
    tolerance: float = 1e-4,
    objective: Objective | None = None,
    trust: Trust = (),
    raw: bool = False,
) -> Exported:
    """Write a run's translation to a file: images [B, H, W, C] float32 in [-1, 1] to such images.

    It is what ``Translator`` computes with ``dropout=False`` on images whose sides are multiples of
    ``metadata["multiple"]``, in float32, whatever the run was trained in. The file is loaded and checked against it,
    and only then takes the place of what is at `output`.

    Args:
      workdir: the run's directory.
      format: "onnx" or "stablehlo" (with a file ``output + ".json"`` beside it, the metadata).
      output: the file; its folder is made if missing.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA"; see ``Translator.from_workdir``.
      norm: "batch" or "running"; as stored by default.
      pixels: take and give values of the run's domains in place of normalized images: bytes for pictures.
      tolerance: largest difference to the run's own translation, on the scale of [-1, 1]. Whole numbers may be rounded
        the other way, one in a hundred, or more where they divide the range finely.
      objective: what was trained, if it was given to ``p2p_jax.train``; it computes in its own dtype.
      trust: code outside the library that the run's config may name; see ``Translator.from_workdir``.
      raw: take the generator as it was after the step, where the run has an average of it.

    Raises:
      InputError: no such run or format, a setting that does not fit, something missing, or the file does not agree
        with the run; then nothing is written.
    """
    if format not in FORMATS:
        raise InputError(f"format={format}: choose one of {', '.join(FORMATS)}")
    FORMATS[format].require()
    output = _check_output(Path(output), format)
    run, noisy = open_in_float32(workdir, checkpoint, norm, objective, trust, raw)
    translator = Translator(run, direction=direction, batch_size=2)
    exportable = make_exportable(translator, pixels=pixels, noisy=noisy)
    with _unfinished(output) as unfinished:
        try:
            found = write_checked(translator, exportable, format, unfinished, tolerance)
        except OSError as error:
            raise InputError(f"output={output} cannot be written ({reason(error, output)})") from error
    return found._replace(path=output)


def write_checked(
    translator: Translator, exportable: Exportable, format: str, path: Path, tolerance: float
) -> Exported:
    """Write what an opened run computes, load it, and compare it with the run.

    Args:
      translator: of a run in float32 and without noise, in batches of 2.
      exportable: of it.
      format: one of ``FORMATS``.
      path: of the file, which is written in place.
      tolerance: see ``export``.

    Raises:
      InputError: it cannot be converted, or differs by more.
    """
    crop = crop_shape(translator.config.data)
    FORMATS[format].write(exportable, path)
    with jax.default_device(_cpu()):
        call = FORMATS[format].load(path)
        sizes = _sizes(exportable, crop)
        difference = _compare(call, translator, exportable, sizes, tolerance)
        seconds, jax_seconds = _time(call, exportable, crop)
    return Exported(
        path,
        path.stat().st_size / 1e6,
        tuple(exportable.metadata["shape"]),
        sizes,
        difference,
        seconds,
        jax_seconds,
        exportable.metadata,
        exportable.notes,
    )


def _check_output(output: Path, format: str) -> Path:
    """Return where links lead; refuse what is no export that may be replaced."""
    if os.path.isdir(output):
        raise InputError(f"output={output} is a folder; name a file, such as {output / f'run.{format}'}")
    output = Path(os.path.realpath(output))
    beside = [stablehlo.metadata_path(output)] if format == "stablehlo" else []
    for path in (output, *beside):
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"`output`: {path} exists and is not a plain file; choose another name")
    own = output.name in ("config.json", CONVERTED) and os.path.isdir(output.parent / "checkpoints")
    if own or any(os.path.isfile(path) and not _is_metadata(path) for path in beside):
        raise InputError(f"output={output} would replace {output if own else beside[0]}; choose another name")
    return output


def _is_metadata(path: Path) -> bool:
    try:
        return "checkpoint_id" in json.loads(path.read_text())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


@contextlib.contextmanager
def _unfinished(output: Path) -> Iterator[Path]:
    """Give a file to write, which takes the place of `output`, with the metadata beside it, if all goes well."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(unfinished_folder(output))
            made = folder / output.name
            made.touch()
        except OSError as error:
            raise InputError(f"output={output} cannot be written ({reason(error, output)})") from error
        yield made
        with belonging_together(output.parent):
            for one, wanted in {made: output, stablehlo.metadata_path(made): stablehlo.metadata_path(output)}.items():
                if one.exists():
                    os.replace(one, wanted)


def _cpu() -> jax.Device:
    """Return what exports are checked on: accelerators round products of float32 to fewer bits."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to leave it out
        return jax.local_devices()[0]


def _sizes(exportable: Exportable, crop: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return sizes to check at, which ``Translator`` does not pad: that of training, a higher and a small one."""
    if exportable.is_fixed:
        return (crop,)
    step = exportable.sizes.multiple
    least = -(-exportable.sizes.smallest // step) * step
    candidates = [crop, (crop[0] + step, crop[1]), (least, least + step), (least, least + 2 * step)]
    return tuple(dict.fromkeys(candidates))[:3]


def _compare(
    call: Call, translator: Translator, exportable: Exportable, sizes: tuple[tuple[int, int], ...], tolerance: float
) -> Difference:
    """Compare with the translator, on noise.

    Raises:
      InputError: the difference is larger than is tolerated.
    """
    rng, errors = np.random.default_rng(0), []
    half = exportable.domains[1].line[1] if exportable.domains else np.ones(1)  # of a channel's range
    for size in sizes:
        images = rng.uniform(-1, 1, (2, *size, translator.channels_in)).astype(np.float32)
        if exportable.domains:
            images = exportable.domains[0].decode(images)
        with jax.default_matmul_precision("highest"):
            expected = translator(images, normalized=exportable.domains is None)
        for count in (1, 2):
            found = call(images[:count])
            if found.shape != expected[:count].shape or found.dtype != expected.dtype:
                raise InputError(
                    f"`output`: {found.dtype} {found.shape} came of images {images[:count].shape}, where the run gives "
                    f"{expected.dtype} {expected[:count].shape}; nothing was written"
                )
            errors.append(np.abs(found.astype(np.float64) - expected[:count]) / half)
    found = np.concatenate([error.reshape(-1, error.shape[-1]) for error in errors])  # [pixels, channels]
    largest, share = float(found.max()), float(np.mean(~(found <= tolerance)))
    values, allowed, most = None, np.array(tolerance), 0.0
    if exportable.domains:
        values = float((found * half).max())
        if exportable.domains[1].dtype.kind != "f":
            # A difference that is tolerated tips the rounding of the more numbers, the finer they divide the range.
            allowed, most = np.maximum(tolerance, 1 / half), max(_MOST_ROUNDED, tolerance * float(np.max(half)))
    if not ((found <= allowed * (1 + 1e-6)).all() and share <= most):
        raise InputError(
            f"the exported file differs from the run by {largest:.2g} on the scale of [-1, 1] (tolerance {tolerance:g})"
            "; nothing was written. If a network is so sensitive that this is rounding, raise `tolerance`"
        )
    return Difference(largest, values, share)


def _time(call: Call, exportable: Exportable, crop: tuple[int, int]) -> tuple[float, float]:
    """Return the seconds that an image takes, loaded and in JAX, the medians of rounds in which they take turns."""
    weights = jax.device_put(exportable.weights, _cpu())
    network = jax.jit(exportable.function)
    images = np.zeros((1, *crop, exportable.images.shape[-1]), exportable.images.dtype)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS + 1):
        for found, run in zip(seconds, (call, lambda x: np.asarray(network(weights, x))), strict=True):
            start = time.perf_counter()
            run(images)
            found.append(time.perf_counter() - start)
    first, second = (float(np.median(found[1:])) for found in seconds)
    return first, second
