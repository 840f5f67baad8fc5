"""Digests of written files: a bit that the disk has flipped since is noticed when the file is read.

A checkpoint holds ``digests.json``, with the size and the SHA-256 of each of its files. It is written when these are
complete, before the checkpoint gets its name, so only checkpoints of earlier versions lack it.
A run's own ``config.json`` and the like have theirs in a ``digests.json`` in the same folder.
"""

import concurrent.futures
import contextlib
import datetime
import functools
import hashlib
import json
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2p_jax.errors import InputError
from p2p_jax.reporting import say
from p2p_jax.storage.writing import write_text

NAME = "digests.json"
LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Files that Orbax writes into a checkpoint after all others, while it gives it its name."""
_TEXTS = ("config.json", "facts.json", "config/metadata", "facts/metadata")  # which people edit
_LONGEST_TEXT = 1 << 15  # bytes in which a single bit is looked for


def write(folder: Path) -> None:
    """Write the digests of a checkpoint that is about to get its name; those of ``LATE`` files come with `complete`."""
    step = int(folder.name.partition(".")[0])
    _write(folder, {name: _digest(folder / name) for name in files_in(folder) if name not in LATE}, step)


def complete(folder: Path) -> None:
    """Add the digests of ``LATE`` files to those of a checkpoint that has its name."""
    files = _read(folder / NAME)
    late = {name: _digest(folder / name) for name in LATE if (folder / name).is_file()}
    _write(folder, files | late, _step(folder / NAME))


def fault(folder: Path, part: str = "", longest: int | None = None) -> str | None:
    """Say what is wrong with a checkpoint.

    Args:
      folder: of the checkpoint, with a file ``NAME``.
      part: look only at files with names that begin so, such as "metrics/".
      longest: of longer files, in bytes, look only at the length.

    Returns:
      None if every file is as it was written, or its config or facts were edited; else the fault, without a
      full stop.

    Raises:
      PermissionError: a file may not be read.
    """
    try:
        files = _read(folder / NAME)
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        return f"{NAME} cannot be read ({error})"
    if (step := _step(folder / NAME)) is not None and folder.name != str(step):
        return f"it is a renamed checkpoint of step {step}"
    files = {name: told for name, told in files.items() if name.startswith(part)}
    lengths = (_fault_of_length(folder, name, size) for name, (size, _) in files.items())
    if found := next(filter(None, lengths), None):  # what costs nothing first
        return found
    read = [name for name, (size, _) in files.items() if longest is None or size <= longest]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = next(filter(None, pool.map(lambda name: _fault_of_bits(folder, name, files[name][1]), read)), None)
    if found is None and not part and LATE[0] not in files:
        return _fault_of_late(folder / LATE[0])
    return found


def _telling_unreadable(check: Callable[[Path, str, Any], str | None]) -> Callable[[Path, str, Any], str | None]:
    """Let a check report a file that cannot be read; missing permission is not a fault of the file."""

    @functools.wraps(check)
    def checked(folder: Path, name: str, wanted: Any) -> str | None:
        try:
            return check(folder, name, wanted)
        except PermissionError:
            raise
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"

    return checked


@_telling_unreadable
def _fault_of_length(folder: Path, name: str, size: int) -> str | None:
    status = (folder / name).stat()
    if not stat.S_ISREG(status.st_mode):
        return f"{name} is not a file"
    if status.st_size != size and name not in _TEXTS:
        return f"{name} has {status.st_size:,} bytes; {size:,} were written"
    return None


@_telling_unreadable
def _fault_of_bits(folder: Path, name: str, digest: str) -> str | None:
    return _change(folder / name, name, [digest])


def _fault_of_late(path: Path) -> str | None:
    """Say whether Orbax would stumble over a file that has no digest, because a kill came first."""
    if not path.exists():
        return None
    try:
        written = json.loads(path.read_text(encoding="utf-8")).get("commit_timestamp_nsecs") or 0
        datetime.datetime.fromtimestamp(written / 1e9, tz=datetime.UTC)
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return f"{path.name} cannot be read ({error})"
    return None


def files_in(folder: Path) -> list[str]:
    """Return the files of a checkpoint, as seen from its folder; without `NAME` and hidden ones."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != NAME and not name.rpartition("/")[2].startswith("."))


