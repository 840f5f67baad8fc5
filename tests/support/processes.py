"""Python in processes of its own: alone, or several that know of each other."""

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from support.environment import xla_flags

ROOT = Path(__file__).parent.parent.parent
_PATHS = (str(ROOT), str(ROOT / "tests"))


def environment(devices: int | None = None, **more: str) -> dict[str, str]:
    """Return variables in which a process finds this checkout and its tests, with so many simulated devices."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([*_PATHS, os.environ.get("PYTHONPATH", "")])}
    if devices is not None:
        variables |= {"P2P_JAX_TEST_DEVICES": str(devices), "XLA_FLAGS": xla_flags(devices)}
    return variables | more


def start(command: list[str], env: dict[str, str], folder: Path | None = None) -> subprocess.Popen:
    """Start a process whose output is kept."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def python(code: str, *arguments: object) -> list[str]:
    """Return the command that runs code in a fresh interpreter."""
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def run(command: list[str], folder: Path | None = None, devices: int | None = None) -> subprocess.CompletedProcess:
    """Run a process to its end."""
    return subprocess.run(
        command, env=environment(devices), cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def run_python(code: str, *arguments: object, folder: Path | None = None, devices: int | None = None) -> str:
    """Run code in a fresh interpreter; return what it prints, and fail with what it says on standard error."""
    result = run(python(code, *arguments), folder, devices)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def processes(
    count: int, devices: int, *arguments: object, code: str | None = None, folders: list[Path] | None = None
) -> Iterator[list[subprocess.Popen]]:
    """Start processes that know of each other, the command train or other code, and end them whatever happens."""
    env = environment(devices)
    if count > 1:
        env |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    command = python(code, *arguments) if code else [sys.executable, "-m", "p2p_jax.main", *map(str, arguments)]
    started: list[subprocess.Popen] = []
    try:
        for index in range(count):
            own = {"JAX_PROCESS_ID": str(index)} if count > 1 else {}
            started.append(start(command, env | own, folders[index] if folders else None))
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def finish(started: list[subprocess.Popen], status: int = 0) -> list[tuple[str, str]]:
    """Wait for processes; return what each wrote to stdout and to stderr."""
    outputs = [process.communicate(timeout=400) for process in started]
    errors = "".join(error[-3000:] for _, error in outputs)
    assert [process.returncode for process in started] == [status] * len(started), errors
    return outputs
