"""The library's own FCN-8s: its shape, what it learns, what it stores, and the command that trains it."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from p2p_jax.commands import segmenter as command
from p2p_jax.config import to_json
from p2p_jax.data.toy import facades as toy_facades
from p2p_jax.data.toy.facades import render
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.evaluation import fcn_training
from p2p_jax.evaluation.fcn_training import augmented, train_fcn
from p2p_jax.evaluation.segmentation import fcn_score, find_segmenter
from p2p_jax.images.palettes import CMP_FACADES, VOID, nearest_labels
from p2p_jax.nets.fcn import FCN, OwnSegmenter, init, load_fcn
from p2p_jax.training.saving import Checkpoints
from support.comparers import assert_equal_trees
from support.configs import small_config, small_cyclegan_config
from support.images import noise

TINY = {"num_steps": 2, "batch_size": 2, "base_width": 2}


def toys(split, count, size=64):
    facades = [render(i, split, size) for i in range(count)]
    return [(facade.photo, facade.classes.astype(np.int64)) for facade in facades]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A segmenter of toy facades and the directory that holds it."""
    directory = tmp_path_factory.mktemp("fcn") / "toys"
    segmenter = train_fcn(
        toys("train", 100),
        CMP_FACADES,
        directory,
        num_steps=220,
        batch_size=2,
        learning_rate=1e-2,
        base_width=6,
        stride=1,
        facts={"made": "for a test"},
    )
    return segmenter, directory


# The network


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_scores_stand_at_three_strides(stride):
    network = FCN(5, base_width=2, stride=stride)
    images = np.zeros((1, 8 * stride, 12 * stride, 3), np.float32)
    logits, state = jax.eval_shape(
        lambda x: network.apply(init(network, 0), x, train=False, capture_intermediates=True), images
    )
    scored = [
        out["__call__"][0].shape
        for name, out in sorted(state["intermediates"].items(), key=lambda item: int(item[0].rpartition("_")[2] or 0))
        if name.startswith("Conv") and out["__call__"][0].shape[-1] == 5
    ]
    assert scored == [(1, 8, 12, 5), (1, 4, 6, 5), (1, 2, 3, 5)]
    assert logits.shape == (*images.shape[:3], 5)


def test_parameters_by_hand():
    """Nine convolutions, each with the two parameters of its batch norm per channel, and three scores with biases."""
    w, classes = 4, 12
    shapes = [(4, 3, w), (4, w, 2 * w), (3, 2 * w, 2 * w), (4, 2 * w, 4 * w), (3, 4 * w, 4 * w)]
    shapes += [(4, 4 * w, 8 * w), (3, 8 * w, 8 * w), (4, 8 * w, 8 * w), (3, 8 * w, 8 * w)]
    expected = sum(k * k * i * o + 2 * o for k, i, o in shapes) + sum((c * w + 1) * classes for c in (4, 8, 8))
    params = jax.eval_shape(lambda: init(FCN(classes, w, 8), 0))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


def test_scores_are_added_and_enlarged():
    """Where the three scores are constant, so is their sum."""
    network = FCN(2, base_width=2, stride=2)
    variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), jax.eval_shape(lambda: init(network, 0)))
    scoring = [name for name, x in variables["params"].items() if name.startswith("Conv") and "bias" in x]
    for value, name in zip((1.0, 10.0, 100.0), scoring, strict=True):
        variables["params"][name] = {
            "kernel": 0 * variables["params"][name]["kernel"],
            "bias": np.array([value, -value], np.float32),
        }
    logits = jax.jit(partial(network.apply, train=False))(variables, noise(1, 16, 24, 3) / np.float32(255))
    np.testing.assert_allclose(logits, np.broadcast_to([111.0, -111.0], (1, 16, 24, 2)), rtol=1e-6)


# Training


@pytest.mark.slow
def test_learns_toy_facades_and_not_noise(trained):
    segmenter, _ = trained
    photos, truths = zip(*toys("test", 30), strict=True)
    real = fcn_score(photos, truths, segmenter, 12)
    assert real.pixel_accuracy > 0.9
    assert real.class_iou > 0.6
    fake = fcn_score([noise(64, 64, 3, seed=i) for i in range(30)], truths, segmenter, 12)
    assert fake.pixel_accuracy < 0.45
    assert fake.class_iou < 0.1


@pytest.mark.slow
def test_what_is_void_is_not_learnt(tmp_path):
    """Any number that is no class means void; the same pixels with a class make another network; seeds do too."""
    examples = toys("train", 2, 16)

    def train(name, label, seed=0):
        masked = [(photo, np.where(truth == 1, label, truth)) for photo, truth in examples]
        return train_fcn(masked, CMP_FACADES, tmp_path / name, seed=seed, **TINY).variables

    void = train("void", VOID)
    assert_equal_trees(void, train("minus", -1))
    for other in (train("class", 1), train("first", 0), train("seed", VOID, seed=1)):
        assert not np.array_equal(*(jax.tree.leaves(x["params"])[-1] for x in (void, other)))