def write_recorded(path: Path, text: str) -> None:
    """Write a file of a run, and its digest into the file ``NAME`` in the same folder.

    The digest of the previous contents is kept too, so a kill in between leaves no file without its digest.
    """
    record = path.with_name(NAME)
    try:
        told = _recorded(record)
    except (OSError, ValueError):
        told = {}
    told[path.name] = [_of(text.encode(errors="backslashreplace")), *([_digest(path)[1]] if path.is_file() else [])]
    _write_json(record, told)
    write_text(path, text)


def require_recorded(path: Path, copies: Sequence[Path] = ()) -> None:
    """Check that no bit of a file of a run has changed, if it was recorded what it held. Edits by hand are taken.

    Args:
      path: of the file.
      copies: of what it holds, the newest last. Where the last one holds the same, all is well.

    Raises:
      InputError: bits have changed.
    """
    record = path.with_name(NAME)
    if not path.exists():
        return  # reported when the file is read, if it is needed
    try:
        digests = _recorded(record).get(path.name)
        why = _change(path, path.name, digests) if digests else None
    except (FileNotFoundError, NotADirectoryError):
        return  # of an earlier version
    except (OSError, ValueError) as error:
        why = f"{record} cannot be read ({error}), so {path.name} cannot be checked"
    if why is None:
        return
    copies = [copy for copy in copies if copy.is_file()]
    if copies:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if json.loads(path.read_text(encoding="utf-8")) == json.loads(copies[-1].read_text(encoding="utf-8")):
                return
    mend = f"restore it (a checkpoint holds a copy: cp {copies[-1]} {path})" if copies else "restore it"
    raise InputError(f"{path} is damaged: {why}; {mend}, or delete {record} if you changed it on purpose")


def _change(path: Path, name: str, digests: Sequence[str]) -> str | None:
    """Say in what a file is not as it was written.

    Of those that people edit a single bit that has changed is distinguished from an edit: with it turned back, the file
    has one of the digests again.
    """
    if name not in _TEXTS:
        return None if _digest(path)[1] in digests else f"bits of {name} have changed"
    content = path.read_bytes()
    if _of(content) in digests:
        return None
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        return f"{name} cannot be read ({error})"
    if len(content) > _LONGEST_TEXT:
        return f"bits of {name} have changed"
    turned = bytearray(content)
    for place in range(len(turned)):
        for bit in range(8):
            turned[place] ^= 1 << bit
            if _of(turned) in digests:
                return f"a bit of {name} has changed, in byte {place:,}"
            turned[place] ^= 1 << bit
    say(f"{path} has been edited since it was written")
    return None


def _recorded(record: Path) -> dict[str, list[str]]:
    """Return ``{file: digests of what it may hold}``; see ``_read`` for what is raised."""
    return _read_json(record, lambda files: {str(name): [str(x) for x in found] for name, found in files.items()})


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb", buffering=0) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), found


def _write(folder: Path, files: Mapping[str, tuple[int, str]], step: int | None) -> None:
    _write_json(folder / NAME, {name: list(files[name]) for name in sorted(files)}, step)


def _write_json(path: Path, files: Mapping[str, Sequence[Any]], step: int | None = None) -> None:
    of_step = {} if step is None else {"step": step}
    write_text(path, json.dumps({"files": files, **of_step, "sha256": _of_all(files, step)}, indent=1) + "\n")


def _of(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


def _of_all(files: Mapping[str, Any], step: int | None = None) -> str:
    return _of(json.dumps(files if step is None else [files, step], sort_keys=True).encode())


def _step(path: Path) -> int | None:
    """Return the step of a checkpoint by its digests; None where they do not say it."""
    return json.loads(path.read_text(encoding="utf-8")).get("step")


def _read(path: Path) -> dict[str, tuple[int, str]]:
    """Return ``{file: (size, digest)}``.

    Raises:
      ValueError: the file is not as it was written.
    """
    files = _read_json(path, lambda told: {name: (int(size), str(found)) for name, (size, found) in told.items()})
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise ValueError("it names files of other folders")
    return files


def _read_json(path: Path, convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    try:
        told = json.loads(text)
        files, whole = convert(told["files"]), told["sha256"] == _of_all(told["files"], told.get("step"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError("its own bits have changed")
    return files
