"""Winograd's way gives the plain convolution, its transpose and its kernel gradient, exactly but for rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from p2p_jax.nets import convolution, winograd

pytestmark = pytest.mark.usefixtures("fast_convolutions")
SHAPES = [  # batch, sides, channels, features, size, stride, padding
    (1, (9, 12), 3, 5, 3, 1, 0),
    (3, (8, 7), 4, 2, 3, 1, 1),
    (1, (11, 8), 3, 4, 4, 1, 1),
    (2, (9, 9), 2, 3, 4, 1, 2),
    (1, (12, 10), 3, 5, 4, 2, 1),
    (2, (6, 8), 7, 3, 4, 2, 1),
    (2, (8, 8), 2, 2, 2, 1, 0),
    (1, (14, 9), 2, 3, 6, 2, 2),
    (1, (6, 7), 2, 3, 3, 1, 3),
]


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("outputs", [2, 3])
def test_a_tile_is_a_correlation(outputs, taps):
    inverse, forward, transform = map(np.array, winograd.transforms(outputs, taps))
    rng = np.random.default_rng(taps)
    kernel, inputs = rng.normal(size=taps), rng.normal(size=outputs + taps - 1)
    np.testing.assert_allclose(
        inverse @ ((forward @ kernel) * (transform @ inputs)), np.correlate(inputs, kernel, "valid"), atol=1e-12
    )


def test_the_published_transforms():
    """F(2, 3) of Lavin and Gray (2016), section 4.1, but for the signs of rows, which cancel."""
    inverse, forward, transform = map(np.array, winograd.transforms(2, 3))
    assert np.abs(inverse).tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert np.abs(forward).tolist() == [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
    assert np.abs(transform).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]


def test_the_fewest_multiplications():
    """Tiles of 2 x 2 or 3 x 3 outputs, by the multiplications of all tiles for one channel."""
    assert winograd._outputs((64, 64), 3) == 3  # 22 * 22 * 25 = 12,100; 32 * 32 * 16 = 16,384
    assert winograd._outputs((16, 16), 2) == 2  # 8 * 8 * 9 = 576; 6 * 6 * 16 = 576
    assert winograd._outputs((4, 4), 3) == 2  # 2 * 2 * 16 = 64; 2 * 2 * 25 = 100


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize(("batch", "sides", "channels", "features", "size", "stride", "padding"), SHAPES)
def test_all_three_forms(monkeypatch, outputs, batch, sides, channels, features, size, stride, padding):
    monkeypatch.setattr(winograd, "_OUTPUTS", (outputs,))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *sides, channels)).astype(np.float32)
    kernel = rng.normal(size=(size, size, channels, features)).astype(np.float32)

    def plain(x, kernel):
        pads = [(padding, padding)] * 2
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shape = jax.eval_shape(plain, x, kernel).shape
    y = rng.normal(size=shape).astype(np.float32)

    @jax.jit
    def expected(x, kernel, y):
        result, pullback = jax.vjp(plain, x, kernel)
        return result, *pullback(y)

    @jax.jit
    def actual(x, kernel, y):
        return (
            convolution._correlate(x, kernel, stride, padding),
            convolution._spread(y, kernel, stride, padding, sides),
            convolution._kernel_grad(x, y, size, stride, padding),
        )

    monkeypatch.setattr(convolution, "_as_tiles", lambda *_: True)
    for found, wanted in zip(actual(x, kernel, y), expected(x, kernel, y), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
        assert np.abs(wanted).max() > 1


def test_wide_layers_take_it_and_keep_their_precision(monkeypatch):
    """Layers like a ResNet's blocks and the discriminator's widest one, in float32, against float64."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(convolution, "_LEAST_FOR_TILES", 0)
    for channels, features, size in ((64, 64, 3), (64, 128, 4)):
        x = rng.normal(size=(1, 20, 20, channels))
        kernel = rng.normal(size=(size, size, channels, features))
        assert convolution._as_tiles((1, 18, 18), kernel.shape, 1, np.float32)
        patches = np.lib.stride_tricks.sliding_window_view(x[0], (size, size), (0, 1))
        expected = np.einsum("hwcij,ijco->hwo", patches, kernel)
        found = jax.jit(lambda x, k: convolution.conv(x, k, 1, 0))(jnp.float32(x), jnp.float32(kernel))
        np.testing.assert_allclose(found[0], expected, atol=2e-5 * np.abs(expected).max())


def test_small_layers_and_half_precision_do_not():
    steps = (1, 32, 32)
    assert convolution._as_tiles(steps, (3, 3, 256, 256), 1, np.float32)
    assert not convolution._as_tiles(steps, (3, 3, 256, 16), 1, np.float32)
    assert not convolution._as_tiles(steps, (3, 3, 256, 256), 1, jnp.bfloat16)
    assert not convolution._as_tiles(steps, (3, 3, 256, 256), 2, np.float32)
    assert not convolution._as_tiles(steps, (7, 7, 256, 256), 1, np.float32)
    assert not convolution._as_tiles((1, 16, 16), (3, 3, 256, 256), 1, np.float32)
    assert not convolution._as_tiles((1, 8, 8), (4, 4, 512, 512), 2, np.float32)
    assert not convolution._as_tiles((1, None, None), (3, 3, 256, 256), 1, np.float32)
