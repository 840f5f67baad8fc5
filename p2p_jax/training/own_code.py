"""The source of a run's own code, stored with its config: your own objective, network or loss.

``RUN/code.json`` says which modules the config names outside the library, with the SHA-256 of each source, or name and
version of an installed package; ``RUN/code/`` holds the sources, and ``RUN/code/earlier/`` those of earlier starts.
"""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import modules, stored
from p2p_jax.errors import InputError
from p2p_jax.storage.writing import in_one_step, write_text

RECORD, FOLDER = "code.json", "code"
_MOST_BYTES = 1 << 20  # of a source that is stored; of larger ones only the hash


def store(workdir: Path, config: ConfigDict, functions: Iterable[Any] = ()) -> None:
    """Store the source of what a config names outside the library; without such nothing is written.

    Args:
      workdir: the run's directory.
      config: complete.
      functions: of an objective that was given in place of the one that the config names.

    Raises:
      InputError: a file cannot be written.
    """
    references = stored.outside(config)
    names = {name.partition(":")[0] for found in references.values() for name in found}
    given = {getattr(function, "__module__", None) or "" for function in functions}
    sources = modules.sources(sorted(names | given - {"", "__main__"}))
    if not names and not sources:
        return
    found: dict[str, Any] = {}
    for name, file in sources.items():
        contents = file.read_bytes()
        found[name] = {"sha256": hashlib.sha256(contents).hexdigest()}
        if file.suffix == ".py" and len(contents) <= _MOST_BYTES:
            found[name]["source"] = str(Path(FOLDER, *_path(name, file.name == "__init__.py")))
            _write(workdir, Path(found[name]["source"]), contents)
    for name in sorted(names - found.keys()):
        found[name] = _installed(name)
    record = json.dumps({"references": references, "modules": found}, indent=2) + "\n"
    if not (workdir / RECORD).is_file() or (workdir / RECORD).read_text(encoding="utf-8") != record:
        write_text(workdir / RECORD, record)


def offer(workdir: Path, references: Mapping[str, Iterable[str]]) -> None:
    """Make the stored source of trusted code importable where the code itself is not here; warn where it has changed.

    Args:
      workdir: the run's directory.
      references: what its config names outside the library, all of it trusted: the source in the directory is too.

    Raises:
      InputError: what is stored is damaged, and needed.
    """
    names = {name.partition(":")[0] for found in references.values() for name in found}
    recorded = _read(workdir) if names else {}
    here = {name: modules.locate(name, without=_StoredCode) for name in recorded}
    absent = {name for name, file in here.items() if file is None or _is_stored(workdir, file)}
    if absent & names:
        _import_from(workdir, {name: recorded[name] for name in sorted(absent) if "source" in recorded[name]})
    _compare_all(workdir, recorded, here)


def compare(workdir: Path) -> None:
    """Warn where the code that a run was trained with has changed."""
    recorded = _read(workdir)
    _compare_all(workdir, recorded, {name: modules.locate(name, without=_StoredCode) for name in recorded})


def _compare_all(workdir: Path, recorded: Mapping[str, Any], here: Mapping[str, Path | None]) -> None:
    for name, known in recorded.items():
        file = here[name]
        if "version" in known:
            _compare_version(workdir, name, known)
        elif "sha256" in known and file is not None and not _is_stored(workdir, file):
            _compare(workdir, name, known, file)


def _compare(workdir: Path, name: str, known: Mapping[str, Any], file: Path) -> None:
    now = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    if now != known["sha256"]:
        kept = f"; the source used for training is in {workdir / FOLDER}" if "source" in known else ""
        warnings.warn(
            f"{file} is not the module {name} that {workdir} was trained with (SHA-256 {now[:12] or 'none'}, then "
            f"{known['sha256'][:12]}): results may differ{kept}",
            stacklevel=4,
        )


def _compare_version(workdir: Path, name: str, known: Mapping[str, Any]) -> None:
    now = _installed(name)
    if now.get("version") != known["version"]:
        warnings.warn(
            f"{workdir} was trained with {known.get('package')} {known['version']} (module {name}); here "
            f"it is {now.get('version') or 'not installed'}",
            stacklevel=4,
        )


