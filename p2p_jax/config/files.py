"""Config files, in Python or as JSON that a run has stored: finding, loading, overriding, comparing."""

import contextlib
import difflib
import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from p2p_jax.config import stored
from p2p_jax.config.completing import as_dict, complete, complete_experiment
from p2p_jax.config.options import FREE_SECTIONS
from p2p_jax.config.readers import READERS, options_of, takes_anything, tell_dropped
from p2p_jax.errors import InputError
from p2p_jax.reporting import say

JSON = ".json"
"""The ending of the name of a stored config."""
_OTHER_WORDS = {
    "folder": "dir",
    "directory": "dir",
    "path": "dir",
    "steps": "num_steps",
    "lr": "learning_rate",
    "size": "crop_size",
}
"""What people call options."""
_SECOND = "discriminator_optimizer"  # options that it leaves out come from `optimizer`


def find(path: str) -> Path:
    """Find a config file: as given, in the working directory's configs/, or among the ones shipped with the package.

    Args:
      path: "configs/facades.py", "facades.py" or just "facades"; a stored one by its path, "runs/mine/config.json".

    Raises:
      InputError: no such file; lists the shipped ones.
    """
    if path.endswith(JSON):
        if Path(path).is_file():
            return Path(path)
        raise InputError(f"there is no file {path}; give the path of a stored config, such as runs/mine/config.json")
    shipped = importlib.util.find_spec("p2p_jax.configs")
    folders = ["configs", *((shipped.submodule_search_locations or []) if shipped else [])]
    folders.append(str(Path(__file__).parents[2] / "configs"))  # a checkout on PYTHONPATH, not installed
    name = path if path.endswith(".py") else path + ".py"
    elsewhere = folders if Path(name).parent.name in ("", "configs") else []
    candidates = [Path(name), *(Path(folder) / Path(name).name for folder in elsewhere)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = sorted({p.stem for f in folders for p in Path(f).glob("*.py") if p.stem != "__init__"})
    close = difflib.get_close_matches(Path(name).stem, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise InputError(f"no config file {path}; {hint}p2p_jax has {', '.join(names)}")


def load(path: str, trust: stored.Trust = ()) -> ConfigDict:
    """Load a config file by path or name, without changing it.

    Args:
      path: of a file in Python, or of the ``config.json`` of a run.
      trust: code outside the library that a stored config may name, "module:name".

    Raises:
      InputError: no such file, it has no ``get_config()``, or it is stored and damaged or names code that is not
        trusted.
    """
    file = find(path)
    if path.endswith(JSON):
        return _load_stored(file, trust)
    spec = importlib.util.spec_from_file_location(f"_p2p_jax_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{file} has no function get_config() that returns the config")
    return module.get_config()


def _load_stored(file: Path, trust: stored.Trust) -> ConfigDict:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as a config ({error})") from error
    stored.require_trust(found, file, trust)
    try:
        return complete(found)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def load_with_overrides(path: str, overrides: Sequence[str], trust: stored.Trust = ()) -> ConfigDict:
    """Load a config file and change options of it; see ``load`` and ``override``.

    Raises:
      InputError: no such file, option or flag, or a value that cannot be used; an unknown option's nearest one is
        named.
    """
    return override(load(path, trust), overrides)


def override(config: Mapping[str, Any], overrides: Sequence[str]) -> ConfigDict:
    """Complete a config and change options of it, as the command line does.

    If another reader is named for a section (``generator.network``, ``optimizer.factory``, ``objective`` for the
    loss), the section keeps the options that the new reader knows. Options that ``discriminator_optimizer`` leaves
    open come from ``optimizer``, after its changes.

    Args:
      config: complete or not.
      overrides: as in ``["--config.data.crop_size=64"]``.

    Returns:
      A complete config, locked.

    Raises:
      InputError: no such option or flag, or a value that cannot be used; an unknown option's nearest one is named.
    """
    groups = list(_flags(overrides))
    texts = {name: group[-1].partition("=")[2] or group[-1] for name, group in groups}
    given = as_dict(config)
    for section, naming in READERS.items():
        if f"{section}.{naming}" in texts:
            given[section] = _with_reader(given.get(section) or {}, section, texts[f"{section}.{naming}"])
    second = given.pop(_SECOND, None) or {}

    def flags_of(*sections):
        return [flag for name, group in groups if name.partition(".")[0] in sections for flag in group]

    # The table's options first: what the free sections hold may depend on them.
    ours = [flag for name, group in groups if name.partition(".")[0] not in FREE_SECTIONS for flag in group]
    chosen = _overridden(complete(given), ours)
    if "objective" in texts:
        chosen.loss = _for_objective(chosen, given)
    others = [name for name in FREE_SECTIONS if name != _SECOND]
    chosen = complete_experiment(_overridden(complete_experiment(chosen), flags_of(*others)))
    of_second = flags_of(_SECOND)
    if not second and not of_second:
        return chosen
    second = {READERS[_SECOND]: chosen.optimizer.factory, **second}
    if f"{_SECOND}.learning_rate" in texts:  # which every factory takes, and another one has none of its own
        second = {"learning_rate": chosen.optimizer.get("learning_rate", 0.0), **second}
    return complete_experiment(_overridden(complete_experiment({**chosen.to_dict(), _SECOND: second}), of_second))


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the options that are named and the arguments that belong to each: ``--config.NAME=TEXT``, or two."""
    group: list[str] = []
    for argument in arguments:
        if group and (argument.startswith("--") or len(group) > 1 or "=" in group[0]):
            yield _name_of(group[0]), group
            group = []
        group.append(argument)
    if group:
        yield _name_of(group[0]), group


def _name_of(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0].removeprefix("noconfig.").removeprefix("config.")


def _with_reader(section: Mapping[str, Any], name: str, reference: str) -> dict[str, Any]:
    """Return a section for another reader, with those of its options that the new one knows."""
    known, given = options_of(name, reference), {**section, READERS[name]: reference}
    if takes_anything(reference):
        return given
    tell_dropped(name, reference, given, known)
    return {key: value for key, value in given.items() if key in known}


def _for_objective(config: ConfigDict, before: Mapping[str, Any]) -> ConfigDict:
    """Return the loss of a config with those of its options that its objective knows; print which others were set.

    Args:
      config: with another objective than before.
      before: the config as it was.
    """
    known, old = complete_experiment({**config.to_dict(), "loss": {}}).loss, {}
    with contextlib.suppress(InputError):
        old = complete_experiment({**before, "loss": {}}).loss
    lost = {key: value for key, value in config.loss.items() if key not in known}
    if named := [f"{key}={value!r}" for key, value in lost.items() if key not in old or old[key] != value]:
        say(f"config.loss: {config.objective} does not have {', '.join(named)}; dropped")
    return ConfigDict({key: value for key, value in config.loss.items() if key in known})


def _overridden(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Return a complete config with options changed by flags, each of the type that it has."""
    values, argv = flags.FlagValues(), ["", *overrides]
    open_config = ConfigDict(_overridable(config.to_dict()))
    try:
        holder = config_flags.DEFINE_config_dict("config", open_config, flag_values=values, sys_argv=argv)
        left = values(argv)
    except (AttributeError, KeyError) as error:
        cause: Exception = error
        while cause.args and isinstance(cause.args[0], Exception):  # ml_collections wraps one in the other
            cause = cause.args[0]
        reason = str(cause.args[0]).replace("\n", ". ")
        raise InputError(_unknown(config, overrides) or f"the config has no option {reason}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    if len(left) > 1:
        raise InputError(f"unknown argument {left[1]}")
    return holder.value


def _unknown(config: ConfigDict, overrides: Sequence[str]) -> str:
    """Return a sentence on the first option of some flags that a config does not have; "" if it has all."""
    known = list(flat(config.to_dict()))
    given = [_name_of(flag) for flag in overrides if flag.startswith("--")]
    name = next((x for x in given if not any(x == y or y.startswith(f"{x}.") for y in known)), "")
    if not name:
        return ""
    section, _, own = name.rpartition(".")
    meant = _OTHER_WORDS.get(own, own)
    same = [x for x in known if x.rpartition(".")[0] == section]
    close = [x for x in [f"{section}.{meant}".lstrip("."), meant] if x in known] or [
        *difflib.get_close_matches(name, same, 1),
        *difflib.get_close_matches(name, known, 1),
    ]
    hint = f"did you mean config.{close[0]}?" if close else "p2p-jax config NAME lists all"
    return f"the config has no option config.{name}; {hint}"


def _overridable(value: Any) -> Any:
    """Return a config's tree where any value may replace None: flags take the type of the old value."""
    if value is None:
        return config_dict.placeholder(object)
    if isinstance(value, Mapping):
        return {key: _overridable(part) for key, part in value.items()}
    return value


def to_json(config: ConfigDict) -> str:
    """Return the config as JSON text."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the config that ``to_json`` wrote; options added to the library since then take their defaults.

    For text from a stranger, call ``stored.require_trust`` first: it refuses unknown code.
    """
    return complete(json.loads(text))


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return ``{"section.key": (old value, new value)}`` for every option that differs; absent is None."""
    a, b = (flat(json.loads(to_json(config))) for config in (old, new))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config by their whole names, ``{"data.flip": True, ...}``."""
    return dict(_leaves(config, ""))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
