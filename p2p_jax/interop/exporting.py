"""Exports a trained run as a file for other programs, checked against the run before it is put in place."""

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
from p2p_jax.interop.pixels import find_lost, with_unknown
from p2p_jax.objectives import Objective
from p2p_jax.storage.refusals import reason
from p2p_jax.storage.writing import belonging_together, unfinished_folder
from p2p_jax.training.checkpoint import CONVERTED

Call = Callable[[np.ndarray], np.ndarray]
FORMATS: dict[str, Any] = {"onnx": onnx_format, "stablehlo": stablehlo}
_MOST_ROUNDED = 0.01  # share of whole numbers that may round the other way
_ROUNDS = 5  # of measuring latencies


class Difference(NamedTuple):
    """The difference between an exported translation and the run's own.

    Attributes:
      largest: largest difference on the scale of [-1, 1].
      values: the same in values of the output's domain, if those are exported.
      share: share of values that differ by more than the tolerance: whole numbers rounded the other way.
    """

    largest: float
    values: float | None
    share: float


class Exported(NamedTuple):
    """An exported file.

    Attributes:
      path: path of the file.
      megabytes: size of the file.
      images: shape of its images, as numbers and expressions.
      sizes: heights and widths of the check, in batches of 1 and 2.
      difference: difference found in the check.
      seconds: time for one image of the training size with the file, on the CPU.
      jax_seconds: the same for the run's network compiled by JAX.
      metadata: metadata stored in the file.
      notes: differences between the file and the run, in sentences.
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
    """Write a run's translation to a file; it maps images [B, H, W, C] float32 in [-1, 1] to such images.

    It computes the same as ``Translator`` with ``dropout=False`` on images with sides that are multiples of
    ``metadata["multiple"]``, in float32, regardless of the dtype of training. The file is loaded and checked against it
    before it replaces the file at `output`.

    Args:
      workdir: directory of the run.
      format: "onnx" or "stablehlo" (the metadata is then in a second file, ``output + ".json"``).
      output: the file; its folder is made if missing.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA"; see ``Translator.from_workdir``.
      norm: "batch" or "running"; as stored by default.
      pixels: take and return values of the run's domains instead of normalized images: bytes for pictures.
      tolerance: largest allowed difference from the run's own translation, on the scale of [-1, 1]. One whole number in
        a hundred may round the other way, or more if they divide the range finely.
      objective: the objective that was trained, if it was given to ``p2p_jax.train``; it computes in its own dtype.
      trust: code outside the library that the run's config may name; see ``Translator.from_workdir``.
      raw: use the generator as it was after the step, if the run has an average of it.

    Raises:
      InputError: the run or format does not exist, a setting does not fit, something is missing, or the file differs
        from the run; then nothing is written.
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
    """Write the function of an opened run, load it, and compare it with the run.

    Args:
      translator: translator of a run in float32 and without noise, in batches of 2.
      exportable: its function.
      format: one of ``FORMATS``.
      path: path of the file, which is written in place.
      tolerance: see ``export``.

    Raises:
      InputError: the function cannot be converted, or the difference is too large.
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
    """Return the resolved path; refuse to replace anything but an earlier export."""
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
    """Yield a file to write; if all goes well, it replaces `output`, with its metadata."""
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
    """Return the device for checks: accelerators round products of float32 to fewer bits."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX is set to leave it out
        return jax.local_devices()[0]


def _sizes(exportable: Exportable, crop: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return sizes for the check, which ``Translator`` does not pad: the training size, a taller and a small one."""
    if exportable.is_fixed:
        return (crop,)
    step = exportable.sizes.multiple
    least = -(-exportable.sizes.smallest // step) * step
    candidates = [crop, (crop[0] + step, crop[1]), (least, least + step), (least, least + 2 * step)]
    return tuple(dict.fromkeys(candidates))[:3]


def _compare(
    call: Call, translator: Translator, exportable: Exportable, sizes: tuple[tuple[int, int], ...], tolerance: float
) -> Difference:
    """Compare with the translator, on noise with unknown pixels where the domain has some.

    Raises:
      InputError: the difference is larger than the tolerance, or one of the two is unknown where the other is not.
    """
    rng, errors = np.random.default_rng(0), []
    half = exportable.domains[1].line[1] if exportable.domains else np.ones(1)  # half of a channel's range
    for size in sizes:
        images = rng.uniform(-1, 1, (2, *size, translator.channels_in)).astype(np.float32)
        lost = np.zeros((2, 1, 1, 1), bool)
        if exportable.domains:
            images = with_unknown(exportable.domains[0].decode(images), exportable.domains[0])
            lost = find_lost(images, exportable.domains[0])
        with jax.default_matmul_precision("highest"):
            expected = translator(images, normalized=exportable.domains is None)
        for count in (1, 2):
            found = call(images[:count])
            if found.shape != expected[:count].shape or found.dtype != expected.dtype:
                raise InputError(
                    f"`output`: {found.dtype} {found.shape} for images {images[:count].shape}, but the run gives "
                    f"{expected.dtype} {expected[:count].shape}; nothing was written"
                )
            errors.append(_errors(found, expected[:count], lost[:count]) / half)
    found = np.concatenate([error.reshape(-1, error.shape[-1]) for error in errors])  # [pixels, channels]
    largest, share = float(found.max()), float(np.mean(~(found <= tolerance)))
    values, allowed, most = None, np.array(tolerance), 0.0
    if exportable.domains:
        values = float((found * half).max())
        if exportable.domains[1].dtype.kind != "f":
            # A tolerated difference changes the rounding of more numbers if they divide the range more finely.
            allowed, most = np.maximum(tolerance, 1 / half), max(_MOST_ROUNDED, tolerance * float(np.max(half)))
    if not ((found <= allowed * (1 + 1e-6)).all() and share <= most):
        raise InputError(
            f"the exported file differs from the run by {largest:.2g} on the scale of [-1, 1] (tolerance {tolerance:g})"
            "; nothing was written. If this is only rounding in a sensitive network, raise `tolerance`"
        )
    return Difference(largest, values, share)


def _errors(found: np.ndarray, expected: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return absolute differences; 0 where nothing is known and both are NaN.

    Raises:
      InputError: the run's translation is not finite where something is known, or one of the two is where the other is
        not.
    """
    finite = np.isfinite(expected)
    if not (finite | lost).all():
        raise InputError(
            "the run's own translation of noise is not finite, so its training diverged; choose another `checkpoint`"
        )
    if (np.isfinite(found) != finite).any():
        raise InputError(
            "the exported file is not finite (NaN or infinite) in other pixels than the run; nothing was written. Try "
            "the other format: onnx or stablehlo"
        )
    return np.where(finite, np.abs(found.astype(np.float64) - expected), 0.0)


def _time(call: Call, exportable: Exportable, crop: tuple[int, int]) -> tuple[float, float]:
    """Return the seconds for an image, for the loaded file and in JAX: medians of alternating rounds."""
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
