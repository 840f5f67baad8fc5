"""Folders as people have them: names, links, layouts, tables, and what inspect proposes for them."""

import os
import re
import shlex
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from p2p_jax.commands import inspect as command
from p2p_jax.config import load_with_overrides
from p2p_jax.data import files, layouts, load, matching
from p2p_jax.data.inspect import doubts, inspection, proposals
from p2p_jax.data.stream.sources import make_source
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_files
from p2p_jax.inference.files import plan
from support import trees
from support.configs import small_config
from support.images import noise, save
from support.runs import run_command
from support.streams import take


def data_of(root, **changes):
    options = {"source": "folders", "dir": str(root), "direction": "AtoB"} | changes
    return small_config(**{f"data__{key}": value for key, value in options.items()}).data


def names(layout):
    return [tuple(path.name for path in pair) for pair in zip(layout.a, layout.b, strict=True)]


def write(root, *paths):
    for i, path in enumerate(paths):
        save(root / path, noise(20, 24, 3, seed=i))


# -- Names


def test_letters_in_one_part_and_in_two(tmp_path):
    write(tmp_path, f"trainA/{unicodedata.normalize('NFC', 'Größe')}.png", "trainA/x.png")
    write(tmp_path, f"trainB/{unicodedata.normalize('NFD', 'Größe')}.png", "trainB/x.png")
    assert len(layouts.find(data_of(tmp_path), "train").a) == 2


def test_capital_letters(tmp_path):
    write(tmp_path, "trainA/IMG_1.JPG", "trainA/img_2.png", "trainB/img_1.png", "trainB/IMG_2.PNG")
    assert names(layouts.find(data_of(tmp_path), "train")) == [("IMG_1.JPG", "img_1.png"), ("img_2.png", "IMG_2.PNG")]
    write(tmp_path, "trainA/img_1.png", "trainB/IMG_1.png")  # now they tell files apart
    found = names(layouts.find(data_of(tmp_path, val_split=""), "train", lenient=True))
    assert ("img_1.png", "img_1.png") in found and ("IMG_1.JPG", "IMG_1.png") in found


@pytest.mark.slow
def test_names_that_are_no_text(tmp_path, capsys):
    for side in ("A", "B"):
        (tmp_path / f"train{side}").mkdir()
        for i in range(4):
            save(tmp_path / "x.png", noise(20, 24, 3, seed=i))
            os.rename(tmp_path / "x.png", os.fsencode(tmp_path / f"train{side}") + b"/caf\xe9_%d.png" % i)
    config = small_config(
        **{"data__source": "folders", "data__dir": str(tmp_path), "data__val_split": "", "data__direction": "AtoB"}
    )
    data = load(config)
    assert data.num_train == 4 and len(data.fingerprint) == 8
    assert take(data.train(0), 2)[1]["real_a"].shape == (4, 16, 16, 3)
    target = next((tmp_path / "trainA").iterdir())
    target.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load(config)
    assert "caf" in str(caught.value).encode("utf-8", "backslashreplace").decode()
    assert run_command(command, "facades", *overrides(config.data), f"--output={tmp_path / 'out'}") == 1
    assert r"caf\udce9" in capsys.readouterr().out


def overrides(data):
    return [f"--config.data.{key}={data[key]}" for key in ("source", "dir", "val_split", "direction")]


