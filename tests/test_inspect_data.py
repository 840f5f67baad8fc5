"""Every fault that people plant in their data is found and named, and nothing is found in good data."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from p2p_jax.commands import inspect as command
from p2p_jax.commands.inspect import describe
from p2p_jax.data import layouts
from p2p_jax.data.inspect import inspection, measures
from p2p_jax.data.spread import evenly
from p2p_jax.data.toy.facades import render
from p2p_jax.images.domains import Domain, of_files
from p2p_jax.images.formats import Stored
from support.configs import small_config
from support.images import noise, save
from support.runs import run_command

REAL = Path(os.environ.get("P2P_JAX_TEST_DATA", "")) / "facades"
COUNTS = {"train": 8, "val": 4}
FOLDERS = ["source=folders", "crop_size=16", "load_size=18"]
FLOATS = [*FOLDERS, "input.kind=float", "input.channels=2", "direction=AtoB"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Toy facades, photographs as A and labels as B; in floats/ A are depths in TIFF files."""
    root = tmp_path_factory.mktemp("clean")
    rng = np.random.RandomState(0)
    for split, count in COUNTS.items():
        for i in range(count):
            toy = render(i, split, 32)
            save(root / "pairs" / f"{split}A" / f"{i}.png", toy.photo)
            save(root / "pairs" / f"{split}B" / f"{i}.png", toy.labels)
            save(root / "floats" / f"{split}A" / f"{i}.tif", rng.uniform(-1, 1, (32, 32, 2)).astype(np.float32))
            save(root / "floats" / f"{split}B" / f"{i}.png", toy.photo)
    return root


