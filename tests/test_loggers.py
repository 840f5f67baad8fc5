"""Loggers by one protocol: what they are given, what a resume sends, and that none of them can end a training."""

import threading
import time

import numpy as np
import pytest

from p2p_jax import train
from p2p_jax.config import complete
from p2p_jax.config.stored import outside
from p2p_jax.errors import InputError
from p2p_jax.training import loggers
from p2p_jax.training.loggers.outside import Outside
from p2p_jax.training.monitoring import Log
from support.configs import small_config
from support.runs import memory_data, rows_of

OWN = "test_loggers:Own"
GRID = np.zeros((8, 8, 3), np.uint8)


class Own:
    """A logger of a user's."""

    made: list = []
    holds = -1
    fails_at = None

    def __init__(self, run):
        self.run, self.last, self.calls = run, self.holds, []
        Own.made.append(self)

    def row(self, step, row):
        if step == self.fails_at:
            raise ConnectionError("the network is down\nand more of it")
        self.calls.append(("row", step, dict(row)))

    def image(self, name, step, image):
        self.calls.append((name, step, image.shape))

    def flush(self):
        self.calls.append(("flush",))

    def close(self):
        self.calls.append(("close",))


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setattr(Own, "made", [])
    yield Own


def linear_config(**changes):
    return small_config(objective="support.networks:linear", generator=None, discriminator=None, loss=None, **changes)


def run_of(folder, rows=(), step=0):
    rows = {at: {"train/a": str(at / 4)} for at in rows}
    return loggers.Run(folder / "runs" / "mine", linear_config(), ["train/a"], step, rows)


def rows_in(calls):
    return [call[1:] for call in calls if call[0] == "row"]


def as_numbers(rows):
    return [
        (int(row["step"]), {name: float(cell) for name, cell in row.items() if name != "step" and cell}) for row in rows
    ]


def test_a_training_gives_rows_and_grids(tmp_path):
    config = linear_config(loggers=OWN, sample_every=2, checkpoint_every=4)
    train(config, tmp_path, data=memory_data(config))
    (own,) = Own.made
    assert rows_in(own.calls) == as_numbers(rows_of(tmp_path, timed=True)) and len(rows_in(own.calls)) == 4
    assert set(own.run.columns) >= {"train/gen/l2", "eval/l1"} and own.run.config.num_steps == 4 and own.run.step == 0
    at = [call[:2] for call in own.calls]
    assert at.index(("samples", 2)) < at.index(("row", 2)) < at.index(("samples", 4)) < at.index(("row", 4))
    assert own.calls[-2:] == [("flush",), ("close",)]


