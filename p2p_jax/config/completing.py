"""Completing a config: all options of the table, and in free sections all options that their readers know."""

import contextlib
import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config.option import Option, as_options
from p2p_jax.config.options import FREE_SECTIONS, OPTIONS, check
from p2p_jax.config.readers import OURS, READERS, inherited, options_of, owner_of, takes_anything, tell_dropped
from p2p_jax.config.reference import resolve
from p2p_jax.errors import InputError
from p2p_jax.images import palettes

_BY_NAME = {option.name: option for option in OPTIONS}
_FREE = [name for name in FREE_SECTIONS if name != "extra"]
_WEIGHTS = {("loss", "terms")}  # options that may be given as mappings of names to weights
_read: ContextVar[dict[str, list[dict[str, Any]]] | None] = ContextVar("read", default=None)


def complete(config: Mapping[str, Any]) -> ConfigDict:
    """Return a locked copy with every missing option of the table at its default, checked.

    Networks, the optimizer and the loss have free sections; ``complete_experiment`` completes these too.

    Raises:
      InputError: an option is unknown (the nearest one is named) or its value cannot be used.
    """
    merged = _section(as_dict(config), "", FREE_SECTIONS)
    if merged["init_from"]:
        merged["init_from"] = os.path.normpath(merged["init_from"])  # a slash at its end makes no other run of it
    for name in ("input", "output"):
        side = merged["data"][name]
        side["palette"] = _self_contained(side["palette"], f"{name}.palette")
    result = ConfigDict(merged)
    check(result)
    return result.lock()


def complete_experiment(config: Mapping[str, Any]) -> ConfigDict:
    """Return a locked copy that is complete in all sections, so it states every number of the experiment.

    ``config.objective`` is made once, only to note which options it reads in the free sections.

    Raises:
      InputError: an option is unknown or its value cannot be used; it is named.
    """
    completed = complete(config)
    with _asking() as read:
        if completed.task:
            complete_read_section(completed.task, "task")
        make = resolve(completed.objective, "config.objective")
        if not callable(make):
            raise InputError(f"config.objective={completed.objective} is not a function from a config to an Objective")
        make(completed)
    merged = completed.to_dict()
    if merged["discriminator_optimizer"] and "discriminator_optimizer" not in read:
        raise InputError(
            f"config.discriminator_optimizer is set, but config.objective={completed.objective} ignores it; remove it"
        )
    for name, sections in read.items():
        given = merged[name]
        merged[name] = next((section for section in sections if _covers(section, given, name)), given)
        if name in OURS and merged[name] is not given:
            tell_dropped(name, merged[name][READERS[name]], given, merged[name])
    return complete(merged)


def completed_like(stored: Mapping[str, Any], config: ConfigDict) -> ConfigDict:
    """Return a stored config with the options that were added to the library since, for comparison with another config.

    Nothing that the stored config names is imported or called. Where both configs name the same reader of a section,
    its defaults come from the other config.

    Args:
      stored: complete but for the free sections.
      config: complete in all its sections.

    Raises:
      InputError: the other config cannot be made without the options that the stored one lacks.
    """
    old, new = complete(stored).to_dict(), config.to_dict()
    alike = [name for name in _FREE if _reader(old, name) == _reader(new, name)]
    older = {name: {key: value for key, value in new[name].items() if key in old[name]} for name in alike}
    if any(older[name].keys() != new[name].keys() for name in alike):
        defaults = complete_experiment(new | older)
        old |= {name: defaults[name].to_dict() | old[name] for name in alike}
    return complete(old)


def _reader(config: Mapping[str, Any], section: str) -> Any:
    """Return the reader of a free section."""
    return config[section].get(READERS[section]) if section in READERS else config["objective"]


def complete_read_section(section: Mapping[str, Any], name: str, given: Collection[str] = ()) -> ConfigDict:
    """Return a free section that names its reader, with all options that the reader knows, checked.

    Args:
      section: as it is in the config.
      name: "generator", "discriminator", "optimizer", "discriminator_optimizer" or "task".
      given: names that the reader takes from elsewhere.

    Raises:
      InputError: an option is unknown (the nearest one is named) or its value cannot be used.
    """
    if READERS[name] not in section:
        raise InputError(f"config.{name} has {', '.join(section) or 'no options'}, but no {READERS[name]}")
    reference = section[READERS[name]]
    options = options_of(name, reference, given)
    if takes_anything(reference):
        options = {key: Option(key, None, value) for key, value in section.items()} | options
    return complete_section(section, list(options.values()), name, reference)


