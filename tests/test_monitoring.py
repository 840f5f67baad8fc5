"""Metrics file, sample grids, durations, stop requests."""

import os
import signal

import numpy as np
import pytest
from conftest import small_config

from p2p_jax.monitoring import Log, format_seconds, make_grid, stop_requests, to_uint8


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


def test_grid_places_columns_and_repeats_gray():
    red = np.zeros((2, 8, 8, 3), np.float32) + np.array([1, -1, -1], np.float32)
    gray = np.zeros((2, 8, 8, 1), np.float32)
    grid = make_grid({"input": red, "output": gray})
    assert grid.shape == (16 + 2 * 8 + 4, 2 * 8 + 4, 3)
    np.testing.assert_array_equal(grid[16:24, :8], np.broadcast_to([255, 0, 0], (8, 8, 3)))
    np.testing.assert_array_equal(grid[28:, 12:], np.full((8, 8, 3), 128))
    assert (grid[16:, 8:12] == 255).all()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (125, "2 min 05 s"), (7500, "2 h 05 min"), (float("inf"), "unknown")],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


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