def test_hidden_files_are_left_out_everywhere_and_counted(tmp_path, capsys):
    write(tmp_path, "trainA/x.png", "trainB/x.png")
    for path in ("trainA/._x.png", "trainB/._x.png", "trainA/.hidden/y.png", "trainA/__MACOSX/trainA/z.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_bytes(b"\x00\x05\x16\x07")
    assert names(layouts.find(data_of(tmp_path), "train")) == [("x.png", "x.png")]
    assert "trainA: 1 image; not images, left out: 1 hidden" in capsys.readouterr().out
    assert [job.source.name for job in plan(str(tmp_path / "trainA"), tmp_path / "out")] == ["x.png"]


def test_links_to_folders_are_followed_once(tmp_path):
    write(tmp_path, "real/a.png", "real/more/b.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "one").symlink_to(tmp_path / "real")
    (tmp_path / "train" / "two").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "round").symlink_to(tmp_path / "train")
    found = files.list_images(tmp_path / "train")
    assert sorted(path.name for path in found) == ["a.png", "b.png"]
    assert len(plan(str(tmp_path / "train"), tmp_path / "out")) == 2


def test_dead_links_are_named(tmp_path):
    write(tmp_path, "trainA/x.png", "trainB/x.png", "trainA/y.png")
    (tmp_path / "trainB" / "y.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"trainB/y\.png is a link to .*gone\.png, which is not there"):
        make_source(data_of(tmp_path), "train")
    report = inspection.inspect(small_config(data__source="folders", data__dir=str(tmp_path), data__val_split=""))
    assert any("is a link to" in error for error in report.errors)


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "mine/trainA/x.png", "mine/trainB/x.png")
    assert len(layouts.find(data_of("~/mine"), "train").a) == 1
    apart = data_of("", dir_a="~/mine/trainA", dir_b="~/mine/trainB")
    assert len(layouts.find(apart, "train").a) == 1


def test_images_of_other_formats_are_a_warning(tmp_path):
    write(tmp_path, *(f"train{side}/{i}.png" for side in "AB" for i in range(4)))
    (tmp_path / "trainA" / "4.gif").write_bytes(b"GIF89a")
    (tmp_path / "trainA" / "5.dng").write_bytes(b"II*\0")
    config = small_config(**{"data__source": "folders", "data__dir": str(tmp_path), "data__val_split": ""})
    told = [warning for warning in inspection.inspect(config).warnings if "unsupported" in warning]
    assert told == [f"{tmp_path / 'trainA'}: images in unsupported formats are left out (1 .dng, 1 .gif); convert them"]


# -- Layouts


def test_two_folders_anywhere(tmp_path):
    write(tmp_path, "p/photos/1.jpg", "p/photos/2.jpg", "q/maps/1.png", "q/maps/2.png")
    data = data_of(tmp_path, dir_a="p/photos", dir_b=str(tmp_path / "q" / "maps"), val_fraction=0.5)
    train, val = (layouts.find(data, split) for split in ("train", "val"))
    assert sorted(names(train) + names(val)) == [("1.jpg", "1.png"), ("2.jpg", "2.png")]
    unpaired = data_of(tmp_path, source="unpaired", dir_a="p/photos", dir_b="q/maps", val_split="")
    assert [len(side) for side in layouts.find(unpaired, "train").sides] == [2, 2]


@pytest.mark.parametrize(("a", "b"), [("rgb", "label"), ("color", "depth")])
def test_folders_of_other_names(tmp_path, a, b):
    for split in ("train", "val"):
        write(tmp_path, *(f"{split}/{side}/{i}.png" for side in (a, b) for i in range(3)))
    data = data_of(tmp_path, dir_a=f"{{split}}/{a}", dir_b=f"{{split}}/{b}")
    for split in ("train", "val"):
        layout = layouts.find(data, split)
        assert len(layout.a) == 3 and layout.a[0].parent == tmp_path / split / a


def test_a_star_stands_for_scenes(tmp_path):
    write(tmp_path, *(f"scene{s}/{side}/{i}.png" for s in (1, 2) for side in ("rgb", "depth") for i in (1, 2)))
    layout = layouts.find(data_of(tmp_path, dir_a="*/rgb", dir_b="*/depth", val_split=""), "train")
    assert len(layout.a) == 4
    for a, b in zip(layout.a, layout.b, strict=True):
        assert (a.parent.parent, a.name) == (b.parent.parent, b.name)


def test_folders_that_tell_partners_are_never_mixed_up(tmp_path):
    write(tmp_path, "trainA/cat/1.png", "trainA/dog/2.png", "trainB/cat/1.png", "trainB/cow/2.png")
    with pytest.raises(InputError, match="2 of 2 . 2 images have no partner"):
        layouts.find(data_of(tmp_path), "train")
    write(tmp_path / "other", "trainA/x/1.png", "trainB/1.png")  # here only the names tell
    assert names(layouts.find(data_of(tmp_path / "other"), "train")) == [("1.png", "1.png")]


def test_cityscapes_as_it_is_published(tmp_path):
    trees.cityscapes(tmp_path)
    data = data_of(
        tmp_path,
        dir_a="leftImg8bit/{split}",
        dir_b="gtFine/{split}",
        suffix_a="_leftImg8bit",
        suffix_b="_gtFine_labelIds",
    )
    layout = layouts.find(data, "train")
    assert len(layout.a) == 8
    for a, b in zip(layout.a, layout.b, strict=True):
        assert a.name.removesuffix("_leftImg8bit.png") == b.name.removesuffix("_gtFine_labelIds.png")
        assert a.parent.name == b.parent.name


def test_one_stem_with_two_endings(tmp_path):
    trees.cmp_base(tmp_path / "base")
    data = data_of(tmp_path / "base", source="suffixes", suffix_a=".jpg", suffix_b=".png", val_fraction=0.25)
    train, val = (layouts.find(data, split) for split in ("train", "val"))
    assert (len(train.a), len(val.a)) == (9, 3)
    assert all(a.stem == b.stem and a.suffix == ".jpg" for a, b in names_as_paths(train))
    with pytest.raises(InputError, match="have the same stem.*suffix_a"):
        layouts.find(data_of(tmp_path, dir_a="base", dir_b="base", val_split=""), "train")


def names_as_paths(layout):
    return zip(layout.a, layout.b, strict=True)


def test_a_share_for_validation_is_a_matter_of_names(tmp_path):
    write(tmp_path, *(f"{i}.png" for i in range(20)))
    data = data_of(tmp_path, source="photos", val_fraction=0.2)
    train, val = ({p.name for p in layouts.find(data, split).a} for split in ("train", "val"))
    assert len(val) == 4 and len(train) == 16 and not train & val
    (tmp_path / "moved").mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / "moved" / path.name)
    moved = data_of(tmp_path / "moved", source="photos", val_fraction=0.2)
    assert {p.name for p in layouts.find(moved, "val").a} == val
    write(tmp_path / "moved", "new.png")  # one image more changes hardly anything
    assert len({p.name for p in layouts.find(moved, "val").a} & val) >= 3
    layout = layouts.find(moved, "train")
    assert layout.a is layout.b  # one file an example, as before


