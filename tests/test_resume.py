"""Going on with a run from its directory: from any folder, by either verb, and with code of one's own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_jax import __main__ as door
from p2p_jax import train
from p2p_jax.config import complete, load, to_json
from p2p_jax.data.elsewhere import STARTED_IN, as_started, remember_start
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from p2p_jax.inference.run import open_run
from support.comparers import assert_equal_trees
from support.configs import small_config
from support.images import write_pairs
from support.processes import environment
from support.runs import rows_of, run_command


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A run that was started in a folder with its images, which its config names from there on; read it only."""
    folder = tmp_path_factory.mktemp("started")
    write_pairs(folder / "pairs" / "train", 5)
    write_pairs(folder / "pairs" / "val", 3, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(_config(), "run")
    return folder


PAIRS = {"data__source": "side_by_side", "data__dir": "pairs"}


def _config(**changes):
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    return small_config(**(PAIRS | linear | changes))


@pytest.fixture
def elsewhere(started, tmp_path, monkeypatch):
    """Copies of the run in another folder than the current one."""
    for name in ("one", "other", "third"):
        shutil.copytree(started / "run", tmp_path / "runs" / name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "runs"


def weights_of(run):
    opened = open_run(run)
    return opened.restore(opened.objective.evaluate)[0]


@pytest.mark.slow
def test_both_verbs_go_on_from_any_folder_with_nothing_retyped(started, elsewhere, monkeypatch, capsys):
    door.run(["resume", "../runs/one", "--config.num_steps=6"])
    images = started / "pairs"
    told = capsys.readouterr().out
    assert f"reading what ../runs/one/config.json names: {images} (config.data.dir)" in told
    assert f"config.data.dir is now {str(images)!r} (it was 'pairs')" in told and "found a checkpoint of step 4" in told
    door.run(["train", "--config", "../runs/other/config.json", "--config.num_steps=6"])
    door.run(["train", "../runs/third/config.json", "--workdir", "../runs/third", "--config.num_steps=6"])
    assert list(Path().iterdir()) == []  # no run of that name was begun here
    one, *others = (elsewhere / name for name in ("one", "other", "third"))
    for other in others:
        assert rows_of(other)[-1]["step"] == "6"
        assert_equal_trees(weights_of(other), weights_of(one))
        assert (other / "config.json").read_text() == (one / "config.json").read_text()
    with pytest.raises(AssertionError):
        assert_equal_trees(weights_of(one), weights_of(started / "run"))
    monkeypatch.chdir(started)
    shutil.copytree(elsewhere / "one", "again")
    door.run(["resume", "again", "--config.num_steps=8"])  # the folder is found by its whole path now
    assert rows_of(Path("again"))[-1]["step"] == "8"


@pytest.mark.slow
def test_another_directory_starts_another_run_of_the_same_config(elsewhere, capsys):
    door.run(["train", "../runs/one/config.json", "--workdir", "new", "--config.num_steps=2"])
    assert "found a checkpoint" not in capsys.readouterr().out
    assert rows_of(Path("new"))[-1]["step"] == "2" and rows_of(elsewhere / "one")[-1]["step"] == "4"
    shutil.copy("../runs/one/config.json", "mine.json")
    shutil.copy("../runs/one/" + STARTED_IN, STARTED_IN)
    door.run(["train", "mine.json", "--config.num_steps=2"])
    assert rows_of(Path("runs/mine"))[-1]["step"] == "2"


@pytest.mark.slow
def test_evaluation_finds_the_images_of_a_run_from_any_folder(started, elsewhere):
    found = evaluate(elsewhere / "one", metrics=[])
    assert found["num_images"] == 3
    value = float(rows_of(started / "run")[-1]["eval/l1"])
    assert found["metrics"]["l1"]["mean"] == pytest.approx(value, rel=1e-4)


def test_where_a_run_was_started_counts_only_for_what_is_not_here(tmp_path, monkeypatch):
    (tmp_path / "start" / "pairs").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    remember_start(tmp_path, _config())
    assert json.loads((tmp_path / STARTED_IN).read_text()) == {"folder": str(tmp_path / "start")}
    monkeypatch.chdir(tmp_path / "here")
    assert as_started(_config(), tmp_path).data.dir == str(tmp_path / "start" / "pairs")
    two = _config(data__source="folders", data__dir="", data__dir_a="a", data__dir_b="b")
    assert as_started(two, tmp_path).data.dir == str(tmp_path / "start")
    (tmp_path / "here" / "pairs").mkdir()
    assert as_started(_config(), tmp_path).data.dir == "pairs"
    gone = complete(_config().to_dict() | {"data": _config().data.to_dict() | {"dir": "gone"}})
    assert as_started(gone, tmp_path) == gone
    for damaged in ("{", "[]", '{"folder": 3}', '{"folder": {}}'):
        (tmp_path / STARTED_IN).write_text(damaged)
        assert as_started(gone, tmp_path) == gone


def test_a_run_of_whole_paths_keeps_no_folder(tmp_path):
    remember_start(tmp_path, _config(data__dir=str(tmp_path)))
    remember_start(tmp_path, small_config())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file x.json; give the path of a stored config"),
        ("{", r"x.json cannot be read as a config"),
        ("[]", "x.json is not a config"),
        ('{"no_option": 1}', "x.json: .*no_option"),
        ('{"objective": "os:system"}', "x.json: config.objective names os:system: code outside the library"),
    ],
)
def test_a_json_that_is_no_config_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load("x.json")


