"""The messages on a data set when it is opened, for every way of reading its images."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.data.identity import Identity, names_of
from p2p_jax.data.inspect import doubts, inspection
from p2p_jax.data.stream.sources import Source, Unpaired, make_source
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_files
from p2p_jax.reporting import say


def open_sources(
    config: ConfigDict, process_count: int, train: Source | Unpaired | None = None, val: Source | Unpaired | None = None
) -> tuple[Source | Unpaired, Source | Unpaired | None]:
    """Return the sources of both splits, after a look at their files, and print what was found.

    Args:
      config: reads ``data`` and ``batch_size``.
      process_count: the number of processes that share every batch.
      train: data to train on instead of ``config.data.source``.
      val: the data to validate on; if only `train` is given, there is no validation.

    Raises:
      InputError: the files cannot be used; names the first one and the fix.
    """
    data = config.data
    if config.batch_size % process_count:
        raise InputError(f"config.batch_size={config.batch_size} is not a multiple of {process_count} processes")
    if train is None and val is not None:
        raise InputError("val= was given without train=: give both")
    if train is None:
        train = make_source(data, data.train_split)
        val = make_source(data, data.val_split) if data.val_split else None
    counts = f"{_count(train)} in {data.train_split}"
    counts += f", {_count(val, type(val) is not type(train))} in {data.val_split}" if val else ", no validation"
    say(f"data: {data.source} {data.dir}: {counts}; {data.direction}".replace(" :", ":"))
    sources = {data.train_split: train} | ({data.val_split: val} if val else {})
    found = {split: source.layout for split, source in sources.items() if source.layout}
    if doubted := doubts.doubt_halves(found, data):
        raise InputError("; ".join(doubted))
    notes = inspection.quick(found, of_files(data), data)
    if data.val_split in found and (told := doubts.describe_validation(found[data.val_split], data)):
        notes.append(told)
    for note in notes:
        say(f"note: {note}")
    return train, val


def _count(source: Source | Unpaired, with_noun: bool = True) -> str:
    parts = [source.a, source.b] if isinstance(source, Unpaired) else [source]
    noun = " pairs" if len(parts) == 1 else " unpaired images"
    return " + ".join(f"{len(part.names):,}" for part in parts) + noun * with_noun


def counts(sides: Sequence[Any]) -> tuple[int, int] | None:
    """Return how many images of real_a and of real_b the sides of a split have; None if there are none."""
    return (len(sides[0].source.names), len(sides[-1].source.names)) if sides else None


def identities(train: Source | Unpaired, val: Source | Unpaired | None, data: ConfigDict) -> dict[str, Identity]:
    """Return the identity of each split, or of each side of unpaired ones, in addition to the fingerprint."""
    found = {}
    for split, source in ((data.train_split, train), (data.val_split, val)):
        parts = {" A": source.a, " B": source.b} if isinstance(source, Unpaired) else {"": source} if source else {}
        for side, part in parts.items():
            names = names_of(part.names) if part.layout else ()
            found[split + side] = Identity(len(part.names), part.digest() if part.digest else "", names)
    return found


def fingerprint(train: Source | Unpaired, val: Source | Unpaired | None) -> str:
    """Return the digest that identifies both splits when a run is resumed."""
    return f"{train.fingerprint}-{val.fingerprint}" if val else train.fingerprint
