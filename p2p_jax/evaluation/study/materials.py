"""Images for a study: from trained runs, or from folders."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p_jax.config.stored import Trust
from p2p_jax.data.files import list_images
from p2p_jax.errors import InputError
from p2p_jax.evaluation.study.design import Algorithm
from p2p_jax.images import pictures
from p2p_jax.reporting import say

if TYPE_CHECKING:
    from p2p_jax.data import Split

_Images = Iterator[tuple[str, str, np.ndarray]]


def from_runs(
    runs: Sequence[str],
    split: str | None = None,
    checkpoint: str = "latest",
    direction: str | None = None,
    data_dir: str | None = None,
    trust: Trust = (),
) -> dict[str, Algorithm]:
    """Return one algorithm per run: its translations of a split, and the split's own images.

    With pairs, the real images are the targets; without pairs, all images of the target domain. Both real and fake
    images have the size that the run was trained on.

    Args:
      runs: workdirs, each optionally as ``NAME=WORKDIR``; named after the last part of the path otherwise.
      split: split of the run's data set; by default its validation split.
      checkpoint: "latest", "best" or a step.
      direction: direction for runs with both; None uses the run's own.
      data_dir: the folder of the data set, if it is no longer where the runs' configs say.
      trust: code outside the library that the runs' configs may name; see ``Translator.from_workdir``.

    Raises:
      InputError: a run cannot be used, or two have the same name.
    """
    from p2p_jax.data import load_split  # TensorFlow, JAX and checkpoints: only needed for runs
    from p2p_jax.data.elsewhere import with_data_dir
    from p2p_jax.data.splits import split_meant
    from p2p_jax.evaluation.predictions import sides
    from p2p_jax.inference import Translator

    algorithms = {}
    for name, workdir in _named(runs, "runs").items():
        translator = Translator.from_workdir(workdir, checkpoint=checkpoint, direction=direction, trust=trust)
        config = with_data_dir(translator.config, data_dir, translator.run.config_file)
        name_of_split = split_meant(config.data, split)
        if not name_of_split:
            raise InputError(f"{workdir} was trained without validation: name the split to show with `split`")
        opened = load_split(config, name_of_split)
        given, wanted, _ = sides(translator, opened)
        source = {
            "workdir": translator.run.name,
            "objective": translator.config.objective,
            "step": int(translator.step),
            "weights": translator.weights,
            "checkpoint_id": translator.checkpoint_id,
            "direction": translator.direction,
            "split": name_of_split,
        }
        real, fake = _examples(opened, wanted), _examples(opened, given)
        algorithms[name] = Algorithm(source, real, fake, _translations(translator, opened, real, fake))
    return algorithms


def _examples(opened: "Split", side: str) -> list[str]:
    """Name the examples of one side, by number since file names may repeat; both images of a pair are one example."""
    names = opened.names[("real_a", "real_b").index(side)]
    return [f"{'' if opened.paired else side + ' '}{number} {name}" for number, name in enumerate(names)]


def _translations(translator: Any, opened: "Split", real: Sequence[str], fake: Sequence[str]) -> _Images:
    from p2p_jax.evaluation.predictions import as_picture, predict, targets_of

    for name, prediction in zip(fake, predict(translator, opened), strict=True):
        yield "fake", name, as_picture(translator, prediction.output, prediction.input)
    for name, image in zip(real, targets_of(translator, opened), strict=True):
        yield "real", name, image


def from_folders(real: str, fakes: Sequence[str]) -> dict[str, Algorithm]:
    """Return one algorithm per folder of fakes, all against one folder of real images.

    Image files directly in the folders are read; a real and a fake image belong to the same example if their names
    agree except for the ending.

    Args:
      real: folder.
      fakes: ``NAME=FOLDER`` each.

    Raises:
      InputError: a folder or file cannot be used, or two algorithms have the same name.
    """
    reals = _by_stem(Path(real))
    algorithms = {}
    for name, folder in _named(fakes, "fake").items():
        files = _by_stem(Path(folder))
        sizes = [_sizes(part.values()) for part in (reals, files)]
        if sizes[0] != sizes[1]:
            say(
                f"{name}: the real images ({_describe(sizes[0])}) and the fakes ({_describe(sizes[1])}) differ in "
                "size; people may recognise them by their sharpness: better give both at the same size"
            )
        source = {"real": Path(real).resolve().name, "fake": Path(folder).resolve().name}
        algorithms[name] = Algorithm(source, list(reals), list(files), _read(reals, files))
    return algorithms


def _sizes(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """Return the widths and heights of images; each one is read completely, to find damaged ones now."""
    with ThreadPoolExecutor() as pool:
        return {(image.shape[1], image.shape[0]) for image in pool.map(_picture, paths)}


def _picture(path: Path) -> np.ndarray:
    return pictures.with_channels(pictures.read(path).pixels, 3)


def _read(reals: Mapping[str, Path], fakes: Mapping[str, Path]) -> _Images:
    for kind, files in (("real", reals), ("fake", fakes)):
        for stem, path in files.items():
            yield kind, stem, _picture(path)


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in files:
            raise InputError(f"{files[path.stem]} and {path} have the same stem; remove or rename one of them")
        files[path.stem] = path
    return files


def _describe(sizes: set[tuple[int, int]]) -> str:
    (width, height), *others = sorted(sizes)
    return f"{width}x{height}" + (" and others" if others else "")


def _named(arguments: Sequence[str], argument_name: str) -> dict[str, str]:
    """Split ``NAME=PATH``; without a name, the last part of the path is used."""
    named: dict[str, str] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or "/" in name:  # a path may hold an equals sign itself
            name, path = Path(argument).resolve().name, argument
        if not name or not path:
            raise InputError(f"{argument_name}={argument}: write NAME=FOLDER")
        if name in named:
            raise InputError(f"`{argument_name}`: {named[name]} and {path} are both called {name}; write NAME={path}")
        named[name] = path
    return named
