"""One data set, read in every way that there is: streamed, kept in memory or on the devices, split by split."""

import itertools
import sys
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np
import pytest

from p2p_jax import data as stream
from p2p_jax.config import complete, with_facts
from p2p_jax.data import on_device
from p2p_jax.data.stream import sides
from p2p_jax.images.domains import of_config
from support.comparers import assert_equal_batches, assert_equal_streams


def changed(config, **options):
    """Return a copy of a config with other options of ``data``."""
    return complete({**config.to_dict(), "data": {**config.data.to_dict(), **options}})


def take(iterator, count: int) -> list:
    """Return the first of an endless stream, and end what reads ahead for it."""
    found = list(itertools.islice(iterator, count))
    iterator.close()
    return found


def in_order(batches: Callable, batch_size: int = 4) -> dict[str, np.ndarray]:
    """Return all images of ``Data.validation`` or ``Split.batches``."""
    batches = list(batches(batch_size))
    return {key: np.concatenate([batch[key] for batch in batches]) for key in ("real_a", "real_b")}


def drawn(data, positions) -> dict[str, np.ndarray]:
    """Return the batch of places in the stream of resident data, as a device draws it."""
    return jax.device_get(jax.jit(data.resident.draw)(data.resident.arrays, np.array(positions, np.uint32)))


def _chosen(arrays, positions, config):
    """Return what is chosen for places in the stream, of each side in the order of a batch; can be traced."""
    order = sorted((x for x in arrays if x.startswith("sizes_")), reverse=config.data.direction == "BtoA")
    return [on_device.choose(arrays[name], positions, int(name[-1]), config) for name in order]


def _prepared_by_the_stream(source, choices, config):
    """Return the batch that the stream's own functions make of what a device chose."""
    tf = pytest.importorskip("tensorflow")
    batch = []
    for side, choice in zip(sides.make_sides(source, config, of_config(config.data)), choices, strict=True):
        made = []
        for i, index in enumerate(choice.index):
            raw = side.raw(tf.constant(index, tf.int64))
            raw = sides.cropping.enlarge(raw, side.read_domains, config, tf.constant([0, 0], tf.int64))
            rows, columns = (slice(start, start + config.data.crop_size) for start in (choice.top[i], choice.left[i]))
            crops = [x[rows, columns] for x in raw]
            crops = [tf.reverse(x, [1]) if choice.mirrored[i] else x for x in crops]
            made.append(side._normalized(crops, config, None))
        batch += [np.stack(images) for images in zip(*made, strict=True)]
    return dict(zip(("real_a", "real_b"), batch, strict=True))


def assert_same_in_every_way(config, source=None, *, split: str | None = None, on_devices: bool = True, capsys=None):
    """Assert that one data set gives the same pixels, to the bit, whatever way they come.

    Compared with the stream that keeps nothing: the stream that keeps images in memory, in training, after a resume and
    in two passes over the validation images; images on the devices, in validation and in what is drawn for training,
    with all that is said and stored about the set; and the split that evaluation opens, without TensorFlow.

    Args:
      config: the experiment; ``data.resident`` and ``data.cache_mb`` do not matter.
      source: what to train and to validate on, in place of what the config names.
      split: the split to open that the config validates on; needs a source that the config names.
      on_devices: False for what devices do not do (tasks, scale jitter), and for augmentation, which they draw by
        another generator.
      capsys: to compare what is printed.

    Returns:
      The data on the devices, or the stream.
    """
    pytest.importorskip("tensorflow")
    given = {"train": source, "val": source} if source is not None else {}
    plain = stream.load(changed(config, cache_mb=0), **given)
    said = capsys.readouterr().out if capsys else ""
    batches = take(plain.train(0), 4)
    validated = list(plain.validation(3))

    kept = stream.load(changed(config, cache_mb=64), **given)
    assert_equal_streams(take(kept.train(0), 4), batches)
    assert_equal_streams(take(kept.train(2), 2), batches[2:])
    for _ in range(2):
        assert_equal_streams(kept.validation(3), validated)

    if split is not None:
        with mock.patch.dict(sys.modules, {} if config.task.get("input") else {"tensorflow": None}):
            assert_equal_streams(stream.load_split(with_facts(config, plain.facts), split).batches(3), validated)

    if not on_devices:
        return plain
    if capsys:
        capsys.readouterr()
    ours = on_device.load(changed(config, resident=True), **given, process_index=0, process_count=1)
    facts = ("num_train", "num_val", "fingerprint", "facts")
    assert [getattr(ours, name) for name in facts] == [getattr(plain, name) for name in facts]
    if capsys:
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if "stay on the device" not in line] == said.splitlines()
    assert_equal_streams(ours.validation(3), validated)
    config = with_facts(changed(config, resident=True), ours.facts)
    source = source if source is not None else stream.make_source(config.data, config.data.train_split)
    both = jax.jit(lambda *args: (ours.resident.draw(*args), _chosen(*args, config)))
    found, choices = jax.device_get(both(ours.resident.arrays, np.arange(3, 12, dtype=np.uint32)))
    assert all(x.dtype == np.float32 for x in found.values())
    assert_equal_batches(found, _prepared_by_the_stream(source, choices, config))
    return ours
