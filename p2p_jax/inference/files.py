"""Image files and folders of them, translated."""

import glob
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.data.files import Listing, look_below, of_files, shown
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.inference import large as large_files
from p2p_jax.inference import ordering, scale, values, video
from p2p_jax.inference.ordering import Job
from p2p_jax.inference.translator import Translator
from p2p_jax.inference.values import Task
from p2p_jax.reporting import say
from p2p_jax.storage.refusals import StorageError
from p2p_jax.storage.writing import check_target

_THREADS = 4  # that read and write, while the network runs
_WILD = "*?["


class Outcome(NamedTuple):
    """The result of the jobs: how many were translated and how many left as they were, and a line for each failure."""

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
        if path.suffix.lower() not in formats.EXTENSIONS:
            raise InputError(f"input={path} is not an image ({', '.join(formats.EXTENSIONS)})")
        is_file = target.suffix and not target.is_dir()
        jobs = [Job(path, target if is_file else target / path.name)]
    elif path.is_dir():
        found = look_below(path)
        found = found._replace(images=_outside(target, found.images, path))
        jobs = [Job(p, target / p.relative_to(path)) for p in _images(found, str(path))]
    elif any(c in source for c in _WILD):
        fixed = Path(*_fixed_part(path))
        found = of_files(sorted(Path(p) for p in glob.glob(source, recursive=True) if not Path(p).is_dir()))
        found = found._replace(images=_outside(target, found.images, fixed))
        jobs = [Job(p, target / p.relative_to(fixed)) for p in _images(found, source)]
    else:
        raise InputError(f"input={source}: no such file or folder")
    if ending:
        jobs = [job._replace(target=job.target.with_suffix(ending)) for job in jobs]
    _check_targets(jobs)
    return jobs


def _outside(target: Path, found: list[Path], source: Path) -> list[Path]:
    """Leave out the output of an earlier call, where the output folder is inside the input."""
    made = target.resolve()
    return found if made == source.resolve() else [p for p in found if not p.resolve().is_relative_to(made)]


def _images(found: Listing, source: str) -> list[Path]:
    """Return the images of a listing; videos are named, as they are translated one by one."""
    videos = [path.name for ending, paths in found.others.items() if ending in video.EXTENSIONS for path in paths]
    found = found._replace(others={x: paths for x, paths in found.others.items() if x not in video.EXTENSIONS})
    if videos:
        count = "1 video" if len(videos) == 1 else f"{len(videos)} videos"
        some = ", ".join(map(shown, videos[:3])) + (", ..." if len(videos) > 3 else "")
        say(f"{source}: {count} ({some}) left out: translate a video by itself")
    if not found.images:
        holds = f": it holds {found.left_out}" if found.left_out else ""
        raise InputError(f"input={source}: no image ({', '.join(formats.EXTENSIONS)}) there{holds}")
    found.tell(source)
    return found.images


def _fixed_part(pattern: Path) -> Iterator[str]:
    for part in pattern.parts[:-1]:
        if any(c in part for c in _WILD):
            return
        yield part


def _check_targets(jobs: list[Job]) -> None:
    seen: dict[Path, Path] = {}
    for source, target in jobs:
        if target.suffix.lower() not in formats.EXTENSIONS:
            raise InputError(f"{target} has no image file ending ({', '.join(formats.EXTENSIONS)})")
        if target in seen:
            raise InputError(f"{seen[target]} and {source} would both be written to {target}; rename one of them")
        seen[target] = source
        check_target(source, target, overwrite=True)  # existing files are checked later, one by one


def fit_endings(jobs: Sequence[Job], translator: Translator, *, chosen: bool) -> list[Job]:
    """Change endings with a format that cannot store the run's output: to .png if that can, else .tif.

    Args:
      jobs: as ``plan`` gives them.
      translator: the run.
      chosen: the endings are the user's own, and are not to be changed.

    Raises:
      InputError: a chosen one does not fit, or two files would be written to one.
    """
    domains = translator.domain_in, translator.domain_out
    fitting = [ending for ending in formats.EXTENSIONS if values.is_fit(ending, *domains)]
    other = ".png" if ".png" in fitting else ".tif"
    fitted, changed = [], Counter[str]()
    dtype, channels = values.stored_form(*domains)
    what = f"{'labels' if domains[1].is_labels else dtype} of {channels} channel{'s' * (channels > 1)}"
    for job in jobs:
        ending = job.target.suffix.lower()
        if ending not in fitting:
            if chosen:
                raise InputError(f"{ending} cannot store {what}, as this run makes: choose {', '.join(fitting)}")
            changed[ending] += 1
            job = job._replace(target=job.target.with_suffix(other))
        fitted.append(job)
    for ending, count in sorted(changed.items()):
        become = f"{count} file{'s become' if count > 1 else ' becomes'} {other[1:].upper()}"
        is_written = ending in formats.WRITTEN
        say(
            f"{ending} cannot store {what}: {become}"
            if is_written
            else f"{ending[1:].upper()} is not written: {become}"
        )
    _check_targets(fitted)
    return fitted


