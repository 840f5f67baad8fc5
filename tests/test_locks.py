"""One training in a run's directory at a time; what the dead have left is seen through."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate, protocol
from p2p_jax.storage import kernel_locks, lock
from p2p_jax.storage.lock import locked
from p2p_jax.training.checkpoint import saved_steps
from p2p_jax.training.loop import train
from support.configs import small_config
from support.processes import environment, finish, processes, python, start
from support.runs import memory_data

ELSEWHERE = {"process": 77, "host": "elsewhere", "since": "2026-01-02 03:04:05 +0000", "place": "there", "token": "x"}
HOLD = """
    import sys, time
    from pathlib import Path
    from p2p_jax.storage.lock import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(300)
"""


@pytest.fixture
def no_kernel_locks(monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(kernel_locks.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "_BEAT", 0.2)


def hold(workdir):
    holder = start(python(HOLD, workdir), environment())
    assert holder.stdout.readline() == "held\n"
    return holder


def assert_named(message, workdir, process):
    assert f"{workdir} is in use: process {process} on {lock.socket.gethostname()} (since 20" in message
    assert "writes there; wait for it, stop it, or choose another `workdir`" in message


@pytest.mark.parametrize("kernel", [True, False])
def test_a_living_holder_is_named_and_a_killed_one_seen_through(kernel, tmp_path, capsys, request):
    if not kernel:
        request.getfixturevalue("no_kernel_locks")
    holder = hold(tmp_path)
    try:
        with pytest.raises(InputError) as refused, locked(tmp_path):
            pass
        assert_named(str(refused.value), tmp_path, holder.pid)
        os.kill(holder.pid, signal.SIGSTOP)  # it holds it none the less
        with pytest.raises(InputError), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert f"process {holder.pid} on" in told and "was killed; this process takes over" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kernel", [True, False])
def test_threads_of_one_process_keep_each_other_out_and_calls_may_follow_each_other(kernel, tmp_path, request):
    if not kernel:
        request.getfixturevalue("no_kernel_locks")
    before = threading.active_count()
    errors = []

    def try_it():
        try:
            with locked(tmp_path):
                errors.append("none")
        except InputError as error:
            errors.append(str(error))

    for _ in range(2):
        with locked(tmp_path):
            thread = threading.Thread(target=try_it)
            thread.start()
            thread.join()
            assert_named(errors.pop(), tmp_path, os.getpid())
    try_it()
    assert errors == ["none"]
    assert threading.active_count() == before and not lock._HELD


def test_a_number_that_another_process_has_by_now_is_no_holder(no_kernel_locks, tmp_path):
    with locked(tmp_path):
        holder = json.loads((tmp_path / ".lock").read_text())
    (tmp_path / ".lock").write_text(json.dumps(holder | {"process": os.getppid(), "began": "1"}))
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


def test_a_holder_on_another_host_is_listened_to(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(lock, "_PATIENCE", 0.6)
    monkeypatch.setattr(lock, "_BEAT", 0.2)
    path = tmp_path / ".lock"
    path.write_text(json.dumps(ELSEWHERE))
    beat = threading.Timer(0.2, lambda: os.utime(path))
    beat.start()
    message = f"process 77 on elsewhere .since 2026-01-02.*if that process has certainly ended, delete {path}"
    with pytest.raises(InputError, match=message), locked(tmp_path):
        pass
    beat.join()
    with locked(tmp_path):  # silent
        pass
    path.write_text(json.dumps(ELSEWHERE))
    os.utime(path, (0, 0))  # so long ago that nothing is waited for
    monkeypatch.setattr(lock.time, "sleep", None)
    with locked(tmp_path):
        pass
    assert capsys.readouterr().out.count("process 77 on elsewhere") == 4


@pytest.mark.parametrize("text", ["", "\0\0", "[]", "{}", '{"process": "x", "place": 3}', "[" * 100_000])
def test_a_lock_that_tells_nothing_is_taken(text, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    (tmp_path / ".lock").write_text(text)
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


def test_who_was_not_heard_of_ends_when_another_took_over(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    with locked(tmp_path) as held:
        assert held.lost == ""
        (tmp_path / ".lock").unlink()
        (tmp_path / ".lock").write_text(json.dumps(ELSEWHERE))
        until = time.monotonic() + 30
        while not held.lost and time.monotonic() < until:
            time.sleep(0.02)
        assert "process 77 on elsewhere" in held.lost and "ends without saving" in held.lost
    assert json.loads((tmp_path / ".lock").read_text()) == ELSEWHERE


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """Workers that read images, made by fork, may outlive a training that was killed."""
    code = """
        import os, sys, time
        from pathlib import Path
        from p2p_jax.storage.lock import locked
        with locked(Path(sys.argv[1])):
            if not os.fork():
                print(os.getpid(), flush=True)
            time.sleep(300)
    """
    holder = start(python(code, tmp_path), environment())
    child = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.wait()
        with locked(tmp_path):
            os.kill(child, 0)  # it lives
            assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()
        holder.stderr.close()


@pytest.mark.parametrize(("made", "mend"), [("file", "workdir=.*run is a file; give a directory"), ("below", "run")])
def test_a_directory_that_cannot_be(made, mend, tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match=mend), locked(tmp_path / "run" / ("" if made == "file" else "deeper")):
        pass


def tiny(**options):
    return small_config(objective="support.networks:linear", generator=None, discriminator=None, loss=None, **options)


def test_a_second_training_is_refused_before_it_reads_anything(tmp_path):
    with locked(tmp_path), pytest.raises(InputError) as refused:
        train(tiny(), tmp_path, data=object())
    assert_named(str(refused.value), tmp_path, os.getpid())


def test_a_training_that_lost_its_directory_saves_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    config = tiny(num_steps=10**6, checkpoint_every=1, eval_every=10**6, sample_every=10**6)
    data = memory_data(config)

    def batches(first_step):
        for step, batch in enumerate(data.train(first_step)):
            if step == 3:
                (tmp_path / ".lock").unlink()
                (tmp_path / ".lock").write_text(json.dumps(ELSEWHERE))
            yield batch

    with pytest.raises(InputError, match="process 77 on elsewhere .* ends without saving"):
        train(config, tmp_path, data=data._replace(train=batches))
    assert json.loads((tmp_path / ".lock").read_text()) == ELSEWHERE


@pytest.mark.slow
def test_a_run_under_training_is_read_and_not_written(tmp_path, monkeypatch):
    """By commands in processes of their own; two evaluations do not write the same results."""
    config = tiny(num_steps=2)
    train(config, tmp_path / "run", data=memory_data(config))
    holder = hold(tmp_path / "run")
    try:
        found = evaluate(tmp_path / "run", output=tmp_path / "results", data=memory_data(config))
        assert found["step"] == 2 and saved_steps(tmp_path / "run") == [2]
        monkeypatch.setattr(protocol, "_TURN", 0.2)
        with locked(tmp_path / "results"), pytest.raises(InputError, match="results is in use: .* another `output`"):
            evaluate(tmp_path / "run", output=tmp_path / "results", data=memory_data(config))
        trust = ["--trust", config.objective]
        command = [sys.executable, "-m", "p2p_jax", "resume", str(tmp_path / "run"), "--config.num_steps=4", *trust]
        ended = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
        )
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert f"process {holder.pid} on" in line and line.endswith("or choose another RUN")
        assert saved_steps(tmp_path / "run") == [2]
    finally:
        holder.kill()
        holder.communicate()


SEVERAL = """
    import sys, support
    from pathlib import Path
    from support.configs import small_config
    from p2p_jax.cluster import distributed
    from p2p_jax.cluster.agreeing import by_the_first
    from p2p_jax.storage.lock import locked
    with distributed.joined(small_config(distributed=True), Path(sys.argv[1])):
        with by_the_first(lambda: locked(Path(sys.argv[1]))) as held:
            print("held" if held else "let in")
"""


@pytest.mark.slow
def test_several_processes_hold_it_as_one_and_are_refused_as_one(tmp_path):
    with processes(2, 1, tmp_path, code=SEVERAL) as pair:
        (first, _), (second, _) = finish(pair)
    assert first.splitlines()[-1] == "held" and second == ""
    holder = hold(tmp_path)
    try:
        with processes(2, 1, tmp_path, code=SEVERAL) as pair:
            for _, err in finish(pair, status=1):
                assert_named(err, tmp_path, holder.pid)
                assert len(err.splitlines()) == 1
    finally:
        holder.kill()
        holder.communicate()
