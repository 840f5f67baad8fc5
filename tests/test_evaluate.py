"""Evaluations: the numbers of training, every image, labels, sets, and what is written."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, cyclegan, train
from p2p_jax.commands import evaluate
from p2p_jax.data import from_arrays, load_split
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate as evaluate_run
from p2p_jax.evaluation import predict
from p2p_jax.images import pictures
from p2p_jax.images.palettes import CMP_FACADES, nearest_labels
from p2p_jax.objectives.metrics import full_reference
from p2p_jax.training.checkpoint import read_filled_in
from support.comparers import same_pixels
from support.configs import SGD, small_config, small_cyclegan_config
from support.images import noise, save, to_uint8, write_facades
from support.networks import draw_state, linear
from support.runs import blank_state, rows_of, sample_grid, write_run
from support.runs import translate_files as translate


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Toy facades as side-by-side files, photograph left, of twice the size that the network sees."""
    folder = tmp_path_factory.mktemp("pairs")
    write_facades(folder, {"train": 8, "val": 5, "test": 3})
    return folder


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "facades"
    train(small_config(data__source="side_by_side", data__dir=str(pairs)), workdir)
    return workdir


@pytest.fixture(scope="module")
def cyclegan_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpaired")
    for name, count in (("trainA", 5), ("trainB", 4), ("testA", 3), ("testB", 5)):
        for i in range(count):
            save(folder / name / f"{name}_{i}.png", noise(16, 16, 3, seed=i))
    workdir = tmp_path_factory.mktemp("runs") / "cyclegan"
    data = {"data__source": "unpaired", "data__dir": str(folder), "data__val_split": "test"}
    train(small_cyclegan_config(num_steps=2, **data), workdir)
    return workdir


def sees_blue(images):
    """Label every pixel with the class whose colour is nearest: a segmenter that reads label maps."""
    return nearest_labels(images, CMP_FACADES)


def command(workdir, *options):
    try:
        evaluate.run(["--workdir", str(workdir), *map(str, options)])
    except SystemExit as stopped:
        return stopped.code
    return 0


@pytest.mark.slow
def test_the_numbers_of_training(run):
    """What is evaluated is what training's own validation found, at both checkpoints, over every image."""
    logged = {row["step"]: row for row in rows_of(run) if row["eval/l1"]}
    for step in ("2", "4"):
        results = evaluate_run(run, checkpoint=step)
        assert (results["step"], results["num_images"], len(results["images"])) == (int(step), 5, 5)
        for name in ("l1", "psnr", "ssim"):
            assert results["metrics"][name]["count"] == 5
            assert np.isclose(results["metrics"][name]["mean"], float(logged[step][f"eval/{name}"]), rtol=1e-5)
            values = [row[name] for row in results["images"]]
            assert np.isclose(np.std(values), results["metrics"][name]["std"])


@pytest.mark.slow
def test_the_images_of_translate_and_of_the_sample_grid(run, pairs, tmp_path):
    """One image, three ways: the sample grid of training, the command translate on its file, and evaluation."""
    predictions = {p.name: p for p in predict(Translator.from_workdir(run), "val")}
    assert list(predictions) == [f"house_{i}.png" for i in range(5)]
    grid = sample_grid(run, 4, width=16)
    for i in range(2):
        labels = pictures.read(pairs / "val" / f"house_{i}.png").pixels[:, 32:]
        save(tmp_path / "in" / f"{i}.png", labels)
    assert translate(run, tmp_path / "in", tmp_path / "out", "--size", "16") == 0
    for i in range(2):
        prediction = predictions[f"house_{i}.png"]
        assert np.abs(to_uint8(prediction.input).astype(int) - grid["input"][i]).max() <= 1
        assert same_pixels(to_uint8(prediction.output), grid["output"][i])
        # Another size is resized by another library, whose roundings may differ in a pixel.
        translated = pictures.read(tmp_path / "out" / f"{i}.png").pixels
        assert np.abs(translated.astype(int) - grid["output"][i]).mean() < 0.5


def test_labels_at_their_own_resolution(run, pairs):
    """The labels of a 32-pixel file are 32 pixels wide, whatever the network sees; they are in its right half."""
    opened = load_split(read_filled_in(run), "test")
    labels, photo = opened.original(0, 1), opened.original(1, 1)
    stored = np.asarray(Image.open(pairs / "test" / "house_1.png"))
    assert np.array_equal(labels, stored[:, 32:]) and np.array_equal(photo, stored[:, :32])


