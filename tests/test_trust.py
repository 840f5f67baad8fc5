"""A run's directory is data: what its config names is executed only for callers who say so, and leads nowhere else."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import numpy as np
import optax
import optax.contrib
import pytest

import p2p_jax
from p2p_jax import Translator, train
from p2p_jax.__main__ import VERBS
from p2p_jax.commands import evaluate as evaluate_command
from p2p_jax.commands import export as export_command
from p2p_jax.commands import resume as resume_command
from p2p_jax.commands import runs as runs_command
from p2p_jax.commands import segmenter as segmenter_command
from p2p_jax.commands import study as study_command
from p2p_jax.commands import train as train_command
from p2p_jax.commands import translate as translate_command
from p2p_jax.config import complete_experiment, completed_like, resolve, stored
from p2p_jax.config.reference import is_reference
from p2p_jax.data.stream.sources import make_source
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from p2p_jax.evaluation.study import from_runs
from p2p_jax.images import tasks
from p2p_jax.inference.run import open_run
from p2p_jax.interop.exporting import export
from p2p_jax.objectives import losses, make_network, make_objective, make_optimizer, pix2pix
from p2p_jax.training import fine_tuning, own_code
from p2p_jax.training.checkpoint import read_config, read_facts, saved_config
from support.configs import small_config
from support.named_code import EVIL, POPEN, WAYS
from support.networks import TINY, draw_state
from support.runs import blank_state, memory_data, run_command, write_run


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """A run of the library alone, with weights of chance; read it only."""
    config = small_config(init_from="")
    state = draw_state(blank_state(make_objective(config), config))
    return write_run(tmp_path_factory.mktemp("plain") / "run", complete_experiment(config), state, step=1)


@pytest.fixture
def folder(plain_run, tmp_path, monkeypatch):
    """The current folder, with a copy of the run in it, and modules that leave a mark where they are imported."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(plain_run, tmp_path / "run")
    (tmp_path / "photos").mkdir()
    np.save(tmp_path / "photos" / "a.npy", np.zeros((16, 16, 3), np.uint8))
    for place in (tmp_path / "evil_here.py", tmp_path / "run" / "evil_there.py"):
        place.write_text(EVIL.format(mark=tmp_path / "MARK"))
    yield tmp_path
    assert not (tmp_path / "MARK").exists()
    assert not {"evil_here", "run.evil_there"} & sys.modules.keys()


def change(file: Path, sections) -> None:
    """Change options in a stored config; a section keeps its others."""
    values = json.loads(file.read_text())
    for name, value in sections.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(values))


def change_run(sections) -> None:
    for file in (Path("run/config.json"), Path("run/checkpoints/1/config/metadata")):
        change(file, sections)


