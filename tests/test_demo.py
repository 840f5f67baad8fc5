"""What a demo does with pictures and drawings, and the folder that runs as a Space; the page itself needs a browser."""

import json
import os
import re
import signal
import socket
import struct
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

import p2p_jax
from p2p_jax import Translator
from p2p_jax.commands import demo as command
from p2p_jax.commands import translate
from p2p_jax.config import complete
from p2p_jax.data import archives, load_split
from p2p_jax.demo import examples, pads, serving
from p2p_jax.demo.model import Model, names_of
from p2p_jax.demo.settings import Settings
from p2p_jax.errors import InputError
from p2p_jax.images.domains import Domain, of_config
from p2p_jax.images.palettes import CMP_FACADES
from p2p_jax.inference.noise import NoisyTranslator, has_noise
from p2p_jax.inference.run import open_run
from p2p_jax.objectives import make_objective
from support.configs import data_config, small_config, small_cyclegan_config
from support.images import load, noise, save
from support.networks import POINTWISE, TINY, draw_state
from support.processes import ROOT, free_port, run_python
from support.runs import blank_state, run_command, write_run

PHOTO = Domain("uint8", 3, (0.0,) * 3, (255.0,) * 3)
SIZE = (16, 16)


def make_run(folder, config):
    objective = make_objective(config)
    return write_run(folder, config, draw_state(blank_state(objective, config)), 3)


