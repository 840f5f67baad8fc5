"""Trained runs as functions on arrays: the same images as in training, any size, tiles, directions, checkpoints."""

import json
import warnings

import jax
import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.errors import InputError
from p2p_jax.inference import tiling
from p2p_jax.inference.programs import Kind
from p2p_jax.training.checkpoint import read_config
from support.configs import small_config
from support.images import noise, to_uint8
from support.networks import POINTWISE
from support.runs import memory_data, sample_grid


def cells(workdir, step, columns, rows):
    """Return the images in a sample grid, by column and row."""
    found = list(sample_grid(workdir, step, width=16).values())
    assert len(found) == columns and {len(images) for images in found} == {rows}
    return found


@pytest.mark.parametrize("step", [2, 4])
def test_same_image_as_in_the_sample_grid(pix2pix_run, step):
    inputs, outputs, _ = cells(pix2pix_run, step, 3, 2)
    found = Translator.from_workdir(pix2pix_run, step)(np.stack(inputs))
    assert np.abs(found.astype(int) - np.stack(outputs)).max() <= 1  # rounding of sums in another order
    assert (found == np.stack(outputs)).mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "columns"), [("AtoB", (0, 1)), ("BtoA", (3, 4))])
def test_same_image_as_in_the_sample_grid_both_ways(cyclegan_run, direction, columns):
    found = cells(cyclegan_run, 4, 6, 2)
    inputs, outputs = (np.stack(found[column]) for column in columns)
    translated = Translator.from_workdir(cyclegan_run, direction=direction)(inputs)
    assert np.abs(translated.astype(int) - outputs).max() <= 1
    assert (translated == outputs).mean() > 0.99
    other = Translator.from_workdir(cyclegan_run, direction={"AtoB": "BtoA", "BtoA": "AtoB"}[direction])(inputs)
    assert not np.array_equal(other, translated)


@pytest.mark.slow
def test_kinds_of_input(pix2pix_run):
    translator = Translator.from_workdir(pix2pix_run, batch_size=4)
    images = noise(5, 16, 24, 3)
    together = translator(images)
    assert together.shape == (5, 16, 24, 3) and together.dtype == np.uint8
    one_by_one = np.stack([translator(image) for image in images])
    assert np.abs(one_by_one.astype(int) - together).max() <= 1
    floats = translator(images.astype(np.float32) / 127.5 - 1)
    assert floats.dtype == np.float32 and np.abs(floats).max() <= 1
    assert np.abs(to_uint8(floats).astype(int) - together).max() <= 1
    gray = noise(16, 16, 1)
    assert np.array_equal(translator(gray), translator(np.repeat(gray, 3, axis=-1)))
    mixed = translator([images[0], gray, noise(8, 40, 3)])
    assert [image.shape for image in mixed] == [(16, 24, 3), (16, 16, 3), (8, 40, 3)]
    assert np.abs(mixed[0].astype(int) - together[0]).max() <= 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.int32), "uint8, or floats"),
        (np.full((16, 16, 3), 2.0), r"floats in \[-1, 1\]"),
        (np.full((16, 16, 3), np.nan), r"floats in \[-1, 1\]"),
        (np.zeros((16, 16), np.uint8), r"\[H, W, C\]"),
        (np.zeros((16, 16, 4), np.uint8), "4 channels, but the network takes 3; convert them"),
        (
            np.zeros((2, 3, 16, 16), np.uint8),
            r"have 16 channels, but .* takes 3; arrays are \[N, H, W, C\], and .* \[3, 16",
        ),
        (np.zeros((3, 16, 16), np.float32), r"have 16 channels, but .* takes 3; arrays are \[N, H, W, C\]"),
        (np.zeros((0, 16, 16, 3), np.uint8), "empty"),
    ],
)
def test_refused_input(pix2pix_run, images, message):
    with pytest.raises(InputError, match=message):
        Translator.from_workdir(pix2pix_run)(images)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 16), (13, 29), (1, 1), (30, 50), (70, 9)])
