"""Everything worth measuring on an accelerator, in one command; needs no TensorFlow, and PyTorch only for the twins.

    python -m benchmarks.accelerator --data FOLDER --output results [--minutes 30] [--num_steps 80000] [--parts ...]

FOLDER holds the CMP facades side by side (``train/``, ``val/``). The parts, in this order:

- "facades float32", "facades bfloat16": configs/facades.py with resident data, the whole published schedule;
- "pix2pix float32 batch 1" and so on: one step of either objective at batch 1, 16 and 64 in either dtype, beside
  PyTorch eager and its best on the same device.

Each is a process of its own: one that fails, for want of memory say, is left out by name, and so is what no time is
left for. ``results/accelerator.json`` grows with every part; the same command run again does those that are missing.
``--smoke`` is a rehearsal in a minute on any machine, with toy sizes and images of its own.
"""

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks import turns

DTYPES = ("float32", "bfloat16")
BATCHES = (1, 16, 64)
_STEP = re.compile(r"step ([\d,]+)/[\d,]+ ")


def parts(twins: str, smoke: bool = False) -> dict[str, list[str]]:
    """Return the arguments of every part's module, by name; --data, --output and --json are yet to be added."""
    here = [f"facades {dtype}" for dtype in DTYPES]
    found = {name: ["benchmarks.accelerator", f"--run={name.split()[1]}"] for name in here}
    for objective in ("pix2pix", "cyclegan"):
        for dtype in DTYPES:
            for batch in BATCHES[:1] if smoke else BATCHES:
                given = [f"--objective={objective}", f"--dtype={dtype}", f"--batch={batch}", "--resident"]
                # With CUDA graphs PyTorch starts as many kernels at once as there are; it matters in small batches.
                given += [f"--twins={twins}" + (",graphs" if batch == 1 and "best" in twins else "")]
                if smoke:
                    given += ["--size=32", "--width=4", "--repeats=1"]
                else:
                    given += ["--repeats=8", "--steps_per_dispatch=0"]
                    given += ["--alone"] if batch > 1 else []  # together they would not fit
                found[f"{objective} {dtype} batch {batch}"] = ["benchmarks.train_step", *given]
    return found