def test_a_share_and_a_folder_are_one_too_many(tmp_path):
    write(tmp_path, *(f"{split}/{i}.png" for split in ("train", "val") for i in range(4)))
    with pytest.raises(InputError, match=r"val_fraction=0\.25 takes images of train .* has images of val as well"):
        layouts.find(data_of(tmp_path, source="photos", val_fraction=0.25), "train")
    with pytest.raises(InputError, match="leaves none to train on"):
        layouts.find(data_of(tmp_path, source="photos", val_split="none", val_fraction=0.99), "train")


def test_no_split_is_another_in_silence(tmp_path):
    write(tmp_path, "rgb/1.png", "rgb/2.png", "depth/1.png", "depth/2.png")
    data = data_of(tmp_path, dir_a="rgb", dir_b="depth")
    assert len(layouts.find(data, "train").a) == 2
    for split in ("val", "test"):
        with pytest.raises(InputError, match=rf"dir_a=rgb is the same for train and {split}: write \{{split\}}"):
            layouts.find(data, split)
    (tmp_path / "pairs.csv").write_text("a,b\nrgb/1.png,depth/1.png\n")
    with pytest.raises(InputError, match=r"config\.data\.dir=.*pairs\.csv is the same for train and val"):
        layouts.find(data_of(tmp_path / "pairs.csv", source="csv"), "val")


