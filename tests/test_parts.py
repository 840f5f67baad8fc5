"""Evaluations in parts: put together they are what one process finds, and what does not belong together is named."""

import csv
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from p2p_jax import train
from p2p_jax.commands import evaluate as command
from p2p_jax.data import from_arrays
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate, fid_kid
from p2p_jax.evaluation import parts as parts_module
from p2p_jax.evaluation.gallery import Gallery, choose_rows
from p2p_jax.evaluation.gathering import of_whole
from p2p_jax.evaluation.set_metrics import SetMetric
from p2p_jax.images.palettes import CMP_FACADES, nearest_labels
from support.configs import small_config, small_cyclegan_config
from support.images import noise, save, write_facades
from support.runs import run_command


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Toy facades as side-by-side files, photograph left, of twice the size that the network sees."""
    folder = tmp_path_factory.mktemp("pairs")
    write_facades(folder, {"train": 4, "val": 2, "test": 13})
    return folder


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "facades"
    train(small_config(num_steps=2, data__source="side_by_side", data__dir=str(pairs)), workdir)
    return workdir


def sees_blue(images):
    """Label every pixel with the class whose colour is nearest: a segmenter that reads label maps."""
    return nearest_labels(images, CMP_FACADES)


class _Darkest:
    """The lowest value of all outputs, and how many targets there are: a metric of one's own that adds up."""

    def __init__(self, sets, folder):
        self.lowest, self.targets = 255, 0

    def output(self, place, image):
        self.lowest = min(self.lowest, int(image.min()))

    def target(self, place, image):
        self.targets += 1

    def kept(self):
        return [self.lowest, self.targets]

    def add(self, kept):
        self.lowest, self.targets = min(self.lowest, kept[0]), self.targets + kept[1]

    def result(self):
        return {"value": self.lowest, "targets": self.targets}


darkest = SetMetric("darkest", "darkest", "Lowest value.", of_whole(_Darkest), gather=_Darkest)
variety = SetMetric("variety", "variety", "Deviation.", lambda sets: {"deviation": float(np.std(sets.outputs))})


def in_parts(workdir, output, count, **options):
    """Evaluate in parts, the last one first, and put them together."""
    for i in range(count, 0, -1):
        evaluate(workdir, output=output, shard=f"{i}/{count}", **options)
    return evaluate(workdir, output=output, merge=True, **options)


def written(folder):
    """Return what is in the files of an evaluation, but for the time of writing."""
    results = json.loads((folder / "results.json").read_text())
    time = results.pop("created")
    page = (folder / "report.html").read_text().replace(time, "then")
    page = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "then", page)
    return results, (folder / "images.csv").read_text(), page


def assert_alike(one, other):
    """Compare folders to the bit."""
    for a, b in zip(written(one), written(other), strict=True):
        assert a == b


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 13])
def test_parts_of_pairs(run, tmp_path, count):
    options = {"split": "test", "segmenter": "test_parts:sees_blue"}
    options["metrics"] = ["histogram", "fcn", "test_parts:darkest"]
    evaluate(run, output=tmp_path / "whole", **options)
    found = in_parts(run, tmp_path / "parts", count, **options)
    assert_alike(tmp_path / "whole", tmp_path / "parts")
    assert found["set_metrics"]["darkest"]["targets"] == 13 == found["num_images"]
    assert [row["name"] for row in found["images"]] == sorted(f"house_{i}.png" for i in range(13))
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        "images.csv",
        "parts",
        "report.html",
        "results.json",
    ]


