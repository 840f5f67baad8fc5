"""Processes that take turns, so that whatever else the machine does meets all of them alike.

A worker is a process of its own, with its own thread pool. It prepares what is to be timed, then does one thing for
every line on its standard input, while the others wait for theirs. One that fails is left out by name, and the rest
goes on.
"""

import contextlib
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def serve(prepare: Callable[[], tuple[Mapping[str, Callable[[], Any]], dict]]) -> None:
    """Be a worker: answer every line on standard input with the seconds that it took, as JSON.

    Args:
      prepare: returns what can be timed, by name, and facts to tell once, such as the device. What a way returns is
        told with its seconds, if it is a dict.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers

    def say(answer: dict) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        ways, facts = prepare()
        say(facts)
        for line in sys.stdin:
            start = time.perf_counter()
            more = ways[line.strip()]()
            say({"seconds": time.perf_counter() - start} | (more if isinstance(more, dict) else {}))
    except Exception as error:  # whatever it is, the other workers go on without this one
        traceback.print_exc()
        reason = (str(error).strip() or "no message").split("\n")[0][:300]
        say({"error": f"{type(error).__name__}: {reason}"})


class Worker:
    """A process that runs ``serve``.

    Attributes:
      facts: what it told of itself.
      error: why it can no longer be had; "" while it can.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.error = ""
        self.facts = self._answer()

    def run(self, way: str) -> dict:
        """Return what the worker tells of one turn; empty once it has failed."""
        if self.error:
            return {}
        with contextlib.suppress(BrokenPipeError):  # it has ended: the missing answer says so
            print(way, file=self.process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        """Let the process end, and wait for it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}
        self.error = answer.get("error", "")
        return {} if self.error else answer


def take_turns(ways: Mapping[str, tuple[Worker, str]], rounds: int, warm_up: int = 2) -> dict[str, list[dict]]:
    """Time ways in turn.

    Args:
      ways: name -> worker and the name that the worker knows the way by.
      rounds: how often each is timed.
      warm_up: rounds before, which compile and are not counted.

    Returns:
      The answers by name; those whose worker failed are left out.
    """
    answers: dict[str, list[dict]] = {name: [] for name in ways}
    for i in range(warm_up + rounds):
        for name, (worker, way) in ways.items():
            answer = worker.run(way)
            if answer and i >= warm_up:
                answers[name].append(answer)
    return {name: found for name, found in answers.items() if len(found) == rounds}


def end(workers: Mapping[str, Worker]) -> dict[str, str]:
    """Let workers end; returns why some could not be had, by name."""
    for worker in workers.values():
        worker.end()
    return {name: worker.error for name, worker in workers.items() if worker.error}


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Return median and quartiles."""
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return {"median": float(middle), "quartiles": [float(low), float(high)]}


def ratio(answers: Mapping[str, list[dict]], above: str, below: str) -> dict[str, Any]:
    """Return the spread over rounds of one way's seconds divided by another's."""
    return spread(a["seconds"] / b["seconds"] for a, b in zip(answers[above], answers[below], strict=True))


def told(found: Mapping[str, Any]) -> str:
    """Return a spread in words."""
    low, high = found["quartiles"]
    return f"{found['median']:.2f} (quartiles {low:.2f} to {high:.2f})"


def environment(devices: int = 1, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a worker that sees so many devices; simulated ones on a CPU."""
    given = base.get("CUDA_VISIBLE_DEVICES")
    visible = [str(i) for i in range(devices)] if given is None else given.split(",")[:devices]
    flags = f"{base.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
    return {
        **base,
        "CUDA_VISIBLE_DEVICES": ",".join(visible),
        "XLA_FLAGS": flags,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # JAX would take most of a GPU that the libraries share
    }


def host_peak() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux


def report(result: dict, path: Path | None) -> None:
    """Write a result to a JSON file, with the command that made it and the versions of what was measured."""
    if path is None:
        return
    versions = {"python": platform.python_version()}
    for name in ("jax", "flax", "optax", "numpy", "pillow", "tensorflow", "tensorflow-cpu", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    made = {"command": shlex.join(["python", *sys.orig_argv[1:]]), "versions": versions, "cores": _cores()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made | result, indent=2) + "\n")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
