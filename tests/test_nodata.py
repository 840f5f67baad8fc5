"""Pixels of which nothing is known: nodata and masks of rasters go through everything to the written file.

rasterio (GDAL) writes the files and reads what is written; losses and metrics are computed by NumPy over known pixels.
"""

import json

import jax
import numpy as np
import pytest

import p2p_jax
from p2p_jax import Translator, train
from p2p_jax.config import with_facts
from p2p_jax.data import from_arrays, load, on_device
from p2p_jax.data.inspect import inspection
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from p2p_jax.images import formats, unknown
from p2p_jax.images.resize import resize
from p2p_jax.objectives import losses, pix2pix
from p2p_jax.objectives.unknown import l1
from p2p_jax.training import parallel
from p2p_jax.training.checkpoint import read_filled_in
from support.configs import SGD, data_config, small_config, small_cyclegan_config
from support.images import save
from support.runs import rows_of, translate_files
from support.streams import changed, in_order

rasterio = pytest.importorskip("rasterio")
SIDE, COUNT = 32, 4
LOWEST = float(np.finfo(np.float32).min)
NODATA = {"-9999": -9999.0, "-3.4e38": LOWEST, "nan": np.nan}


def heights(seed):
    """Return metres, and where they are known: not in a corner, and not in single pixels."""
    rng = np.random.RandomState(seed)
    known = rng.uniform(size=(SIDE, SIDE)) > 0.1
    known[:5, :6] = False
    return rng.uniform(100, 900, (SIDE, SIDE)).astype(np.float32), known


def counts(seed):
    """Return counts of two bands of 16 bits, in which 0 is a value as any other, and where a mask has them as known."""
    rng = np.random.RandomState(seed + 50)
    return rng.randint(0, 4000, (2, SIDE, SIDE)).astype(np.uint16), rng.uniform(size=(SIDE, SIDE)) > 0.2


