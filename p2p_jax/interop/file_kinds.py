"""Identifies a file that is not a file of weights, or of another program, and says how to convert it."""

import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.interop.network import name_some

_HEAD = 4096  # bytes that are checked
_SAVE_STATE_DICT = "torch.save(NET.state_dict(), NEW) makes a readable file"


class Kind(NamedTuple):
    """The kind of a file, such as "a web page", and what to do about it."""

    name: str
    mend: str


JSON = "a JSON text"
_FETCH = "fetch the file itself"
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as written by Keras", "weights of Keras are not read"),
    (b"\x93NUMPY", "a NumPy array", "a network has many: give the file that its training wrote"),
    (b"GGUF", "a GGUF file", "it holds another kind of network"),
    (b"\x1f\x8b", "packed with gzip", "unpack it"),
    (b"BZh", "packed with bzip2", "unpack it"),
    (b"\xfd7zXZ\0", "packed with xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and give its content"),
    (b"Rar!", "a RAR archive", "unpack it, and give its content"),
    (b"MATLAB 5.0", "a file of MATLAB", "its weights are not read"),
    (b"\x89PNG\r\n", "a PNG image", "give a file of weights"),
    (b"\xff\xd8\xff", "a JPEG image", "give a file of weights"),
    (b"GIF8", "a GIF image", "give a file of weights"),
    (b"%PDF", "a PDF", "give a file of weights"),
)
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


