"""Several processes that train together, on one host or on many: joining them, and ending all when one ends.

JAX's coordination service notices by missing heartbeats that a process was killed, stopped or cut off, and ends the
others; a program that hangs while its heartbeats go on it does not notice. ``witness.py`` says what happened.
"""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from p2p_jax.cluster import witness
from p2p_jax.cluster.agreeing import broadcast, gather, named, only_the_first
from p2p_jax.config import differences, from_json, to_json
from p2p_jax.config.options import OPTIONS
from p2p_jax.errors import InputError, TrainingDivergedError, TrainingInterrupt
from p2p_jax.reporting import say

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that describe your own cluster to each process."""
_START_LIMIT = 300  # seconds until all processes must have started
_SILENCE_LIMIT = 30  # seconds without a heartbeat until a process counts as dead; JAX adds a few
_SHARED_LIMIT = 60  # seconds until all hosts must see a file: NFS caches directories that long
_LAST_WORDS = 10  # seconds for JAX to say which process is gone before this one ends by itself
_FAREWELL = 3  # seconds that a process with an error stays, for others to say the same
_HOST_FAREWELL = 5  # seconds that process 0 stays: JAX ends the others in C++ as soon as it is gone
_MAY_DIFFER = frozenset(option.name for option in OPTIONS if option.may_change == "processes")


@contextlib.contextmanager
def joined(config: ConfigDict, workdir: Path) -> Iterator[None]:
    """Train together with the other processes, if there are any; enter it before anything touches a device.

    With ``config.distributed`` or one of ``VARIABLES``, in a step of SLURM with several tasks and on a TPU pod of
    several hosts, all processes are waited for, only the first prints, and the end of one, which JAX notices within
    about half a minute, ends them all. Who the others are is found out by JAX (SLURM, Open MPI, Kubernetes, TPU) or
    is in ``VARIABLES``. Errors do not leave this context when there are other processes: they are printed, and this
    process ends with status 1.

    Args:
      config: the experiment, complete; the same in all processes.
      workdir: the run's directory, which all processes must see.

    Raises:
      InputError: the other processes cannot be found, or did not all start in time.
    """
    told = any(os.environ.get(name) for name in VARIABLES)
    if not (config.distributed or told or _slurm_tasks() > 1 or _tpu_hosts() > 1):
        yield
        return
    _initialize()
    errors = witness.Errors()
    watching = _call_witness(workdir, errors=errors.reading)
    errors.through_witness()
    try:
        if jax.process_index() > 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        say(f"processes: {jax.process_count()}, with {jax.device_count()} devices together")
        _require_same_config(config)
        _require_shared(workdir)
        interrupt = None
        try:
            yield
        except TrainingInterrupt as error:  # of all processes
            interrupt = error
        jax.distributed.shutdown()  # waits for the others
    except BaseException as error:
        _end(error, watching, errors)
    errors.restore()
    watching.communicate(witness.FINISHED)
    if interrupt:
        raise interrupt


def require_same(what: str, value: str, mend: str) -> None:
    """Check that all processes have the same; all must call it at the same place.

    Args:
      what: a noun with its article.
      value: what to compare.
      mend: what to do if it differs.

    Raises:
      InputError: a process has something else than process 0; raised in all of them.
    """
    others = gather(value != broadcast(value))
    if others:
        raise InputError(f"{what} of {named(others)} differs from that of process 0; {mend}")


def _slurm_tasks() -> int:
    """Return the number of tasks in this SLURM step; a script given to sbatch is not a step and waits for no others."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def _tpu_hosts() -> int:
    """Return of how many hosts this TPU pod consists."""
    found = importlib.util.find_spec("libtpu") and any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
    if not found or "tpu" not in (os.environ.get("JAX_PLATFORMS") or "tpu"):
        return 1
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if not hosts and "TPU_SKIP_MDS_QUERY" not in os.environ:
        hosts = _ask_google("worker-network-endpoints")
    return len((hosts or "").split(",")) * int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)


def _ask_google(attribute: str) -> str:
    """Return an attribute of this virtual machine, "" if it has none."""
    url = f"http://metadata.google.internal/computeMetadata/v1/instance/attributes/{attribute}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Metadata-Flavor": "Google"}), timeout=5) as x:
            return x.read().decode()
    except OSError:
        return ""


