"""The documentation is true: the site builds without a warning, and commands and snippets run as printed.

What would download a set is checked as far as the complete config; what serves pages as far as its arguments.
"""

import contextlib
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import p2p_jax.__main__
from p2p_jax import main
from p2p_jax.commands import train
from p2p_jax.config import complete, load, load_with_overrides, resolve
from p2p_jax.config.options import OPTIONS
from p2p_jax.data import layouts
from p2p_jax.data.containers import contents
from p2p_jax.data.stream import sources
from p2p_jax.training.start import _tell_learning_rate
from support import trees
from support.runs import rows_of
from support.web_pages import write_package

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = [match.groupdict() | {"page": page} for page, text in PAGES.items() for match in BLOCK.finditer(text)]
FILES = {block["mark"][6:]: block["text"] for block in BLOCKS if (block["mark"] or "").startswith("file: ")}
SNIPPETS = {
    page: "\n".join(
        block["text"]
        for block in BLOCKS
        if (block["page"], block["language"], block["mark"]) == (page, "python", None) and "--8<--" not in block["text"]
    )
    for page in PAGES
}
LINES = [
    line
    for text in [
        *(block["text"] for block in BLOCKS if block["language"] == "bash"),
        *(path.read_text() for room in ("configs", "examples") for path in sorted((ROOT / room).glob("*.py"))),
    ]
    for line in re.sub(r"\\\n\s*", "", text).splitlines()
]
TRAINING = list(dict.fromkeys(line.split("python -m p2p_jax.main ")[1] for line in LINES if "p2p_jax.main " in line))
VERBS = list(dict.fromkeys(line.split("python -m p2p_jax ")[1] for line in LINES if "python -m p2p_jax " in line))
WITHOUT_DOWNLOAD = {  # of those that differ in the folder or the number of steps alone, the last
    " ".join(re.sub(r"--workdir \S+|--config\.num_steps=\S+|#.*", "", line).split()): line
    for line in TRAINING
    if re.search(r"data\.dir=(photos|cityscapes|base)|quickstart|my_", line)  # examples/ have tests of their own
    and "init_from=" not in line  # it needs a run
}
ON_A_CPU = [  # what the README says of the quickstarts
    "--config configs/quickstart.py --config.data.source=folders --config.data.dir=photos",
    "--config configs/quickstart_cyclegan.py --config.data.source=unpaired --config.data.dir=photos",
]
CONFIG_OF = (  # an option that stands alone
    (r"nce=|loss\.identity|layers=|downsampling=", "horse2zebra_cut"),
    ("cycle|identity|pool|blocks", "horse2zebra"),
    ("", "facades"),
)
PUBLISHED = {"cityscapes": trees.cityscapes, "base": trees.cmp_base}
SMALL = shlex.split(
    "--config.num_steps=1 --config.batch_size=2 --config.num_samples=1 --config.data.val_split= "
    "--config.data.load_size=36 --config.data.crop_size=32 --config.generator.base_width=4 "
    "--config.discriminator.base_width=4 --config.discriminator.receptive_field=16"
)


def run_snippet(code, capsys):
    """Run Python as a reader would in the working directory; return what it prints."""
    capsys.readouterr()
    exec(compile(textwrap.dedent(code), "snippet", "exec"), {"__name__": "__main__"})
    return capsys.readouterr().out


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that a reader is in, with the files that the pages tell to write."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def write_photos(source, folder="photos", dirs=()):
    """Write images as the layout of a ``data.source`` wants them into photos/, or a published set.

    With `dirs`, the folders of A and of B, each holds images, and no split has a folder.
    """
    if folder in PUBLISHED:
        PUBLISHED[folder](Path(folder))
        return
    names = {"folders": ["{}/A", "{}/B"], "unpaired": ["{}A", "{}B"]}.get(source, ["{}"])
    splits = ("train", "val", "test")
    if dirs and not any("{split}" in name for name in dirs):
        names, splits = dirs, ("",)
    for name in names:
        for split in splits:
            into = Path("photos", name.format(split))
            into.mkdir(parents=True)
            for i in range(3):
                noise = np.random.RandomState(i).randint(0, 256, (40, 80 if "side" in source else 40, 3), np.uint8)
                Image.fromarray(noise).save(into / f"{i}.png")


def config_of(command):
    args = train.parser().read(shlex.split(command))
    return complete(load_with_overrides(args.config, args.overrides))


