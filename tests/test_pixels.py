"""One promise: the same pixels, whatever way they come.

A network sees of an image what its kind says, to the bit the same in the stream, from images kept in memory or on the
devices, in the split that evaluation opens, and in what a translator is given.
"""

import itertools
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator
from p2p_jax import data as stream
from p2p_jax.config import with_facts
from p2p_jax.data import Source, from_arrays, make_source, on_device, unpaired_from_arrays
from p2p_jax.data.stream.sources import loader
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.domains import of_config
from p2p_jax.objectives import Objective
from support.configs import data_config, small_cyclegan_config
from support.images import save, write_images, write_pairs, write_sides_of_pairs
from support.kinds import COUNT, KINDS, PHOTOS, SIDE
from support.runs import write_run
from support.streams import assert_same_in_every_way, changed, in_order

DATA = os.environ.get("P2P_JAX_TEST_DATA")


def needs(name):
    """Skip where what a kind needs is not installed."""
    if name.startswith("lab_"):
        pytest.importorskip("skimage")
    if KINDS[name].ending == ".tif":
        pytest.importorskip("tifffile")


def write_kind(folder, name):
    """Write the images of a kind as A, and photographs as B, of both splits."""
    for split, (side, images, ending) in itertools.product(
        ("train", "val"), (("A", KINDS[name].raw, KINDS[name].ending), ("B", PHOTOS, ".png"))
    ):
        for i, image in enumerate(images):
            formats.write(folder / split / side / f"{i}{ending}", image)


def as_stored(folder, name, **options):
    """Return a config that takes the images of a kind as they are."""
    sizes = {"preprocess": "none", "load_size": SIDE, "crop_size": SIDE}
    return data_config(
        source="folders", dir=str(folder), input__kind=KINDS[name].kind, **sizes | KINDS[name].options | options
    )


def look(config):
    """Make an objective whose translation is what a network sees of the input."""

    def evaluate(state, batch, rng):
        return {"l1": jnp.abs(batch["real_b"]).mean((1, 2, 3))}, {"input": batch["real_a"]}

    return Objective(
        init=lambda rng, batch: {"step": jnp.int32(0)},
        update=lambda state, batch, rng: ({"step": state["step"] + 1}, {}),
        translate=lambda state, batch, rng: {"fake_b": batch["real_a"] + 0 * state["step"]},
        evaluate=evaluate,
    )


def seen_by_a_translator(folder, config, name):
    """Return what a translator shows its network of the files of validation."""
    shown = {"output": {"kind": "float", "channels": config.data.input.channels, "range": "-1:1"}}
    run = write_run(folder / "run", look_config(changed(config, **shown)), {"step": np.int32(1)}, 1)
    translator = Translator.from_workdir(run)
    return translator(np.stack([formats.read(x).pixels for x in sorted((folder / "val" / "A").iterdir())]))


def look_config(config):
    """Return the config of a run of ``look``."""
    with config.unlocked():
        config.objective = "test_pixels:look"
    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_networks_see_what_files_store(tmp_path, name):
    """In closed form, of every kind, in every way."""
    needs(name)
    pytest.importorskip("tensorflow")
    write_kind(tmp_path, name)
    config = as_stored(tmp_path, name)
    data = stream.load(config)
    expected, config = KINDS[name].seen(), with_facts(config, data.facts)
    on_devices = on_device.load(changed(config, resident=True), process_index=0, process_count=1)
    seen = {
        "stream": in_order(data.validation)["real_a"],
        "memory": in_order(stream.load(changed(config, cache_mb=64)).validation)["real_a"],
        "devices": in_order(on_devices.validation)["real_a"],
        "split": in_order(stream.load_split(config, "val").batches)["real_a"],
        "translator": seen_by_a_translator(tmp_path, config, name),
    }
    assert np.abs(expected).max() <= 1
    for way, found in seen.items():
        assert found.dtype == np.float32, way
        np.testing.assert_allclose(found, expected, atol=1e-4 if name.startswith("lab_") else 1e-6, err_msg=way)
        if way != "translator":
            np.testing.assert_array_equal(found, seen["stream"], err_msg=way)
    domain, photo = of_config(config.data)
    values = domain.values(KINDS[name].raw) if name.startswith("lab_") else KINDS[name].raw
    back = domain.decode(seen["stream"])
    assert back.dtype == domain.dtype
    if domain.dtype.kind == "f":
        np.testing.assert_allclose(back, values, atol=1e-4)
    elif "range" in name:
        np.testing.assert_array_equal(back, values.clip(10, 200))
    elif name == "labels":
        np.testing.assert_array_equal(back[values < 7], values[values < 7])
    else:
        np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(photo.decode(in_order(data.validation)["real_b"]), PHOTOS)


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "name"), list(zip(itertools.cycle(["AtoB", "BtoA"]), KINDS)))  # noqa: B905
def test_resized_cropped_and_mirrored_images_of_every_kind(name, direction, capsys):
    needs(name)
    pair = (KINDS[name].raw, PHOTOS) if direction == "AtoB" else (PHOTOS, KINDS[name].raw)
    options = {"load_size": 18, "flip": True, "direction": direction, "input__kind": KINDS[name].kind}
    assert_same_in_every_way(data_config(**options | KINDS[name].options), from_arrays(*pair), capsys=capsys)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_unpaired_sides_have_their_own_lengths_sizes_and_kinds(direction, capsys):
    a, b = KINDS["int16"].raw, PHOTOS[:3, :17, :13]
    pair = (a, b) if direction == "AtoB" else (b, a)
    config = data_config(input__kind="int16", input__channels=1, direction=direction, load_size=18, flip=True)
    data = assert_same_in_every_way(config, unpaired_from_arrays(*pair), capsys=capsys)
    assert (data.num_train, data.num_val) == (COUNT, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"augment__vflip": True, "augment__quarter_turns": True, "augment__photometric": 0.2},
        {"augment__scale_jitter": 0.4},
        {"task__input": "p2p_jax.images.tasks:gaussian_noise", "task__sigma": 20.0},
    ],
    ids=["augmentation", "scale jitter", "made inputs"],
)
def test_what_chance_changes(options):
    config = data_config(load_size=18, flip=True, **options)
    assert_same_in_every_way(config, from_arrays(PHOTOS, 255 - PHOTOS), on_devices=False)


