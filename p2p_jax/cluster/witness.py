"""What a process that trains with others leaves behind when it does not finish: one sentence.

JAX ends a process whose partners are gone in C++, where no Python runs any more, and a kill leaves no time for words
either. So a small process of its own, this file run by a bare interpreter, waits at the end of a pipe until the
training process is gone, and speaks for it. What the training process writes on standard error goes through it too, so
that the C++ stack trace at its end is left out. It needs the standard library only.
"""

import os
import re
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path

FINISHED = "finished\n"
"""What the training process writes into the pipe when nothing is left to be said."""
_SOURCES = rb"(coordination_\w+\.cc|preemption_sync_manager\.cc|client\.h)"
_LOGGED = re.compile(rb"[WEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ " + _SOURCES + rb":\d+\] ")
_FATAL = b"JAX distributed service detected fatal errors"
_UNREACHABLE = (  # the service of process 0; a cut connection is called "Socket closed" or "Connection reset by peer"
    b"Failed to send RPC to coordination service",
    b"Socket closed",
    b"Connection reset by peer",
    b"CoordinationService/Heartbeat",
)
_HOLD = 5.0  # seconds that JAX's message on a partner is held back, since its end may follow
_FAREWELL = 5.0  # seconds for the last of what was written; a child of the training process may keep the pipe open


def sentence(workdir: str | Path, cause: str = "") -> str:
    """Return what has happened to a process that did not finish, and how to go on.

    Args:
      workdir: the run's directory.
      cause: what is known of it.
    """
    saved = Path(workdir).glob("checkpoints/*/config/metadata")
    steps = [int(path.parts[-3]) for path in saved if path.parts[-3].isdigit()]
    kept = f"the run is saved at step {max(steps):,}" if steps else f"{workdir} has no checkpoint yet"
    cause = cause or "it was killed, or another process ended or hangs (see its messages)"
    return (
        f"error: this process on {socket.gethostname()} stopped: {cause}; {kept}: start all processes again with the "
        "same command, on any number of hosts."
    )


def silent_process(number: int | str) -> str:
    """Return what is known of a process that is gone."""
    return f"process {number} no longer answers (killed, stopped or cut off)"


class Errors:
    """Standard error of this process, which goes through the witness in the meantime, also that of C++."""

    def __init__(self) -> None:
        self.reading: int | None = None
        self._writing: int | None = None
        self._before: int | None = None
        if os.name == "posix":
            self.reading, self._writing = os.pipe()

    def through_witness(self) -> None:
        """Write to the witness from now on."""
        if self.reading is None or self._writing is None:
            return
        sys.stderr.flush()
        self._before = os.dup(2)
        os.dup2(self._writing, 2)
        os.close(self._writing)
        os.close(self.reading)

    def restore(self) -> None:
        """Write to where it went before."""
        if self._before is not None:
            sys.stderr.flush()
            os.dup2(self._before, 2)
            os.close(self._before)
            self._before = None


class Filter:
    """Pass on what is written, but for what JAX says in C++ when it ends a process because of another one."""

    def __init__(self, target: int):
        self._target = target
        self._rest, self._held, self._since = b"", list[bytes](), 0.0
        self._ends = False
        self._said = b""

    def take(self, data: bytes) -> None:
        """Pass on the lines of what was written."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line + b"\n")

    def _line(self, line: bytes) -> None:
        logged = _LOGGED.match(line)
        self._ends = self._ends or bool(logged and _FATAL in line)
        if self._ends:
            self._said += b"".join(self._held) + line
            self._held = []
        elif logged or self._held:
            self._since = self._since if self._held else time.monotonic()
            self._held.append(line)
        else:
            self._write(line)

    def pause(self) -> None:
        """Pass on what waits for a line's end, or for an end of the process that does not come."""
        if self._held and time.monotonic() - self._since > _HOLD:
            self._write(b"".join(self._held))
            self._held = []
        if self._rest and not (self._held or self._ends or self._rest[:1] in (b"W", b"E", b"F")):
            self._write(self._rest)
            self._rest = b""

    def end(self) -> str:
        """Pass on what is left; return which processes are gone, as far as JAX reported it."""
        if not self._ends:
            self._write(b"".join(self._held) + self._rest)
            return ""
        if silent := re.search(rb"unhealthy[^\n]*\n?(.*?)\n?(?:The tasks have crashed|$)", self._said, re.DOTALL):
            numbers = sorted(set(re.findall(rb"(?:/task:|^)(\d+)\s*$", silent[1], re.MULTILINE)), key=int)
            if numbers:
                return silent_process(b", ".join(numbers).decode())
        if any(sign in self._said for sign in _UNREACHABLE):
            return "process 0 no longer answers (ended, killed, stopped or cut off)"
        return ""

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._target, data) :]
            except OSError:  # nobody reads it any more
                return


def _pass_on(source: int, words: Filter) -> None:
    while True:
        if not select.select([source], [], [], 0.2)[0]:
            words.pause()
        elif data := os.read(source, 65_536):
            words.take(data)
        else:
            return


def _watch(workdir: str, source: int | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they come to the whole group, and this process must be the last
    words = Filter(2)
    passing = threading.Thread(target=lambda: None if source is None else _pass_on(source, words), daemon=True)
    passing.start()
    told = sys.stdin.read()
    passing.join(_FAREWELL)
    cause = words.end()
    if told != FINISHED:
        sys.stderr.write(sentence(workdir, cause or told) + "\n")


if __name__ == "__main__":
    _watch(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
