"""The data set of a run where it lies now."""

from pathlib import Path

from ml_collections import ConfigDict

from p2p_jax.config import complete, stored
from p2p_jax.data.containers.contents import parse
from p2p_jax.errors import InputError


def with_data_dir(config: ConfigDict, data_dir: str | None, file: Path) -> ConfigDict:
    """Return a run's config with another folder of the data set, if one is given; say what is read that the run names.

    Args:
      config: of a run.
      data_dir: the folder, or None for the one that the config names.
      file: in which the config is stored, for messages.

    Raises:
      InputError: there is no such folder, or the config names folders outside of the one that is given.
    """
    if data_dir is not None:
        for name in ("dir_a", "dir_b"):
            if not stored.stays_inside(config.data[name]):
                raise InputError(
                    f"{file}: config.data.{name} is {config.data[name]!r}, which leads out of data_dir={data_dir}; "
                    "write a place inside of that folder there, such as {split}/A"
                )
        config = complete(config.to_dict() | {"data": config.data.to_dict() | {"dir": data_dir}})
    if config.data.dir and not Path(config.data.dir).is_dir() and not parse(config.data.source):
        raise InputError(f"there is no folder {config.data.dir} with the run's images: say where, with `data_dir`")
    stored.tell_places(config, file, *(["data", "task"] if data_dir is None else ["task"]))
    return config


def is_downloaded(data: ConfigDict) -> bool:
    """Tell whether opening the data set of a config would download it, or look for it on a hub."""
    kind = data.source.partition("/")[0]
    if kind == "hugging_face":
        return not Path(data.dir).exists()
    return kind in ("pix2pix", "cycle_gan") and not data.dir