@pytest.mark.slow
def test_photographs_take_the_size_of_their_labels(tmp_path):
    photo, truth = toys("train", 1, 32)[0]
    small = np.asarray(Image.fromarray(photo).resize((16, 16)))
    shown = np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BILINEAR))
    one, other = (
        train_fcn([(x, truth)], CMP_FACADES, tmp_path / name, **TINY) for x, name in ((small, "a"), (shown, "b"))
    )
    assert_equal_trees(one.variables, other.variables)


def test_crops_keep_photograph_and_labels_together(monkeypatch):
    monkeypatch.setattr(fcn_training, "_TINT", 0)
    facade = render(0, "train", 128)
    mirrored, sides = 0, set()
    for seed in range(20):
        photo, labels = augmented(facade.labels, facade.classes, 96, np.random.RandomState(seed))
        assert photo.shape == (96, 96, 3) and labels.shape == (96, 96)
        assert set(np.unique(labels)) <= set(np.unique(facade.classes))
        assert np.mean(nearest_labels(photo, CMP_FACADES) == labels) > 0.85  # the rest are borders
        again = augmented(facade.labels, facade.classes, 96, np.random.RandomState(seed))
        np.testing.assert_array_equal(again[0], photo)
        sides.add(int((labels == 0).sum()))
        flipped, _ = augmented(facade.labels[:, ::-1], facade.classes[:, ::-1], 96, np.random.RandomState(seed))
        mirrored += np.array_equal(flipped, photo)
    assert len(sides) > 15 and mirrored < 20
    photo, _ = augmented(facade.photo, facade.classes, 128, np.random.RandomState(1))
    assert photo.shape == (128, 128, 3)  # no larger window than the image


