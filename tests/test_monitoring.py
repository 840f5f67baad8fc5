"""Metrics file, sample grids, durations, stop requests."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.images import lab
from p2p_jax.images.domains import Domain
from p2p_jax.training import monitoring
from p2p_jax.training.monitoring import Log, format_seconds, make_grid, pictures
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


def test_grid_places_columns_and_repeats_gray():
    red = np.zeros((2, 8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    gray = np.full((2, 8, 8, 1), 128, np.uint8)
    grid = make_grid({"input": red, "output": gray})
    assert grid.shape == (16 + 2 * 8 + 4, 2 * 8 + 4, 3)
    np.testing.assert_array_equal(grid[16:24, :8], np.broadcast_to([255, 0, 0], (8, 8, 3)))
    np.testing.assert_array_equal(grid[28:, 12:], np.full((8, 8, 3), 128))
    assert (grid[16:, 8:12] == 255).all()


def test_pictures_of_columns_of_several_kinds():
    four_bands, labels = Domain("uint16", 4, (0.0,) * 4, (10.0,) * 4), Domain("labels", 2)
    one_hot = labels.encode(np.array([0, 1], np.uint8).reshape(2, 1, 1, 1))
    bands = np.zeros((2, 1, 1, 4), np.float32) + np.array([-1, 0, 1, 1], np.float32)
    shown = pictures({"input": bands, "output": one_hot, "heat": bands[..., :1]}, (four_bands, labels))
    assert list(shown) == ["input", "output", "heat"]
    assert shown["input"].tolist() == [[[[0, 128, 255]]]] * 2
    assert shown["output"].tolist() == [[[[0]]], [[[255]]]]
    assert shown["heat"].tolist() == [[[[0]]]] * 2  # of neither kind
    assert make_grid(shown).shape == (16 + 2 + 4, 3 + 8, 3)


def test_columns_of_equal_channels_are_told_apart_by_their_names():
    a, b = Domain("label_colors", 3, (0.0,) * 3, (255.0,) * 3), Domain("labels", 3)
    image = np.zeros((1, 1, 1, 3), np.float32)
    names = ["input", "output", "target", "real A", "fake B", "rec A", "real B", "fake A", "rec B"]
    shown = pictures(dict.fromkeys(names, image), (a, b))
    of_a = [name for name in names if shown[name].shape[-1] == 3]
    assert of_a == ["input", "real A", "rec A", "fake A"]


def test_colours_are_shown_with_the_lightness_of_their_row():
    photo = np.random.RandomState(0).randint(60, 200, (2, 8, 8, 3)).astype(np.uint8)
    domains = Domain("lab_l", 1, (0.0,), (100.0,)), Domain("lab_ab", 2, (-110.0,) * 2, (110.0,) * 2)
    lightness, colour = (domain.encode(domain.values(photo)) for domain in domains)
    shown = pictures({"input": lightness, "output": 0 * colour, "target": colour}, domains)
    assert np.abs(shown["target"].astype(int) - photo).max() <= 1
    np.testing.assert_allclose(lab.from_rgb(shown["output"])[..., 0], (lightness[..., 0] + 1) * 50, atol=0.3)
    assert np.ptp(shown["output"], axis=-1).max() == 0  # gray
    assert shown["input"].shape == (2, 8, 8, 1)


def test_the_log_shows_what_the_config_describes(tmp_path):
    config = small_config(
        data__output__kind="labels", data__output__channels=2, data__output__palette="#ff0000,#00ff00"
    )
    log = Log(tmp_path, ["train/a"], 0, config)
    labels = np.array([1, -1], np.float32) * np.ones((1, 8, 8, 1), np.float32)
    log.samples(3, {"input": np.zeros((1, 8, 8, 3), np.float32), "output": labels})
    log.close()
    grid = np.asarray(Image.open(tmp_path / "samples" / "step_0000003.png"))
    assert (grid[16:, :8] == 128).all() and (grid[16:, 12:] == [255, 0, 0]).all()


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
    (tmp_path / "samples").rmdir()
    (tmp_path / "samples").touch()
    log.samples(2, grid)
    with pytest.raises(InputError, match="step_0000002.png cannot be written"):
        log.close()
    with Image.open(tmp_path / "first.png") as image:
        assert image.size == (8, 16 + 8)


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


def test_speed_is_that_of_several_rows(tmp_path, monkeypatch, capsys):
    clock = iter([0.0, 100.0, 101.0, 102.0, 102.0])  # the first row compiles; the devices were ahead of the last
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    log = Log(tmp_path, ["train/a"], 0, small_config(num_steps=1000))
    for step in (10, 20, 30, 40):
        log.progress(step, {"train/a": 1.0})
    log.close()
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert ["with compiling" in line for line in lines] == [True, False, False, False]
    assert [line.split("  ")[2] for line in lines] == ["0.1 steps/s", "10 steps/s", "10 steps/s", "15 steps/s"]
