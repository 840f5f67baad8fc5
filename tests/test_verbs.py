"""The one door of the command line: verbs, help, version, and nothing heavy before it is needed."""

import importlib
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import p2p_jax
from p2p_jax import __main__ as door
from p2p_jax import __version__
from p2p_jax.commands import resume
from p2p_jax.commands.command import Parser
from p2p_jax.config.modules import locate
from support.processes import run_python
from support.runs import rows_of, run_command


def test_help_names_every_verb(capsys):
    for arguments in ([], ["--help"]):
        door.run(arguments)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if line.startswith("  ")] == list(door.VERBS)


def test_every_verb_has_its_command(capsys):
    for name, verb in door.VERBS.items():
        with pytest.raises(SystemExit) as ended:
            door.run([name, "--help"])
        assert not ended.value.code
        assert "usage: python -m p2p_jax" in capsys.readouterr().out
        assert callable(importlib.import_module(verb.module).run)


def test_an_unknown_verb_is_an_error():
    assert run_command(door, "trian") == (
        f"error: trian is not a verb; did you mean train? There are {', '.join(door.VERBS)}"
    )


def test_training_help_lists_every_option(capsys):
    from p2p_jax.config.options import OPTIONS

    with pytest.raises(SystemExit):
        door.run(["train", "--help"])
    printed = capsys.readouterr().out
    for option in OPTIONS:
        mark = "*" if option.may_change else " "
        assert f"{mark} {option.name}  ({option.wanted}; {option.default!r})" in printed


