"""The translate command: files, folders, patterns, stacks and videos of every kind, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.errors import InputError
from p2p_jax.images import pictures
from p2p_jax.images.domains import of_config
from p2p_jax.images.resize import resize
from p2p_jax.inference import files, scale
from p2p_jax.inference.run import warn_of_tiles
from support import processes
from support.comparers import same_pixels
from support.configs import data_config, small_config
from support.images import load, noise, save
from support.runs import sample_grid, translate_files

ROOT = Path(__file__).parent.parent
FACADES = Path(os.environ.get("P2P_JAX_TEST_DATA", "nowhere")) / "facades" / "val"


@pytest.fixture
def run(pix2pix_run):
    return pix2pix_run


@pytest.mark.slow
def test_single_file(run, tmp_path):
    pixels = save(tmp_path / "in.png", noise(300, 500, 3))
    assert translate_files(run, tmp_path / "in.png", tmp_path / "to" / "out.png") == 0
    assert same_pixels(load(tmp_path / "to" / "out.png"), Translator.from_workdir(run)(pixels))
    assert translate_files(run, tmp_path / "in.png", tmp_path / "folder") == 0
    assert same_pixels(load(tmp_path / "folder" / "in.png"), load(tmp_path / "to" / "out.png"))
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["in.png"]


@pytest.mark.slow
def test_folder_with_folders_keeps_names_and_formats(run, tmp_path, capsys):
    source, target = tmp_path / "photos", tmp_path / "translated"
    names = ["a.png", "deep/er/b.JPG", "deep/c.webp", "d.tif", "e.bmp"]
    for i, name in enumerate(names):
        save(source / name, noise(20 + i, 31, 3, seed=i))
    (source / "notes.txt").write_text("not an image")
    save(source / ".hidden" / "x.png", noise(8, 8, 3))
    assert translate_files(run, source, target) == 0
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()) == sorted(names)
    for name in names:
        with Image.open(source / name) as given, Image.open(target / name) as made:
            assert (made.format, made.size, made.mode) == (given.format, given.size, "RGB")
    expected = Translator.from_workdir(run)(load(source / "a.png"))
    assert same_pixels(load(target / "a.png"), expected)
    lossy = Translator.from_workdir(run)(pictures.read(source / "deep/er/b.JPG").pixels)
    assert np.abs(load(target / "deep/er/b.JPG").astype(int) - lossy).mean() < 4
    output = capsys.readouterr().out
    assert "left out: 1 .txt" in output and "translated 5 of 5 images" in output


@pytest.mark.slow
def test_pattern(run, tmp_path):
    for name in ("x/1.png", "x/2.png", "x/y/3.png", "x/4.bmp"):
        save(tmp_path / name, noise(16, 16, 3))
    assert translate_files(run, tmp_path / "x" / "*.png", tmp_path / "some") == 0
    assert sorted(p.name for p in (tmp_path / "some").iterdir()) == ["1.png", "2.png"]
    assert translate_files(run, tmp_path / "x" / "**" / "*.png", tmp_path / "all") == 0
    assert sorted(str(p.relative_to(tmp_path / "all")) for p in (tmp_path / "all").rglob("*.png")) == [
        "1.png",
        "2.png",
        "y/3.png",
    ]


@pytest.mark.slow
def test_stack(run, tmp_path):
    images = noise(11, 12, 20, 3)
    np.save(tmp_path / "stack.npy", images)
    assert translate_files(run, tmp_path / "stack.npy", tmp_path / "out.npy", "--batch_size", "4") == 0
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.uint8
    assert same_pixels(found, Translator.from_workdir(run)(images))
    np.save(tmp_path / "gray.npy", noise(3, 16, 16).astype(np.float32) / 127.5 - 1)
    assert translate_files(run, tmp_path / "gray.npy", tmp_path / "folder") == 0
    assert np.load(tmp_path / "folder" / "gray.npy").shape == (3, 16, 16, 3)
    assert "exists; --overwrite" in translate_files(run, tmp_path / "stack.npy", tmp_path / "out.npy")
    np.save(tmp_path / "bad.npy", images.astype(np.float32))
    assert "floats in [-1, 1]" in translate_files(run, tmp_path / "bad.npy", tmp_path / "bad_out.npy")
    np.save(tmp_path / "bad.npy", images.transpose(0, 3, 1, 2))
    assert "arrays are [N, H, W, C]" in translate_files(run, tmp_path / "bad.npy", tmp_path / "bad_out.npy")
    assert not list(tmp_path.glob("*bad_out*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("norm", "batch_size", "way_out"),
    [
        ("batch", 4, "reduce this, and norm=running avoids it"),
        ("batch", 1, "running avoids it, but this .* with batches of 1, .* much worse images; .*batch_size=4 or more"),
        ("instance", 4, "overlap reduce this"),
    ],
)
def test_the_warning_of_tiles_knows_how_the_run_was_trained(norm, batch_size, way_out):
    config = small_config(generator__norm=norm, inference__norm="batch", batch_size=batch_size)
    with pytest.warns(UserWarning, match=f"{way_out}") as said:
        warn_of_tiles(config)
    assert ("avoids it" in str(said[0].message)) == (norm == "batch")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_large_image_in_tiles(run, tmp_path, capsys):
    small = noise(32, 32, 3)
    pixels = save(tmp_path / "large.png", np.asarray(Image.fromarray(small).resize((1024, 1024), Image.BICUBIC)))
    arguments = (run, tmp_path / "large.png", tmp_path / "out.png", "--tile", "256")
    assert translate_files(*arguments, "--norm", "batch") == 0
    told = capsys.readouterr().err
    assert "warning: each tile is normalised by its own statistics" in told
    assert "overlap reduce this, and --norm running avoids it\n" in told
    quiet = {"norm": "running", "dropout": False}  # noise has the shape of what is translated: of a tile, or the whole
    assert translate_files(*arguments, "--norm", "running", "--dropout", "off", "--overwrite") == 0
    assert capsys.readouterr().err == ""
    tiled, whole = load(tmp_path / "out.png"), Translator.from_workdir(run, **quiet)(pixels)
    assert tiled.shape == (1024, 1024, 3)
    assert np.abs(tiled.astype(int) - whole).mean() < 1


@pytest.mark.slow
def test_gray_and_alpha(run, tmp_path):
    translator = Translator.from_workdir(run)
    gray = save(tmp_path / "in" / "gray.png", noise(20, 20))
    color, alpha = noise(20, 20, 3), noise(20, 20, seed=1)
    save(tmp_path / "in" / "alpha.png", np.dstack([color, alpha]))
    both = save(tmp_path / "in" / "gray_alpha.png", np.dstack([gray, alpha]))
    palette = Image.fromarray(color).quantize(16)
    palette.save(tmp_path / "in" / "palette.png", transparency=0)
    assert translate_files(run, tmp_path / "in", tmp_path / "out") == 0
    assert same_pixels(load(tmp_path / "out" / "gray.png"), translator(np.repeat(gray[..., None], 3, axis=-1)))
    opacity = alpha[..., None] / 255
    on_white = np.rint(color * opacity + 255 * (1 - opacity)).astype(np.uint8)
    found = load(tmp_path / "out" / "alpha.png")
    assert found.shape == (20, 20, 3)
    assert same_pixels(pictures.read(tmp_path / "in" / "alpha.png").pixels, on_white)
    assert same_pixels(found, translator(pictures.read(tmp_path / "in" / "alpha.png").pixels))
    assert pictures.read(tmp_path / "in" / "gray_alpha.png").pixels.shape == (20, 20, 1)
    indices = np.asarray(palette)
    assert (pictures.read(tmp_path / "in" / "palette.png").pixels[indices == 0] == 255).all()
    assert translate_files(run, tmp_path / "in", tmp_path / "kept", "--keep_alpha") == 0
    assert np.array_equal(load(tmp_path / "kept" / "alpha.png")[..., 3], alpha)
    assert np.array_equal(load(tmp_path / "kept" / "gray_alpha.png")[..., 3], both[..., 1])


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(run, tmp_path, orientation):
    upright = np.asarray(Image.fromarray(noise(5, 7, 3)).resize((56, 40), Image.Resampling.NEAREST))
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(upright) if undo is None else Image.fromarray(upright).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert translate_files(run, tmp_path / "turned.png", tmp_path / "out.png") == 0
    with Image.open(tmp_path / "out.png") as made:
        assert made.getexif().get(0x0112, 1) == 1
        assert same_pixels(np.asarray(made), Translator.from_workdir(run)(upright))


def test_a_corrupt_file_is_reported_and_the_others_are_translated(run, tmp_path, capsys):
    for name in ("1.png", "2.png", "3.png"):
        save(tmp_path / "in" / name, noise(16, 16, 3))
    whole = (tmp_path / "in" / "2.png").read_bytes()
    (tmp_path / "in" / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "4.jpg").write_bytes(b"")
    Image.fromarray(noise(16, 16).astype(np.uint16) * 257).save(tmp_path / "in" / "5.png")
    assert translate_files(run, tmp_path / "in", tmp_path / "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1.png", "3.png"]
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [
        ["error:", str(tmp_path / "in" / name)] for name in ("2.png", "4.jpg", "5.png")
    ]
    assert "8 bits" in lines[2]
    assert "translated 2 of 5 images" in printed.out


@pytest.mark.slow
def test_existing_files_are_left_alone(run, tmp_path, capsys):
    for name in ("1.png", "2.png"):
        save(tmp_path / "in" / name, noise(16, 16, 3))
    mine = save(tmp_path / "out" / "1.png", noise(4, 4, 3))
    assert translate_files(run, tmp_path / "in", tmp_path / "out") == 0
    assert "translated 1 of 2" in (printed := capsys.readouterr().out)
    assert "1 exist already and were not changed; --overwrite replaces them" in printed
    assert np.array_equal(load(tmp_path / "out" / "1.png"), mine)
    assert translate_files(run, tmp_path / "in", tmp_path / "out", "--overwrite") == 0
    assert load(tmp_path / "out" / "1.png").shape == (16, 16, 3)
    # A folder inside the input is not translated again.
    assert translate_files(run, tmp_path / "in", tmp_path / "in" / "made") == 0
    assert translate_files(run, tmp_path / "in", tmp_path / "in" / "made") == 0
    assert sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "in").rglob("*.png")) == [
        "in/1.png",
        "in/2.png",
        "in/made/1.png",
        "in/made/2.png",
    ]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", [], "no such file or folder"),
        ("empty", [], "no image (.avif, .bmp"),
        ("notes.txt", [], "is not an image"),
        ("*.gif", [], "no image"),
        ("twins", ["--format", "png"], "would both be written to"),
        ("one.png", ["--format", "gif"], "--format gif: choose one of bmp, jfif"),
        ("one.png", ["--size", "0"], "--size 0: write training, one number"),
        ("one.png", ["--size", "3x4x5"], "--size 3x4x5: write training, one number"),
        ("one.png", ["--checkpoint", "9"], "no checkpoint 9"),
        ("one.png", ["--direction", "AtoB"], "trained for only BtoA"),
        ("one.png", ["--batch_size", "0"], "--batch_size 0"),
    ],
)
def test_one_line_for_what_cannot_be_done(run, tmp_path, source, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    save(tmp_path / "one.png", noise(8, 8, 3))
    for name in ("a.png", "a.bmp"):
        save(tmp_path / "twins" / name, noise(8, 8, 3))
    error = translate_files(run, tmp_path / source, tmp_path / "out", *options)
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_file_is_not_replaced_by_its_own_translation(run, tmp_path):
    pixels = save(tmp_path / "in" / "1.png", noise(8, 8, 3))
    error = translate_files(run, tmp_path / "in", tmp_path / "in", "--overwrite")
    assert "would be overwritten by its translation" in error
    assert np.array_equal(load(tmp_path / "in" / "1.png"), pixels)


@pytest.mark.slow
def test_size_resizes_as_training_does(run, tmp_path):
    pixels = save(tmp_path / "in.png", noise(50, 40, 3))
    assert translate_files(run, tmp_path / "in.png", tmp_path / "16.png", "--size", "16") == 0
    assert same_pixels(load(tmp_path / "16.png"), Translator.from_workdir(run)(resize(pixels, (16, 16))))
    assert translate_files(run, tmp_path / "in.png", tmp_path / "wide.png", "--size", "24x16", "--keep_alpha") == 0
    assert load(tmp_path / "wide.png").shape == (16, 24, 3)


@pytest.mark.slow
def test_the_size_of_training_keeps_proportions(run, tmp_path, capsys):
    pixels = save(tmp_path / "in" / "wide.png", noise(40, 60, 3))
    save(tmp_path / "in" / "near.png", noise(32, 32, 3))
    assert translate_files(run, tmp_path / "in", tmp_path / "own") == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "trained on images of 16x16, and these have up to 60x40" in note and "; --size training resizes" in note
    assert translate_files(run, tmp_path / "in", tmp_path / "as", "--size", "training") == 0
    assert translate_files(run, tmp_path / "in" / "near.png", tmp_path / "near.png") == 0  # only twice as large
    np.save(tmp_path / "stack.npy", pixels[None])
    assert translate_files(run, tmp_path / "stack.npy", tmp_path / "of_stack.npy", "--size", "training") == 0
    assert "note: " not in capsys.readouterr().out
    expected = Translator.from_workdir(run)(resize(pixels, (16, 24)))
    assert same_pixels(load(tmp_path / "as" / "wide.png"), expected)
    assert same_pixels(np.load(tmp_path / "of_stack.npy")[0], expected)
    assert "--size trainign: write training, one number" in translate_files(
        run, tmp_path / "in", tmp_path / "x", "--size", "trainign"
    )


def test_training_on_pieces_has_no_other_size(capsys):
    config, domain = data_config(preprocess="crop"), of_config(data_config().data)[0]
    assert scale.of_training(config.data) is None and scale.found("training", config.data) is None
    scale.tell([(400, 400)], domain, config.data)
    assert capsys.readouterr().out == ""
    scale.tell([(400, 400)], domain, data_config().data)
    assert "size=training" in capsys.readouterr().out


def test_videos_in_a_folder_are_named(run, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", noise(16, 16, 3))
    (tmp_path / "in" / "walk.MP4").touch()
    (tmp_path / "in" / "notes.txt").touch()
    assert translate_files(run, tmp_path / "in", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert f"{tmp_path / 'in'}: 1 video (walk.MP4) left out: translate a video by itself\n" in told
    assert "in: 1 image; not images, left out: 1 .txt\n" in told


def test_what_is_only_read_becomes_png(run, capsys):
    jobs = [files.Job(Path("a.heic"), Path("out/a.heic")), files.Job(Path("b.HEIC"), Path("out/b.HEIC"))]
    fitted = files.fit_endings(jobs, Translator.from_workdir(run), chosen=False)
    assert [job.target for job in fitted] == [Path("out/a.png"), Path("out/b.png")]
    assert capsys.readouterr().out == "HEIC is not written: 2 files become PNG\n"


def test_pictures_are_those_of_the_data_stream(tmp_path):
    """Decoding and resizing without TensorFlow give the pixels on which training validates."""
    from p2p_jax.config import complete
    from p2p_jax.data import load_split

    sources = sorted(FACADES.glob("*.jpg"))[:4]
    (tmp_path / "val").mkdir()
    for i in range(4):
        if sources:
            (tmp_path / "val" / f"{i}.jpg").write_bytes(sources[i].read_bytes())
        else:
            smooth = Image.fromarray(noise(9, 16, 3, seed=i)).resize((200, 100), Image.Resampling.BICUBIC)
            smooth.save(tmp_path / "val" / f"{i}.jpg", quality=80)
    data = {"source": "side_by_side", "dir": str(tmp_path), "load_size": 72, "crop_size": 64}
    (batch,) = load_split(complete({"data": data}), "val").batches(4)
    streamed = np.rint((batch["real_a"] + 1) * 127.5).astype(int)
    for i in range(4):
        pixels = pictures.read(tmp_path / "val" / f"{i}.jpg").pixels
        ours = resize(pixels[:, : pixels.shape[1] // 2], (64, 64))
        assert np.abs(ours - streamed[i]).max() <= 1 and (ours != streamed[i]).mean() < 1e-3


@pytest.mark.slow
def test_cyclegan_by_direction(cyclegan_run, tmp_path):
    pixels = save(tmp_path / "in.png", noise(16, 16, 3))
    for direction in ("AtoB", "BtoA"):
        assert (
            translate_files(cyclegan_run, tmp_path / "in.png", tmp_path / f"{direction}.png", "--direction", direction)
            == 0
        )
        expected = Translator.from_workdir(cyclegan_run, direction=direction)(pixels)
        assert same_pixels(load(tmp_path / f"{direction}.png"), expected)
    assert not np.array_equal(load(tmp_path / "AtoB.png"), load(tmp_path / "BtoA.png"))


def test_writing_rounds_and_does_not_truncate(tmp_path):
    assert pictures.with_channels(np.array([[[255, 255, 254]]], np.uint8), 1).item() == 255
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    pictures.write(tmp_path / "gray.png", levels)
    assert np.array_equal(pictures.read(tmp_path / "gray.png").pixels, levels)
    with pytest.raises(InputError, match=r"gray.png.* cannot be written"):
        pictures.write(tmp_path / "gray.png" / "below.png", levels)


def test_plan_lists_every_file_once(tmp_path):
    save(tmp_path / "a.png", noise(4, 4, 3))
    (job,) = files.plan(str(tmp_path / "a.png"), tmp_path / "b.jpg", ".webp")
    assert job == (tmp_path / "a.png", tmp_path / "b.webp")


@pytest.mark.slow
def test_translating_needs_no_tensorflow(run, tmp_path):
    save(tmp_path / "in.png", noise(16, 16, 3))
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from p2p_jax.commands import translate\n"
        f"translate.run(['--workdir', {str(run)!r}, '--input', 'in.png', '--output', 'out.png'])"
    )
    result = processes.run(processes.python(code), tmp_path)
    assert result.returncode == 0, result.stderr
    assert load(tmp_path / "out.png").shape == (16, 16, 3)


@pytest.mark.slow
@pytest.mark.skipif(not FACADES.is_dir(), reason="P2P_JAX_TEST_DATA names no folder with the CMP facades")
def test_real_facades_agree_with_validation(tmp_path):
    """A folder of real JPEGs through the command gives the outputs on which training validated."""
    data = {"data__source": "side_by_side", "data__dir": str(FACADES.parent), "data__crop_size": 64}
    train(small_config(num_steps=2, data__load_size=72, sample_every=2, num_samples=3, **data), tmp_path / "run")
    for i, path in enumerate(sorted(FACADES.glob("*.jpg"))[:3]):
        save(tmp_path / "labels" / f"{i}.png", pictures.read(path).pixels[:, 256:])
    assert translate_files(tmp_path / "run", tmp_path / "labels", tmp_path / "photos", "--size", "64") == 0
    grid = sample_grid(tmp_path / "run", 2, width=64)
    for i in range(3):
        found, shown = load(tmp_path / "photos" / f"{i}.png"), grid["output"][i]
        assert np.abs(found.astype(int) - shown).mean() < 0.5  # the resized label maps differ in a rounding or two
    assert translate_files(tmp_path / "run", FACADES / "1.jpg", tmp_path / "whole.jpg") == 0
    assert load(tmp_path / "whole.jpg").shape == (256, 512, 3)


HORSES = FACADES.parent.parent / "horse2zebra" / "testA"


@pytest.mark.slow
@pytest.mark.skipif(not HORSES.is_dir(), reason="P2P_JAX_TEST_DATA names no folder with horse2zebra")
def test_real_horses_both_ways(cyclegan_run, tmp_path):
    for direction in ("AtoB", "BtoA"):
        arguments = (cyclegan_run, HORSES / "n02381460_10*.jpg", tmp_path / direction, "--direction", direction)
        assert translate_files(*arguments, "--format", "png") == 0
        names = sorted(p.stem for p in HORSES.glob("n02381460_10*.jpg"))
        assert sorted(p.stem for p in (tmp_path / direction).iterdir()) == names and names
        pixels = pictures.read(HORSES / f"{names[0]}.jpg").pixels
        expected = Translator.from_workdir(cyclegan_run, direction=direction)(pixels)
        assert same_pixels(load(tmp_path / direction / f"{names[0]}.png"), expected)
