"""How long the device waits between training steps, from a trace of the real loop.

    python -m benchmarks.trace [--objective pix2pix|cyclegan] [--size 256] [--width 64] [--batch 1] [--dtype float32]
        [--log_every 10] [--sample_every N] [--rows 10] [--steps_per_dispatch 0] [--resident] [--keep FOLDER]

``p2p_jax.train`` runs on random images in memory; JAX's profiler records ``--rows`` rows of metrics.csv, after
everything has been compiled. The device is busy while one of XLA's programs runs: on accelerators as the trace's line
"XLA Modules" says, with the streams of kernels beside it; on a CPU while XLA's own threads execute. What is left of the
time between the first program's start and the last one's end is the share that it waited for the host. ``--keep``
leaves the trace in a folder, to be looked at in Perfetto (https://ui.perfetto.dev) or XProf.
"""

import argparse
import gzip
import itertools
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments import OBJECTIVES, make_config

_IMAGES = 8


def memory_data(config: Any, *, resident: bool) -> Any:
    """Return random images that cost the host nothing to make.

    Args:
      config: the experiment.
      resident: put them on the device once; else they travel with every step.
    """
    from p2p_jax.config.options import image_shapes
    from p2p_jax.data import Data

    random = np.random.RandomState(0)
    images = {name: random.randint(0, 256, (_IMAGES, *x), np.uint8) for name, x in image_shapes(config.data).items()}

    def batches(first_step):
        made = [
            {
                name: x[(n + np.arange(config.batch_size)) % _IMAGES] / np.float32(127.5) - 1
                for name, x in images.items()
            }
            for n in range(_IMAGES)
        ]
        return itertools.islice(itertools.cycle(made), first_step % _IMAGES, None)

    data = Data(num_train=_IMAGES, num_val=0, fingerprint="", train=batches, validation=lambda batch_size: iter(()))
    if not resident:
        return data
    from p2p_jax.data.on_device import Resident

    def draw(arrays, positions):
        return {name: x[positions % _IMAGES].astype("float32") / 127.5 - 1 for name, x in arrays.items()}

    return data._replace(resident=Resident(images, draw))


def record(args: argparse.Namespace, folder: Path) -> Path:
    """Train under the profiler; returns the file of its events."""
    import jax

    import p2p_jax
    from p2p_jax.training.monitoring import Log

    every = args.log_every
    first = (2 + args.sample_every // every) * every  # the first row and the first grid contain a compilation
    last = first + args.rows * every
    never = {"eval_every": 10**6 * every, "checkpoint_every": 10**6 * every}
    options = {
        "log_every": every,
        "num_steps": last + every,
        "sample_every": args.sample_every or 10**6 * every,
        **never,
    }
    if args.steps_per_dispatch:
        options["steps_per_dispatch"] = args.steps_per_dispatch
    config = make_config(args.objective, args.size, args.batch, dtype=args.dtype, width=args.width, **options)
    progress = Log.progress

    def traced(self, step, row):
        progress(self, step, row)
        if step == first:
            quiet = jax.profiler.ProfileOptions()
            quiet.python_tracer_level = 0  # it would slow the host down
            jax.profiler.start_trace(folder / "trace", profiler_options=quiet)
        elif step == last:
            jax.profiler.stop_trace()

    Log.progress = traced  # type: ignore[method-assign]
    try:
        p2p_jax.train(config, folder / "run", data=memory_data(config, resident=args.resident))
    finally:
        Log.progress = progress  # type: ignore[method-assign]
    return max(folder.glob("trace/**/*.trace.json.gz"), key=lambda path: path.stat().st_mtime)


def _names(events: list[dict[str, Any]]) -> tuple[dict[Any, str], dict[Any, str]]:
    """Return the names of processes by number, and of threads by numbers of process and thread."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    return processes, threads


def busy_lines(events: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return when every device was at work.

    Args:
      events: of a trace, in the Trace Event Format.

    Returns:
      By the device's name, [n, 2] beginnings and ends in microseconds.
    """
    processes, threads = _names(events)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for event in events:
        if event.get("ph") == "X":
            process, thread = processes.get(event["pid"], ""), threads.get((event["pid"], event["tid"]), "")
            if "/device:" in process and (thread == "XLA Modules" or "Compute" in thread):
                kind = "programs" if thread == "XLA Modules" else "kernels"
            elif "XLA" in thread and event["name"].startswith("ThunkExecutor::Execute"):
                process, kind = "CPU", "programs"
            else:
                continue
            found.setdefault((process, kind), []).append((event["ts"], event["ts"] + event.get("dur", 0)))
    return {f"{process}, {kind}": np.array(spans) for (process, kind), spans in sorted(found.items())}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace."""
    return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def kernels(events: list[dict[str, Any]], num_steps: int, count: int = 16) -> list[str]:
    """Return a line of text for each of the kernels that took a GPU's time most, of equal names but for a number."""
    processes, threads = _names(events)
    found: dict[str, list[float]] = {}
    for event in events:
        line = threads.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") == "X" and "/device:" in processes.get(event["pid"], "") and "Stream" in line:
            found.setdefault(re.sub(r"(_\d+)+$", "", event["name"])[:90], []).append(event.get("dur", 0))
    total = sum(map(sum, found.values())) or 1
    largest = sorted(found.items(), key=lambda item: -sum(item[1]))[:count]
    told = [
        f"{sum(x) / total:6.1%} {sum(x) / 1e3 / num_steps:8.3f} ms a step, {len(x) / num_steps:5.0f} times: {name}"
        for name, x in largest
    ]
    launched = sum(map(len, found.values())) / num_steps
    return [f"all kernels: {total / 1e3 / num_steps:.3f} ms a step, {launched:.0f} of them", *told]


def gaps(spans: np.ndarray) -> np.ndarray:
    """Return the lengths of the pauses between spans [n, 2], which may overlap."""
    spans = spans[np.argsort(spans[:, 0])]
    pauses = spans[1:, 0] - np.maximum.accumulate(spans[:, 1])[:-1]
    return pauses[pauses > 0]


def report(lines: dict[str, np.ndarray], num_steps: int) -> Iterable[str]:
    """Yield a line of text for every line of the trace."""
    for name, spans in lines.items():
        pauses, total = gaps(spans), np.ptp(spans)
        longest = f"; the longest pause {pauses.max() / 1e3:.3f} ms" if len(pauses) else ""
        yield (
            f"{name}: {total / 1e3 / num_steps:.3f} ms a step, idle {pauses.sum() / total:.2%} of the time "
            f"({pauses.sum() / 1e3 / num_steps:.3f} ms a step){longest}"
        )


def main() -> None:
    """Record and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace", description=__doc__.split("\n")[0])
    parser.add_argument("--objective", choices=OBJECTIVES, default="pix2pix")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer; 64 is published")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--log_every", type=int, default=10)
    parser.add_argument("--sample_every", type=int, default=0, help="0: no sample grids while the profiler records")
    parser.add_argument("--rows", type=int, default=10, help="rows of metrics.csv during the recording")
    parser.add_argument("--steps_per_dispatch", type=int, default=0, help="0: what suits the device")
    parser.add_argument("--resident", action="store_true", help="images lie on the device")
    parser.add_argument("--keep", type=Path, help="leave the trace in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = record(args, Path(temporary))
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / path.name).write_bytes(path.read_bytes())
        events = read(path)
    steps = args.rows * args.log_every
    for line in [*report(busy_lines(events), steps), *kernels(events, steps)]:
        print(line)


if __name__ == "__main__":
    main()
