"""From a folder of files to written translations, for what is neither a pair of pictures nor a number of bands."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, main, train
from p2p_jax.data.toy.facades import render
from p2p_jax.evaluation import evaluate
from p2p_jax.images import formats, lab
from p2p_jax.images.palettes import CMP_FACADES, PIX2PIX_FACADES, to_hex, true_labels
from p2p_jax.training.checkpoint import read_filled_in
from support.configs import small_config, small_cyclegan_config
from support.runs import sample_grid, translate_files

pytestmark = pytest.mark.slow

REAL = Path(os.environ.get("P2P_JAX_TEST_DATA", "")) / "facades"
SIZE = 32


def facades(count, split):
    """Return photographs and classes [count, 32, 32], of real facades where there are some, else of drawn ones."""
    if (REAL / split).is_dir():
        files = [np.asarray(Image.open(path)) for path in sorted((REAL / split).iterdir())[:count]]
        pairs = [(x[:, :256], true_labels(x[:, 256:], PIX2PIX_FACADES).astype(np.uint8)) for x in files]
    else:
        drawn = [render(i, split, 64) for i in range(count)]
        pairs = [(x.photo, x.classes) for x in drawn]
    photos = [Image.fromarray(photo).resize((SIZE, SIZE), Image.Resampling.BOX) for photo, _ in pairs]
    classes = [Image.fromarray(labels).resize((SIZE, SIZE), Image.Resampling.NEAREST) for _, labels in pairs]
    return np.stack([np.asarray(x) for x in photos]), np.stack([np.asarray(x) for x in classes])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Paletted PNGs of labels (A) beside photographs (B), and the photographs once more by themselves."""
    root = tmp_path_factory.mktemp("facades")
    for split, count in (("train", 48), ("val", 12)):
        for i, (photo, classes) in enumerate(zip(*facades(count, split), strict=True)):
            labels = root / "pairs" / split / "A" / f"{i:02d}.png"
            formats.write(labels, classes[..., None], palette=CMP_FACADES.colors)
            for copy in (root / "pairs" / split / "B" / f"{i:02d}.png", root / "photos" / split / f"{i:02d}.png"):
                formats.write(copy, photo)
    return root


def experiment(folder, make=small_config, **changes):
    defaults = {"num_steps": 2, "data__load_size": SIZE, "data__crop_size": SIZE, "data__direction": "AtoB"}
    return make(**defaults | {"data__dir": str(folder)} | changes)


def translated(workdir, source, target, *flags):
    assert translate_files(workdir, source, target, *flags) == 0
    return [formats.read(path) for path in sorted(target.iterdir())]


LABELS = {"data__source": "folders", "data__input__kind": "labels", "data__input__channels": 12}


def test_paletted_labels_to_photographs(folder, tmp_path):
    options = {"num_steps": 200, "log_every": 100, "eval_every": 200, "sample_every": 200, "checkpoint_every": 200}
    options |= {"loss__lambda_gan": 0.0, "optimizer__learning_rate": 2e-3, "generator__base_width": 8}
    train(experiment(folder / "pairs", **LABELS, **options), tmp_path / "run")
    stored = read_filled_in(tmp_path / "run").data
    assert stored.input.palette == to_hex(CMP_FACADES.colors)  # found in the files

    assert 0 < evaluate(tmp_path / "run", metrics=[])["metrics"]["l1"]["mean"] < 0.25
    found = Translator.from_workdir(tmp_path / "run")
    photos, classes = (
        np.stack([formats.read(path).pixels for path in sorted((folder / "pairs" / "train" / side).iterdir())])
        for side in ("B", "A")
    )
    errors = [np.abs(found(x).astype(int) - photos).mean() for x in (classes, np.roll(classes, 1, axis=0))]
    assert errors[0] < 0.95 * errors[1]  # it paints what the labels say

    made = translated(tmp_path / "run", folder / "pairs" / "val" / "A", tmp_path / "out")
    assert len(made) == 12
    assert (made[0].pixels.dtype, made[0].pixels.shape, made[0].palette) == (np.uint8, (SIZE, SIZE, 3), None)
    labels = formats.read(folder / "pairs" / "val" / "A" / "00.png").pixels
    np.testing.assert_array_equal(made[0].pixels, found(labels))
    labels = sample_grid(tmp_path / "run", 200, SIZE)["input"]
    shown = {tuple(color) for color in labels.reshape(-1, 3).tolist()}
    assert shown <= {tuple(color) for color in CMP_FACADES.colors.tolist()}  # labels in their colours


def test_photographs_to_paletted_labels(folder, tmp_path):
    train(experiment(folder / "pairs", data__direction="BtoA", data__source="folders", data__output__kind="labels",
                    data__output__channels=12), tmp_path / "run")  # fmt: skip
    made = translated(tmp_path / "run", folder / "photos" / "val", tmp_path / "out")
    np.testing.assert_array_equal(made[0].palette, CMP_FACADES.colors)
    assert (made[0].pixels.dtype, made[0].pixels.shape) == (np.uint8, (SIZE, SIZE, 1))
    assert made[0].pixels.max() < 12