def test_any_size_is_kept(pix2pix_run, cyclegan_run, size):
    for workdir in (pix2pix_run, cyclegan_run):
        image = noise(*size, 3)
        translator = Translator.from_workdir(workdir)
        output = translator(image)
        assert output.shape == (*size, 3)
        # What the network saw beyond the image is its reflection, at the right and at the bottom.
        sides = [max(-(-n // translator.multiple) * translator.multiple, 8) for n in size]
        padded = np.pad(image, [(0, sides[0] - size[0]), (0, sides[1] - size[1]), (0, 0)], mode="reflect")
        assert np.abs(translator(padded)[: size[0], : size[1]].astype(int) - output).max() <= 1


@pytest.mark.slow
def test_multiples_are_found_by_asking_the_network(pix2pix_run, cyclegan_run):
    unet, resnet = Translator.from_workdir(pix2pix_run), Translator.from_workdir(cyclegan_run, direction="AtoB")
    assert (unet.multiple, unet.directions) == (8, ("BtoA",))
    assert (resnet.multiple, resnet.directions) == (4, ("AtoB", "BtoA"))
    assert unet.channels_in == unet.channels_out == 3


def test_one_compilation_per_size(pix2pix_run):
    translator = Translator.from_workdir(pix2pix_run, batch_size=2)
    for size in ((16, 16), (15, 16), (9, 12), (16, 25), (10, 30)):
        translator(noise(3, *size, 3))
    assert len(translator._programs) == 2  # 16x16 and 16x32


@pytest.mark.slow
def test_remainders_take_a_batch_that_is_compiled(pix2pix_run):
    """One image alone does not cost a whole batch, and nothing waits without bound."""
    translator = Translator.from_workdir(pix2pix_run, batch_size=4)
    one = translator(noise(16, 16, 3))
    kind = Kind((16, 16, 3), np.dtype(np.uint8), True)
    assert translator._programs.rows(kind) == {2}  # one for each of two devices
    five = translator(np.stack([noise(16, 16, 3)] * 5))
    assert translator._programs.rows(kind) == {2, 4}
    assert np.abs(five.astype(int) - one).max() <= 1
    many = [(i, noise(16, 16 * (1 + i), 3)) for i in range(20)]
    arrived = []

    def watched():
        for name, image in many:
            arrived.append(name)
            yield name, image

    first = next(translator.stream(watched()))
    assert first[0] == 0 and len(arrived) == 18  # more than four batches wait: the first bucket goes, one is under way
    assert [image.shape for _, image in sorted(translator.stream(many))] == [image.shape for _, image in many]


@pytest.mark.slow
def test_checkpoints_by_name(pix2pix_run):
    config = read_config(pix2pix_run)
    metrics = {
        step: json.loads((pix2pix_run / "checkpoints" / str(step) / "metrics" / "metrics").read_text())["l1"]
        for step in (2, 4)
    }
    found = {name: Translator.from_workdir(pix2pix_run, name) for name in ("latest", "best", 2, "4")}
    assert (found["latest"].step, found[2].step, found["4"].step) == (4, 2, 4)
    assert found["best"].step == min(metrics, key=metrics.get)
    assert found["latest"].checkpoint_id == found["4"].checkpoint_id != found[2].checkpoint_id
    assert config.best_metric == "l1"
    with pytest.raises(InputError, match=r"no checkpoint 3; choose latest, best or one of \[2, 4\]"):
        Translator.from_workdir(pix2pix_run, 3)


@pytest.mark.slow
def test_only_what_translation_reads_is_restored(pix2pix_run):
    translator = Translator.from_workdir(pix2pix_run, norm="batch")
    read = jax.tree.leaves(translator._kept)
    params = jax.tree.leaves(translator.run.shapes["params"]["generator"])
    assert sorted(x.shape for x in read) == sorted(x.shape for x in params)  # and no batch statistics: norm is "batch"
    running = Translator.from_workdir(pix2pix_run, norm="running")
    stats = jax.tree.leaves(running.run.shapes["batch_stats"]["generator"])
    assert len(jax.tree.leaves(running._kept)) == len(params) + len(stats)


@pytest.mark.slow
def test_switches_default_to_the_config_and_can_be_changed(pix2pix_run):
    image = noise(16, 16, 3)
    stored = Translator.from_workdir(pix2pix_run)
    assert (stored.config.inference.norm, stored.config.inference.dropout) == ("running", True)
    assert np.array_equal(stored(image), Translator.from_workdir(pix2pix_run, norm="running", dropout=True)(image))
    for changed in ({"norm": "batch"}, {"dropout": False}):
        assert not np.array_equal(stored(image), Translator.from_workdir(pix2pix_run, **changed)(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "AtoB"}, "direction=AtoB: this run was trained for only BtoA"),
        ({"tile": 20}, "tile=20 must be a multiple of 8"),
        ({"tile": 16, "overlap": 16}, "overlap=16 must be at least 0 and less than tile=16"),
        ({"overlap": 4}, "give `tile` too"),
        ({"norm": "both"}, "choose auto, batch or running"),
        ({"checkpoint": "newest"}, "no checkpoint newest"),
    ],
)
def test_refused_options(pix2pix_run, options, message):
    with pytest.raises(InputError, match=message):
        Translator.from_workdir(pix2pix_run, **options)


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="nothing does not hold a trained run"):
        Translator.from_workdir(tmp_path / "nothing")
    (tmp_path / "a_file").write_text("")
    with pytest.raises(InputError, match="is a file; name a directory"):
        Translator.from_workdir(tmp_path / "a_file")


