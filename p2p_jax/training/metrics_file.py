"""``metrics.csv``: a row for each logged step, as a training writes it and as other programs leave it. No JAX."""

import csv
import io
import itertools
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.reporting import say
from p2p_jax.storage.writing import first_free, write_text

SECONDS, EPOCH, SPEED = "run/seconds", "run/epoch", "run/images_per_s"
RUN = (SECONDS, EPOCH, SPEED)  # columns that say how far and how fast a run is

_STEP = re.compile(r"\d{1,15}")
_POINT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
_ROW = re.compile(rf"{_STEP.pattern}(,({_POINT.pattern})?)*", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
_FRACTION = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_NO_THOUSANDS = re.compile(r"[+-]?(0?,\d+|\d+,(\d{1,2}|\d{4,}))([eE][+-]?\d+)?")  # cannot be a number like 1,234


class Metrics(NamedTuple):
    """What a file holds.

    Attributes:
      columns: the names of the metrics.
      rows: step -> metric -> number, as it is written with a decimal point; in order.
      changed: how it differs from what a training writes, in words; "" if it does not.
      unread: how many rows could not be read with certainty.
    """

    columns: Sequence[str]
    rows: Mapping[int, Mapping[str, str]]
    changed: str = ""
    unread: int = 0


def read(path: Path) -> Metrics:
    """Read the metrics of a run, also after a spreadsheet has rewritten them.

    A last row that a kill cut short is left out. From a file that another program changed, rows are taken only if every
    cell has a single reading.

    Raises:
      InputError: the file cannot be read at all.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    return _as_written(contents) or _as_changed(contents)


def _as_written(contents: bytes) -> Metrics | None:
    """Read what a training wrote; None if it is not exactly that."""
    try:
        *lines, _ = contents.decode("utf-8").split("\n")  # what follows the last end of a line was cut short
        (header,) = csv.reader(lines[:1], strict=True)
    except (ValueError, csv.Error):
        return None
    if "\r" in lines[0] or not _is_header(header):
        return None
    columns, rows, last = header[1:], dict[int, dict[str, str]](), -1
    for line in lines[1:]:
        cells = line.split(",")
        if len(cells) != len(header) or not _ROW.fullmatch(line):
            return None
        step = int(cells[0])
        if step <= last:
            return None
        last, rows[step] = step, {name: cell for name, cell in zip(columns, cells[1:], strict=True) if cell}
    return Metrics(columns, rows)


def _is_header(cells: Sequence[str]) -> bool:
    return bool(cells) and cells[0] == "step" and all(cells) and len(set(cells)) == len(cells)


def _as_changed(contents: bytes) -> Metrics:
    """Read what can be read with certainty."""
    text = _decoded(contents)
    if text is None or "\0" in text:
        return Metrics([], {}, "it is not a text file")
    lines = text.lstrip("\ufeff").splitlines()
    if lines and lines[0].strip().strip('"').lower().startswith("sep="):
        lines = lines[1:]
    if not any(line.strip() for line in lines):
        return Metrics([], {}, "it is empty")
    split = max(",;\t|", key=lines[0].count)
    try:
        header, *table = csv.reader(lines, delimiter=split)
    except (ValueError, csv.Error):
        return Metrics([], {}, "it is not a table")
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()
    if "step" not in names or not all(names) or len(set(names)) != len(names):
        return Metrics([], {}, "its first line does not name the columns")
    table = [[cell.strip() for cell in cells] for cells in table if any(cell.strip() for cell in cells)]
    fraction = _FRACTION if split != "," else _NO_THOUSANDS  # between commas it is in quotes
    number = _COMMA if any(fraction.fullmatch(x) for cells in table for x in cells) else _POINT
    rows, unread = dict[int, dict[str, str]](), 0
    for cells in table:
        row = dict(zip(names, cells, strict=False))
        step = row.pop("step", "")
        fits = len(cells) >= len(names) and not any(cells[len(names) :]) and _STEP.fullmatch(step)
        if not fits or int(step) in rows or not all(number.fullmatch(cell) for cell in row.values() if cell):
            unread += 1
            continue
        rows[int(step)] = {name: cell.replace(",", ".") for name, cell in row.items() if cell}
    columns = [name for name in names if name != "step"]
    return Metrics(columns, dict(sorted(rows.items())), "another program wrote it", unread)


def _decoded(contents: bytes) -> str | None:
    marked = contents.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8", "cp1252"):
        try:
            return contents.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def evaluations(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what validation found during a training: metric -> [(step, value), ...], without "eval/".

    Raises:
      InputError: the file cannot be read at all.
    """
    table = read(path)
    names = [name for name in table.columns if name.startswith("eval/")]
    found = {
        name.removeprefix("eval/"): [(step, float(row[name])) for step, row in table.rows.items() if name in row]
        for name in names
    }
    return {name: pairs for name, pairs in found.items() if pairs}


def best(pairs: Sequence[tuple[int, float]], mode: str) -> tuple[int, float] | None:
    """Return step and value of the best evaluation, the first of several; None if no value is finite.

    Args:
      pairs: steps and values.
      mode: "min" or "max", whichever is the best.
    """
    finite = [pair for pair in pairs if math.isfinite(pair[1])]
    return (min if mode == "min" else max)(finite, key=lambda pair: pair[1]) if finite else None


def begin(path: Path, columns: Sequence[str], step: int) -> Mapping[int, Mapping[str, str]]:
    """Make the file ready for rows after a step, and return those that it holds.

    A file that does not hold what a training wrote, or more than what is written now, is kept under another name.

    Args:
      path: the file.
      columns: names of the metrics that are written now.
      step: that training goes on from; later rows are about to be written again.
    """
    if path.exists():
        found = read(path)
    else:
        found = Metrics(columns, {})
        if step:
            say(f"{path} is missing: a new one begins after step {step:,}")
    kept = {at: {name: row[name] for name in columns if name in row} for at, row in found.rows.items() if at <= step}
    more = [name for name in found.columns if name not in columns and any(name in row for row in found.rows.values())]
    if found.changed or (more and kept):
        reason = found.changed or f"it has columns that are no longer written ({', '.join(more)})"
        aside = _set_aside(path)
        told = f"{len(kept):,} of its rows are kept" if kept else "none of its rows could be read"
        told += f", {found.unread:,} could not be read with certainty" if kept and found.unread else ""
        say(f"{path} is set aside as {aside.name}, because {reason}; {told}")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": at, **row} for at, row in kept.items())
    write_text(path, text.getvalue())
    return kept


def _set_aside(path: Path) -> Path:
    """Copy a file to a name that is free."""
    aside = first_free(path.with_name(f"{path.name}.aside-{i}") for i in itertools.count(1))
    try:
        shutil.copyfile(path, aside)
    except OSError as error:
        raise InputError(f"{aside} cannot be written ({error.strerror})") from error
    return aside