@pytest.mark.slow
def test_reports_validation(tmp_path, capsys):
    held_out = toys("val", 3, 16)
    segmenter = train_fcn(toys("train", 2, 16), CMP_FACADES, tmp_path / "x", validation=held_out, **TINY)
    photos, truths = zip(*held_out, strict=True)
    found = fcn_score(photos, truths, segmenter, 12)
    assert segmenter.facts["validation"] == {
        "pixel_accuracy": found.pixel_accuracy,
        "class_accuracy": found.class_accuracy,
        "class_iou": found.class_iou,
    }
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 1/2", "step 2/2"]
    assert f"validation pixel accuracy {found.pixel_accuracy:.4f}" in lines[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps, batch_size and base_width must be at least 1"),
        ({"stride": 3}, "stride 3 is not one of 1, 2, 4, 8"),
        ({"stride": 8}, "crop_size 16: stride 8 needs 32 pixels, and the label maps have 16"),
        ({"crop_size": 20}, "crop_size 20: .* the label maps have 16"),
    ],
)
def test_wrong_arguments(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_fcn(toys("train", 1, 16), CMP_FACADES, tmp_path / "x", **TINY | changes)
    with pytest.raises(InputError, match="there are no training examples"):
        train_fcn([], CMP_FACADES, tmp_path / "x", **TINY)
    assert not (tmp_path / "x").exists()


def test_divergence_is_reported(tmp_path):
    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        train_fcn(toys("train", 1, 16), CMP_FACADES, tmp_path / "x", learning_rate=1e38, **TINY)
    assert not (tmp_path / "x").exists()


# The segmenter


@pytest.mark.slow
def test_save_and_load(trained):
    segmenter, directory = trained
    loaded = find_segmenter(str(directory))
    assert loaded.name == "own FCN-8s, seed 0"
    assert loaded.palette.names == CMP_FACADES.names
    np.testing.assert_array_equal(loaded.palette.colors, CMP_FACADES.colors)
    assert loaded.facts == segmenter.facts
    assert loaded.facts["made"] == "for a test" and loaded.facts["num_steps"] == 220
    assert_equal_trees(loaded.variables, segmenter.variables)
    images = noise(3, 40, 56, 3)
    np.testing.assert_array_equal(loaded(images), segmenter(images))


@pytest.mark.slow
def test_labels_do_not_depend_on_the_neighbours(trained):
    segmenter, _ = trained
    images = np.stack([photo for photo, _ in toys("test", 5)])
    together = segmenter(images)
    assert together.dtype == np.int32 and together.shape == (5, 64, 64)
    for i in range(5):
        np.testing.assert_array_equal(segmenter(images[i : i + 1])[0], together[i])
    beside_noise = np.concatenate([images[:1], noise(10, 64, 64, 3)])
    np.testing.assert_array_equal(segmenter(beside_noise)[0], together[0])
    assert segmenter(images[:0]).shape == (0, 64, 64)


@pytest.mark.slow
def test_any_size(trained):
    """Sides are filled up by repeating the border, and cut back."""
    segmenter, _ = trained
    image = toys("test", 1)[0][0][None, :45, :61]
    filled = np.pad(image, [(0, 0), (0, 3), (0, 3), (0, 0)], mode="edge")
    labels = segmenter(image)
    assert labels.shape == (1, 45, 61)
    np.testing.assert_array_equal(labels, segmenter(filled)[:, :45, :61])
    assert segmenter(noise(2, 1, 1, 3)).shape == (2, 1, 1)
    for wrong in (image[0], image[..., :1], image.astype(np.float32)):
        with pytest.raises(InputError, match="a segmenter takes uint8"):
            segmenter(wrong)


@pytest.mark.slow
def test_directories_are_guarded(trained, tmp_path):
    segmenter, _ = trained
    target = tmp_path / "deep" / "fcn"
    segmenter.save(target)
    assert sorted(path.name for path in target.iterdir()) == ["params.msgpack", "segmenter.json"]
    with pytest.raises(InputError, match="holds a segmenter; .* `overwrite`"):
        segmenter.save(target)
    other = OwnSegmenter(segmenter.variables, segmenter.facts | {"note": "second"})
    other.save(target, overwrite=True)
    assert load_fcn(target).facts["note"] == "second"
    assert [path.name for path in target.parent.iterdir()] == ["fcn"]
    precious = tmp_path / "photos"
    precious.mkdir()
    with pytest.raises(InputError, match="is not a segmenter; choose another `output`"):
        segmenter.save(precious, overwrite=True)
    with pytest.raises(InputError, match="is not a segmenter .*train one"):
        load_fcn(precious)


@pytest.mark.slow
def test_damage_is_found(trained, tmp_path):
    segmenter, _ = trained
    segmenter.save(tmp_path / "cut")
    whole = (tmp_path / "cut" / "params.msgpack").read_bytes()
    (tmp_path / "cut" / "params.msgpack").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_fcn(tmp_path / "cut")
    segmenter.save(tmp_path / "other")
    facts = segmenter.facts | {"architecture": {"base_width": 5, "stride": 1}}
    (tmp_path / "other" / "segmenter.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="damaged .*another architecture"):
        load_fcn(tmp_path / "other")


# The command


def write_run(workdir, config):
    """Write what a run leaves behind, as far as the command reads it."""
    checkpoints = Checkpoints(workdir, config)
    checkpoints.save(1, {"step": np.ones((), np.int32)}, None)
    checkpoints.close()
    (workdir / "config.json").write_text(to_json(config))


@pytest.mark.slow
def test_command(tmp_path, capsys, monkeypatch):
    """From a run's directory to a segmenter, trained on the photographs as they are generated, whatever the crops."""
    given, train = {}, fcn_training.train_fcn

    def recording(examples, *args, **kwargs):
        given["examples"], given["validation"] = examples, kwargs["validation"]
        return train(examples, *args, **kwargs)

    monkeypatch.setattr(fcn_training, "train_fcn", recording)
    monkeypatch.setattr(toy_facades, "SPLIT_SIZES", {"train": 12, "val": 6})
    write_run(tmp_path / "run", small_config())
    output = tmp_path / "fcn"
    arguments = ["--workdir", str(tmp_path / "run"), "--output", str(output), "--num_steps", "2", "--base_width", "2"]
    command.run([*arguments, "--seed", "3"])
    told = capsys.readouterr().out
    assert "12 photographs of train; classes: background, facade, window" in told
    assert len(given["examples"]) == 12 and len(given["validation"]) == 6
    for split, kind in (("train", "examples"), ("val", "validation")):
        facade = render(5, split, 16)
        np.testing.assert_array_equal(given[kind][5][0], facade.photo)
        np.testing.assert_array_equal(given[kind][5][1], facade.classes)

    segmenter = load_fcn(output)
    assert segmenter.name == "own FCN-8s, seed 3"
    assert segmenter.palette.names == CMP_FACADES.names
    assert segmenter.facts["data"]["source"] == "toy_facades" and segmenter.facts["num_train"] == 12
    photos, truths = zip(*given["validation"], strict=True)
    accuracy = fcn_score(photos, truths, segmenter, 12).pixel_accuracy
    assert segmenter.facts["validation"]["pixel_accuracy"] == pytest.approx(accuracy, abs=0)
    assert f"on 6 real photographs of val: pixel accuracy {accuracy:.4f}" in told
    with pytest.raises(SystemExit, match="error: .*fcn holds a segmenter"):
        command.run(arguments)

    command.run([*arguments, "--size", "8", "--overwrite"])
    assert given["examples"][0][1].shape == (8, 8)
    assert load_fcn(output).facts["crop_size"] == 8


def test_command_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_facades, "SPLIT_SIZES", {"train": 12, "val": 6})
    config_file = tmp_path / "config.py"

    def refuse(message, config, *arguments):
        config_file.write_text(
            f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({config.to_dict()!r})\n"
        )
        with pytest.raises(SystemExit, match=message):
            command.run(["--config", str(config_file), "--output", str(tmp_path / "fcn"), *arguments])

    refuse("colours of the label maps are not known", small_config(), "--labels", "output")
    refuse("away from every colour", small_config(), "--palette", "cityscapes")
    refuse("give a paired data set", small_cyclegan_config())
    refuse("--size 0", small_config(), "--size", "0")
    with pytest.raises(SystemExit, match="is not a run"):
        command.run(["--workdir", str(tmp_path / "none"), "--output", str(tmp_path / "fcn")])
    assert not (tmp_path / "fcn").exists()
