"""Signals: a training saves first, commands end with one line, and what was there before comes back."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from p2p_jax.commands import interrupts
from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError, TrainingInterrupt
from p2p_jax.training import start as start_of_training
from p2p_jax.training.checkpoint import saved_steps
from p2p_jax.training.loop import train
from p2p_jax.training.stopping import stop_requests
from support.configs import small_config
from support.images import write_pairs
from support.processes import environment, python, start
from support.runs import memory_data, rows_of, stop_at

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture(autouse=True)
def hears_signals():
    """Also where the tests run in a shell's background, which ignores Ctrl-C, or under nohup, which ignores SIGHUP."""
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def tiny(**options):
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    return small_config(**{**linear, "checkpoint_every": 100, "eval_every": 100, "sample_every": 100, **options})


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.slow
@pytest.mark.parametrize("signum", SIGNALS)
def test_a_training_saves_before_it_ends(signum, tmp_path, capfd):
    before, config = handlers(), tiny(num_steps=10)
    data = stop_at(3, memory_data(config), signum)
    if signum == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt, match="stopped at step 3; run the same command to resume") as raised:
            train(config, tmp_path, data=data)
        assert isinstance(raised.value, TrainingInterrupt)
    else:
        assert int(train(config, tmp_path, data=data)["step"]) == 3
    assert saved_steps(tmp_path) == [3] and len(rows_of(tmp_path)) == 3
    assert handlers() == before
    told = capfd.readouterr().out
    assert f"{signum.name}: will save a checkpoint and stop" in told and "stopped at step 3" in told
    assert int(train(config, tmp_path, data=memory_data(config))["step"]) == 10


def test_a_run_that_needs_no_more_than_its_directory_names_the_verb_that_resumes_it(tmp_path, monkeypatch, capsys):
    config, run = tiny(num_steps=10), tmp_path / "my run"
    monkeypatch.setattr(start_of_training, "load", lambda config, **places: stop_at(3, memory_data(config)))
    train(config, run)
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == f"stopped at step 3; run the same command to resume, or p2p-jax resume '{run}'"


def test_before_the_first_step_there_is_nothing_to_wait_for(tmp_path):
    config = tiny(num_steps=10)
    data = memory_data(config)

    def validation(batch_size):  # asked for its first images before training starts
        os.kill(os.getpid(), signal.SIGINT)
        return data.validation(batch_size)

    before = handlers()
    with pytest.raises(KeyboardInterrupt) as raised:
        train(config, tmp_path, data=data._replace(validation=validation))
    assert not isinstance(raised.value, TrainingInterrupt)
    assert saved_steps(tmp_path) == [] and handlers() == before and not (tmp_path / ".lock").exists()


def test_an_ignored_hangup_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set() and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.is_set() and stop.signum == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_trains_and_changes_no_handler(tmp_path):
    before, config, found = handlers(), tiny(num_steps=2), []
    thread = threading.Thread(target=lambda: found.append(train(config, tmp_path, data=memory_data(config))))
    thread.start()
    thread.join()
    assert int(found[0]["step"]) == 2 and handlers() == before


def interrupt(_=None):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)


def wrap(_):
    """As libraries do that call Python from C++."""
    try:
        interrupt()
    except KeyboardInterrupt as error:
        raise RuntimeError("INTERNAL: CpuCallback error") from error


def refuse(_):
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    raise InputError("the disk is full")


def told(_):
    raise TrainingInterrupt("stopped at step 3")


def explain(_):
    try:
        interrupt()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on") from None


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (interrupt, 130, "interrupted\n"),
        (wrap, 130, "interrupted\n"),
        (explain, 130, "interrupted; the same command goes on\n"),
        (told, 130, ""),
        (refuse, "error: the disk is full", ""),
    ],
)
def test_ctrl_c_ends_a_command_with_one_line(work, status, line, capsys):
    before, threads = (handlers(), sys.unraisablehook), threading.active_count()
    with pytest.raises(SystemExit) as ended:
        Parser("verb", "", computes=False).do(work, [])
    assert ended.value.code == status
    assert capsys.readouterr().err == line
    assert (handlers(), sys.unraisablehook) == before and threading.active_count() == threads