FUNCTIONS = {
    "translate": lambda: Translator.from_workdir("run"),
    "evaluate": lambda: evaluate("run"),
    "export": lambda: export("run", "stablehlo", "out.stablehlo"),
    "open": lambda: open_run("run"),
    "study": lambda: from_runs(["run"]),
    "read": lambda: read_config(Path("run")),
    "resume": lambda: train(small_config(), "run", data=memory_data(small_config())),
    "start from": lambda: fine_tuning.find_source("run", Path("other")),
}
ABSENT = ("--config.data.source=folders", "--config.data.dir=none")
COMMANDS = {
    "translate": (translate_command, "run", "photos", "--output", "out"),
    "evaluate": (evaluate_command, "run"),
    "merge": (evaluate_command, "run", "--merge"),
    "export": (export_command, "run", "--format", "stablehlo", "--output", "out.stablehlo"),
    "export to PyTorch": (export_command, "run", "--format", "torch", "--output", "out.pth"),
    "study": (study_command, "make", "--output", "study", "--runs", "run"),
    "segmenter": (segmenter_command, "--workdir", "run", "--output", "fcn"),
    "resume": (resume_command, "run"),
    "train": (train_command, "quickstart", "--workdir", "run"),
    "start from": (train_command, "quickstart", "--workdir", "other", "--config.init_from=run", *ABSENT),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_function_executes_what_a_stored_config_names(folder, way, capsys):
    sections, names = WAYS[way]
    change_run(sections)
    for what, function in FUNCTIONS.items():
        if what == "start from" and not {"generator", "discriminator"} & sections.keys():
            function()  # which makes networks alone to compare them, and says what else is named
            edited, told = capsys.readouterr().out.splitlines()
            assert edited == "run/checkpoints/1/config/metadata has been edited since it was written"
            assert told.startswith("note: run/checkpoints/1/config/metadata: config.") and "not executed" in told
            assert all(name in told for name in names)
            continue
        if what == "start from":
            names = [name for name in names if name != "evil_here:make" or "objective" not in sections]
        with pytest.raises(InputError) as caught:
            function()
        message = str(caught.value)
        if what == "resume":  # which compares, and makes nothing
            assert message.startswith("run holds a run with another config:") and all(name in message for name in names)
            continue
        file = "run/checkpoints/1/config/metadata" if what == "start from" else "run/config.json"
        assert message.startswith(f"{file}: config.") and message.count("code outside the library") == 1, what
        assert all(f" names {name}" in message and f'"{name}"' in message.partition("trust=[")[2] for name in names), (
            what
        )
    assert not {"other", "out", "out.stablehlo"} & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("way", ["a program as generator", "a module of the current folder", "a source"])
def test_no_command_executes_what_a_stored_config_names(folder, way, capsys):
    sections, names = WAYS[way]
    change_run(sections)
    for what, (command, *arguments) in COMMANDS.items():
        error = run_command(command, *arguments)
        if what == "train":
            assert error.startswith("error: run holds a run with another config:") and all(
                name in error for name in names
            )
            continue
        if what == "start from" and "generator" not in sections:
            assert "there is no folder none" in error and "not executed" in capsys.readouterr().out
            continue
        file = "run/checkpoints/1/config/metadata" if what == "start from" else "run/config.json"
        assert isinstance(error, str) and error.startswith(f"error: {file}: config."), (what, error)
        assert all(f"--trust {name}" in error for name in names) and "\n" not in error
    assert run_command(runs_command, ".") == 0  # which makes nothing
    assert "1/4" in capsys.readouterr().out


def test_the_library_is_allowed_where_it_belongs():
    for key, names in stored.LIBRARY.items():
        for name in names:
            section, _, option = key.rpartition(".")
            config = {section: {option: name}} if section else {key: name}
            assert stored.references(config) == {key: [name]} and stored.outside(config) == {}
    objectives = {resolve(name) for name in stored.LIBRARY["objective"]}
    assert objectives == {p2p_jax.pix2pix, p2p_jax.cyclegan, p2p_jax.cut}
    networks = {resolve(name) for name in stored.LIBRARY["generator.network"]}
    exported = {getattr(p2p_jax.nets, name) for name in p2p_jax.nets.__all__ if name != "RECEPTIVE_FIELDS"}
    assert networks == exported
    for network in networks:
        kind = getattr(network, "func", network)
        assert issubclass(kind, nn.Module) and kind.__module__.startswith("p2p_jax.nets.")
    for name in stored.LIBRARY["task.input"]:
        assert resolve(name).__module__ == "p2p_jax.images.tasks"
    public = {name for name in dir(tasks) if not name.startswith("_") and callable(getattr(tasks, name))}
    named = {name.partition(":")[2] for name in stored.LIBRARY["task.input"]}
    of_images = {name for name in public if getattr(tasks, name).__module__ == tasks.__name__}
    assert of_images - named == {"bind", "make_values"}


def test_the_optimizers_that_are_allowed_are_optimizers():
    found = 0
    for name in stored.LIBRARY["optimizer.factory"]:
        module, _, factory = name.partition(":")
        if made := getattr({"optax": optax, "optax.contrib": optax.contrib}[module], factory, None):
            assert isinstance(made(learning_rate=0.1), optax.GradientTransformation), name
            found += 1
    assert found > 30


def test_what_is_like_a_reference_counts():
    assert all(map(is_reference, ["a:b", "a.b_1:C", "_x:y"]))
    assert not any(
        map(is_reference, ["a", "a:", ":b", "a b:c", "3:4", "a..b:c", "a:b.c", "a-b:c", "", "a:b:c", " a:b"])
    )
    harmless = {"extra": {"note": "ratio 3:4, see: below", "range": "0:255", "url": "https://x"}}
    assert stored.references(harmless) == {}
    with pytest.raises(InputError, match="trust=my_lab: write it as configs do"):
        stored.trusted("my_lab")
    assert stored.trusted("a:b") == stored.trusted(["a:b"]) == {"a:b"}


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"objective": 5}, "config.objective is 5; it must be text"),
        ({"objective": "os.path"}, "config.objective is 'os.path'; it must have the form"),
        ({"objective": " os:system"}, "config.objective is ' os:system'; it must have the form"),
        ({"generator": ["subprocess:Popen"]}, r"config.generator is \['subprocess:Popen'\]; it must be a section"),
        ({"generator": {"network": {"a": "os:system"}}}, "config.generator.network is .*; it must be text"),
        ({"loss": {"gan": ["os:system"]}}, r"config.loss.gan is \['os:system'\]; it must be text"),
        ({"metrics": ["os:system"]}, r"config.metrics is \['os:system'\]; it must be text"),
        ({"data": 3}, "config.data is 3; it must be a section"),
        ({"data": {"input": "x"}}, "config.data.input is 'x'; it must be a section"),
        ({"extra": json.loads("[" * 90 + "]" * 90)}, "config.extra is .*; it must be a section"),
        ({"extra": {"x": json.loads("[" * 90 + "]" * 90)}}, "is nested deeper than 20"),
        ({"data": {"output": {"palette": "/dev/zero"}}}, "config.data.output.palette is '/dev/zero'; a stored palette"),
        ({"no_such": "os:system"}, "unknown option config.no_such"),
    ],
)
def test_wrong_types_are_one_sentence(folder, sections, message):
    change_run(sections)
    with pytest.raises(InputError, match=message) as caught:
        Translator.from_workdir("run")
    assert "run/config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", "[" * 100_000, '{"seed": ' + "9" * 5000 + "}", "\xff\xfe"])
