"""An evaluation in parts, by independent processes, and the merging of the parts.

A part is one file, ``parts/2_of_8.zip`` in the folder of the results: ``part.json`` holds the identity of the
evaluation, the rows, the state of set metrics and pictures for the report; ``files/`` holds files of these metrics.
"""

import hashlib
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.data import Split
from p2p_jax.data.unpacking import HostileError, Names, files_of_zip
from p2p_jax.errors import InputError
from p2p_jax.evaluation.gallery import Gallery
from p2p_jax.evaluation.passing import Passing
from p2p_jax.evaluation.set_metrics import SetMetric
from p2p_jax.storage.writing import in_one_step

FOLDER = "parts"
_FORMAT = 1
_OF_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)  # errors of zipfile for damaged files
_PASSED_OVER = ("created", "checkpoint", "run")  # fields of an identity that may differ between parts


class Shard(NamedTuple):
    """Which part of how many: `part` counts from 1."""

    part: int
    total: int

    @property
    def places(self) -> tuple[int, int]:
        """The first example, and the distance to the next one."""
        return self.part - 1, self.total

    @property
    def name(self) -> str:
        """The name of the part's file, without its ending."""
        return f"{self.part}_of_{self.total}"

    def __str__(self) -> str:
        return f"{self.part}/{self.total}"


