"""What XLA's flags and forms of the step gain on a GPU: milliseconds a step, one variant after the other.

    python -m benchmarks.lab --output lab.json [--minutes 9] [--settings "cyclegan 1 float32,pix2pix 64 bfloat16"]

Each setting (objective, batch, dtype) is a process of its own, in which every variant is compiled with its own options;
so the search for the fastest algorithms of a convolution is done once. One that fails is left out by name; a process
that dies, or takes more than ``--seconds`` over a variant, is started again behind it. ``lab.json`` grows with every
variant, and the same command run again does those that are missing. With ``--profile`` a setting's process ends with
ten steps under the profiler: the largest kernels and the share of gaps. ``--smoke`` rehearses with toy sizes.
"""

import argparse
import contextlib
import functools
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from unittest import mock

import numpy as np

from benchmarks import turns
from benchmarks.experiments import make_config

BUFFERS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION"  # what command buffers hold by default
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "sums in one step": {"sums": "one step"},
    "borders of two copies": {"borders": "two copies"},
    "real and generated images judged one after the other": {"judging": "twice"},
    "convolutions in command buffers": {"xla_gpu_enable_command_buffer": f"{BUFFERS},CONVOLUTION"},
    "convolutions and loops in command buffers": {"xla_gpu_enable_command_buffer": f"{BUFFERS},CONVOLUTION,WHILE"},
    "cuDNN fusions": {"xla_gpu_experimental_enable_conv_fusion": True},
    "channels first": {"xla_gpu_force_conv_nchw": True},
    "one step a dispatch": {"steps": 1},
    "one step a dispatch, convolutions in command buffers": {
        "steps": 1,
        "xla_gpu_enable_command_buffer": f"{BUFFERS},CONVOLUTION",
    },
    "fusions of several outputs": {"xla_gpu_experimental_enable_same_shape_multi_output_fusion": True},
    "fusions autotuned": {"xla_gpu_experimental_enable_fusion_autotuner": True},
    "fusions by Triton": {"xla_gpu_experimental_enable_fusion_block_level_rewriter": True},
    "true float32": {"precision": "highest"},
    "products in bfloat16": {"precision": "bfloat16"},
    "every convolution by cuDNN": {"products": -1},
    "larger maps as matrix products": {"products": 256},
    "larger maps as matrix products, cuDNN fusions": {
        "products": 256,
        "xla_gpu_experimental_enable_conv_fusion": True,
    },
    "norms in two passes": {"moments": "two passes"},
    "deterministic": {"xla_gpu_exclude_nondeterministic_ops": True},
    "no command buffers": {"xla_gpu_enable_command_buffer": ""},
    "as it is, again": {},
}
SETTINGS = ("cyclegan 1 float32", "pix2pix 1 float32", "cyclegan 16 bfloat16", "pix2pix 64 bfloat16")


