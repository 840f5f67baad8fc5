"""Which files belong together: nothing but names is looked at, so that empty files do."""

from pathlib import Path

import pytest

from p2p_jax.data import layouts
from p2p_jax.errors import InputError
from support.configs import small_config


def data_of(root, source, **options):
    others = {f"data__{name}": value for name, value in options.items()}
    return small_config(data__source=source, data__dir=str(root), **others).data


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root, source, split="train", **options):
    return layouts.find(data_of(root, source), split, **options)


def names(paths):
    return [path.name for path in paths]


@pytest.mark.parametrize(
    ("source", "halves"),
    [
        ("side_by_side", "AB"),
        ("side_by_side/AB", "AB"),
        ("side_by_side/BA", "BA"),
        ("pix2pix/facades", "AB"),
        ("photos", ""),
    ],
)
def test_one_folder(tmp_path, source, halves):
    layout = find(touch(tmp_path, "train/2.png", "train/1.JPG", "train/3.tif"), source)
    assert names(layout.a) == names(layout.b) == ["1.JPG", "2.png", "3.tif"]
    assert (layout.halves, layout.paired, layout.lonely) == (halves, True, ())


@pytest.mark.parametrize("folders", ["train/A train/B", "A/train B/train", "trainA trainB"])
def test_two_folders(tmp_path, folders):
    a, b = folders.split()
    touch(tmp_path, f"{a}/y.png", f"{a}/x.npy", f"{b}/x.tif", f"{b}/y.jpeg")
    layout = find(tmp_path, "folders")
    assert (names(layout.a), names(layout.b), layout.paired) == (["x.npy", "y.png"], ["x.tif", "y.jpeg"], True)
    for source in ("unpaired", "cycle_gan/maps"):
        unpaired = find(tmp_path, source)
        assert (unpaired.paired, names(unpaired.a), names(unpaired.b)) == (False, names(layout.a), names(layout.b))


def test_suffixes(tmp_path):
    layout = find(touch(tmp_path, "train/x_A.png", "train/y_B.png", "train/x_B.tif", "train/y_A.npz"), "suffixes")
    assert (names(layout.a), names(layout.b)) == (["x_A.png", "y_A.npz"], ["x_B.tif", "y_B.png"])
    touch(tmp_path, "train/z_A.png")
    with pytest.raises(
        InputError, match=r"1 of 3 \+ 2 images have no partner .* but for _A and _B: .*z_A\.png; add .*z_B\.tif"
    ):
        find(tmp_path, "suffixes")
    touch(tmp_path, "train/q.png", "train/r_c.png")
    with pytest.raises(InputError, match=r"q\.png: the name ends in neither _A nor _B \(and 1 more file\)"):
        find(tmp_path, "suffixes")
    layout = find(tmp_path, "suffixes", lenient=True)
    assert (len(layout.a), names(layout.lonely)) == (2, ["z_A.png", "q.png", "r_c.png"])
    touch(tmp_path, "train/x_A.bmp")
    with pytest.raises(InputError, match=r"x_A\.bmp and .*x_A\.png have the same stem"):
        find(tmp_path, "suffixes", lenient=True)


def test_the_missing_partner_is_named_in_its_own_folder(tmp_path):
    touch(tmp_path, *(f"{side}/{scene}/{i}_{end}" for side, end in {"rgb": "x.png", "depth": "y.tif"}.items()
                      for scene in ("one", "two") for i in range(3)))  # fmt: skip
    (tmp_path / "depth" / "two" / "1_y.tif").unlink()
    sides = {"dir_a": "rgb", "dir_b": "depth", "suffix_a": "_x", "suffix_b": "_y", "val_fraction": 0.2}
    with pytest.raises(InputError, match=r"1 of 6 \+ 5 .*rgb/two/1_x\.png; add .*/depth/two/1_y\.tif \(or"):
        layouts.find(data_of(tmp_path, "folders", **sides), "train")


