"""Takes the places of this machine out of a config that goes to others."""

import re
from collections.abc import Mapping
from typing import Any

from p2p_jax.config.options import SEGMENTER
from p2p_jax.config.stored import stays_inside

_PLACES = ("init_from", "data.dir", "task.weights", "distances.weights")
_PLACES_INSIDE = ("data.dir_a", "data.dir_b")  # usually relative to the folder of the images, such as {split}/A
_ABSOLUTE = re.compile(r"""(?:^|[\s,;=:"'(])(?:/[^/\s]|~|\\\\|[A-Za-z]:[/\\]|file:)""")


def without_places(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a config without places of its machine, and the names of the emptied options.

    Places are the values of options for places, and every text that is an absolute path.
    """
    stripped: list[str] = []

    def clean(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {name: clean(part, f"{key}.{name}" if key else str(name)) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [clean(part, f"{key}[{number}]") for number, part in enumerate(value)]
        if isinstance(value, str) and value and _is_place(value, key):
            stripped.append(key)
            return ""
        return value

    return clean(config, ""), stripped


def _is_place(text: str, key: str) -> bool:
    folder = key == "distances.features" and text.startswith(SEGMENTER)
    leads_out = key in _PLACES_INSIDE and not stays_inside(text)
    return key in _PLACES or folder or leads_out or _ABSOLUTE.search(text) is not None