def test_what_is_no_config_is_one_sentence(folder, text, capsys):
    Path("run/config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="run/config.json"):
        open_run("run")
    assert run_command(runs_command, ".") == 0


def test_a_name_that_a_terminal_would_obey_is_listed_without_it(folder, capsys):
    Path("run").rename("run\x1b[2J\u202e")
    assert run_command(runs_command, ".") == 0
    assert "run\\x1b[2J\\u202e  " in capsys.readouterr().out


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"source": "evil_here:make"}, "source is 'evil_here:make'; the only source in facts is 'given'"),
        ({"source": ["given"]}, "the only source in facts"),
        ({"input": {"palette": "/etc/hostname"}}, "a stored palette must list its colours"),
        ({"input": "x"}, "does not hold the facts of a run"),
        ([], "does not hold the facts of a run"),
        ({"output": {"network": "os:system"}}, "unknown option config.data.output.network"),
        ({"images": 5}, "does not hold the facts of a run"),
        ({"images": {"train": 5}}, "do not describe the training images"),
        ({"images": {"train": {"count": "x", "contents": ""}}}, "do not describe the training images"),
        ({"images": {"train": {"count": 5, "contents": 5}}}, "do not describe the training images"),
        ({"num_train": [1]}, "do not describe the training images"),
        ({"computed_on": 5}, "does not hold the facts of a run"),
    ],
)
def test_what_a_run_has_found_names_no_code_either(folder, facts, message):
    for file in (Path("run/facts.json"), Path("run/checkpoints/1/facts/metadata")):
        file.write_text(json.dumps(facts))
    for function in (lambda: open_run("run"), lambda: evaluate("run")):
        with pytest.raises(InputError, match=message) as caught:
            function()
        assert "facts.json" in str(caught.value)
    if "unknown" not in message:
        with pytest.raises(InputError, match=message):
            read_facts(Path("run"))
        with pytest.raises(InputError, match=message):
            saved_config(Path("run"), 1)


# With trust.


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """A run with a network and a metric of one's own; read it only."""
    config = complete_experiment(small_config(generator=TINY))
    state = draw_state(blank_state(make_objective(config), config))
    return write_run(tmp_path_factory.mktemp("own") / "run", config, state, step=1)


