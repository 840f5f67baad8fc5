"""ONNX Runtime for browsers, from its npm package: the files that a page needs, copied next to the page."""

import hashlib
import importlib.util
import json
import tarfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from p2p_jax.config.paths import expanded
from p2p_jax.errors import InputError

PACKAGE = "onnxruntime-web"
_MOST = 100 * 2**20  # bytes of a file of the package
# Names in the package, and next to the page: some servers do not know that .mjs is JavaScript.
_FILES = {
    "dist/ort.wasm.min.mjs": "ort.wasm.min.module.js",
    "dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.module.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
_NOTICES = "ThirdPartyNotices.txt"
_GET = f"`npm install {PACKAGE}` in the current folder, or `npm pack {PACKAGE}` and `runtime` with the .tgz"


class Runtime(NamedTuple):
    """The runtime's files.

    Attributes:
      version: version of the package.
      files: name next to the page -> content.
    """

    version: str
    files: dict[str, bytes]

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}


def find(path: str | Path | None) -> Runtime:
    """Read the runtime.

    Args:
      path: the unpacked package, or the archive that ``npm pack`` makes; by default the one installed by npm in the
        current folder.

    Raises:
      InputError: the package is missing, or is another one.
    """
    if path is None:
        path = Path("node_modules", PACKAGE)
        if not path.is_dir():
            raise InputError(f"format=web needs the npm package {PACKAGE}: {_GET}")
    path = expanded(path)
    try:
        if path.is_dir():
            found = _read(lambda name: (path / name).read_bytes(), path)
        else:
            with tarfile.open(path) as archive:
                found = _read(lambda name: _member(archive, name), path)
    except FileNotFoundError as error:
        raise InputError(f"runtime={path}: there is no such file or folder; get it by {_GET}") from error
    except (OSError, tarfile.TarError, EOFError) as error:
        raise InputError(f"runtime={path} cannot be read ({error}); get it by {_GET}") from error
    return found


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(f"package/{name}")
    if not member.isfile() or member.size > _MOST:
        raise KeyError(name)
    file = archive.extractfile(member)
    assert file is not None  # it is a plain file
    return file.read()


def _read(read: Callable[[str], bytes], path: Path) -> Runtime:
    """Read the package's files by name."""

    def required(name: str) -> bytes:
        try:
            return read(name)
        except (FileNotFoundError, KeyError) as error:
            if not path.exists():
                raise
            raise InputError(f"runtime={path} has no {name}: it is not {PACKAGE} of 2024 or later; {_GET}") from error

    try:
        told = json.loads(required("package.json"))
        name, version = told["name"], str(told["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"runtime={path}: its package.json cannot be read; get it by {_GET}") from error
    if name != PACKAGE:
        raise InputError(f"runtime={path} is the package {name}, not {PACKAGE}; get it by {_GET}")
    files = {ours: required(theirs) for theirs, ours in _FILES.items()}
    return Runtime(version, files | _licence())


def _licence() -> dict[str, bytes]:
    """Return the licence, with its notices if available: the npm package lacks them, the Python package has them."""
    licence = files("p2p_jax.interop.web").joinpath("onnxruntime_licence.txt").read_bytes()
    spec = importlib.util.find_spec("onnxruntime")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    notices = next((folder / _NOTICES for folder in folders if (folder / _NOTICES).is_file()), None)
    return {"LICENSE": licence} | ({_NOTICES: notices.read_bytes()} if notices else {})