@pytest.mark.slow
def test_fcn_score(run):
    results = evaluate_run(run, split="test", metrics=["fcn"], segmenter="test_evaluate:sees_blue")
    fcn = results["set_metrics"]["FCN score [sees_blue]"]
    assert 0 <= fcn["pixel_accuracy"] < 1 and fcn["count"] == 3
    # By hand: the real photographs at 16 pixels, enlarged to 32, against the labels of 32.
    opened, right, total = load_split(read_filled_in(run), "test"), 0, 0
    (batch,) = opened.batches(3)
    for i in range(3):
        photo = Image.fromarray(to_uint8(batch["real_b"][i])).resize((32, 32), Image.Resampling.BILINEAR)
        truth = nearest_labels(opened.original(0, i), CMP_FACADES)
        right, total = right + (sees_blue(np.asarray(photo)) == truth).sum(), total + truth.size
    assert np.isclose(fcn["real photographs"]["pixel_accuracy"], right / total)
    assert set(fcn["per_class_iou"]) == set(CMP_FACADES.names)


@pytest.mark.slow
def test_photographs_to_labels(pairs, tmp_path):
    data = {"data__source": "side_by_side", "data__dir": str(pairs), "data__direction": "AtoB"}
    train(small_config(num_steps=1, **data), tmp_path)
    found = evaluate_run(tmp_path, split="test", metrics=["labels"])["set_metrics"]["labels, nearest palette colour"]
    right, total = 0, 0
    for i, prediction in enumerate(predict(Translator.from_workdir(tmp_path), "test")):
        drawn = Image.fromarray(to_uint8(prediction.output)).resize((32, 32), Image.Resampling.NEAREST)
        truth = nearest_labels(pictures.read(pairs / "test" / f"house_{i}.png").pixels[:, 32:], CMP_FACADES)
        right, total = right + (nearest_labels(np.asarray(drawn), CMP_FACADES) == truth).sum(), total + truth.size
    assert (found["count"], i) == (3, 2)
    assert np.isclose(found["pixel_accuracy"], right / total)


@pytest.mark.slow
def test_class_numbers_from_files_take_the_place_of_colours(run, tmp_path):
    for i in range(3):
        save(tmp_path / f"house_{i}.png", np.full((50, 40), 255 if i else 1, np.uint8))
    given = {"split": "test", "metrics": ["fcn"], "segmenter": "test_evaluate:sees_blue", "palette": "cmp_facades"}
    found = evaluate_run(run, label_ids=tmp_path, **given)["set_metrics"]["FCN score [sees_blue]"]
    (prediction, *_) = predict(Translator.from_workdir(run), "test")
    first = Image.fromarray(to_uint8(prediction.output)).resize((40, 50), Image.Resampling.BILINEAR)
    assert np.isclose(found["pixel_accuracy"], (sees_blue(np.asarray(first)) == 1).mean(), atol=2e-3)
    (tmp_path / "house_2.png").unlink()
    with pytest.raises(InputError, match=r"there is no file .*house_2.png"):
        evaluate_run(run, label_ids=tmp_path, **given)


@pytest.mark.slow
def test_unpaired_runs_both_ways(cyclegan_run):
    logged = rows_of(cyclegan_run)[-1]
    forward = evaluate_run(cyclegan_run, metrics=["histogram"])
    assert forward["num_images"] == 5 and not forward["paired"]
    assert forward["images"][4]["name"] == "testA_1.png | testB_4.png"
    for name in ("cycle_a", "cycle_b", "cycle", "identity_a"):
        assert np.isclose(forward["metrics"][name]["mean"], float(logged[f"eval/{name}"]), rtol=1e-5)
    assert "psnr" not in forward["metrics"]
    backward = evaluate_run(cyclegan_run, metrics=["histogram"], direction="BtoA")
    counts = [results["set_metrics"]["histogram intersection"]["count"] for results in (forward, backward)]
    assert counts == [3, 5]  # every image of the side that is translated, once
    for direction, names in (("AtoB", "testA"), ("BtoA", "testB")):
        translator = Translator.from_workdir(cyclegan_run, direction=direction, batch_size=2)
        found = list(predict(translator, "test"))
        assert [p.name for p in found] == [f"{names}_{i}.png" for i in range(counts[names == "testB"])]
        assert all(p.target is None for p in found)
        assert np.allclose(found[0].output, translator(found[0].input), atol=1e-5)


