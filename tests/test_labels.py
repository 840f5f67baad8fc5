"""Labels as people's files have them: every pixel has the right class, files come back equal, what is no class is told.

Files are written by Pillow and tifffile; the right classes are counted by hand.
"""

import json

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.config import with_facts
from p2p_jax.data import load, load_split, on_device
from p2p_jax.images import labels
from p2p_jax.images.domains import of_config
from p2p_jax.images.palettes import CMP_FACADES, find_palette, to_hex
from p2p_jax.inference import values
from support.configs import SGD, data_config, small_config
from support.images import noise, save
from support.runs import translate_files
from support.streams import changed

SIDE, COUNT = 16, 6
WEB = np.random.RandomState(3).permutation(256).repeat(3).reshape(256, 3)  # colours that nobody chose


def paletted(path, indices, colors):
    """Write a PNG with a palette, as image editors and data sets do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, "P")
    image.putpalette(np.asarray(colors, np.uint8).ravel().tolist())
    image.save(path)


def numbered(path, numbers, dtype):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers.astype(dtype)).save(path)


def classes_of(count, seed=0):
    """Return the classes of images, in which every class occurs."""
    found = np.random.RandomState(seed).randint(0, count, (COUNT, SIDE, SIDE))
    found[:, 0, :count] = np.arange(count)
    return found


def cmp_colors(first):
    """Return a palette of 256 colours in which the twelve of CMP stand from an index on."""
    colors = np.zeros((256, 3), np.uint8)
    colors[first : first + 12] = CMP_FACADES.colors
    return colors


def write_cmp(folder, classes, first=1):
    for i, one in enumerate(classes):
        paletted(folder / f"{i}.png", (one + first).astype(np.uint8), cmp_colors(first))


def write_shuffled(folder, classes):
    """Every file has its colours in another order, as PNG optimisers leave them."""
    for i, one in enumerate(classes):
        order = np.random.RandomState(i).permutation(12)
        paletted(folder / f"{i}.png", np.argsort(order)[one].astype(np.uint8), CMP_FACADES.colors[order])


def write_web(folder, classes):
    for i, one in enumerate(classes):
        paletted(folder / f"{i}.png", one.astype(np.uint8), WEB)


def write_numbers(numbers, dtype, ending="png"):
    def write(folder, classes):
        for i, one in enumerate(classes):
            numbered(folder / f"{i}.{ending}", np.array(numbers)[one], dtype)

    return write


def write_instances(folder, classes):
    """Write ids as Cityscapes has them: of the classes from 3 on, class * 1000 + object."""
    for i, one in enumerate(classes):
        objects = np.random.RandomState(i).randint(0, 3, one.shape)
        numbered(folder / f"{i}.png", np.where(one >= 3, one * 1000 + objects, one), np.uint16)


def write_paletted(numbers):
    """Write indices of a palette in which 0 is green and all others are of their own red."""

    def write(folder, classes):
        colors = np.stack([np.arange(256), np.zeros(256), np.zeros(256)], axis=1)
        colors[0] = 0, 200, 0
        for i, one in enumerate(classes):
            paletted(folder / f"{i}.png", np.array(numbers, np.uint8)[one], colors)

    return write


CMP = {"palette": "cmp_facades"}
SETS = {
    "CMP from 1 on": (12, write_cmp, {}, ",".join(map(str, range(1, 13)))),
    "CMP from 1 on, by colour": (12, write_cmp, CMP, None),
    "CMP from 0 on, by colour": (12, lambda f, c: write_cmp(f, c, 0), CMP, None),
    "CMP from 100 on, by colour": (12, lambda f, c: write_cmp(f, c, 100), CMP, None),
    "palettes in any order, by colour": (12, write_shuffled, CMP, None),
    "colours of nobody's choice": (12, write_web, CMP, None),
    "mask of 0 and 255": (2, write_numbers([0, 255], np.uint8), {}, "0,255"),
    "mask of 0 and 65535": (2, write_numbers([0, 65535], np.uint16), {}, "0,65535"),
    "mask in a BMP": (2, write_numbers([0, 255], np.uint8, "bmp"), {}, "0,255"),
    "indices 0 and 255": (2, write_paletted([0, 255]), {}, "0,255"),
    "indices 1 and 2, said": (2, write_paletted([1, 2]), {"numbers": "1,2", "palette": "#010000,#020000"}, None),
    "1 to 5": (5, write_numbers(range(1, 6), np.uint8), {}, "1,2,3,4,5"),
    "any numbers": (3, write_numbers([7, 26001, 26002], np.uint16), {}, "7,26001,26002"),
    "said": (3, write_numbers([26001, 7, 0], np.uint16), {"numbers": "26001,7,0"}, None),
    "instances": (8, write_instances, {}, "instances"),
    "instances, said": (8, write_instances, {"numbers": "instances"}, None),
    "plain": (5, write_numbers(range(5), np.uint8), {}, None),
}  # fmt: skip


@pytest.fixture
def made(request, tmp_path):
    """Write a set as folders; return its config, its classes and what is found of them."""
    count, write, options, numbers = SETS[request.param]
    classes = classes_of(count)
    for split in ("train", "val"):
        write(tmp_path / split / "A", classes)
        for i in range(COUNT):
            save(tmp_path / split / "B" / f"{i}.png", noise(SIDE, SIDE, 3, seed=i))
    side = {"kind": "labels", "channels": count, **options}
    config = data_config(source="folders", dir=str(tmp_path), data__input=side, batch_size=COUNT)
    return config, classes, numbers


@pytest.mark.slow
@pytest.mark.parametrize("made", SETS, indirect=True)
def test_the_class_of_every_pixel_is_right(made, capsys):
    config, classes, numbers = made
    data = load(config)
    assert data.facts["input"].get("numbers") == numbers
    count = config.data.input.channels
    assert f"labels of the input in 6 training images: {count} of {count} classes seen" in (
        told := capsys.readouterr().out
    )
    assert "of no class" not in told
    one_hot = np.where(classes[..., None] == np.arange(count), 1, -1)
    np.testing.assert_array_equal(next(data.validation(COUNT))["real_a"], one_hot)
    resident = on_device.load(changed(config, resident=True))
    np.testing.assert_array_equal(next(resident.validation(COUNT))["real_a"], one_hot)
    split = load_split(with_facts(config, data.facts), "val")  # as evaluation opens them
    np.testing.assert_array_equal(next(iter(split.batches(COUNT)))["real_a"], one_hot)


@pytest.mark.slow
@pytest.mark.parametrize("made", [name for name in SETS if "instances" not in name], indirect=True)
def test_files_come_back_equal(made, tmp_path):
    """Trained from labels to the same labels, with a network that gives back what it sees."""
    config, classes, _ = made
    options = config.to_dict()
    options["data"] |= {"output": options["data"]["input"], "preprocess": "crop"}
    options |= {"objective": "test_labels:echo", "optimizer": SGD, "num_steps": 1}
    for split in ("train", "val"):
        for file in (tmp_path / split / "A").iterdir():
            (tmp_path / split / "B" / file.name).write_bytes(file.read_bytes())
        for file in (tmp_path / split / "B").glob("*.png"):
            if not (tmp_path / split / "A" / file.name).exists():
                file.unlink()
    config = small_config(options)
    train(config, tmp_path / "run")
    assert translate_files(tmp_path / "run", tmp_path / "val" / "A", tmp_path / "out") == 0
    by_colour = bool(config.data.input.palette)
    for file in sorted((tmp_path / "val" / "A").iterdir()):
        before, after = Image.open(file), Image.open(tmp_path / "out" / file.name)
        if by_colour and "P" in (before.mode, after.mode) and not np.array_equal(np.asarray(before), np.asarray(after)):
            before, after = before.convert("RGB"), after.convert("RGB")
        elif before.mode == "P" and not by_colour:
            np.testing.assert_array_equal(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")))
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after), err_msg=file.name)
    translator = Translator.from_workdir(tmp_path / "run")
    np.testing.assert_array_equal(translator(classes[0][..., None].astype(np.uint8))[..., 0], classes[0])


def echo(config):
    """Make an objective whose output is its input."""
    from support.networks import linear

    base = linear(small_config(optimizer=SGD))

    def translate(state, batch, rng):
        return {"fake_b": batch["real_a"]}

    def evaluate(state, batch, rng):
        shown = {"input": batch["real_a"], "output": batch["real_a"], "target": batch["real_b"]}
        return {"l1": abs(batch["real_a"] - batch["real_b"]).mean((1, 2, 3))}, shown

    def update(state, batch, rng):
        return {**state, "step": state["step"] + 1}, {"gen/l1": abs(batch["real_a"] - batch["real_b"]).mean()}

    return base._replace(update=update, translate=translate, evaluate=evaluate)


@pytest.mark.slow
def test_what_is_no_class_is_told(tmp_path, capsys):
    """Of 256 pixels an image 64 are 9, and 16 are 255; both train as no class."""
    classes = classes_of(4)
    classes[:, 4:8], classes[:, 8] = 9, 255
    write_numbers(range(256), np.uint8)(tmp_path / "train" / "A", classes)
    for i in range(COUNT):
        save(tmp_path / "train" / "B" / f"{i}.png", noise(SIDE, SIDE, 3, seed=i))
    side = {"kind": "labels", "channels": 4}
    data = load(data_config(source="folders", dir=str(tmp_path), val_split="", data__input=side, batch_size=COUNT))
    assert data.facts["input"] == {}
    told = "4 of 4 classes seen; 6.25% of the pixels are 255 (no class); 25.00% of the pixels have no class (9)"
    assert told in capsys.readouterr().out
    assert (next(data.train(0))["real_a"][:, 4:9] == -1).all()


@pytest.mark.parametrize(
    ("found", "channels", "expected"),
    [
        ([0, 1, 2], 3, ""),
        ([0, 2], 3, ""),  # a class that does not occur
        ([0, 1, 255], 3, ""),
        ([0, 255], 2, "0,255"),
        ([255], 2, "0,255"),
        ([0, 1, 255], 2, "0,1"),  # 255 is no class where there are two without it
        ([1, 2, 3], 3, "1,2,3"),
        ([1, 3], 3, "1,2,3"),
        ([1, 2, 3, 255], 3, "1,2,3"),
        ([10, 20, 30], 3, "10,20,30"),
        ([10, 20, 30], 4, ""),
        ([0, 7, 26000, 26001], 34, "instances"),
        ([0, 40001], 34, ""),
        ([-1, 0, 1], 3, "-1,0,1"),
    ],
)
def test_what_numbers_mean(found, channels, expected):
    assert labels.find_numbers(dict.fromkeys(found, 5), channels) == expected


@pytest.mark.slow
def test_the_run_keeps_what_was_found(tmp_path):
    write_cmp(tmp_path / "images" / "train" / "A", classes_of(12))
    for i in range(COUNT):
        save(tmp_path / "images" / "train" / "B" / f"{i}.png", noise(SIDE, SIDE, 3, seed=i))
    side = {"kind": "labels", "channels": 12}
    config = data_config(source="folders", dir=str(tmp_path / "images"), val_split="", data__input=side)
    train(config, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "facts.json").read_text())
    assert facts["input"] == {"numbers": ",".join(map(str, range(1, 13))), "palette": to_hex(CMP_FACADES.colors)}


def test_few_bits_are_numbers_and_no_palette_of_grays():
    """A PNG of 4 bits is read as indices of 16 grays, whatever colours the classes have."""
    palette = find_palette("#000000,#800000,#008000,#808000")
    ramp = np.repeat(np.linspace(0, 255, 16).astype(np.uint8)[:, None], 3, axis=1)
    assert labels.by_colour(np.array([[[0], [1]]]), ramp, palette) is None


def test_colours_decide_by_the_pixels_that_they_have():
    palette = find_palette("#000000,#800000,#008000")
    colors = np.array([[0, 128, 0], [9, 90, 200], [77, 5, 99]], np.uint8)
    indices = np.array([0] * 14 + [1, 2]).reshape(4, 4, 1)
    assert labels.by_colour(indices, colors, palette)[..., 0].ravel().tolist() == [2] * 14 + [255, 255]


def test_what_is_no_class_stays_none_in_translation(tmp_path):
    """7 of two classes is neither; a class that is translated as itself says so."""
    numbered(tmp_path / "in" / "a.png", np.array([[0, 1, 7, 7]] * 4), np.uint8)
    side = {"kind": "labels", "channels": 2}
    config = small_config(objective="test_labels:echo", optimizer=SGD, data__input=side, data__output=side)
    given = values.read(tmp_path / "in" / "a.png", of_config(config.data)[0]).values
    seen = values.encode(given, of_config(config.data)[0])
    np.testing.assert_array_equal(seen[0], [[1, -1], [-1, 1], [-1, -1], [-1, -1]])
