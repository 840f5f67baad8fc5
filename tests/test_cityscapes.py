"""`p2p_jax.data.cityscapes` on small archives of the official layout."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from p2p_jax.commands import cityscapes as command
from p2p_jax.data import unpacking
from p2p_jax.data.cityscapes import prepare
from p2p_jax.errors import InputError

STEMS = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "ulm_000000_000019"],
    "val": ["lindau_000000_000019"],
}
ROAD, SKY = (128, 64, 128), (70, 130, 180)  # two colours of the official palette


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


def photo(value):
    return np.full((32, 64, 3), value, np.uint8)


def label():
    """Sky above road, with the alpha channel that the official colour images have."""
    array = np.full((32, 64, 4), (*ROAD, 255), np.uint8)
    array[:13] = (*SKY, 255)
    return array


@pytest.fixture
def members():
    """The two archives as {"photos": {member: bytes}, "gtfine": {member: bytes}}."""
    photos, gtfine = {"README": b"text"}, {"README": b"text"}
    for split, stems in {**STEMS, "test": ["berlin_000000_000019"]}.items():
        for i, stem in enumerate(stems):
            city = stem.partition("_")[0]
            photos[f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png"] = png(photo(50 * i + 20))
            gtfine[f"gtFine/{split}/{city}/{stem}_gtFine_color.png"] = png(label())
            gtfine[f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png"] = png(label()[..., 0])
    photos["__MACOSX/leftImg8bit/val/lindau/._lindau_000000_000019_leftImg8bit.png"] = b"junk"
    return {"photos": photos, "gtfine": gtfine}


@pytest.fixture
def write(tmp_path, members):
    """Write both archives, as they are by then, and return the arguments for `prepare`."""

    def write(form="zip"):
        paths = {}
        for kind, files in members.items():
            paths[kind] = tmp_path / f"{kind}.{form}"
            if form == "zip":
                with zipfile.ZipFile(paths[kind], "w") as archive:
                    for name, data in files.items():
                        archive.writestr(name, data)
            else:
                for name, data in files.items():
                    (paths[kind] / name).parent.mkdir(parents=True, exist_ok=True)
                    (paths[kind] / name).write_bytes(data)
        return {**paths, "output": tmp_path / "cityscapes"}

    return write


def outputs(folder):
    return {split: sorted(path.name for path in (folder / split).iterdir()) for split in ("train", "val")}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_writes_photo_left_and_labels_right(write, form, capsys):
    args = write(form)
    assert prepare(**args, size=16) == {"train": 3, "val": 1}
    assert outputs(args["output"]) == {split: [f"{stem}.png" for stem in stems] for split, stems in STEMS.items()}
    pair = pixels(args["output"] / "train" / "aachen_000001_000019.png")
    assert pair.shape == (16, 32, 3)
    np.testing.assert_array_equal(pair[:, :16], 70)
    # Row r of 16 takes row 2r + 1 of 32: 13 rows of sky become 6, and no colour lies between the two.
    np.testing.assert_array_equal(pair[:6, 16:], np.broadcast_to(SKY, (6, 16, 3)))
    np.testing.assert_array_equal(pair[6:, 16:], np.broadcast_to(ROAD, (10, 16, 3)))
    assert capsys.readouterr().out == (
        "train: 3 pairs (the official set has 2975)\nval: 1 pairs (the official set has 500)\n"
    )


def test_photo_is_resized_bicubically(write, members):
    array = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    members["photos"]["leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png"] = png(array)
    args = write()
    prepare(**args, size=16)
    pair = pixels(args["output"] / "val" / "lindau_000000_000019.png")
    expected = Image.fromarray(array).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pair[:, :16], np.asarray(expected))


def test_keeps_what_is_done_and_redoes_what_is_not(write):
    args = write()
    prepare(**args, size=16)
    kept, resized, broken = (args["output"] / "train" / f"{stem}.png" for stem in STEMS["train"])
    missing = args["output"] / "val" / f"{STEMS['val'][0]}.png"
    whole = {path: path.read_bytes() for path in (resized, broken, missing)}
    Image.new("RGB", (32, 16), "red").save(kept)
    Image.new("RGB", (16, 16), "red").save(resized)
    broken.write_bytes(b"half a file")
    missing.unlink()
    assert prepare(**args, size=16) == {"train": 3, "val": 1}
    assert {path: path.read_bytes() for path in whole} == whole
    assert pixels(kept)[0, 0].tolist() == [255, 0, 0]


def test_interrupted_writing_leaves_no_image(write, monkeypatch):
    args = write()

    def interrupt(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(**args, size=16)
    assert list(args["output"].rglob("*.png")) == []
    prepare(**args, size=16)
    assert outputs(args["output"])["train"] == [f"{stem}.png" for stem in STEMS["train"]]


def test_swapped_archives(write):
    args = write()
    args["photos"], args["gtfine"] = args["gtfine"], args["photos"]
    with pytest.raises(InputError, match=r"photos=.*gtfine.zip holds no .*leftImg8bit.png.*swapped\?"):
        prepare(**args)


def test_archive_of_something_else(write, members):
    members["gtfine"] = {"gtCoarse/train/ulm/ulm_000000_000019_gtCoarse_color.png": png(label())}
    with pytest.raises(InputError, match=r"gtfine=.*gtfine.zip holds no .*gtFine_color.png$"):
        prepare(**write())


def test_missing_archive(write):
    args = write()
    args["gtfine"].unlink()
    with pytest.raises(InputError, match="gtfine=.*gtfine.zip is missing; get it from cityscapes-dataset.com"):
        prepare(**args)


def test_truncated_archive(write):
    args = write()
    data = args["photos"].read_bytes()
    args["photos"].write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="photos=.*photos.zip is not a complete zip file"):
        prepare(**args)


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("gtfine", "gtFine/train/ulm/ulm_000000_000019_gtFine_color.png"),
        ("photos", "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"),
    ],
)
def test_image_without_partner(write, members, kind, member):
    del members[kind][member]
    with pytest.raises(InputError, match="1 images of .* have no partner in .*ulm_000000_000019"):
        prepare(**write())


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_corrupt_image_is_named(write, members, form):
    member = "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    members["photos"][member] = members["photos"][member][:60]
    args = write(form)
    with pytest.raises(InputError, match=f"{member} in .*photos.{form} is damaged"):
        prepare(**args, size=16)
    assert not (args["output"] / "train" / "ulm_000000_000019.png").exists()


def test_corrupt_zip_member_is_named(write, members):
    args = write()
    member = "gtFine/val/lindau/lindau_000000_000019_gtFine_color.png"
    data = args["gtfine"].read_bytes()
    start = data.index(members["gtfine"][member], data.index(member.encode()))
    args["gtfine"].write_bytes(data[: start + 50] + bytes([data[start + 50] ^ 1]) + data[start + 51 :])
    with pytest.raises(InputError, match=f"{member} in .*gtfine.zip is damaged .*CRC"):
        prepare(**args, size=16)


def test_size_must_be_positive(write):
    with pytest.raises(InputError, match="`size` must be at least 1 pixel, not 0"):
        prepare(**write(), size=0)


def test_command(write, capsys):
    args = write()
    flags = [f"--{name}={path}" for name, path in args.items()]
    assert command.run([*flags, "--size=8"]) is None
    assert pixels(args["output"] / "val" / "lindau_000000_000019.png").shape == (8, 16, 3)
    args["photos"].unlink()
    with pytest.raises(SystemExit) as stop:
        command.run(flags)
    assert stop.value.code.startswith(f"error: --photos {args['photos']} is missing")


@pytest.mark.parametrize(
    ("stem", "fault"),
    [
        ("x\\..\\..\\escaped", "that some systems do not allow in names"),
        ("C:escaped", "that some systems do not allow in names"),
        ("x" * 260, "is too long"),
        ("AACHEN_000000_000019", "in it twice, perhaps with other capitals"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(write, members, tmp_path, stem, fault):
    args = write()
    members["photos"][f"leftImg8bit/train/aachen/{stem}_leftImg8bit.png"] = png(photo(1))
    members["gtfine"][f"gtFine/train/aachen/{stem}_gtFine_color.png"] = png(label())
    args = write()
    with pytest.raises(InputError, match=f"is refused: .*{fault}"):
        prepare(**args, size=16)
    assert not list(tmp_path.rglob("*.part*")) and not (args["output"] / "train").exists()


@pytest.mark.slow
def test_a_small_file_that_asks_for_gigabytes_is_refused(write, members, monkeypatch):
    """Ten thousand pixels a side of one colour; and an archive whose files are said to be larger than it can hold."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, format="PNG")
    members["photos"]["leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"] = file.getvalue()
    with pytest.raises(InputError, match="aachen_000000_000019_leftImg8bit.png"):
        prepare(**write(), size=16)
    monkeypatch.setattr(unpacking, "_LEAST_ALLOWED", 100)
    monkeypatch.setattr(unpacking, "_RATIO", 0)
    with pytest.raises(InputError, match="its files are larger than 0.0 GB in total"):
        prepare(**write(), size=16)