@pytest.mark.parametrize(
    ("holds", "expected"), [(-1, [2, 4, 6, 8, 10]), (2, [4, 6, 8, 10]), (7, [8, 10]), (4, [6, 8, 10])]
)
def test_each_step_comes_once(holds, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(Own, "holds", holds)
    logger = Outside("own", Own, run_of(tmp_path, rows=(2, 4), step=4))
    for step in (6, 8, 10):
        logger.image("samples", step, GRID)
        logger.row(step, {"train/a": step / 4})
    logger.close()
    (own,) = Own.made
    assert rows_in(own.calls) == [(step, {"train/a": step / 4}) for step in expected]
    assert [call[1] for call in own.calls if call[0] == "samples"] == [step for step in expected if step > 4]
    assert own.calls[-1] == ("close",)


@pytest.mark.slow
def test_what_fails_is_said_once_and_costs_no_row(tmp_path, monkeypatch, capsys):
    config = linear_config(loggers=OWN, num_steps=8)
    monkeypatch.setattr(Own, "fails_at", 3)
    train(config, tmp_path, data=memory_data(config))
    assert [int(row["step"]) for row in rows_of(tmp_path)] == list(range(1, 9))
    told = [line for line in capsys.readouterr().out.splitlines() if "logger" in line]
    assert told == [
        f"warning: the logger {OWN} failed (ConnectionError: the network is down); it is off until the next start. "
        f"Training goes on, and {tmp_path / 'metrics.csv'} holds all rows"
    ]
    assert [call[0] for call in Own.made[0].calls if call[0] in ("row", "close")] == ["row", "row", "close"]


@pytest.mark.parametrize("error", [OSError("no route"), SystemExit(1)])
def test_one_that_cannot_begin_is_off(error, tmp_path, capsys):
    def make(run):
        raise error

    logger = Outside("own", make, run_of(tmp_path))
    logger._thread.join()
    logger.row(1, {"train/a": 1.0})
    logger.close()
    assert capsys.readouterr().out.count("the logger own failed") == 1


def test_one_that_hangs_holds_nothing_up(tmp_path, capsys):
    released = threading.Event()
    started = time.monotonic()
    logger = Outside("own", lambda run: released.wait(), run_of(tmp_path), patience=0.1)
    for step in range(600):
        logger.row(step, {"train/a": 1.0})
    logger.close()
    assert time.monotonic() - started < 10
    assert capsys.readouterr().out.count("the logger own is 500 rows behind; it is off") == 1
    logger = Outside("own", lambda run: released.wait(), run_of(tmp_path), patience=0.1)
    logger.row(1, {"train/a": 1.0})
    logger.close()
    assert "the logger own had not received everything after 0.1 s" in capsys.readouterr().out
    released.set()


def test_only_the_first_process_logs(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    log = Log(tmp_path, ["train/a"], 0, linear_config(loggers=OWN))
    log.metrics(1, {"train/a": 1.0})
    log.settle()
    log.close()
    assert Own.made == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tensorbord", "config.loggers: 'tensorbord' is not a logger; choose from wandb, mlflow, trackio"),
        (f"{OWN}, {OWN}", f"config.loggers names {OWN} twice"),
        (
            "test_loggers:Onw",
            "config.loggers: 'test_loggers:Onw': module test_loggers has no 'Onw'; did you mean 'Own'",
        ),
        ("test_loggers:GRID", "config.loggers: test_loggers:GRID is not a class or a function of one argument"),
    ],
)
def test_wrong_names_are_refused_before_training(names, message, tmp_path):
    config = linear_config(loggers=names)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        train(config, tmp_path, data=memory_data(config))
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_package_is_named_with_its_command(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(InputError, match=rf"config.loggers={name} needs .*: pip install 'p2p_jax\[{name}\]'"):
        loggers.find(f"{OWN},{name}")
    assert loggers.find("") == {}
    assert loggers.find(f" {OWN} ,") == {OWN: Own}


def test_a_stored_config_names_no_loggers_of_others():
    config = complete({"loggers": f"wandb,{OWN}"})
    assert outside(config) == {"loggers": [OWN]}


@pytest.mark.slow
def test_loggers_may_change_when_a_run_goes_on(tmp_path):
    config = linear_config(checkpoint_every=2, num_steps=2, sample_every=2)
    train(config, tmp_path, data=memory_data(config))
    config = linear_config(checkpoint_every=2, sample_every=2, loggers=OWN)
    train(config, tmp_path, data=memory_data(config))
    (own,) = Own.made
    sent = [call[:2] for call in own.calls[:4]]
    assert own.run.step == 2 and sent == [("samples", 0), ("row", 1), ("samples", 2), ("row", 2)]
    assert rows_in(own.calls) == as_numbers(rows_of(tmp_path, timed=True)) and len(rows_in(own.calls)) == 4


@pytest.mark.parametrize("stored", ["{", "[]", '{"id": 3}', '{"id": "a b"}', '{"name": "a"}'])
def test_what_is_remembered_is_looked_at(stored, tmp_path):
    run = run_of(tmp_path)
    assert run.name == "runs/mine" and run.remembered("wandb") is None
    run.remember("wandb", "abc-1")
    assert run.remembered("wandb") == "abc-1" and run.remembered("mlflow") is None
    (run.workdir / "loggers" / "wandb.json").write_text(stored)
    assert run.remembered("wandb") is None