@pytest.mark.slow
@pytest.mark.filterwarnings("default:not found here")
def test_a_run_with_a_readers_own_loss_is_used_as_printed(folder, capsys):
    (train_line,) = [line for line in TRAINING if "my_losses:hinge" in line]
    main.run([*shlex.split(train_line), *SMALL, "--config.generator.num_downs=2"])
    (folder / "photos" / "new").mkdir(parents=True)
    Image.new("RGB", (32, 32), "navy").save(folder / "photos" / "new" / "plain.png")
    (arguments,) = arguments_of("translate", "--trust")
    without = arguments[: arguments.index("--trust")]
    with pytest.raises(SystemExit) as ended:
        p2p_jax.__main__.run(["translate", *without])
    (printed,) = [block["text"] for block in BLOCKS if block["text"].startswith("error: runs/hinge")]
    assert str(ended.value) == " ".join(printed.split())
    Path("my_losses.py").unlink()
    sys.modules.pop("my_losses")
    capsys.readouterr()
    p2p_jax.__main__.run(["translate", *arguments])
    told = capsys.readouterr()
    assert "loaded from the copy stored with the run: my_losses from runs/hinge/code/my_losses.py" in told.err
    assert "translated 1 of 1 images" in told.out


def test_files_that_readers_write_are_known():
    assert set(FILES) == {
        "my_variant.py",
        "my_config.py",
        "my_settings.py",
        "my_source.py",
        "my_losses.py",
        "my_optimizers.py",
        "my_metrics.py",
        "my_terms.py",
        "my_distances.py",
        "my_nets.py",
        "my_features.py",
        "my_loggers.py",
        "my_gradients.py",
    }
    assert len(TRAINING) > 40 and len(WITHOUT_DOWNLOAD) > 10


@pytest.mark.parametrize(
    "name", ["my_terms.py", "my_distances.py", "my_nets.py", "my_optimizers.py", "my_gradients.py"]
)
def test_a_part_from_outside_takes_ten_lines(name):
    assert len([line for line in FILES[name].splitlines() if line]) <= 10


@pytest.mark.slow
def test_every_training_command_makes_an_objective(folder):
    options = {option for text in PAGES.values() for option in re.findall(r"`(--config\.[^`]*=[^`]+)`", text)}
    commands = TRAINING + [
        f"--config {next(name for words, name in CONFIG_OF if re.search(words, option))} {option}"
        for option in sorted(options)
        if not re.search("FOLDER|SECTION|OLD_RUN|resident", option)
    ]
    assert len(options) > 25
    for command in commands:
        config = config_of(command)
        with config.unlocked():
            config.data.num_train = 400
        assert len(resolve(config.objective)(config)) == 4, command
        _tell_learning_rate(config, None)  # refuses many steps at a rate of 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [*WITHOUT_DOWNLOAD.values(), *ON_A_CPU])
def test_training_commands_run(folder, command):
    config = config_of(command)
    kind = "side_by_side" if config.data.source == "zip" else config.data.source
    dirs = tuple(filter(None, (config.data.dir_a, config.data.dir_b)))
    write_photos(kind, "photos" if config.data.source == "zip" else config.data.dir, dirs)
    if Path("photos").is_dir():
        shutil.make_archive("photos", "zip", ".", "photos")
    depths = {"p2p_jax.nets:ResNet": "num_blocks=1", "p2p_jax.nets:UNet": "num_downs=2"}
    depth = depths.get(config.generator.network)
    given = [part for part in shlex.split(command) if "num_steps" not in part]
    small = [part for part in SMALL if "val_split" not in part or "distances" not in command]
    main.run([*given, *small, *([f"--config.generator.{depth}"] if depth else [])])
    (summary,) = folder.glob("runs/*/summary.txt")
    assert summary.read_text().startswith(f"Finished: 1 steps of {config.objective}")


@pytest.mark.slow
def test_longer_training_runs_as_printed(folder, capsys):
    (longer,) = [line for line in TRAINING if "init_from=runs/small" in line]
    (first,) = [line for line in TRAINING if "runs/small " in line and line != longer]
    write_photos("unpaired", dirs=("my photos", "my drawings"))
    for command in (first, longer):
        given = [part for part in shlex.split(command) if "num_steps" not in part]
        main.run([*given, *SMALL, "--config.generator.num_blocks=1"])
    assert "runs/small" in capsys.readouterr().out
    assert Path("runs/longer/summary.txt").is_file()


