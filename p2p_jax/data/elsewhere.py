"""The data set of a run where it lies now."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import complete, stored
from p2p_jax.config.paths import expanded
from p2p_jax.data.containers.contents import parse
from p2p_jax.errors import InputError
from p2p_jax.storage.writing import write_text

STARTED_IN = "started_in.json"
"""In the directory of a run whose config names places from the current folder on: that folder."""
_PLACES = (("data", "dir"), ("task", "weights"), ("distances", "weights"))


def remember_start(workdir: Path, config: ConfigDict) -> None:
    """Store the current folder with a run if its config has relative paths, so the run works from other folders.

    Args:
      workdir: the run's directory.
      config: complete; the places that it names are there.
    """
    names = [config.data.dir_a, config.data.dir_b, *(_place(config, *place) for place in _PLACES)]
    if any(name and not expanded(name).is_absolute() for name in names):
        write_text(workdir / STARTED_IN, json.dumps({"folder": str(Path.cwd())}) + "\n")


def as_started(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Return a run's config; paths that do not exist here are taken relative to the folder where the run started.

    Args:
      config: of the run, complete.
      workdir: the run's directory.
    """
    try:
        start = Path(json.loads((workdir / STARTED_IN).read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # there is none, or it says nothing
        return config
    changes: dict[str, dict[str, Any]] = {}
    for section, name in _PLACES:
        place = _place(config, section, name)
        if place and not expanded(place).exists() and (start / place).exists():
            changes[section] = {name: str(start / place)}
    if not config.data.dir and config.data.dir_a and config.data.dir_b:  # two folders, each from there on
        changes["data"] = {"dir": str(start)}
    values = config.to_dict()
    return complete(values | {name: values[name] | change for name, change in changes.items()}) if changes else config


def _place(config: ConfigDict, section: str, name: str) -> str:
    value = (config.get(section) or {}).get(name)
    return value if isinstance(value, str) else ""


def with_data_dir(config: ConfigDict, data_dir: str | None, file: Path) -> ConfigDict:
    """Return a run's config with another folder of the data set, if one is given; say what is read that the run names.

    Without one, places that are not here are looked for where the run was started.

    Args:
      config: of a run.
      data_dir: the folder, or None for the one that the config names.
      file: the config's file, for messages.

    Raises:
      InputError: there is no such folder, or the config names folders outside of the one that is given.
    """
    if data_dir is not None:
        for name in ("dir_a", "dir_b"):
            if not stored.stays_inside(config.data[name]):
                raise InputError(
                    f"{file}: config.data.{name} is {config.data[name]!r}, which is outside data_dir={data_dir}; "
                    "write a path inside that folder, such as {split}/A"
                )
        config = complete(config.to_dict() | {"data": config.data.to_dict() | {"dir": data_dir}})
    else:
        config = as_started(config, file.parent)
    if config.data.dir and not Path(config.data.dir).is_dir() and not parse(config.data.source):
        raise InputError(
            f"there is no folder {config.data.dir} with the run's images: say where they are with `data_dir`"
        )
    stored.tell_places(config, file, *(["data", "task"] if data_dir is None else ["task"]))
    return config


def is_downloaded(data: ConfigDict) -> bool:
    """Return whether opening the data set of a config would download it, or look for it on a hub."""
    kind = data.source.partition("/")[0]
    if kind == "hugging_face":
        return not Path(data.dir).exists()
    return kind in ("pix2pix", "cycle_gan") and not data.dir