def test_a_json_is_read_as_it_was_written(tmp_path):
    (tmp_path / "x.json").write_text(to_json(small_config(seed=7)))
    assert load(str(tmp_path / "x.json")) == small_config(seed=7)


def test_a_run_without_a_checkpoint_begins_by_its_stored_config(tmp_path, monkeypatch, capsys):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text(to_json(small_config(data__source="folders", data__dir="nowhere")))
    (begun / "facts.json").write_text("{}")
    expected = f"error: {begun} cannot be resumed: it has no checkpoint; name another run"
    assert run_command(door, "resume", begun) == expected
    assert "there is no folder nowhere" in run_command(door, "train", begun / "config.json")
    assert f"reading what {begun / 'config.json'} names: nowhere" in capsys.readouterr().out


OWN = """
import jax.numpy as jnp
import p2p_jax

def make(config):
    return p2p_jax.pix2pix(config)
"""


@pytest.mark.slow
def test_own_code_goes_on_from_any_folder_for_who_trusts_it(tmp_path):
    """Each start is a process of its own, which knows no module of another."""
    start, other = tmp_path / "start", tmp_path / "other"
    write_pairs(start / "pairs" / "train", 5)
    write_pairs(start / "pairs" / "val", 3, seed=1)
    other.mkdir()
    (start / "my_objective.py").write_text(OWN)
    small = small_config(**PAIRS).to_dict() | {"objective": "my_objective:make"}
    text = f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({small!r})\n"
    (start / "mine.py").write_text(text)

    def run(folder, *arguments):
        command = [sys.executable, "-m", "p2p_jax", *arguments]
        result = subprocess.run(
            command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        return result.returncode, result.stdout + result.stderr

    status, told = run(start, "train", "mine.py", "--workdir", "run", "--config.num_steps=2")
    assert status == 0, told
    for verb in (["resume", "../start/run"], ["train", "../start/run/config.json"]):
        status, told = run(other, *verb)
        assert status == 1 and "add --trust my_objective:make" in told
    status, told = run(other, "resume", "../start/run", "--trust", "my_objective:make", "--config.num_steps=3")
    assert status == 0 and "loaded from the copy stored with the run: my_objective from" in told
    status, told = run(
        other, "train", "../start/run/config.json", "--trust", "my_objective:make", "--config.num_steps=4"
    )
    assert status == 0 and rows_of(start / "run")[-1]["step"] == "4"
    status, told = run(start, "resume", "run", "--trust", "my_objective:make", "--config.num_steps=5")
    assert status == 0 and "loaded from the copy" not in told


def test_the_current_folder_is_not_searched_for_a_stored_config(tmp_path, monkeypatch):
    from p2p_jax.commands import command, train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    own = {
        ("facades",): True,
        ("mine.py",): True,
        ("run/config.json",): False,
        ("run",): False,
        ("run/config.json", "--trust", "my_losses:hinge"): True,
        ("run/config.json", "--config.loss.gan=my_losses:hinge"): True,
    }
    assert {given: command._names_own_code(train.parser().read(given)) for given in own} == own