def test_what_is_trusted_is_used(own_run, tmp_path, monkeypatch):
    name = TINY["network"]
    with pytest.raises(InputError, match=rf'config.generator.network names {name}: .* trust=\["{name}"\]$'):
        Translator.from_workdir(own_run)
    with pytest.raises(InputError, match=rf'trust=\["{name}"\]$'):
        Translator.from_workdir(own_run, trust="support.networks:Pointwise")
    image = np.zeros((16, 16, 3), np.uint8)
    found = Translator.from_workdir(own_run, trust=name)(image)
    assert found.shape == (16, 16, 3) and found.any()
    np.testing.assert_array_equal(Translator.from_workdir(own_run, trust=[name, "a:b"])(image), found)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", image)
    arguments = (translate_command, own_run, "in", "--output", "out", "--format", "npy")
    assert run_command(*arguments).endswith(f"--trust {name}")
    assert run_command(*arguments, "--trust", name) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a.npy"), found)


def test_trust_does_not_make_a_program_a_network(folder):
    change_run(WAYS["a program as generator"][0])
    with pytest.raises(InputError, match=f"config.generator.network={POPEN} is not a network"):
        Translator.from_workdir("run", trust=POPEN)


def test_ones_own_config_is_checked_before_anything_is_made(folder):
    (folder / "own_things.py").write_text(
        "from pathlib import Path\n"
        "def touch(*a, **k): Path('MARK').touch()\n"
        "def nothing(learning_rate=0.1): pass\n"
        "def empty(config): return ()\n"
        "value = 3\n"
    )
    for section, name in (("generator", "touch"), ("discriminator", "nothing"), ("generator", "value")):
        config = small_config(**{section: {"network": f"own_things:{name}"}})
        with pytest.raises(InputError, match=f"config.{section}.network=own_things:{name} is not a network"):
            make_network(config[section], section)
    for factory, message in (
        ("own_things:nothing", "returns NoneType, not an optax.GradientTransformation"),
        ("own_things:value", "does not take options"),
        ("builtins:dict", "does not take options"),
    ):
        with pytest.raises(InputError, match=f"config.optimizer.factory={factory} {message}"):
            make_optimizer(small_config(optimizer={"factory": factory, "learning_rate": 0.1}))
    for name, message in (("value", "is not a function from a"), ("empty", "returns tuple, not a p2p_jax.Objective")):
        with pytest.raises(InputError, match=f"config.objective=own_things:{name} {message}"):
            make_objective(small_config(objective=f"own_things:{name}"))
    with pytest.raises(InputError, match="config.loss.gan=own_things:touch is not a p2p_jax.losses.GanLoss"):
        losses.find("own_things:touch")
    with pytest.raises(InputError, match="config.data.source=own_things:value is not a function from config.data"):
        make_source(small_config(data__source="own_things:value").data, "train")
    with pytest.raises(InputError, match="config.task.input names 3, which is not a function"):
        tasks.bind(resolve("own_things:value"), {})


def test_a_comparison_makes_nothing(folder):
    config = complete_experiment(small_config())
    for sections, _ in WAYS.values():
        old = config.to_dict()
        for name, value in sections.items():
            old[name] = old[name] | value if isinstance(value, dict) else value
        if "metrics" not in sections:
            assert completed_like(old, config)
    old = config.to_dict()
    del old["generator"]["dropout_rate"], old["loss"]["conditional"]
    assert completed_like(old, config) == config  # what the library has learnt since then
    old["generator"]["network"] = "evil_here:make"
    assert "dropout_rate" not in completed_like(old, config).generator


VARIANT = """
import p2p_jax
import variant_helper


def make(config):
    base = p2p_jax.pix2pix(config)
    return base._replace(translate=lambda *given: variant_helper.turned(base.translate(*given)))
"""
HELPER = "def turned(found):\n    return {name: -image for name, image in found.items()}\n"