def test_colorization_keeps_the_lightness(folder, tmp_path):
    pytest.importorskip("skimage")
    flags = [f"--config.data.{name}={SIZE}" for name in ("load_size", "crop_size")]
    flags += [
        "--config.num_steps=2",
        "--config.batch_size=2",
        "--config.num_samples=2",
        "--config.generator.num_downs=3",
    ]
    flags += ["--config.generator.base_width=4", "--config.discriminator.receptive_field=16"]
    flags += ["--config.discriminator.base_width=4", f"--config.data.dir={folder / 'photos'}"]
    main.run(["--config", "colorization", "--workdir", str(tmp_path / "run"), *flags])
    translator = Translator.from_workdir(tmp_path / "run")

    photo = formats.read(folder / "photos" / "val" / "03.png").pixels
    lightness = lab.from_rgb(photo)[..., :1]
    ab = translator(lightness)
    assert (ab.dtype, ab.shape) == (np.float32, (SIZE, SIZE, 2))
    assert 1 < np.abs(ab).max() <= 110
    together = np.concatenate([lightness, ab], axis=-1)
    np.testing.assert_array_equal(together[..., :1], lightness)
    rounding = 0.3  # of the written 8 bits, in units of L
    assert np.abs(lab.from_rgb(lab.to_rgb(together))[..., :1] - lightness).max() < rounding

    made = translated(tmp_path / "run", folder / "photos" / "val", tmp_path / "out")
    for source, output in zip(sorted((folder / "photos" / "val").iterdir()), made, strict=True):
        before, after = (lab.from_rgb(x)[..., 0] for x in (formats.read(source).pixels, output.pixels))
        assert np.abs(after - before).max() < rounding
    np.testing.assert_array_equal(made[3].pixels, lab.to_rgb(together))


@pytest.mark.parametrize(("name", "channels"), [("edges_to_photos", 1), ("inpainting", 3), ("super_resolution", 3)])
def test_tasks_of_photographs(folder, tmp_path, name, channels):
    if name == "edges_to_photos":
        pytest.importorskip("skimage")
    flags = [f"--config.data.{key}={SIZE}" for key in ("load_size", "crop_size")]
    flags += [f"--config.{key}=2" for key in ("num_steps", "batch_size", "num_samples")]
    flags += ["--config.generator.num_downs=3", "--config.generator.base_width=4"]
    flags += ["--config.discriminator.receptive_field=16", "--config.discriminator.base_width=4"]
    main.run(["--config", name, "--workdir", str(tmp_path / "run"), f"--config.data.dir={folder / 'photos'}", *flags])
    translator = Translator.from_workdir(tmp_path / "run")
    assert (translator.channels_in, translator.channels_out) == (channels, 3)
    made = translated(tmp_path / "run", folder / "photos" / "val", tmp_path / "out")
    assert len(made) == 12
    assert made[0].pixels.shape == (SIZE, SIZE, 3)
    grid = sample_grid(tmp_path / "run", 2, SIZE)
    given, target = grid["input"][0].astype(int), grid["target"][0]
    photo = formats.read(folder / "photos" / "val" / "00.png").pixels
    np.testing.assert_array_equal(target, photo)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = True
    differs = (given != photo).any(-1)
    if name == "inpainting":
        assert not differs[~hole].any() and differs[hole].mean() > 0.9
    elif name == "edges_to_photos":
        assert set(np.unique(given)) <= {0, 255} and 0 < (given == 0).mean() < 0.5
    else:
        error = np.sqrt(np.mean((given - photo) ** 2))
        assert error < 30 and differs.mean() > 0.5


def test_without_pairs_the_domains_differ_too(folder, tmp_path):
    """Photographs of 8 bits and gray images of 12 in TIFFs, both ways."""
    pytest.importorskip("tifffile")
    for split in ("train", "val"):
        for path in sorted((folder / "photos" / split).iterdir()):
            photo = formats.read(path).pixels
            formats.write(tmp_path / "data" / f"{split}A" / path.name, photo)
            gray = photo.mean(-1, keepdims=True) * 16
            formats.write(tmp_path / "data" / f"{split}B" / f"{path.stem}.tif", gray.astype(np.uint16))
    options = {
        "data__source": "unpaired",
        "data__output__kind": "uint16",
        "data__output__channels": 1,
        "data__output__range": "0:4095",
    }
    options |= {"loss__lambda_identity": 0.0}
    train(experiment(tmp_path / "data", small_cyclegan_config, **options), tmp_path / "run")
    there = translated(tmp_path / "run", tmp_path / "data" / "valA", tmp_path / "there")
    assert (there[0].pixels.dtype, there[0].pixels.shape) == (np.uint16, (SIZE, SIZE, 1))
    assert 255 < there[0].pixels.max() <= 4095
    back = translated(tmp_path / "run", tmp_path / "data" / "valB", tmp_path / "back", "--direction", "BtoA")
    assert (back[0].pixels.dtype, back[0].pixels.shape) == (np.uint8, (SIZE, SIZE, 3))
    results = evaluate(tmp_path / "run", metrics=[])
    assert 0 < results["metrics"]["cycle"]["mean"] < 1
