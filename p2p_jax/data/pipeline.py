"""The stream of batches: a pure function of the seed and the step.

Images leave it as float32 [B, H, W, C] in [-1, 1], H = W = ``crop_size``.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.data.backend import tensorflow
from p2p_jax.data.sources import Source, make_source
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

Batch = dict[str, np.ndarray]


class Data(NamedTuple):
    """A data set as training sees it; anything with these attributes can be given to ``p2p_jax.train``.

    Attributes:
      num_train: training pairs over all processes.
      num_val: validation pairs over all processes; 0 trains without validation.
      fingerprint: recognises the data set when a run is resumed; "" if there is nothing to compare.
      train: ``(first_step) -> iterator`` of this process's share of the batches of that step and all later ones,
        {"real_a": [B, H, W, C_a], "real_b": [B, H, W, C_b]} float32 in [-1, 1]. A function of the seed and the step.
      validation: ``(batch_size) -> iterator`` over this process's share of the validation set, once, in a fixed order;
        the last batch may be smaller.
    """

    num_train: int
    num_val: int
    fingerprint: str
    train: Callable[[int], Iterator[Batch]]
    validation: Callable[[int], Iterator[Batch]]


def load(config: ConfigDict, *, process_index: int = 0, process_count: int = 1) -> Data:
    """Open the data set of a config and print what was found.

    Args:
      config: reads ``data``, ``seed`` and ``batch_size``.
      process_index: this process among those that share every batch.
      process_count: their number.

    Raises:
      InputError: the files cannot be used; names the first one and the mend.
    """
    data = config.data
    train = make_source(data, data.train_split)
    val = make_source(data, data.val_split) if data.val_split else None
    if config.batch_size % process_count:
        raise InputError(f"config.batch_size={config.batch_size} is not a multiple of {process_count} processes")
    counts = f"{len(train.names)} pairs in {data.train_split}"
    counts += f", {len(val.names)} in {data.val_split}" if val else ", no validation"
    print(f"data: {data.source} {data.dir}: {counts}; {data.direction}".replace(" :", ":"))
    return Data(
        num_train=len(train.names),
        num_val=len(val.names) if val else 0,
        fingerprint=f"{train.fingerprint}-{val.fingerprint}" if val else train.fingerprint,
        train=lambda first_step: _train_batches(train, config, first_step, process_index, process_count),
        validation=lambda batch_size: (
            _validation_batches(val, data, batch_size, process_index, process_count) if val else iter(())
        ),
    )


def _train_batches(
    source: Source, config: ConfigDict, first_step: int, process_index: int, process_count: int
) -> Iterator[Batch]:
    tf = tensorflow()
    data, batch_size, num_examples = config.data, config.batch_size, len(source.names)
    seed = tf.constant(config.seed, tf.int64)

    def index_of(position):
        """Map a place in the endless stream of examples to an example: every epoch is a permutation of all of them."""
        epoch, place = position // num_examples, position % num_examples
        return tf.random.experimental.index_shuffle(place, tf.stack([seed, epoch]), num_examples - 1)

    def example(position):
        images = _read(source, index_of(position), data, data.load_size)
        y, x, mirror = tf.unstack(tf.random.stateless_uniform([3], tf.stack([seed, position])))
        room = data.load_size - data.crop_size + 1
        top, left = tf.cast(y * room, tf.int32), tf.cast(x * room, tf.int32)
        images = images[top : top + data.crop_size, left : left + data.crop_size]
        if data.flip:
            images = tf.cond(mirror < 0.5, lambda: images[:, ::-1], lambda: images)
        return _split(images, data)

    share = batch_size // process_count

    def positions(step):
        """Return the places of this process's share of the batch of `step`."""
        first = step * batch_size + process_index * share
        return tf.range(first, first + share, dtype=tf.int64)

    ds = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max // batch_size - 1)
    ds = ds.flat_map(lambda step: tf.data.Dataset.from_tensor_slices(positions(step)))
    ds = ds.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(share, drop_remainder=True)
    return _iterate(ds, source, data, lambda n: [int(index_of(p)) for p in positions(first_step + n)])


