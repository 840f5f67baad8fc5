"""Weights & Biases as a logger. ``WANDB_MODE=offline`` needs no account; ``WANDB_PROJECT`` and others are W&B's own."""

import importlib
import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from p2p_jax.training.loggers import Run

# A file of W&B is LevelDB's log: blocks of records in parts, each with a checksum, its length, and which part it is.
_START, _BLOCK, _PART = 7, 32768, struct.Struct("<4xHB")
_WHOLE, _LAST = 1, 4


class WeightsAndBiases:
    """A run of W&B, with its files in the run's own directory, ``wandb/``.

    Online W&B reports the last step of its run. Offline the files of earlier starts do; a kill loses their
    last rows. Each start leaves a folder, and ``wandb sync`` puts them together.
    """

    def __init__(self, run: Run):
        import wandb

        self._wandb = wandb
        id = run.remembered("wandb") or uuid.uuid4().hex[:12]
        run.remember("wandb", id)
        held = _last_step(run.workdir, id)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "p2p_jax",
            id=id,
            resume="allow",
            name=run.name,
            dir=str(run.workdir),
            config=run.config.to_dict(),
            allow_val_change=True,  # of num_steps, say
            settings=wandb.Settings(console="off"),  # what is printed stays here
        )
        self.last = held if self._run.offline else self._run.starting_step - 1

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._run.log(dict(row), step=step, commit=True)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Send a sample grid, which goes with the row of its step."""
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def flush(self) -> None:
        """Leave it to W&B's own process; what a kill takes is sent again at the next start."""

    def close(self) -> None:
        """Wait until everything has been sent, and end the run for now."""
        self._run.finish()


def _last_step(workdir: Path, id: str) -> int:
    """Return the last step with a row in the files of earlier starts without a network; -1 if there is none."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    steps = [-1]
    for path in workdir.glob(f"wandb/offline-run-*-{id}/run-{id}.wandb"):
        for record in map(messages.Record.FromString, _records(path.read_bytes())):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                steps += [int(item.value_json) for item in items if "_step" in (item.key, *item.nested_key)]
    return max(steps)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file of W&B, as far as it is whole."""
    at, parts = _START, b""
    while at + _PART.size <= len(data):
        if _BLOCK - at % _BLOCK < _PART.size:  # the rest of a block is empty
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = _PART.unpack_from(data, at)
        at += _PART.size + length
        if at > len(data) or not kind:
            return
        parts += data[at - length : at]
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""