def make_facades(folder: Path, count: int = 6, side: int = 40) -> None:
    """Write pairs of smooth noise, side by side, into train/ and val/."""
    from PIL import Image

    random = np.random.RandomState(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            small = (Image.fromarray(random.randint(0, 256, (8, 8, 3), np.uint8)) for _ in "AB")
            halves = [np.asarray(image.resize((side, side))) for image in small]
            Image.fromarray(np.concatenate(halves, axis=1)).save(folder / split / f"{i}.jpg")


def facades_arguments(args: argparse.Namespace, dtype: str) -> list[str]:
    """Return the arguments of ``p2p_jax.main`` that train on the facades."""
    options = {
        "data.source": "side_by_side",
        "data.dir": args.data,
        "data.resident": True,
        "dtype": dtype,
        "num_steps": args.num_steps,
    }
    if args.smoke:
        options |= {"data.load_size": 36, "data.crop_size": 32, "log_every": 2, "sample_every": 4, "eval_every": 4}
        options |= {"checkpoint_every": 4, "generator.num_downs": 5, "discriminator.receptive_field": 34}
        options |= {"generator.base_width": 4, "discriminator.base_width": 4}
    workdir = args.output / f"facades_{dtype}"
    config = Path(__file__).parent.parent / "configs" / "facades.py"
    return [
        *("--config", str(config), "--workdir", str(workdir)),
        *(f"--config.{name}={value}" for name, value in options.items()),
    ]


def train_facades(args: argparse.Namespace) -> None:
    """Train as the command line does, then write what only this process can tell."""
    from p2p_jax import main
    from p2p_jax.training.checkpoint import read_config, saved_steps

    workdir = args.output / f"facades_{args.run}"
    resumed_at = max(saved_steps(workdir), default=0) if workdir.exists() else 0
    main.run(facades_arguments(args, args.run))

    import jax

    from benchmarks import cost

    config, device = read_config(workdir), jax.devices()[0]
    with open(workdir / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["eval/l1"]]
    peak = cost.find_peak(device.device_kind) or cost.measure_peak()
    result = {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "num_steps": config.num_steps,
        "resumed_at": resumed_at,
        "evaluations": [{k: float(v) for k, v in row.items() if k == "step" or k.startswith("eval/")} for row in rows],
        "peak_gib": {
            "host": turns.host_peak(),
            "device": (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30,
        },
        "cost": cost.describe(config, peak),
    }
    last = max((workdir / "samples").glob("*.png"))
    shutil.copy(last, args.output / f"facades_{args.run}_{last.name}")
    turns.report(result, args.json)


def follow(command: list[str], log: Path, seconds: float) -> tuple[list[tuple[float, str]], str]:
    """Run a command on one device for at most so many seconds; print and keep what it says.

    Returns:
      Every line with the seconds after which it came, and why the command failed, "" if it did not.
    """
    started, lines, late = time.monotonic(), [], threading.Event()
    environment = turns.environment(1)
    environment.pop("XLA_PYTHON_CLIENT_PREALLOCATE")  # a run has the device to itself; workers say what they need
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment,
    )

    def stop():
        late.set()
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        with process, open(log, "w") as file:
            for line in process.stdout:
                lines.append((time.monotonic() - started, line.rstrip()))
                print(f"{lines[-1][0]:8.1f} {line}", end="", file=file, flush=True)
                print(f"    {line}", end="", flush=True)
    finally:
        timer.cancel()
    if late.is_set():
        return lines, f"stopped after {seconds:.0f} s: the time was used up"
    last = next((line for _, line in reversed(lines) if line), "it said nothing")
    return lines, f"ended with {process.returncode}: {last[:300]}" if process.returncode else ""


def speed(lines: list[tuple[float, str]]) -> dict[str, float]:
    """Find in the lines of a training run, and the seconds after which they came, how fast it was.

    The first step is not printed: its time is that of the first report less the steps in it, at the later speed.
    """
    result = {"seconds_total": lines[-1][0]}
    reports = [(seconds, int(found[1].replace(",", ""))) for seconds, line in lines if (found := _STEP.match(line))]
    if len(reports) > 1:
        (first_seconds, first), (last_seconds, last) = reports[0], reports[-1]
        result["steps_per_s"] = (last - first) / max(last_seconds - first_seconds, 1e-9)
        result["seconds_to_first_step"] = max(0.0, first_seconds - (first - 1) / result["steps_per_s"])
    return result


def compare_quality(parts: dict[str, dict]) -> dict[str, float]:
    """Return the validation L1 at the end, and at its best, of the runs in either dtype, and their ratios."""
    runs = {dtype: parts.get(f"facades {dtype}", {}).get("evaluations") for dtype in DTYPES}
    if not all(runs.values()):
        return {}
    last = {dtype: run[-1]["eval/l1"] for dtype, run in runs.items()}
    best = {dtype: min(row["eval/l1"] for row in run) for dtype, run in runs.items()}
    result = {f"{dtype}_{kind}_l1": x[dtype] for kind, x in {"final": last, "best": best}.items() for dtype in DTYPES}
    return result | {"bfloat16_over_float32": last["bfloat16"] / last["float32"]}


def run_part(name: str, module: list[str], args: argparse.Namespace, seconds: float) -> tuple[dict, str]:
    """Run one part; returns its result, and why it failed, "" if it did not."""
    stem = name.replace(" ", "_")
    file = args.output / "parts" / f"{stem}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-u", "-m", *module, f"--json={file}"]
    if module[0] == "benchmarks.accelerator":
        command += [f"--data={args.data}", f"--output={args.output}", f"--num_steps={args.num_steps}"]
        command += ["--smoke"] if args.smoke else []
    lines, error = follow(command, args.output / "logs" / f"{stem}.log", seconds)
    if error and not file.exists():
        return {}, error
    result = json.loads(file.read_text())
    if module[0] == "benchmarks.accelerator":
        result |= speed(lines)
        peak = 1e3 * result["cost"]["peak_tflops"] * result["devices"]
        result["share_of_peak"] = 2 * result["cost"]["gmac"] * result.get("steps_per_s", 0.0) / peak
    return result, error


