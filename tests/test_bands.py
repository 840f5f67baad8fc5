"""From files to files of another kind: four bands of uint16 in a TIFF become one band of floats, in metres say."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, evaluation, train
from p2p_jax.commands import translate
from p2p_jax.data import load, load_split
from p2p_jax.data.toy.facades import render
from p2p_jax.images import formats
from support.configs import small_config
from support.runs import run_command

pytestmark = pytest.mark.slow

pytest.importorskip("tifffile")
WEIGHTS = np.array([2e-3, -1e-3, 5e-4, 1.5e-3], np.float32)  # the relation of the bands that is to be learnt
OFFSET = np.float32(-3)
PIXEL_SCALE = (33550, 12, 3, (10.0, 10.0, 0.0))  # of GeoTIFF: 10 metres
TIE_POINT = (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 4_100_000.0, 0.0))


def photographs(count, split):
    """Return real photographs where there are some, else drawn ones: [count, 32, 32, 3] uint8."""
    folder = Path(os.environ.get("P2P_JAX_TEST_DATA", "")) / "facades" / split
    if folder.is_dir():
        files = sorted(folder.iterdir())[:count]
        images = [Image.open(path).crop((0, 0, 256, 256)) for path in files]
    else:
        images = [Image.fromarray(render(i, split, 64).photo) for i in range(count)]
    return np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BOX)) for image in images])


def bands_of(photos):
    """Make bands as a satellite has them: 12 bits or so, and one of which a photograph knows nothing."""
    x = photos.astype(np.float32)
    infrared = np.clip(255 - 0.7 * x.mean(-1) - 20 * np.sin(np.arange(32) / 5), 0, 255)
    bands = [x[..., 0] * 30 + 500, x[..., 1] * 35 + 200, x[..., 2] * 25, infrared * 38 + 1000]
    return np.rint(np.stack(bands, axis=-1)).astype(np.uint16)


def relation(bands):
    return (bands.astype(np.float32) @ WEIGHTS + OFFSET)[..., None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bands")
    for split, count in (("train", 64), ("val", 16)):
        for i, bands in enumerate(bands_of(photographs(count, split))):
            formats.write(root / split / "A" / f"{i:02d}.tif", bands, tags=(PIXEL_SCALE, TIE_POINT))
            formats.write(root / split / "B" / f"{i:02d}.tif", relation(bands))
    return root


def experiment(folder, **changes):
    data = {
        "source": "folders", "dir": str(folder), "direction": "AtoB", "preprocess": "crop", "crop_size": 32,
        "input__kind": "uint16", "input__range": "0:12000", "input__channels": 4,
        "output__kind": "float", "output__channels": 1,
    }  # fmt: skip
    network = {"num_downs": 2, "base_width": 16, "norm": "none", "dropout_rate": 0.0}
    options = {f"data__{key}": value for key, value in data.items()}
    options |= {f"generator__{key}": value for key, value in network.items()}
    options |= {"num_steps": 800, "batch_size": 8} | dict.fromkeys(
        ("log_every", "eval_every", "sample_every", "checkpoint_every"), 800
    )
    schedule = {"kind": "linear_decay", "unit": "steps", "constant_for": 400, "decay_over": 400}
    options |= {f"schedule__{key}": value for key, value in schedule.items()}
    options |= {"loss__lambda_gan": 0.0, "optimizer__learning_rate": 4e-3, "inference__dropout": False}
    return small_config(**options | changes)


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "bands"
    train(experiment(folder), workdir)
    return workdir


def psnr(found, wanted, peak):
    return 10 * np.log10(peak**2 / np.mean((found - wanted) ** 2))


def test_the_relation_is_recovered_to_30_db(folder, workdir):
    translator = Translator.from_workdir(workdir)
    bands = np.stack([formats.read(path).pixels for path in sorted((folder / "val" / "A").iterdir())])
    found = translator(bands)
    assert (found.dtype, found.shape) == (np.float32, (16, 32, 32, 1))
    wanted = relation(bands)
    peak = float(translator.domain_out.high[0] - translator.domain_out.low[0])
    assert psnr(found, wanted, peak) > 30
    assert psnr(np.full_like(wanted, wanted.mean()), wanted, peak) < 25  # which a constant does not reach
    results = evaluation.evaluate(workdir)
    assert results["metrics"]["psnr"]["mean"] > 30


def test_translated_files_are_of_the_outputs_own_kind(folder, workdir, tmp_path):
    assert run_command(translate, workdir, folder / "val" / "A", "--output", tmp_path) == 0
    translator = Translator.from_workdir(workdir)
    for name in ("00.tif", "15.tif"):
        source, written = formats.read(folder / "val" / "A" / name), formats.read(tmp_path / name)
        assert (written.pixels.dtype, written.pixels.shape) == (np.float32, (32, 32, 1))
        np.testing.assert_array_equal(written.pixels, translator(source.pixels))
        assert written.tags[:2] == source.tags[:2] == (PIXEL_SCALE, TIE_POINT)
        low, high = translator.domain_out.low[0], translator.domain_out.high[0]
        assert low <= written.pixels.min() < written.pixels.max() <= high


def test_the_measured_range_is_kept_with_the_run(folder, workdir, capsys):
    stored = Translator.from_workdir(workdir).config.data
    values = np.concatenate([formats.read(path).pixels for path in sorted((folder / "train" / "B").iterdir())])
    assert stored.output.range == f"{float(values.min())!r}:{float(values.max())!r}"
    assert stored.input.range == "0:12000"
    train(experiment(folder), workdir)  # the same command: the measured range is no other one
    assert "nothing to do" in capsys.readouterr().out
    train(experiment(folder, num_steps=801), workdir)
    out = capsys.readouterr().out
    assert "found a checkpoint of step 800" in out and "values of b" not in out


def test_the_images_of_a_split_as_they_are_stored(folder):
    split = load_split(experiment(folder), "val")
    for side, name in enumerate("AB"):
        stored = formats.read(folder / "val" / name / "03.tif").pixels
        np.testing.assert_array_equal(split.original(side, 3), stored)


def test_a_file_of_another_kind_is_named_before_training(folder, tmp_path):
    config = experiment(folder)
    bad = folder / "train" / "B" / "03.tif"
    good = bad.read_bytes()
    pixels = formats.read(bad).pixels.copy()
    pixels[4, 4] = np.inf
    try:
        formats.write(bad, pixels)
        with pytest.raises(Exception, match=r"B.03\.tif holds numbers that are not finite"):
            load(config)
    finally:
        bad.write_bytes(good)
    config = experiment(folder, data__input__kind="uint8", data__input__range="")
    with pytest.raises(Exception, match=r"A.00\.tif has 16 bits \(uint16\), .* set config\.data\.input\.kind .*uint16"):
        load(config)
