"""What an inspection says of layouts, of many files at once, and of labels however they are stored."""

import shlex

import numpy as np
import pytest
from PIL import Image

from p2p_jax.commands import inspect as command
from p2p_jax.config import load_with_overrides
from p2p_jax.data import layouts
from p2p_jax.data.inspect import inspection
from p2p_jax.images import formats
from support.images import noise, save
from support.runs import run_command

UNPAIRED = "quickstart_cyclegan"


def options_of(sentence):
    return [word for word in shlex.split(sentence) if word.startswith("--config.")]


def report_of(root, *options, name="facades"):
    arguments = [f"--config.data.dir={root}", *(f"--config.data.{option}" for option in options)]
    return inspection.inspect(load_with_overrides(name, arguments))


def test_a_wrong_suffix_is_the_reason(tmp_path):
    for i in range(12):
        for side in ("rgb", "depth"):
            save(tmp_path / f"{i}_{side}.png", noise(20, 24, 3, seed=i))
    report = report_of(tmp_path, "source=suffixes", "suffix_a=_rbg", "suffix_b=_depth", "val_fraction=0.1")
    assert report.errors == [
        f"no name in {tmp_path} ends in _rbg (config.data.suffix_a); 12 of 24 end in _depth",
    ]
    assert "--config.data.suffix_a=_rgb" in report.suggestions[0]
    for i in range(12):
        (tmp_path / f"{i}_depth.png").rename(tmp_path / f"x{i}_depth.png")
    report = report_of(tmp_path, "source=suffixes", "suffix_a=_rgb", "suffix_b=_depth", "val_fraction=0.1")
    assert report.errors[0].startswith(f"24 files in {tmp_path}: each has no partner; add the missing image or remove")


def test_pairs_without_a_lonely_file_are_written(tmp_path):
    for i in range(12):
        for side in ("rgb", "depth"):
            save(tmp_path / side / f"{i}.png", noise(20, 24, 3, seed=i + 100 * (side == "rgb")))
    (tmp_path / "depth" / "5.png").unlink()
    sides = ["source=folders", "dir_a=rgb", "dir_b=depth", "val_fraction=0.25"]
    arguments = [f"--config.data.dir={tmp_path}", *(f"--config.data.{option}" for option in sides)]
    config = load_with_overrides("facades", arguments)
    report = inspection.inspect(config, output=tmp_path / "out")
    assert report.errors == [f"{tmp_path}/rgb/5.png has no partner; add the missing image or remove this one"]
    told = next(x for x in report.suggestions if x.startswith("the pairs without the 1 file that has no partner are"))
    options = options_of(told)
    assert options == [
        "--config.data.source=csv",
        f"--config.data.dir={tmp_path}/out/pairs",
        "--config.data.val_fraction=0",
    ]
    data = load_with_overrides("facades", [*arguments, *options]).data
    found = [layouts.find(data, split) for split in ("train", "val")]
    assert [len(layout.a) for layout in found] == [8, 3]
    assert {a.stem for layout in found for a in layout.a} == {str(i) for i in range(12)} - {"5"}
    assert all(a.stem == b.stem and a.parent.name == "rgb" for one in found for a, b in zip(one.a, one.b, strict=True))
    assert not any("written" in x for x in inspection.inspect(config).suggestions)  # nowhere to write


def test_the_direction_in_which_the_declared_kinds_fit(tmp_path):
    """By the alphabet heights are A, but the config declares bands as input and heights as output."""
    rng = np.random.RandomState(0)
    for i in range(6):
        for name in ("height", "optical"):
            (tmp_path / name).mkdir(exist_ok=True)
        formats.write(tmp_path / "height" / f"{i}.tif", rng.uniform(0, 9, (32, 32, 1)).astype(np.float32))
        formats.write(tmp_path / "optical" / f"{i}.tif", rng.randint(0, 9999, (32, 32, 4)).astype(np.uint16))
    given = [f"--config.data.dir={tmp_path}", "--config.data.load_size=32", "--config.data.crop_size=32"]

    def suggested(*others):
        config = load_with_overrides("bands", [*given, *others])
        return [options_of(sentence) for sentence in inspection.inspect(config).suggestions]

    folders = [f"--config.data.{x}" for x in ("source=folders", "dir_a=height", "dir_b=optical", "val_fraction=0.1")]
    assert suggested() == [[*folders, "--config.data.direction=BtoA"]]
    assert suggested("--config.data.direction=BtoA") == [folders]
    assert suggested(*folders) == [["--config.data.direction=BtoA"]]  # and not kinds that describe the reverse
    kinds = ["--config.data.output.kind=float", "--config.data.output.channels=4"]
    assert suggested(*kinds) == [folders]  # neither way fits
    for i in range(6):
        (tmp_path / "optical" / f"{i}.tif").rename(tmp_path / "optical" / f"a0_{i}x.tif")
        (tmp_path / "height" / f"{i}.tif").rename(tmp_path / "height" / f"b0_{i}.tif")
    found = inspection.inspect(load_with_overrides("bands", given), output=tmp_path / "out").suggestions
    assert not any("direction" in sentence for sentence in found)  # no pairs by their names