def write_halves(folder, sizes, mode="RGB"):
    """Write side-by-side files of noise of these sizes, of both splits."""
    for split in ("train", "val"):
        write_sides_of_pairs(folder / split, sizes, mode)


PREPROCESS = [
    {"load_size": 286, "crop_size": 256},
    {"load_size": 18},
    {"preprocess": "crop"},
    {"preprocess": "scale_width_and_crop", "load_size": 24},
    {"preprocess": "scale_width"},
    {"preprocess": "scale_shortside_and_crop", "load_size": 24},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", PREPROCESS, ids=lambda options: " ".join(map(str, options.values())))
def test_files_of_different_sizes(tmp_path, options, capsys):
    wide = options.get("preprocess") == "scale_width"
    sizes = [(17, 40), (30, 64), (16, 33)] if wide else [(17, 40), (64, 23), (16, 16), (30, 31), (25, 70)]
    write_halves(tmp_path, sizes)
    config = data_config(source="side_by_side/BA", dir=str(tmp_path), direction="BtoA", flip=True, **options)
    data = assert_same_in_every_way(config, split="val", capsys=capsys)
    if options.get("preprocess") == "crop":
        assert data.resident.arrays["sizes_0"].tolist() == [list(size) for size in sizes]
        assert data.resident.arrays["real_a"].shape == (5, 64, 70, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "channels"), [("1", 3), ("L", 3), ("P", 1), ("RGB", 1)])
def test_gray_and_colour_are_converted_alike(tmp_path, mode, channels):
    write_halves(tmp_path, [(16, 16)] * 4, mode)
    # Colours whose luma lies between two grays but for rounding.
    image = np.tile(np.array([[0, 138, 171], [0, 172, 224]], np.uint8), (8, 8, 1)).reshape(8, 16, 3)
    for split in ("train", "val"):
        Image.fromarray(np.tile(image, (2, 2, 1))).convert(mode).save(tmp_path / split / "9.png")
    config = data_config(source="side_by_side", dir=str(tmp_path), input__channels=channels, flip=True)
    assert_same_in_every_way(config, split="val")


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_splits_know_names_and_stored_images(direction, tmp_path):
    for split, count in (("train", 2), ("val", 3)):
        write_pairs(tmp_path / split, count)
    config = data_config(source="side_by_side", dir=str(tmp_path), direction=direction, load_size=18)
    assert_same_in_every_way(config, split="val")
    opened = stream.load_split(config, "val")
    assert opened.paired and opened.names[0] == opened.names[1] and len(opened.names[0]) == 3
    stored = np.asarray(Image.open(tmp_path / "val" / "001.png"))
    halves = [stored[:, :16], stored[:, 16:]]
    for side, expected in enumerate(halves if direction == "AtoB" else halves[::-1]):
        np.testing.assert_array_equal(opened.original(side, 1), expected)


@pytest.mark.slow
def test_unpaired_folders(tmp_path):
    for folder, count in (("trainA", 2), ("trainB", 2), ("testA", 3), ("testB", 2)):
        write_images(tmp_path / folder, count)
    options = {"source": "unpaired", "dir": str(tmp_path), "val_split": "test", "load_size": 18}
    config = data_config(small_cyclegan_config, **options)
    assert_same_in_every_way(config, split="test")
    opened = stream.load_split(config, "test")
    assert not opened.paired and [len(names) for names in opened.names] == [3, 2]


