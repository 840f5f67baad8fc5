"""Image files, folders of them and stacks in ``.npy`` files, translated."""

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import pictures
from p2p_jax.inference.translator import Translator

_THREADS = 4  # that read and write, while the network runs
_WILD = "*?["


class Job(NamedTuple):
    """A file to translate and the file to write."""

    source: Path
    target: Path


class Outcome(NamedTuple):
    """What became of the jobs: how many were translated and left alone, and a line for each that failed."""

    done: int
    existing: int
    failures: list[str]


def plan(source: str, target: Path, ending: str = "") -> list[Job]:
    """List what to translate: a file, every image in a folder and below it, or the files that a pattern fits.

    Args:
      source: a file, a folder or a pattern with ``*``, ``?``, ``[...]`` or ``**``.
      target: a folder, which receives the same names; for one file also a file.
      ending: such as ".png", of the files written; "" keeps theirs.

    Raises:
      InputError: there is nothing to translate, an ending is unknown, or two files would be written to one.
    """
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() not in pictures.EXTENSIONS:
            raise InputError(f"--input {path} is no image ({', '.join(pictures.EXTENSIONS)})")
        is_file = target.suffix and not target.is_dir()
        jobs = [Job(path, target if is_file else target / path.name)]
    elif path.is_dir():
        found = _outside(target, _files_below(path), path)
        jobs = [Job(p, target / p.relative_to(path)) for p in _images(found, str(path))]
    elif any(c in source for c in _WILD):
        fixed = Path(*_fixed_part(path))
        found = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())
        found = _outside(target, found, fixed)
        jobs = [Job(p, target / p.relative_to(fixed)) for p in _images(found, source)]
    else:
        raise InputError(f"--input {source}: there is no such file or folder")
    if ending:
        jobs = [job._replace(target=job.target.with_suffix(ending)) for job in jobs]
    _check_targets(jobs)
    return jobs


def _outside(target: Path, found: list[Path], source: Path) -> list[Path]:
    """Leave out what an earlier call has made, where the output lies inside the input."""
    made = target.resolve()
    return found if made == source.resolve() else [p for p in found if not p.resolve().is_relative_to(made)]


def _files_below(folder: Path) -> list[Path]:
    visible = (p for p in folder.rglob("*") if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted(p for p in visible if p.is_file())


def _images(found: list[Path], source: str) -> list[Path]:
    images = [p for p in found if p.suffix.lower() in pictures.EXTENSIONS]
    others = Counter(p.suffix.lower() or p.name for p in found if p.suffix.lower() not in pictures.EXTENSIONS)
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not images:
        holds = f": it holds {left_out}" if left_out else ""
        raise InputError(f"--input {source}: no image ({', '.join(pictures.EXTENSIONS)}) there{holds}")
    if left_out:
        print(f"{source}: {len(images)} images; not images, left out: {left_out}")
    return images


def _fixed_part(pattern: Path) -> Iterator[str]:
    for part in pattern.parts[:-1]:
        if any(c in part for c in _WILD):
            return
        yield part


def _check_targets(jobs: list[Job]) -> None:
    seen: dict[Path, Path] = {}
    for source, target in jobs:
        if target.suffix.lower() not in pictures.EXTENSIONS:
            raise InputError(f"{target} has no ending of an image ({', '.join(pictures.EXTENSIONS)})")
        if target in seen:
            raise InputError(f"{seen[target]} and {source} would both be written to {target}; rename one of them")
        seen[target] = source
        if target.exists() and target.samefile(source):
            raise InputError(f"{source} would be replaced by its own translation; choose another --output")


def translate_files(
    translator: Translator,
    jobs: Iterable[Job],
    *,
    size: tuple[int, int] | None = None,
    keep_alpha: bool = False,
    overwrite: bool = False,
    on_done: Callable[[], Any] = lambda: None,
) -> Outcome:
    """Translate image files; one that cannot be read or written is reported and does not stop the others.

    Args:
      translator: the trained run.
      jobs: what to read and write.
      size: (height, width) to which images are resized before; None keeps theirs.
      keep_alpha: give a translation the transparency of its source, where the format can.
      overwrite: replace files that exist; otherwise they are left as they are.
      on_done: called after every job.
    """
    existing, failures, done = 0, [], 0
    pending = []
    for job in jobs:
        if job.target.exists() and not overwrite:
            existing += 1
            on_done()
        else:
            pending.append(job)

    def read(job):
        picture = pictures.read(job.source)
        pixels = pictures.with_channels(picture.pixels, translator.channels_in)  # before resizing, as in training
        alpha = picture.alpha if keep_alpha else None
        if size is None:
            return pixels, alpha
        return pictures.resize(pixels, size), None if alpha is None else pictures.resize(alpha[..., None], size)[..., 0]

    def images(pool):
        for job, result in _in_order(pool, read, pending, ahead=2 * translator.batch_size):
            try:
                pixels, alpha = result.result()
            except InputError as error:
                failures.append(f"{error}; it was skipped")
                on_done()
                continue
            yield (job, alpha), pixels

    def finish(writes, most):
        count = 0
        while len(writes) > most:
            try:
                writes.popleft().result()
                count += 1
            except InputError as error:
                failures.append(str(error))
            on_done()
        return count

    writes: deque[Future] = deque()
    with ThreadPoolExecutor(_THREADS) as readers, ThreadPoolExecutor(_THREADS) as writers:
        for (job, alpha), output in translator.stream(images(readers)):
            writes.append(writers.submit(pictures.write, job.target, output, alpha))
            done += finish(writes, most=4 * translator.batch_size)
        done += finish(writes, most=0)
    return Outcome(done, existing, failures)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Job], Any], jobs: list[Job], ahead: int
) -> Iterator[tuple[Job, Future]]:
    """Run a function over jobs in a pool, `ahead` of what is taken."""
    running: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        running.append((job, pool.submit(function, job)))
        if len(running) > ahead:
            yield running.popleft()
    yield from running


def translate_stack(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
    on_done: Callable[[], Any] = lambda: None,
) -> int:
    """Translate ``.npy``, [N, H, W, C] or [N, H, W], uint8 or floats in [-1, 1]; returns N.

    Neither array is held in memory whole.

    Raises:
      InputError: the file is no such array, or the target exists or is the file itself.
    """
    if target.suffix != ".npy":
        target = target / source.name
    try:
        images = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read as an array ({error})") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or not images.size:
        raise InputError(f"{source} must hold images [N, H, W, C] or [N, H, W], not {images.shape}")
    if size is not None and images.dtype != np.uint8:
        raise InputError(f"--size resizes images of 8 bits; {source} holds {images.dtype}")

    def prepared() -> Iterator[tuple[Hashable, np.ndarray]]:
        for i, image in enumerate(images):
            image = pictures.with_channels(image, translator.channels_in)
            yield i, image if size is None else pictures.resize(image, size)

    dtype = np.uint8 if images.dtype == np.uint8 else np.float32
    shape = (len(images), *(size or images.shape[1:3]), translator.channels_out)
    temporary = pictures.claim(source, target, overwrite=overwrite)
    try:
        outputs = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        for i, output in translator.stream(prepared()):
            outputs[i] = output
            on_done()
        outputs.flush()
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return len(images)