def test_a_missing_csv_is_not_to_be_renamed(tmp_path):
    save(tmp_path / "x.png", noise(8, 8, 3))
    (error, *_) = report_of(tmp_path, "source=csv").errors
    assert error == (
        f"there is no file {tmp_path}/train.csv; {tmp_path} holds no .csv file: write one with the columns a and b, or "
        "choose another config.data.source"
    )
    (tmp_path / "pairs.csv").write_text("a,b\n")
    assert "holds pairs.csv: rename a .csv file" in report_of(tmp_path, "source=csv").errors[0]


def test_what_is_left_out_is_told_once(tmp_path, capsys):
    for i in range(12):
        for side in ("rgb", "depth"):
            save(tmp_path / "set" / f"{i}_{side}.png", noise(32, 32, 3, seed=i))
    (tmp_path / "set" / "notes.txt").touch()
    for source in ("suffixes", "folders"):
        dirs = [f"dir_{side}=." for side in "ab"] if source == "folders" else []
        report_of(tmp_path / "set", f"source={source}", *dirs, "suffix_a=_rgb", "suffix_b=_depth", "val_fraction=0.1")
        assert capsys.readouterr().out.count("left out: 1 .txt") == 1


def test_the_same_fault_of_many_files_is_one_note(tmp_path, capsys):
    for i in range(24):
        save(tmp_path / "trainB" / f"{i:02d}.png", noise(20, 24, 3, seed=i))
        pixels = noise(20, 24, dtype=np.uint16, high=9000) if i % 2 else noise(20, 24, 3)
        save(tmp_path / "trainA" / f"{i:02d}.png", pixels)
    (error, *rest) = report_of(tmp_path, "source=folders", "val_split=", "direction=AtoB").errors
    assert error.startswith(
        f"12 files in {tmp_path}/trainA: each has 16 bits (uint16), but this side is declared uint8: "
    )
    assert error.count(".png") == 10 and error.endswith(", ...)") and not rest


def two_piles(root):
    for first, (folder, count) in enumerate((("my horses", 6), ("my zebras", 5), ("new", 2))):
        for i in range(count):
            save(root / folder / f"{folder[3:]}_{i}.png", noise(15, 20, 3, seed=10 * first + i))


def test_two_piles_are_proposed_by_the_names_that_they_have(tmp_path):
    two_piles(tmp_path)
    report = report_of(tmp_path, "source=unpaired", name=UNPAIRED)
    (told,) = report.suggestions
    assert told.startswith("my horses (6) and my zebras (5) are two piles (left out: new (2)): ")
    assert options_of(told) == [
        "--config.data.dir_a=my horses",
        "--config.data.dir_b=my zebras",
        "--config.data.val_fraction=0.1",
    ]
    chosen = [option.removeprefix("--config.data.") for option in options_of(told)]
    report = report_of(tmp_path, "source=unpaired", *chosen, name=UNPAIRED)
    assert (report.errors, report.facts["splits"]["train"]["count"]) == ([], [5, 4])


def test_a_width_that_squeezes_is_a_warning(tmp_path):
    two_piles(tmp_path)
    piles = ["source=unpaired", "dir_a=my horses", "dir_b=my zebras", "val_split="]
    sizes = ["load_size=16", "crop_size=16"]
    (warning,) = report_of(tmp_path, *piles, *sizes, "preprocess=scale_width_and_crop", name=UNPAIRED).warnings
    assert warning.startswith(f"11 of 11 images, such as {tmp_path}/my horses/horses_0.png (20x15), are too low")
    assert report_of(tmp_path, *piles, *sizes, "preprocess=scale_shortside_and_crop", name=UNPAIRED).warnings == []


