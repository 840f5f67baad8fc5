"""The design of a study: its protocol, its images under random names, and the trials of a session."""

import hashlib
import json
import os
import random
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.evaluation.study import journal
from p2p_jax.storage.writing import unfinished_folder

SIDES = ("left", "right")
_FORMAT = 1
_SAME_TIME = 946_684_800  # time of every image file: the start of the year 2000


class Protocol(NamedTuple):
    """The task of one participant, in one session, for one algorithm.

    Each trial shows a real and a generated image in turn, the left one first, and then asks without a time limit. The
    side of the real one is random.

    Attributes:
      question: "fake" or "real", the image to point out.
      practice: number of practice trials, with feedback; they are not counted.
      trials: number of trials after them, without feedback.
      seconds: how long each image is shown.
      size: side of the images on the screen, in CSS pixels.
      pause: seconds of blank screen before each of the two images.
      pairing: "different" shows an output with the real image of another example, as pix2pix did for maps, "in order
        to avoid floor-level results"; "same" shows its own target, as pix2pix did for colorization.
      participants: number of participants per algorithm in the paper; more or fewer may take part.
    """

    question: str
    practice: int = 10
    trials: int = 40
    seconds: float = 1.0
    size: int = 384
    pause: float = 0.5
    pairing: str = "different"
    participants: int = 50

    def check(self) -> "Protocol":
        """Return the protocol after checking it.

        Raises:
          InputError: a value is out of range.
        """
        for name, low, high in (
            ("practice", 0, 1_000),
            ("trials", 1, 10_000),
            ("seconds", 0.02, 60),
            ("size", 16, 2_048),
            ("pause", 0, 60),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"`{name}` must be from {low} to {high}, not {getattr(self, name)}")
        return self


PRESETS = {"pix2pix": Protocol("fake", participants=50), "cyclegan": Protocol("real", participants=25)}


class Algorithm(NamedTuple):
    """The images of one algorithm.

    Attributes:
      source: origin of the images, as stored in ``study.json``.
      real: names of the real images.
      fake: names of the outputs; a real and a fake image with the same name belong to the same example.
      images: all of them, ``(kind, name, image)`` with kind "real" or "fake" and uint8 [H, W, 1 or 3].
    """

    source: dict[str, Any]
    real: Sequence[str]
    fake: Sequence[str]
    images: Iterable[tuple[str, str, np.ndarray]]


class Trial(NamedTuple):
    """The ids of the two images, and the side ("left" or "right") of the fake one."""

    left: str
    right: str
    fake: str


class Design(NamedTuple):
    """A study as stored in ``study.json``: the truth, which never leaves the server.

    Attributes:
      protocol: see ``Protocol``.
      key: key of all random draws.
      algorithms: name -> {"source": ..., "real": {id: name of the example}, "fake": {id: name of the example}}.
    """

    protocol: Protocol
    key: str
    algorithms: dict[str, dict[str, Any]]

    def assign(self, counts: Mapping[str, int], number: int) -> str:
        """Return the algorithm of session `number`: the one with the smallest count, by lot among equals."""
        rarest = min(counts.get(name, 0) for name in self.algorithms)
        names = sorted(name for name in self.algorithms if counts.get(name, 0) == rarest)
        return random.Random(f"{self.key} algorithm {number}").choice(names)

    def draw(self, algorithm: str, number: int) -> list[Trial]:
        """Return the trials of session `number`, the practice first; no image occurs twice."""
        rng = random.Random(f"{self.key} session {number}")
        real, fake = self.algorithms[algorithm]["real"], self.algorithms[algorithm]["fake"]
        count = self.protocol.practice + self.protocol.trials
        if self.protocol.pairing == "same":
            id_of = {name: image_id for image_id, name in real.items()}
            pairs = [(id_of[fake[image_id]], image_id) for image_id in rng.sample(sorted(fake), count)]
        else:
            matching = True
            while matching:  # about e = 2.7 times if all images are needed, otherwise fewer
                pairs = list(zip(rng.sample(sorted(real), count), rng.sample(sorted(fake), count), strict=True))
                matching = any(real[a] == fake[b] for a, b in pairs)
        return [Trial(b, a, "left") if rng.random() < 0.5 else Trial(a, b, "right") for a, b in pairs]


