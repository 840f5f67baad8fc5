"""Images kept in memory: the stream gives what it gives without, reads once, and keeps to its limit."""

import gc
import itertools
import resource
from pathlib import Path

import numpy as np
import pytest

from p2p_jax.data import from_arrays, load
from p2p_jax.data.stream import pipeline
from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.data.stream.image_cache import make_memories
from p2p_jax.images.domains import of_config
from support.configs import data_config
from support.kinds import PHOTOS


def count_reads(monkeypatch):
    """Return a list that grows by the index of every example that is read."""
    reads = []
    tf = tensorflow()

    def counted(read):
        def note(index):
            reads.append(int(index))
            return index

        def counting(index):
            noted = tf.numpy_function(note, [index], tf.int64)
            with tf.control_dependencies([noted]):
                return tuple(tf.identity(x) for x in read(index))

        return counting

    real = pipeline.make_sides
    monkeypatch.setattr(
        pipeline, "make_sides", lambda source, *rest: real(source._replace(read=counted(source.read)), *rest)
    )
    return reads


@pytest.mark.parametrize(
    ("megabytes", "again"),
    [(0, 6), (1, 4), (64, 0)],  # a pair of 256x256 takes 393,216 bytes: two fit into 1 MiB
)
def test_examples_are_read_once_as_far_as_there_is_room(monkeypatch, megabytes, again):
    images = np.zeros((6, 256, 256, 3), np.uint8)
    reads = count_reads(monkeypatch)
    config, source = data_config(cache_mb=megabytes, load_size=256, crop_size=256), from_arrays(images, images)
    data = load(config, train=source, val=source)
    for expected in (6, again, again):
        reads.clear()
        list(data.validation(4))
        assert len(reads) == expected


@pytest.mark.parametrize(("jitter", "least", "most"), [(0.0, 6, 24), (0.3, 120, 10_000)])
def test_training_reads_every_example_once_unless_its_size_is_random(monkeypatch, jitter, least, most):
    reads = count_reads(monkeypatch)
    data = load(data_config(load_size=18, augment__scale_jitter=jitter), train=from_arrays(PHOTOS, PHOTOS))
    for first_step in (0, 15):  # another iterator goes on with what the first one has kept
        stream = data.train(first_step)
        list(itertools.islice(stream, 15))
        stream.close()
    assert set(reads) == set(range(6))
    assert least <= len(reads) <= most  # 120 were drawn; the same one may be met twice while it is read


def test_memories_share_their_limit():
    tf = tensorflow()
    one, other = make_memories(1, 2)
    domain = of_config(data_config().data)[0]

    def recall(memory, index):
        image = tf.cast(tf.fill([100, 100, 3], index), tf.uint8)
        # A part of an image is charged for, and keeps alive, no more than itself.
        return memory.recall(index, [domain, domain], lambda: [image, image[:50]])

    for memory, kept in ((one, 15), (other, 23)):  # of 45,000 bytes each; 23 fit into 1 MiB
        ds = tf.data.Dataset.range(15).map(lambda index, memory=memory: recall(memory, index), num_parallel_calls=4)
        for _ in range(4):  # two that take the last place at once leave it to a later pass
            for index, (whole, part) in enumerate(ds.as_numpy_iterator()):
                assert (whole == index).all() and whole.shape == (100, 100, 3)
                np.testing.assert_array_equal(part, whole[:50])
        assert int(one.used) == kept * 45_000
    assert (int(one.table.size()), int(other.table.size())) == (15, 8)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_given_back():
    tf = tensorflow()
    domain = of_config(data_config().data)[0]

    def fill():
        """Keep 60 MB and forget them."""
        (memory,) = make_memories(64, 1)

        def recall(index):
            return memory.recall(index, [domain], lambda: [tf.cast(tf.fill([1000, 1000, 3], index), tf.uint8)])

        assert sum(1 for _ in tf.data.Dataset.range(20).map(recall)) == 20 and int(memory.used) == 60_000_000

    def pages():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1])

    found = [(fill(), pages())[1] for _ in range(14)]
    # TensorFlow forgets some of them late; 720 MB if nothing were given back.
    assert (found[-1] - found[1]) * resource.getpagesize() < 360e6