@pytest.fixture
def variant(tmp_path, monkeypatch):
    """A folder with an objective of one's own in two modules, and a run of it, with checkpoints at steps 1 and 2."""
    monkeypatch.chdir(tmp_path)
    Path("own_variant.py").write_text(VARIANT)
    Path("variant_helper.py").write_text(HELPER)
    config = small_config(objective="own_variant:make", generator=TINY, num_steps=1, discriminator__norm="instance")
    train(config, "run", data=memory_data(config))
    yield config
    forget()


def forget():
    """Let Python find modules anew."""
    for name in ("own_variant", "variant_helper"):
        sys.modules.pop(name, None)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, own_code._StoredCode)]


TRUST = ("own_variant:make", TINY["network"])


@pytest.mark.slow
def test_the_source_of_ones_own_code_is_stored_and_used_elsewhere(variant, tmp_path, monkeypatch):
    record = json.loads(Path("run/code.json").read_text())
    assert record["references"] == {"objective": ["own_variant:make"], "generator.network": [TINY["network"]]}
    assert {"own_variant", "variant_helper", "support", "support.networks"} <= record["modules"].keys()
    assert Path("run/code/own_variant.py").read_text() == VARIANT
    assert record["modules"]["variant_helper"]["sha256"] == hashlib.sha256(HELPER.encode()).hexdigest()
    assert not any(name.startswith(("p2p_jax", "jax", "flax", "numpy")) for name in record["modules"])

    image = np.random.RandomState(0).randint(0, 256, (16, 16, 3), np.uint8)
    with pytest.raises(InputError, match="config.objective names own_variant:make"):
        Translator.from_workdir("run")
    expected = Translator.from_workdir("run", trust=TRUST)(image)
    plain = Translator.from_workdir("run", trust=TRUST, objective=pix2pix(read_config(Path("run"), TRUST)))(image)
    assert np.abs(plain.astype(int) + expected - 255).max() <= 1  # the variant turns its images over

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree("run", elsewhere / "run")
    monkeypatch.chdir(elsewhere)
    forget()
    with pytest.raises(InputError, match="config.objective names own_variant:make"):
        Translator.from_workdir("run")
    assert "own_variant" not in sys.modules
    with pytest.warns(
        UserWarning, match=r"loaded from the copy stored with the run: own_variant from run/code/own_variant.py, v"
    ):
        found = Translator.from_workdir("run", trust=TRUST)(image)
    np.testing.assert_array_equal(found, expected)
    assert Path(sys.modules["variant_helper"].__file__) == elsewhere / "run" / "code" / "variant_helper.py"
    assert not list(Path("run/code").rglob("*.pyc"))

    # A training goes on there with the stored source, which stays what it was.
    before = Path("run/code.json").read_text()
    forget()
    with pytest.warns(UserWarning, match="loaded from the copy stored with the run: own_variant"):
        read_config(Path("run"), TRUST)
    train(small_config(**variant.to_dict() | {"num_steps": 2}), "run", data=memory_data(variant))
    assert Path("run/code.json").read_text() == before and Path("run/checkpoints/2").is_dir()


@pytest.mark.slow
def test_changed_and_damaged_code_is_said(variant, tmp_path, monkeypatch):
    then = hashlib.sha256(HELPER.encode()).hexdigest()[:12]
    changed = HELPER.replace("-image", "image")
    Path("variant_helper.py").write_text(changed)
    forget()
    now = hashlib.sha256(changed.encode()).hexdigest()[:12]
    with pytest.warns(UserWarning, match=f"module variant_helper that run was trained with .*{now}, then {then}"):
        Translator.from_workdir("run", trust=TRUST)
    more = small_config(**variant.to_dict() | {"num_steps": 2})
    with pytest.warns(UserWarning, match=f"{now}, then {then}"):
        train(more, "run", data=memory_data(more))
    assert Path("run/code/variant_helper.py").read_text() == changed  # and what the first step had is kept
    assert Path(f"run/code/earlier/{then}/variant_helper.py").read_text() == HELPER

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree("run", elsewhere / "run")
    monkeypatch.chdir(elsewhere)
    forget()
    with open("run/code/own_variant.py", "a") as file:
        file.write("# changed\n")
    with pytest.raises(InputError, match="run/code/own_variant.py has changed since the run stored it"):
        Translator.from_workdir("run", trust=TRUST)
    Path("run/code/own_variant.py").unlink()
    with (
        pytest.warns(
            UserWarning, match=r"module own_variant was not found, and its stored source run/code/own_variant.py is mis"
        ),
        pytest.raises(InputError, match="there is no module 'own_variant'"),
    ):
        Translator.from_workdir("run", trust=TRUST)
    Path("run/code.json").write_text('{"modules": {"../x": {}}}')
    with pytest.raises(InputError, match="run/code.json is damaged"):
        Translator.from_workdir("run", trust=TRUST)


