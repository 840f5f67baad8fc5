"""The progress line: 80 columns, a bar drawn in place on terminals, a running mean of training steps only."""

import contextlib
import io
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest

from p2p_jax import reporting
from p2p_jax.training import pace, progress
from p2p_jax.training.pace import Pace

CYCLEGAN = {
    f"{player}/{name}": 123.456 for player in ("disc", "gen") for name in ("real_a", "gan_ab", "cycle", "total")
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by hand."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: found.now)
    return found


@pytest.mark.parametrize("step", [1, 266_800, 80_000_000])
@pytest.mark.parametrize("speed", [None, 1e-3, 0.0271, 3.2, 12_345.6])
@pytest.mark.parametrize("draw", [progress.line, progress.bar])
def test_a_line_fits_80_columns(draw, step, speed):
    assert len(draw(step, 80_000_000, speed, 64, CYCLEGAN)) <= 80


def test_a_line_shows_totals_first_and_what_else_fits():
    losses = {"disc/real": 0.25, "gen/gan": 1.5, "gen/total": 31.4159}
    assert progress.line(1200, 2400, 2.0, 4, losses) == (
        "step 1,200/2,400  8 images/s  10 min 00 s left  gen/total 31.4  disc/real 0.25"
    )
    assert progress.bar(1200, 2400, 2.0, 4, losses) == (
        "[######------] 1,200/2,400  8 images/s  10 min 00 s left  gen/total 31.4"
    )
    assert progress.line(20, 2400, None, 4, losses) == "step 20/2,400  gen/total 31.4  disc/real 0.25  gen/gan 1.5"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (125, "2 min 05 s"),
        (7500, "2 h 05 min"),
        (270_000, "3 d 03 h"),
        (float("inf"), "unknown"),
    ],
)
def test_durations(seconds, text):
    assert progress.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (0.01234, "0.0123"), (1.2e-5, "1.2e-05")]
)
def test_numbers(number, text):
    assert progress.format_number(number) == text


def test_speed_leaves_out_compiling_validation_and_saving(clock):
    found = Pace(step=100)
    assert found.speed is None
    with found.compiling("step"):
        clock.now += 60.0
    clock.now += 2.0
    found.reached(101)
    with found.compiling("step"):  # it is compiled already
        clock.now += 2.0
    with found.apart():
        clock.now += 1000.0
    found.reached(102)
    assert (found.speed, found.trained, found.seconds) == (0.5, 4.0, 1064.0)


def test_speed_is_that_of_the_last_half_minute(clock):
    found = Pace(step=0)
    for step in range(1, 11):
        clock.now += 10.0
        found.reached(step)
    for step in range(11, 1000):
        clock.now += 0.05
        found.reached(step)
    assert found.speed == pytest.approx(20.0)
    assert len(found._points) < 400


def test_what_is_said_stands_above_the_line_that_is_drawn():
    code = (
        "from p2p_jax import reporting as r; assert r.columns_to_draw_in() == 79;"
        "r.draw('[##--] 50 of 100'); r.say('validation'); r.draw('[###-] 75'); r.draw(''); r.say('done')"
    )
    assert shown_by_a_terminal(code) == ["validation", "done"]
    assert shown_by_a_terminal(code.replace("r.draw('');", "").replace("r.say('done')", "r.say('half')")) == [
        "validation",
        "half",
        "[###-] 75",
    ]


def shown_by_a_terminal(code):
    """Return the lines that a terminal of 80 columns shows of what a program prints."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, env=environment)
    os.close(child)
    printed = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(parent, 1000):
            printed += chunk
    os.close(parent)
    assert process.wait() == 0
    screen, at = [""], 0
    for letter in printed.decode():
        if letter == "\n":
            screen.append("")
        elif letter == "\r":
            at = 0
        else:
            screen[-1] = screen[-1][:at].ljust(at) + letter + screen[-1][at + 1 :]
            at += 1
    return [line.rstrip() for line in screen if line.strip()]


def test_no_line_is_drawn_where_what_is_printed_stays(monkeypatch, capsys):
    assert reporting.columns_to_draw_in() == 0
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert reporting.columns_to_draw_in() == 0
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    monkeypatch.setattr(sys, "stdout", notebook())
    assert reporting.columns_to_draw_in() == 80
    with reporting.quiet():
        assert reporting.columns_to_draw_in() == 0
