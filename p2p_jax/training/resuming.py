"""When a training may go on: what may differ between its stored config and that of another start, and its images.

The rule of configs is the column ``may_change`` of the table in ``p2p_jax.config.options``.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import differences, flat
from p2p_jax.config.options import OPTIONS
from p2p_jax.data.identity import Identity, same_contents
from p2p_jax.errors import InputError
from p2p_jax.reporting import say
from p2p_jax.storage.writing import write_text

NAMES = "images.json"
"""The file in the directory of a run with the names of its images, split by split."""
_NAMES = 100_000  # of a split that are kept
_FOUND = ("input", "output")
_OF_OTHERS = {"source", "images", "computed_on", "distances"}  # what is compared elsewhere, or may differ
_MAY_CHANGE = frozenset(option.name for option in OPTIONS if option.may_change)  # between two starts


def refuse_links(workdir: Path) -> None:
    """Check that what a training writes into its directory stays there: a run may be a stranger's.

    Checkpoints may be on another disk; this is reported.

    Raises:
      InputError: a folder that is written is a link that leads out of the run's directory.
    """
    for name in ("samples", "tensorboard", "loggers", "wandb", "code", "checkpoints"):
        folder = workdir / name
        if not folder.is_symlink() or folder.resolve().is_relative_to(workdir.resolve()):
            continue
        if name != "checkpoints":
            raise InputError(f"{folder} is a link that leads out of {workdir}: remove the link and start again")
        say(f"checkpoints are written to {folder.resolve()}, to which {folder} is a link")


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
            "Undo these changes to resume that run, or give a new `workdir` to start another."
        )
    return found


def read_names(workdir: Path) -> dict[str, list[str]]:
    """Return the names of a run's images, split by split; nothing where they are not known."""
    try:
        found = json.loads((workdir / NAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and all(map(_are_names, found.values())) else {}


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def write_names(workdir: Path, identities: Mapping[str, Identity]) -> None:
    """Keep the names of a run's images, so a later start can say which are new or missing."""
    names = {split: list(found.names) for split, found in identities.items() if 0 < len(found.names) <= _NAMES}
    if names and names != read_names(workdir):
        write_text(workdir / NAMES, json.dumps(names, indent=0) + "\n")


def as_facts(identities: Mapping[str, Identity]) -> dict[str, Any]:
    """Return what is stored of the images of each split."""
    return {split: {"count": found.total, "contents": found.contents} for split, found in identities.items()}


def _other_images(
    workdir: Path, stored: Mapping[str, Any], facts: Mapping[str, Any], identities: Mapping[str, Identity]
) -> list[str]:
    """Say split by split what differs, "" of a fingerprint that differs for another reason."""
    before, lines = stored.get("images") or {}, []
    names = read_names(workdir)
    for split, now in identities.items():
        if split not in before:
            continue
        count, contents = before[split]["count"], before[split]["contents"]
        known = Counter(names.get(split, ())), Counter(now.names)
        news = [f"{word}: {_some(list((a - b).elements()))}" for word, a, b in _changes(*known) if all(known) and a - b]
        if count != now.total:
            lines.append("; ".join([f"{split}: {count:,} images at the first start, {now.total:,} now", *news]))
        elif news:
            lines.append("; ".join([f"{split}: images with other names, {now.total:,} as at the first start", *news]))
        elif not same_contents(contents, now.contents):
            lines.append(
                f"{split}: the contents of images have changed since the first start; their names are the same"
            )
    old, new = stored.get("num_train"), facts["num_train"]
    if identities and not before and old not in (None, new):  # stored by an older version
        lines.append(f"{old:,} training images at the first start, {new:,} now")
    if not lines and before and stored.get("fingerprint") != facts["fingerprint"]:
        lines.append("names, sizes or contents of the images have changed since the first start")
    return lines


def _changes(before: Counter[str], now: Counter[str]) -> list[tuple[str, Counter[str], Counter[str]]]:
    return [("missing", before, now), ("new", now, before)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def refuse_other_images(
    workdir: Path,
    stored: Mapping[str, Any],
    facts: Mapping[str, Any],
    identities: Mapping[str, Identity] = MappingProxyType({}),
) -> None:
    """Check that a run goes on with the images that it was trained on.

    Args:
      workdir: the run's directory.
      stored: what the run found in its images at its first start.
      facts: what was found now.
      identities: what the images are recognised by now.

    Raises:
      InputError: they differ; says in what.
    """
    lines = [f"\n  {line}" for line in _other_images(workdir, stored, facts, identities)]
    # The same images may be given, or found in files; and other images have other ranges.
    passed_over = _OF_OTHERS | ({"num_train", "fingerprint", *_FOUND} if lines else set())
    old, new = (flat({k: v for k, v in found.items() if k not in passed_over}) for found in (stored, facts))
    lines += [
        f"\n  {key}: stored {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if lines:
        raise InputError(
            f"{workdir} holds a run on other images:{''.join(lines)}\n"
            "Give it the images that it was trained on, or a new `workdir` to start another."
        )