def arguments_of(verb, *words):
    found = [shlex.split(line)[1:] for line in VERBS if line.startswith(f"{verb} ")]
    return [arguments for arguments in found if all(word in arguments for word in words)]


def run(verb, arguments):
    with contextlib.suppress(SystemExit):
        p2p_jax.__main__.run([verb, *arguments])


def test_verbs_are_printed():
    printed = {line.split()[0] for line in VERBS}
    assert printed == set(p2p_jax.__main__.VERBS) - {"train"}


def test_the_table_of_the_readme_names_verbs():
    named = set(re.findall(r"`p2p-jax (\w+)", PAGES["README"]))
    assert named <= set(p2p_jax.__main__.VERBS) and len(named) > 10


def test_the_readme_fits_its_length():
    assert len(PAGES["README"].splitlines()) <= 110


def test_configs_are_shown_as_printed(folder, capsys):
    for arguments in arguments_of("config"):
        run("config", arguments)
    printed = capsys.readouterr().out
    assert "* batch_size = 4    (published: 1)" in printed and "  data.flip = True" in printed


@pytest.mark.parametrize("verb", [verb for verb in p2p_jax.__main__.VERBS if verb not in ("train", "runs")])
def test_commands_parse_as_printed(verb):
    command = importlib.import_module(p2p_jax.__main__.VERBS[verb].module)
    commands = arguments_of(verb)
    assert commands
    for arguments in commands:
        assert vars(command.parser().read(arguments))


@pytest.mark.slow
def test_commands_on_a_run_run_as_printed(folder, pix2pix_run, capsys):
    for name in ("mine", "quickstart"):
        shutil.copytree(pix2pix_run, folder / "runs" / name)
    (folder / "photos" / "new").mkdir(parents=True)
    Image.new("RGB", (40, 30), "navy").save(folder / "photos" / "new" / "plain.png")
    Image.new("RGB", (64, 64), "navy").save(folder / "plan.png")
    if importlib.util.find_spec("av"):
        from support.videos import make_video

        make_video(folder / "walk.mp4", times=[0, 2])
    for arguments in arguments_of("pack"):
        run("pack", arguments)
    for arguments in arguments_of("translate"):
        run("translate", arguments)
    if importlib.util.find_spec("av"):
        assert (folder / "translated" / "walk.mp4").is_file()
    with Image.open(folder / "translated" / "plain.png") as image:
        assert image.size == (40, 30)
    assert (folder / "translated" / "plan.png").is_file()
    for arguments in arguments_of("evaluate"):
        workdir = Path(arguments[0])
        if "--segmenter" not in arguments and workdir.is_dir():  # that of rasters has a test of its own
            run("evaluate", arguments)
            results = json.loads((workdir / "evaluation" / "val_4" / "results.json").read_text())
            assert results["metrics"]["l1"]["count"] == results["num_images"] == 100
    run("study", arguments_of("study", "make")[0])
    assert (folder / "runs" / "study" / "study.json").is_file()
    run("study", arguments_of("study", "analyse")[0])
    assert "Published, for other people and images" in capsys.readouterr().out


@pytest.mark.slow
def test_models_come_and_go_as_printed(folder, pix2pix_run, monkeypatch, capsys):
    pytest.importorskip("huggingface_hub")
    from support.hub import TOKEN, pretend, running

    shutil.copytree(pix2pix_run, folder / "runs" / "mine")
    (arguments,) = arguments_of("push")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as hub:
        pretend(monkeypatch, hub, folder / "cache")
        run("push", arguments)
        (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == "hub"]
        assert run_snippet(snippet + "\nprint(translator.step, translator.weights)", capsys).split() == ["4", "raw"]
    for arguments in arguments_of("pack"):
        run("pack", arguments)
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == "model file"]
    assert run_snippet(snippet + "\nprint(translator.step, translator.direction)", capsys).split() == ["4", "BtoA"]


@pytest.mark.slow
def test_segmenters_are_trained_and_used_as_printed(folder, pix2pix_run):
    shutil.copytree(pix2pix_run, folder / "runs" / "mine")
    (arguments,) = arguments_of("segmenter")
    run("segmenter", [*arguments, "--num_steps", "2", "--base_width", "4"])
    (arguments,) = arguments_of("evaluate", "--segmenter")
    run("evaluate", arguments)
    results = json.loads((folder / "runs" / "mine" / "evaluation" / "val_4" / "results.json").read_text())
    assert set(results["set_metrics"]) == {"histogram intersection", "FCN score [own FCN-8s, seed 0]"}


