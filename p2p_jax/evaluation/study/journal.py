"""The file of sessions and answers: one JSON object per line, appended as they come, safe against a kill."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.storage import kernel_locks

NAME = "answers.jsonl"


class Records(NamedTuple):
    """The whole records of a journal, in order, and the number of lines cut off by a kill."""

    records: list[dict[str, Any]]
    broken: int


def create(study: Path) -> None:
    """Make an empty journal."""
    (study / NAME).touch()


def append(study: Path, record: Mapping[str, Any], *, synced: bool = True) -> None:
    """Add a record. Only one process and one thread at a time may call it.

    Args:
      study: directory of the study.
      record: the record to add.
      synced: whether it is on the disk when this returns; otherwise a power cut may lose it, but not a kill.
    """
    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    with open(study / NAME, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line  # the line before was cut off: keep it separate
        file.write(line)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def read(study: Path) -> Records:
    """Read the journal.

    Raises:
      InputError: the journal is missing.
    """
    try:
        lines = (study / NAME).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(f"{study / NAME} is missing; restore it, or make the study again") from None
    records, broken = [], 0
    for line in filter(None, lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("participant"), str):
            records.append(record)
        else:
            broken += 1
    return Records(records, broken)


def lock(study: Path) -> Any:
    """Keep other servers from this journal until the returned file is closed or the process ends.

    Raises:
      InputError: another process uses the journal.
    """
    file = open(study / NAME, "rb")  # noqa: SIM115 (it stays open: that is the lock)
    if kernel_locks.take(file.fileno()) is False:
        file.close()
        raise InputError(f"another server is running {study}; stop that one first")
    return file
