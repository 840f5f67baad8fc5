"""Changes of size in NumPy and in the data stream: to the bit those of TensorFlow."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data.stream import cropping
from p2p_jax.images.pictures import with_channels
from p2p_jax.images.resize import resize

RNG = np.random.RandomState(0)
DATA = os.environ.get("P2P_JAX_TEST_DATA")
PAIRS = [((7, 9), (7, 30)), ((64, 48), (21, 48)), ((1, 1), (5, 3)), ((40, 2), (1, 1)), ((256, 256), (286, 286))]
SIZES = [*PAIRS, *((tuple(x[:2]), tuple(x[2:])) for x in RNG.randint(1, 100, (60, 4)).tolist())]


def images_of(size, channels):
    shape = (*size, channels)
    return (
        RNG.randint(0, 256, shape).astype(np.uint8),
        RNG.randint(0, 65536, shape).astype(np.uint16),
        RNG.randint(-(2**15), 2**15, shape).astype(np.int16),
        RNG.normal(0, 100, shape).astype(np.float32),
    )


def test_bicubic_is_tensorflows_to_the_bit():
    tf = pytest.importorskip("tensorflow")
    for number, (have, want) in enumerate(SIZES):
        for image in images_of(have, 1 + number % 6):
            expected = tf.image.resize(image, want, "bicubic", antialias=True).numpy()
            np.testing.assert_array_equal(resize(image.astype(np.float32), want), expected, f"{have} to {want}")
            found = resize(image, want)
            assert found.flags.c_contiguous
            if image.dtype.kind != "f":
                limits = np.iinfo(image.dtype)
                expected = np.clip(np.rint(expected), limits.min, limits.max)
            of_stream = cropping.resize_bicubic(image, want, image.dtype).numpy()
            assert found.dtype == of_stream.dtype == image.dtype
            np.testing.assert_array_equal(found, expected, f"{have} to {want}")
            np.testing.assert_array_equal(of_stream, expected, f"{have} to {want}")


def test_nearest_is_tensorflows():
    tf = pytest.importorskip("tensorflow")
    for have, want in SIZES:
        image = images_of(have, 2)[0]
        expected = tf.image.resize(image, want, "nearest").numpy()
        np.testing.assert_array_equal(resize(image, want, nearest=True), expected, f"{have} to {want}")


@pytest.mark.parametrize("size", [(286, 286), (128, 160), (600, 300)])
@pytest.mark.skipif(not DATA, reason="P2P_JAX_TEST_DATA names no folder")
def test_real_images_too(size):
    tf = pytest.importorskip("tensorflow")
    for path in sorted((Path(DATA) / "facades" / "train").iterdir())[:4]:
        image = np.asarray(Image.open(path))
        expected = tf.clip_by_value(tf.round(tf.image.resize(image, size, "bicubic", antialias=True)), 0, 255)
        np.testing.assert_array_equal(resize(image, size), expected.numpy().astype(np.uint8))


def test_without_tensorflow_it_is_known_from_pillow():
    image = np.asarray(Image.fromarray(images_of((9, 9), 3)[0]).resize((64, 48), Image.Resampling.BICUBIC))
    for size in ((20, 30), (100, 96)):
        planes = [
            np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
            for plane in np.moveaxis(image, -1, 0)
        ]
        expected = np.clip(np.rint(np.stack(planes, axis=-1)), 0, 255)
        assert np.abs(resize(image, size) - expected).max() <= 1
    one = np.full((5, 7, 2), 200, np.uint8)
    np.testing.assert_array_equal(resize(one, (40, 3)), np.full((40, 3, 2), 200))  # weights add up to 1
    assert resize(image, (48, 64)) is image
    edge = np.repeat([[[0], [0], [255], [255]]], 2, axis=0).astype(np.uint8)
    found = resize(edge, (2, 16))
    assert (found.min(), found.max()) == (0, 255)  # overshoots are cut off
    assert set(np.unique(resize(edge, (9, 11), nearest=True))) == {0, 255}


def test_luma_is_that_of_tensorflow_in_every_colour():
    tf = pytest.importorskip("tensorflow")
    for red in range(0, 256, 5):
        green, blue = np.indices((256, 256))
        colours = np.stack([np.full_like(green, red), green, blue], axis=-1).astype(np.uint8)
        expected = tf.round(tf.image.rgb_to_grayscale(tf.cast(colours, tf.float32)))
        np.testing.assert_array_equal(with_channels(colours, 1), expected.numpy().astype(np.uint8))
