"""Model files: the generators of a run with all that is known about them, in one file that is only data.

Arrays are named as in a run's state, ``params/gen_ab/LAYER/LEAF``. The texts with them are JSON, one for each subject
of ``SUBJECTS``. The config may name code as that of a run does, and is refused under the same rules.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from p2p_jax import __version__
from p2p_jax.config import complete, stored
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.storage import tensor_file

FORMAT = 1
SUBJECTS = ("p2p_jax", "config", "model", "domains", "data", "licence", "metrics")
"""The parts of a model's description: "p2p_jax" is the format and the versions, "model" what the arrays are."""
_LICENCE = 100  # characters, at most


class ModelFile(NamedTuple):
    """A model file that was read and is as it was written; its config is not looked at yet.

    Attributes:
      path: of the file.
      arrays: by their names, as they are stored: float32 or float16, and whole numbers.
      about: their description, by ``SUBJECTS``.
      digest: SHA-256 of all.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]
    digest: str

    @property
    def step(self) -> int:
        """Updates after which the weights were taken."""
        return self.about["model"]["step"]

    @property
    def weights(self) -> str:
        """Whether they are the "average" of the run's steps, or "raw", those of the step."""
        return self.about["model"]["weights"]

    @property
    def directions(self) -> tuple[str, ...]:
        """The ways that it translates: "AtoB", "BtoA"."""
        return tuple(self.about["model"]["directions"])

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the images, as ``facts.json`` of a run has it."""
        return {"fingerprint": self.about["data"].get("fingerprint", "")}

    def shapes(self) -> dict[str, Any]:
        """Return the arrays as the state that they are a part of, which has only them."""
        return unflatten_dict(self.arrays, sep="/")


def write(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    """Write a model file in one step, and return its digest.

    Args:
      path: of the file.
      arrays: see ``ModelFile``.
      about: by ``SUBJECTS``, fit for JSON.

    Raises:
      InputError: it cannot be written.
    """
    texts = {name: json.dumps(about[name], allow_nan=False) for name in SUBJECTS}
    return tensor_file.write(path, arrays, texts)


def is_model_file(path: Path) -> bool:
    """Return whether a path is a file in the form of a model file; its contents are not checked."""
    return tensor_file.is_tensor_file(path)


def read(path: Path) -> ModelFile:
    """Read a model file.

    Raises:
      InputError: it is none, or damaged; names it.
    """
    require_form(path)
    read_about(path)  # before arrays that may be anything
    arrays, texts = tensor_file.read(path)
    return ModelFile(path, arrays, _told(path, texts), texts[tensor_file.DIGEST])


def require_form(path: Path) -> None:
    """Refuse a file that has not the form of a model file.

    Raises:
      InputError: it has another; names it.
    """
    if not is_model_file(path):
        raise InputError(
            f"{path} is a file; name a directory, or a model file ({tensor_file.SUFFIX}) written by `pack`. For "
            f"weights of another program, python -m p2p_jax convert --input {path} --workdir RUN makes a run"
        )


def read_about(path: Path) -> dict[str, Any]:
    """Return the description in a model file, by ``SUBJECTS``; the arrays are not read.

    Raises:
      InputError: it is none; names it.
    """
    return _told(path, tensor_file.read_header(path)[1])


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of a model file by their names; the arrays are not read.

    Raises:
      InputError: it is not a file of this format; names it.
    """
    return tensor_file.read_header(path)[0]


def config_of(about: Mapping[str, Any], path: Path, trust: Trust = ()) -> ConfigDict:
    """Return the config that a model file holds, complete.

    Args:
      about: the description in the file.
      path: of the file.
      trust: code outside the library that the config may name.

    Raises:
      InputError: it cannot be used, or names code outside the library that is not in `trust`.
    """
    stored.require_trust(about["config"], path, trust)
    try:
        return complete(about["config"])
    except InputError as error:
        raise InputError(f"the config in {path} cannot be used: {error}") from error


def _told(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the description from the texts of a file, checked.

    Raises:
      InputError: it is not a model file, or its description differs from what ``pack`` writes.
    """
    if SUBJECTS[0] not in texts:
        raise InputError(
            f"{path} is a safetensors file of another program and does not describe its arrays. Use a file of `pack`; "
            "weights of the PyTorch and TensorFlow releases become a run with python -m p2p_jax convert"
        )
    try:
        head = _object(texts[SUBJECTS[0]])
        if type(head["format"]) is not int or head["format"] < 1:
            raise ValueError("its format number is missing")
        if head["format"] > FORMAT:
            version = head.get("version")
            raise InputError(
                f"{path} has the format {head['format']} of p2p_jax {version}, which this version, {__version__}, does "
                "not know: pip install -U p2p_jax"
            )
        about = {name: _object(texts[name]) for name in SUBJECTS}
        _check_model(about["model"])
        _check_rest(about)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        told = f"there is no {error}" if isinstance(error, KeyError) else str(error)[:200]
        raise InputError(
            f"the description in {path} cannot be read ({told}): it is not a p2p_jax model file"
        ) from error
    return about


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(f"{text[:40]!r} where an object should be")
    return found


def _check_model(model: Mapping[str, Any]) -> None:
    ways = model["directions"]
    if type(model["step"]) is not int or model["step"] < 0:
        raise ValueError(f"the step is {str(model['step'])[:40]!r}")
    if model["weights"] not in ("average", "raw"):
        raise ValueError(f"the weights are {str(model['weights'])[:40]!r}, neither average nor raw")
    if not isinstance(ways, list) or ways not in (["AtoB"], ["BtoA"], ["AtoB", "BtoA"], ["BtoA", "AtoB"]):
        raise ValueError(f"the directions are {str(ways)[:40]!r}")


def _check_rest(about: Mapping[str, Any]) -> None:
    if not isinstance(about["data"].get("fingerprint", ""), str):
        raise TypeError("the fingerprint of the images is not text")
    if not isinstance(about["metrics"].get("found", []), list):
        raise TypeError("the metrics are not a list")
    check_licence(about["licence"].get("name", ""))


def check_licence(name: Any) -> str:
    """Return the name of a licence, if it has the form of one.

    Raises:
      ValueError: it has not.
    """
    if not isinstance(name, str) or len(name) > _LICENCE or not name.isprintable():
        raise ValueError("the licence is not the name of one")
    return name