@pytest.mark.slow
def test_configs_are_compared_as_printed(folder):
    (arguments,) = arguments_of("compare", "runs/compare")
    sizes = ["data.load_size=32", "data.crop_size=32", "generator.num_downs=3", "generator.base_width=8"]
    sizes += ["discriminator.base_width=4", "discriminator.receptive_field=16", "num_steps=20"]
    run("compare", [*arguments, "--seeds", "1", *(f"--config.{option}" for option in sizes)])
    told = json.loads((folder / "runs" / "compare" / "table.json").read_text())
    assert [row["name"] for row in told["configs"]] == ["quickstart", "weak", "narrow"]
    assert [row["differs"] for row in told["configs"]] == [{}, {"loss.lambda_l1": 10.0}, {"generator.base_width": 16}]
    assert all(row["metrics"]["l1"]["last"]["count"] == row["done"] == 1 for row in told["configs"])


@pytest.mark.slow
def test_runs_are_listed_resumed_and_compared_as_printed(folder, pix2pix_run, capsys):
    for name in ("mine", "quickstart"):
        shutil.copytree(pix2pix_run, folder / "runs" / name)
    (arguments,) = arguments_of("compare", "runs/quickstart")
    run("compare", arguments)
    told = json.loads((folder / "runs" / "beside" / "table.json").read_text())
    assert [row["step"] for row in told["runs"]] == [4, 4]
    resumed = [given for given in arguments_of("resume") if len(given) == 1]
    assert ["runs/mine"] in resumed
    run("resume", ["runs/mine"])
    capsys.readouterr()
    run("runs", [])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[0] == "run" and set(names[1:]) == {"mine", "quickstart"}


@pytest.mark.slow
def test_data_sets_are_inspected_as_printed(folder, capsys):
    for arguments in arguments_of("inspect"):
        source = re.search(r"data\.source=(\S+)", " ".join(arguments))
        if not source:  # rasters, which are written by a snippet of their page
            continue
        shutil.rmtree("photos", ignore_errors=True)
        write_photos(source[1], dirs=tuple(re.findall(r"data\.dir_[ab]=([^-]*[^ -])", " ".join(arguments))))
        run("inspect", arguments)
        said = {"side_by_side": "3 pairs", "unpaired": "train: 2 + 2 images"}
        assert said.get(source[1], "3 images") in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "stablehlo"])
def test_exports_are_written_and_loaded_as_printed(folder, pix2pix_run, name, capsys):
    pytest.importorskip("jax2onnx" if name == "onnx" else "flatbuffers")
    for workdir in ("mine", "quickstart"):
        shutil.copytree(pix2pix_run, folder / "runs" / workdir)
    for arguments in arguments_of("export", name):
        run("export", arguments)
        assert Path(arguments[arguments.index("--output") + 1]).stat().st_size > 10_000
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == name]
    assert len(snippet.strip().splitlines()) <= 7  # six lines and an empty one
    output = run_snippet(snippet + "\nprint(translated.shape, translated.dtype)", capsys)
    assert output.strip() == {"onnx": "(2, 64, 64, 3) float32", "stablehlo": "(2, 64, 64, 3) uint8"}[name]


@pytest.mark.slow
def test_a_page_is_written_as_printed(folder, pix2pix_run):
    pytest.importorskip("jax2onnx")
    shutil.copytree(pix2pix_run, folder / "runs" / "mine")
    write_package(folder / "node_modules" / "onnxruntime-web")
    (arguments,) = arguments_of("export", "web")
    run("export", arguments)
    page = Path(arguments[arguments.index("--output") + 1])
    assert "<h1>Facades</h1>" in (page / "index.html").read_text()
    assert (page / "BtoA.onnx").stat().st_size > 5_000