@pytest.mark.slow
def test_a_training_goes_on_and_others_start_from_it(variant, tmp_path, capsys):
    """The caller's own config names the same code; where only the stored one does, --trust does."""
    arguments = (resume_command, "run", "--config.num_steps=2")
    assert run_command(*arguments) == (
        "error: run/config.json: config.objective names own_variant:make, config.generator.network names "
        "support.networks:Tiny: code outside the library, which opening the run would execute. Nothing was executed. "
        "If you know and trust it, add --trust own_variant:make --trust support.networks:Tiny"
    )
    more = small_config(**variant.to_dict() | {"num_steps": 2})
    assert int(train(more, "run", data=memory_data(more))["step"]) == 2
    capsys.readouterr()
    started = small_config(**variant.to_dict() | {"init_from": "run"})
    train(started, "started", data=memory_data(started))
    assert "init_from run, step 2: generator: " in capsys.readouterr().out

    other = small_config(generator=TINY, init_from="run", num_steps=1)
    train(other, "other", data=memory_data(other))  # whose objective is not needed for its weights
    expected = "note: run/checkpoints/2/config/metadata: config.objective names own_variant:make, which is not needed"
    assert expected in capsys.readouterr().out
    other = small_config(init_from="run", num_steps=1)
    message = "run/checkpoints/2/config/metadata: config.generator.network names support.networks:Tiny"
    with pytest.raises(InputError, match=message):
        train(other, "another", data=memory_data(other))
    assert not Path("another/config.json").exists()
    capsys.readouterr()
    assert run_command(resume_command, "started", *(f"--trust={name}" for name in TRUST)) == 0
    assert "started: already at step 1," in capsys.readouterr().out


# Places.


@pytest.mark.parametrize("split", ["/tmp/x", "../x", "a/../../x", "..", ".", "~x", "a\\b", "C:x", "x\0", "a//b", "x\n"])
@pytest.mark.parametrize("name", ["train_split", "val_split"])
def test_a_split_is_a_name(folder, name, split):
    change_run({"data": {name: split}})
    for function in (lambda: evaluate("run", data_dir="photos"), lambda: from_runs(["run"])):
        with pytest.raises(InputError, match=f"run/config.json cannot be read .config.data.{name} is ") as caught:
            function()
        assert repr(split) in str(caught.value)
    assert str(run_command(evaluate_command, "run")).startswith("error: run/config.json")


def test_a_split_of_several_names_makes_one_folder_of_results(folder):
    assert small_config(data__val_split="more/val").data.val_split == "more/val"
    change_run({"data": {"val_split": "more/val"}})
    error = run_command(evaluate_command, "run", "--data_dir", "photos")
    assert "no toy_facades" not in str(error) and "more/val" in str(error)
    error = run_command(evaluate_command, "run", "--split", "../../x")
    assert "'../../x'" in error and not (folder.parent / "x").exists()
    shutil.rmtree(folder / "run" / "evaluation", ignore_errors=True)
    (folder / "run" / "evaluation").symlink_to(folder / "photos")
    assert "evaluation/val_1 is a link to a place outside run" in run_command(evaluate_command, "run", "--split", "val")
    assert [path.name for path in (folder / "photos").iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    "place", ["/data/{split}", "../{split}", "~/{split}", "x/../../{split}", "C:/x", "\\\\host\\x"]
)
def test_a_given_folder_is_not_left(folder, place):
    change_run({"data": {"source": "folders", "dir_a": "{split}/A", "dir_b": place}})
    for function in (
        lambda: evaluate("run", data_dir="photos", split="val"),
        lambda: from_runs(["run"], data_dir="photos"),
    ):
        with pytest.raises(InputError, match="run/config.json: config.data.dir_b is .* is outside data_dir=photos"):
            function()
    error = run_command(segmenter_command, "--workdir", "run", "--output", "out", "--data_dir", "photos")
    assert "is outside --data_dir photos" in error


