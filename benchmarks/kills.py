"""Kills at random moments of every command that writes: what is lost, half written, missing or there twice.

    python -m benchmarks.kills [--kills 60] [--seed 0] [--only train,translate] [--json FILE]

Every command runs twice undisturbed first: files that are equal in both must be equal to the bit in the end; others,
which hold times, must be whole. Then the same command is killed (SIGKILL, with all its processes) at a random moment
after it began to write. What is there under its final name must be whole, and the same command, given once more, must
end with the same files and no other. A training is killed and resumed several times; its last state must be that of the
undisturbed one to the bit, with each row once in metrics.csv and in TensorBoard.
"""

import argparse
import collections
import csv
import hashlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.endurance import write_pairs
from p2p_jax.training import metrics_file

_LIMIT = 600  # seconds that a command may take
_DATA = ("--config.data.source=side_by_side", "--config.data.load_size=64", "--config.data.crop_size=64")
_NETWORKS = (
    "--config.generator.num_downs=3",
    "--config.generator.base_width=4",
    "--config.discriminator.receptive_field=16",
    "--config.discriminator.base_width=4",
)
_TRAINING = (
    *("--config.num_steps=60", "--config.log_every=1", "--config.eval_every=10"),
    *("--config.checkpoint_every=5", "--config.sample_every=5", "--config.batch_size=1"),
)
_STATE = """
import hashlib, sys
from pathlib import Path
import jax, numpy as np, orbax.checkpoint as ocp
steps = sorted(int(p.name) for p in Path(sys.argv[1], "checkpoints").iterdir() if p.name.isdigit())
state = ocp.PyTreeCheckpointer().restore(Path(sys.argv[1], "checkpoints", str(steps[-1]), "state").absolute())
digest = hashlib.sha256()
for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(state), key=lambda pair: str(pair[0])):
    digest.update(str(path).encode() + np.asarray(leaf).tobytes())
print(steps[-1], digest.hexdigest())
"""


class Case(NamedTuple):
    """A command that writes: its name, and its arguments given the folder or file that it writes."""

    name: str
    arguments: Callable[[Path], list[str]]
    ending: str = ""


class Finding(NamedTuple):
    """What a kill brought about, in words; `kind` is "lost", "half" or "rows"."""

    kind: str
    text: str


def cases(inputs: Path) -> dict[str, Case]:
    """Return the commands that are killed, beside the training; `inputs` is what ``prepare`` has made."""
    run, data = str(inputs / "run"), f"--config.data.dir={inputs / 'data'}"
    photos, foreign = str(inputs / "photos"), "tests/fixtures/tfjs/model.json"
    config = ["configs/facades.py", data, *_DATA, *_NETWORKS]
    found = [
        Case("translate", lambda out: ["translate", run, photos, "--output", str(out)]),
        Case("translate a stack", lambda out: ["translate", run, f"{inputs}/stack.npy", "--output", str(out)], ".npy"),
        Case("evaluate", lambda out: ["evaluate", run, "--output", str(out)]),
        Case("export", lambda out: ["export", run, "--format", "stablehlo", "--output", str(out / "it.stablehlo")]),
        Case("convert", lambda out: ["convert", foreign, "--workdir", str(out)]),
        Case("inspect", lambda out: ["inspect", *config, "--output", str(out)]),
        Case("ablate", lambda out: ["ablate", *config, "--table", "losses", "--num_steps", "4", "--output", str(out)]),
        Case(
            "study",
            lambda out: [
                "study",
                "make",
                "--runs",
                run,
                "--practice",
                "2",
                "--trials",
                "8",
                "--seed",
                "1",
                "--output",
                str(out),
            ],
        ),
        Case(
            "segmenter",
            lambda out: ["segmenter", "--config", "quickstart", "--num_steps", "4", "--output", str(out)],
        ),
    ]
    return {case.name: case for case in found}


def command(arguments: Sequence[str]) -> list[str]:
    """Return the line that runs a verb."""
    return [sys.executable, "-m", "p2p_jax", *arguments]


def prepare(folder: Path) -> None:
    """Make what the commands work on: pairs, photographs, a stack and a run."""
    write_pairs(folder / "data" / "train", 8)
    write_pairs(folder / "data" / "val", 12, first=8)
    write_pairs(folder / "photos", 24)
    np.save(folder / "stack.npy", np.random.RandomState(0).randint(0, 256, (40, 64, 64, 3), np.uint8))
    finish(training(folder, folder / "run", "--config.num_steps=2"))


def training(inputs: Path, workdir: Path, *options: str) -> list[str]:
    """Return the line that trains."""
    places = ["--config", "configs/facades.py", "--workdir", str(workdir), f"--config.data.dir={inputs / 'data'}"]
    return [sys.executable, "-m", "p2p_jax.main", *places, *_DATA, *_NETWORKS, *_TRAINING, *options]


