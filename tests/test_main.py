"""The command line: finding configs, overrides, the default workdir, and errors without a traceback."""

import json
import sys

import pytest

from p2p_jax import main
from support.configs import SMALL
from support.processes import run
from support.runs import run_command


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({SMALL | {'num_steps': 1, 'seed': 0}!r})\n"
    )
    return tmp_path


@pytest.mark.slow
def test_trains_with_overrides_into_the_default_workdir(folder):
    command = [sys.executable, "-m", "p2p_jax.main", "--config", "tiny.py", "--config.seed=3"]
    result = run([*command, "--config.data.load_size=20"], folder)
    assert result.returncode == 0, result.stderr[-2000:]
    stored = json.loads((folder / "runs" / "tiny" / "config.json").read_text())
    assert (stored["seed"], stored["data"]["load_size"], stored["data"]["crop_size"]) == (3, 20, 16)
    assert "Finished: 1 steps" in result.stdout


@pytest.mark.slow
def test_an_error_is_one_line_without_a_traceback(folder):
    result = run([sys.executable, "-m", "p2p_jax.main", "--config", "tiny.py", "--config.sed=3"], folder)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config", "nowhere.py"],
            "error: no config file nowhere.py; p2p_jax has apple2orange",
        ),
        (["--config=tiny.py", "--config.sed=3"], "no option config.sed; did you mean config.seed?"),
        (
            ["--config", "tiny", "--config.data.direction=up"],
            "error: config.data.direction is 'up'; choose AtoB or BtoA",
        ),
        (
            ["--config=tiny.py", "--config.data.load_sise=x"],
            "no option config.data.load_sise; did you mean config.data.load_size?",
        ),
        (["--config=tiny.py", "--config.data.folder=x"], "no option config.data.folder; did you mean config.data.dir?"),
        (["--config=tiny.py", "--config.steps=3"], "no option config.steps; did you mean config.num_steps?"),
        (["--config=tiny.py", "--config.seed=many"], "error: flag --config.seed=many: "),
        (["--config=tiny.py", "--wrkdir=x"], "unrecognized arguments: --wrkdir=x"),
        ([], "config is missing: write it after the verb, or as --config"),
        (
            ["--config", "tiny", "extra"],
            "config is given twice, as extra and as --config tiny; put names with blanks in quotes",
        ),
    ],
)
def test_errors_say_what_is_wrong(folder, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    status = run_command(main, *arguments)
    printed = capsys.readouterr()
    assert message in f"{status}{printed.err}{printed.out}" and status != 0
    assert not (folder / "runs").exists()
