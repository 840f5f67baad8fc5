"""Metrics file, sample grids, stop requests."""

import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.training import metrics_file, pace
from p2p_jax.training.monitoring import Log
from p2p_jax.training.stopping import stop_requests
from support.configs import small_config
from support.images import to_uint8


def test_rows_after_the_resumed_step_are_removed_and_cut_ones_too(tmp_path):
    config = small_config()
    log = Log(tmp_path, ["train/a", "eval/b"], 0, config)
    for step in (1, 2, 3):
        log.metrics(step, {"train/a": step / 3} | ({"eval/b": 0.5} if step == 2 else {}))
    log.metrics(4, {})
    log.close()
    path = tmp_path / "metrics.csv"
    with open(path, "a") as file:
        file.write("4,0.1")  # a kill cut this row short
    Log(tmp_path, ["train/a", "eval/b"], 2, config).close()
    assert path.read_text() == f"step,train/a,eval/b\n1,{1 / 3},\n2,{2 / 3},0.5\n"
    Log(tmp_path, ["train/a", "eval/b"], 0, config).close()
    assert path.read_text() == "step,train/a,eval/b\n"


def test_to_uint8_rounds_and_clips():
    images = np.array([-1.0, -0.9999, 0.0, 0.5, 0.999, 1.0, 3.0, -2.0])
    assert to_uint8(images).tolist() == [0, 0, 128, 191, 255, 255, 255, 0]


def test_the_log_shows_what_the_config_describes(tmp_path):
    config = small_config(
        data__output__kind="labels", data__output__channels=2, data__output__palette="#ff0000,#00ff00"
    )
    log = Log(tmp_path, ["train/a"], 0, config)
    labels = np.array([1, -1], np.float32) * np.ones((1, 8, 8, 1), np.float32)
    log.samples(3, {"input": np.zeros((1, 8, 8, 3), np.float32), "output": labels})
    log.close()
    grid = np.asarray(Image.open(tmp_path / "samples" / "step_0000003.png"))
    assert grid.shape == (32 + 256, 2 * 256 + 4, 3)  # enlarged, under the step and the names of the columns
    assert (grid[32:, :256] == 128).all() and (grid[32:, 260:] == [255, 0, 0]).all()


def test_a_row_takes_what_comes_for_its_step(tmp_path):
    log = Log(tmp_path, ["train/a", "eval/b"], 0, small_config())
    path = tmp_path / "metrics.csv"
    log.progress(1, {"train/a": 0.25})
    assert path.read_text() == "step,train/a,eval/b\n"
    log.evaluation(1, {"b": 0.5}, 3)
    log.flush()
    assert path.read_text() == "step,train/a,eval/b\n1,0.25,0.5\n"
    log.flush()
    log.progress(2, {"train/a": 0.75})
    log.close()
    assert path.read_text() == "step,train/a,eval/b\n1,0.25,0.5\n2,0.75,\n"


def test_what_fails_in_the_background_is_raised(tmp_path):
    log = Log(tmp_path, ["train/a"], 0, small_config())
    grid = {"input": np.zeros((1, 8, 8, 3), np.float32)}
    log.samples(1, grid)
    log._finish()
    (tmp_path / "samples" / "step_0000001.png").rename(tmp_path / "first.png")
    shutil.rmtree(tmp_path / "samples")
    (tmp_path / "samples").touch()
    log.samples(2, grid)
    with pytest.raises(InputError, match="step_0000002.png cannot be written"):
        log.close()
    with Image.open(tmp_path / "first.png") as image:
        assert image.size == (256, 32 + 256)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stop_requests(signum):
    before = signal.getsignal(signum)
    with stop_requests() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signum)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signum) == before


def test_rows_say_how_far_and_how_fast_a_run_is(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=500.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock.now)
    config = small_config(num_steps=100, batch_size=2, data__num_train=8)
    for first in (0, 10):  # the second start goes on counting
        log = Log(tmp_path, [*metrics_file.RUN, "train/a"], first, config)
        clock.now += 8.0
        log.reached(first + 4)
        log.progress(first + 4, {"train/a": 1.0})
        log.metrics(first + 10, {"train/a": 2.0})
        log.close()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,run/seconds,run/epoch,run/images_per_s,train/a",
        "4,8.0,1.0,1.0,1.0",
        "10,8.0,2.5,,2.0",
        "14,16.0,3.5,1.0,1.0",
        "20,16.0,5.0,,2.0",
    ]


def test_a_long_run_says_early_how_long_it_takes(tmp_path, monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock.now)
    log = Log(tmp_path, ["train/a"], 0, small_config(num_steps=80_000), lambda: 43.45e9)
    for step in (1, 2, 3):
        clock.now += 4.0
        log.reached(step)
    log.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if "GMAC" in line or "warning" in line]
    assert lines[0] == "43.5 GMAC a step, 4 s a step: about 3 d 16 h to go"
    assert lines[1].startswith("warning: this will take 3 d 16 h on this CPU") and "config.data.crop_size" in lines[1]
    assert len(lines) == 2