def check_file(path: Path, takes: Collection[str] = ()) -> None:
    """Refuse a file that does not hold weights, and name its real kind.

    Args:
      path: path of the file.
      takes: names of kinds that are accepted.

    Raises:
      InputError: it is missing, a dead link, a folder, may not be read, or is of a known kind that is not supported.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to {os.readlink(path)}, which does not exist; {_FETCH}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the file in it")
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: its permissions forbid it")
    kind = identify(path)
    if kind is not None and kind.name not in takes:
        raise InputError(f"{path} is {kind.name}: {kind.mend}")


def check_raw(path: Path) -> None:
    """Refuse a file of bare numbers that is in fact a pointer or a web page.

    Raises:
      InputError: it is one of these, or cannot be read.
    """
    head = _head(path)
    kind = _pointer(head, path) or (Kind("a web page", _FETCH) if _PAGE.match(head) else None)
    if kind is not None:
        raise InputError(f"{path} is {kind.name}: {kind.mend}")


def identify(path: Path) -> Kind | None:
    """Return the kind of a file without weights, or of a format that is not supported; None: it may hold weights.

    Raises:
      InputError: it cannot be read.
    """
    head = _head(path)
    if not head:
        return Kind("empty", "fetch or copy it again")
    for test in (_pointer, _text, _magic, _zip, _archive, _of_other_program):
        if (kind := test(head, path)) is not None:
            return kind
    return None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def _pointer(head: bytes, path: Path) -> Kind | None:
    if not head.startswith(b"version https://git-lfs.github.com/spec/"):
        return None
    size = re.search(rb"^size (\d{1,15})\s*$", head, re.MULTILINE)
    stands = f", in place of a file of {int(size[1]):,} bytes" if size else ""
    return Kind(f"a Git LFS pointer{stands}", "run `git lfs pull` where it was cloned, or fetch the file itself")


def _text(head: bytes, path: Path) -> Kind | None:
    bare = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _PAGE.match(bare):
        return Kind("a web page", "fetch the file that the page links to")
    if bare.startswith(b"<?xml"):
        return Kind("an XML text", f"perhaps an error message of a server; {_FETCH}")
    if re.match(rb"[\[{]\s*[\"\]}\[{0-9-]", bare) and _is_printable(head):
        return Kind(JSON, f"perhaps an error message of a server; {_FETCH}")
    return Kind("a text", _FETCH) if _is_printable(head) and not _is_lua(head) else None


def _is_printable(head: bytes) -> bool:
    return re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", head) is None and _decodes(head)


def _decodes(head: bytes) -> bool:
    try:
        head[: len(head) - 3 if len(head) == _HEAD else None].decode()  # the end may cut a character
    except UnicodeDecodeError:
        return False
    return True


def _magic(head: bytes, path: Path) -> Kind | None:
    return next((Kind(name, mend) for magic, name, mend in _MAGIC if head.startswith(magic)), None)


def _zip(head: bytes, path: Path) -> Kind | None:
    if head[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
        return None
    try:
        with zipfile.ZipFile(path) as container:
            names = container.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return None  # damaged files of PyTorch are like this
    last = {name.rpartition("/")[2] for name in names}
    if "bytecode.pkl" in last:
        return Kind("a TorchScript archive for mobile devices", f"where it was made, {_SAVE_STATE_DICT}")
    if "constants.pkl" in last or any("/code/" in name for name in names):
        mend = "torch.save(torch.jit.load(FILE).state_dict(), NEW) makes a readable file"
        return Kind("a TorchScript archive (torch.jit.save)", mend)
    if "data.pkl" in last:
        return None
    if any(name.startswith("serialized_exported_program") or name == "archive_format" for name in last):
        return Kind("a program of torch.export", f"where it was made, {_SAVE_STATE_DICT}")
    if "model.weights.h5" in last:
        return Kind("a model of Keras 3", "weights of Keras are not read")
    if names and all(name.endswith(".npy") for name in names):
        return Kind(f"a NumPy archive of {name_some(names)}", "give the file that the training wrote")
    return Kind(f"a zip archive of {name_some(names)}", "unpack it, and give its content")


def _archive(head: bytes, path: Path) -> Kind | None:
    old = len(head) >= 512 and head[0] > 32 and re.fullmatch(rb"[ 0-7]{6}[\0 ]{2}", head[148:156]) is not None
    if head[257:262] != b"ustar" and not old:
        return None
    first = head[:100].partition(b"\0")[0].decode(errors="replace")
    # The container of PyTorch's first months begins like this; its reader knows it.
    if first in ("sys_info", "./sys_info", "pickle", "storages", "tensors"):
        return None
    return Kind(f"a tar archive that begins with {first}", "unpack it, and give its content")


def _of_other_program(head: bytes, path: Path) -> Kind | None:
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header <= 100_000_000 and path.stat().st_size >= 8 + header:
        mend = "torch.save(safetensors.torch.load_file(FILE), NEW) makes a readable file"
        return Kind("a safetensors file", mend)
    if head[4:8] == b"TFL3":
        return Kind("a TensorFlow Lite model", "give the checkpoint that it was made from")
    if _is_lua(head):
        return Kind("a file of Torch 7, as written by the Lua release of pix2pix", "give one of the PyTorch release")
    if _is_onnx(head):
        return Kind("an ONNX model", "give the file of weights that it was made from")
    suffixes = {
        ".pb": Kind("a TensorFlow graph", "give the checkpoint that it was made from"),
        ".mlmodel": Kind("a Core ML model", "give the file of weights that it was made from"),
        ".caffemodel": Kind("a network of Caffe", "its weights are supported only for HED's edges"),
    }
    return suffixes.get(path.suffix.lower()) if not head.startswith(b"\x80") else None


def _is_lua(head: bytes) -> bool:
    binary = head[:4] in (b"\3\0\0\0", b"\4\0\0\0") and b"V 1" in head
    has_version = binary or re.match(rb"[34]\n\d+\n", head) is not None
    return has_version and re.search(rb"nn\.|torch\.|cudnn\.", head) is not None


def _is_onnx(head: bytes) -> bool:
    """Return whether a file begins like a ModelProto: its version, and the producer or the graph."""
    if len(head) < 5 or head[0] != 8 or not 1 <= head[1] <= 30:
        return False
    length = head[3]
    maker = head[2:3] == b"\x12" and head[4 : 4 + length].isascii() and head[4 : 4 + length].decode().isprintable()
    return maker or head[2:3] in (b"\x3a", b"\x42")


class Folder(NamedTuple):
    """The kind of a folder, by the names in it."""

    fits: Callable[[set[str]], bool]
    name: str
    mend: str


_FOLDERS = (
    Folder(lambda names: not names, "an empty folder", "name the one with the files"),
    Folder(
        lambda names: {"config.json", "checkpoints"} <= names,
        "a run of this library already",
        "give it to `translate`, or to --config.init_from",
    ),
    Folder(
        lambda names: "saved_model.pb" in names,
        "a SavedModel of TensorFlow",
        "give the checkpoint that its training wrote, model-STEP",
    ),
    Folder(
        lambda names: "data.pkl" in names or ("archive" in names and len(names) == 1),
        "the unpacked content of a file of PyTorch",
        "pack it again without compression (zip -0 -r NEW.pth FOLDER, from above it)",
    ),
    Folder(
        lambda names: any(name.endswith(".distcp") for name in names),
        "a distributed checkpoint of PyTorch",
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER NEW.pth makes a readable file",
    ),
)


def identify_folder(names: Iterable[str]) -> Kind | None:
    """Return the kind of a folder with these names, if it is known and not supported."""
    known = set(names)
    return next((Kind(kind.name, kind.mend) for kind in _FOLDERS if kind.fits(known)), None)