@pytest.mark.slow
def test_weights_of_pytorch_come_and_go_as_printed(folder, pix2pix_run, capsys):
    pytest.importorskip("torch")
    from p2p_jax.inference.run import open_run
    from p2p_jax.interop import write_torch

    write_torch(open_run(pix2pix_run), folder)
    shutil.copytree(pix2pix_run, folder / "runs" / "mine")
    (arguments,) = arguments_of("convert", "--discriminator")
    run("convert", arguments)
    theirs = open_run(folder / "runs" / "theirs")
    assert theirs.step == 4 and set(theirs.shapes["params"]) == {"generator", "discriminator"}
    (arguments,) = arguments_of("export", "torch")
    run("export", arguments)
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == "torch"]
    shown = "\nfor name, value in state_dict.items(): print(name, value.dtype)"
    assert "model.model.0.weight torch.float32" in run_snippet(snippet + shown, capsys)


@pytest.mark.slow
def test_models_of_the_browser_come_in_as_printed(folder):
    from p2p_jax.inference.run import open_run

    shutil.copytree(Path(__file__).parent / "fixtures" / "tfjs", folder / "edges2cats")
    (arguments,) = arguments_of("convert", "edges2cats/model.json")
    run("convert", arguments)
    cats = open_run(folder / "runs" / "cats")
    assert cats.config.generator.num_downs == 2 and set(cats.shapes["params"]) == {"generator"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "run_of"), [("lazy", "scans"), ("torch data", "from_torch"), ("tf.data", "from_tf_data")]
)
def test_loaders_of_ones_own_train_as_printed(folder, monkeypatch, capsys, mark, run_of):
    pytest.importorskip({"lazy": "numpy", "torch data": "torch", "tf.data": "tensorflow"}[mark])
    monkeypatch.setattr("p2p_jax.load_config", load_small_config)
    (folder / "scans").mkdir()
    for i in range(3):
        np.random.RandomState(i).randint(-1000, 3000, (64, 128)).astype(np.int16).tofile(folder / "scans" / f"{i}.raw")
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == mark]
    run_snippet(snippet, capsys)
    facts = json.loads((folder / "runs" / run_of / "facts.json").read_text())
    assert (facts["source"], facts["num_train"]) == ("given", {"lazy": 3}.get(mark, 8))
    summary = (folder / "runs" / run_of / "summary.txt").read_text()
    assert summary.startswith("Finished: ") and f"Validation over {facts['num_train']} images" in summary


@pytest.mark.parametrize(("mark", "source"), [("huggingface", "hugging_face"), ("array_record", "array_record")])
def test_containers_are_written_and_read_as_printed(folder, mark, source, capsys):
    pytest.importorskip({"huggingface": "datasets"}.get(mark, mark))
    pytest.importorskip("tensorflow")
    write_photos("folders")
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == mark]
    run_snippet(snippet, capsys)
    (command,) = [command for command in TRAINING if f"data.source={source} " in command]
    data = p2p_jax.data.load(config_of(command))
    assert (data.num_train, data.num_val) == (3, 3)
    assert next(data.train(0))["real_a"].shape == (1, 256, 256, 3)


@pytest.mark.slow
def test_rasters_are_written_checked_trained_and_translated_as_printed(folder, capsys):
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("scipy")
    written, used = ([block["text"] for block in BLOCKS if block["mark"] == mark] for mark in ("rasters", "heights"))
    run_snippet(written[0], capsys)
    (arguments,) = arguments_of("inspect", "configs/bands.py")
    run("inspect", arguments)
    printed = capsys.readouterr().out
    assert "40 pairs" in printed and "0 errors" in printed and "histogram from -569.949 to 1189.77" in printed
    (command,) = [command for command in TRAINING if "runs/heights" in command and "eval_every" in command]
    small = [part for part in SMALL if "val_split" not in part]
    main.run([*shlex.split(command), *small, "--config.generator.num_downs=2"])
    for verb in ("evaluate", "translate"):
        (arguments,) = arguments_of(verb, "runs/heights")
        run(verb, arguments)
    (results,) = Path("runs/heights/evaluation").glob("*/results.json")
    assert json.loads(results.read_text())["metrics"]["mae_units"]["count"] == 8
    with rasterio.open("heights/0.tif") as file, rasterio.open("rasters/val/A/0.tif") as source:
        assert (file.dtypes, file.crs, file.transform) == (("float32",), source.crs, source.transform)
    assert "(1, 96, 96, 1) float32" in run_snippet(used[0] + "\nprint(metres.shape, metres.dtype)", capsys)


def test_the_check_of_a_loss_of_ones_own_holds(folder, capsys):
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == "gradients"]
    run_snippet(snippet, capsys)
    from my_gradients import gradients

    real = np.zeros((1, 8, 8, 3), np.float32)
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], real.shape)
    assert gradients(ramp / 4, real, {}) == 0.25