def _initialize() -> None:
    """Wait for all processes and connect with them."""
    arguments = _arguments()
    timer = threading.Timer(_START_LIMIT, _give_up_waiting)  # JAX would end the process without naming a fix
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **arguments, initialization_timeout=2 * _START_LIMIT, heartbeat_timeout_seconds=_SILENCE_LIMIT
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the other processes cannot be found ({error}): set {VARIABLES[0]}=HOST:PORT (of process 0, a free port), "
            f"{VARIABLES[1]} and {VARIABLES[2]} (0, 1, ...) for every process, start it with srun, or leave "
            "--config.distributed out to train with this process only"
        ) from error
    finally:
        timer.cancel()
    # JAX catches SIGTERM in C++ and does nothing; a process must still end by it before training handles it.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _arguments() -> dict[str, Any]:
    """Return the arguments for ``jax.distributed.initialize``; none where it finds them itself."""
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given:
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if "OMPI_COMM_WORLD_SIZE" in os.environ:  # its launcher is one task of SLURM for many processes
            return {}
        alone = os.environ.get("SLURM_STEP_NUM_NODES") == os.environ.get("SLURM_STEP_NUM_TASKS", "none")
        # JAX gives task n of a node its GPU n: of no use to a task that has the node, or its GPU, for itself.
        bound = (len(devices) == 1 and devices[0]) or "SLURM_GPUS_PER_TASK" in os.environ
        return {"local_device_ids": []} if alone or (_slurm_tasks() > 1 and bound) else {}
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise InputError(f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set, but not {', '.join(missing)}")
    address, count, index = (given[name] for name in VARIABLES)
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise InputError(f"{VARIABLES[0]}={address} is not HOST:PORT")
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise InputError(
            f"{VARIABLES[2]}={index} must be one of 0 to {VARIABLES[1]} - 1, and {VARIABLES[1]} is {count}"
        )
    if int(index) == 0:
        with socket.socket() as port:  # JAX crashes where it cannot listen
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                port.bind(("", int(address.rpartition(":")[2])))
            except (OSError, OverflowError) as error:
                raise InputError(
                    f"{VARIABLES[0]}={address}: cannot listen there ({error}); take another port"
                ) from error
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(index),
        "cluster_detection_method": "deactivate",
    }


def _give_up_waiting() -> None:
    sys.stderr.write(
        f"error: not all processes started within {_START_LIMIT} s: start one for each index, with the same "
        "coordinator address and process count, and check that its port is open to all hosts; to train with one SLURM "
        "task only, start it with srun env SLURM_STEP_NUM_TASKS=1 python ...\n"
    )
    sys.stderr.flush()
    os._exit(1)


def _call_witness(workdir: Path, stderr: int | None = None, errors: int | None = None) -> subprocess.Popen:
    told = [] if errors is None else [str(errors)]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", witness.__file__, str(workdir), *told],
        pass_fds=[] if errors is None else [errors],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
    )


def _end(error: BaseException, watching: subprocess.Popen, errors: witness.Errors) -> None:
    """Say what is wrong and end this process at once: leaving in order would wait for processes that are gone."""
    sys.stdout.flush()
    lost = any(word in str(error) for word in ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED"))
    if isinstance(error, InputError | TrainingDivergedError | KeyboardInterrupt):
        lost = False
    if not lost:  # else JAX may end it any moment, and the witness says what is to be said
        errors.restore()
    status = 1
    if isinstance(error, InputError | TrainingDivergedError):
        sys.stderr.write(f"error: {error}\n")
        watching.communicate(witness.FINISHED)
    elif isinstance(error, KeyboardInterrupt):
        status = 128 + signal.SIGINT
        sys.stderr.write("interrupted\n")
        watching.communicate(witness.FINISHED)
    elif not lost:
        traceback.print_exception(error)
    elif jax.process_count() == 2 and watching.stdin:  # with more, JAX may still say which one
        watching.stdin.write(witness.silent_process(1 - jax.process_index()))
        watching.stdin.flush()
    sys.stderr.flush()
    if lost:
        time.sleep(_LAST_WORDS)
    else:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what JAX writes when another process leaves first says no more
        time.sleep(_HOST_FAREWELL if jax.process_index() == 0 else _FAREWELL)
    os._exit(status)


def _require_same_config(config: ConfigDict) -> None:
    first = from_json(broadcast(to_json(config)))
    found = {key: values for key, values in differences(first, config).items() if key not in _MAY_DIFFER}
    others = gather(bool(found))
    if others:
        lines = "".join(f"\n  config.{key}: process 0 has {a!r}, this one {b!r}" for key, (a, b) in found.items())
        raise InputError(
            f"the config of {named(others)} differs from that of process 0; start all with the same command (to train "
            f"with one SLURM task only: srun env SLURM_STEP_NUM_TASKS=1 python ...){lines}"
        )


def _require_shared(workdir: Path) -> None:
    """Check that all processes see what the first one writes."""
    mark = workdir / broadcast(f".seen_by_all_{uuid.uuid4().hex}")
    only_the_first(lambda: _touch(mark))
    until = time.monotonic() + _SHARED_LIMIT
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.5)
    blind = gather(not mark.exists())
    if jax.process_index() == 0:
        mark.unlink()
    if blind:
        raise InputError(
            f"{workdir} is not shared by all processes: {named(blind)} cannot see what process 0 writes; "
            "give an absolute path on a file system that all hosts share"
        )


def _touch(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise InputError(f"{mark.parent} cannot be written ({error.strerror}); choose another") from error