def make(
    output: str | os.PathLike[str],
    algorithms: Mapping[str, Algorithm],
    protocol: Protocol = PRESETS["pix2pix"],
    seed: int | None = None,
) -> Design:
    """Write a study; each session will show one of the algorithms.

    All images, real and fake, are processed by the same code: converted to RGB, resized bicubically to the protocol's
    square, and saved as PNG files with equal length and time, under random names.

    Note:
      Real images that are sharper than the outputs, or compressed differently, can be recognised; ``from_runs`` uses
      both as the network saw and made them.

    Args:
      output: directory to make; must not exist, or be empty.
      algorithms: name -> images.
      protocol: one of ``PRESETS``, with changes.
      seed: seed of image ids and sessions, for a study that can be made again; None draws it from the system, so
        nobody who knows this code can predict the fakes.

    Raises:
      InputError: `output` is in use, a value is out of range, or there are too few images for a session.
    """
    protocol.check()
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"output={output} exists already; choose another name or remove it")
    if not algorithms:
        raise InputError("a study needs at least one algorithm: runs=RUN, or real=FOLDER fake=NAME=FOLDER")
    for name, algorithm in algorithms.items():
        _check_enough(name, algorithm, protocol)
    key = secrets.token_hex(16) if seed is None else f"seed {seed}"
    with unfinished_folder(output) as folder:
        (folder / "images").mkdir()
        writer = _Writer(folder / "images", protocol.size, key)
        kept = {}
        for name, algorithm in algorithms.items():
            kept[name] = {"source": algorithm.source, **writer.write(algorithm.images)}
        design = Design(protocol, key, kept)
        record = {"format": _FORMAT, **design._asdict(), "protocol": protocol._asdict()}
        (folder / "study.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        journal.create(folder)
        try:
            if output.exists():
                output.rmdir()
            os.rename(folder, output)
        except OSError as error:
            raise InputError(f"output={output} cannot be made ({error.strerror or error}); choose another") from error
    return design


def load(study: str | os.PathLike[str]) -> Design:
    """Read ``study.json``.

    Raises:
      InputError: it does not exist, or another version of this library wrote it.
    """
    path = Path(study) / "study.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise InputError(f"{path} has format {record['format']}, not {_FORMAT}: use the p2p_jax that made it")
        design = Design(Protocol(**record["protocol"]), record["key"], record["algorithms"])
        _check(design)
        return design
    except FileNotFoundError:
        raise InputError(f"{study} is not a study (study.json is missing): make one with p2p-jax study make") from None
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}): make the study again") from error


def _check(design: Design) -> None:
    """Raise a TypeError or ValueError if a stored design cannot be served."""
    try:
        design.protocol.check()
        for name, algorithm in design.algorithms.items():
            if not all(isinstance(algorithm[kind], dict) for kind in ("real", "fake")):
                raise TypeError("it does not list its images")
            real, fake = (list(algorithm[kind].values()) for kind in ("real", "fake"))
            _check_enough(name, Algorithm({}, real, fake, images=()), design.protocol)
    except InputError as error:
        raise ValueError(str(error)) from None


class _Writer:
    """Write images under random names; a real image shared by several algorithms is written once."""

    def __init__(self, folder: Path, size: int, key: str):
        self._folder, self._size, self._rng = folder, size, random.Random(f"{key} ids")
        self._known: dict[tuple[str, bytes], str] = {}
        self._used: set[str] = set()

    def write(self, images: Iterable[tuple[str, str, np.ndarray]]) -> dict[str, dict[str, str]]:
        """Return {"real": {id: name}, "fake": {id: name}}, sorted by id."""
        ids: dict[str, dict[str, str]] = {"real": {}, "fake": {}}
        for kind, name, image in images:
            key = (name, hashlib.sha256(image.tobytes()).digest())
            image_id = self._known.get(key) if kind == "real" else None
            if image_id is None:
                image_id = self._add(image)
                if kind == "real":
                    self._known[key] = image_id
            ids[kind][image_id] = name
        return {kind: dict(sorted(names.items())) for kind, names in ids.items()}

    def _add(self, image: np.ndarray) -> str:
        image_id = f"{self._rng.getrandbits(64):016x}"
        while image_id in self._used:
            image_id = f"{self._rng.getrandbits(64):016x}"
        self._used.add(image_id)
        path = self._folder / f"{image_id}.png"
        picture = Image.fromarray(image if image.shape[-1] == 3 else np.repeat(image, 3, axis=-1))
        # Not compressed: a smooth output would make a smaller file than a photograph.
        picture.resize((self._size, self._size), Image.Resampling.BICUBIC).save(path, compress_level=0)
        os.utime(path, (_SAME_TIME, _SAME_TIME))
        return image_id


def _check_enough(name: str, algorithm: Algorithm, protocol: Protocol) -> None:
    """Refuse an algorithm with too few images for a session without repetitions."""
    real, fake = set(algorithm.real), set(algorithm.fake)
    needed = protocol.practice + protocol.trials
    mend = f"give more images, or shorten the session with `practice` and `trials` ({needed} in total)"
    if min(len(real), len(fake)) < needed:
        raise InputError(
            f"{name} has {len(real)} real and {len(fake)} fake images, but a session shows {needed} of each, none "
            f"twice: {mend}"
        )
    if protocol.pairing == "same":
        lonely = sorted(fake - real)
        if lonely:
            raise InputError(f"{name}: pairing=same, but {lonely[0]} has no real image")
    elif len(real | fake) < 2:
        raise InputError(f"{name}: a fake needs a real image of another example, and there is only one: {mend}")