@pytest.mark.slow
def test_places_that_a_run_names_are_told(folder, capsys):
    images = folder / "elsewhere"
    images.mkdir()
    change_run({"data": {"source": "side_by_side", "dir": str(images)}})
    expected = f"reading what run/config.json names: {images} (config.data.dir)"
    for arguments in (COMMANDS["evaluate"], COMMANDS["study"], COMMANDS["segmenter"], COMMANDS["resume"]):
        assert f"there is no folder {images}" in run_command(*arguments)
        assert expected in capsys.readouterr().out.splitlines()
    run_command(*COMMANDS["evaluate"], "--data_dir", "photos")
    assert "reading what" not in capsys.readouterr().out


def test_a_run_with_a_checkpoint_starts_from_no_other(folder):
    shutil.move("run/checkpoints/1", "run/checkpoints/0")
    Path("run/checkpoints/0/digests.json").unlink()  # which says that it is another step's
    for file in (Path("run/config.json"), Path("run/checkpoints/0/config/metadata")):
        change(file, {"init_from": "/no/such/run", "data": {"source": "folders", "dir": "/no/such/images"}})
    with pytest.raises(InputError, match="there is no folder /no/such/images"):  # where the source would be known
        train(read_config(Path("run")), "run")


# Modules of the current folder.


def test_commands_that_open_runs_say_so():
    for name, verb in VERBS.items():
        parser = __import__(verb.module, fromlist=["parser"]).parser()
        assert parser._opens_run == verb.opens_run, name
    opening = {name for name, verb in VERBS.items() if verb.opens_run}
    writing = {"export", "pack", "push", "demo"}
    assert opening == writing | {"train", "compare", "resume", "translate", "evaluate", "study", "segmenter", "runs"}


