"""Images kept in memory: the stream gives what it gives without, reads once, and keeps to its limit."""

import gc
import itertools
import resource
from pathlib import Path

import numpy as np
import pytest
from conftest import small_config
from PIL import Image

from p2p_jax.data import from_arrays, load, pipeline, unpaired_from_arrays
from p2p_jax.data.backend import tensorflow
from p2p_jax.data.memory import make_memories
from p2p_jax.images.domains import of_config

RNG = np.random.RandomState(0)
PHOTOS = RNG.randint(0, 256, (6, 20, 20, 3), np.uint8)
NUMBERS = {
    "uint8": PHOTOS,
    "uint16": RNG.randint(0, 65536, (6, 20, 20, 3)).astype(np.uint16),
    "int16": RNG.randint(-900, 3000, (6, 20, 20, 3)).astype(np.int16),
    "float": RNG.normal(5, 3, (6, 20, 20, 3)).astype(np.float32),
    "labels": RNG.randint(0, 3, (6, 20, 20, 1)).astype(np.uint8),
    "lab_ab": PHOTOS,
}
CHANNELS = {"lab_ab": 2}


def config_of(**changes):
    return small_config(**{"data__direction": "AtoB", "data__load_size": 18} | changes)


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


def batches_of(config, train, count, first_step=0):
    """Return training batches, and two passes over the validation images."""
    data = load(config, train=train, val=train)
    stream = data.train(first_step)
    found = list(itertools.islice(stream, count))
    stream.close()
    return found + list(data.validation(4)) + list(data.validation(4))


def assert_same(one, other):
    assert len(one) == len(other)
    for batch, expected in zip(one, other, strict=True):
        for key in ("real_a", "real_b"):
            np.testing.assert_array_equal(batch[key], expected[key])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__preprocess": "crop"},
        {"data__preprocess": "scale_width_and_crop", "data__load_size": 17},
        {"data__preprocess": "none", "data__crop_size": 20},
        {"augment__vflip": True, "augment__quarter_turns": True, "augment__photometric": 0.2},
        {"augment__scale_jitter": 0.4},
        {"task__input": "p2p_jax.images.tasks:gaussian_noise", "task__sigma": 20.0},
    ],
    ids=lambda changes: " ".join(str(x) for x in changes.values()) or "plain",
)
def test_batches_are_the_same_with_and_without(changes):
    source = from_arrays(PHOTOS, 255 - PHOTOS)
    without = batches_of(config_of(data__cache_mb=0, **changes), source, 6)
    assert_same(batches_of(config_of(data__cache_mb=64, **changes), source, 6), without)
    resumed = batches_of(config_of(data__cache_mb=64, **changes), source, 2, first_step=4)
    assert_same(resumed, without[4:])


@pytest.mark.parametrize("kind", NUMBERS)
def test_values_of_every_kind_are_kept_as_they_are(kind):
    options = {"data__kind_a": kind, "data__channels_a": CHANNELS.get(kind, 3)}
    source = from_arrays(NUMBERS[kind], PHOTOS)
    with_memory = batches_of(config_of(data__cache_mb=64, **options), source, 4)
    assert_same(with_memory, batches_of(config_of(data__cache_mb=0, **options), source, 4))
    config = config_of(data__preprocess="none", data__crop_size=20, data__cache_mb=64, **options)
    data = load(config, train=source, val=source)
    domain = of_config(config_of(**options, **{f"data__{key}": value for key, value in data.facts.items()}).data)[0]
    for _ in range(2):
        found = np.concatenate([batch["real_a"] for batch in data.validation(4)])
        np.testing.assert_array_equal(found, domain.encode(domain.values(NUMBERS[kind])))


def test_sides_without_pairs_are_kept_apart():
    both = unpaired_from_arrays(PHOTOS, (255 - PHOTOS)[:4, :16])
    without = batches_of(config_of(data__cache_mb=0), both, 6)
    assert_same(batches_of(config_of(data__cache_mb=64), both, 6), without)


@pytest.mark.parametrize(
    ("megabytes", "again"),
    [(0, 6), (1, 4), (64, 0)],  # a pair of 256x256 takes 393,216 bytes: two fit into 1 MiB
)
def test_examples_are_read_once_as_far_as_there_is_room(monkeypatch, megabytes, again):
    images = np.zeros((6, 256, 256, 3), np.uint8)
    reads = count_reads(monkeypatch)
    sizes = {"data__load_size": 256, "data__crop_size": 256}
    data = load(
        config_of(data__cache_mb=megabytes, **sizes), train=from_arrays(images, images), val=from_arrays(images, images)
    )
    for expected in (6, again, again):
        reads.clear()
        list(data.validation(4))
        assert len(reads) == expected


@pytest.mark.parametrize(("jitter", "least", "most"), [(0.0, 6, 24), (0.3, 120, 10_000)])
def test_training_reads_every_example_once_unless_its_size_is_random(monkeypatch, jitter, least, most):
    reads = count_reads(monkeypatch)
    data = load(config_of(augment__scale_jitter=jitter), train=from_arrays(PHOTOS, PHOTOS))
    for first_step in (0, 15):  # another iterator goes on with what the first one has kept
        stream = data.train(first_step)
        list(itertools.islice(stream, 15))
        stream.close()
    assert set(reads) == set(range(6))
    assert least <= len(reads) <= most  # 120 were drawn; the same one may be met twice while it is read


def test_files_of_any_size_and_their_labels(tmp_path):
    for split, name in itertools.product(("train", "val"), "AB"):
        (tmp_path / split / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(PHOTOS[i, : 17 + i, :, 0] % 3).save(tmp_path / split / name / f"{i}.png")
    options = {"source": "folders", "dir": str(tmp_path), "preprocess": "crop", "kind_a": "labels", "channels_a": 3}
    found = [
        batches_of(config_of(**{f"data__{key}": value for key, value in options.items()}, data__cache_mb=mb), None, 4)
        for mb in (0, 64)
    ]
    assert_same(*found)


def test_memories_share_their_limit():
    tf = tensorflow()
    one, other = make_memories(1, 2)
    domain = of_config(config_of().data)[0]

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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_given_back():
    tf = tensorflow()
    domain = of_config(config_of().data)[0]

    def fill():
        """Keep 60 MB and forget them."""
        (memory,) = make_memories(64, 1)

        def recall(index):
            return memory.recall(index, [domain], lambda: [tf.cast(tf.fill([1000, 1000, 3], index), tf.uint8)])

        assert sum(1 for _ in tf.data.Dataset.range(20).map(recall)) == 20 and int(memory.used) == 60_000_000

    def pages():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1])

    found = [(fill(), pages())[1] for _ in range(6)]
    assert (found[-1] - found[1]) * resource.getpagesize() < 120e6  # 240 MB if nothing were given back