def test_a_config_is_shown_whole(capsys):
    door.run(["config", "quickstart", "--config.loss.lambda_l1=10"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "  objective = 'p2p_jax:pix2pix'"
    assert "* loss.lambda_l1 = 10.0    (published: 100.0)" in printed
    assert "  generator.dropout_rate = 0.5" in printed
    assert len([line for line in printed if line.startswith("*")]) == 17
    assert (
        run_command(door, "config", "quickstart", "--config.generator.num_downs=99")
        == "error: config.generator.num_downs is 99; it must be a whole number in [2, 16]"
    )


@pytest.mark.slow
def test_a_training_goes_on_from_its_directory_alone(pix2pix_run, tmp_path, capsys):
    run = shutil.copytree(pix2pix_run, tmp_path / "run")
    door.run(["resume", str(run), "--config.num_steps=5"])
    assert "found a checkpoint of step 4" in (printed := capsys.readouterr().out) and "step 5/5" in printed
    assert rows_of(run)[-1]["step"] == "5"
    assert "config.seed: stored 0, now 3" in run_command(door, "resume", run, "--config.seed=3")
    assert run_command(door, "resume", tmp_path).startswith(
        f"error: {tmp_path} cannot be resumed: it has no checkpoint"
    )


def test_arguments_stand_by_place_or_by_name(capsys):
    from p2p_jax.commands import convert, train, translate

    by_place = translate.parser().read(["runs/x", "--tile", "64", "photos", "--output", "out"])
    by_name = translate.parser().read(["--output", "out", "--input", "photos", "--workdir", "runs/x", "--tile", "64"])
    assert vars(by_place) == vars(by_name) and (by_name.workdir, by_name.input) == ("runs/x", "photos")
    found = train.parser().read(["facades", "--config.num_steps", "5", "--workdir", "x", "--config.data.flip=False"])
    assert (found.config, found.overrides) == ("facades", ["--config.num_steps", "5", "--config.data.flip=False"])
    assert convert.parser().read(["a.pth", "b.pth", "--workdir", "x"]).input == ["a.pth", "b.pth"]
    assert convert.parser().read(["--workdir", "x", "--input", "a.pth", "b.pth"]).input == ["a.pth", "b.pth"]
    for verb, arguments, message in [
        ("translate", ["--output", "x"], "workdir is missing: write it after the verb, or as --workdir"),
        ("evaluate", ["run", "--workdir", "other"], "workdir is given twice, as run and as --workdir other"),
        ("translate", ["run", "photos", "--output", "x", "--config.a=1"], "unrecognized arguments: --config.a=1"),
        ("inspect", ["facades", "--config.data.dir=my", "horses"], "horses; put names with blanks in quotes"),
    ]:
        with pytest.raises(SystemExit) as ended:
            door.run([verb, *arguments])
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_errors_name_flags_in_commands_and_arguments_in_the_library():
    from p2p_jax.commands import translate

    parser = translate.parser()
    told = parser.with_flags("tile=16 is too small for config.data.size=64 and x=3; `norm` and `x` stay, or size=WxH")
    placed = translate.parser()
    placed.read(["runs/x", "photos", "--output", "y"])
    assert placed.with_flags("workdir=runs/x holds no run; `input` is lost") == "runs/x holds no run; INPUT is lost"
    named = translate.parser()
    named.read(["runs/x", "--input", "photos", "--output", "y"])
    assert named.with_flags("workdir=runs/x and input=photos") == "runs/x and --input photos"
    assert told == "--tile 16 is too small for config.data.size=64 and x=3; --norm and `x` stay, or --size WxH"


def test_a_list_of_names_becomes_a_flag_each():
    from p2p_jax.commands import translate

    parser = translate.parser()
    message = 'if you trust it, add trust=["lab.losses:gdl", "lab.losses:charbonnier"] to it'
    assert parser.with_flags(message) == (
        "if you trust it, add --trust lab.losses:gdl --trust lab.losses:charbonnier to it"
    )
    assert parser.with_flags('choose others=["a:b"]') == 'choose others=["a:b"]'


@pytest.mark.filterwarnings("default")
def test_a_command_prints_the_same_warning_once(capsys):
    parser = Parser("translate", "", computes=False)

    def work(args):
        for level in (1, 2):  # of other places, so Python itself would show both
            warnings.warn("the code has changed (SHA-256 1, then 2)", stacklevel=level)
        warnings.warn("the images have changed", stacklevel=1)

    parser.do(work, [])
    assert capsys.readouterr().err == (
        "warning: the code has changed (SHA-256 1, then 2)\nwarning: the images have changed\n"
    )


def test_resuming_a_run_that_is_not_there_asks_for_its_directory(tmp_path):
    place = tmp_path / "nothere"
    assert (
        run_command(resume, place) == f"error: there is no run {place}; give the directory of a run, such as runs/mine"
    )


def test_what_the_library_says_names_flags_in_commands(capsys):
    from p2p_jax.commands import translate
    from p2p_jax.reporting import say

    translate.parser().do(lambda args: say("size=training helps"), ["run", "photos", "--output", "x"])
    say("size=training helps")
    assert capsys.readouterr().out == "--size training helps\nsize=training helps\n"


def test_the_library_names_arguments_and_no_flags():
    package = Path(p2p_jax.__file__).parent
    others = {"torch_release.py", "tensorflow_release.py"}  # flags of those programs
    found = [
        line
        for path in package.rglob("*.py")
        if path.parent.name != "commands" and path.name not in others and path.parent != package
        for line in path.read_text().splitlines()
        if re.search(r"(?<![\w-])--(?!config\b)[a-z_]{2,}", line)
        and not re.search("python -m p2p_jax|wget|leftImg|zip -s", line)
    ]
    assert found == []


def test_a_command_finds_modules_in_the_folder_that_it_runs_in(tmp_path, monkeypatch):
    """One that runs later, in a notebook say, does not find those of the folder before."""
    before, found = list(sys.path), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module_of_the_folder.py").touch()
        monkeypatch.chdir(tmp_path / name)
        Parser("verb", "", computes=False).do(lambda _: found.append(locate("module_of_the_folder")), [])
        assert sys.path == before
    assert found == [tmp_path / name / "module_of_the_folder.py" for name in ("first", "second")]


@pytest.mark.slow
def test_training_leaves_the_process_as_it_was(tmp_path):
    code = """
        import sys, jax
        before = list(sys.path), jax.config.jax_compilation_cache_dir
        import p2p_jax
        from p2p_jax.process import freed_memory
        freed_memory.keep_freed_memory = lambda: print("malloc")
        config = p2p_jax.published.pix2pix()
        config.update({"objective": "mine:make", "num_steps": 1})
        open("mine.py", "w").write("import p2p_jax\\ndef make(config): return p2p_jax.pix2pix(config)\\n")
        p2p_jax.config.complete_experiment(config)
        try: p2p_jax.train({**config.to_dict(), "data": {"source": "side_by_side", "dir": "nowhere"}}, "run")
        except p2p_jax.InputError as error: print("refused")
        print((list(sys.path), jax.config.jax_compilation_cache_dir) == before)
        p2p_jax.prepare_process()
    """
    assert run_python(code, folder=tmp_path).splitlines() == ["refused", "True", "malloc"]


@pytest.mark.slow
def test_the_door_loads_nothing_heavy():
    code = """
        import sys
        from p2p_jax import __main__
        __main__.run(["--version"])
        import p2p_jax
        print([name for name in ("jax", "flax", "numpy", "tensorflow") if name in sys.modules])
        print(p2p_jax.pix2pix.__name__, p2p_jax.data.load.__name__, hasattr(p2p_jax, "nothing"))
    """
    assert run_python(code).splitlines() == [f"p2p_jax {__version__}", "[]", "pix2pix load False"]


def test_every_public_name_loads():
    assert set(p2p_jax.__all__) == set(p2p_jax._PLACES)
    for name in p2p_jax.__all__:
        assert getattr(p2p_jax, name) is not None


@pytest.mark.slow
def test_no_other_module_of_ours_trains_or_does_nothing():
    result = subprocess.run([sys.executable, "-m", "p2p_jax.train"], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "No module named p2p_jax.train" in result.stderr
