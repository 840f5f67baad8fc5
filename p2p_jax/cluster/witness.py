"""What a process that trains with others leaves behind when it does not finish: one sentence.

JAX ends a process whose partners are gone in C++, where no Python runs any more, and a kill leaves no time for words
either. So a small process of its own, this file run by a bare interpreter, waits at the end of a pipe until the
training process is gone, and speaks for it. It needs the standard library only.
"""

import signal
import socket
import sys
from pathlib import Path

FINISHED = "finished\n"
"""What the training process writes into the pipe when nothing is left to be said."""


def sentence(workdir: str | Path) -> str:
    """Return what has happened to a process that did not finish, and how to go on."""
    saved = Path(workdir).glob("checkpoints/*/config/metadata")
    steps = [int(path.parts[-3]) for path in saved if path.parts[-3].isdigit()]
    kept = f"the run is saved at step {max(steps):,}" if steps else f"{workdir} has no checkpoint yet"
    return (
        f"error: this process on {socket.gethostname()} stopped: it was killed, or another process ended or hangs "
        f"(see the messages above); {kept}: start all processes again with the same command, "
        "on any number of hosts."
    )


def _watch(workdir: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they come to the whole group, and this process must be the last
    if sys.stdin.read() != FINISHED:
        sys.stderr.write(sentence(workdir) + "\n")


if __name__ == "__main__":
    _watch(sys.argv[1])