def test_an_error_that_no_interrupt_made_is_not_hidden():
    def fail(_):
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        Parser("verb", "", computes=False).do(fail, [])


OWN = """
    import hashlib, sys, time
    from p2p_jax.commands import interrupts
    from p2p_jax.commands.command import Parser

    def imports(_=None):
        print("ready", flush=True)
        time.sleep(60)

    def compiles(_):
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**9)  # minutes in C, in which Python handles no signal

    class Lost:
        def __del__(self):
            imports()

    interrupts.expect()
    if sys.argv[1] == "imports":
        imports()
    work = {"works": imports, "compiles": compiles, "loses": lambda _: Lost() and None}[sys.argv[1]]
    Parser("verb", "", computes=False).do(work, [])
"""


@pytest.mark.parametrize(
    ("what", "times", "line"),
    [
        ("imports", 1, "interrupted"),
        ("works", 1, "interrupted"),
        ("loses", 1, "interrupted"),  # where Python would print the exception and go on
        ("compiles", 2, "interrupted twice: ended at once"),
    ],
)
def test_ctrl_c_ends_a_process_that_is_a_commands_own(what, times, line):
    process = start(python(OWN, what), environment())
    assert process.stdout.readline() == "ready\n"
    for _ in range(times):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (interrupts.STATUS, line + "\n")


ENDLESS = """
    import support
    from p2p_jax.commands import train
    from p2p_jax.training import loop
    from support.runs import memory_data

    run = loop.train
    loop.train = lambda config, workdir, **settings: run(config, workdir, data=memory_data(config), **settings)
    from p2p_jax.commands import interrupts
    interrupts.expect()
    train.run()
"""


@pytest.fixture
def endless(tmp_path):
    """The command line of a training without end."""
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    options = {**linear, "num_steps": 10**7, "log_every": 20, "num_samples": 2, "batch_size": 2}
    options |= dict.fromkeys(("checkpoint_every", "eval_every", "sample_every"), 10**7)
    options["data"] = {"load_size": 16, "crop_size": 16}
    text = f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({options!r})\n"
    (tmp_path / "tiny.py").write_text(text)
    return python(ENDLESS, "--config", tmp_path / "tiny.py", "--workdir", tmp_path / "run")


def wait_for_rows(process, workdir):
    until = time.monotonic() + 120
    while not (workdir / "metrics.csv").exists() or len(rows_of(workdir)) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
def test_a_training_of_a_shells_background_is_heard_too(endless, tmp_path):
    """There SIGINT is ignored from the beginning; what is sent to the training alone is meant."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = start(endless, environment(1))
    with process:
        wait_for_rows(process, tmp_path / "run")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err, len(saved_steps(tmp_path / "run"))) == (130, "", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
def test_the_command_saves_and_tells_the_shell(signum, status, endless, tmp_path):
    process = start(endless, environment(1))
    with process:
        wait_for_rows(process, tmp_path / "run")
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    (step,) = saved_steps(tmp_path / "run")
    assert out.splitlines()[-1] == f"stopped at step {step:,}; run the same command to resume"
    assert int(rows_of(tmp_path / "run")[-1]["step"]) <= step


@pytest.mark.slow
def test_a_closed_terminal_costs_nothing(endless, tmp_path):
    """The kernel sends SIGHUP, and every print fails from then on."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *endless], env=environment(1), stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    seen = b""
    while seen.count(b"gen/l2") < 3:
        seen += os.read(main, 4096)
    os.close(main)
    assert process.wait(timeout=60) == 0
    assert len(saved_steps(tmp_path / "run")) == 1 and not (tmp_path / "run" / ".lock").exists()


@pytest.mark.slow
def test_ctrl_c_in_commands_of_processes_of_their_own(tmp_path):
    """At any moment after Python itself has started: one line, and no file but whole ones."""
    for split in ("train", "val"):
        write_pairs(tmp_path / "images" / split, 40, size=(256, 256))
    command = [sys.executable, "-m", "p2p_jax", "inspect", "facades", "--config.data.dir=images"]
    for seconds in (0.3, 0.6, 1.0, 1.5):
        process = start(command, environment(), tmp_path)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (130, 0), err
        if process.returncode == 130:
            assert err == "interrupted\n" and not list(tmp_path.rglob(".*"))
