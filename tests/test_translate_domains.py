"""Translation of images that are not 8-bit RGB: in units, from files of their kind and to files of theirs."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax import Translator, train
from p2p_jax.commands import evaluate
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate as evaluate_run
from p2p_jax.images import formats, lab, pictures
from p2p_jax.images.palettes import CMP_FACADES
from p2p_jax.inference.sizes import find_sizes
from p2p_jax.objectives import Objective
from p2p_jax.objectives.metrics import full_reference
from support.configs import small_config
from support.images import noise, save
from support.runs import memory_data, sample_grid, translate_files

RED_GREEN_BLUE = "#ff0000,#00ff00,#0000ff"
TAGS = ((33550, 12, 3, (10.0, 10.0, 0.0)), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 4.1e6, 0.0)))


def linear(config):
    """Make an objective whose "network" multiplies every pixel by a matrix that the config gives: nothing is learnt."""
    matrix = np.array(config.extra.matrix, np.float32)

    def translate(state, batch, rng):
        ways = {"fake_b": ("real_a", matrix), "fake_a": ("real_b", matrix.T)}
        if not config.extra.get("both"):
            del ways["fake_a"]
        return {
            fake: jnp.clip(batch[given] @ (by * state["one"]), -1, 1)
            for fake, (given, by) in ways.items()
            if given in batch
        }

    def evaluated(state, batch, rng):
        fake_b = translate(state, batch, rng)["fake_b"]
        columns = {"input": batch["real_a"], "output": fake_b, "target": batch["real_b"]}
        return full_reference(fake_b, batch["real_b"]), columns

    return Objective(
        init=lambda rng, batch: {"step": jnp.int32(0), "one": jnp.float32(1)},
        update=lambda state, batch, rng: ({**state, "step": state["step"] + 1}, {"gen/l1": jnp.float32(0)}),
        translate=translate,
        evaluate=evaluated,
    )


def make_run(workdir, matrix, both=False, stored=None, **data):
    """Make a run of the linear objective, from noise, or from a data set that is ``stored``."""
    config = small_config(
        num_steps=1,
        batch_size=2,
        objective="test_translate_domains:linear",
        extra={"matrix": matrix, "both": both},
        generator__norm="none",  # so that tiles are nothing to warn of
        **{f"data__{key}": value for key, value in {"direction": "AtoB", **data}.items()},
    )
    train(config, workdir, data=None if stored else memory_data(config))
    return workdir


@pytest.fixture(scope="module")
def bands_run(tmp_path_factory):
    """Four bands of uint16 in 0 to 4,000 to metres in -10 to 30: half of the first band less half of the last."""
    options = {
        "input__kind": "uint16",
        "input__channels": 4,
        "input__range": "0:4000",
        "output__kind": "float",
        "output__channels": 1,
    }
    workdir = tmp_path_factory.mktemp("runs") / "bands"
    return make_run(workdir, [[0.5], [0.0], [0.0], [-0.5]], **options, output__range="-10:30")


@pytest.fixture(scope="module")
def labels_run(tmp_path_factory):
    """Three classes to gray of 8 bits: black, middle, white."""
    options = {"input__kind": "labels", "input__channels": 3, "input__palette": RED_GREEN_BLUE, "output__channels": 1}
    return make_run(tmp_path_factory.mktemp("runs") / "labels", [[-0.5], [0.0], [0.5]], **options)


@pytest.fixture(scope="module")
def classes_run(tmp_path_factory):
    """RGB to the class of the largest of its channels."""
    options = {"output__kind": "labels", "output__channels": 3, "output__palette": RED_GREEN_BLUE}
    return make_run(tmp_path_factory.mktemp("runs") / "classes", np.eye(3).tolist(), **options)


@pytest.fixture(scope="module")
def deep_run(tmp_path_factory):
    """Gray of 8 bits to the same of 16."""
    options = {"input__channels": 1, "output__kind": "uint16", "output__channels": 1}
    return make_run(tmp_path_factory.mktemp("runs") / "deep", [[1.0]], **options)


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory):
    """L to ab, the brighter the redder; both ways, as CycleGAN has them."""
    options = {"input__kind": "lab_l", "input__channels": 1, "output__kind": "lab_ab", "output__channels": 2}
    return make_run(tmp_path_factory.mktemp("runs") / "colour", [[0.4, 0.2]], both=True, **options)


@pytest.fixture(scope="module")
def hole_run(tmp_path_factory):
    """Photographs without their middles to the same, untouched."""
    config = small_config(
        num_steps=1,
        batch_size=2,
        objective="test_translate_domains:linear",
        extra={"matrix": np.eye(3).tolist()},
        task={"input": "p2p_jax.images.tasks:centre_hole", "size": 0.5, "value": 7.0},
        data__direction="AtoB",
    )
    workdir = tmp_path_factory.mktemp("runs") / "hole"
    train(config, workdir, data=memory_data(config))
    return workdir


def bands(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 4001, (*shape, 4)).astype(np.uint16)


def metres(values):
    """Say what ``bands_run`` makes of values, in its units."""
    normalized = np.clip(values, 0, 4000) / 2000 - 1.0
    return (normalized[..., :1] / 2 - normalized[..., 3:] / 2 + 1) * 20 - 10


@pytest.mark.slow
def test_numbers_in_their_units(bands_run):
    translator = Translator.from_workdir(bands_run, batch_size=2)
    assert (translator.domain_in.kind, translator.domain_out.kind) == ("uint16", "float")
    assert (translator.channels_in, translator.channels_out) == (4, 1)
    values = bands(3, 19, 30)
    found = translator(values)
    assert (found.dtype, found.shape) == (np.float32, (3, 19, 30, 1))
    np.testing.assert_allclose(found, metres(values), atol=1e-4)
    several = translator([values[0], values[1, :5]])
    np.testing.assert_allclose(several[1], found[1, :5], atol=1e-5)
    beyond = np.full((4, 4, 4), 5000, np.uint16)
    beyond[..., 3] = 0
    assert np.allclose(translator(beyond), 30)  # cut off at 4,000
    normalized = translator(values / np.float32(2000) - 1, normalized=True)
    np.testing.assert_allclose((normalized + 1) * 20 - 10, found, atol=1e-4)
    tiled = Translator.from_workdir(bands_run, tile=16)
    np.testing.assert_allclose(tiled(values[0]), found[0], atol=1e-4)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (noise(8, 8, 4), {}, r"must be uint16 \[..., H, W, 4\] \(uint16\), not uint8 \[8, 8, 4\]"),
        (bands(8, 8)[..., :3], {}, r"must be uint16 \[..., H, W, 4\]"),
        (np.zeros((8, 8, 4), np.float32), {}, "must be uint16"),
        (bands(8, 8), {"normalized": True}, r"must be floats in \[-1, 1\]; one is uint16"),
        (np.zeros((8, 8, 3), np.float32), {"normalized": True}, "have 3 channels, but the network takes 4"),
    ],
)
def test_arrays_of_another_kind_are_refused(bands_run, images, options, message):
    with pytest.raises(InputError, match=message):
        Translator.from_workdir(bands_run)(images, **options)


def test_labels_to_bytes(labels_run):
    translator = Translator.from_workdir(labels_run)
    classes = np.random.RandomState(0).randint(0, 3, (20, 22, 1)).astype(np.uint8)
    found = translator(classes)
    # One-hot [1, -1, -1] times [-1/2, 0, 1/2] is -1 for the first class, 0 for the second, 1 for the third.
    np.testing.assert_array_equal(found, np.array([0, 128, 255], np.uint8)[classes])
    colors = np.eye(3, dtype=np.uint8)[classes[..., 0]] * np.uint8(255)
    np.testing.assert_array_equal(translator(colors), found)
    tiled = Translator.from_workdir(labels_run, tile=16)(classes)
    assert np.abs(tiled.astype(int) - found).max() <= 1
    with pytest.raises(InputError, match=r"uint8 \[..., H, W, 1\] \(labels\)"):
        translator(classes.astype(np.int32))


def test_bytes_to_labels(classes_run):
    translator = Translator.from_workdir(classes_run)
    image = noise(18, 20, 3)
    found = translator(image)
    assert (found.dtype, found.shape) == (np.uint8, (18, 20, 1))
    np.testing.assert_array_equal(found[..., 0], image.argmax(axis=-1))
    as_floats = translator(image.astype(np.float32) / 127.5 - 1)  # normalized there and back
    assert as_floats.shape == (18, 20, 3)
    np.testing.assert_array_equal(as_floats.argmax(axis=-1), found[..., 0])


def test_lab(colour_run):
    translator = Translator.from_workdir(colour_run)
    photo = noise(16, 20, 3)
    lightness = lab.from_rgb(photo)[..., :1]
    found = translator(lightness)
    assert found.dtype == np.float32
    expected = (lightness / 50 - 1) * np.array([44, 22])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(translator(photo), found, atol=1e-4)  # a picture is converted
    back = Translator.from_workdir(colour_run, direction="BtoA")
    assert (back.domain_in.kind, back.domain_out.kind) == ("lab_ab", "lab_l")
    ab = lab.from_rgb(photo)[..., 1:]
    np.testing.assert_allclose(back(ab), (ab / 110 @ np.array([[0.4], [0.2]]) + 1) * 50, atol=1e-4)


def test_ranges_that_nobody_measured(tmp_path):
    workdir = make_run(tmp_path / "run", [[1.0]], input__kind="float", input__channels=1, output__channels=1)
    translator = Translator.from_workdir(workdir)
    image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    with pytest.raises(InputError, match="ranges of this run's images are not known"):
        translator(image)
    np.testing.assert_allclose(translator(image, normalized=True), image, atol=1e-6)


def test_crops_that_are_no_squares(tmp_path):
    workdir = make_run(tmp_path / "run", np.eye(3).tolist(), crop_size=12, crop_width=16, load_width=24)
    translator = Translator.from_workdir(workdir)
    assert {name: image.shape for name, image in translator.run.batch.items()} == {
        "real_a": (1, 12, 16, 3),
        "real_b": (1, 12, 16, 3),
    }
    assert translator.multiple == 1
    image = noise(13, 40, 3)
    np.testing.assert_array_equal(translator(image), image)


def test_sizes_are_found_by_asking():
    def unet(height, width):
        return height % 8 == 0 == width % 8 and min(height, width) >= 16

    assert find_sizes(unet, (32, 64)) == find_sizes(unet, (24, 64)) == (8, (8, 8), 16)
    only = find_sizes(lambda height, width: (height, width) == (24, 40), (24, 40))
    assert only.steps == (24, 40) and only.pad(noise(7, 41, 3)).shape == (24, 80, 3)
    image = noise(20, 41, 1)
    padded = find_sizes(unet, (32, 64)).pad(image)
    np.testing.assert_array_equal(padded, np.pad(image, [(0, 4), (0, 7), (0, 0)], mode="reflect"))


def test_files_of_numbers(bands_run, tmp_path, capsys):
    values = bands(9, 14)
    formats.write(tmp_path / "in" / "a.tif", values, tags=TAGS)
    formats.write(tmp_path / "in" / "b.png", values)
    formats.write(tmp_path / "in" / "c.npy", values)
    formats.write(tmp_path / "in" / "deep" / "d.npz", values)
    assert translate_files(bands_run, tmp_path / "in", tmp_path / "out") == 0
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.tif", "b.tif", "c.npy", "deep/d.npz"]
    assert ".png cannot store float32 of 1 channel: 1 file becomes TIF" in capsys.readouterr().out
    for name in written:
        stored = formats.read(tmp_path / "out" / name)
        assert stored.pixels.dtype == np.float32
        np.testing.assert_allclose(stored.pixels, metres(values), atol=1e-4)
        assert stored.tags[: len(TAGS)] == (TAGS if name == "a.tif" else ())
    error = translate_files(bands_run, tmp_path / "in", tmp_path / "other", "--format", "png")
    assert ".png cannot store float32 of 1 channel, as this run makes: choose .npy" in error
    assert "cannot store float32" in translate_files(bands_run, tmp_path / "in" / "a.tif", tmp_path / "x.jpg")
    formats.write(tmp_path / "in" / "b.tif", values)
    assert "would both be written to" in translate_files(bands_run, tmp_path / "in", tmp_path / "third")


@pytest.mark.filterwarnings("default")
def test_georeferences_go_where_the_size_does(bands_run, tmp_path, capsys):
    values = np.full((8, 8, 4), 1000, np.uint16)
    values[..., 0] = 3000
    for name in ("a.tif", "b.tif"):
        formats.write(tmp_path / "in" / name, values, tags=TAGS)
    assert translate_files(bands_run, tmp_path / "in", tmp_path / "large", "--size", "x2.5") == 0
    assert capsys.readouterr().err.count("georeferences are left out") == 1
    stored = formats.read(tmp_path / "large" / "a.tif")
    assert stored.pixels.shape == (20, 20, 1) and stored.tags == ()
    np.testing.assert_allclose(stored.pixels, 20, atol=1e-3)
    assert translate_files(bands_run, tmp_path / "in", tmp_path / "same", "--size", "8") == 0
    assert capsys.readouterr().err == ""
    assert formats.read(tmp_path / "same" / "a.tif").tags[: len(TAGS)] == TAGS


def test_files_of_another_kind_are_reported(bands_run, tmp_path, capsys):
    formats.write(tmp_path / "in" / "good.tif", bands(8, 8))
    formats.write(tmp_path / "in" / "three.tif", bands(8, 8)[..., :3])
    save(tmp_path / "in" / "photo.jpg", noise(8, 8, 3))
    assert translate_files(bands_run, tmp_path / "in", tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert "three.tif has 3 bands of uint16; this run takes 4 bands of uint16" in errors
    assert "photo.jpg has 3 bands of uint8; this run takes 4 bands of uint16" in errors
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.tif"]


def test_files_with_holes_in_their_numbers_are_reported(tmp_path, capsys):
    run = make_run(
        tmp_path / "run", [[1.0]], input__kind="float", input__channels=1, input__range="0:1", output__channels=1
    )
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    formats.write(tmp_path / "in" / "good.tif", image, tags=TAGS)
    formats.write(tmp_path / "in" / "bad.tif", np.where(image > 0.9, np.float32(np.inf), image))
    assert translate_files(run, tmp_path / "in", tmp_path / "out") == 1
    assert "bad.tif holds numbers that are not finite" in capsys.readouterr().err
    stored = formats.read(tmp_path / "out" / "good.tif")
    assert stored.tags[: len(TAGS)] == TAGS  # in pictures of 8 bits too
    np.testing.assert_array_equal(stored.pixels, np.rint(image * 255).astype(np.uint8))


def test_a_stack_and_an_image(bands_run, tmp_path):
    values = bands(5, 8, 12)
    np.save(tmp_path / "stack.npy", values)
    assert translate_files(bands_run, tmp_path / "stack.npy", tmp_path / "out.npy") == 0
    found = np.load(tmp_path / "out.npy")
    assert (found.dtype, found.shape) == (np.float32, (5, 8, 12, 1))
    np.testing.assert_allclose(found, metres(values), atol=1e-4)
    assert translate_files(bands_run, tmp_path / "stack.npy", tmp_path / "half.npy", "--size", "x0.5") == 0
    assert np.load(tmp_path / "half.npy").shape == (5, 4, 6, 1)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "image.npy", values[0])
    assert translate_files(bands_run, tmp_path / "folder", tmp_path / "made") == 0
    np.testing.assert_allclose(np.load(tmp_path / "made" / "image.npy"), found[0], atol=1e-5)
    assert "--format and --keep_alpha are for image files" in translate_files(
        bands_run, tmp_path / "stack.npy", tmp_path / "again.npy", "--format", "npy"
    )


def test_labels_are_written_with_their_colours(classes_run, tmp_path):
    image = save(tmp_path / "in" / "a.png", noise(12, 14, 3))
    save(tmp_path / "in" / "b.jpg", image)
    save(tmp_path / "in" / "c.webp", image, lossless=True)
    save(tmp_path / "in" / "d.bmp", image)
    np.save(tmp_path / "in" / "e.npy", image)
    assert translate_files(classes_run, tmp_path / "in", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png", "d.bmp", "e.npy"]
    for name in ("a.png", "c.png", "d.bmp", "e.npy"):
        stored = formats.read(tmp_path / "out" / name)
        np.testing.assert_array_equal(stored.pixels[..., 0], image.argmax(axis=-1))
        if name != "e.npy":
            np.testing.assert_array_equal(stored.palette[:3], np.eye(3, dtype=np.uint8) * 255)
    assert ".jpg cannot store labels" in translate_files(
        classes_run, tmp_path / "in", tmp_path / "no", "--format", "jpg"
    )


def test_paletted_files_are_labels(labels_run, tmp_path):
    classes = np.random.RandomState(0).randint(0, 3, (12, 14, 1)).astype(np.uint8)
    formats.write(tmp_path / "in" / "indices.png", classes, palette=CMP_FACADES.colors)  # of whatever colours
    formats.write(tmp_path / "in" / "numbers.png", classes)
    save(tmp_path / "in" / "colours.png", np.eye(3, dtype=np.uint8)[classes[..., 0]] * np.uint8(250))
    assert translate_files(labels_run, tmp_path / "in", tmp_path / "out") == 0
    for name in ("indices.png", "numbers.png", "colours.png"):
        expected = np.array([0, 128, 255], np.uint8)[classes]
        np.testing.assert_array_equal(formats.read(tmp_path / "out" / name).pixels, expected)
    # Sizes change to the nearest pixel: no class lies between two others.
    assert translate_files(labels_run, tmp_path / "in", tmp_path / "large", "--size", "x2") == 0
    large = formats.read(tmp_path / "large" / "indices.png").pixels
    np.testing.assert_array_equal(large, expected.repeat(2, axis=0).repeat(2, axis=1))


def test_sixteen_bits_of_eight(deep_run, tmp_path):
    gray = save(tmp_path / "in" / "a.jpg", np.full((8, 8), 200, np.uint8))
    save(tmp_path / "in" / "b.tif", gray)
    assert translate_files(deep_run, tmp_path / "in", tmp_path / "out") == 0
    for name in ("a.png", "b.tif"):
        stored = formats.read(tmp_path / "out" / name)
        assert (stored.pixels.dtype, np.unique(stored.pixels).tolist()) == (np.uint16, [200 * 257])


def test_colours_are_written_with_the_lightness_of_their_photograph(colour_run, tmp_path):
    photo = save(tmp_path / "in" / "a.png", noise(20, 24, 3))
    save(tmp_path / "in" / "b.jpg", photo)
    assert translate_files(colour_run, tmp_path / "in", tmp_path / "out", "--direction", "AtoB") == 0
    written = pictures.read(tmp_path / "out" / "a.png").pixels
    assert pictures.read(tmp_path / "out" / "b.jpg").pixels.shape == (20, 24, 3)
    wanted, found = lab.from_rgb(photo), lab.from_rgb(written)
    assert np.abs(found[..., 0] - wanted[..., 0]).max() < 0.5  # of 100: the rounding to 8 bits
    bright = (wanted[..., 0] > 60) & (wanted[..., 0] < 80)
    assert found[bright][:, 1].min() > 0 and not np.array_equal(written, photo)
    assert translate_files(colour_run, tmp_path / "in", tmp_path / "back", "--direction", "BtoA") == 0
    back = lab.from_rgb(pictures.read(tmp_path / "back" / "a.png").pixels)
    expected = Translator.from_workdir(colour_run, direction="BtoA")(photo)
    assert np.abs(back[..., :1] - expected).max() < 0.5


@pytest.mark.slow
def test_a_run_makes_its_inputs_of_photographs(hole_run, bands_run, tmp_path):
    photo = save(tmp_path / "in" / "a.png", noise(16, 20, 3))
    assert translate_files(hole_run, tmp_path / "in", tmp_path / "out") == 0
    expected = photo.copy()
    expected[4:12, 5:15] = 7
    np.testing.assert_array_equal(pictures.read(tmp_path / "out" / "a.png").pixels, expected)
    assert translate_files(hole_run, tmp_path / "in", tmp_path / "large", "--size", "x2") == 0
    large = pictures.read(tmp_path / "large" / "a.png").pixels
    assert large.shape == (32, 40, 3) and (large[8:24, 10:30] == 7).all()
    assert translate_files(hole_run, tmp_path / "in", tmp_path / "plain", "--no_task") == 0
    np.testing.assert_array_equal(pictures.read(tmp_path / "plain" / "a.png").pixels, photo)
    np.save(tmp_path / "stack.npy", np.stack([photo, photo[::-1]]))
    assert translate_files(hole_run, tmp_path / "stack.npy", tmp_path / "made.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "made.npy")[0], expected)
    np.save(tmp_path / "floats.npy", photo[None] / 255)
    wrong = "floats.npy has 3 bands of float64; this run takes 3 bands of uint8"
    assert wrong in translate_files(hole_run, tmp_path / "floats.npy", tmp_path / "no.npy")


def test_frames_of_a_video_are_photographs_too(hole_run, tmp_path):
    pytest.importorskip("av")
    from support.videos import make_video, read_video

    make_video(tmp_path / "in.mp4", times=[0, 2])
    assert translate_files(hole_run, tmp_path / "in.mp4", tmp_path / "out.mp4") == 0
    for frame in read_video(tmp_path / "out.mp4")[0]:
        height, width = frame.shape[:2]
        hole = frame[height // 4 + 4 : -(height // 4) - 4, width // 4 + 4 : -(width // 4) - 4]
        assert np.abs(hole.astype(int) - 7).max() < 16  # H.264 of a plain 7


@pytest.mark.parametrize("size", ["x0", "x", "xx4", "4x", "x-2", "x1.2.3", "x1e3"])
def test_factors_that_are_none(hole_run, tmp_path, size):
    save(tmp_path / "a.png", noise(8, 8, 3))
    assert f"--size {size}: write training, one number" in translate_files(
        hole_run, tmp_path / "a.png", tmp_path / "out", "--size", size
    )


def test_videos_are_of_pictures(bands_run, classes_run, colour_run, tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"not looked at")
    for run, told in (
        (bands_run, "uint16 of 4 channels to float of 1"),
        (classes_run, "uint8 of 3 channels to labels"),
    ):
        assert f"this run translates {told}" in translate_files(run, tmp_path / "in.mp4", tmp_path / "out.mp4")
    pytest.importorskip("av")
    from support.videos import make_video, read_video

    make_video(tmp_path / "in.mp4", times=[0, 2, 4])
    assert translate_files(colour_run, tmp_path / "in.mp4", tmp_path / "out.mp4", "--direction", "AtoB") == 0
    given, made = read_video(tmp_path / "in.mp4")[0], read_video(tmp_path / "out.mp4")[0]
    assert len(made) == 3 and made[0].shape == given[0].shape
    for frame, output in zip(given, made, strict=True):
        assert np.abs(lab.from_rgb(frame)[..., 0] - lab.from_rgb(output)[..., 0]).mean() < 4


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run on files, 16 bits to metres, and its folder: the files' relation is the run's but for 2 metres."""
    folder = tmp_path_factory.mktemp("measured")
    for split, count in (("train", 4), ("val", 3)):
        for i in range(count):
            values = bands(18, 18, seed=i + 10 * (split == "val"))
            formats.write(folder / split / "A" / f"{i}.tif", values)
            formats.write(folder / split / "B" / f"{i}.tif", np.clip(metres(values) + 2, -10, 30).astype(np.float32))
    options = {
        "input__kind": "uint16",
        "input__channels": 4,
        "input__range": "0:4000",
        "output__kind": "float",
        "output__channels": 1,
    }
    options |= {
        "output__range": "-10:30",
        "source": "folders",
        "dir": str(folder),
        "preprocess": "crop",
        "crop_size": 16,
    }
    return make_run(folder / "run", [[0.5], [0.0], [0.0], [-0.5]], stored=True, **options), folder


