"""What images are: their values, units, and the way to [-1, 1] and back."""

import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.images.domains import Domain, of_config, of_files
from p2p_jax.images.palettes import CMP_FACADES, VOID, palette_from_json
from p2p_jax.images.ranges import format_range
from support.configs import small_config


def domain(kind, channels=1, **options):
    """Return the domain of real_a that a config describes."""
    given = {"kind": kind, "channels": channels} | options
    return of_config(small_config(**{f"data__input__{key}": value for key, value in given.items()}).data)[0]


def every_value(kind):
    """Return all values of a dtype of whole numbers as an image."""
    limits = np.iinfo(kind)
    return np.arange(limits.min, limits.max + 1).astype(kind).reshape(-1, 16, 1)


RANGES = {"uint8": "", "uint16": "", "int16": "-32768:32767"}


@pytest.mark.parametrize("kind", RANGES)
def test_every_whole_number_comes_back(kind):
    found = domain(kind, range=RANGES[kind])
    values = every_value(kind)
    normalized = found.encode(values)
    assert normalized.dtype == np.float32 and (normalized.min(), normalized.max()) == (-1, 1)
    assert (np.diff(normalized.ravel()) > 0).all()
    back = found.decode(normalized)
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


def test_numbers_have_a_range_for_each_channel():
    found = domain("uint16", 3, range="0:4000,1000:3000,0:65535")
    values = np.array([[[2000, 2000, 0], [4000, 1000, 65535], [5000, 500, 13107]]], np.uint16)
    expected = [[[0, 0, -1], [1, -1, 1], [1, -1, -0.6]]]  # beyond the range it is cut off
    np.testing.assert_allclose(found.encode(values), expected, atol=1e-6)
    assert found.decode(np.array([[[0.0, 0.5, 2.0]]])).tolist() == [[[2000, 2500, 65535]]]
    assert found.decode(np.full((1, 1, 3), 0.0001)).tolist() == [[[2000, 2000, 32771]]]  # rounded, not truncated
    assert (found.raw_channels, found.value_channels, found.channels) == (3, 3, 3)


def test_a_range_wider_than_the_dtype_does_not_wrap_around():
    assert domain("uint8", range="-100:300").decode(np.array([[[-1.0], [1.0], [0.0]]])).tolist() == [
        [[0], [255], [100]]
    ]
    assert domain("int16", range="0:70000").decode(np.array([[[1.0]]])).item() == 32767


def test_floats_keep_their_units():
    found = domain("float", 2, range="-3:5,0:0.25")
    values = np.random.RandomState(0).uniform([-3, 0], [5, 0.25], (4, 5, 2)).astype(np.float32)
    back = found.decode(found.encode(values))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, atol=1e-6)
    assert found.raw(np.ones((2, 2, 2), np.float64)).dtype == np.float32


def test_labels_are_one_hot():
    found = domain("labels", 3)
    values = np.array([[[0], [2], [VOID]]], np.uint8)
    np.testing.assert_array_equal(found.encode(values), [[[1, -1, -1], [-1, -1, 1], [-1, -1, -1]]])
    assert found.encode(values).dtype == np.float32
    np.testing.assert_array_equal(found.decode(found.encode(values[:, :2])), values[:, :2])
    assert found.decode(np.array([[[-0.9, -0.2, -0.3]]])).tolist() == [[[1]]]
    assert (found.value_channels, found.dtype, found.is_measured) == (1, np.uint8, True)