def test_partners_that_are_missing(tmp_path):
    touch(tmp_path, "trainA/x.png", "trainA/y.png", "trainB/x.png", "trainB/z.png")
    with pytest.raises(
        InputError, match=r"2 of 2 \+ 2 images have no partner .*A.y\.png, .*B.z\.png; add .*trainB.y"
    ) as two:
        find(tmp_path, "folders")
    assert "and the others, remove these files" in str(two.value) and "CycleGAN" not in str(two.value)
    layout = find(tmp_path, "folders", lenient=True)
    assert (names(layout.a), names(layout.b), names(layout.lonely)) == (["x.png"], ["x.png"], ["y.png", "z.png"])


def test_csv_of_paths(tmp_path, monkeypatch):
    touch(tmp_path, "photos/x.jpg", "photos/y.jpg", "masks/1.png")
    monkeypatch.chdir(touch(tmp_path / "working", "photos/x.jpg", "masks/1.png"))  # other files of the same names
    elsewhere = touch(tmp_path, "elsewhere/2.png") / "elsewhere" / "2.png"
    (tmp_path / "train.csv").write_text(
        f'\ufeffwho, b,a\nme,masks/1.png,photos/x.jpg\nyou,"{elsewhere}", photos/y.jpg\n', encoding="utf-8"
    )
    layout = find(tmp_path, "csv")
    assert layout.a == [tmp_path / "photos" / "x.jpg", tmp_path / "photos" / "y.jpg"]
    assert layout.b == [tmp_path / "masks" / "1.png", elsewhere]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nx.png,x.png\nx.png,q.png\n", r"train\.csv, line 3: there is no file .*q\.png"),
        ("a,b\nx.png,x.png\nx.png,\nq.png\n", r"line 3: column b is empty; .* \(and 2 more faults\)"),
        ("a,b\n\nx.png,x.png\n,x.png\n", r"line 4: column a is empty"),
        ("a,c\nx.png,x.png\n", r"line 1: there is no column b; it must be named there, next to a, c"),
        ("", r"is empty; its first line must name the columns a and b"),
        ("a,b\n", r"train\.csv names no pair"),
        (b"a,b\n\xff.png,x.png\n", r"train\.csv cannot be read as a CSV file in UTF-8"),
    ],
)
def test_faults_of_a_csv_are_named_with_their_line(tmp_path, text, message):
    touch(tmp_path, "x.png", "train.csv")
    (tmp_path / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        find(tmp_path, "csv")


def test_a_csv_that_is_missing_is_named(tmp_path):
    touch(tmp_path, "training.csv")
    with pytest.raises(InputError, match=r"no file .*train\.csv; .* holds training\.csv: rename a \.csv file, name"):
        find(tmp_path, "csv")


def test_folders_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*val; .* holds train: rename a folder, name the split"):
        find(touch(tmp_path, "train/x.png"), "photos", "val")
    with pytest.raises(InputError, match="--config.data.dir=FOLDER"):
        find("", "photos")
    with pytest.raises(InputError, match="there is no folder no/such"):
        find("no/such", "photos")


def test_sources_of_files():
    files = [
        "side_by_side",
        "side_by_side/AB",
        "side_by_side/BA",
        "folders",
        "suffixes",
        "csv",
        "photos",
        "unpaired",
        "pix2pix/maps",
    ]
    assert all(map(layouts.is_file_source, [*files, "cycle_gan/maps"]))
    assert not any(map(layouts.is_file_source, ["toy_facades", "toy_unpaired", "mine:make", "folders/x", "pix2pix/"]))


@pytest.mark.parametrize("name", ["test/x.png", "testA/x.png", "A/test/x.png", "test.csv"])
def test_splits_that_are_there(tmp_path, name):
    data = data_of(touch(tmp_path, name), "folders")
    assert layouts.has_split(data, "test")
    assert not layouts.has_split(data, "val")
    assert Path(data.dir) == tmp_path