@pytest.mark.slow
def test_modules_of_the_current_folder_are_not_found_for_a_run(folder):
    shadowed = ("optax", "flax", "jax", "numpy", "ml_collections", "orbax", "difflib", "tensorboardX", "not_installed")
    for name in shadowed:
        (folder / f"{name}.py").write_text(EVIL.format(mark=folder / "MARK"))
    arguments = ["run", "photos", "--output", "out", "--format", "npy"]
    environment = os.environ | {"PYTHONPATH": str(Path(p2p_jax.__file__).parents[1])}
    command = [sys.executable, "-m", "p2p_jax", "translate", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0 and "translated 1 of 1" in result.stdout, result.stderr


OWN = """
import numpy as np
import optax
from p2p_jax.nets import PatchGAN
from p2p_jax.data.stream.sources import from_arrays
from p2p_jax.objectives.losses import GAN_LOSSES
from p2p_jax.objectives.metrics import Metric

slow_sgd = lambda learning_rate, pace=0.5: optax.sgd(learning_rate)
softly = GAN_LOSSES["lsgan"]
darkness = Metric("darkness", "Dark", "How dark.", True, lambda output, target: 1 - output.mean((1, 2, 3)))


class Judge(PatchGAN):
    pass


def draw(data, split):
    images = np.random.RandomState(0).randint(0, 256, (3, 16, 16, 3), np.uint8)
    return from_arrays(images, 255 - images)


def darker(image, rng, factor=2):
    return image // factor
"""


@pytest.mark.slow
def test_every_kind_of_code_of_ones_own_is_used_when_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own_parts.py").write_text(OWN)
    names = [f"own_parts:{name}" for name in ("slow_sgd", "softly", "darkness", "Judge", "draw", "darker")]
    sections = {
        "optimizer": {"factory": names[0], "learning_rate": 0.1, "pace": 0.2},
        "loss": {"gan": names[1]},
        "metrics": f"l1,{names[2]}",
        "discriminator": {"network": names[3], "receptive_field": 1, "base_width": 2},
        "data__source": names[4],
        "data__direction": "AtoB",
        "task": {"input": names[5], "factor": 3},
    }
    config = complete_experiment(small_config(**sections))
    write_run(Path("run"), config, draw_state(blank_state(make_objective(config), config)), step=1)
    for name in names:
        others = [other for other in names if other != name]
        with pytest.raises(InputError) as caught:
            evaluate("run", trust=others)
        assert str(caught.value).count("names own_parts") == 1 and str(caught.value).endswith(f'add trust=["{name}"]')
    found = evaluate("run", trust=names, metrics=[])
    assert set(found["metrics"]) == {"l1", "darkness"} and found["num_images"] == 3
    (Path("photos")).mkdir()
    np.save("photos/a.npy", np.full((16, 16, 3), 90, np.uint8))
    arguments = ("run", "photos", "--output", "out", "--format", "npy", *(f"--trust={name}" for name in names))
    assert run_command(translate_command, *arguments) == 0
    expected = Translator.from_workdir("run", trust=names)(np.full((16, 16, 3), 30, np.uint8))
    np.testing.assert_array_equal(np.load("out/a.npy"), expected)
    sys.modules.pop("own_parts")


@pytest.mark.slow
def test_every_command_takes_trust(folder):
    """What nobody looks up is never imported either: only the word for it is asked for."""
    places = {"source": "folders", "dir": str(folder / "none")}
    change_run({"extra": {"judge": "evil_here:make"}, "data": places})
    own = ABSENT
    for what, (command, *arguments) in COMMANDS.items():
        own_config = own if what == "train" else ()
        if what not in ("train", "start from"):
            assert "--trust evil_here:make" in str(run_command(command, *arguments, *own_config))
        result = run_command(command, *arguments, *own_config, "--trust", "evil_here:make")
        if what in ("translate", "export", "export to PyTorch"):
            assert result == 0 or "need PyTorch" in str(result), what
        elif what == "train":
            assert "holds a run with another config" in result
        else:
            assert "none" in result and "there is no folder" in result, what


def test_an_objective_that_is_given_has_its_source_stored_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("given_variant.py").write_text("def update(state, batch, rng): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = small_config()
    own_code.store(Path("plain"), config, pix2pix(config))
    assert not Path("plain").exists()
    objective = pix2pix(config)._replace(update=resolve("given_variant:update"))
    own_code.store(Path("run"), config, objective)
    record = json.loads(Path("run/code.json").read_text())
    assert list(record["modules"]) == ["given_variant"] and record["references"] == {}
    own_code.compare(Path("run"))
    Path("given_variant.py").write_text("def update(state, batch, rng): return 1\n")
    with pytest.warns(UserWarning, match="given_variant.py is not the module given_variant that run was trained with"):
        own_code.compare(Path("run"))
    sys.modules.pop("given_variant")


@pytest.mark.slow
def test_of_installed_packages_the_version_is_kept(tmp_path):
    config = small_config(extra={"judge": "PIL.Image:open", "other": "math:sin"})
    own_code.store(tmp_path, config)
    record = json.loads((tmp_path / "code.json").read_text())
    assert record["modules"]["PIL.Image"]["package"].lower() == "pillow" and not (tmp_path / "code").exists()
    own_code.offer(tmp_path, stored.outside(config))
    (tmp_path / "code.json").write_text(json.dumps(record).replace(record["modules"]["PIL.Image"]["version"], "1.0"))
    with pytest.warns(UserWarning, match=r"trained with [Pp]illow 1.0 \(module PIL.Image\); here it is"):
        own_code.offer(tmp_path, stored.outside(config))


@pytest.mark.parametrize("name", ["samples", "tensorboard", "code"])
def test_a_training_writes_through_no_link_of_a_run(folder, name):
    (folder / "victim").mkdir()
    shutil.rmtree(folder / "run" / name, ignore_errors=True)
    (folder / "run" / name).symlink_to(folder / "victim")
    with pytest.raises(InputError, match=f"run/{name} is a link that leads out of run: remove the link"):
        train(small_config(), "run", data=memory_data(small_config()))
    assert list((folder / "victim").iterdir()) == []