@pytest.mark.slow
def test_parts_without_pairs_whose_sides_are_of_two_lengths(tmp_path):
    for name, count in (("trainA", 4), ("trainB", 4), ("testA", 5), ("testB", 9)):
        for i in range(count):
            save(tmp_path / "images" / name / f"{name}_{i}.png", noise(16, 16, 3, seed=i + 10 * len(name)))
    data = {"data__source": "unpaired", "data__dir": str(tmp_path / "images"), "data__val_split": "test"}
    train(small_cyclegan_config(num_steps=1, **data), tmp_path / "run")
    for direction, parts in (("AtoB", 7), ("BtoA", 2)):
        options = {"metrics": ["histogram", "test_parts:darkest"], "direction": direction}
        evaluate(tmp_path / "run", output=tmp_path / f"{direction} whole", **options)
        found = in_parts(tmp_path / "run", tmp_path / f"{direction} parts", parts, **options)
        assert_alike(tmp_path / f"{direction} whole", tmp_path / f"{direction} parts")
        counts = [found["set_metrics"]["darkest"][name] for name in ("count", "targets")]
        assert counts == ([5, 9] if direction == "AtoB" else [9, 5])


@pytest.mark.slow
def test_parts_of_whole_images_and_of_labels(pairs, tmp_path):
    data = {"data__source": "side_by_side", "data__dir": str(pairs), "data__direction": "AtoB"}
    train(small_config(num_steps=1, data__preprocess="crop", **data), tmp_path / "run")
    options = {"split": "test", "metrics": ["labels"], "palette": "cmp_facades"}
    evaluate(tmp_path / "run", output=tmp_path / "whole", **options)
    found = in_parts(tmp_path / "run", tmp_path / "parts", 4, **options)
    assert found["seen"] == "whole images" and len(found["images"]) == 13
    assert_alike(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_parts_of_given_data(run, tmp_path):
    source = from_arrays(noise(11, 16, 16, 3, seed=1), noise(11, 16, 16, 3, seed=2))
    for name, data in (("source", source),):
        evaluate(run, output=tmp_path / name / "whole", data=data, metrics=["histogram"])
        in_parts(run, tmp_path / name / "parts", 3, data=data, metrics=["histogram"])
        assert_alike(tmp_path / name / "whole", tmp_path / name / "parts")


@pytest.mark.slow
def test_pictures_for_fid_are_those_of_one_run_in_its_order(run, tmp_path, monkeypatch):
    seen = []

    def record(fakes, reals, *, weights=None):
        for folder in (fakes, reals):
            seen.append([(p.name, np.asarray(Image.open(p)).tobytes()) for p in sorted(folder.rglob("*.png"))])
        return {"fid": 1.0}

    monkeypatch.setattr(fid_kid, "check", lambda weights: None)
    monkeypatch.setattr(fid_kid, "fid_kid", record)
    evaluate(run, split="test", metrics=["fid"])
    in_parts(run, tmp_path, 3, split="test", metrics=["fid"])
    assert len(seen) == 4 and seen[:2] == seen[2:]
    assert [len(side) for side in seen] == [13] * 4 and seen[0] != seen[1]


@pytest.mark.slow
def test_the_command(run, capsys):
    for i in (1, 2):
        assert run_command(command, run, "--split", "test", "--shard", f"{i}/2") == 0
    printed = capsys.readouterr().out
    assert "7 of 13 images of test" in printed and "6 of 13 images of test" in printed and "--merge" in printed
    folder = run / "evaluation" / "test_2"
    assert not (folder / "results.json").exists()
    assert sorted(p.name for p in (folder / "parts").iterdir()) == ["1_of_2.zip", "2_of_2.zip"]
    assert run_command(command, run, "--split", "test", "--merge") == 0
    with open(folder / "images.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == sorted(f"house_{i}.png" for i in range(13))
    assert "l1: " in capsys.readouterr().out
    again = written(folder)
    assert run_command(command, run, "--split", "test") == 0
    assert written(folder) == again


@pytest.fixture(scope="module")
def three_parts(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    for i in (1, 2, 3):
        evaluate(run, split="test", output=folder, shard=f"{i}/3", metrics=["histogram"])
    return folder


@pytest.fixture
def folder(three_parts, tmp_path):
    return shutil.copytree(three_parts, tmp_path / "out")


def merged(run, folder, **options):
    return evaluate(run, **{"split": "test", "output": folder, "merge": True, "metrics": ["histogram"]} | options)


@pytest.mark.slow
def test_missing_and_double_parts_are_named(run, folder, tmp_path):
    parts = folder / "parts"
    (parts / "2_of_3.zip").rename(tmp_path / "kept.zip")
    with pytest.raises(InputError, match=r"parts lacks the parts 2/3: make them with shard=2/3"):
        merged(run, folder)
    shutil.copy(parts / "1_of_3.zip", parts / "2_of_3.zip")
    with pytest.raises(InputError, match=r"1_of_3.zip and .*2_of_3.zip are both part 1/3|2_of_3.zip and .*1_of_3.zip"):
        merged(run, folder)
    shutil.copy(tmp_path / "kept.zip", parts / "2_of_3.zip")
    evaluate(run, split="test", output=folder, shard="1/2", metrics=["histogram"])
    with pytest.raises(InputError, match=r"1_of_2.zip is one of 2 parts and .*1_of_3.zip one of 3"):
        merged(run, folder)
    (parts / "1_of_2.zip").unlink()
    assert len(merged(run, folder)["images"]) == 13
    (parts / "3_of_3.zip").write_bytes((parts / "3_of_3.zip").read_bytes()[:200])
    with pytest.raises(InputError, match=r"3_of_3.zip is not a part of an evaluation, or is damaged"):
        merged(run, folder)
    with pytest.raises(InputError, match="there are no parts in"):
        merged(run, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture(scope="module")
def two_steps(pairs, tmp_path_factory):
    """A run with checkpoints of both of its steps, and two of three parts of its evaluation."""
    workdir = tmp_path_factory.mktemp("runs") / "facades"
    changes = {"num_steps": 2, "checkpoint_every": 1, "keep_checkpoints": 2}
    train(small_config(data__source="side_by_side", data__dir=str(pairs), **changes), workdir)
    for i in (1, 2):
        evaluate(workdir, split="test", output=workdir / "out", shard=f"{i}/3", metrics=["histogram"])
    return workdir, workdir / "out"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "3_of_3.zip has norm batch, but you asked for norm running"),
        ({"dropout": False}, "3_of_3.zip has dropout False"),
        ({"checkpoint": 1}, "3_of_3.zip has step 1, but you asked for step 2"),
        ({"data": from_arrays(noise(9, 16, 16, 3), noise(9, 16, 16, 3))}, "3_of_3.zip has num_images 9"),
        ({"metrics": ["histogram", "test_parts:darkest"]}, r"3_of_3.zip has metrics \['darkest', 'histogram'\]"),
        ({"tile": 16}, "3_of_3.zip has tile 16, but you asked for tile nothing"),
    ],
)
def test_parts_of_something_else_are_named(two_steps, tmp_path, options, message):
    run, folder = two_steps
    folder = shutil.copytree(folder, tmp_path / "out")
    evaluate(run, **{"split": "test", "output": folder, "shard": "3/3", "metrics": ["histogram"]} | options)
    with pytest.raises(InputError, match=message):
        merged(run, folder)


@pytest.mark.slow
def test_parts_of_other_images_are_named(run, folder, pairs, tmp_path):
    others = shutil.copytree(pairs, tmp_path / "others")
    save(others / "test" / "house_4.png", noise(32, 64, 3))
    assert len(merged(run, folder, data_dir=str(shutil.copytree(pairs, tmp_path / "moved")))["images"]) == 13
    with pytest.raises(InputError, match="_of_3.zip has images "):
        merged(run, folder, data_dir=str(others))


@pytest.mark.slow
def test_what_cannot_be_done_in_parts_is_refused_before_any_work(run, tmp_path, monkeypatch):
    def translated(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.setattr("p2p_jax.evaluation.protocol.score", translated)
    given = {"split": "test", "output": tmp_path / "out"}
    for options, message in [
        ({"shard": "1/2", "metrics": ["histogram", "test_parts:variety"]}, "the metric test_parts:variety cannot be"),
        ({"merge": True, "metrics": ["test_parts:variety"]}, "leave it out of `metrics`, or evaluate without `shard`"),
        ({"shard": "0/2"}, "shard=0/2: write I/N, the part I of N counted from 1"),
        ({"shard": "3/2"}, "shard=3/2"),
        ({"shard": "2"}, "shard=2: "),
        ({"shard": "1/14"}, "there are 13 images, so use at most 13 parts"),
        ({"shard": "1/2", "merge": True}, "give one of them"),
        ({"shard": "1/2", "output": None}, "need `output`"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate(run, **given | options)
    assert not (tmp_path / "out").exists()
    error = run_command(command, run, "--split", "test", "--shard", "1/2", "--metrics", "test_parts:variety")
    assert "leave it out of --metrics, or evaluate without --shard" in error


@pytest.mark.slow
def test_a_part_can_be_made_again(run, folder):
    evaluate(run, split="test", output=folder, shard="2/3", metrics=["histogram"])
    assert len(merged(run, folder)["images"]) == 13


def test_a_gallery_has_what_is_chosen():
    """Whatever comes in whichever order, and in parts: the rows that choose_rows names, and few others."""
    rng = np.random.RandomState(0)
    for count, most in ((30, 30), (100, 20), (1000, 40)):
        values = rng.randint(0, 50, (count, 2)) / 8  # with many ties
        rows = [{"name": str(i), "l1": float(a), "psnr": float(b)} for i, (a, b) in enumerate(values)]
        rows[3]["psnr"], rows[5]["l1"] = np.inf, np.nan
        images = [{"output": np.full((4, 4, 1), i % 256, np.uint8)} for i in range(count)]
        whole, together = Gallery(count, most), Gallery(count, most)
        for i, row in enumerate(rows):
            whole.add(i, row, images[i])
            assert len(whole.shown) <= most + 24
        for part in range(7):
            gallery = Gallery(count, most)
            for i in range(part, count, 7):
                gallery.add(i, rows[i], images[i])
            stored = {int(row): shown for row, shown in json.loads(json.dumps(gallery.shown)).items()}
            together.add_shown({i: rows[i] for i in range(part, count, 7)}, stored)
        pictures, shown = whole.chosen(rows, ["l1", "psnr"])
        assert (pictures, shown) == together.chosen(rows, ["l1", "psnr"])
        assert [one["row"] for one in shown] == choose_rows(rows, ["l1", "psnr"], most)
        assert len(shown) == min(count, most)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["../../../../escaped.txt", "/escaped.txt", "..\\escaped.txt", "C:escaped.txt", "x/../escaped.txt"]
)
def test_a_part_holds_no_path_that_leads_out(run, folder, tmp_path, name):
    path = folder / "parts" / "2_of_3.zip"
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"files/{name}", "x")
    with pytest.raises(InputError, match="which does not belong to a part"):
        merged(run, folder)
    assert not list(tmp_path.rglob("*escaped.txt"))


@pytest.mark.parametrize(
    "head",
    [
        "", "[]", "null", "[" * 100_000, '{"format": 1}', '{"format": 1, "shown": [], "shard": [1, 2]}',
        '{"format": 1, "shown": {"x": 0}, "shard": [1, 2], "identity": {}, "rows": [], "sets": null}',
        '{"format": 1, "shown": {}, "shard": [0, 2], "identity": {}, "rows": [], "sets": null}',
        '{"format": 1, "shown": {}, "shard": ["1e9", 2], "identity": {}, "rows": [], "sets": null}',
        '{"format": 1, "shown": {}, "shard": [1, 2], "identity": [], "rows": [], "sets": null}',
        '{"format": 1, "shown": {}, "shard": [1, 2], "identity": {}, "rows": [1], "sets": null}',
        '{"format": 1, "shown": {}, "shard": [1, 2], "identity": {}, "rows": 7, "sets": null}',
    ],
)  # fmt: skip
def test_a_part_of_nonsense_is_named(tmp_path, head):
    path = tmp_path / "parts" / "1_of_2.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("part.json", head)
    with pytest.raises(InputError, match="1_of_2.zip is not a part of an evaluation, or is damaged"):
        parts_module.merge(tmp_path, {}, 4, Gallery(4), None, tmp_path)