@pytest.mark.slow
def test_what_the_command_writes(run, capsys):
    assert command(run) == 0
    folder = run / "evaluation" / "val_4"
    results = json.loads((folder / "results.json").read_text())
    with open(folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"house_{i}.png" for i in range(5)]
    assert [float(row["psnr"]) for row in rows] == [row["psnr"] for row in results["images"]]
    assert results["config"] == read_filled_in(run).to_dict()
    assert results["checkpoint_id"] == Translator.from_workdir(run).checkpoint_id
    page = (folder / "report.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert page.count("house_3.png") >= 1 and "data:image/" in page
    printed = capsys.readouterr().out
    assert f"l1: {results['metrics']['l1']['mean']:.4g}" in printed and "5 images of val" in printed


@pytest.mark.slow
def test_a_data_set_that_was_moved(run, pairs, tmp_path):
    (tmp_path / "moved").symlink_to(pairs)
    config = json.loads((run / "config.json").read_text())
    config["data"]["dir"] = "/nowhere"
    moved = tmp_path / "run"
    moved.mkdir()
    (moved / "config.json").write_text(json.dumps(config))
    (moved / "checkpoints").symlink_to(run / "checkpoints")
    error = command(moved, "--split", "test")
    assert "there is no folder /nowhere" in error and "--data_dir" in error
    assert command(moved, "--split", "test", "--data_dir", tmp_path / "moved") == 0
    results = json.loads((moved / "evaluation" / "test_4" / "results.json").read_text())
    assert results["metrics"]["l1"]["count"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "fidd"], "--metrics fidd: choose from histogram, fcn, labels, fid"),
        (["--metrics", "fcn"], "fcn needs --segmenter"),
        (["--metrics", "labels"], "name them with --palette"),
        (["--metrics", "labels", "--palette", "cityscapes"], "are they photographs"),
        (["--metrics", "labels", "--palette", "nowhere.json"], "nowhere.json"),
        (["--segmenter", "nowhere"], "there is no segmenter nowhere"),
        (["--split", "tset"], "tset"),
        (["--checkpoint", "5"], "no checkpoint 5"),
        (["--direction", "AtoB"], "trained for only BtoA"),
    ],
)
def test_one_line_for_what_cannot_be_done(run, options, message):
    before = sorted(p for p in run.rglob("*"))
    error = command(run, *options)
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert sorted(p for p in run.rglob("*")) == before


def test_labels_need_pairs(cyclegan_run):
    with pytest.raises(InputError, match="the metric labels needs a paired data set"):
        evaluate_run(cyclegan_run, metrics=["labels"], palette="cmp_facades")


@pytest.mark.slow
def test_fcn_score_without_pairs(pairs, tmp_path):
    for split, name in (("train", "train"), ("val", "val")):
        for i, path in enumerate(sorted((pairs / split).iterdir())):
            pixels = pictures.read(path).pixels
            save(tmp_path / f"{name}A" / f"labels_{i}.png", pixels[:, 32:])
            save(tmp_path / f"{name}B" / f"photo_{i}.png", pixels[:, :32])
    data = {"data__source": "unpaired", "data__dir": str(tmp_path), "data__val_split": "val"}
    config = small_cyclegan_config(**data)
    write_run(tmp_path / "run", config, draw_state(blank_state(cyclegan(config), config)))
    results = evaluate_run(tmp_path / "run", metrics=["fcn"], segmenter="test_evaluate:sees_blue")
    found = results["set_metrics"]["FCN score [sees_blue]"]
    right, total = 0, 0
    for i, prediction in enumerate(predict(Translator.from_workdir(tmp_path / "run"), "val")):
        drawn = Image.fromarray(to_uint8(prediction.output)).resize((32, 32), Image.Resampling.BILINEAR)
        truth = nearest_labels(pictures.read(tmp_path / "valA" / f"labels_{i}.png").pixels, CMP_FACADES)
        right, total = right + (sees_blue(np.asarray(drawn)) == truth).sum(), total + truth.size
    assert np.isclose(found["pixel_accuracy"], right / total)
    assert "without pairs" in found["real photographs"]["note"]


