"""The command line: finding configs, overrides, the default workdir, and errors without a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({SMALL | {'num_steps': 1, 'seed': 0}!r})\n"
    )
    return tmp_path


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "p2p_jax.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_trains_with_overrides_into_the_default_workdir(folder):
    result = run(folder, "--config", "tiny.py", "--config.seed=3", "--config.data.load_size=20")
    assert result.returncode == 0, result.stderr[-2000:]
    stored = json.loads((folder / "runs" / "tiny" / "config.json").read_text())
    assert (stored["seed"], stored["data"]["load_size"], stored["data"]["crop_size"]) == (3, 20, 16)
    assert "Finished: 1 steps" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config", "nowhere.py"],
            "error: no config file nowhere.py; the ones that come with p2p_jax are apple2orange",
        ),
        (["--config=tiny.py", "--config.sed=3"], 'no option \'sed\'. Did you mean "seed" instead of "sed"?'),
        (
            ["--config", "tiny", "--config.data.direction=up"],
            "error: config.data.direction is 'up'; choose AtoB or BtoA",
        ),
        (
            ["--config=tiny.py", "--config.data.load_sise=x"],
            'no option \'load_sise\'. Did you mean "load_size" instead of "load_sise"?',
        ),
        (["--config=tiny.py", "--config.seed=many"], "error: flag --config.seed=many: "),
        (["--config=tiny.py", "--wrkdir=x"], "error: Unknown command line flag 'wrkdir'"),
        ([], "the following arguments are required: --config"),
        (["--config", "tiny", "extra"], "unknown argument extra"),
    ],
)
def test_errors_are_one_line(folder, arguments, message):
    result = run(folder, *arguments)
    assert result.returncode != 0
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert not (folder / "runs").exists()
