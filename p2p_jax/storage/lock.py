"""One training in a run's directory at a time: a lock that names its holder and ends with it.

``workdir/.lock`` names the holder. Where the file system has locks, the kernel holds one on it, and frees it however
the process ends. Where it has none, or keeps them from other hosts (some network file systems and mounted drives), the
holder's process is looked up, or, on another host, its beats are waited for: the file's time, set every some seconds.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2p_jax.errors import InputError
from p2p_jax.reporting import say
from p2p_jax.storage import kernel_locks
from p2p_jax.storage.refusals import reason

_NAME = ".lock"
_BEAT = 10.0  # seconds between two beats
_PATIENCE = 45.0  # seconds that a holder on another host has to respond
_LONG_AGO = 600.0  # seconds without a beat until waiting ends; clocks of hosts differ by less
_IS_WINDOWS = os.name == "nt"
_HELD: dict[str, int] = {}  # in this process: the file's token -> its descriptor


class Lock:
    """A lock that is held.

    Attributes:
      lost: the message if another process has taken over the directory because this one did not respond; else "".
    """

    def __init__(self, path: Path, file: int, token: str):
        self._path, self._file, self._token = path, file, token
        self.lost = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="p2p_jax lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._done.wait(_BEAT):
            with contextlib.suppress(OSError):  # a full disk, a network that is away: the next beat may do
                os.utime(self._path)
                now = _read(self._path)
                if now.get("token", self._token) != self._token:
                    self.lost = (
                        f"{_who(now)} writes in {self._path.parent} now, because this process did not respond for a "
                        "while: it ends without saving"
                    )
                    return

    def release(self) -> None:
        """Let the next one in."""
        self._done.set()
        self._thread.join(_BEAT)
        _HELD.pop(self._token, None)
        if _IS_WINDOWS:  # which removes no open file
            os.close(self._file)
        with contextlib.suppress(OSError):
            if _read(self._path).get("token") == self._token:
                self._path.unlink()
        if not _IS_WINDOWS:  # only now, so a process that waits for the lock finds its file gone
            os.close(self._file)


@contextlib.contextmanager
def locked(folder: Path, argument: str = "workdir", *, wait: float = 0.0) -> Iterator[Lock]:
    """Hold a run's directory, which is made if missing, against everyone else who would write the run.

    Args:
      folder: the directory, or another whose files only one process should write.
      argument: the caller's name for it, for messages.
      wait: seconds that the holder has to release it.

    Raises:
      InputError: another process or thread holds it, named with host and time; or the directory cannot be written.
    """
    until, is_new = time.monotonic() + wait, not folder.exists()
    try:
        while True:
            try:
                held = _take(folder / _NAME)
                break
            except _HeldError as error:
                if time.monotonic() >= until:
                    mend = f"wait for it, stop it, or choose another `{argument}`{error.more}"
                    raise InputError(f"{error}; {mend}") from None
                time.sleep(0.1)
    except NotADirectoryError:
        raise InputError(f"{argument}={folder} is a file; give a directory") from None
    except OSError as error:
        told = f"{folder} cannot be written ({reason(error, folder)})"
        raise InputError(f"{told}; choose another `{argument}`") from error
    try:
        yield held
    finally:
        held.release()
        if is_new:  # a start that was refused leaves nothing
            with contextlib.suppress(OSError):
                folder.rmdir()


class _HeldError(Exception):
    """Somebody holds it.

    Attributes:
      more: what else can be done.
    """

    def __init__(self, path: Path, holder: dict[str, Any]):
        who = _who(holder) if holder else "another process"
        super().__init__(f"{path.parent} is in use: {who} writes there")
        is_here = not holder or holder.get("place") == _place()
        self.more = "" if is_here else f" (if that process has certainly ended, delete {path})"


def _take(path: Path) -> Lock:
    token = uuid.uuid4().hex
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError from None
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            granted = kernel_locks.take(file)
            if granted is False:
                raise _HeldError(path, _read(path))
            is_sure = granted is not None  # else there are no such locks here
            if is_sure and not os.path.samestat(os.fstat(file), os.stat(path)):
                raise FileNotFoundError  # its holder ended and removed it meanwhile
            _refuse_living(path, is_sure=is_sure)
            _write(file, token)
            if not is_sure:  # of two that came at once the later one has it
                time.sleep(min(1.0, _BEAT))
                _refuse_living(path, is_sure=False, own=token)
        except FileNotFoundError:
            os.close(file)
            continue
        except BaseException:
            os.close(file)
            raise
        _HELD[token] = file
        return Lock(path, file, token)


def _refuse_living(path: Path, *, is_sure: bool, own: str = "") -> None:
    """Raise _HeldError if the process in the file may still be at work; say so if it certainly is not.

    Args:
      path: of the lock.
      is_sure: the kernel has granted it, so nobody on this host has it.
      own: what this process wrote into it.
    """
    before, holder = _snapshot(path), _read(path)
    if not holder or (own and holder.get("token") == own):
        return
    if holder.get("place") == _place() and (is_sure or not _IS_WINDOWS):  # which does not show if it runs
        lives = not is_sure and (holder.get("token") in _HELD or _lives(holder))
    else:
        lives = _is_heard_of(path, before)
    if lives:
        raise _HeldError(path, holder)
    say(f"{path.parent}: {_who(holder)} wrote here and was killed; this process takes over")


def _is_heard_of(path: Path, before: tuple[str, int]) -> bool:
    """Wait for a beat of a holder on another host."""
    if abs(time.time() - before[1] / 1e9) > _LONG_AGO:
        return False
    say(f"{path.parent}: {_who(_read(path))} wrote here; checking for {_PATIENCE:.0f} s whether it still does ...")
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        time.sleep(min(1.0, _BEAT / 4))
        if _snapshot(path) != before:
            return True
    return False


def _snapshot(path: Path) -> tuple[str, int]:
    """Return contents and time of a lock; opened again, because network file systems cache old contents."""
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "replace"), os.fstat(file.fileno()).st_mtime_ns


def _read(path: Path) -> dict[str, Any]:
    """Return the holder's entries in a lock; nothing where it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: int, token: str) -> None:
    holder = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "began": _began(os.getpid()),
        "place": _place(),
        "token": token,
    }
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    os.write(file, (json.dumps(holder, indent=1) + "\n").encode())
    with contextlib.suppress(OSError):  # some mounted drives have no such thing
        os.fsync(file)


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process', '?')} on {holder.get('host', '?')} (since {holder.get('since', '?')})"


def _place() -> str:
    """Return where numbers of processes mean the same: a start of a host, and a container on it."""
    boot, numbers = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbers = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot} {numbers}".strip()


def _lives(holder: dict[str, Any]) -> bool:
    """Return whether a process of this machine runs and is the recorded one, not a later one of the same number."""
    number = holder.get("process")
    if not isinstance(number, int) or number <= 0 or number == os.getpid():
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return holder.get("began") in ("", _began(number)) or not _began(number)


def _began(number: int) -> str:
    """Return when a process began, in the kernel's ticks; "" where that is not known."""
    with contextlib.suppress(OSError):
        if found := re.search(r"\) \S (?:\S+ ){18}(\d+) ", Path(f"/proc/{number}/stat").read_text()):
            return found[1]
    return ""


def _forget_in_child() -> None:
    """Close the locks of the parent: a reading worker that outlives it must not hold them."""
    for file in _HELD.values():
        with contextlib.suppress(OSError):
            os.close(file)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