def test_a_checkpoint_of_another_network_is_one_error(pix2pix_run, tmp_path):
    import shutil

    shutil.copytree(pix2pix_run, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    stored["generator"]["base_width"] = 8
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="does not fit the config"):
        Translator.from_workdir(tmp_path / "run")


@pytest.mark.slow
def test_tiles_that_agree_leave_no_trace(tmp_path, monkeypatch):
    config = small_config(generator=POINTWISE, inference={"dropout": False})
    train(config, tmp_path, data=memory_data(config))
    image = noise(50, 75, 3)
    whole, tiled = Translator.from_workdir(tmp_path), Translator.from_workdir(tmp_path, tile=16, overlap=5)
    assert whole.multiple == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is normalised, so that there is nothing to warn of
        output = tiled(image)
    assert output.shape == (50, 75, 3)
    seen, blend = [], tiling.blend
    monkeypatch.setattr(tiling, "blend", lambda tiles, size, *rest: (seen.append(size), blend(tiles, size, *rest))[1])
    for size in ((16, 40), (40, 16), (16, 16)):  # longer than a tile in one direction, in the other, in none
        assert np.abs(tiled(image[: size[0], : size[1]]).astype(int) - whole(image[: size[0], : size[1]])).max() <= 1
    assert seen == [(16, 40), (40, 16)]
    assert np.abs(output.astype(int) - whole(image)).max() <= 1


def seams(image, places):
    """Return how much more neighbours differ across the given rows than elsewhere, as a ratio of means."""
    steps = np.abs(np.diff(image.astype(float), axis=0)).mean((1, 2))
    at = np.zeros(len(steps), bool)
    at[[place - 1 for place in places]] = True
    return steps[at].mean() / steps[~at].mean()


