"""The README's commands and snippets run as printed."""

import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(README)]
COMMANDS = [
    line
    for text in [
        *(block["text"] for block in BLOCKS if block["language"] == "bash"),
        *(path.read_text() for room in ("configs", "examples") for path in sorted((ROOT / room).glob("*.py"))),
    ]
    for line in re.sub(r"\\\n\s*", "", text).splitlines()
    if "python -m p2p_jax." in line
]


def python(folder, code):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_every_training_command_parses_to_a_valid_config(tmp_path):
    commands = [line.split("python -m p2p_jax.main ")[1] for line in COMMANDS if "p2p_jax.main" in line]
    commands = [line.replace("--config examples/", f"--config {ROOT}/examples/") for line in commands]
    options = re.findall(r"`(--config\.[^`]*)`", README)
    commands += [
        f"--config {'horse2zebra' if re.search('cycle|identity|pool|blocks|remat', option) else 'facades'} {option}"
        for option in options
        if not re.search("FOLDER|SECTION", option) and "=" in option
    ]
    files = {block["mark"][6:]: block["text"] for block in BLOCKS if (block["mark"] or "").startswith("file: ")}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    output = python(
        tmp_path,
        f"""
        import shlex
        from p2p_jax import main
        from p2p_jax.config import complete, load_with_overrides, resolve
        for command in {commands!r}:
            args, overrides = main._parser().parse_known_args(shlex.split(command))
            config = complete(load_with_overrides(args.config, overrides))
            with config.unlocked():
                config.data.num_train = 400
            resolve(config.objective)(config)
            print("parsed", command)
        """,
    )
    assert output.count("parsed") == len(commands) > 15
    assert set(files) == {"my_variant.py", "my_config.py"}


def test_every_other_command_exists():
    modules = {re.search(r"python -m (p2p_jax\.\w+)", line)[1] for line in COMMANDS}
    used = {"inspect_data", "translate", "evaluate", "train_segmenter", "ablate", "study", "convert", "export"}
    assert modules == {f"p2p_jax.{name}" for name in {"main", "prepare_cityscapes", *used}}
    for module in modules:
        result = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT)
        assert "usage" in result.stdout.lower() or "--workdir" in result.stdout


def arguments_of(name):
    return [shlex.split(line.split(f"p2p_jax.{name} ")[1]) for line in COMMANDS if f"p2p_jax.{name} " in line]


@pytest.mark.parametrize("name", ["translate", "evaluate", "train_segmenter", "ablate", "study", "convert", "export"])
def test_commands_on_a_run_parse(name):
    parser = importlib.import_module(f"p2p_jax.{name}")._parser()
    commands = arguments_of(name)
    assert commands
    for arguments in commands:
        assert vars(parser.parse_args(arguments))


def test_commands_on_a_run_run_as_printed(tmp_path, monkeypatch, pix2pix_run):
    shutil.copytree(pix2pix_run, tmp_path / "runs" / "mine")
    (tmp_path / "photos" / "new").mkdir(parents=True)
    Image.new("RGB", (40, 30), "navy").save(tmp_path / "photos" / "new" / "plain.png")
    monkeypatch.chdir(tmp_path)
    for name in ("translate", "evaluate", "study"):
        with contextlib.suppress(SystemExit):
            importlib.import_module(f"p2p_jax.{name}").run(arguments_of(name)[0])
    assert Image.open(tmp_path / "translated" / "plain.png").size == (40, 30)
    results = json.loads((tmp_path / "runs" / "mine" / "evaluation" / "val_4" / "results.json").read_text())
    assert results["metrics"]["l1"]["count"] == results["num_images"] == 100
    assert (tmp_path / "runs" / "study" / "study.json").is_file()


@pytest.mark.parametrize("name", ["onnx", "stablehlo"])
def test_exports_are_written_and_loaded_as_printed(tmp_path, monkeypatch, pix2pix_run, name):
    pytest.importorskip("jax2onnx" if name == "onnx" else "flatbuffers")
    shutil.copytree(pix2pix_run, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    (arguments,) = [arguments for arguments in arguments_of("export") if name in arguments]
    importlib.import_module("p2p_jax.export").run(arguments)
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == name]
    assert len(snippet.strip().splitlines()) <= 7  # six lines and an empty one
    output = python(tmp_path, snippet + "\nprint(translated.shape, translated.dtype)")
    assert output.strip() == {"onnx": "(2, 64, 64, 3) float32", "stablehlo": "(2, 64, 64, 3) uint8"}[name]


def test_weights_of_pytorch_come_and_go_as_printed(tmp_path, monkeypatch, pix2pix_run):
    pytest.importorskip("torch")
    from p2p_jax.inference.run import open_run
    from p2p_jax.interop import write_torch

    write_torch(open_run(pix2pix_run), tmp_path)
    shutil.copytree(pix2pix_run, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    (arguments,) = arguments_of("convert")
    importlib.import_module("p2p_jax.convert").run(arguments)
    theirs = open_run(tmp_path / "runs" / "theirs")
    assert theirs.step == 4 and set(theirs.shapes["params"]) == {"generator", "discriminator"}
    (arguments,) = [arguments for arguments in arguments_of("export") if "torch" in arguments]
    importlib.import_module("p2p_jax.export").run(arguments)
    (snippet,) = [block["text"] for block in BLOCKS if block["mark"] == "torch"]
    assert "model.model.0.weight torch.float32" in python(
        tmp_path, snippet + "\nfor name, value in state_dict.items(): print(name, value.dtype)"
    )


def test_python_snippets(tmp_path):
    using, training, arrays = [b["text"] for b in BLOCKS if b["language"] == "python" and b["mark"] is None]
    shortened = training.replace("config.num_steps = 40", "config.num_steps = config.log_every = 1")
    of_that_run = using.replace("runs/quickstart", "runs/from_python")
    assert shortened != training and of_that_run != using
    show = "print('step', int(state['step']), objective._fields, generator.num_downs)"
    shape = "print(translated.shape, translated.dtype)"
    own = "own = p2p_jax.Translator.from_workdir('runs/from_arrays'); print('from arrays:', own(a).dtype, own(a).shape)"
    output = python(tmp_path, "\n".join([shortened, show, of_that_run, shape, arrays, own]))
    assert "step 1 ('init', 'update', 'translate', 'evaluate') 8" in output
    assert "(2, 64, 64, 3) uint8" in output
    assert "from arrays: float32 (8, 64, 64, 1)" in output


def test_own_objective_runs_and_changes_the_result(tmp_path):
    for block in BLOCKS:
        if (block["mark"] or "").startswith("file: "):
            (tmp_path / block["mark"][6:]).write_text(block["text"])
    small = "config.num_steps = 1; config.batch_size = 2; config.generator.base_width = 4; config.data.crop_size = 64"
    output = python(
        tmp_path,
        f"""
        import p2p_jax, my_config
        losses = []
        for noise in (0.0, 0.5):
            config = my_config.get_config()
            {small}
            config.extra.noise = noise
            config.data.val_split = ""
            p2p_jax.train(config, f"runs/{{noise}}")
            losses.append(open(f"runs/{{noise}}/metrics.csv").read().splitlines()[-1])
        print("differ", losses[0] != losses[1])
        """,
    )
    assert "differ True" in output


def test_marked_commands_are_there_for_ci():
    marked = {block["mark"]: block["text"] for block in BLOCKS if block["mark"] in ("quickstart", "tests")}
    assert marked["tests"].strip().endswith("&& pytest")
    assert marked["quickstart"].strip().endswith("python -m p2p_jax.main --config configs/quickstart.py")


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