@pytest.mark.slow
def test_errors_are_told_in_units(measured, tmp_path):
    run, folder = measured
    results = evaluate_run(run, output=tmp_path)
    assert results["metrics"]["mae_units"]["count"] == 3
    for i, row in enumerate(results["images"]):
        wanted = formats.read(folder / "val" / "B" / f"{i}.tif").pixels
        found = metres(formats.read(folder / "val" / "A" / f"{i}.tif").pixels)
        assert np.isclose(row["mae_units"], np.abs(found - wanted).mean(), rtol=1e-3)
        assert np.isclose(row["mae_units"], 40 * row["l1"], rtol=1e-3)
        assert np.isclose(row["rmse_units"], np.sqrt(np.square(found - wanted).mean()), rtol=1e-3)
        assert np.isclose(row["bias_units"], (found - wanted).mean(), rtol=1e-3) and row["bias_units"] < -1.5
    assert "rmse_units_1" not in results["metrics"]
    page = (tmp_path / "report.html").read_text()
    assert "<dt>Units</dt><dd>The units of the output files: float values from -10 to 30.</dd>" in page
    for name, meaning in (
        ("mae_units", "Mean absolute error of the output in the units"),
        ("rmse_units", "Root of the mean squared error in the units"),
        ("bias_units", "Mean of output minus target, with its sign"),
    ):
        assert f"<dt>{name}</dt><dd>{meaning}" in page
        assert f'<p class="meaning">{meaning}' in page
    with pytest.raises(InputError, match="label metrics need label maps; these images are float"):
        evaluate_run(run, metrics=["labels"], palette="cmp_facades")


