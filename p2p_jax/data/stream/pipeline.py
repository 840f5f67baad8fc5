"""The stream of batches: a pure function of the seed and the step. ``Side.shuffled`` orders it.

Images leave it as float32 [B, H, W, C] in [-1, 1], of the size of the crop.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import with_facts
from p2p_jax.data import opening
from p2p_jax.data.dataset import Batch, Data
from p2p_jax.data.stream.backend import iterate, tensorflow
from p2p_jax.data.stream.facts import find_all
from p2p_jax.data.stream.image_cache import make_memories
from p2p_jax.data.stream.sides import Side, make_sides, try_task
from p2p_jax.data.stream.sources import Source, Unpaired
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_config

if TYPE_CHECKING:
    import tensorflow as tf


def load(
    config: ConfigDict,
    *,
    process_index: int = 0,
    process_count: int = 1,
    train: Source | Unpaired | None = None,
    val: Source | Unpaired | None = None,
) -> Data:
    """Open the data set of a config as a stream; see ``p2p_jax.data.load``."""
    train, val = opening.open_sources(config, process_count, train, val)
    facts = find_all(train, val, config, make_sides)
    config = with_facts(config, facts)
    domains = of_config(config.data)
    for name, domain in zip(("input", "output"), domains, strict=True):
        if not domain.is_measured:
            raise InputError(
                f"the {name} is made by config.task, so its range cannot be measured; "
                f"set config.data.{name}.range=LOW:HIGH"
            )
    train_sides, val_sides = make_sides(train, config, domains), make_sides(val, config, domains) if val else []
    try_task(train_sides[0], config)
    if config.data.cache_mb:
        memories = iter(make_memories(config.data.cache_mb, len(train_sides + val_sides)))
        train_sides, val_sides = (
            [side._replace(memory=next(memories)) for side in sides] for sides in (train_sides, val_sides)
        )
    return Data(
        num_train=_length(train_sides),
        num_val=_length(val_sides),
        fingerprint=opening.fingerprint(train, val),
        train=lambda first_step: _train_batches(train_sides, config, first_step, process_index, process_count),
        validation=one_pass(val_sides, config, process_index, process_count) if val else lambda batch_size: iter(()),
        facts=facts,
        identities=opening.identities(train, val, config.data),
        val_counts=opening.counts(val_sides),
    )


def _length(sides: list[Side]) -> int:
    return max((len(side.source.names) for side in sides), default=0)


def _train_batches(
    sides: list[Side], config: ConfigDict, first_step: int, process_index: int, process_count: int
) -> Iterator[Batch]:
    tf = tensorflow()
    batch_size = config.batch_size
    share = batch_size // process_count

    def positions(step):
        """Return the places of this process's share of the batch of `step`."""
        first = step * batch_size + process_index * share
        return tf.range(first, first + share, dtype=tf.int64)

    def examples(n):
        return [(side, int(side.shuffled(p, config.seed))) for p in positions(first_step + n) for side in sides]

    ds = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max // batch_size - 1)
    ds = ds.flat_map(lambda step: tf.data.Dataset.from_tensor_slices(positions(step)))
    ds = ds.map(
        lambda position: _example(side.augmented(position, config) for side in sides),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return _name_faults(iterate(ds.batch(share, drop_remainder=True)), examples)


def one_pass(
    sides: list[Side], config: ConfigDict, process_index: int, process_count: int
) -> Callable[[int], Iterator[Batch]]:
    """Return what streams a process's share of all examples once, in order; see ``Data.validation``.

    TensorFlow's graph is made when it is first called, and kept for the next ones.
    """
    places = range(process_index, _length(sides), process_count)

    def indices(place):
        return [(side, place % len(side.source.names)) for side in sides]

    @functools.cache
    def dataset():
        tf = tensorflow()
        return tf.data.Dataset.range(places.start, places.stop, places.step).map(
            lambda place: _example(side.validated(index, config) for side, index in indices(place)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def batches(batch_size):
        def examples(n):
            return [example for place in places[n * batch_size : (n + 1) * batch_size] for example in indices(place)]

        return _name_faults(iterate(dataset().batch(batch_size)), examples)

    return batches


def _example(images: "Iterable[list[tf.Tensor]]") -> "dict[str, tf.Tensor]":
    real_a, real_b = itertools.chain.from_iterable(images)
    return {"real_a": real_a, "real_b": real_b}


def _name_faults(
    batches: Generator[Batch, None, None], examples: Callable[[int], Iterable[tuple[Side, int]]]
) -> Iterator[Batch]:
    """Pass batches on; an example that cannot be read is named.

    Args:
      batches: what is read.
      examples: the sides and indices that the n-th batch reads.
    """
    tf = tensorflow()
    with contextlib.closing(batches):
        for n in itertools.count():
            try:
                batch = next(batches)
            except StopIteration:
                return
            except tf.errors.OpError as error:
                raise InputError(_explain(examples(n), error)) from error
            yield batch


def _explain(examples: Iterable[tuple[Side, int]], error: Exception) -> str:
    """Find the example whose reading fails; TensorFlow's own message does not name the file."""
    tf = tensorflow()
    for side, index in examples:
        try:
            side.raw(tf.constant(index, tf.int64))
        except InputError as cause:  # which names the image
            return str(cause)
        except Exception as cause:  # of a load of one's own, anything
            message = str(getattr(cause, "message", cause)).split("\n")[0]
            return f"{side.source.names[index]} cannot be read ({message}); replace or remove it"
    return f"the data stream failed: {getattr(error, 'message', error)}"