@pytest.mark.slow
def test_difference_between_tiles_and_whole_is_measured(tmp_path):
    """A U-Net that is normalised by running statistics sees the same in a tile, but for its borders."""
    config = small_config(inference={"dropout": False, "norm": "batch"}, num_steps=8)
    train(config, tmp_path)
    image = np.asarray(Image.fromarray(noise(20, 20, 3)).resize((160, 160), Image.Resampling.BICUBIC))
    difference = {}
    for norm in ("running", "batch"):
        whole = Translator.from_workdir(tmp_path, norm=norm)(image).astype(float)
        translator = Translator.from_workdir(tmp_path, norm=norm, tile=64, overlap=32)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tiled = translator(image)
        assert [str(w.message)[:29] for w in caught] == ["each tile is normalised by it"] * (norm == "batch")
        difference[norm] = np.abs(tiled - whole).mean()
        edges = [y for start in tiling.starts(160, 64, 32)[1:] for y in (start, start + 32)]
        assert seams(tiled, edges) < 1.3
    assert difference["running"] < 2 < 255
    assert difference["running"] < difference["batch"]


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(64, 64, 16), (65, 64, 16), (1024, 256, 64), (100, 16, 0), (16, 16, 16)]
)
def test_tiles_cover_and_overlap(length, tile, overlap):
    found = tiling.starts(length, tile, overlap)
    assert (found[0], found[-1] + tile) == (0, length)
    assert all(b <= a + tile - overlap for a, b in zip(found, found[1:], strict=False))
    assert len(found) == (1 if length == tile else 1 + -(-(length - tile) // (tile - overlap)))


def blend_whole(tiles, corners, size, overlap):
    """Blend tiles with all sums in memory at once: the definition, which ``tiling.blend`` is to give to the bit."""
    rows, columns = tiles.shape[1:3]
    ramps = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)).astype(np.float32) for n in (rows, columns))
    weight = np.multiply.outer(*(np.minimum(ramp / (overlap + 1), 1) for ramp in ramps))[..., None]
    total, weights = np.zeros((*size, tiles.shape[-1]), np.float32), np.zeros((*size, 1), np.float32)
    for tile, (y, x) in zip(tiles, corners, strict=True):
        total[y : y + rows, x : x + columns] += weight * tile
        weights[y : y + rows, x : x + columns] += weight
    return total / weights


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [
        ((40, 56), (16, 24), 6),
        ((300, 70), (64, 64), 16),
        ((150, 24), (70, 24), 0),  # more rows at a time than are blended at once
        ((64, 64), (64, 64), 16),
        ((101, 33), (8, 8), 7),  # many tiles lie over one another
        ((9, 30), (9, 8), 3),
    ],
)
def test_blending_a_row_of_tiles_at_a_time_is_blending_all(size, tile, overlap):
    image = np.random.RandomState(0).rand(*size, 2).astype(np.float32)
    tiles, corners = tiling.cut(image, tile, overlap)
    tiles += np.random.RandomState(1).rand(*tiles.shape).astype(np.float32)  # they do not agree
    taken = []

    def one_by_one():
        for i, one in enumerate(tiles):
            taken.append(corners[i][0])
            yield one

    found, rows = [], 0
    for part in tiling.blend(one_by_one(), size, tile, overlap):
        assert taken[-1] <= rows  # no tile is asked for that lies below what is given out
        found.append(part)
        rows += len(part)
    np.testing.assert_array_equal(np.concatenate(found), blend_whole(tiles, corners, size, overlap))


def test_blending_is_an_average_with_weights_that_add_up_to_one():
    image = np.random.RandomState(0).rand(40, 56, 2).astype(np.float32)
    tiles, _ = tiling.cut(image, (16, 24), 6)
    assert np.allclose(np.concatenate(list(tiling.blend(tiles, (40, 56), (16, 24), 6))), image, atol=1e-6)
    # Two tiles, black and white: a ramp without a step, from one to the other.
    black_and_white = np.stack([np.zeros((8, 10, 1)), np.ones((8, 10, 1))])
    row = next(tiling.blend(black_and_white, (8, 16), (8, 10), 4))[0, :, 0]
    assert np.allclose(row[:6], 0) and np.allclose(row[10:], 1)
    assert np.allclose(row[6:10], [0.2, 0.4, 0.6, 0.8], atol=1e-6)