@pytest.mark.slow
def test_channels_of_other_ranges_have_errors_of_their_own(tmp_path):
    """Metres that come out 5 too low, and degrees that come out 0.5 too high: a mean over both is of neither."""
    for split, count in (("train", 2), ("val", 2)):
        for i in range(count):
            grey = noise(16, 16, 3, seed=i)
            values = grey[..., :2] / 255 * [80.0, 8.0] + [10.0, 1.0] + [5.0, -0.5]  # the run makes all but the last
            save(tmp_path / split / "A" / f"{i}.png", grey)
            np.save(made(tmp_path / split / "B") / f"{i}.npy", values.astype(np.float32))
    options = {"output__kind": "float", "output__channels": 2, "output__range": "0:100,0:10"}
    matrix = [[0.8, 0.0], [0.0, 0.8], [0.0, 0.0]]
    options |= {"source": "folders", "dir": str(tmp_path), "load_size": 16}
    results = evaluate_run(make_run(tmp_path / "run", matrix, stored=True, **options), output=tmp_path / "out")
    means = {name: found["mean"] for name, found in results["metrics"].items()}
    assert results["units"].startswith("The units of the output files: float values from 0 to 100, 0 to 10, by channel")
    for name in ("mae_units", "rmse_units"):
        assert [means[f"{name}_{i}"] for i in (1, 2)] == pytest.approx([5, 0.5], rel=1e-3)
    assert [means[f"bias_units{i}"] for i in ("", "_1", "_2")] == pytest.approx([-2.25, -5, 0.5], rel=1e-3)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h3>By channel, in units</h3>" in page and '<th scope="row">channel 2</th>' in page
    assert '<article class="metric"><h3>bias_units<' in page and "<h3>bias_units_1<" not in page


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.slow
def test_labels_are_compared_as_classes(tmp_path):
    for split in ("train", "val"):
        for i in range(2):
            image = noise(16, 16, 3, seed=i)
            classes = image.argmax(axis=-1).astype(np.uint8)[..., None]
            classes[: 4 * i] = 255  # which is no class
            save(tmp_path / split / "A" / f"{i}.png", image)
            formats.write(tmp_path / split / "B" / f"{i}.png", classes)
    options = {
        "output__kind": "labels",
        "output__channels": 3,
        "source": "folders",
        "dir": str(tmp_path),
        "preprocess": "none",
    }
    run = make_run(tmp_path / "run", np.eye(3).tolist(), stored=True, **options, output__palette=RED_GREEN_BLUE)
    found = evaluate_run(run, metrics=["labels"])["set_metrics"]["labels, nearest palette colour"]
    assert found["pixel_accuracy"] == 1 and found["count"] == 2
    with pytest.raises(InputError, match="differs from that of the run's labels"):
        evaluate_run(run, metrics=["labels"], palette="cmp_facades")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate.run(["--workdir", str(run), "--output", str(tmp_path / "told")])
    assert (tmp_path / "told" / "report.html").is_file()
    shown = sample_grid(run, 1, width=16)["output"][0]
    assert set(map(tuple, shown.reshape(-1, 3).tolist())) == {(255, 0, 0), (0, 255, 0), (0, 0, 255)}


def test_sixteen_bits_are_not_cut_to_eight(hole_run, tmp_path, capsys):
    formats.write(tmp_path / "in" / "deep.png", np.full((16, 16, 3), 40_000, np.uint16))
    assert translate_files(hole_run, tmp_path / "in", tmp_path / "out") == 1
    assert "deep.png has 16 bits (uint16); this run takes 8 bits" in capsys.readouterr().err


def test_an_array_with_channels_is_one_image(bands_run, tmp_path):
    image = bands(16, 24)
    np.save(tmp_path / "one.npy", image)
    assert translate_files(bands_run, tmp_path / "one.npy", tmp_path / "out") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "one.npy")[0], Translator.from_workdir(bands_run)(image))