def inspect(root, capsys, options=FOLDERS):
    """Run the command; returns exit status, what it prints and what it writes."""
    output = root / "inspected"
    argv = ["--config=facades", f"--config.data.dir={root}", f"--output={output}"]
    status = run_command(command, *argv, *(f"--config.data.{option}" for option in options))
    return status, capsys.readouterr().out, json.loads((output / "inspection.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "options"), [("pairs", FOLDERS), ("floats", FLOATS)])
def test_nothing_is_found_in_good_data(clean, tmp_path, capsys, folder, options):
    root = shutil.copytree(clean / folder, tmp_path / folder)
    status, out, report = inspect(root, capsys, options)
    assert status == 0
    assert (report["errors"], report["warnings"], report["suggestions"]) == ([], [], [])
    assert "0 errors\n0 warnings\n0 suggestions\n" in out
    assert "train: 8 pairs" in out and "val: 4 pairs" in out and "test" not in report["facts"]["splits"]
    assert "8 with 2 channels of float32" in out if folder == "floats" else "8 with 3 channels of uint8" in out
    sheet = np.asarray(Image.open(root / "inspected" / "sheet.png"))
    assert sheet.shape[2] == 3 and len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_truncated_jpeg(root):
    (root / "trainA" / "3.png").unlink()
    save(root / "trainA" / "3.jpg", render(3, "train", 32).photo)
    cut(root / "trainA" / "3.jpg")


def plant_infinite(root):
    pixels = tifffile.imread(root / "trainA" / "3.tif")
    pixels[5, 6, 1] = np.inf
    save(root / "trainA" / "3.tif", pixels)


def copy_pair(root):
    for side in "AB":
        shutil.copy(root / f"train{side}" / "3.png", root / f"val{side}" / "leaked.png")


def swap(root):
    a, b = (root / f"train{side}" / "3.png" for side in "AB")
    kept = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(kept)


def empty(root):
    for path in (root / "valB").iterdir():
        path.unlink()


# The twelve faults: how they are planted, where, and the lines that tell of them.
ERRORS = {
    "missing partner": (lambda d: (d / "trainB" / "3.png").unlink(), "pairs", ["trainA/3.png has no partner; add"]),
    "truncated JPEG": (save_truncated_jpeg, "pairs", ["trainA/3.jpg cannot be read as an image"]),
    "zero bytes": (lambda d: (d / "trainA" / "3.png").write_bytes(b""), "pairs", ["trainA/3.png cannot be read"]),
    "channels": (
        lambda d: save(d / "trainA" / "3.tif", np.ones((32, 32, 5), np.float32)),
        "floats",
        ["trainA/3.tif has 5 channels, but this side takes 2"],
    ),
    "infinite": (plant_infinite, "floats", ["trainA/3.tif holds numbers that are not finite"]),
    "transparent": (
        lambda d: save(d / "trainA" / "3.png", np.full((32, 32, 4), 7, np.uint8)),
        "pairs",
        ["trainA/3.png has transparent parts (100.0% of its pixels)", "set config.data.background=white"],
    ),
    "leak": (copy_pair, "pairs", ["valA/leaked.png is the same as ", "trainA/3.png: val and train must have nothing"]),
    "other size": (
        lambda d: save(d / "trainB" / "3.png", np.zeros((32, 40, 3), np.uint8)),
        "pairs",
        ["trainA/3.png is 32x32 pixels but its partner ", "trainB/3.png is 40x32"],
    ),
    "16 bits": (
        lambda d: save(d / "trainA" / "3.png", np.arange(1024, dtype=np.uint16).reshape(32, 32)),
        "pairs",
        ["trainA/3.png has 16 bits (uint16), but this side is declared uint8"],
    ),
    "empty split": (empty, "pairs", ["no image in ", "valB ", "it is empty"]),
}
WARNINGS = {
    "constant": (
        lambda d: save(d / "trainA" / "3.png", np.full((32, 32, 3), 7, np.uint8)),
        "pairs",
        ["trainA/3.png: all pixels have the value 7, 7, 7"],
    ),
    "swapped": (swap, "pairs", ["trainA/3.png looks like the B of the other pairs, and ", "are they swapped?"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*ERRORS, *WARNINGS])
def test_a_planted_fault_is_found_alone(clean, tmp_path, capsys, fault):
    plant, folder, words = (ERRORS | WARNINGS)[fault]
    root = shutil.copytree(clean / folder, tmp_path / folder)
    plant(root)
    status, out, report = inspect(root, capsys, FLOATS if folder == "floats" else FOLDERS)
    assert status == (1 if fault in ERRORS else 0)
    sentences = {kind: report[kind] for kind in ("errors", "warnings")}
    told = sentences["errors"] if fault in ERRORS else sentences["warnings"]
    assert len(told) == 1 and sum(map(len, sentences.values())) == 1
    for word in words:
        assert word in told[0]
    assert told[0] in out
    assert (root / "inspected" / "sheet.png").exists() and "cannot draw the sheet" not in out
    is_whole = fault in (*WARNINGS, "leak", "empty split")  # for training
    assert ("as the network gets them, without those that cannot be used" in out) != is_whole


@pytest.mark.slow
def test_all_faults_of_a_set_are_told_at_once(clean, tmp_path, capsys):
    root = shutil.copytree(clean / "pairs", tmp_path / "pairs")
    (root / "trainA" / "1.png").unlink()
    cut(root / "trainA" / "2.png")
    shutil.copy(root / "trainB" / "4.png", root / "trainA" / "4.png")
    shutil.copy(root / "trainA" / "5.png", root / "valA" / "0.png")
    shutil.copy(root / "trainA" / "6.png", root / "trainA" / "7.png")
    shutil.copy(root / "trainB" / "6.png", root / "trainB" / "7.png")
    (root / "testA").mkdir()
    status, out, report = inspect(root, capsys)
    assert status == 1
    for error in ("trainB/1.png has no partner", "trainA/2.png cannot be read"):
        assert sum(error in sentence for sentence in report["errors"]) == 1
    others = [warning for warning in report["warnings"] if "swapped" not in warning]
    assert "has no pair of folders test/A" in others.pop(1)  # training does without it
    assert [warning.replace(str(root), "") for warning in others] == [
        "/trainA/4.png and /trainB/4.png: A and B are the same image",
        "/trainA/7.png is the same as /trainA/6.png",
        "1 image of A in val also is in train, with another partner (/valA/0.png)",
    ]
    assert f"{len(report['errors'])} errors" in out


@pytest.mark.slow
def test_nothing_can_be_learnt_where_both_images_are_the_same(clean, tmp_path, capsys):
    root = shutil.copytree(clean / "pairs", tmp_path / "pairs")
    for split in COUNTS:
        shutil.rmtree(root / f"{split}B")
        shutil.copytree(root / f"{split}A", root / f"{split}B")
    status, _, report = inspect(root, capsys)
    assert status == 1
    assert [error[:61] for error in report["errors"]] == [
        "A and B are the same image in all 8 pairs of train, such as " + str(root)[:1],
        "A and B are the same image in all 4 pairs of val, such as " + str(root)[:3],
    ]


@pytest.mark.slow
def test_a_folder_that_training_does_not_use_is_no_error(clean, tmp_path, capsys):
    shutil.copytree(clean / "pairs", tmp_path / "data")
    (tmp_path / "data" / "test").mkdir()
    Image.new("RGB", (17, 20)).save(tmp_path / "data" / "test" / "input.png")
    status, out, report = inspect(tmp_path / "data", capsys)
    assert (status, report["errors"]) == (0, [])
    assert len(report["warnings"]) == 1 and "has no pair of folders test/A" in report["warnings"][0]


def test_what_many_files_have_in_common_does_not_hide_the_rest():
    errors = [f"{i}.png has 16 bits" for i in range(400)] + ["x.png has no partner"]
    lines = list(
        describe(inspection.Inspection(errors, [], [], {"source": "x", "dir": "", "direction": "", "splits": {}}))
    )
    assert lines[1:] == [
        "401 errors",
        *(f"  {i}.png has 16 bits" for i in range(5)),
        "  x.png has no partner",
        "  ... and 395 more in inspection.json",
        "0 warnings",
        "0 suggestions",
    ]


@pytest.mark.slow
def test_facts_are_those_of_the_files(clean, tmp_path, capsys):
    root = shutil.copytree(clean / "floats", tmp_path / "floats")
    facts = inspect(root, capsys, FLOATS)[2]["facts"]["splits"]["train"]
    pixels = np.stack([tifffile.imread(path) for path in (root / "trainA").iterdir()])
    assert (facts["count"], facts["looked_at"]) == ([8], [8, 8])
    assert facts["sizes"] == {"most common": [32, 32], "share": 1.0, "smallest": [32, 32], "largest": [32, 32]}
    assert facts["stored"] == [{"2 channels of float32": 8}, {"3 channels of uint8": 8}]
    for i, channel in enumerate(facts["A"]["channels"]):
        found = [channel[key] for key in ("min", "max", "mean")]
        expected = [pixels[..., i].min(), pixels[..., i].max(), pixels[..., i].mean()]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert sum(channel["histogram"]) == 8 * 256
    assert facts["A"]["range"] == [pixels.min(), pixels.max()]


def inspection_of(a, b, tmp_path, **changes):
    """Inspect pairs of arrays, as files."""
    for side, images in zip("AB", (a, b), strict=True):
        for i, image in enumerate(images):
            save(tmp_path / f"train{side}" / f"{i}.tif", image)
    options = {"source": "folders", "dir": str(tmp_path), "val_split": "", "direction": "AtoB"} | changes
    return inspection.inspect(small_config(**{f"data__{key}": value for key, value in options.items()}))


SUGGESTIONS = {
    "12 of 16 bits": (
        noise(6, 20, 20, 1, low=0, high=4000, dtype=np.uint16),
        {"input__kind": "uint16", "input__channels": 1},
        "--config.data.input.range=0:4095",
    ),
    "part of a float range": (
        noise(6, 20, 20, 1, low=-3, high=12, dtype=np.float32),
        {"input__kind": "float", "input__channels": 1, "input__range": "-100:100"},
        "--config.data.input.range=-3:12",
    ),
    "16 bits": (
        noise(6, 20, 20, 4, low=0, high=4000, dtype=np.uint16),
        {},
        "--config.data.input.kind=uint16 --config.data.input.channels=4",
    ),
    "classes": (
        noise(6, 20, 20, 1, low=0, high=5),
        {"input__channels": 1},
        "--config.data.input.kind=labels --config.data.input.channels=5",
    ),
    "large": (noise(6, 64, 64, 3, low=0, high=256), {}, "--config.data.preprocess=crop"),
    "wide": (
        noise(6, 20, 40, 3, low=0, high=256),
        {"load_size": 20},
        "--config.data.load_width=40 --config.data.crop_width=32",
    ),
}


@pytest.mark.parametrize("name", SUGGESTIONS)
def test_suggestions(tmp_path, name):
    a, changes, option = SUGGESTIONS[name]
    b = noise(*a.shape[:3], 3, low=0, high=256)
    report = inspection_of(a, b, tmp_path, **changes)
    assert len(report.suggestions) == 1
    assert option in report.suggestions[0]


def test_labels_as_output_are_wondered_at(clean):
    config = small_config(data__source="folders", data__dir=str(clean / "pairs"), data__direction="AtoB")
    found = inspection.inspect(config).suggestions
    assert len(found) == 1
    assert found[0].startswith("B, the output, made from A, looks like label maps") and "direction=BtoA" in found[0]
    with config.unlocked():
        config.data.output.kind = "label_colors"
    assert inspection.inspect(config).suggestions == []


def test_values_beyond_what_is_declared(tmp_path):
    a = noise(6, 20, 20, 1, low=0, high=1000, dtype=np.uint16)
    b = noise(6, 20, 20, 1, low=0, high=6)
    changes = {
        "input__kind": "uint16",
        "input__channels": 1,
        "input__range": "0:900",
        "output__kind": "labels",
        "output__channels": 4,
    }
    warnings = inspection_of(a, b, tmp_path, **changes).warnings
    shares = [(a > 900).mean(), (b >= 4).mean()]
    assert warnings[0] == f"{shares[0]:.2%} of the values of A in train are outside the declared range and are clipped"
    assert warnings[1].startswith(f"{shares[1]:.2%} of the labels of B in train are 4 or more, so have no class")


@pytest.mark.slow
def test_sources_without_files_are_looked_at_too(tmp_path, monkeypatch, capsys):
    report = inspection.inspect(small_config(data__load_size=32, data__crop_size=32))
    assert (report.errors, report.warnings) == ([], [])
    assert report.facts["splits"]["train"]["count"] == [400] and report.facts["splits"]["train"]["looked_at"][0] == 200
    (tmp_path / "my_arrays.py").write_text(
        "import numpy as np\nfrom p2p_jax.data import unpaired_from_arrays\n"
        "def make(data, split):\n"
        "    noise = np.random.RandomState(0).randint(0, 256, (5, 16, 16, 3), np.uint8)\n"
        "    return unpaired_from_arrays(noise[:3], np.full((2, 8, 8, 3), 150, np.uint8))\n"
    )
    monkeypatch.chdir(tmp_path)
    report = inspection.inspect(small_config(data__source="my_arrays:make", data__val_split=""))
    assert report.facts["splits"]["train"]["count"] == [3, 2]
    assert report.warnings == ["2 images: all pixels have the value 150, 150, 150 (B0, B1)"]


@pytest.mark.slow
def test_photographs_are_all_that_is_looked_at_where_the_input_is_made_of_them(clean, tmp_path, capsys):
    for split in COUNTS:
        shutil.copytree(clean / "pairs" / f"{split}A", tmp_path / split)
    status, out, report = inspect(tmp_path, capsys, ["source=photos", "crop_size=32", "load_size=32", "direction=AtoB"])
    assert status == 0 and report["errors"] == report["warnings"] == []
    facts = report["facts"]["splits"]["train"]
    assert (facts["looked_at"], facts["stored"]) == ([0, 8], [{}, {"3 channels of uint8": 8}])
    assert "A" not in facts and "B out" in out and "A in" not in out


def looks_of(images):
    domain = Domain("uint8", 3, (0.0,) * 3, (255.0,) * 3)
    return [measures.look(Stored(image), domain, str(i)) for i, image in enumerate(images)]


def test_swapped_pairs_among_many(capsys):
    toys = [render(i, "train", 32) for i in range(40)]
    a, b = looks_of([toy.photo for toy in toys]), looks_of([toy.labels for toy in toys])
    assert measures.find_swapped(a, b) == []
    for i in (3, 17, 18):
        a[i], b[i] = b[i], a[i]
    assert measures.find_swapped(a, b) == [3, 17, 18]
    assert measures.find_swapped(a[::2], a[1::2]) == []


def test_the_quick_look_tells_in_a_line_each(clean, tmp_path):
    root = shutil.copytree(clean / "pairs", tmp_path / "pairs")
    data = small_config(data__source="folders", data__dir=str(root)).data

    def quick():
        return inspection.quick({s: layouts.find(data, s) for s in COUNTS}, of_files(data), data)

    assert quick() == []
    copy_pair(root)
    save(root / "trainB" / "5.png", np.zeros((32, 32, 3), np.uint8))
    shutil.copy(root / "trainA" / "6.png", root / "trainB" / "6.png")
    cut(root / "trainA" / "7.png")
    assert quick() == [
        "1 image of val also is in train (leaked.png = 3.png): validation scores look too good",
        f"of the 8 examples looked at, 1 is of one constant value ({root}/trainB/5.png)",
        f"of the 8 examples looked at, 1 is the same image as A and as B ({root}/trainA/6.png and {root}/trainB/6.png)",
    ]


def test_examples_are_taken_evenly():
    assert evenly(range(100), 4) == [0, 33, 66, 99]
    assert evenly(range(3), 4) == [0, 1, 2]
    assert evenly([], 4) == []


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="P2P_JAX_TEST_DATA names no folder with facades")
def test_the_facades_pass_clean(tmp_path, capsys):
    argv = ["--config=facades", f"--config.data.dir={REAL}", f"--output={tmp_path}"]
    assert run_command(command, *argv) == 0
    report = json.loads((tmp_path / "inspection.json").read_text())
    assert (report["errors"], report["warnings"], report["suggestions"]) == ([], [], [])
    assert [report["facts"]["splits"][split]["count"] for split in ("train", "val", "test")] == [[400], [100], [106]]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 4 * 256 + 3 * 4
    assert "train: 400 pairs" in capsys.readouterr().out