def load_small_config(name):
    """Load a config as ``p2p_jax.load_config`` does, with small networks."""
    config = load(name)
    config.generator.base_width = config.discriminator.base_width = 4
    config.batch_size = 2
    config.num_steps = min(config.num_steps, 40)
    if "num_downs" in config.generator:
        config.generator.num_downs = 3
    return config


@pytest.mark.slow
def test_a_look_into_one_step_runs_as_printed(folder, monkeypatch, capsys):
    """The norm of L1 is that of a step of plain gradient descent on nothing else."""

    def load_without_noise(name):
        config = load_small_config(name)
        config.generator.dropout_rate = 0.0
        config.data.update(load_size=16, crop_size=16)
        config.discriminator.receptive_field = 16
        return config

    monkeypatch.setattr(p2p_jax, "load_config", load_without_noise)
    snippet = "\n".join(block["text"] for block in BLOCKS if block["mark"] == "one step")
    more = """
        from p2p_jax.config import override
        plain = override(config, [f"--config.{x}" for x in (
            "loss.terms=", "loss.lambda_gan=0.", "loss.lambda_l1=1.", "optimizer.factory=optax:sgd",
            "optimizer.learning_rate=1.")])
        only_l1 = make_objective(plain)
        begun = only_l1.init(rng, batch)
        old = {"generator": params["generator"]}
        begun = {**begun, "params": old, "batch_stats": {"generator": stats["generator"]}}
        new, _ = one_step(only_l1, begun, batch, rng)
        print(optax.tree.norm(jax.tree.map(jnp.subtract, new["params"], old)))
    """
    lines = run_snippet(snippet + textwrap.dedent(more), capsys).splitlines()
    found = dict(line.split(": ") for line in lines if re.fullmatch(r"[\w/]+: [\d.e-]+", line))
    step = {name: float(found[name]) for name in ("gen/gan", "gen/l1", "gen/gradients", "gen/total")}
    total = step["gen/gan"] + 100 * step["gen/l1"] + 10 * step["gen/gradients"]
    assert step["gen/total"] == pytest.approx(total, rel=1e-2)
    assert float(found["l1"]) == pytest.approx(float(lines[-1]), rel=1e-2)
    assert float(found["gan"]) > 0 and float(found["gradients"]) > 0


SHOW = {
    "README": ("(2, 64, 64, 3) uint8 40", "print(translated.shape, translated.dtype, state['step'])"),
    "quickstart": ("40 (64, 64)", "print(state['step'], plan.size)"),
    "data": (
        "float32 (8, 64, 64, 1)",
        "own = p2p_jax.Translator.from_workdir('runs/from_arrays')(a); print(own.dtype, own.shape)",
    ),
    "translating": ("(2, 64, 64, 3) uint8", "print(translated.shape, translated.dtype)"),
    "evaluation": ("True", "print((results['step'], results['split']) == (4, 'val'))"),
    "objectives": ("contract kept", "print('contract kept')"),
}


def test_snippets_are_on_known_pages():
    assert {page for page, text in SNIPPETS.items() if text} == set(SHOW)


@pytest.mark.slow
@pytest.mark.parametrize("page", SHOW)
def test_snippets_run_as_printed(folder, pix2pix_run, page, monkeypatch, capsys):
    monkeypatch.setattr(p2p_jax, "load_config", load_small_config)
    for name in ("mine", "quickstart"):
        shutil.copytree(pix2pix_run, folder / "runs" / name)
    expected, show = SHOW[page]
    assert expected in run_snippet("\n".join([SNIPPETS[page], show]), capsys)


@pytest.mark.slow
def test_own_objective_changes_the_result(folder):
    losses = []
    for noise in (0.0, 0.5):
        config = importlib.import_module("my_config").get_config()
        config.extra.noise, config.data.val_split = noise, ""
        config.num_steps, config.batch_size, config.generator.base_width, config.generator.num_downs = 1, 2, 4, 2
        p2p_jax.train(config, folder / "runs" / str(noise))
        losses.append(rows_of(folder / "runs" / str(noise))[-1])
    assert losses[0] != losses[1]