def tell(name: str, part: dict) -> None:
    """Print the figures of a part."""
    if "evaluations" in part:
        print(
            f"{name}: {part['num_steps'] - part['resumed_at']:,} steps in {part['seconds_total']:.0f} s in all, "
            f"{part.get('steps_per_s', 0):.4g} steps/s, first step after {part.get('seconds_to_first_step', 0):.0f} s, "
            f"{part['share_of_peak']:.1%} of peak, {part['peak_gib']['device']:.2f} GiB, "
            f"validation L1 {part['evaluations'][-1]['eval/l1']:.4f}"
        )
        return
    for way, images_per_s in part.get("images_per_s", {}).items():
        ratio = part["ratios"].get(f"jax/{way}")
        print(
            f"{name}, {way}: {images_per_s:.4g} images/s, {part['share_of_peak'][way]:.1%} of peak, "
            f"{part['peak_gib'][way]['device']:.2f} GiB" + (f"; jax/{way} {turns.told(ratio)}" if ratio else "")
        )
    for way, reason in part["left_out"].items():
        print(f"{name}, {way} left out: {reason}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the facades, side by side, with train/ and val/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--num_steps", type=int, default=0, help="of training on the facades; 0: as published")
    parser.add_argument("--minutes", type=float, default=60.0, help="what they do not suffice for is left out")
    parser.add_argument("--parts", default="", help="beginnings of names of parts, with commas; all by default")
    parser.add_argument("--twins", help="of train_step's, with commas; by default eager,best")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, to see that everything runs")
    parser.add_argument("--run", choices=DTYPES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.output = args.output.absolute()
    if args.twins is None:
        args.twins = "eager" if args.smoke else "eager,best"
    args.num_steps = args.num_steps or (8 if args.smoke else 80_000)
    if args.data is None and not args.smoke:
        parser.error("--data is missing: the folder of the facades, with train/ and val/")
    args.data = (args.data or args.output / "toy_data").absolute()
    return args


def main() -> None:
    """Run all parts, or with ``--run`` the training of one."""
    args = parse()
    if args.run:
        train_facades(args)
        return
    for folder in ("parts", "logs"):
        (args.output / folder).mkdir(parents=True, exist_ok=True)
    if args.smoke and not args.data.exists():
        make_facades(args.data)
    file, ends = args.output / "accelerator.json", time.monotonic() + 60 * args.minutes
    known = json.loads(file.read_text()) if file.exists() else {}
    done, asked = known.get("parts", {}), {"smoke": args.smoke, "num_steps": args.num_steps, "twins": args.twins}
    if known.get("asked", asked) != asked:
        raise SystemExit(f"{file} has results of {known['asked']}, not of {asked}: name another --output")
    chosen = tuple(args.parts.split(","))
    left_out = {}
    for name, module in parts(args.twins, args.smoke).items():
        left = ends - time.monotonic()
        if name in done or not name.startswith(chosen):
            continue
        if left < 1:
            left_out[name] = f"not begun: the {args.minutes:g} minutes were used up"
        else:
            print(f"{name}:", flush=True)
            started = time.monotonic()
            result, error = run_part(name, module, args, left)
            if result and not error:
                done[name] = result | {"wall_s": time.monotonic() - started}
            if error:
                left_out[name] = error
        turns.report({"asked": asked, "parts": done, "left_out": left_out, "quality": compare_quality(done)}, file)
    for name, part in done.items():
        tell(name, part)
    for name, reason in left_out.items():
        print(f"{name} left out: {reason}")
    print(f"results are in {file}")


if __name__ == "__main__":
    main()