def raster(path, bands, *, nodata=None, valid=None, names=()):
    """Write a tiled, compressed GeoTIFF as GDAL does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff", "height": SIDE, "width": SIDE, "count": len(bands), "dtype": bands.dtype.name,
        "crs": "EPSG:32632", "transform": rasterio.transform.from_origin(5e5, 5e6, 10, 10), "nodata": nodata,
        "tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "lzw",
    }  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        for i, name in enumerate(names, start=1):
            file.set_band_description(i, name)
        if valid is not None:
            file.write_mask(valid)


def write_set(folder, nodata):
    """Write counts with masks as A and heights with nodata as B."""
    for split in ("train", "val"):
        for i in range(COUNT):
            values, known = heights(i + 10 * (split == "val"))
            number = NODATA[nodata]
            bands, valid = counts(i + 10 * (split == "val"))
            raster(folder / split / "A" / f"{i}.tif", bands, valid=valid, names=("red", "NIR"))
            raster(folder / split / "B" / f"{i}.tif", np.where(known, values, np.float32(number))[None], nodata=number)


@pytest.fixture(params=NODATA)
def folder(request, tmp_path):
    write_set(tmp_path / "images", request.param)
    return tmp_path / "images"


def config_of(folder, make=small_config, *, sides=None, **others):
    """Return an experiment on a set of ``write_set``; `others` are options outside ``data``."""
    sides = sides or {
        "data__input": {"kind": "uint16", "channels": 2},
        "data__output": {"kind": "float", "channels": 1},
    }
    unpaired = make is small_cyclegan_config
    options = {
        "source": "unpaired" if unpaired else "folders",
        "dir": str(folder),
        "load_size": SIDE,
        "crop_size": SIDE,
        "val_split": "val",
    }
    return data_config(lambda **data: make(**data, **others), **options, **sides, batch_size=COUNT)


def expected(split):
    """Return what networks see, with NaN for unknown values, and the range that is measured."""
    trained = [heights(i) for i in range(COUNT)]
    known = np.concatenate([values[known] for values, known in trained])
    low, high = known.min(), known.max()
    first = 10 * (split == "val")
    a = [
        np.where(valid, bands / 32767.5 - 1, np.nan).transpose(1, 2, 0)
        for bands, valid in map(counts, range(first, first + COUNT))
    ]
    found = [heights(i) for i in range(first, first + COUNT)]
    b = [np.where(known, np.clip((x - low) / (high - low) * 2 - 1, -1, 1), np.nan)[..., None] for x, known in found]
    return np.stack(a), np.stack(b), (low, high)


@pytest.mark.slow
def test_range_crops_and_masks_in_the_stream_and_on_devices(folder, capsys):
    config = config_of(folder)
    data = load(config)
    real_a, real_b, (low, high) = expected("val")
    assert data.facts["input"] == {"nodata": "mask"}
    assert data.facts["output"]["range"] == f"{float(low)!r}:{float(high)!r}"
    assert float(data.facts["output"]["nodata"]) == pytest.approx(NODATA[folder_nodata(folder)], nan_ok=True)
    assert "marks unknown values of the output; they are left out" in capsys.readouterr().out
    for found in (in_order(data.validation), in_order(on_device.load(changed(config, resident=True)).validation)):
        np.testing.assert_allclose(found["real_a"], real_a, atol=1e-6)
        np.testing.assert_allclose(found["real_b"], real_b, atol=1e-6)
    batch = next(data.train(0))
    assert np.isnan(batch["real_b"]).mean() > 0.1 and np.isnan(batch["real_a"]).all(-1).mean() > 0.1


def folder_nodata(folder):
    with rasterio.open(folder / "train" / "B" / "0.tif") as file:
        return next(name for name, number in NODATA.items() if np.array_equal(number, file.nodata, equal_nan=True))


@pytest.mark.slow
def test_loss_and_metrics_are_those_of_known_pixels(folder, tmp_path):
    """One step of SGD and one validation beside NumPy; from the first step on the loss is finite."""
    config = config_of(folder, optimizer=SGD, num_steps=3, log_every=1, loss={"lambda_gan": 0.0, "lambda_l1": 1.0})
    train(config, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert all(np.isfinite(float(row["train/gen/l1"])) for row in rows)
    translator = Translator.from_workdir(tmp_path / "run", dropout=False)
    found = evaluate(tmp_path / "run", dropout=False)
    real_a, real_b, (low, high) = expected("val")
    metrics = pytest.importorskip("skimage.metrics")
    for i, row in enumerate(found["images"]):
        output = translator(real_a[i].astype(np.float32), normalized=True)
        lost = np.isnan(real_a[i]).any(-1)
        assert np.isnan(output[lost]).all() and np.isfinite(output[~lost]).all()
        known = ~(lost | np.isnan(real_b[i][..., 0]))
        error = np.abs(output - real_b[i])[known] / 2
        assert row["l1"] == pytest.approx(error.mean(), rel=1e-4)
        assert row["psnr"] == pytest.approx(-10 * np.log10(np.square(error).mean()), rel=1e-4)
        assert row["mae_units"] == pytest.approx(error.mean() * (high - low), rel=1e-3)
        x, y = ((np.where(known[..., None], z, 0) + 1) / 2 for z in (output, real_b[i]))
        _, table = metrics.structural_similarity(
            x[..., 0], y[..., 0], data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        whole = [known[j - 5 : j + 6, k - 5 : k + 6].all() for j in range(5, SIDE - 5) for k in range(5, SIDE - 5)]
        inner = table[5:-5, 5:-5].ravel()[whole]
        assert row["ssim"] is None if not len(inner) else row["ssim"] == pytest.approx(inner.mean(), abs=1e-3)


@pytest.mark.slow
def test_the_loss_of_a_step_is_that_of_known_pixels(folder):
    data = load(config := config_of(folder, optimizer=SGD))
    config = with_facts(config, data.facts | {"num_train": COUNT})
    objective = pix2pix(config)
    batch = next(data.train(0))
    state = jax.jit(objective.init)(jax.random.key(0), batch)
    shown = {name: np.nan_to_num(x) for name, x in batch.items()}
    _, metrics, finite = parallel.compile_update(objective.update, None, COUNT, 1).run(state, *placed(objective, batch))
    assert np.asarray(finite).all() and np.isfinite(float(metrics["gen/total"]))
    rng = np.random.RandomState(0)
    x = rng.uniform(-1, 1, batch["real_b"].shape).astype(np.float32)
    known = ~np.isnan(batch["real_b"])
    assert float(l1(x, batch["real_b"])) == pytest.approx(np.abs(x - shown["real_b"])[known].mean(), rel=1e-5)
    gradient = jax.grad(l1)(x, batch["real_b"])
    np.testing.assert_allclose(gradient, np.where(known, np.sign(x - shown["real_b"]) / known.sum(), 0), atol=1e-9)
    assert float(l1(x, np.nan_to_num(batch["real_b"]))) == pytest.approx(float(losses.l1(x, shown["real_b"])), rel=1e-6)


def placed(objective, batch):
    update = parallel.compile_update(objective.update, None, COUNT, 1)
    return update.place(batch), jax.random.key(1)


@pytest.mark.slow
def test_cyclegan_trains_on_them(folder, tmp_path):
    for split in ("train", "val"):
        for side in "AB":
            (folder / split / side).rename(folder / f"{split}{side}")
    options = {"loss__pool_size": 4, "loss__lambda_identity": 0.0, "num_steps": 3, "log_every": 1}
    config = config_of(folder, small_cyclegan_config, **options)
    train(config, tmp_path / "run")
    for row in rows_of(tmp_path / "run"):
        assert all(np.isfinite(float(value)) for name, value in row.items() if value and name != "time")


@pytest.mark.slow
def test_what_is_written_is_read_by_rasterio(folder, tmp_path):
    """Where the input is unknown the output is; place on the earth, tiles, compression and nodata are as they were."""
    train(config_of(folder, num_steps=1), tmp_path / "run")
    assert translate_files(tmp_path / "run", folder / "val" / "A", tmp_path / "out") == 0
    number = NODATA[folder_nodata(folder)]
    for i in range(COUNT):
        source, made = folder / "val" / "A" / f"{i}.tif", tmp_path / "out" / f"{i}.tif"
        with rasterio.open(source) as before, rasterio.open(made) as after:
            assert (after.crs, after.transform) == (before.crs, before.transform)
            assert (after.profile["tiled"], after.block_shapes[0], after.compression.name) == (True, (16, 16), "lzw")
            assert after.nodata == number or np.isnan([after.nodata, number]).all()
            _, valid = counts(i + 10)
            np.testing.assert_array_equal(after.dataset_mask() > 0, valid)
            values = after.read(1)[valid]
            assert values.min() > 0 and values.max() < 1000 and np.ptp(values) > 0
    assert inspection.inspect(config_of(folder)).errors == []


@pytest.mark.slow
def test_names_of_bands_and_masks_are_kept(tmp_path):
    """Two bands of 16 bits to the same: no number stands for unknown ones, so a mask is written."""
    for split in ("train", "val"):
        for i in range(COUNT):
            bands, valid = counts(i)
            for side in "AB":
                raster(tmp_path / "images" / split / side / f"{i}.tif", bands, valid=valid, names=("red", "NIR"))
    side = {"kind": "uint16", "channels": 2}
    config = config_of(tmp_path / "images", sides={"data__input": side, "data__output": side}, num_steps=1)
    train(config, tmp_path / "run")
    assert translate_files(tmp_path / "run", tmp_path / "images" / "val" / "A", tmp_path / "out") == 0
    with rasterio.open(tmp_path / "out" / "0.tif") as file:
        assert file.descriptions == ("red", "NIR") and file.nodata is None
        np.testing.assert_array_equal(file.dataset_mask() > 0, counts(0)[1])


@pytest.mark.slow
def test_a_number_can_be_named(tmp_path):
    """Depth in PNGs, of which 0 is no depth."""
    for split in ("train", "val"):
        for i in range(COUNT):
            depth = np.random.RandomState(i).randint(500, 4000, (SIDE, SIDE, 1)).astype(np.uint16)
            depth[:4] = 0
            save(tmp_path / "images" / split / "A" / f"{i}.png", np.zeros((SIDE, SIDE, 3), np.uint8) + np.uint8(i))
            formats.write(tmp_path / "images" / split / "B" / f"{i}.png", depth)
    sides = {"data__input": {}, "data__output": {"kind": "uint16", "channels": 1, "range": "measured", "nodata": "0"}}
    config = config_of(tmp_path / "images", sides=sides, num_steps=1)
    data = load(config)
    low = float(data.facts["output"]["range"].split(":")[0])
    assert 500 <= low < 520
    real_b = in_order(data.validation)["real_b"]
    assert np.isnan(real_b[:, :4]).all() and np.isfinite(real_b[:, 4:]).all()
    train(config, tmp_path / "run")
    assert read_filled_in(tmp_path / "run").data.output.nodata == "0"
    none = config_of(
        tmp_path / "images", sides=sides | {"data__output": {"kind": "uint16", "channels": 1, "nodata": "none"}}
    )
    assert np.isfinite(in_order(load(none).validation)["real_b"]).all()


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (
            {"kind": "labels", "channels": 4, "nodata": "0"},
            "output.nodata is for uint8, .*; config.data.output.kind is labels",
        ),
        ({"nodata": "unknown"}, "output.nodata is 'unknown'; write a number such as -9999 or 0, nan, mask or none"),
    ],
)
def test_wrong_options_are_named(side, message):
    with pytest.raises(InputError, match=message):
        small_config(data__output=side)


def test_sizes_change_by_what_is_known():
    """Of a plain 5 it stays 5, and unknown where half of what a pixel is made of is."""
    image = np.full((16, 16, 1), 5, np.float32)
    image[:, :8] = np.nan
    for size in ((8, 8), (32, 32), (12, 20)):
        found = resize(image, size)
        assert found.shape == (*size, 1)
        half = size[1] // 2
        assert np.isnan(found[:, :half]).all()
        np.testing.assert_allclose(found[:, half:], 5, rtol=1e-6)
    whole = np.random.RandomState(0).normal(size=(16, 16, 2)).astype(np.float32)
    one = whole.copy()
    one[3, 3, 0] = np.nan
    np.testing.assert_allclose(resize(one, (8, 8))[..., 1:], resize(whole, (8, 8))[..., 1:], atol=1e-6)


@pytest.mark.slow
def test_json_of_facts(folder, tmp_path):
    train(config_of(folder, num_steps=1), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "facts.json").read_text())
    assert facts["input"] == {"nodata": "mask"} and set(facts["output"]) == {"nodata", "range"}
    assert p2p_jax.Translator.from_workdir(tmp_path / "run").domain_out.unknown


@pytest.mark.slow
def test_arrays_and_files_without_a_tag_have_the_number_that_is_named(tmp_path):
    values = np.random.RandomState(0).uniform(100, 900, (COUNT, SIDE, SIDE, 1)).astype(np.float32)
    values[:, :4] = -9999
    photos = np.zeros((COUNT, SIDE, SIDE, 3), np.uint8)
    sides = {"data__input": {}, "data__output": {"kind": "float", "channels": 1, "nodata": "-9999"}}
    config = config_of(tmp_path, sides=sides)
    for resident in (False, True):
        data = load(
            changed(config, resident=resident), train=from_arrays(photos, values), val=from_arrays(photos, values)
        )
        assert data.facts["output"] == {"range": f"{values[:, 4:].min()}:{values[:, 4:].max()}"}
        assert (
            np.isnan(next(data.train(0))["real_b"]).any() and np.isnan(in_order(data.validation)["real_b"][:, :4]).all()
        )
    for i in range(COUNT):
        for split in ("train", "val"):
            save(tmp_path / split / "A" / f"{i}.png", photos[i])
            number = -9999 if i == 1 else None
            raster(tmp_path / split / "B" / f"{i}.tif", values[i].transpose(2, 0, 1), nodata=number)
    data = load(config_of(tmp_path, sides={"data__input": {}, "data__output": {"kind": "float", "channels": 1}}))
    assert data.facts["output"] == {"nodata": "-9999", "range": f"{values[:, 4:].min()}:{values[:, 4:].max()}"}
    known = {"kind": "float", "channels": 1, "nodata": "none"}
    data = load(config_of(tmp_path, sides={"data__input": {}, "data__output": known}))
    assert data.facts["output"]["range"].startswith("-9999.0:") and np.isfinite(next(data.train(0))["real_b"]).all()


@pytest.mark.slow
def test_unknown_values_in_validation_alone(tmp_path):
    """And images of which nothing is known at all: they are counted, and not in the mean."""
    for split in ("train", "val", "test"):
        for i in range(COUNT):
            bands, valid = counts(i)
            valid = {"train": None, "val": valid if i else np.zeros_like(valid), "test": valid}[split]
            raster(tmp_path / "images" / split / "A" / f"{i}.tif", bands)
            raster(tmp_path / "images" / split / "B" / f"{i}.tif", bands, valid=valid)
    side = {"kind": "uint16", "channels": 2}
    config = config_of(tmp_path / "images", sides={"data__input": side, "data__output": side}, num_steps=1)
    train(config, tmp_path / "run")
    assert np.isfinite(float(rows_of(tmp_path / "run")[-1]["eval/l1"]))
    found = evaluate(tmp_path / "run")["metrics"]["l1"]
    assert (found["count"], found["unknown"]) == (COUNT, 1) and np.isfinite(found["mean"])
    blind = config_of(tmp_path / "images", sides={"data__input": side, "data__output": side}, num_steps=1)
    with blind.unlocked():
        blind.data.val_split = ""
    train(blind, tmp_path / "blind")
    assert not read_filled_in(tmp_path / "blind").data.output.nodata
    found = evaluate(tmp_path / "blind", split="test")["metrics"]["l1"]
    assert found["count"] == COUNT and np.isfinite(found["mean"])


def test_known_values_are_not_taken_for_unknown_ones():
    pixels = np.array([[[0], [5]], [[-9999], [7]]], np.int16)
    lost = np.array([[False, True], [False, False]])
    found, number = unknown.written(pixels, lost, -9999.0)
    assert (found[..., 0].tolist(), number) == ([[0, -9999], [-9998, 7]], -9999.0)
    found, number = unknown.written(pixels.astype(np.uint16) * 0, lost, -1.0)
    assert number is None and not found.any()
