"""Configs: completing, loading, comparing, and ``"module:name"`` references. ``options.py`` says what stands in one."""

import difflib
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from p2p_jax.errors import InputError
from p2p_jax.images import palettes
from p2p_jax.options import DEFAULTS, SECTION_DEFAULTS, check


def resolve(reference: str) -> Any:
    """Return what "package.module:name" names; the current directory is searched too.

    Raises:
      InputError: no such module or name, or the reference has another form.
    """
    module_name, separator, name = reference.partition(":")
    if not separator or not module_name or not name:
        raise InputError(f"{reference!r} does not name anything: write 'package.module:name'")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise InputError(
            f"{reference!r}: there is no module {error.name!r} in {os.getcwd()}, where this was started, or among the "
            "installed packages"
        ) from None
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{reference!r}: module {module_name} has no {name!r}{hint}")
    return getattr(module, name)


def complete(config: Mapping[str, Any]) -> ConfigDict:
    """Return a locked copy with every missing option at its default, checked.

    Raises:
      InputError: an option is unknown (the nearest one is named) or its value cannot be used.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    merged: dict[str, Any] = {}
    _reject_unknown(given, DEFAULTS, "")
    for key, default in DEFAULTS.items():
        if key in SECTION_DEFAULTS:
            # A section that names another network or optimizer does not inherit the arguments of ours.
            section = dict(given.get(key) or {})
            same = all(section.get(k, v) == v for k, v in SECTION_DEFAULTS[key].items() if ":" in str(v))
            merged[key] = {**SECTION_DEFAULTS[key], **section} if same else section
        elif isinstance(default, dict):
            _reject_unknown(given.get(key, {}), default, key + ".")
            merged[key] = {**default, **given.get(key, {})}
        else:
            merged[key] = given.get(key, default)
    if isinstance(merged["init_from"], str) and merged["init_from"]:
        merged["init_from"] = os.path.normpath(merged["init_from"])  # a slash at its end makes no other run of it
    for key in ("palette_a", "palette_b"):
        if isinstance(merged["data"][key], str):
            merged["data"][key] = palettes.self_contained(merged["data"][key])
    result = ConfigDict(merged)
    check(result)
    return result.lock()


def complete_section(given: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> ConfigDict:
    """Return the free section `name` of a config with the defaults of whoever reads it.

    Raises:
      InputError: an option is unknown; the nearest one is named.
    """
    _reject_unknown(given, defaults, name + ".", f"the config's objective reads no such {name} option")
    return ConfigDict({**defaults, **given})


def _reject_unknown(
    given: Mapping[str, Any],
    known: Mapping[str, Any],
    prefix: str,
    note: str = "options of your own go under config.extra",
) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(known)}"
            raise InputError(f"unknown option config.{prefix}{key}; {hint} ({note})")


def find(path: str) -> Path:
    """Find a config file: as given, in the working directory's configs/, or among the ones shipped with the package.

    Args:
      path: "configs/facades.py", "facades.py" or just "facades".

    Raises:
      InputError: no such file; lists the shipped ones.
    """
    shipped = importlib.util.find_spec("p2p_jax.configs")
    folders = ["configs", *((shipped.submodule_search_locations or []) if shipped else [])]
    folders.append(str(Path(__file__).parent.parent / "configs"))  # a checkout on PYTHONPATH, not installed
    name = path if path.endswith(".py") else path + ".py"
    elsewhere = folders if Path(name).parent.name in ("", "configs") else []
    candidates = [Path(name), *(Path(folder) / Path(name).name for folder in elsewhere)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = sorted({p.stem for f in folders for p in Path(f).glob("*.py") if p.stem != "__init__"})
    raise InputError(f"no config file {path}; the ones that come with p2p_jax are {', '.join(names)}")


def load(path: str) -> ConfigDict:
    """Load a config file by path or name, without changing it.

    Raises:
      InputError: no such file, or it has no ``get_config()``.
    """
    file = find(path)
    spec = importlib.util.spec_from_file_location(f"_p2p_jax_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{file} has no function get_config() that returns the config")
    return module.get_config()


def load_with_overrides(path: str, overrides: Sequence[str]) -> ConfigDict:
    """Load a config file and change options of it, as the command line does.

    Args:
      path: of the file, or its name.
      overrides: as in ``["--config.data.crop_size=64"]``.

    Raises:
      InputError: no such file, option or flag, or a value of the wrong type; an unknown option's nearest one is named.
    """
    argv = ["", f"--config={find(path)}", *overrides]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        left = values(argv)
    except (AttributeError, KeyError) as error:
        if "ml_collections" not in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise  # not an option, but a mistake in the config file
        cause: Exception = error
        while cause.args and isinstance(cause.args[0], Exception):  # ml_collections wraps one in the other
            cause = cause.args[0]
        reason = str(cause.args[0]).replace("\n", ". ")
        raise InputError(f"the config file has no option {reason}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    if len(left) > 1:
        raise InputError(f"unknown argument {left[1]}")
    return holder.value


def to_json(config: ConfigDict) -> str:
    """Return the config as JSON text."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the config that ``to_json`` wrote; options added to the library since then take their defaults."""
    return complete(json.loads(text))


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return ``{"section.key": (old value, new value)}`` for every option that differs; absent is None."""
    a, b = (dict(_flat(json.loads(to_json(config)))) for config in (old, new))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
