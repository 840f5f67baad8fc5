"""The TensorBoard event files of a run: they hold each row once, also after a kill.

Rows are written through, and brought to the disk before a checkpoint counts. At a start the files are compared with
``metrics.csv``: rows after the checkpoint go, rows that are missing come back. A new file with all that stays takes the
place of those before; where there is nothing to fix, they stay as they are.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from p2p_jax.reporting import say

# A record is its length and a checksum of that, its bytes, and a checksum of these.
_HEAD, _CHECKSUM = struct.Struct("<QI"), 4


class Events:
    """The event file of one start.

    Args:
      folder: made if missing.
      step: that training goes on from.
      rows: of ``metrics.csv`` up to that step, step -> metric -> number.

    Raises:
      ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int, rows: Mapping[int, Mapping[str, str]]):
        from tensorboardX import summary
        from tensorboardX.record_writer import RecordWriter

        self._summary, self.last = summary, step
        folder.mkdir(parents=True, exist_ok=True)
        _mend(folder, step, rows)
        self._writer = RecordWriter(str(_new_name(folder, 1)))
        self._write(file_version="brain.Event:2", wall_time=time.time())
        self._write(step=step + 1, session_log={"status": "START"})  # a TensorBoard that runs drops what follows
        self.flush()

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        values = [value for name, number in row.items() for value in self._summary.scalar(name, number).value]
        self._write(step=step, wall_time=time.time(), summary={"value": values})
        self._writer.flush()

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Write an image, [H, W, 3] uint8."""
        found = self._summary.image(name, image, dataformats="HWC")
        self._write(step=step, wall_time=time.time(), summary=found)

    def _write(self, **event: Any) -> None:
        self._writer.write(_event(**event).SerializeToString())

    def flush(self) -> None:
        """Hand all that was written to the system: a kill does not take it any more."""
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.flush()
        self._writer.close()


def _event(**fields: Any) -> Any:
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(**fields)


def _new_name(folder: Path, part: int) -> Path:
    """Return a name that no file has; TensorBoard reads files in the order of their names."""
    while True:
        now = time.time()
        name = (
            f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}.{int(now * 1e6) % 10**6:06d}.{part}"
        )
        if not (folder / name).exists():
            return folder / name


class _Record(NamedTuple):
    """The place of an event in its file, and its subject."""

    path: Path
    offset: int
    length: int
    step: int
    tags: tuple[str, ...]


def _mend(folder: Path, step: int, rows: Mapping[int, Mapping[str, str]]) -> None:
    """Bring the files of earlier starts to what the run holds up to a step."""
    files = sorted(path for path in folder.glob("events.out.tfevents.*") if path.is_file())
    if not files and not rows:
        return
    records: list[_Record] = []
    is_whole = True
    for path in files:
        is_whole &= _read(path, records)
    kept = _each_once([record for record in records if record.step <= step or not record.tags])
    there = {(record.step, tag) for record in kept for tag in record.tags}
    missing = {at: [name for name in row if (at, name) not in there] for at, row in rows.items()}
    missing = {at: names for at, names in missing.items() if names}
    if is_whole and len(kept) == len(records) and not missing:
        return
    partial = folder / ".rows.part"  # by its name TensorBoard would read an unfinished file
    try:
        with partial.open("wb") as file:
            _write_all(file, kept, {at: {x: float(rows[at][x]) for x in names} for at, names in missing.items()})
        os.replace(partial, _new_name(folder, 0))
    finally:
        partial.unlink(missing_ok=True)
    for path in files:
        path.unlink(missing_ok=True)
    if missing:
        say(f"{folder}: {len(missing):,} rows missing from TensorBoard were added from metrics.csv")


def _each_once(records: Sequence[_Record]) -> list[_Record]:
    """Return the records without those with all their tags in later records of the same step."""
    latest = {(record.step, tag): i for i, record in enumerate(records) for tag in record.tags}
    return [
        record
        for i, record in enumerate(records)
        if not record.tags or any(latest[record.step, tag] == i for tag in record.tags)
    ]


def _read(path: Path, records: list[_Record]) -> bool:
    """Take up the records of a file; return whether all of it can be read."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto import event_pb2

    size = path.stat().st_size
    with path.open("rb") as file:
        while (offset := file.tell()) < size:
            head = file.read(_HEAD.size)
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else size
            if offset + _HEAD.size + length + _CHECKSUM > size or not _is_head(head):
                return False  # a kill cut it short
            try:
                event = event_pb2.Event.FromString(file.read(length))  # zeros of a power cut are none
            except DecodeError:
                return False
            file.seek(_CHECKSUM, os.SEEK_CUR)  # slow in Python
            if event.HasField("summary"):
                tags = tuple(value.tag for value in event.summary.value)
            elif event.HasField("session_log") or event.HasField("file_version"):
                continue  # of the file, not of the run
            else:
                tags = ()
            records.append(_Record(path, offset, _HEAD.size + length + _CHECKSUM, event.step, tags))
    return True


def _is_head(head: bytes) -> bool:
    from tensorboardX.record_writer import masked_crc32c

    return struct.pack("<I", masked_crc32c(head[:8])) == head[8:]


def _write_all(file: IO[bytes], kept: Sequence[_Record], missing: Mapping[int, Mapping[str, float]]) -> None:
    """Write records as they are, and rows that are missing, in the order of their steps."""
    from tensorboardX import summary

    def new() -> Iterator[tuple[int, bytes]]:
        yield -2, _framed(_event(file_version="brain.Event:2", wall_time=time.time()))
        yield -1, _framed(_event(step=0, session_log={"status": "START"}))  # all is here again
        for at, row in missing.items():
            values = [value for name, number in row.items() for value in summary.scalar(name, number).value]
            yield at, _framed(_event(step=at, wall_time=time.time(), summary={"value": values}))

    of_rows = list(new())
    places = [(record.step, 1, i) for i, record in enumerate(kept)] + [(at, 0, i) for i, (at, _) in enumerate(of_rows)]
    path, source = None, None
    try:
        for _, is_old, i in sorted(places):
            if not is_old:
                file.write(of_rows[i][1])
                continue
            if kept[i].path != path:
                if source:
                    source.close()
                path = kept[i].path
                source = path.open("rb")
            assert source is not None
            source.seek(kept[i].offset)
            file.write(source.read(kept[i].length))
    finally:
        if source:
            source.close()


def _framed(event: Any) -> bytes:
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    return b"".join([head, struct.pack("<I", masked_crc32c(head)), data, struct.pack("<I", masked_crc32c(data))])