def _import_from(workdir: Path, recorded: Mapping[str, Mapping[str, Any]]) -> None:
    """Let Python find modules that are not here in what is stored with a run."""
    sources: dict[str, tuple[Path, bytes]] = {}
    for name, known in recorded.items():
        places = [workdir / FOLDER / Path(*_path(name, is_package)) for is_package in (False, True)]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            warnings.warn(f"module {name} was not found, and its stored source {places[0]} is missing", stacklevel=4)
            continue
        contents = file.read_bytes()
        if (now := hashlib.sha256(contents).hexdigest()) != known["sha256"]:
            raise InputError(
                f"{file} has changed since the run stored it (SHA-256 {now[:12]}, stored {known['sha256'][:12]}), and "
                f"there is no module {name} here: restore the file, or put the module in the current folder"
            )
        sources[name] = file, contents
    folder = str(workdir.resolve())
    if any(isinstance(finder, _StoredCode) and finder.folder == folder for finder in sys.meta_path):
        return
    if sources:
        sys.meta_path.append(_StoredCode(folder, sources))
        told = ", ".join(f"{name} from {file}" for name, (file, _) in sorted(sources.items()))
        warnings.warn(f"not found here, so loaded from the copy stored with the run: {told}", stacklevel=4)


class _StoredCode(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that nothing else finds, in sources that were read and compared; no compiled file is used."""

    def __init__(self, folder: str, sources: Mapping[str, tuple[Path, bytes]]):
        self.folder, self._sources = folder, sources

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return how a module is loaded; a folder without an ``__init__.py`` is an empty package."""
        file = self._sources[name][0] if name in self._sources else None
        is_folder = any(other.startswith(f"{name}.") for other in self._sources)
        if file is None and not is_folder:
            return None
        is_package = is_folder or (file is not None and file.name == "__init__.py")
        return importlib.machinery.ModuleSpec(
            name, self, origin=None if file is None else str(file), is_package=is_package
        )

    def exec_module(self, module: ModuleType) -> None:
        """Run the source."""
        if module.__name__ in self._sources:
            file, contents = self._sources[module.__name__]
            module.__file__ = str(file.absolute())
            exec(compile(contents, module.__file__, "exec"), module.__dict__)


def _read(workdir: Path) -> dict[str, Any]:
    """Return the modules of the record; empty where there is none, as in runs of earlier versions."""
    path = workdir / RECORD
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["modules"]
        for name, known in found.items():
            texts = [known[key] for key in ("sha256", "source", "package", "version") if known.get(key) is not None]
            if not all(part.isidentifier() for part in name.split(".")) or not all(isinstance(x, str) for x in texts):
                raise ValueError(f"{name!r} is not a module")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, and put the run's own modules in the current folder"
        ) from error
    return found


def _path(name: str, is_package: bool) -> tuple[str, ...]:
    """Return the path of a module below the folder of sources."""
    *parents, last = name.split(".")
    return (*parents, last, "__init__.py") if is_package else (*parents, f"{last}.py")


def _is_stored(workdir: Path, file: Path) -> bool:
    return file.resolve().is_relative_to((workdir / FOLDER).resolve())


def _installed(name: str) -> dict[str, Any]:
    """Return name and version of the package that holds a module; those of Python itself have Python's."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return {"package": "python", "version": sys.version.partition(" ")[0]}
    for package in importlib.metadata.packages_distributions().get(top, []):
        return {"package": package, "version": importlib.metadata.version(package)}
    return {"package": None}


def _write(workdir: Path, place: Path, contents: bytes) -> None:
    """Write a source; one of other contents that is there is kept aside under its hash."""
    path = workdir / place
    if path.is_file():
        before = path.read_bytes()
        if before == contents:
            return
        mark = hashlib.sha256(before).hexdigest()[:12]
        _write(workdir, Path(FOLDER, "earlier", mark, *place.parts[1:]), before)
    with in_one_step(path) as unfinished:
        unfinished.write_bytes(contents)