@pytest.fixture(autouse=True)
def keep_signals():
    """The command takes SIGTERM for Ctrl-C, in a process that is its own elsewhere."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def noisy_run(tmp_path_factory):
    """Labels to toy facades, with noise where it is translated."""
    config = small_config(generator={**TINY, "dropout_rate": 0.5})
    return make_run(tmp_path_factory.mktemp("runs") / "noisy", config)


@pytest.fixture(scope="module")
def cyclegan(tmp_path_factory):
    """Toy facades and their labels, without pairs, both ways."""
    config = small_cyclegan_config(generator=POINTWISE, data__source="toy_facades", data__direction="AtoB")
    return make_run(tmp_path_factory.mktemp("runs") / "both", config)


# Drawings


def test_examples_tell_what_is_drawn_with():
    labels = CMP_FACADES.colors[np.random.RandomState(0).randint(0, 4, (16, 16)) // 3]
    pad = pads.find(PHOTO, SIZE, [labels])
    assert pad.colors == dict(zip(CMP_FACADES.names, map(tuple, CMP_FACADES.colors.tolist()), strict=True))
    assert pad.exact and pad.background == (0, 0, 170) and pad.blank.shape == (16, 16, 3)

    lines = np.full((64, 64, 3), 255, np.uint8)
    lines[::16] = 0
    soft = lines.copy()
    soft[1::8] = 128  # as lines are after a picture was made smaller
    for image, paper in ((lines, (255, 255, 255)), (soft, (255, 255, 255)), (255 - lines, (0, 0, 0))):
        pad = pads.find(PHOTO, SIZE, [image])
        assert (pad.background, pad.colors["paper"], pad.exact, pad.brush) == (paper, paper, False, 1)
        assert pad.colors["line"] == tuple(255 - x for x in paper)

    pad = pads.find(PHOTO, (200, 300), [noise(16, 16, 3)])
    assert not pad.exact and pad.background == (255,) * 3 and len(pad.colors) == 10 and pad.brush == 10
    assert "line" in pads.find(PHOTO, SIZE, task="p2p_jax.images.tasks:canny_edges").colors
    assert "line" in pads.find(PHOTO, SIZE, palette="lines").colors
    assert len(pads.find(PHOTO, SIZE, palette="cityscapes").colors) == 19
    with pytest.raises(InputError, match="there is no palette 'mars'"):
        pads.find(PHOTO, SIZE, palette="mars")
    assert pads.find(Domain("float", 3, (0.0,) * 3, (1.0,) * 3), SIZE) is None


def test_borders_of_strokes_get_one_of_the_colours_beside_them(tmp_path):
    """Half red and half dark blue is nearest to a third colour of the palette, which nobody has drawn."""
    pad = pads.find(PHOTO, SIZE, palette="cmp_facades")
    blue, red = CMP_FACADES.colors[0], CMP_FACADES.colors[10]
    drawn = np.broadcast_to(blue, (16, 16, 3)).copy()
    drawn[:, 8:] = red
    mixed = (blue * 0.4 + red * 0.6).astype(np.uint8)
    drawn[:, 7] = mixed
    known = [tuple(x) for x in CMP_FACADES.colors.tolist()]
    third = known[int(np.square(CMP_FACADES.colors - mixed.astype(float)).sum(-1).argmin())]
    assert third not in (tuple(blue), tuple(red))
    pad.write(tmp_path / "drawn.png", drawn)
    written = load(tmp_path / "drawn.png")
    assert (written[:, :7] == blue).all() and (written[:, 7:] == red).all()

    see_through = np.zeros((16, 16, 4), np.uint8)  # where nothing is drawn the background is seen
    see_through[:4] = (*red, 255)
    pad.write(tmp_path / "drawn.png", see_through)
    written = load(tmp_path / "drawn.png")
    assert (written[:4] == red).all() and (written[4:] == pad.background).all()

    free = pads.find(PHOTO, SIZE)
    free.write(tmp_path / "free.png", drawn)
    np.testing.assert_array_equal(load(tmp_path / "free.png"), drawn)


def test_labels_without_colours_are_drawn_in_colours_and_stored_as_numbers(tmp_path):
    config = data_config(input__kind="labels", input__channels=3, input__numbers="7,21,40")
    domain = of_config(config.data)[0]
    pad = pads.find(domain, SIZE)
    colors = list(pad.colors.values())
    assert list(pad.colors) == ["class 0", "class 1", "class 2"] and len(set(colors)) == 3
    drawn = pad.blank
    drawn[:5], drawn[5:8] = colors[2], colors[1]
    pad.write(tmp_path / "drawn.png", drawn)
    written = load(tmp_path / "drawn.png")
    assert written.shape == (16, 16)
    assert (written[:5] == 40).all() and (written[5:8] == 21).all() and (written[8:] == 7).all()


# Pictures


def command_writes(run, source, folder, *options):
    assert run_command(translate, run, source, "--output", folder, "--format", "png", *options) == 0
    return (folder / f"{source.stem}.png").read_bytes()


@pytest.mark.slow
def test_what_is_shown_is_what_the_command_translate_writes(noisy_run, tmp_path):
    model = Model(noisy_run, tmp_path / "demo")
    files = {
        "rgb.png": (noise(20, 28, 3, seed=1), {}),
        "gray.png": (noise(16, 16, seed=2), {}),
        "seen_through.png": (noise(18, 16, 4, seed=3), {}),
        "photo.jpg": (noise(24, 16, 3, seed=4), {"dpi": (72, 72)}),
    }
    for name, (pixels, options) in files.items():
        save(tmp_path / name, pixels, **options)
        shown = model.translate("BtoA", tmp_path / name)
        assert shown.file.read_bytes() == command_writes(noisy_run, tmp_path / name, tmp_path / "out"), name
        assert shown.after == shown.file and shown.file.name == f"{Path(name).stem}_BtoA.png"
        assert load(shown.before).shape[:2] == load(shown.after).shape[:2] == pixels.shape[:2]
    shown = model.translate("BtoA", tmp_path / "rgb.png", fitted=True)  # the shorter side as in training
    assert load(shown.after).shape == (16, 22, 3)
    assert shown.file.read_bytes() == command_writes(
        noisy_run, tmp_path / "rgb.png", tmp_path / "fitted", "--size", "22x16"
    )
    assert shown.told.startswith("rgb.png: 22x16, B → A, ")
    assert shown.file.read_bytes() == command_writes(
        noisy_run, tmp_path / "rgb.png", tmp_path / "trained", "--size", "training"
    )


def test_turned_photographs_stand_upright(noisy_run, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "turned.jpg", noise(16, 24, 3), exif=exif)
    shown = Model(noisy_run, tmp_path / "demo").translate("BtoA", tmp_path / "turned.jpg")
    assert load(shown.before).shape == load(shown.after).shape == (24, 16, 3)
    assert shown.file.read_bytes() == command_writes(noisy_run, tmp_path / "turned.jpg", tmp_path / "out")


def huge_png(path):
    """Write a small file that says that it has 60,000x60,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_strange_files_are_one_sentence_without_a_folder_of_the_machine(noisy_run, tmp_path):
    sent = tmp_path / "sent" / "d41d8cd9"
    sent.mkdir(parents=True)
    (sent / "text.png").write_text("hello")
    (sent / "page.jpg").write_text("<html></html>")
    (sent / "anim.gif").write_bytes(b"GIF89a")
    (sent / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    (sent / "no_ending").write_text("")
    huge_png(sent / "huge.png")
    save(sent / "deep.tif", noise(16, 16, dtype=np.uint16)[..., None])
    save(sent / "nearly.png", noise(5, 101, 3))
    said = {}
    model = Model(noisy_run, tmp_path / "demo", Settings(max_pixels=500))
    for path in sorted(sent.iterdir()):
        with pytest.raises(InputError) as error:
            model.translate("BtoA", path)
        said[path.name] = str(error.value)
    assert said["huge.png"] == "huge.png has 60,000x60,000 pixels, the demo takes up to 500: make it smaller"
    assert said["nearly.png"] == "nearly.png has 101x5 pixels, the demo takes up to 500: make it smaller"
    assert said["deep.tif"] == "deep.tif has 16 bits (uint16); this run takes 8 bits: convert it"
    assert said["text.png"] == "text.png cannot be read as an image (it is not a PNG file); replace or remove it"
    for name, text in said.items():
        assert text.startswith(name) and "\n" not in text and str(tmp_path) not in text and str(sent) not in text, text


def test_photographs_are_first_shown_as_in_training(noisy_run, cyclegan, tmp_path):
    model = Model(cyclegan, tmp_path / "demo")
    assert model.first_size == "training" and model.about.endswith("16x16; much larger ones often come out worse")
    config = small_config(generator={**TINY}, data__preprocess="crop")
    assert Model(make_run(tmp_path / "pieces", config), tmp_path / "other").first_size == "own"


def test_what_a_run_names_is_told_once(tmp_path, capsys):
    for side in "AB":
        for i in range(2):
            save(tmp_path / "photos" / f"val{side}" / f"{i}.png", noise(16, 16, 3, seed=i))
    changes = {"source": "unpaired", "dir": str(tmp_path / "photos"), "direction": "AtoB", "val_split": "val"}
    config = small_cyclegan_config(generator=POINTWISE, **{f"data__{key}": value for key, value in changes.items()})
    model = Model(make_run(tmp_path / "run", config), tmp_path / "demo", num_examples=1)
    assert [len(way.examples) for way in model.ways.values()] == [1, 1]
    assert capsys.readouterr().out.count("reading what") == 1


def test_the_page_takes_every_ending_that_is_read():
    pages = pytest.importorskip("p2p_jax.demo.page")
    head = pages.head()
    assert '".heic", ".heif"' in head and head.startswith("<script>{") and "toUpperCase" in head


def test_both_ways_and_what_they_are_called(cyclegan, tmp_path):
    model = Model(cyclegan, tmp_path, Settings(direction="BtoA"), num_examples=2)
    assert list(model.ways) == ["BtoA", "AtoB"] and model.names == {"AtoB": "A → B", "BtoA": "B → A"}
    assert model.seed is None
    assert model.ways["BtoA"].pad.exact and not model.ways["AtoB"].pad.exact  # photographs have no classes
    drawn = model.ways["BtoA"].pad.blank
    drawn[:6] = CMP_FACADES.colors[2]
    shown = model.draw("BtoA", drawn)
    np.testing.assert_array_equal(load(shown.before), drawn)
    np.testing.assert_array_equal(load(shown.after), Translator.from_workdir(cyclegan, direction="BtoA")(drawn))
    example = model.ways["AtoB"].examples[1]
    np.testing.assert_array_equal(load(model.translate("AtoB", example.file).before), example.picture)

    named = small_cyclegan_config(data__source="unpaired", data__dir="sets/horse2zebra")
    assert names_of(named.data) == {"AtoB": "horse → zebra", "BtoA": "zebra → horse"}


@pytest.mark.slow
def test_a_seed_draws_other_noise_and_compiles_once(noisy_run, tmp_path):
    opened = open_run(noisy_run)
    assert has_noise(opened) and not has_noise(open_run(noisy_run, dropout=False))
    image = noise(16, 16, 3)
    noisy, own = NoisyTranslator(opened), Translator(opened)(image)
    np.testing.assert_array_equal(noisy(image), own)
    noisy.seed(5)
    other = noisy(image)
    assert (other != own).mean() > 0.2
    reseeded = opened._replace(config=complete(opened.config.to_dict() | {"seed": 5}))
    np.testing.assert_array_equal(other, Translator(reseeded)(image))
    assert len(noisy._programs) == 1

    save(tmp_path / "given.png", image)
    model = Model(noisy_run, tmp_path / "demo")
    assert model.seed == 0
    results = {seed: load(model.translate("BtoA", tmp_path / "given.png", seed=seed).after) for seed in (None, 0, 5)}
    np.testing.assert_array_equal(results[None], own)
    np.testing.assert_array_equal(results[0], own)
    np.testing.assert_array_equal(results[5], other)


def test_inputs_made_of_photographs(tmp_path):
    """Pictures are photographs, drawings are inputs already."""
    task = {"input": "p2p_jax.images.tasks:low_resolution", "factor": 4}
    config = small_config(generator=POINTWISE, data__direction="AtoB", task=task)
    run = make_run(tmp_path / "run", config)
    photo = noise(16, 16, 3)
    save(tmp_path / "photo.png", photo)
    model = Model(run, tmp_path / "demo")
    shown = model.translate("AtoB", tmp_path / "photo.png")
    assert shown.file.read_bytes() == command_writes(run, tmp_path / "photo.png", tmp_path / "out")
    assert (load(shown.before) != photo).mean() > 0.5
    np.testing.assert_array_equal(load(model.draw("AtoB", photo).before), photo)


def test_results_of_long_ago_go(cyclegan, tmp_path):
    model = Model(cyclegan, tmp_path)
    drawn = model.ways["AtoB"].pad.blank
    first = model.draw("AtoB", drawn).file
    for _ in range(20):
        last = model.draw("AtoB", drawn).file
    assert not first.exists() and last.exists() and len(list(tmp_path.glob("result_*"))) <= 33


# Examples


def test_examples_are_the_images_of_validation(noisy_run, tmp_path):
    translator = Translator.from_workdir(noisy_run)
    found = examples.write(translator, None, tmp_path / "examples", 3)
    batch = next(load_split(translator.config, "val").batches(3))["real_a"]
    assert [example.file.name for example in found] == ["1.png", "2.png", "3.png"]
    for example, image in zip(found, batch, strict=True):
        np.testing.assert_array_equal(load(example.file), translator.domain_in.decode(image))
        np.testing.assert_array_equal(example.picture, load(example.file))
    again = examples.load(tmp_path / "examples", translator.domain_in)
    assert [example.file for example in again] == [example.file for example in found]
    np.testing.assert_array_equal(again[2].picture, found[2].picture)
    assert examples.load(tmp_path / "none", translator.domain_in) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"data__source": "pix2pix/facades"}, "pix2pix/facades is not on this machine: name a copy with `data_dir`"),
        (
            {"data__source": "hugging_face", "data__dir": "nobody/pictures"},
            "nobody/pictures is not on this",
        ),
        ({"data__source": "folders", "data__dir": "gone"}, "there is no folder gone with the run's images"),
        ({"data__val_split": ""}, "the run was trained without validation"),
    ],
)
def test_without_the_data_there_are_no_examples_and_a_line_says_why(
    tmp_path, options, reason, monkeypatch, capsys, noisy_run
):
    def fetch(*_, **__):
        raise AssertionError("downloads")

    monkeypatch.setattr(archives, "fetch", fetch)
    translator = Translator.from_workdir(noisy_run)
    translator.config = small_config(**options)
    assert examples.write(translator, None, tmp_path, 8) == []
    printed = capsys.readouterr().out
    assert printed.startswith(f"no examples: {reason}") and printed.count("\n") == 1


