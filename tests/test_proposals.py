"""What inspect proposes for folders as data sets are published: it fits, and what else may be meant is named."""

import csv
import shlex

import pytest

from p2p_jax.commands import inspect as command
from p2p_jax.config import load_with_overrides
from p2p_jax.data import layouts
from p2p_jax.data.inspect import groups, inspection, options, proposals, words
from support import published
from support.images import noise, save
from support.runs import run_command


def drawn(kind, root):
    """Make the files of a published set, of which the names alone tell; returns its folder."""
    for path in getattr(published, kind)():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def options_of(sentence):
    return [word.strip("();") for word in shlex.split(sentence) if word.strip("(").startswith("--config.")]


def data_of(root, more=()):
    return load_with_overrides("facades", [f"--config.data.dir={root}", "--config.data.source=csv", *more]).data


def pairs_of(data, root):
    """Return the pairs of both splits, as paths below the folder."""
    found = []
    for split in (data.train_split, data.val_split):
        layout = layouts.find(data, split)
        found.append([tuple(str(p.relative_to(root)) for p in pair) for pair in zip(layout.a, layout.b, strict=True)])
    return found


# How many pairs for training and for validation, and what stands in the paths of A and of B.
FITTING = {
    "voc": (11, 1, "JPEGImages", "SegmentationClass"),
    "celeba_mask": (11, 1, "CelebA-HQ-img", "_hair"),
    "diode": (8, 8, "_000.png", "_depth.npy"),
    "drive": (8, 8, "images", "1st_manual"),
    "mapillary": (6, 6, "images", "/labels/"),
    "kitti": (7, 1, "image_2", "/semantic/"),
    "cvppp": (11, 1, "_rgb", "_label"),
    "levir": (5, 5, "/A/", "/label/"),
    "rgbd_prefixes": (9, 1, "rgb_", "depth_"),
    "rain_folders": (9, 1, "rainy/rain-", "clean/norain-"),
    "rain_splits": (6, 6, "/rain-", "/norain-"),
    "numbered_targets": (11, 1, "input_", "target_"),
    "sidd": (7, 1, "NOISY", "GT"),
    "split_folders": (9, 1, "train_images", "train_masks"),
    "isic": (6, 6, "_Input", "_segmentation"),
    "coco": (6, 6, "images", "annotations"),
    "lol": (8, 4, "low", "high"),
    "div2k_bicubic": (6, 6, "_LR_bicubic/X2", "_HR"),
    "capitals": (6, 6, "Images", "Labels"),
    "camvid": (5, 5, "CamVid/", "annot/"),
    "nnunet": (7, 1, "imagesTr", "labelsTr"),
    "busi": (11, 1, ").png", ")_mask.png"),
    "splits_in_names": (6, 6, "images", "masks"),
}


@pytest.mark.parametrize("kind", FITTING)
def test_what_is_proposed_is_what_training_finds(kind, tmp_path):
    root = drawn(kind, tmp_path / kind)
    train, val, in_a, in_b = FITTING[kind]
    (sentence,) = proposals.propose(data_of(root), tmp_path / "out")
    data = data_of(root, options_of(sentence))
    found = pairs_of(data, root)
    assert [len(split) for split in found] == [train, val]
    for a, b in (pair for split in found for pair in split):
        assert in_a in a and in_b in b
    for (a, b), *_ in found:  # an example of each: numbers agree
        digits = [
            [int(n) for n in "".join(c if c.isdigit() else " " for c in path.split("/")[-1]).split()] for path in (a, b)
        ]
        assert set(digits[0]) & set(digits[1])
    if train != val:
        assert not set(found[0]) & set(found[1])


