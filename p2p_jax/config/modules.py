"""Where the source of a module is, and which of your own modules it imports. Nothing is imported to find out."""

import ast
import contextlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]
_INSTALLED = {"site-packages", "dist-packages"}


def locate(name: str, *, without: type | None = None) -> Path | None:
    """Return the file of a module, as Python would find it from the current directory; None where there is none.

    Args:
      name: "package.module".
      without: finders of this class are not asked.
    """
    if name in sys.modules:  # a notebook's __main__ and packages without an __init__.py have no file
        loaded = getattr(sys.modules[name], "__file__", None)
        return Path(loaded) if loaded else None
    top, *rest = name.split(".")
    spec = _find_spec(top, without)
    if spec is None:
        return None
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    for part in rest:
        places = [place for folder in folders for place in (folder / part / "__init__.py", folder / f"{part}.py")]
        spaces = [folder / part for folder in folders if (folder / part).is_dir()]  # packages without an __init__.py
        file = next((place for place in places if place.is_file()), None)
        if file is None and not spaces:
            return None
        folders = spaces if file is None else [file.parent] if file.name == "__init__.py" else []
    return file


def is_own(file: Path) -> bool:
    """Return whether a file is the user's own: neither installed, nor Python's, nor this library's."""
    path = file.resolve()
    standard = {Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib")}
    return not (_INSTALLED & set(path.parts) or any(path.is_relative_to(folder) for folder in (*standard, _OURS)))


def sources(names: Iterable[str]) -> dict[str, Path]:
    """Return the files of the user's own modules, and of the user's own modules that they import.

    Args:
      names: of modules; those that are installed are left out.
    """
    found: dict[str, Path] = {}
    seen, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        file = locate(name)
        if file is None or not is_own(file):
            continue
        found[name] = file
        parents = name.split(".")[:-1]
        left += [".".join(parents[: i + 1]) for i in range(len(parents))]
        left += _imported(file, name)
    return dict(sorted(found.items()))


def _imported(file: Path, name: str) -> Iterator[str]:
    """Yield the names of what a module may import."""
    if file.suffix != ".py":
        return
    with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
                base = ".".join(part for part in (base, node.module) if part)
                if base:
                    yield base
                    yield from (f"{base}.{alias.name}" for alias in node.names)


def _find_spec(name: str, without: type | None) -> importlib.machinery.ModuleSpec | None:
    """Return the spec of a module at the top, the current directory searched last."""
    for finder in sys.meta_path:
        if without is not None and isinstance(finder, without):
            continue
        for path in (None, [os.getcwd()]) if finder is importlib.machinery.PathFinder else (None,):
            with contextlib.suppress(ImportError, ValueError, AttributeError):
                if spec := finder.find_spec(name, path):
                    return spec
    return None