def finish(line: list[str]) -> float:
    """Run a command to its end; return its seconds."""
    started = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.monotonic() - started


def kill(line: list[str], folder: Path, after: float) -> bool:
    """Start a command and kill it, with its processes, so many seconds after it began to write.

    Args:
      line: the command.
      folder: what it writes is in there.
      after: seconds.

    Returns:
      Whether the command was still under way.
    """
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(line, start_new_session=True, **pipes)
    before, limit = _look(folder), time.monotonic() + _LIMIT
    while process.poll() is None and _look(folder) == before and time.monotonic() < limit:
        time.sleep(0.002)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _look(folder: Path) -> set[tuple[str, int]]:
    """Return names and times of what is in a folder; quickly."""
    try:
        return {(str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*")}
    except OSError:  # something goes away while it is looked at
        return set()


def seconds_of_writing(line: list[str], folder: Path) -> float:
    """Run a command to its end; return the seconds from its first writing to its end."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    before, began = _look(folder), None
    while process.poll() is None:
        if began is None and _look(folder) != before:
            began = time.monotonic()
        time.sleep(0.002)
    assert process.stderr is not None
    if process.returncode:
        sys.exit(f"{' '.join(line)} ended with {process.returncode}:\n{process.stderr.read()[-3000:]}")
    return time.monotonic() - (began or time.monotonic())


def digests(target: Path) -> dict[str, str]:
    """Return the SHA-256 of every file, by its name under `target`, which may be a file itself."""
    files = [target] if target.is_file() else sorted(path for path in target.rglob("*") if path.is_file())
    # Names of Orbax and of TensorBoard are drawn; the digests of a run that was resumed tell of both starts.
    others = ("/d/", "tfevents", "/digests.json")
    files = [path for path in files if not any(part in path.as_posix() for part in others)]
    return {str(path.relative_to(target.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def is_unfinished(name: str) -> bool:
    """Tell whether a file is under a name that nobody takes for a result."""
    parts = Path(name).parts
    return any(part.startswith(".") or "orbax-checkpoint-tmp" in part for part in parts)


def what_is_wrong(path: Path) -> str:
    """Return why a file is no whole one of its kind; empty if it is."""
    try:
        _read(path)
    except Exception as error:  # each kind of file has its own
        return f"{path.name}: {type(error).__name__}: {error}"
    return ""


def _read(path: Path) -> None:
    """Read a file to its end."""
    match path.suffix:
        case ".png" | ".jpg" | ".webp":
            Image.open(path).load()
        case ".json":
            json.loads(path.read_text())
        case ".npy" | ".npz":
            np.load(path, allow_pickle=False)
        case ".html":
            if not path.read_text().rstrip().endswith("</html>"):
                raise ValueError("it has no end")
        case ".csv":
            text = path.read_text()
            rows = list(csv.reader(io.StringIO(text)))
            if not text.endswith("\n") or len({len(row) for row in rows}) != 1:
                raise ValueError("a row is cut")


def kill_case(case: Case, folder: Path, times: int, draw: random.Random) -> tuple[int, list[Finding]]:
    """Kill a command so many times, each time from a fresh start; return how many were under way, and what is wrong."""
    finish(command(case.arguments(folder / f"first{case.ending}")))
    seconds = seconds_of_writing(command(case.arguments(folder / f"second{case.ending}")), folder)
    first, second = (_renamed(digests(folder / f"{name}{case.ending}")) for name in ("first", "second"))
    findings, under_way = [], 0
    for i in range(times):
        target = folder / f"killed_{i}{case.ending}"
        line = command(case.arguments(target))
        under_way += kill(line, folder, draw.uniform(0, seconds))
        findings += [*_half(target, f"{case.name}, kill {i}")]
        if _differing(first, second, _renamed(digests(target))):  # else it was killed when all was written
            done = subprocess.run(line, capture_output=True, text=True, timeout=_LIMIT, check=False)
            if done.returncode:
                findings.append(
                    Finding("lost", f"{case.name}, kill {i}: given again it ends with {done.stderr[-300:]}")
                )
                continue
        differing = _differing(first, second, _renamed(digests(target)))
        findings += [Finding("lost", f"{case.name}, kill {i}: {what}") for what in differing]
        beside = [path.name for path in folder.iterdir() if target.name in path.name and path != target]
        findings += [Finding("half", f"{case.name}, kill {i}: {name} is left") for name in beside]
    return under_way, findings


def _differing(first: dict[str, str], second: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return in what a result differs from two undisturbed ones, where these are equal."""
    names = [f"{name} is {'left' if name in found else 'missing'}" for name in sorted(first.keys() ^ found.keys())]
    same = [name for name in sorted(first.keys() & found.keys()) if first[name] == second.get(name)]
    return names + [f"{name} is another than undisturbed" for name in same if found[name] != first[name]]


def _renamed(found: dict[str, str]) -> dict[str, str]:
    """Return digests by names under the output, whatever that is called."""
    return {"/".join(Path(name).parts[1:]) or "it": digest for name, digest in found.items()}


def _half(target: Path, where: str) -> Iterator[Finding]:
    """Yield what is not whole though it has its final name."""
    files = [target] if target.is_file() else target.rglob("*")
    for path in files:
        if (
            path.is_file()
            and not is_unfinished(str(path.relative_to(target.parent)))
            and (wrong := what_is_wrong(path))
        ):
            yield Finding("half", f"{where}: {wrong}")


def kill_training(folder: Path, inputs: Path, times: int, draw: random.Random) -> tuple[int, list[Finding]]:
    """Kill a training so many times in a row, resuming it, and let it end; compare it with an undisturbed one."""
    reference, workdir = folder / "undisturbed", folder / "killed"
    seconds = seconds_of_writing(training(inputs, reference), folder)
    under_way, findings = 0, []
    for i in range(times):
        under_way += kill(training(inputs, workdir), folder, draw.uniform(0, 2 * seconds / times))
        findings += [
            found
            for found in _half(workdir, f"train, kill {i}")
            if "metrics.csv" not in found.text  # whose last row is cut back by the next start
        ]
    finish(training(inputs, workdir))
    states = [
        subprocess.run([sys.executable, "-c", _STATE, str(run)], capture_output=True, text=True, check=True).stdout
        for run in (reference, workdir)
    ]
    if states[0] != states[1]:
        findings.append(
            Finding("lost", f"train: the last state is {states[1].strip()}, undisturbed {states[0].strip()}")
        )
    for what, rows in (("metrics.csv", rows_of_csv), ("TensorBoard", rows_of_tensorboard)):
        expected, found = rows(reference), rows(workdir)
        for row in sorted(expected.keys() | found.keys()):
            if expected[row] != found[row]:
                text = f"train: {what} holds {row} {found[row]} times, undisturbed {expected[row]}"
                findings.append(Finding("rows", text))
    left = digests(workdir).keys()
    findings += [Finding("half", f"train: {name} is left") for name in left if is_unfinished(name)]
    return under_way, findings


def rows_of_csv(workdir: Path) -> collections.Counter:
    """Return how often each row stands in metrics.csv, values and all, but for how long it took."""
    rows = metrics_file.read(workdir / "metrics.csv").rows
    timed = {metrics_file.SECONDS, metrics_file.SPEED}
    return collections.Counter(
        str((step, *((name, cell) for name, cell in row.items() if name not in timed))) for step, row in rows.items()
    )


def rows_of_tensorboard(workdir: Path) -> collections.Counter:
    """Return how often TensorBoard shows each scalar of each step: a session that starts at a step hides later ones."""
    shown: list[tuple[str, int]] = []
    for path in sorted((workdir / "tensorboard").glob("*tfevents*")):
        for event in _events(path):
            if event.HasField("session_log"):
                shown = [row for row in shown if row[1] < event.step]
            shown += [(value.tag, event.step) for value in event.summary.value if value.HasField("simple_value")]
    return collections.Counter(shown)


def _events(path: Path) -> Iterator:
    """Yield the events of a file, up to the first that is cut."""
    from tensorboardX.proto import event_pb2

    content = path.read_bytes()
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        if at + 16 + length > len(content):
            return
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", help="commands to kill, with commas between them")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    results, draw = {}, random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        prepare(inputs)
        known = cases(inputs)
        names = args.only.split(",") if args.only else ["train", *known]
        for i, name in enumerate(names):
            times = args.kills // len(names) + (i < args.kills % len(names))
            place = Path(folder) / name.replace(" ", "_")
            place.mkdir()
            if name == "train":
                under_way, findings = kill_training(place, inputs, times, draw)
            else:
                under_way, findings = kill_case(known[name], place, times, draw)
            counts = collections.Counter(finding.kind for finding in findings)
            results[name] = {"kills": times, "under way": under_way, **{k: counts[k] for k in ("lost", "half", "rows")}}
            print(f"{name}: {results[name]}", flush=True)
            for finding in findings[:10]:
                print(f"  {finding.kind}: {finding.text}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(any(sum(result[k] for k in ("lost", "half", "rows")) for result in results.values()))


if __name__ == "__main__":
    main()