@pytest.mark.slow
def test_without_scikit_image(run, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "skimage.color", None)
    assert evaluate_run(run, split="test")["set_metrics"] == {}
    assert "note: histogram is left out" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"pip install 'p2p_jax\[eval\]'"):
        evaluate_run(run, split="test", metrics=["histogram"])


def copying(config):
    """Make an objective that translates nothing: outputs are inputs."""
    base = linear(config)

    def translate(state, batch, rng):
        return {"fake_b": batch["real_a"]}

    def evaluate(state, batch, rng):
        images = {"input": batch["real_a"], "output": batch["real_a"], "target": batch["real_b"]}
        return full_reference(batch["real_a"], batch["real_b"]), images

    return base._replace(translate=translate, evaluate=evaluate)


@pytest.mark.slow
def test_equal_images_are_counted_and_not_in_the_mean_of_psnr(tmp_path, capsys):
    """Two of five pairs are equal; validation in training and the command agree with scikit-image on the others."""
    metrics = pytest.importorskip("skimage.metrics")
    expected = []
    for split, count in (("train", 4), ("val", 5)):
        for i in range(count):
            a, b = noise(16, 16, 3, seed=i), noise(16, 16, 3, seed=i if i in (1, 3) else 50 + i)
            save(tmp_path / "images" / split / f"{i}.png", np.concatenate([a, b], axis=1))
            if split == "val" and i not in (1, 3):
                expected.append(metrics.peak_signal_noise_ratio(b, a, data_range=255))
    data = {"data__source": "side_by_side", "data__dir": str(tmp_path / "images"), "data__load_size": 16}
    best = {"best_metric": "psnr", "best_mode": "max", "objective": "test_evaluate:copying"}
    config = small_config(optimizer=SGD, num_steps=2, data__direction="AtoB", **best, **data)
    train(config, tmp_path / "run")
    assert float(rows_of(tmp_path / "run")[-1]["eval/psnr"]) == pytest.approx(np.mean(expected), rel=1e-5)
    found = evaluate_run(tmp_path / "run")["metrics"]["psnr"]
    assert found == pytest.approx({"mean": np.mean(expected), "std": np.std(expected), "count": 5, "infinite": 2}, 1e-5)
    assert command(tmp_path / "run") == 0
    assert "between images; 2 infinite, not in the mean)" in capsys.readouterr().out
    page = (tmp_path / "run" / "evaluation" / "val_2" / "report.html").read_text()
    assert "between the 5 images, 2 infinite and not in the mean" in page


def test_colours_are_not_counted_of_what_is_no_photograph(tmp_path, capsys):
    config = small_config(data__direction="AtoB", data__output__kind="float", data__output__range="0:1")
    state = draw_state(blank_state(copying(config), config))
    with config.unlocked():
        config.objective = "test_evaluate:copying"
    write_run(tmp_path / "run", config, state)
    assert evaluate_run(tmp_path / "run")["set_metrics"] == {}
    assert "histogram is left out; the metric histogram is for colours of photographs" in capsys.readouterr().out
    with pytest.raises(InputError, match="outputs of the run are float"):
        evaluate_run(tmp_path / "run", metrics=["histogram"])