def shard(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """Return the share of one of `count` processes: of the jobs, sorted by their sources, each `count`-th from `index`.

    Every process that plans the same files finds the same shares; each file is in exactly one.

    Args:
      jobs: as ``fit_endings`` gives them.
      index: of the process, from 1 to `count`.
      count: of all processes.
    """
    return sorted(jobs)[index - 1 :: count]


def translate_files(
    translator: Translator,
    jobs: Iterable[Job],
    *,
    size: scale.Wanted = None,
    task: Task | None = None,
    keep_alpha: bool = False,
    overwrite: bool = False,
    on_done: Callable[[], Any] = lambda: None,
) -> Outcome:
    """Translate image files; one that cannot be read or written is reported and does not stop the others.

    What is written has the depth of the run's output; see ``values.write``. Files are ordered by the sizes in
    their headers, so each size is compiled only once. TIFFs that are cut into tiles are
    read and written a few rows at a time.

    Args:
      translator: the trained run.
      jobs: what to read and write; see ``fit_endings``.
      size: (height, width) to resize images to first, a factor, or "training"; None keeps their size. See ``scale``.
      task: makes the run's inputs from the files, which are then photographs.
      keep_alpha: give a translation the transparency of its source, where the format can.
      overwrite: replace files that exist; otherwise they are left as they are.
      on_done: called after every job.
    """
    existing, done = 0, 0
    failures: dict[Job, str] = {}
    domains = translator.domain_in, translator.domain_out
    resized = scale.found(size, translator.config.data)
    pending = []
    for job in jobs:
        if job.target.exists() and not overwrite:
            existing += 1
            on_done()
        else:
            pending.append(job)
    with ThreadPoolExecutor(_THREADS) as readers:
        found = ordering.look(readers, translator, pending, resized, is_input=task is None)
    if not translator.tile:
        scale.tell((entry.sides for entry in found), domains[0], translator.config.data)
    whole, large = [entry for entry in found if not entry.is_large], [entry.job for entry in found if entry.is_large]

    def read(job):
        given = values.read(job.source, domains[0], size=resized, task=task)
        return given if keep_alpha else given._replace(alpha=None)

    def images(pool):
        moved = False
        for job, result in ordering.ahead(pool, read, whole, 2 * translator.batch_size):
            try:
                given = result.result()
            except InputError as error:
                failures[job] = f"{error}; it was skipped"
                on_done()
                continue
            if given.is_moved and not moved:
                moved = True
                warnings.warn("`size` moves pixels, so georeferences are left out", stacklevel=2)
            yield (job, given), given.values

    def finish(writes, most):
        count = 0
        while len(writes) > most:
            job, result = writes.popleft()
            try:
                result.result()
                count += 1
            except InputError as error:
                if isinstance(error, StorageError) and error.stops_all:  # nor is any other
                    raise
                failures[job] = str(error)
            on_done()
        return count

    writes: deque[tuple[Job, Future]] = deque()
    with ThreadPoolExecutor(_THREADS) as readers, ThreadPoolExecutor(_THREADS) as writers:
        counts = ordering.counts(whole)
        for (job, given), output in translator.stream(images(readers), counts=counts):
            writes.append((job, writers.submit(values.write, job.target, output, given, *domains)))
            # As many pixels as may be read ahead may wait to be written; of large images one.
            fitting = ordering.PIXELS // (output.shape[0] * output.shape[1])
            done += finish(writes, most=min(4 * translator.batch_size, fitting))
        done += finish(writes, most=0)
    for job in large:
        try:
            large_files.translate(translator, *job)
            done += 1
        except InputError as error:
            if isinstance(error, StorageError) and error.stops_all:
                raise
            failures[job] = f"{error}; it was skipped"
        on_done()
    return Outcome(done, existing, [failures[job] for job in pending if job in failures])
