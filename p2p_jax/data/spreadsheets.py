"""Tables of comma-separated values that a spreadsheet shows and does not run.

A cell that begins as a formula does (``=``, ``+``, ``-``, ``@``, a tab, the end of a line) is a program for a
spreadsheet: ``=HYPERLINK(...)`` as the name of an image would be one. Texts that begin so get an apostrophe in front,
which says "text" there; one that has apostrophes before such a beginning gets one more, so each can be read back.
Numbers stay numbers. A text with a semicolon or a tab is quoted: where numbers have a comma, those divide cells.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four: wide, as East Asian ones are
_TO_QUOTE = re.compile(r"[,;\t\r\n\"']")


def escape(text: str) -> str:
    """Return a text as it may be in a cell."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(text: str) -> str:
    """Return the text that ``escape`` was given; one that it did not make is left as it is."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    text = escape(value)
    if not _TO_QUOTE.search(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table, its columns' names first; None is an empty cell, and other values are written as they are."""
    lines = [columns, *([row[name] for name in columns] for row in rows)]
    return "".join(",".join(map(_cell, line)) + "\n" for line in lines)


def read(path: Path) -> list[dict[str, str]]:
    """Read such a table: a row for each line below the first, texts as they were given to ``table``."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(io.StringIO(file.read(), newline=""))
        columns = [unescape(name) for name in next(rows, [])]
        return [dict(zip(columns, map(unescape, row), strict=True)) for row in rows if row]
