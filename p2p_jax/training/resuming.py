"""When a training may go on: what may differ between its stored config and that of another start, and its images.

The rule of configs is the column ``may_change`` of the table in ``p2p_jax.config.options``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import differences, flat
from p2p_jax.config.options import OPTIONS
from p2p_jax.errors import InputError

_MAY_CHANGE = frozenset(option.name for option in OPTIONS if option.may_change)  # between two starts


def refuse_other_config(workdir: Path, stored: ConfigDict, config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Check that a run may go on with this config.

    Returns:
      The harmless differences, ``{option: (stored, now)}``.

    Raises:
      InputError: an option differs that changes what is computed; names all of them.
    """
    found = differences(stored, config)
    harmful = {key: values for key, values in found.items() if key not in _MAY_CHANGE}
    if harmful:
        lines = "\n".join(f"  config.{key}: stored {old!r}, now {new!r}" for key, (old, new) in harmful.items())
        raise InputError(
            f"{workdir} holds a run with another config:\n{lines}\n"
            "Take these back to go on with that run, or give a new `workdir` to start another."
        )
    return found


def refuse_other_images(workdir: Path, stored: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Check that a run goes on with the images that it was trained on.

    Args:
      workdir: the run's directory.
      stored: what the run found in its images at its first start.
      facts: what was found now.

    Raises:
      InputError: they differ; says in what.
    """
    old, new = flat(stored), flat(facts)
    lines = [
        f"\n  {key}: stored {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if key != "source" and old.get(key) != new.get(key)  # the same images may be given, or found in files
    ]
    if lines:
        raise InputError(
            f"{workdir} holds a run on other images:{''.join(lines)}\n"
            "Give it the images that it was trained on, or a new `workdir` to start another."
        )
