"""Inputs made of photographs: known edges, holes, noise and sizes; HED against the same network in TensorFlow."""

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from p2p_jax.errors import InputError
from p2p_jax.images import hed, tasks

RNG = np.random.default_rng(0)


def photograph(height=64, width=80, channels=3):
    """Return a dark disc on a bright slope."""
    y, x = np.mgrid[:height, :width]
    bright = 150 + x // 2
    disc = (y - height // 2) ** 2 + (x - width // 2) ** 2 < (height // 4) ** 2
    return np.repeat(np.where(disc, 30, bright)[..., None], channels, -1).astype(np.uint8)


def test_canny_draws_the_border_of_a_disc():
    found = tasks.canny_edges(photograph(), RNG)
    assert (found.dtype, found.shape) == (np.uint8, (64, 80, 1)) and set(np.unique(found)) == {0, 255}
    y, x, _ = np.nonzero(found == 0)
    distance = np.hypot(y - 32, x - 40)
    np.testing.assert_allclose(distance, 16, atol=1.6)
    assert 2 * np.pi * 16 * 0.8 < len(y) < 2 * np.pi * 16 * 1.3
    np.testing.assert_array_equal(tasks.canny_edges(photograph(channels=1), RNG), found)


def test_canny_finds_fewer_edges_after_more_smoothing_and_none_in_flatness():
    noisy = tasks.gaussian_noise(photograph(), np.random.default_rng(0), sigma=40.0)
    counts = [(tasks.canny_edges(noisy, RNG, sigma=sigma) == 0).sum() for sigma in (1.0, 2.0, 4.0)]
    assert counts[0] > counts[1] > counts[2] > 0
    assert (tasks.canny_edges(np.full((20, 20, 3), 90, np.uint8), RNG) == 255).all()


def test_hole_is_half_of_either_side_and_of_the_mean_colour_around_it():
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    found = tasks.centre_hole(image, RNG)
    changed = np.zeros((64, 80), bool)
    changed[16:48, 20:60] = True
    np.testing.assert_array_equal(found[~changed], image[~changed])
    np.testing.assert_array_equal(found[changed], np.tile(np.rint(image[~changed].mean(0)), (32 * 40, 1)))
    assert found.dtype == np.uint8

    found = tasks.centre_hole(image, RNG, size=0.25, value=7.0)
    assert (found == 7).all(-1).sum() == 16 * 20 and (found[24:40, 30:50] == 7).all()
    assert len(np.unique(tasks.centre_hole(image, RNG, size=1.0).reshape(-1, 3), axis=0)) == 1
    deep = tasks.centre_hole(image.astype(np.uint16) * 257, RNG, value=70_000.0)
    assert deep.dtype == np.uint16 and deep[32, 40, 0] == 65_535


def test_low_resolution_keeps_slopes_and_removes_detail():
    image = photograph()
    found = tasks.low_resolution(image, RNG, factor=4)
    assert (found.dtype, found.shape) == (image.dtype, image.shape)
    y, x = np.mgrid[:64, :80]
    slope = (2 * x + y)[..., None].astype(np.uint8)
    np.testing.assert_allclose(tasks.low_resolution(slope, RNG)[8:-8, 8:-8], slope[8:-8, 8:-8], atol=1)
    stripes = np.where(x % 2, 200, 100)[..., None].astype(np.uint8)
    np.testing.assert_allclose(tasks.low_resolution(stripes, RNG)[8:-8, 8:-8], 150, atol=1)
    assert tasks.low_resolution(np.zeros((3, 2, 1), np.float32), RNG, factor=9).shape == (3, 2, 1)


def test_noise_has_its_deviation_and_its_generator():
    gray = np.full((200, 200, 3), 128, np.uint8)
    first, again, other = (tasks.gaussian_noise(gray, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    noise = first.astype(float) - 128
    assert abs(noise.mean()) < 0.5 and abs(noise.std() - 25) < 0.5
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02
    white = tasks.gaussian_noise(np.full((50, 50, 1), 255, np.uint8), np.random.default_rng(0))
    assert white.max() == 255 and (white == 255).mean() > 0.4  # cut off, not wrapped
    np.testing.assert_array_equal(tasks.gaussian_noise(gray, RNG, sigma=0.0), gray)


def test_bind_gives_options_on():
    make = tasks.bind(tasks.centre_hole, {"size": 0.25, "value": 7.0})
    image = photograph()
    np.testing.assert_array_equal(make(image, RNG), tasks.centre_hole(image, RNG, size=0.25, value=7.0))
    own = tasks.bind(lambda image, rng, **options: image * options["by"], {"by": 2})
    np.testing.assert_array_equal(own(image // 2, RNG), image // 2 * 2)
    np.testing.assert_array_equal(tasks.bind(lambda image, rng: image, {})(image, RNG), image)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (tasks.canny_edges, {"sigmo": 1.0}, r"config\.task\.sigmo: canny_edges .* did you mean config\.task\.sigma\?"),
        (tasks.low_resolution, {"x": 1}, r"config\.task\.x: low_resolution does not take it; the options are factor"),
        (tasks.hed_edges, {}, r"config\.task\.weights is missing: hed_edges needs it"),
        (tasks.canny_edges, {"sigma": "two"}, r"config\.task\.sigma is 'two'; it must be a number"),
    ],
)
def test_bind_refuses_wrong_options(function, options, message):
    with pytest.raises(InputError, match=message):
        tasks.bind(function, options)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (tasks.canny_edges, {"sigma": 0.0}, "sigma is 0.0; it must be more than 0"),
        (tasks.canny_edges, {"low": 0.3}, "low is 0.3; it must be from 0 to config.task.high"),
        (tasks.centre_hole, {"size": 1.5}, "size is 1.5; it must be more than 0 and at most 1"),
        (tasks.low_resolution, {"factor": 1}, "factor is 1; it must be more than 1"),
        (tasks.gaussian_noise, {"sigma": -1.0}, "sigma is -1.0; it must be at least 0"),
        (tasks.hed_edges, {"weights": "x", "threshold": 25}, "threshold is 25; it must be from 0 to 1"),
        (tasks.hed_edges, {"weights": "/no/file"}, "weights: /no/file cannot be read as a .caffemodel .No such file"),
    ],
)
def test_values_that_cannot_be_used(function, options, message):
    with pytest.raises(InputError, match=rf"config\.task\.{message}"):
        tasks.bind(function, options)(photograph(), RNG)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(InputError, match=r"Canny's edges need scikit-image: pip install 'p2p_jax\[images\]'"):
        tasks.canny_edges(photograph(), RNG)


@pytest.mark.skipif("P2P_JAX_TEST_DATA" not in os.environ, reason="needs real images")
def test_edges_of_shoes_are_like_the_published_ones():
    shares, near = [], []
    for path in sorted(Path(os.environ["P2P_JAX_TEST_DATA"], "edges2shoes", "train").iterdir())[:8]:
        both = np.asarray(Image.open(path).convert("RGB"))
        published, photo = both[:, :256, 0] < 128, both[:, 256:]
        ours = tasks.canny_edges(photo, RNG)[..., 0] == 0
        shares.append(ours.mean() / published.mean())
        near.append((ndimage.distance_transform_edt(~ours)[published] <= 3).mean())
    assert 0.5 < np.median(shares) < 2 and np.median(near) > 0.7


# HED, with narrow layers of random numbers in the place of VGG's.

WIDTHS = {1: (2, 4), 2: (2, 5), 3: (3, 6), 4: (3, 7), 5: (3, 8)}


def random_layers():
    rng, layers, channels = np.random.default_rng(0), {}, 3
    for stage, (count, width) in WIDTHS.items():
        for number in range(1, count + 1):
            scale = (2 / (9 * channels)) ** 0.5 / (100 if (stage, number) == (1, 1) else 1)
            kernel = rng.standard_normal((width, channels, 3, 3)) * scale
            layers[f"conv{stage}_{number}"], channels = (kernel, rng.standard_normal(width) * 0.1), width
        layers[f"score-dsn{stage}"] = rng.standard_normal((1, channels, 1, 1)) / channels, rng.standard_normal(1) * 0.1
        if stage > 1:
            size = 2**stage
            ramp = 1 - np.abs(np.arange(size) - (size - 1) / 2) * 2 / size
            layers[f"upsample_{size // 2}"] = (np.outer(ramp, ramp).reshape(1, 1, size, size),)
    layers["new-score-weighting"] = np.full((1, 5, 1, 1), 2.0), np.array([0.1])
    return {name: tuple(blob.astype(np.float32) for blob in blobs) for name, blobs in layers.items()}


def message(number, content):
    """Encode a field of bytes of Protocol Buffers."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    head = bytes([value & 127 | (128 if value > 127 else 0)])
    return head + varint(value >> 7) if value > 127 else head


def caffemodel(layers, old=False):
    """Encode layers as Caffe saves them; `old` as the first version of its format does."""
    number, of_name, of_blobs = (2, 4, 6) if old else (100, 1, 7)
    content = message(1, b"HED")
    for name, blobs in layers.items():
        fields = message(of_name, name.encode()) + varint(10 << 3) + varint(300) + varint(11 << 3 | 5) + bytes(4)
        for blob in blobs:
            data = message(5, struct.pack(f"<{blob.size}f", *blob.ravel()))
            fields += message(of_blobs, message(7, b"".join(varint(1 << 3) + varint(n) for n in blob.shape)) + data)
        content += message(number, fields)
    return content


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "hed.caffemodel"
    path.write_bytes(caffemodel(random_layers()))
    return str(path)


def tensorflow_hed(image, layers):
    """Return what deploy.prototxt describes, before any border."""
    x = tf.constant(image[None, :, :, ::-1].astype(np.float32) - [104.00698793, 116.66876762, 122.67891434], tf.float32)
    height, width = image.shape[:2]
    sides, pad = [], 35
    for stage, (count, _) in WIDTHS.items():
        if stage > 1:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        for number in range(1, count + 1):
            kernel, bias = layers[f"conv{stage}_{number}"]
            x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
            x, pad = tf.nn.relu(tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), 1, "VALID") + bias), 1
        kernel, bias = layers[f"score-dsn{stage}"]
        score = tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), 1, "VALID") + bias
        offset = 34
        if stage > 1:
            stride = 2 ** (stage - 1)
            kernel = layers[f"upsample_{stride}"][0].transpose(2, 3, 1, 0)
            shape = [1, (score.shape[1] + 1) * stride, (score.shape[2] + 1) * stride, 1]
            score = tf.nn.conv2d_transpose(score, kernel, shape, stride, "VALID")
            # Where a pixel of the image comes to lie, by the centres of all the kernels on the way.
            offset = round(34 - sum(2**i for i in range(stage - 1)) * 0.5 + (2 * stride - 1) / 2)
        sides.append(score[0, offset : offset + height, offset : offset + width, 0])
    kernel, bias = layers["new-score-weighting"]
    return tf.sigmoid(tf.tensordot(tf.stack(sides), kernel.ravel(), [[0], [0]]) + bias).numpy()


@pytest.mark.parametrize("shape", [(48, 64), (37, 51)])
def test_hed_against_tensorflow(shape, weights):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    expected = tensorflow_hed(image, random_layers())
    assert expected.std() > 0.05
    np.testing.assert_allclose(hed.probability(image, weights, border=0), expected, atol=2e-5)
    bordered = tensorflow_hed(np.pad(image, ((20, 20), (20, 20), (0, 0)), "reflect"), random_layers())[20:-20, 20:-20]
    np.testing.assert_allclose(hed.probability(image, weights, border=20), bordered, atol=2e-5)


def test_caffemodels_of_both_versions(tmp_path):
    layers = random_layers()
    for old in (False, True):
        path = tmp_path / f"{old}.caffemodel"
        path.write_bytes(caffemodel(layers, old))
        found = hed.read_caffemodel(str(path))
        assert found.keys() == layers.keys()
        for name, blobs in layers.items():
            for ours, blob in zip(found[name], blobs, strict=True):
                np.testing.assert_array_equal(ours, blob.ravel())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<html>not found</html>", "cannot be read as a .caffemodel"),
        (caffemodel(random_layers())[:-50], "cannot be read as a .caffemodel"),
        (caffemodel({"conv1_1": random_layers()["conv1_1"]}), "are not the weights of HED"),
        (b"", "are not the weights of HED"),
    ],
    ids=["text", "truncated", "another", "empty"],
)
def test_weights_that_are_none(content, fault, tmp_path):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"config.task.weights: .*x.caffemodel {fault}"):
        hed.probability(photograph(), str(path), border=0)


def test_ridges_become_thin_lines(weights, monkeypatch):
    x = np.mgrid[:60, :80][1]
    ridge = np.exp(-(((x - 40) / 4) ** 2)).astype(np.float32)  # upright
    ridge[5, 10] = 1  # a dot
    monkeypatch.setattr(hed, "probability", lambda *_: ridge)
    found = tasks.hed_edges(photograph(), RNG, weights=weights)
    assert (found.dtype, found.shape) == (np.uint8, (60, 80, 1)) and set(np.unique(found)) == {0, 255}
    rows, columns, _ = np.nonzero(found == 0)
    assert set(columns) == {40} and len(rows) >= 56  # all but the dot; one pixel wide
    assert (tasks.hed_edges(photograph(), RNG, weights=weights, smallest=100) == 255).all()


def test_hed_as_a_task(weights):
    make = tasks.bind(tasks.hed_edges, {"weights": weights, "border": 8, "threshold": 0.2})
    found = make(photograph(channels=1), RNG)
    np.testing.assert_array_equal(found, make(photograph(), RNG))
    assert (found.dtype, found.shape) == (np.uint8, (64, 80, 1)) and set(np.unique(found)) <= {0, 255}