def run_setting(setting: str, names: list[str], smoke: bool, profile: bool) -> None:
    """Time variants in this process; print a JSON line for each, before and after."""
    import jax

    from benchmarks import cost
    from benchmarks.train_step import random_pair
    from p2p_jax.config import resolve
    from p2p_jax.nets import PatchGAN, convolution, maps
    from p2p_jax.training import parallel
    from p2p_jax.training.dispatches import num_steps

    def two_passes(x, axes):
        mean = x.mean(axes, keepdims=True)
        return mean, jax.numpy.square(x - mean).mean(axes, keepdims=True)

    def small(pixels, steps, most):
        return math.prod(steps) <= min(most, pixels)

    objective, batch, dtype = setting.split()
    size, width = (32, 4) if smoke else (256, 64)
    config = make_config(objective, size, int(batch), dtype=dtype, width=width)
    device = jax.devices()[0]
    peak = cost.find_peak(device.device_kind) or cost.measure_peak()
    gflop = 2 * cost.describe(config, peak)["gmac"]
    made = resolve(config.objective)(config)
    images = dict(zip(("real_a", "real_b"), random_pair(size, config.batch_size), strict=True))
    first = jax.device_get(jax.jit(made.init)(jax.random.key(0), images))
    arrays, rng = jax.device_put(images), jax.random.key(1)

    def draw(arrays, positions):
        return arrays

    for name in names:
        print(json.dumps({"begins": name}), flush=True)
        options = dict(VARIANTS[name])
        steps = options.pop("steps", 0) or num_steps(config)
        precision = options.pop("precision", None)
        pixels = options.pop("products", 0)
        product = functools.partial(small, pixels) if pixels else convolution._as_product
        moments = two_passes if options.pop("moments", None) else maps.moments
        least = math.inf if options.pop("sums", None) else maps._LEAST
        reflect = maps._pad if options.pop("borders", None) else maps.reflect
        alone = False if options.pop("judging", None) else PatchGAN.sees_images_alone
        started = time.perf_counter()
        try:
            with (
                jax.default_matmul_precision(precision) if precision else contextlib.nullcontext(),
                mock.patch.object(maps, "moments", moments),
                mock.patch.object(maps, "_LEAST", least),
                mock.patch.object(maps, "reflect", reflect),
                mock.patch.object(PatchGAN, "sees_images_alone", alone),
                mock.patch.object(convolution, "_as_product", product),
            ):
                step = parallel.shard_map_update(made.update, None, steps, draw, config.batch_size, options)
                state, metrics, _ = step.run(parallel.replicate(first), arrays, rng)
                jax.block_until_ready(state)
                compiled_s = time.perf_counter() - started
                losses = {key: float(value) for key, value in sorted(metrics.items())}
                seconds = []
                dispatches = 1 if smoke else max(2, -(-32 // (steps * config.batch_size)))
                for _ in range(2 if smoke else 6):
                    started = time.perf_counter()
                    for _ in range(dispatches):
                        state, metrics, _ = step.run(state, arrays, rng)
                    jax.block_until_ready((state, metrics))
                    seconds.append((time.perf_counter() - started) / dispatches / steps)
        except Exception as error:  # whatever it is, the next variant may run
            print(json.dumps({"ends": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}), flush=True)
            continue
        ms = 1e3 * float(np.median(seconds[1:]))
        result = {
            "ms": ms,
            "least_ms": 1e3 * min(seconds),
            "share_of_peak": gflop * 1e9 / (ms / 1e3) / peak.flops[dtype],
            "compile_s": compiled_s,
            "steps_per_dispatch": steps,
            "losses": losses,
            "peak_gib": (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30,
            "device": device.device_kind,
        }
        print(json.dumps({"ends": name, "result": result}), flush=True)
        del state, metrics
    if profile:
        step = parallel.shard_map_update(made.update, None, 1, draw, config.batch_size)
        print(json.dumps({"profile": profile_of(step, parallel.replicate(first), arrays, rng)}), flush=True)


def profile_of(step: Any, state: Any, arrays: Any, rng: Any, num_steps: int = 10) -> dict[str, list[str]]:
    """Run steps under the profiler; return lines on the largest kernels and on the gaps between programs."""
    import jax

    from benchmarks import trace

    state, *_ = step.run(state, arrays, rng)
    jax.block_until_ready(state)  # compiled
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(num_steps):
                state, *_ = step.run(state, arrays, rng)
            jax.block_until_ready(state)
        events = trace.read(max(Path(folder).glob("**/*.trace.json.gz")))
    gaps = [*trace.report(trace.busy_lines(events), num_steps)]
    return {"kernels": trace.kernels(events, num_steps), "gaps": gaps}


def follow(setting: str, names: list[str], args: argparse.Namespace, ends: float, keep: Callable) -> None:
    """Run a setting's process until its work, a variant's time or all time is used up, and keep what it tells."""
    command = [sys.executable, "-m", "benchmarks.lab", "--run", setting, "--names", json.dumps(names)]
    command += [f"--{name}" for name in ("smoke", "profile") if getattr(args, name)]
    with open(args.output.with_suffix(".log"), "a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=turns.environment())
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_put_lines, args=(process.stdout, lines), daemon=True).start()
    begun, late = "", ""
    try:
        while True:
            limit = min(args.seconds, ends - time.monotonic())
            line = lines.get(timeout=max(limit, 0.1))
            if line is None:
                break
            said = json.loads(line) if line.startswith("{") else {}
            begun = said.get("begins", "" if said else begun)
            if "ends" in said:
                keep(said["ends"], said.get("result") or {"error": said["error"]})
            elif "profile" in said:
                keep("profile", said["profile"])
    except queue.Empty:
        late = f"not done after {limit:.0f} s"
        process.kill()
    process.wait()
    if begun and time.monotonic() < ends:  # what all time did not suffice for is tried again another day
        keep(begun, {"error": late or f"its process ended with {process.returncode}"})


def _put_lines(stream: IO[str], lines: queue.SimpleQueue) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("lab.json"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--seconds", type=float, default=90, help="for one variant, with compiling")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="objective, batch and dtype; with commas")
    parser.add_argument("--variants", default="", help="beginnings of names, with semicolons; all by default")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--profile", action="store_true", help="of every setting, at its end")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--names", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_setting(args.run, args.names, args.smoke, args.profile)
        return
    ends = time.monotonic() + 60 * args.minutes
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    chosen = tuple(args.variants.split(";"))
    wanted = [name for name in VARIANTS if name.startswith(chosen)]
    for setting in args.settings.split(","):
        found = results.setdefault(setting, {})

        def keep(name, result, found=found, setting=setting):
            found[name] = result
            args.output.write_text(json.dumps(results, indent=1) + "\n")
            if name == "profile":
                print(f"{setting}, profile:", *result["gaps"], *result["kernels"], sep="\n    ", flush=True)
            elif "error" in result:
                print(f"{setting}, {name}: {result['error']}", flush=True)
            else:
                base = found.get("as it is", {}).get("ms", result["ms"])
                print(
                    f"{setting}, {name}: {result['ms']:.2f} ms a step, {result['ms'] / base:.2f} of the first, "
                    f"{result['share_of_peak']:.1%} of peak, {result['peak_gib']:.1f} GiB, "
                    f"compiled in {result['compile_s']:.0f} s",
                    flush=True,
                )

        while missing := [name for name in wanted if name not in found]:
            left = ends - time.monotonic()
            if left < 10:
                print(f"{setting}: no time for {', '.join(missing)}")
                break
            before = len(found)
            follow(setting, missing, args, ends, keep)
            if len(found) == before:
                print(f"{setting}: nothing came, see {args.output.with_suffix('.log')}", file=sys.stderr)
                break


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