def test_labels_as_files_store_them():
    plain, colored = domain("labels", 12), domain("labels", 12, palette="cmp_facades")
    assert colored.palette.names == CMP_FACADES.names
    classes = np.array([[[0], [11], [3]]], np.uint8)
    np.testing.assert_array_equal(colored.raw(CMP_FACADES.colors[classes[..., 0]] | 1), classes)
    np.testing.assert_array_equal(plain.raw(classes, CMP_FACADES.colors), classes)  # indices of a palette as they are
    for dtype in (np.uint16, np.int16, np.int64):
        assert plain.fault(np.dtype(dtype), 1, False) is None
        assert plain.raw(classes.astype(dtype)).dtype == np.uint8
        np.testing.assert_array_equal(plain.raw(classes.astype(dtype)), classes)
    assert plain.raw(np.array([[[-1], [300], [255], [4]]], np.int16)).tolist() == [[[VOID], [VOID], [VOID], [4]]]
    mask = np.array([[[0], [255]]], np.uint8)
    assert domain("labels", 2).raw(mask).tolist() == [[[0], [1]]]
    assert domain("labels", 2).raw(mask // 255).tolist() == [[[0], [1]]]
    with_void = palette_from_json({"a": [255, 0, 0], "b": [0, 255, 0], "void": [[0, 0, 0]]})
    labels = Domain("labels", 2, palette=with_void)
    assert labels.raw(np.array([[[250, 3, 0], [0, 255, 0], [0, 0, 0]]], np.uint8)).tolist() == [[[0], [1], [VOID]]]


def test_colours_of_labels_are_drawn_towards_the_palette():
    found = domain("label_colors", 3, palette="#ff0000,#00ff00")
    assert found.raw(np.array([[[240, 30, 9], [100, 120, 0]]], np.uint8)).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert found.decode(np.array([[[0.1, 0.0, -1.0]]])).tolist() == [[[255, 0, 0]]]
    np.testing.assert_array_equal(found.encode(np.array([[[255, 0, 0]]], np.uint8)), [[[1, -1, -1]]])
    free = domain("label_colors", 3)
    assert free.decode(np.array([[[0.1, 0.0, -1.0]]])).tolist() == [[[140, 128, 0]]]


def test_lab_of_photographs():
    lightness, colour = domain("lab_l"), domain("lab_ab", 2)
    photo = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert lightness.raw(photo[..., :1]).shape == (1, 3, 3)  # gray is repeated
    values, ab = lightness.values(lightness.raw(photo)), colour.values(photo)
    np.testing.assert_allclose(values[0, :, 0], [0, 100, 53.24], atol=0.02)
    np.testing.assert_allclose(ab[0], [[0, 0], [0, 0], [80.09, 67.20]], atol=0.02)
    np.testing.assert_allclose(lightness.encode(values)[0, :, 0], [-1, 1, 0.0648], atol=1e-3)
    np.testing.assert_allclose(colour.encode(ab)[0, 2], [80.09 / 110, 67.2 / 110], atol=1e-3)
    np.testing.assert_allclose(colour.decode(colour.encode(ab)), ab, atol=1e-4)


def test_files_of_other_kinds_are_told_from_what_is_declared():
    assert domain("uint8", 3).fault(np.dtype(np.uint8), 1, False) is None
    assert domain("uint8", 3).fault(np.dtype(np.uint8), 1, True) is None
    assert "input.kind or output.kind to uint16" in domain("uint8", 3).fault(np.dtype(np.uint16), 3, False)
    assert "output.kind to float" in domain("uint16", 1).fault(np.dtype(np.float64), 1, False)
    assert "has 4 channels, but this side takes 3" in domain("uint8", 3).fault(np.dtype(np.uint8), 4, False)
    assert "has 3 channels, but this side takes 1" in domain("float", 1).fault(np.dtype(np.float32), 3, False)
    assert domain("float", 4).fault(np.dtype(np.uint16), 4, False) is None
    assert "labels are one channel" in domain("labels", 4).fault(np.dtype(np.uint8), 3, False)
    assert "labels are one channel" in domain("labels", 4).fault(np.dtype(np.float32), 1, False)
    assert domain("labels", 2, palette="#ff0000,#00ff00").fault(np.dtype(np.uint8), 3, False) is None


def test_arrays_that_are_no_values_are_refused():
    found = domain("float", 2, range="0:1")
    found.check(np.zeros((4, 4, 2), np.float32))
    for bad in (np.zeros((4, 4, 2)), np.zeros((4, 4, 1), np.float32), np.zeros((4, 2), np.float32)):
        with pytest.raises(InputError, match=r"must be float32 \[..., H, W, 2\] \(float\)"):
            found.check(bad)
    with pytest.raises(InputError, match="not finite"):
        found.check(np.full((4, 4, 2), np.nan, np.float32))


def test_pictures():
    numbers = np.linspace(-1, 1, 5, dtype=np.float32).reshape(1, 5, 1) * np.array([1, 0, -1, 0.5], np.float32)
    assert domain("uint16", 4).picture(numbers).tolist() == [
        [[0, 128, 255], [64, 128, 191], [128, 128, 128], [191, 128, 64], [255, 128, 0]]
    ]
    assert domain("float", 2).picture(numbers[..., :2]).tolist() == [[[0], [64], [128], [191], [255]]]
    one_hot = domain("labels", 3).encode(np.array([[[0], [1], [2]]], np.uint8))
    assert domain("labels", 3).picture(one_hot).tolist() == [[[0], [127], [255]]]
    palette = "#ff0000,#00ff00,#0000ff"
    colored = domain("labels", 3, palette=palette).picture(one_hot)
    assert colored.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    gray = np.zeros((1, 2, 2), np.float32)  # a and b of gray
    assert domain("lab_ab", 2).picture(gray, np.array([[[-1], [1]]], np.float32)).tolist() == [[[0] * 3, [255] * 3]]
    assert len(np.unique(domain("lab_ab", 2).picture(gray))) == 1
    assert domain("lab_l").picture(np.array([[[-1.0], [1.0]]])).tolist() == [[[0], [255]]]


def test_what_is_measured():
    assert not domain("float").is_measured and not domain("int16").is_measured
    assert not domain("uint8", range="measured").is_measured
    assert domain("uint16").is_measured and domain("lab_l").is_measured
    low, high = (0.1, -7.0), (1 / 3, 1e6)
    found = domain("float", 2, range=format_range(low, high))
    assert (found.low, found.high) == (low, high)
    bytes_or_not = {"uint8": "", "uint16": "", "float": "0:255"}
    assert [domain(kind, range=given).is_bytes for kind, given in bytes_or_not.items()] == [True, False, False]
    assert not domain("uint8", range="0:100").is_bytes and not domain("label_colors", 3).is_bytes
    assert not domain("uint8", range="measured").is_bytes


def test_sides_of_files_come_before_the_direction():
    options = {
        "data__input__kind": "uint16",
        "data__input__channels": 4,
        "data__output__kind": "labels",
        "data__output__channels": 5,
    }
    data = small_config(data__direction="BtoA", **options).data
    assert [d.kind for d in of_config(data)] == ["uint16", "labels"]
    assert [d.kind for d in of_files(data)] == ["labels", "uint16"]
    assert [d.kind for d in of_files(small_config(data__direction="AtoB", **options).data)] == ["uint16", "labels"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "uint32"}, "input.kind is 'uint32'; choose uint8"),
        ({"kind": "lab_l", "channels": 3}, "input.channels is 3; it must be 1, as lab_l need"),
        ({"kind": "labels", "channels": 1}, "labels have 2 to 255 classes"),
        ({"kind": "labels", "channels": 3, "palette": "cmp_facades"}, "it must be 12, as labels need"),
        ({"kind": "uint8", "channels": 0}, "a whole number in"),
        ({"kind": "uint8", "palette": "cmp_facades"}, "input.palette is for labels; config.data.input.kind is uint8"),
        ({"kind": "lab_l", "range": "0:50"}, "lab_l have a fixed range"),
        ({"kind": "float", "range": "5"}, "write LOW:HIGH"),
        ({"kind": "float", "range": "5:1"}, "5 is not less than 1"),
        ({"kind": "float", "range": "0:inf"}, "not finite"),
        ({"kind": "float", "channels": 3, "range": "0:1,0:2"}, "2 ranges for 3 channels"),
        ({"kind": "labels", "channels": 2, "palette": "#ff0000,#ff0000"}, "is in it 2 times"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(InputError, match=message):
        domain(**options)
