"""Translation for a demo: the same as the command translate, one picture at a time. Without gradio."""

import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p_jax.config.options import crop_shape
from p2p_jax.config.stored import tell_places
from p2p_jax.demo import examples, pads
from p2p_jax.demo.examples import Example
from p2p_jax.demo.pads import Pad
from p2p_jax.demo.settings import Settings
from p2p_jax.errors import InputError
from p2p_jax.evaluation.predictions import as_picture
from p2p_jax.images import formats, limits, pictures
from p2p_jax.inference import Translator, scale, values
from p2p_jax.inference.noise import NoisyTranslator, has_noise
from p2p_jax.inference.run import open_run
from p2p_jax.inference.values import Given, Task

_KEPT = 32  # results kept until a page has fetched them
_DIRECTIONS = {"AtoB": "A → B", "BtoA": "B → A"}


class Way(NamedTuple):
    """One direction of a run.

    Attributes:
      translator: translator of this direction.
      task: the task that makes inputs from photographs, if the run uses one.
      pad: tools to draw with; None if inputs cannot be drawn.
      examples: images to try.
    """

    translator: Translator
    task: Task | None
    pad: Pad | None
    examples: list[Example]

    @property
    def is_picture(self) -> bool:
        """Whether inputs are pictures that a browser shows."""
        domain = self.task.photographs if self.task else self.translator.domain_in
        return values.is_picture(domain) or domain.is_labels


class Shown(NamedTuple):
    """A translation.

    Attributes:
      before: a PNG of the network's input.
      after: a PNG of the network's output, of the same size.
      file: the translation as the command translate writes it; for pictures the same as `after`.
      told: one line about it.
    """

    before: Path
    after: Path
    file: Path
    told: str


