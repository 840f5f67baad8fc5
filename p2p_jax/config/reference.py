"""References to code: ``"package.module:name"``."""

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from p2p_jax.errors import InputError


def resolve(reference: str, option: str = "") -> Any:
    """Return the object that "package.module:name" names; the current directory is searched too.

    Args:
      reference: "package.module:name".
      option: its name, such as "config.objective", for messages.

    Raises:
      InputError: no such module or name, or the reference has another form; names the option.
    """
    try:
        return _find(reference)
    except InputError as error:
        raise InputError(f"{option}: {error}" if option else str(error)) from None


def is_reference(text: str) -> bool:
    """Return whether a text has the form "package.module:name"."""
    module_name, separator, name = text.partition(":")
    return bool(separator) and name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))


def is_of_library(module_name: str) -> bool:
    """Return whether a module is one of ours or of optax, which is never looked for in the current directory."""
    return module_name.partition(".")[0] in ("p2p_jax", "optax")


def _find(reference: str) -> Any:
    """Return the object that a reference names."""
    if not isinstance(reference, str) or not is_reference(reference):
        raise InputError(f"{reference!r} must have the form 'package.module:name'")
    module_name, _, name = reference.partition(":")
    try:
        with contextlib.nullcontext() if is_of_library(module_name) else searching_here():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise InputError(
            f"{reference!r}: there is no module {error.name!r} in the working directory {os.getcwd()} or among the "
            "installed packages"
        ) from None
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{reference!r}: module {module_name} has no {name!r}{hint}")
    return getattr(module, name)


@contextlib.contextmanager
def searching_here() -> Iterator[None]:
    """Search the current directory last for a while: for as long as an import takes, or a command runs."""
    here = os.getcwd()
    if {"", here} & set(sys.path):
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # what was imported may have changed it too
            sys.path.remove(here)