# The command


def test_a_port_that_is_taken_and_other_wrong_words_are_one_line(noisy_run, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = run_command(command, noisy_run, "--port", port)
    assert re.fullmatch(rf"error: port {port} is not available \(.*\); choose another with --port", told)
    assert run_command(command, noisy_run, "--max_pixels", 0) == "error: --max_pixels 0 must be at least 1"
    assert "port 70000 is not available" in run_command(command, noisy_run, "--port", 70_000)


def test_without_gradio_one_line_says_how_to_get_it(noisy_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    told = run_command(command, noisy_run, "--port", free_port())
    assert told.startswith("error: the demo needs gradio (") and told.endswith("): pip install 'p2p_jax[demo]'")


@pytest.mark.parametrize("flag", ["--share-on-lan", "--share_on_lan", None])
def test_it_is_for_this_machine_unless_one_says_so(noisy_run, monkeypatch, flag):
    told = []

    def launch(page, *, port, address):
        told.append(address)
        assert (os.environ["HF_HUB_OFFLINE"], os.environ["GRADIO_ANALYTICS_ENABLED"]) == ("1", "False")
        raise OSError("enough")

    monkeypatch.setattr(serving, "launch", launch)
    monkeypatch.setattr(serving.pages, "import_gradio", lambda: None)
    monkeypatch.setattr(serving.pages, "make", lambda model: None)
    before = dict(os.environ)
    assert "is not available (enough)" in run_command(command, noisy_run, "--port", 0, *filter(None, [flag]))
    assert told == ["0.0.0.0" if flag else "127.0.0.1"]
    assert dict(os.environ) == before


# The folder of a Space


@pytest.fixture
def space_run(tmp_path):
    """A run that knows folders of the machine that trained it."""
    config = small_config(generator__num_downs=2, data__dir="/home/anna/photos", data__source="side_by_side")
    return make_run(tmp_path / "trained here", config)


def test_a_space_holds_all_that_it_needs_and_no_folder_of_this_machine(space_run, tmp_path):
    pytest.importorskip("gradio", reason="pip install 'p2p_jax[demo]'")
    space = tmp_path / "space"
    options = ["--space", space, "--licence", "cc-by-4.0", "--palette", "cmp_facades", "--title", 'Houses: "toy"']
    assert run_command(command, space_run, *options) == 0
    told = (space / "README.md").read_text()
    assert "\nlicense: cc-by-4.0\n" in told and '\ntitle: "Houses: \\"toy\\""\n' in told and "\nsdk: gradio\n" in told
    pinned = dict(line.split("==") for line in (space / "requirements.txt").read_text().split())
    assert pinned["gradio"] == re.search(r"^sdk_version: (.*)$", told, re.MULTILINE)[1]
    assert pinned["jax"] == jax.__version__ and pinned["numpy"] == np.__version__
    assert len((space / "app.py").read_text().splitlines()) < 12
    for path in space.rglob("*"):
        if path.is_file() and not path.is_relative_to(space / "p2p_jax"):
            contents = path.read_bytes()
            assert b"anna" not in contents and str(tmp_path).encode() not in contents, path
    found, own = Translator.from_workdir(space / "model.safetensors"), Translator.from_workdir(space_run)
    assert found.checkpoint_id == own.checkpoint_id
    image = noise(16, 16, 3)
    np.testing.assert_array_equal(found(image), own(image))
    ours = {path.relative_to(ROOT) for path in (ROOT / "p2p_jax").rglob("*.py")}
    assert {path.relative_to(space) for path in (space / "p2p_jax").rglob("*.py")} == ours

    (space / "mine.txt").write_text("mine")
    told = run_command(command, space_run, *options)
    assert told.startswith(f"error: --space {space} is not empty") and (space / "mine.txt").read_text() == "mine"


def test_a_space_asks_for_a_licence_and_takes_no_code(space_run, tmp_path):
    told = run_command(command, space_run, "--space", tmp_path / "space")
    assert told.startswith("error: --licence ''") and not (tmp_path / "space").exists()
    told = run_command(command, space_run, "--space", tmp_path / "space", "--licence", "mit", "--trust", "my:code")
    assert "can only run code of the library" in told and not (tmp_path / "space").exists()


def test_examples_of_a_space_are_put_there_if_asked_for(cyclegan, tmp_path, capsys):
    pytest.importorskip("gradio", reason="pip install 'p2p_jax[demo]'")
    from p2p_jax.demo import space

    space.write(cyclegan, tmp_path / "none", Settings(direction="BtoA"), "mit")
    assert not (tmp_path / "none" / "examples").exists()
    assert "no validation images were put into the folder" in capsys.readouterr().out
    assert "palette='cmp_facades'" in (tmp_path / "none" / "app.py").read_text()
    space.write(cyclegan, tmp_path / "two", Settings(), "mit", num_examples=2)
    names = sorted(str(path.relative_to(tmp_path / "two" / "examples")) for path in (tmp_path / "two").rglob("*.png"))
    assert names == ["AtoB/1.png", "AtoB/2.png", "BtoA/1.png", "BtoA/2.png"]
    folder = tmp_path / "two"
    model = Model(folder / "model.safetensors", tmp_path / "demo", examples_folder=folder / "examples")
    assert [len(way.examples) for way in model.ways.values()] == [2, 2] and model.ways["BtoA"].pad.exact


@pytest.mark.slow
def test_requirements_are_all_that_is_imported(space_run, tmp_path):
    """What the demo loads is in requirements.txt, or is asked for by something there."""
    pytest.importorskip("gradio", reason="pip install 'p2p_jax[demo]'")
    space = tmp_path / "space"
    assert run_command(command, space_run, "--space", space, "--licence", "mit") == 0
    code = """
        import importlib.metadata as metadata, json, re, sys
        space, scratch = sys.argv[1:]
        sys.path.insert(0, space)
        import numpy as np
        from pathlib import Path
        from p2p_jax.demo import model, page
        assert model.__file__.startswith(space), model.__file__
        opened = model.Model(Path(space, "model.safetensors"), Path(scratch))
        opened.draw("BtoA", opened.ways["BtoA"].pad.blank)
        page.make(opened)
        asked, left = set(), [line.partition("==")[0] for line in Path(space, "requirements.txt").read_text().split()]
        while left:
            name = re.sub("[-_.]+", "-", left.pop()).lower()
            if name not in asked:
                asked.add(name)
                try:
                    needs = metadata.requires(name) or []
                except metadata.PackageNotFoundError:
                    continue
                left += [re.match(r"[\\w.-]+", need)[0] for need in needs if "extra ==" not in need]
        found = {x for x in ("tensorflow", "torch", "tensorflow_datasets", "orbax", "gradio") if x in sys.modules}
        ours = "absl dm_pix flatbuffers flax jax ml_collections numpy optax orbax PIL tqdm".split()
        owners = metadata.packages_distributions()
        missing = [name for name in ours if name in sys.modules and not
                   {re.sub("[-_.]+", "-", x).lower() for x in owners.get(name, [])} & asked]
        print(json.dumps([sorted(found), missing]))
    """
    found, missing = json.loads(run_python(code, space, tmp_path / "scratch", folder=tmp_path).splitlines()[-1])
    assert found == ["gradio", "orbax"] and missing == []


def test_the_licence_of_the_library_goes_with_its_source():
    from p2p_jax.demo import space

    folder = Path(p2p_jax.__file__).parent
    assert any(path.is_file() for path in (folder.parent / "LICENSE", *space._files_of_distribution("LICENSE")))