def _validation_batches(
    source: Source, data: ConfigDict, batch_size: int, process_index: int, process_count: int
) -> Iterator[Batch]:
    tf = tensorflow()
    indices = range(process_index, len(source.names), process_count)
    ds = tf.data.Dataset.range(process_index, len(source.names), process_count)
    ds = ds.map(
        lambda index: _split(_read(source, index, data, data.crop_size), data),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return _iterate(ds.batch(batch_size), source, data, lambda n: indices[n * batch_size : (n + 1) * batch_size])


def _read(source: Source, index: "tf.Tensor", data: ConfigDict, size: int) -> "tf.Tensor":
    """Read a pair as one image [size, size, C_a + C_b] of whole numbers in [0, 255].

    Being one image, A and B are treated alike by all that follows, random or not.
    """
    tf = tensorflow()
    a, b = source.read(index)
    if data.direction == "BtoA":
        a, b = b, a
    pair = tf.concat([_with_channels(a, data.channels_a), _with_channels(b, data.channels_b)], axis=-1)
    # Rounded to whole numbers, as an 8-bit resize (Pillow's, the reference's) leaves them; bicubic overshoots are cut.
    pair = tf.cond(
        tf.reduce_all(tf.shape(pair)[:2] == size),
        lambda: tf.cast(pair, tf.float32),
        lambda: tf.clip_by_value(tf.round(tf.image.resize(pair, [size, size], "bicubic", antialias=True)), 0, 255),
    )
    return tf.ensure_shape(pair, [size, size, data.channels_a + data.channels_b])


def _with_channels(image: "tf.Tensor", channels: int) -> "tf.Tensor":
    """Convert uint8 [H, W, 1 or 3] to [H, W, channels]: gray is repeated, colour becomes ITU-R 601 luma."""
    tf = tensorflow()

    def convert(image):
        if channels == 3:
            return tf.image.grayscale_to_rgb(image)
        return tf.cast(tf.round(tf.image.rgb_to_grayscale(tf.cast(image, tf.float32))), tf.uint8)  # not truncated

    if image.shape[-1] is not None:
        return image if image.shape[-1] == channels else convert(image)
    image = tf.cond(
        tf.shape(image)[-1] == channels,
        lambda: tf.identity(image),
        lambda: convert(tf.ensure_shape(image, [None, None, 4 - channels])),
    )
    return tf.ensure_shape(image, [None, None, channels])


def _split(images: "tf.Tensor", data: ConfigDict) -> "dict[str, tf.Tensor]":
    """Scale to [-1, 1] and part A from B."""
    images = tensorflow().ensure_shape(images, [data.crop_size, data.crop_size, None]) / 127.5 - 1
    return {"real_a": images[..., : data.channels_a], "real_b": images[..., data.channels_a :]}


def _iterate(
    ds: "tf.data.Dataset", source: Source, data: ConfigDict, indices_of: Callable[[int], Sequence[int]]
) -> Iterator[Batch]:
    """Iterate over a batched data set as numpy arrays; an example that cannot be read is named.

    Args:
      ds: yields batches.
      source: what it reads.
      data: how it is read.
      indices_of: the examples of the n-th batch.
    """
    tf = tensorflow()
    batches = ds.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
    for n in itertools.count():
        try:
            batch = next(batches)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise InputError(_explain(source, data, indices_of(n), error)) from error
        yield batch


def _explain(source: Source, data: ConfigDict, indices: Sequence[int], error: Exception) -> str:
    """Find the example among `indices` whose reading fails; TensorFlow's own message does not name the file."""
    tf = tensorflow()
    for index in indices:
        try:
            _read(source, tf.constant(index, tf.int64), data, data.load_size)
        except (tf.errors.OpError, ValueError) as cause:
            return f"{source.names[index]} cannot be read ({getattr(cause, 'message', cause)}); replace or remove it"
    return f"the data stream failed: {error}"