def read_shard(text: str) -> Shard:
    """Read "2/8".

    Raises:
      InputError: the text has another form.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", str(text))
    shard = Shard(*map(int, found.groups())) if found else None
    if shard is None or not 1 <= shard.part <= shard.total:
        raise InputError(f"shard={text}: write I/N, the part I of N counted from 1, such as 2/8")
    return shard


def identity_of(
    identity: Mapping[str, Any], split: Split, asked: Sequence[SetMetric], **switches: Any
) -> dict[str, Any]:
    """Return everything that parts must have in common, fit for JSON.

    Args:
      identity: what is evaluated, as in the results.
      split: the split to evaluate.
      asked: the set metrics.
      **switches: further settings.
    """
    found = {name: value for name, value in identity.items() if name not in _PASSED_OVER}
    config = found.pop("config")
    config = config | {"data": {name: value for name, value in config["data"].items() if name != "dir"}}
    found |= {"metrics": sorted(metric.key for metric in asked), "images": split.fingerprint, **switches}
    found |= {"names of images": _digest(split.names), "config": _digest(config)}
    return json.loads(json.dumps(found, default=str))


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]


def write(
    output: Path,
    shard: Shard,
    identity: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    gallery: Gallery,
    passing: Passing | None,
    files: Path,
) -> Path:
    """Write a part in one step, replacing one of the same name; return its file.

    Args:
      output: the folder of the results.
      shard: which part it is.
      identity: see ``identity_of``.
      rows: rows of the part's images, in order.
      gallery: pictures of them for the report.
      passing: the state of the set metrics; None: there are none.
      files: the folder with files of the set metrics.

    Raises:
      InputError: the part cannot be written.
    """
    found = {
        "format": _FORMAT,
        "shard": list(shard),
        "identity": identity,
        "rows": rows,
        "shown": gallery.shown,
        "sets": passing.kept() if passing is not None else None,
    }
    path = output / FOLDER / f"{shard.name}.zip"
    with in_one_step(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr("part.json", json.dumps(found), zipfile.ZIP_DEFLATED)
        for one in sorted(path for path in files.rglob("*") if path.is_file()):
            file.write(one, f"files/{one.relative_to(files).as_posix()}")
    return path


class _Part(NamedTuple):
    path: Path
    shard: Shard
    identity: dict[str, Any]
    rows: list[dict[str, Any]]
    shown: dict[int, Any]
    sets: dict[str, Any] | None


def merge(
    output: Path,
    identity: dict[str, Any],
    num_rows: int,
    gallery: Gallery,
    passing: Passing | None,
    files: Path,
) -> list[dict[str, Any]]:
    """Merge the parts of an evaluation.

    Args:
      output: the folder of the results.
      identity: identity of the requested evaluation, see ``identity_of``.
      num_rows: number of rows of all parts together.
      gallery: gets the pictures.
      passing: gets the state of the set metrics; None: there are none.
      files: the folder for their files.

    Returns:
      All rows, in order.

    Raises:
      InputError: parts are missing, duplicate, damaged, or from another evaluation; names them.
    """
    paths = sorted((output / FOLDER).glob("*.zip"))
    if not paths:
        raise InputError(
            f"there are no parts in {output / FOLDER}: make them with shard=1/8 and so on, and merge them with "
            "the same checkpoint, split and switches"
        )
    heads = [_read(path) for path in paths]
    found = {part.shard.part: part for part in heads}
    _refuse(heads, found, identity)
    count = heads[0].shard.total
    rows: list[dict[str, Any]] = [{}] * num_rows
    for index in range(1, count + 1):
        part = found[index]
        places = range(*(index - 1, num_rows, count))
        if len(part.rows) != len(places):
            raise InputError(f"{part.path} has {len(part.rows)} rows instead of {len(places)}: make this part again")
        rows[index - 1 :: count] = part.rows
        try:
            gallery.add_shown(dict(zip(places, part.rows, strict=True)), part.shown)
            if passing is not None:
                passing.add(part.sets or {})
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(part.path, error) from error
        if passing is not None:
            _extract(part.path, files)
    return rows


def _refuse(parts: Sequence[_Part], found: Mapping[int, _Part], identity: dict[str, Any]) -> None:
    """Refuse parts that do not fit together or the request, or are incomplete."""
    first = parts[0]
    for part in parts:
        if part.shard.total != first.shard.total:
            raise InputError(
                f"{first.path} is one of {first.shard.total} parts and {part.path} one of {part.shard.total}: "
                "delete the ones that you do not need"
            )
    for part in parts:
        if found[part.shard.part] is not part:
            raise InputError(
                f"{part.path} and {found[part.shard.part].path} are both part {part.shard}: delete one of them"
            )
    for part in parts:
        for name in identity | part.identity:
            theirs, ours = part.identity.get(name), identity.get(name)
            if theirs != ours:
                raise InputError(
                    f"{part.path} has {name} {_told(theirs)}, but you asked for {name} {_told(ours)}: make the part "
                    f"again (shard={part.shard}), or ask for the same as the parts"
                )
    missing = [str(Shard(i, first.shard.total)) for i in range(1, first.shard.total + 1) if i not in found]
    if missing:
        some = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise InputError(f"{first.path.parent} lacks the parts {some}: make them with shard={missing[0]} and so on")


def _told(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _read(path: Path) -> _Part:
    try:
        with zipfile.ZipFile(path) as file:
            files_of_zip(file, path)
            found = json.loads(file.read("part.json"))
        if found["format"] != _FORMAT:
            raise ValueError(f"it has the format {found['format']}")
        shown = {int(row): pictures for row, pictures in found["shown"].items()}
        shard = read_shard("/".join(map(str, found["shard"])))
        rows, identity = found["rows"], found["identity"]
        if not isinstance(identity, dict) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it has no rows")
        return _Part(path, shard, identity, rows, shown, found["sets"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, *_OF_ZIP) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a part of an evaluation, or is damaged ({error}): delete it or make it again")


def _extract(path: Path, folder: Path) -> None:
    """Unpack the files of a part into a folder, which may already hold those of other parts."""
    names = Names()
    try:
        with zipfile.ZipFile(path) as file:
            for member in files_of_zip(file, path):
                if not member.filename.startswith("files/"):
                    continue
                try:
                    target = folder.joinpath(*names.add(member.filename.removeprefix("files/")))
                except HostileError as error:
                    told = f"{member.filename}, which does not belong to a part ({error})"
                    raise InputError(f"{path} holds the file {told}") from error
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as made, file.open(member) as contents:
                    shutil.copyfileobj(contents, made)
    except HostileError as error:
        raise InputError(f"{path} is refused: {error}") from error
    except InputError:
        raise
    except (OSError, EOFError, *_OF_ZIP) as error:
        raise InputError(f"{path} cannot be unpacked into {folder.parent} ({error})") from error