OTHERS = {
    "voc": ["SegmentationObject"],
    "celeba_mask": ["_skin", "_nose", "_l_brow", "_r_brow", "_u_lip", "_hat"],
    "diode": ["_depth_mask"],
    "drive": ["/mask/"],
    "mapillary": ["/instances/", "/panoptic/"],
    "cvppp": ["_centers"],
    "levir": ["/B/"],
    "div2k_bicubic": ["_HR"],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_every_other_choice_is_offered_and_its_options_lead_there(kind, tmp_path):
    root = drawn(kind, tmp_path / kind)
    _, (sentence,) = proposals.look(data_of(root), tmp_path / "out")
    choices = sentence.removeprefix("other files make pairs as well, if you want these: ").split("; ")
    sides = []
    for choice in choices:
        found = pairs_of(data_of(root, options_of(choice)), root)
        assert sum(map(len, found)) == int(choice.split()[0]) - 5 * (kind == "levir")  # which has tests as well
        sides.append(found[0][0][1])
    assert len(sides) == len(OTHERS[kind])
    assert all(any(wanted in side for side in sides) for wanted in OTHERS[kind])


def test_options_that_lead_to_other_pairs_are_not_taken(tmp_path):
    root = drawn("cvppp", tmp_path / "set")
    match = proposals._matches([tuple(path.split("/")) for path in published.cvppp()])[0]
    place = options.Place(root, data_of(root), None)
    own = options.options_of(match, place.data)
    assert own is not None and options._leads_to(match, own, place)
    assert not options._leads_to(match, {**own, "suffix_b": "_centers"}, place)
    assert not options._leads_to(match, {**own, "suffix_b": "_nothing"}, place)


def test_large_images_alone(tmp_path):
    root = drawn("div2k", tmp_path / "set")
    data = data_of(root, options_of(proposals.propose(data_of(root))[0]))
    assert (data.source, data.train_split, data.val_split) == ("photos", "DIV2K_train_HR", "DIV2K_valid_HR")


def test_folders_that_nothing_tells_apart_are_named(tmp_path):
    root = drawn("three_unknown", tmp_path / "set")
    (first,), (second,) = proposals.look(data_of(root))
    assert "alpha (8), beta (8), gamma (8)" in first and "--config.data.source=photos" in first
    assert second.startswith("alpha, beta, gamma hold images of the same names")
    assert [len(x) for x in pairs_of(data_of(root, options_of(second)), root)] == [7, 1]


def test_pairs_that_a_csv_names_have_any_names(tmp_path):
    names = ["a,b", 'a"b', "ä ö", "a;b", "a'b"]
    for name in names:
        for side in ("rgb", "depth"):
            save(tmp_path / "set" / f"{side}_{name}.png", noise(8, 8, 3))
    (sentence,) = proposals.propose(data_of(tmp_path / "set"), tmp_path / "out put")
    data = data_of(tmp_path / "set", options_of(sentence))
    assert sum(len(x) for x in pairs_of(data, tmp_path / "set")) == 5
    with (tmp_path / "out put" / "pairs" / "train.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 6
    (told,) = proposals.propose(data_of(tmp_path / "set"))  # without a place for a CSV
    assert "list them in a CSV" in told


def test_files_of_an_earlier_proposal_do_not_stay(tmp_path):
    root = drawn("rain_splits", tmp_path / "set")
    proposals.propose(data_of(root), tmp_path / "out")
    assert (tmp_path / "out" / "pairs" / "val.csv").is_file()
    for path in (root / "test").iterdir():
        path.unlink()
    proposals.propose(data_of(root), tmp_path / "out")
    assert not (tmp_path / "out" / "pairs" / "val.csv").exists()


def test_pairs_of_large_sets_are_found_by_a_part_and_counted_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "_FILES", 40)
    paths = [tuple(path.split("/")) for path in published.mapillary()] + [
        ("training", kind, f"z{i}.png") for kind in ("images", "labels") for i in range(300)
    ]
    best = proposals._matches(paths)[0]
    assert (best.a.label, best.b.label, len(best.keys)) == ("{split}/images", "{split}/labels", 312)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train", ("{split}", "train")),
        ("TRAIN", ("{split}", "TRAIN")),
        ("val2017", ("{split}", "val2017")),
        ("trainA", ("{split}A", "train")),
        ("TestImages", ("{split}Images", "Test")),
        ("DIV2K_valid_HR", ("DIV2K_{split}_HR", "valid")),
        ("trainannot", ("{split}annot", "train")),
        ("labelsTr", ("labels{split}", "Tr")),
        ("strain", None),
        ("latest", None),
        ("trainer", None),
        ("leftImg8bit_trainvaltest", None),
    ],
)
def test_names_of_splits(name, found):
    assert words.find_split(name) == found


def test_sides_by_names_are_not_halved_in_silence(tmp_path):
    for split in ("train", "val"):
        for i in range(6):
            for side in ("rgb", "depth"):
                save(tmp_path / split / f"{i}_{side}.png", noise(20, 40, 3, seed=i))
    chosen = [f"--config.data.dir={tmp_path}", "--config.data.source=side_by_side"]
    report = inspection.inspect(load_with_overrides("facades", chosen))
    assert "--config.data.source=suffixes --config.data.suffix_a=_rgb" in report.suggestions[0]
    chosen[1] += "/AB"  # somebody has looked
    assert not inspection.inspect(load_with_overrides("facades", chosen)).suggestions


@pytest.mark.slow
def test_the_command_writes_what_it_proposes(tmp_path, capsys):
    for i in range(12):
        save(tmp_path / "set" / f"rgb_{i:02d}.png", noise(32, 32, 3, seed=i))
        save(tmp_path / "set" / f"depth_{i:02d}.png", noise(32, 32, 3, seed=20 + i))
    arguments = ["--config=facades", f"--config.data.dir={tmp_path / 'set'}", f"--output={tmp_path / 'out'}"]
    assert run_command(command, *arguments) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "make 12 pairs" in line]
    assert run_command(command, *arguments, *options_of(line)) == 0
    assert "train: 11 pairs" in capsys.readouterr().out