@pytest.mark.slow
def test_labels_in_files_of_any_size(tmp_path):
    for split, side in itertools.product(("train", "val"), "AB"):
        for i in range(4):
            save(tmp_path / split / side / f"{i}.png", PHOTOS[i, : 17 + i, :, 0] % 3)
    options = {
        "source": "folders",
        "dir": str(tmp_path),
        "preprocess": "crop",
        "input__kind": "labels",
        "input__channels": 3,
    }
    assert_same_in_every_way(data_config(**options), split="val")


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="P2P_JAX_TEST_DATA names no folder")
@pytest.mark.parametrize("name", ["facades", "horse2zebra"])
def test_real_images(tmp_path, name):
    paired = name == "facades"
    for folder in ("train",) if paired else ("trainA", "trainB"):
        (tmp_path / folder).mkdir()
        for path in sorted((Path(DATA) / name / folder).iterdir())[: 6 if folder != "trainB" else 4]:
            (tmp_path / folder / path.name).symlink_to(path)
    gray = "n02391049_226.jpg"  # among colours
    if not paired and not (tmp_path / "trainB" / gray).exists():
        (tmp_path / "trainB" / gray).symlink_to(Path(DATA) / name / "trainB" / gray)
    sizes = {"load_size": 286, "crop_size": 256, "val_split": "train", "flip": True}
    config = data_config(source="side_by_side" if paired else "unpaired", dir=str(tmp_path), direction="BtoA", **sizes)
    assert_same_in_every_way(config, split="train")


@pytest.mark.slow
def test_encoded_images_of_a_published_set(tmp_path, monkeypatch):
    write_halves(tmp_path / "rgb", [(16, 16)] * 4)
    write_halves(tmp_path / "gray", [(16, 16)] * 2, "L")
    encoded = [{str(path): path.read_bytes() for path in sorted(tmp_path.glob(f"*/train/{i}.*"))} for i in (0, 1)]
    monkeypatch.setattr("p2p_jax.data.cycle_gan_sets.fetch", lambda name, split: encoded)
    config = data_config(source="cycle_gan/zebras", flip=True)
    assert_same_in_every_way(config, split="val")


@pytest.mark.slow
def test_a_source_from_outside_that_only_reads():
    pairs = from_arrays(PHOTOS, 255 - PHOTOS)
    assert_same_in_every_way(data_config(load_size=18), Source(pairs.names, pairs.read))
    wrong = Source(["one"], lambda index: pairs.read(index)[:1])
    with pytest.raises(InputError, match="the source of one gives 1 images .* a tuple of two images"):
        on_device.load(data_config(resident=True), train=wrong)
    with pytest.raises(InputError, match="one cannot be read"):
        loader(Source(["one"], lambda index: 1 / 0 if index else (pairs.read(9),)))(0)
    with pytest.raises(InputError, match=r"16 bits \(uint16\), but this side is declared uint8"):
        on_device.load(data_config(resident=True), train=from_arrays(KINDS["uint16"].raw, PHOTOS))


@pytest.mark.parametrize("source", ["folders", "suffixes", "csv", "side_by_side", "unpaired", "toy_facades", "16 bits"])
def test_sources_load_what_they_read(tmp_path, source):
    tf = pytest.importorskip("tensorflow")
    names = {"folders": ("train/A/{}", "train/B/{}"), "suffixes": ("train/{}_A", "train/{}_B")}
    names |= {"csv": ("left/{}", "right/{}"), "unpaired": ("trainA/{}", "trainB/{}"), "16 bits": names["folders"]}
    values = KINDS["uint16"].raw[..., 0] if source == "16 bits" else PHOTOS
    for side, name in enumerate(names.get(source, ())):
        for i in range(3):
            ending = "tif" if source == "16 bits" else "png" if i else "jpg"
            formats.write(tmp_path / f"{name.format(i)}.{ending}", np.atleast_3d(values[i + 2 * side]))
    if source == "csv":
        rows = "".join(f"left/{i}.{e},right/{i}.{e}\n" for i, e in enumerate(("jpg", "png", "png")))
        (tmp_path / "train.csv").write_text("a,b\n" + rows)
    if source == "side_by_side":
        write_halves(tmp_path, [(16, 16)] * 3, "P")
    kinds = (
        dict(input__kind="uint16", input__channels=1, output__kind="uint16", output__channels=1)
        if source == "16 bits"
        else {}
    )
    name = "folders" if source == "16 bits" else source
    made = make_source(data_config(source=name, dir=str(tmp_path), **kinds).data, "train")
    for part in made if source == "unpaired" else [made]:
        for index in (0, 2):
            read, loaded = part.read(tf.constant(index, tf.int64)), part.load(index)
            assert len(read) == len(loaded)
            for a, b in zip(read, loaded, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            for a, b in zip(part.in_order(-1).load(index), part.in_order(-1).read(index), strict=True):
                np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(part.in_order(-1).load(index)[0], loaded[-1])