@pytest.mark.parametrize(
    ("written", "encoding"),
    [
        ("a;b\nx/1.png;y/1.png\n", "utf-8"),
        ("a\tb\nx/1.png\ty/1.png\n", "utf-8"),
        ("a\tb\r\nx/1.png\ty/1.png\r\n", "utf-16"),
        ("A,B\nx\\1.png,y\\1.png\n", "utf-8-sig"),
        ('"b";"a"\n"y/1.png";"x/1.png"\n', "utf-8"),
        ("id,a,b\n7,./x/1.png, y/1.png\n\n", "utf-8"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, written, encoding):
    write(tmp_path, "x/1.png", "y/1.png")
    (tmp_path / "train.csv").write_bytes(written.encode(encoding))
    layout = layouts.find(data_of(tmp_path, source="csv", val_split=""), "train")
    assert [path.parent.name for path in (*layout.a, *layout.b)] == ["x", "y"]
    again = layouts.find(data_of(tmp_path / "train.csv", source="csv", val_split=""), "train")
    assert again == layout


# -- Two resolutions


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "scale_width_and_crop"])
@pytest.mark.parametrize("resident", [False, True])
def test_pairs_of_two_resolutions(tmp_path, preprocess, resident):
    for i in range(4):
        image = noise(24, 32, 3, seed=i)
        save(tmp_path / "trainA" / f"{i}.png", image)
        save(tmp_path / "trainB" / f"{i}.png", np.repeat(np.repeat(image, 2, axis=0), 2, axis=1))
    config = small_config(
        data__source="folders",
        data__dir=str(tmp_path),
        data__val_split="",
        data__preprocess=preprocess,
        data__resident=resident,
        data__direction="AtoB",
    )
    for batch in take(load(config).train(0), 2):
        a, b = batch["real_a"], batch["real_b"]
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9
        if preprocess == "crop":  # of the larger image as it is, whose pixels stand in fours
            assert (b[:, :, 1:] == b[:, :, :-1]).mean() > 0.4
    save(tmp_path / "trainB" / "0.png", noise(48, 90, 3))
    with pytest.raises(InputError, match="32x24 pixels but its partner .* is 90x48; both .* must have the same shape"):
        load(config)


# -- What inspect proposes


def options_of(sentences):
    """Return the options that sentences propose."""
    return [word for sentence in sentences for word in shlex.split(sentence) if word.startswith("--config.")]


def drawn(kind, root):
    """Draw a data set; returns its folder."""
    draw = getattr(trees, kind, None)
    if draw:
        draw(root / kind)
    elif kind == "side_by_side":
        write_wide(root / kind)
    elif kind == "scenes":
        write(root / kind, *(f"s{s}/{side}/{i}.png" for s in range(4) for side in ("rgb", "depth") for i in range(4)))
    elif kind == "splits":
        for split in ("training", "validation"):
            write(root / kind, *(f"{split}/{side}/{i}.png" for side in ("rgb", "label") for i in range(6)))
    elif kind == "unpaired":
        write(root / kind, *(f"apples/a{i}.png" for i in range(12)), *(f"oranges/x{i}.png" for i in range(14)))
    return root / kind


def write_wide(root):
    for split in ("train", "test"):
        for i in range(6):
            save(root / split / f"{i}.png", noise(20, 40, 3, seed=i))


