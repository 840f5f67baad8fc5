"""Pairs of images in a CSV file, as spreadsheets and people write it."""

import csv
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from p2p_jax.config.paths import expanded
from p2p_jax.data import matching, spreadsheets
from p2p_jax.errors import InputError

_COLUMNS = ("a", "b")


def read(path: Path) -> tuple[list[Path], list[Path]]:
    """Read pairs of paths, relative to the folder of the CSV, from its columns a and b.

    Cells are divided by commas, semicolons or tabs. Text is UTF-8, or UTF-16 as spreadsheets save it.

    Raises:
      InputError: it cannot be read, has not these columns, or a file is missing; names the line.
    """
    lines = list(_lines(path))
    if not lines:
        raise InputError(f"{path} is empty; its first line must name the columns a and b")
    header = [name.strip().lower() for name in lines[0][1]]
    if missing := [name for name in _COLUMNS if name not in header]:
        found = ", ".join(lines[0][1]) or "nothing"
        raise InputError(f"{path}, line 1: there is no column {missing[0]}; it must be named there, next to {found}")
    if len(lines) == 1:
        raise InputError(f"{path} names no pair of images below its first line")
    sides: tuple[list[Path], list[Path]] = ([], [])
    faults = []
    for number, row in lines[1:]:
        for side, name in zip(sides, _COLUMNS, strict=True):
            cell = row[header.index(name)] if header.index(name) < len(row) else ""
            side.append(_find(path.parent, cell))
            if not cell:
                faults.append(f"line {number}: column {name} is empty; name a file or remove the line")
            elif not os.path.isfile(side[-1]):
                faults.append(f"line {number}: there is no file {side[-1]}; correct the path or remove the line")
    if faults:
        others = len(faults) - 1
        more = f" (and {others:,} more fault{'s' * (others > 1)})" if others else ""
        raise InputError(f"{path}, {faults[0]}{more}")
    return sides


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of every line that is not empty."""
    try:
        contents = path.read_bytes()
        is_utf_16 = contents[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in contents[:4]
        text = contents.decode("utf-16" if is_utf_16 else "utf-8-sig").removeprefix("\ufeff")
        lines = text.splitlines(keepends=True)
        first = lines[0] if lines else ""
        if first.lower().startswith("sep="):  # which spreadsheets write, and never show
            divider, lines = first[4:5], ["\n", *lines[1:]]
        else:
            divider = max(",;\t", key=first.count)
        rows = csv.reader(lines, delimiter=divider)
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield rows.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a CSV file in UTF-8 ({error}); save it as CSV UTF-8 in the spreadsheet"
        ) from error


def _find(folder: Path, cell: str) -> Path:
    """Return the file that a cell names; one with the separators of Windows where there is no other.

    The apostrophe that marks a cell as text in spreadsheets does not count either.
    """
    path = folder / expanded(cell)
    if not cell or os.path.isfile(path):
        return path
    if (meant := spreadsheets.unescape(cell)) != cell:
        return _find(folder, meant)
    for other in (path, folder / cell.replace("\\", "/")):
        alike = _names_in(other.parent).get(matching.alike(other.name))
        if alike is not None:
            return other.parent / alike
    return path


@functools.lru_cache(maxsize=64)
def _names_in(folder: Path) -> dict[str, str]:
    """Return the names in a folder by what they are but for capital letters and the parts of letters."""
    return {matching.alike(name): name for name in os.listdir(folder)} if folder.is_dir() else {}
