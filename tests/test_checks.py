"""Faults of files, given what they are meant to be; those of 8-bit images are tested in test_data.py as well."""

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import checks, layouts
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_files
from support.configs import small_config
from support.images import noise, save


@pytest.fixture
def root(tmp_path):
    for side in "AB":
        for i in range(3):
            save(tmp_path / "train" / side / f"{i}.png", noise(16, 20, 3))
    return tmp_path


def look(root, **changes):
    """Return headers and faults of the training split."""
    options = {"source": "folders", "dir": str(root), "direction": "AtoB", "crop_size": 16, "load_size": 16} | changes
    data = small_config(**{f"data__{key}": value for key, value in options.items()}).data
    layout = layouts.find(data, "train")
    found = checks.examine(layout, of_files(data), data)
    if found.faults:
        with pytest.raises(InputError):
            checks.require(layout, of_files(data), data)
    else:
        assert checks.require(layout, of_files(data), data) == found.headers
    return found


def told(found):
    return [f"{path.parent.name}/{path.name} {fault}" for path, fault in found.faults]


def test_nothing_is_wrong_with_good_files(root):
    found = look(root)
    assert found.faults == []
    assert {(h.width, h.height, h.channels, h.dtype.name) for h in found.headers.values()} == {(20, 16, 3, "uint8")}
    assert len(found.headers) == 6


def test_every_fault_is_found_and_the_first_is_raised(root):
    (root / "train" / "A" / "1.png").write_bytes(b"")
    save(root / "train" / "B" / "0.png", noise(16, 18, 3))
    save(root / "train" / "B" / "2.png", noise(16, 20, 4))
    found = told(look(root))
    assert len(found) == 3
    assert found[0].startswith("A/1.png cannot be read")
    assert found[1].startswith("B/2.png has transparent parts (")
    assert found[2].startswith("A/0.png is 20x16 pixels but its partner")
    data = small_config(data__source="folders", data__dir=str(root)).data
    layout = layouts.find(data, "train")
    with pytest.raises(InputError, match=r"A.1\.png cannot .* \(and 2 more files: run python -m p2p_jax inspect\)"):
        checks.require(layout, of_files(data), data)


def test_depths_are_judged_by_side(root):
    for i in range(3):
        save(root / "train" / "A" / f"{i}.png", noise(16, 20, dtype=np.uint16))
    wide = {"input__kind": "uint16", "input__channels": 1}
    assert look(root, **wide).faults == []
    assert [fault[:16] for fault in told(look(root))] == ["A/0.png has 16 b", "A/1.png has 16 b", "A/2.png has 16 b"]
    assert "set config.data.input.kind or output.kind to uint16" in told(look(root))[0]
    swapped = look(root, direction="BtoA", output__kind="uint16", output__channels=1)
    assert swapped.faults == []


def test_transparency_may_be_a_channel(root):
    save(root / "train" / "A" / "1.png", noise(16, 20, 4))
    assert len(look(root).faults) == 1
    assert [fault[:19] for fault in told(look(root, input__channels=4))] == [
        "A/0.png has 3 chann",
        "A/2.png has 3 chann",
    ]


def test_numbers_that_are_not_finite(root, monkeypatch):
    for path in (root / "train" / "A").iterdir():
        path.unlink()
    for i in range(3):
        pixels = noise(16, 20, 2, dtype=np.float32)
        pixels[3, 4, 1] = [0, np.nan, -np.inf][i]  # of which NaN is unknown
        save(root / "train" / "A" / f"{i}.tif", pixels)
    floats = {"input__kind": "float", "input__channels": 2}
    message = "holds numbers that are not finite (NaN or infinite); replace them or remove it"
    assert told(look(root, **floats)) == [f"A/2.tif {message}"]
    known = {**floats, "input__nodata": "none"}
    assert told(look(root, **known)) == [f"A/{i}.tif {message}" for i in (1, 2)]
    monkeypatch.setattr("p2p_jax.data.checks.PIXELS_READ", 0)
    assert look(root, **floats).faults == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"preprocess": "crop"}, ""),
        ({"preprocess": "crop", "crop_width": 20}, ""),
        ({"preprocess": "crop", "crop_size": 17}, "20x16 pixels, smaller than the crop of 17x17"),
        ({"preprocess": "crop", "crop_width": 21}, "20x16 pixels, smaller than the crop of 21x16"),
        ({"preprocess": "none", "crop_width": 20}, ""),
        ({"preprocess": "none"}, "20x16 pixels; config.data.preprocess=none needs 16x16"),
        ({"preprocess": "scale_width"}, ""),
        ({"preprocess": "scale_width", "crop_width": 40}, "the width of the crop it is 32 high"),
        ({"preprocess": "scale_width_and_crop", "load_width": 40}, ""),
        ({"preprocess": "scale_shortside_and_crop"}, ""),
    ],
)
def test_sizes_that_allow_no_crop(root, changes, fault):
    found = told(look(root, **changes))
    assert len(found) == (6 if fault else 0)
    assert all(fault in text for text in found)


def test_halves_are_half_as_wide(tmp_path):
    save(tmp_path / "train" / "x.png", noise(16, 40, 3))
    sizes = {"source": "side_by_side", "preprocess": "none"}
    assert look(tmp_path, **sizes, crop_width=20).faults == []
    assert "20x16 pixels; config" in told(look(tmp_path, **sizes, crop_width=40))[0]
    save(tmp_path / "train" / "x.png", noise(16, 41, 3))
    assert "is 41 pixels wide: it cannot be cut" in told(look(tmp_path, source="side_by_side"))[0]


def test_photographs_need_not_be_what_is_made_of_them(tmp_path):
    save(tmp_path / "train" / "x.png", noise(16, 20, 3))
    found = look(
        tmp_path, source="photos", input__kind="lab_l", input__channels=1, output__kind="lab_ab", output__channels=2
    )
    assert found.faults == [] and len(found.headers) == 1
    assert look(tmp_path, source="photos", input__kind="float", input__channels=7).faults == []
    assert "but this side takes 7" in told(look(tmp_path, source="photos", output__channels=7))[0]


def test_labels_may_be_indices(tmp_path):
    indices = Image.fromarray(noise(16, 20, 3)).quantize(8)
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        indices.save(tmp_path / f"train{side}" / "x.bmp")
    assert told(look(tmp_path, input__kind="labels", input__channels=8)) == []