@pytest.mark.slow
def test_whole_scenes_are_scored_where_training_sees_crops(tmp_path, capsys):
    """Crops of 16 of scenes of 64: by hand over what Translator gives, by scikit-image's PSNR; the crop on request."""
    metrics = pytest.importorskip("skimage.metrics")
    for split, count in (("train", 4), ("val", 3)):
        for i in range(count):
            scene = noise(64, 96, 3, seed=i)
            scene[:24] //= 4  # another score at the border than in the middle
            save(tmp_path / "images" / split / f"{i}.png", np.concatenate([scene, 255 - scene], axis=1))
    data = {"data__source": "side_by_side/AB", "data__dir": str(tmp_path / "images"), "data__preprocess": "crop"}
    train(small_config(num_steps=1, data__direction="AtoB", **data), tmp_path / "run")
    assert "5.6% of the pixels" not in (told := capsys.readouterr().out)
    assert "the centre crop of each image, 4.2% of the pixels" in told
    translator = Translator.from_workdir(tmp_path / "run")
    results = evaluate_run(tmp_path / "run")
    assert (results["seen"], results["num_images"]) == ("whole images", 3)
    for i, row in enumerate(results["images"]):
        scene = np.asarray(Image.open(tmp_path / "images" / "val" / f"{i}.png"))
        output, target = translator(scene[:, :96] / np.float32(127.5) - 1), scene[:, 96:] / np.float32(127.5) - 1
        assert row["name"] == f"{i}.png"
        assert row["l1"] == pytest.approx(np.abs(output - target).mean() / 2, rel=1e-4)
        assert row["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(target, output, data_range=2), rel=1e-4)
    assert set(results["set_metrics"]) == {"histogram intersection"}
    crops = evaluate_run(tmp_path / "run", whole=False)
    assert crops["seen"] == "centre crops of 16x16"
    trained = float(rows_of(tmp_path / "run")[-1]["eval/l1"])
    assert crops["metrics"]["l1"]["mean"] == pytest.approx(trained, rel=1e-4)
    assert abs(results["metrics"]["l1"]["mean"] - trained) > 0.005
    assert command(tmp_path / "run") == 0
    assert "3 images of val, whole images" in capsys.readouterr().out
    page = (tmp_path / "run" / "evaluation" / "val_1" / "report.html").read_text()
    assert "All 3 images of the split val: whole images." in page
    assert command(tmp_path / "run", "--crops") == 0 and (tmp_path / "run" / "evaluation" / "val_1_crops").is_dir()
    tiled = evaluate_run(tmp_path / "run", tile=32, norm="running", dropout=False)["metrics"]["l1"]["mean"]
    untiled = evaluate_run(tmp_path / "run", norm="running", dropout=False)["metrics"]["l1"]["mean"]
    assert tiled == pytest.approx(untiled, rel=0.02)


@pytest.mark.slow
def test_whole_images_without_pairs_are_scored_by_a_grid_of_crops(tmp_path):
    """Of 32 and 48 pixels: the mean of all crops that lie side by side is the cycle error of the image."""
    for side, size in (("A", (32, 48)), ("B", (32, 32))):
        for split, count in (("train", 4), ("test", 2)):
            for i in range(count):
                save(tmp_path / "images" / f"{split}{side}" / f"{i}.png", noise(*size, 3, seed=i))
    data = {"data__source": "unpaired", "data__dir": str(tmp_path / "images"), "data__preprocess": "crop"}
    config = small_cyclegan_config(num_steps=1, data__val_split="test", **data)
    state = train(config, tmp_path / "run")
    results = evaluate_run(tmp_path / "run")
    assert results["seen"] == "a grid of crops that covers every image"
    stored = read_filled_in(tmp_path / "run")
    objective = cyclegan(stored)
    a = noise(32, 48, 3, seed=1).astype(np.float32) / 127.5 - 1
    crops = np.stack([a[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)])
    batch = {"real_a": crops, "real_b": crops}
    expected = objective.evaluate(state, batch, jax.random.key(stored.seed))[0]["cycle_a"].mean()
    assert results["images"][1]["cycle_a"] == pytest.approx(float(expected), rel=1e-4)


def test_arrays_smaller_than_the_crop_are_refused():
    config = small_config(data__preprocess="crop", data__direction="AtoB")
    small = from_arrays(noise(3, 12, 40, 3), noise(3, 12, 40, 3))
    with pytest.raises(InputError, match="source of 0 has an image of 40x12 pixels, smaller than the crop"):
        next(iter(load_split(config, "val", small).batches(2)))


@pytest.mark.slow
def test_whole_pairs_of_a_cyclegan_keep_their_cycle_errors(tmp_path):
    for split in ("train", "val"):
        for i in range(4):
            for side in "AB":
                save(tmp_path / "images" / split / side / f"{i}.png", noise(32, 32, 3, seed=i))
    data = {"source": "folders", "dir": str(tmp_path / "images"), "preprocess": "crop"}
    config = small_cyclegan_config(num_steps=1, **{f"data__{key}": value for key, value in data.items()})
    train(config, tmp_path / "run")
    found = evaluate_run(tmp_path / "run")
    assert found["seen"] == "whole images" and {"cycle", "identity_a", "l1", "psnr"} <= set(found["metrics"])