@pytest.mark.slow
def test_the_sheet_leaves_out_what_cannot_be_used(tmp_path, capsys):
    two_piles(tmp_path)
    save(tmp_path / "my horses" / "cutout.png", np.full((15, 20, 4), 7, np.uint8))
    options = ["source=unpaired", "dir_a=my horses", "dir_b=my zebras", "val_split=", f"dir={tmp_path}"]
    arguments = [UNPAIRED, "--output", tmp_path / "out", *(f"--config.data.{option}" for option in options)]
    assert run_command(command, *arguments) == 1
    out = capsys.readouterr().out
    assert "cutout.png has transparent parts" in out and "network gets them, without those that cannot be used" in out
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 500


@pytest.mark.slow
def test_names_that_break_lines_break_none(tmp_path, capsys):
    for i in range(6):
        for side in "AB":
            save(tmp_path / f"train{side}" / f"x\n{i}.png", noise(32, 32, 3, seed=i + 100 * (side == "B")))
    (tmp_path / "trainA" / "x\n0.png").write_bytes(b"")
    save(tmp_path / "trainA" / "lonely\n.png", noise(8, 8, 3))
    arguments = ["--config=facades", f"--config.data.dir={tmp_path}", f"--output={tmp_path / 'out'}"]
    run_command(command, *arguments, "--config.data.source=folders", "--config.data.val_split=")
    out = capsys.readouterr().out
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith("errors"))
    count = int(lines[start].split()[0])
    assert all(line.startswith("  /") for line in lines[start + 1 : start + 1 + count])
    assert r"x\n0.png cannot be read" in out and r"lonely\n.png has no partner" in out


LABELS = {
    "numbers of 16 bits": (lambda i: blocks(i, 6).astype(np.uint16), "kind=labels", "channels=6"),
    "a mask of 16 bits": (
        lambda i: blocks(i, 2).astype(np.uint16) * 65535,
        "kind=labels",
        "channels=2",
        "numbers=0,65535",
    ),
    "instances": (lambda i: blocks(i, 6).astype(np.uint16) * 1001, "kind=labels", "channels=6", "numbers=instances"),
    "black and white": (
        lambda i: np.repeat(blocks(i, 2)[..., None] * np.uint8(255), 3, axis=2),
        "kind=labels",
        "channels=2",
        "palette=#000000,#ffffff",
    ),
    "a palette with opacity": (lambda i: transparent(blocks(i, 5)), "kind=labels", "channels=5"),
}


def blocks(seed, classes):
    return np.kron(noise(8, 8, low=0, high=classes, seed=seed), np.ones((4, 4), np.uint8)).astype(np.uint8)


def transparent(indices):
    image = Image.fromarray(indices).convert("P")
    image.putpalette(noise(15, seed=3).tolist())
    image.info["transparency"] = 0
    return image


def write_targets(root, draw):
    for i in range(6):
        save(root / "trainA" / f"{i}.png", noise(32, 32, 3, seed=i))
        drawn_ = draw(i)
        image = drawn_ if isinstance(drawn_, Image.Image) else Image.fromarray(drawn_)
        (root / "trainB").mkdir(exist_ok=True)
        image.save(root / "trainB" / f"{i}.png")


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_recognised_however_they_are_stored(kind, tmp_path):
    draw, *wanted = LABELS[kind]
    write_targets(tmp_path, draw)
    options = ["source=folders", "val_split=", "direction=AtoB", "load_size=32", "crop_size=32"]
    (sentence,) = report_of(tmp_path, *options).suggestions
    found = options_of(sentence)
    assert found == [f"--config.data.output.{option}" for option in wanted]
    report = report_of(tmp_path, *options, *(option.removeprefix("--config.data.") for option in found))
    assert (report.errors, report.suggestions) == ([], [])
    assert not any("no class" in warning for warning in report.warnings)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_depths_are_no_labels(dtype, tmp_path):
    high = 250 if dtype == np.uint8 else 9000
    y, x = np.mgrid[:32, :32]
    write_targets(tmp_path, lambda i: ((x + y * (1 + i / 9)) / 80 * high).astype(dtype))
    suggestions = report_of(tmp_path, "source=folders", "val_split=", "direction=AtoB").suggestions
    assert not any("labels" in sentence for sentence in suggestions)