KINDS = {
    "cityscapes": ("folders", (8, 4)),
    "cmp_base": ("suffixes", (11, 1)),
    "drive": ("folders", (11, 1)),
    "scenes": ("folders", (14, 2)),
    "splits": ("folders", (6, 6)),
    "side_by_side": ("side_by_side", (6, 6)),
    "unpaired": ("unpaired", (11, 1)),
    "forty_sizes": ("photos", (36, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_that_is_proposed_fits(kind, tmp_path, capsys):
    root, (source, counts) = drawn(kind, tmp_path), KINDS[kind]
    report = inspection.inspect(
        load_with_overrides("facades", [f"--config.data.dir={root}", "--config.data.source=csv"])
    )
    found = options_of(report.suggestions)
    base = "horse2zebra" if source == "unpaired" else "facades"
    data = load_with_overrides(base, [f"--config.data.dir={root}", *found]).data
    assert data.source == source
    train, val = (layouts.find(data, split) for split in (data.train_split, data.val_split))
    assert (len(train.a), len(val.a)) == counts
    if kind == "cityscapes":
        assert data.suffix_b == "_gtFine_labelIds" and train.a[0].parent.parent.parent.name == "leftImg8bit"
    if kind == "scenes":
        assert (data.dir_a, data.dir_b) == ("*/rgb", "*/depth")


def test_nothing_is_proposed_for_an_empty_folder(tmp_path):
    assert proposals.propose(data_of(tmp_path)) == []


def test_a_zip_of_a_mac_is_read_after_unpacking(tmp_path):
    write(tmp_path / "set", *(f"train{side}/größe {i}.png" for side in "AB" for i in range(3)))
    trees.mac_zip(tmp_path / "set.zip", tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    layout = layouts.find(data_of(tmp_path / "unpacked" / "set"), "train")
    assert len(layout.a) == 3 and all(re.match("gro.?.?ße", path.name) for path in layout.a)


def test_key_of_a_file():
    assert matching.key_of(["city", "x_A.png"], "_A") == ("city", "x")
    assert matching.key_of(["x.JPG"], ".jpg") == ("x",)
    assert matching.key_of(["x.png"], ".jpg") is None
    assert matching.key_of([Path("x.tar.png").name], "") == ("x.tar",)


# -- What a second pair of eyes found


def test_links_that_lead_round(tmp_path):
    write(tmp_path, "trainA/x.png", "trainB/x.png")
    (tmp_path / "trainA" / "round.png").symlink_to("round.png")
    with pytest.raises(InputError, match=r"round\.png (is a link|cannot be read)"):
        make_source(data_of(tmp_path, source="unpaired"), "train")


def test_suffixes_with_a_dot_and_in_capitals(tmp_path):
    write(tmp_path, "train/0_0.5.png", "train/0_1.0.png", "train/1_0.5.png", "train/1_1.0.png")
    data = data_of(tmp_path, source="suffixes", suffix_a="_0.5", suffix_b="_1.0")
    assert names(layouts.find(data, "train")) == [("0_0.5.png", "0_1.0.png"), ("1_0.5.png", "1_1.0.png")]
    assert matching.key_of(["x_rgb.png"], "_RGB") == ("x",)


def test_a_home_that_nobody_has_is_a_name(tmp_path):
    write(tmp_path, "~a/x.png", "~b/x.png")
    layout = layouts.find(data_of(tmp_path, dir_a="~a", dir_b="~b", val_split=""), "train")
    assert names(layout) == [("x.png", "x.png")]
    with pytest.raises(InputError, match="there is no folder ~nobody_at_all"):
        layouts.find(data_of("~nobody_at_all/x"), "train")


def test_tables_name_files_as_people_see_them(tmp_path):
    write(tmp_path, unicodedata.normalize("NFD", "x/Größe.PNG"), "y/1.png")
    (tmp_path / "train.csv").write_text("sep=;\na;b\nx/größe.png;y/1.PNG\n", encoding="utf-8")
    layout = layouts.find(data_of(tmp_path, source="csv", val_split=""), "train")
    assert [path.is_file() for path in (*layout.a, *layout.b)] == [True, True]
    (tmp_path / "train.csv").write_text("a;b\nx/" + "n" * 300 + ";y/1.png\n")
    with pytest.raises(InputError, match="line 2: there is no file"):
        layouts.find(data_of(tmp_path, source="csv", val_split=""), "train")


def test_capital_letters_tell_some_files_apart_and_others_not(tmp_path):
    write(tmp_path, *(f"train{side}/{name}.png" for side in "AB" for name in ("Case", "case")))
    write(tmp_path, "trainA/UP.png", "trainB/up.png")
    found = set(names(layouts.find(data_of(tmp_path), "train")))
    assert found == {("Case.png", "Case.png"), ("case.png", "case.png"), ("UP.png", "up.png")}


def test_containers_take_no_options_of_folders(tmp_path):
    write(tmp_path, "train/x.png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "train" / "x.png", "train/x.png")
    for change in ({"val_fraction": 0.5}, {"dir_a": "x"}, {"suffix_b": "_x"}):
        with pytest.raises(InputError, match=f"config.data.{next(iter(change))} is for folders"):
            make_source(data_of(tmp_path / "x.zip", source="zip/photos", **change), "train")


@pytest.mark.parametrize("source", ["side_by_side", "photos"])
def test_sides_in_folders_are_not_taken_for_examples_in_silence(tmp_path, source):
    write(tmp_path, *(f"train/{side}/{i}.png" for side in ("sat", "map") for i in range(4)))
    config = small_config(data__source=source, data__dir=str(tmp_path), data__val_split="", data__direction="AtoB")
    told = f"{tmp_path}/train/map and {tmp_path}/train/sat hold images of the same names"
    assert any(warning.startswith(told) for warning in inspection.inspect(config).warnings)
    notes = inspection.quick({"train": layouts.find(config.data, "train")}, of_files(config.data), config.data)
    assert any(note.startswith(told) for note in notes)
    write(tmp_path / "other", "train/2023/1.png", "train/2023/2.png", "train/2024/3.png", "train/2024/4.png")
    layout = layouts.find(data_of(tmp_path / "other", source=source), "train")
    assert list(doubts.describe_folders(layout)) == []


def proposal(root):
    return options_of(proposals.propose(data_of(root, source="csv")))


def test_scenes_and_frames_are_not_taken_for_sides(tmp_path):
    write(tmp_path / "a", *(f"scene{s}/{name}.png" for s in range(4) for name in ("in", "gt")))
    found = proposal(tmp_path / "a")
    assert {"--config.data.suffix_a=in", "--config.data.suffix_b=gt"} <= set(found)
    data = load_with_overrides("facades", [f"--config.data.dir={tmp_path / 'a'}", *found]).data
    assert names(layouts.find(data, "train")) == [("in.png", "gt.png")] * 3
    rooms = [f"{room}_000{i}" for room in ("kitchen", "bath", "hall") for i in (1, 2)]
    write(tmp_path / "b", *(f"{room}/{name}.png" for room in rooms for name in "xyz"))
    assert not any("kitchen" in option for option in proposal(tmp_path / "b"))


def test_splits_that_are_proposed_have_both_sides(tmp_path):
    write(tmp_path, *(f"training/{side}/{i}.png" for side in ("image", "label") for i in range(9)))
    write(tmp_path, *(f"testing/image/{i}.png" for i in range(4)))
    found = proposal(tmp_path)
    assert "--config.data.train_split=training" in found and "--config.data.val_fraction=0.1" in found
    assert not any("val_split" in option for option in found)


def test_proposals_are_written_as_shells_read_them(tmp_path):
    write(tmp_path, *(f"bob's {side}/{i}.png" for side in ("image", "mask") for i in range(6)))
    data = data_of(tmp_path, source="csv")
    assert "--config.data.dir_a=bob's image" in options_of(proposals.propose(data))
    (tmp_path / "bob's mask" / "5.png").unlink()
    write(tmp_path, *(f"bob's {side}/{i}.png" for side in ("image", "mask") for i in range(10, 22)))
    assert "17 pairs (1 more have no partner" in proposals.propose(data)[0]
