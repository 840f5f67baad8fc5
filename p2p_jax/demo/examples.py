"""Examples for a demo: images of the run's validation set, if they are available."""

import contextlib
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p_jax.data import load_split
from p2p_jax.data.elsewhere import is_downloaded, with_data_dir
from p2p_jax.errors import InputError
from p2p_jax.evaluation.predictions import sides
from p2p_jax.images.domains import Domain
from p2p_jax.inference import Translator, values
from p2p_jax.inference.values import Given, Task
from p2p_jax.reporting import quiet, say


class Example(NamedTuple):
    """An image to try.

    Attributes:
      file: the file to translate.
      picture: [H, W, 1 or 3] uint8, the image as the network sees it.
    """

    file: Path
    picture: np.ndarray


def write(
    translator: Translator,
    task: Task | None,
    folder: Path,
    count: int,
    data_dir: str | None = None,
    *,
    is_printed: bool = False,
) -> list[Example]:
    """Write the first images of the validation set as files, at the size of training.

    If they are not available, it prints why and returns no examples; a demo downloads nothing.

    Args:
      translator: the run, and the direction in which it translates.
      task: for a run that makes its inputs from photographs, the task; the files are then photographs.
      folder: folder for the files.
      count: largest number of examples.
      data_dir: the folder of the data set, if it is no longer where the run's config says.
      is_printed: what the run's config names was printed already.
    """
    if not count:
        return []
    data = translator.config.data
    try:
        if not data.val_split:
            raise InputError("the run was trained without validation")
        if not (translator.domain_in.is_measured and translator.domain_out.is_measured):
            raise InputError("the ranges of this run's images are not known")
        if not data_dir and is_downloaded(data):
            raise InputError(f"{data.dir or data.source} is not on this machine: name a copy with `data_dir`")
        with quiet() if is_printed else contextlib.nullcontext():
            config = with_data_dir(translator.config, data_dir, translator.run.config_file)
        opened = load_split(config, data.val_split)
        side, other, names = sides(translator, opened)
        domain = task.photographs if task else translator.domain_in
        side, count = other if task else side, min(count, len(names))
        batches = (batch[side] for batch in opened.batches(count))
        images = list(itertools.islice(itertools.chain.from_iterable(batches), count))
        return [_write(folder / f"{number + 1}", image, domain) for number, image in enumerate(images)]
    except (InputError, OSError) as error:
        say(f"no examples: {error}")
        return []


def load(folder: Path, domain: Domain) -> list[Example]:
    """Return the examples stored in a folder as files, in the order of their numbers; none if there is no folder."""
    paths = sorted(folder.iterdir(), key=lambda path: (len(path.stem), path.name)) if folder.is_dir() else []
    return [Example(path, domain.picture(domain.encode(values.read(path, domain).values))) for path in paths]


def _write(stem: Path, image: np.ndarray, domain: Domain) -> Example:
    found = domain.decode(image)
    ending = next(ending for ending in (".png", ".tif", ".npy") if values.is_fit(ending, domain, domain))
    values.write(stem.with_suffix(ending), found, Given(found), domain, domain)
    return Example(stem.with_suffix(ending), domain.picture(image))