def complete_section(
    given: Mapping[str, Any],
    options: Sequence[Option] | Mapping[str, Any],
    name: str,
    reader: str = "the config's objective",
) -> ConfigDict:
    """Return the free section `name` of a config with all options of its reader, checked.

    Args:
      given: the section as it is in the config.
      options: what the reader knows, or defaults by name.
      name: of the section.
      reader: for messages.

    Raises:
      InputError: an option is unknown (the nearest one is named) or its value cannot be used.
    """
    known = as_options(options)
    dropped = inherited(name, reader, given, known)
    given = {key: value for key, value in given.items() if key not in dropped}
    for key in given:
        if key not in known and (owner := owner_of(name, key)):
            raise InputError(
                f"unknown option config.{name}.{key}; {owner} has it, {reader} does not; if the config that you "
                f'started from set it, config.{name} = {{"{READERS[name]}": "{reader}"}} starts afresh'
            )
    afresh = "; if the config that you started from set it, config.loss = {} starts afresh" if name == "loss" else ""
    _reject_unknown(given, known, name + ".", f"{reader} has no such {name} option{afresh}")
    section = {key: _checked(option, given.get(key, option.default), f"{name}.{key}") for key, option in known.items()}
    read = _read.get()
    if read is not None:
        read.setdefault(name, []).append(section)
    return ConfigDict(section)


def as_dict(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as plain dicts that may be changed."""
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


@contextlib.contextmanager
def _asking() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Note every section that is completed within."""
    read: dict[str, list[dict[str, Any]]] = {}
    token = _read.set(read)
    try:
        yield read
    finally:
        _read.reset(token)


def _covers(section: Mapping[str, Any], given: Mapping[str, Any], name: str) -> bool:
    """Return whether a section that was read has all that was given of it."""
    reader = section.get(READERS.get(name, ""), "")
    return set(given) - inherited(name, reader, given, section) <= section.keys()


def _section(given: Any, prefix: str, free: Collection[str] = ()) -> dict[str, Any]:
    """Return a section of the table, complete.

    Args:
      given: its contents.
      prefix: of its options' names, such as "data.input."; "" is the whole config.
      free: the free sections in it.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"config.{prefix[:-1]} is {given!r}; it must be a section with options")
    names = [name.removeprefix(prefix) for name in _BY_NAME if name.startswith(prefix)]
    known = dict.fromkeys([*(name.partition(".")[0] for name in names), *free])
    _reject_unknown(given, known, prefix)
    merged: dict[str, Any] = {}
    for name in known:
        if name in free:
            merged[name] = _free_section(name, {} if given.get(name) is None else given[name])
        elif option := _BY_NAME.get(prefix + name):
            merged[name] = _checked(option, given.get(name, option.default), option.name)
        else:
            merged[name] = _section(given.get(name, {}), f"{prefix}{name}.")
    return merged


def _free_section(name: str, given: Any) -> dict[str, Any]:
    """Return a free section; if it names the published reader or no reader, add the published values."""
    if not isinstance(given, Mapping):
        raise InputError(f"config.{name} is {given!r}; it must be a section with options")
    published, names = FREE_SECTIONS[name], READERS.get(name)
    section = {key: _as_text(value) if (name, key) in _WEIGHTS else value for key, value in given.items()}
    if names in section and not isinstance(section[names], str):
        raise InputError(f"config.{name}.{names} is {section[names]!r}; it must be text, 'package.module:name'")
    if names in published and section.get(names, published[names]) == published[names]:
        return {**published, **section}
    return section


def _as_text(weights: Any) -> Any:
    """Return a mapping of "module:name" to weights as text, "module:name=weight,...": keys of configs have no dots."""
    return ",".join(f"{name}={weight}" for name, weight in weights.items()) if isinstance(weights, Mapping) else weights


def _self_contained(palette: str, key: str) -> str:
    """Return a palette with the colours that a file of it holds."""
    try:
        return palettes.self_contained(palette)
    except InputError as error:
        raise InputError(f"config.data.{key}: {error}") from error


def _checked(option: Option, value: Any, name: str) -> Any:
    """Return the value of an option; whole numbers become floats where the option is a float."""
    fault = option.fault(value)
    if fault:
        raise InputError(f"config.{name} is {value!r}; {fault}")
    return float(value) if option.type is float and value is not None else value


def _reject_unknown(
    given: Mapping[str, Any],
    known: Mapping[str, Any],
    prefix: str,
    note: str = "options of your own go under config.extra",
) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"the options are {', '.join(known)}"
            raise InputError(f"unknown option config.{prefix}{key}; {hint} ({note})")