class Model:
    """A trained run, opened for a demo; may be called from any thread.

    Attributes:
      ways: the directions by name, "AtoB" and "BtoA"; the one selected first comes first.
      title: title of the page.
      about: one line about the run.
      seed: seed of the run's own noise; None if it has none.
      crop: height and width of the training images.
      trained_size: the size that *as in training* means; None if training resized no image.
    """

    def __init__(
        self,
        run: str | Path,
        folder: Path,
        settings: Settings = Settings(),  # noqa: B008 (a tuple)
        *,
        num_examples: int = 0,
        data_dir: str | None = None,
        examples_folder: Path | None = None,
    ):
        """Open a run.

        Args:
          run: directory of the run, or its model file.
          folder: folder for temporary files.
          settings: settings of the demo.
          num_examples: largest number of validation images in each direction.
          data_dir: the folder of the data set, if it is no longer where the run's config says.
          examples_folder: a folder for each direction with examples as files; the data set is then not opened.

        Raises:
          InputError: see ``Translator.from_workdir``.
        """
        self._settings, self._folder, self._lock = settings, folder, threading.Lock()
        self._kept: deque[Path] = deque()
        self._noisy: dict[str, NoisyTranslator] = {}
        opened = open_run(
            run, settings.checkpoint, settings.norm, settings.dropout, trust=settings.trust, raw=settings.raw
        )
        first = Translator(
            opened, direction=settings.direction, batch_size=1, tile=settings.tile, overlap=settings.overlap
        )
        config = first.config
        limits.allow(max(settings.max_pixels, config.data.max_pixels), "max_pixels")
        self.crop = crop_shape(config.data)
        self.trained_size = scale.of_training(config.data)
        self.seed = config.seed if has_noise(opened) else None
        self.title = settings.title or opened.name
        self.names = names_of(config.data)
        translators = {first.direction: first} | {
            name: Translator(opened, direction=name, batch_size=1, tile=settings.tile, overlap=settings.overlap)
            for name in first.directions
            if name != first.direction
        }
        self.ways: dict[str, Way] = {}
        for name, translator in translators.items():
            task = values.find_task(config) if name == config.data.direction else None
            if task:
                tell_places(config, opened.config_file, "task")
            if examples_folder:
                domain = task.photographs if task else translator.domain_in
                found = examples.load(examples_folder / name, domain)
            else:
                found = examples.write(
                    translator,
                    task,
                    self._folder / "examples" / name,
                    num_examples,
                    data_dir,
                    is_printed=bool(self.ways),
                )
            self.ways[name] = Way(translator, task, self._pad(translator, task, found, name == first.direction), found)
        average = ", average of the weights" if first.weights == "average" else ""
        kind = config.objective.rpartition(":")[2]
        self.about = (
            f"{kind}, step {first.step:,}{average}, {first.num_parameters:,} parameters, trained on images of "
            f"{self.crop[1]}x{self.crop[0]}; much larger ones often come out worse"
        )

    @property
    def first_size(self) -> str:
        """The size that the page chooses at first: "training" where photographs are usually larger, else "own"."""
        photographs = all(way.translator.domain_in.is_photograph for way in self.ways.values())
        return "training" if self.trained_size and photographs else "own"

    def _pad(self, translator: Translator, task: Task | None, found: list[Example], is_first: bool) -> Pad | None:
        if task:
            return pads.find(translator.domain_in, self.crop, task=translator.config.task.input)
        palette = self._settings.palette if is_first and not translator.domain_in.is_labels else ""
        return pads.find(translator.domain_in, self.crop, [example.picture for example in found], palette=palette)

    def translate(self, direction: str, source: Path, *, fitted: bool = False, seed: int | None = None) -> Shown:
        """Translate an image file.

        Args:
          direction: one of ``ways``.
          source: the file; it may come from a stranger.
          fitted: whether to resize it so that its shorter side is that of the training images.
          seed: seed of the noise; the run's own by default.

        Raises:
          InputError: the file cannot be translated; one sentence that names the file, but no folder.
        """
        return self._translate(direction, source, self.ways[direction].task, fitted, seed)

    def draw(self, direction: str, drawn: np.ndarray, *, seed: int | None = None) -> Shown:
        """Translate a drawing, [H, W, 3 or 4] uint8. It is an input, even if the run makes inputs from photographs.

        Raises:
          InputError: see ``translate``.
        """
        pad = self.ways[direction].pad
        if pad is None:
            raise InputError("images of this run cannot be drawn")
        path = self._new_folder() / "drawing.png"
        pad.write(path, drawn)
        return self._translate(direction, path, None, False, seed)

    def _translate(self, direction: str, source: Path, task: Task | None, fitted: bool, seed: int | None) -> Shown:
        try:
            with self._lock:
                return self._shown(direction, source, task, fitted, seed)
        except InputError as error:
            raise InputError(told(error, source)) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(f"{source.name} needs more memory than there is: make it smaller") from error

    def _shown(self, direction: str, source: Path, task: Task | None, fitted: bool, seed: int | None) -> Shown:
        started = time.monotonic()
        translator = self._translator(direction, seed)
        domains = translator.domain_in, translator.domain_out
        given = values.read(source, domains[0], size=self._size(source, fitted), task=task)._replace(alpha=None)
        output = translator(given.values)
        ending = next(ending for ending in (".png", ".tif", ".npy") if values.is_fit(ending, *domains))
        folder, stem = self._new_folder(), re.sub(r"[^\w.-]+", "_", source.stem)[:60] or "picture"
        file, before, after = folder / f"{stem}_{direction}{ending}", folder / "before.png", folder / "after.png"
        values.write(file, output, given, *domains)
        pictures.write(before, _picture_of_input(translator, given))
        if ending == ".png" and _is_shown_as_it_is(translator):
            after = file
        else:
            normalized = (domain.encode(x) for domain, x in zip(domains, (given.values, output), strict=True))
            inputs, outputs = normalized
            pictures.write(after, as_picture(translator, outputs, inputs))
        height, width = output.shape[:2]
        seconds = time.monotonic() - started
        return Shown(before, after, file, f"{source.name}: {width}x{height}, {self.names[direction]}, {seconds:.1f} s")

    def _translator(self, direction: str, seed: int | None) -> Translator:
        plain = self.ways[direction].translator
        if self.seed is None or seed in (None, self.seed):
            return plain
        if direction not in self._noisy:
            self._noisy[direction] = NoisyTranslator(
                plain.run,
                direction=direction,
                batch_size=1,
                tile=self._settings.tile,
                overlap=self._settings.overlap,
            )
        self._noisy[direction].seed(int(seed or 0))
        return self._noisy[direction]

    def _size(self, source: Path, fitted: bool) -> scale.Size:
        """Return the size to resize a file to, after checking its own."""
        header = formats.read_header(source)
        width, height = header.width, header.height
        if width * height > self._settings.max_pixels:
            raise InputError(
                f"{source.name} has {width:,}x{height:,} pixels, the demo takes up to {self._settings.max_pixels:,}: "
                "make it smaller"
            )
        return self.trained_size if fitted else None

    def _new_folder(self) -> Path:
        """Return a folder for one result, and remove old ones."""
        folder = self._folder / f"result_{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        self._kept.append(folder)
        while len(self._kept) > _KEPT:
            shutil.rmtree(self._kept.popleft(), ignore_errors=True)
        return folder


def told(error: Exception, source: Path) -> str:
    """Return the text of an error about an uploaded file, with its name but no folder of this machine."""
    text = str(error).replace(str(source), source.name)
    return re.sub(r"(?<![\w.:/])(?:/[^\s/:;,()'\"]+){2,}", lambda found: Path(found[0]).name, text)


def _picture_of_input(translator: Translator, given: Given) -> np.ndarray:
    domain = translator.domain_in
    return given.values if _is_plain(given.values) and domain.is_bytes else domain.picture(domain.encode(given.values))


def _is_plain(image: np.ndarray) -> bool:
    return image.dtype == np.uint8 and image.shape[-1] in (1, 3)


def _is_shown_as_it_is(translator: Translator) -> bool:
    """Return whether a browser shows the PNG of a translation correctly: 8 bits, and not bare class numbers."""
    dtype, channels = values.stored_form(translator.domain_in, translator.domain_out)
    is_bare = translator.domain_out.kind == "labels" and translator.domain_out.palette is None
    return dtype == np.uint8 and channels in (1, 3) and not is_bare


def names_of(data: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the directions; for a set such as horse2zebra, from its name."""
    for name in (data["source"], data["dir"]):
        if found := re.fullmatch(r"([a-z]+)2([a-z]+)", Path(name).name):
            a, b = found.groups()
            return {"AtoB": f"{a} → {b}", "BtoA": f"{b} → {a}"}
    return dict(_DIRECTIONS)