def test_other_lines_of_shells_are_known(capsys):
    extras = set(re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE))
    named = {
        name
        for text in (*PAGES.values(), (ROOT / "CONTRIBUTING.md").read_text())
        for group in re.findall(r"'(?:\.|p2p_jax)\[([\w,]+)\]'", text)
        for name in group.split(",")
    }
    assert named <= extras and len(extras) > 10
    texts = [block["text"] for block in BLOCKS if block["language"] == "bash"]
    lines = [line for text in texts for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    others = {line for line in lines if line and not line.startswith("#") and "python -m p2p_jax" not in line}
    assert {line for line in others if not line.startswith("pip install -e '.[")} == {
        "git clone https://github.com/p2p-jax/p2p-jax && cd p2p-jax",
        "python3 -m venv .venv && . .venv/bin/activate",
        "python3 -m venv .venv && . .venv/bin/activate && "
        "pip install -e '.[data,tb,eval,images,video,notebooks,docs,test]' && pytest",  # what CI runs
        'python -c "import jax; print(jax.devices())"',
        "jupyter lab notebooks",
        "cp -r photos/val/B taught/val",
    }
    (code,) = [shlex.split(line)[2] for line in others if line.startswith("python -c")]
    assert "CpuDevice" in run_snippet(code, capsys)


def test_marked_commands_are_there_for_ci():
    blocks = [block for block in BLOCKS if block["mark"] in ("quickstart", "tests")]
    marked = {block["mark"]: re.sub(r"\\\n\s*", "", block["text"]) for block in blocks}
    assert marked["tests"].strip().endswith("&& pytest")
    assert marked["quickstart"].strip().endswith("python -m p2p_jax.main --config configs/quickstart.py")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)h][^)]*)\)", PAGES["README"]))))
def test_links_of_the_readme_lead_somewhere(link):
    path, _, anchor = link.partition("#")
    assert (ROOT / path).exists()
    headings = (
        [line.lstrip("# ").lower().replace(" ", "-") for line in (ROOT / path).read_text().splitlines()]
        if anchor
        else [""]
    )
    assert anchor in headings


def test_links_into_the_repository_lead_somewhere():
    links = {link for text in PAGES.values() for link in re.findall(r"p2p-jax/(?:blob|tree)/main/([^)#\s]*)", text)}
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_source_of_images_stands_in_the_table():
    text = PAGES["data"].split("| `data.source` | images |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| (.*) \|$", text, re.MULTILINE)
    named = {name for name, _ in rows}
    behind = [(name, word) for name, where in rows if name in contents.KINDS for word in re.findall("`([^`]+)`", where)]
    named |= {f"{name}/{layout}" for name, layout in behind if layout not in (f"{name}/", "datasets")}
    known = {*sources._DRAWN, *layouts.SOURCES, *contents.SOURCES}
    assert named == known | {"pix2pix/NAME", "cycle_gan/NAME", "module:name"}
    (option,) = (option for option in OPTIONS if option.name == "data.source")
    words = set(re.findall(r"[\w/:]+", option.meaning))
    assert {name for name in named if name.partition("/")[0] not in contents.KINDS} <= words


def test_commands_fit_a_page():
    long = [line for page, text in PAGES.items() for line in shell_lines(text) if len(line) > 88]
    assert long == []


def shell_lines(text):
    return [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def test_every_page_is_in_the_menu_and_every_picture_there():
    """What Zensical does not say, even when it is strict."""
    menu = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(menu) == len(set(menu)) and set(menu) == pages
    for page in pages:
        text = (ROOT / "docs" / page).read_text()
        for picture in re.findall(r"!\[[^]]*\]\(([^)h][^)]*)\)", text):
            assert (ROOT / "docs" / page).parent.joinpath(picture).is_file(), (page, picture)


def test_pictures_of_the_documentation_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert max(sizes.values()) < 160_000 and sum(sizes.values()) < 1_000_000


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")  # Zensical writes where links lead
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for name in ("CHANGELOG.md", "examples", "configs", "p2p_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    result = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "No issues found" in result.stdout + result.stderr, result.stdout + result.stderr
    site = tmp_path / "site"
    assert {path.parent.name for path in site.glob("*/index.html")} >= set(PAGES) - {"README", "index"}
    assert "steps between sample grids" in (site / "configs" / "index.html").read_text()
    for page, text in {"index": "the experiment; missing options", "objectives": "averages gradients"}.items():
        assert text in (site / "api" / ("" if page == "index" else page) / "index.html").read_text()
