"""Time one training step of p2p_jax beside the same step in eager PyTorch.

    python -m benchmarks.train_step [--objective pix2pix|cyclegan] [--size 256] [--batch 1] [--repeats 20] [--json FILE]

Published widths, float32, dropout on, random images; on a GPU if both libraries see one, else on the CPU. Each library
lives in a process of its own, with its own thread pool; they take turns, one step each, while the other waits for its
line on a pipe. So whatever else the machine does meets both alike, and the ratio of a round is more trustworthy than
either time.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np


def random_pair(size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two image batches, [batch, size, size, 3] float32 in [-1, 1]."""
    random = np.random.RandomState(0)
    real_a, real_b = random.uniform(-1, 1, (2, batch, size, size, 3)).astype(np.float32)
    return real_a, real_b


def pix2pix_config(size: int, batch: int):
    """Return the published pix2pix experiment at another size."""
    from p2p_jax.config import complete

    num_downs = min(8, size.bit_length() - 1)
    return complete(
        {
            "objective": "p2p_jax:pix2pix",
            "batch_size": batch,
            "data": {"load_size": size, "crop_size": size},
            "generator": {"num_downs": num_downs},
        }
    )


def cyclegan_config(size: int, batch: int):
    """Return the published CycleGAN experiment, identity loss included, at another size."""
    from p2p_jax.config import complete

    return complete(
        {
            "objective": "p2p_jax:cyclegan",
            "batch_size": batch,
            "data": {"load_size": size, "crop_size": size},
            "generator": {"network": "p2p_jax.nets:ResNet", "num_blocks": 9},
            "discriminator": {"network": "p2p_jax.nets:PatchGAN", "receptive_field": 70, "norm": "instance"},
            "loss": {"lambda_identity": 0.5, "pool_size": 50},
        }
    )


def jax_step(config) -> Callable[[], object]:
    """Return a function that trains an objective for one step, compiled as training does it."""
    import jax

    from p2p_jax import parallel
    from p2p_jax.config import resolve

    objective = resolve(config.objective)(config)
    real_a, real_b = random_pair(config.data.crop_size, config.batch_size)
    batch = {"real_a": real_a, "real_b": real_b}
    state = parallel.replicate(jax.jit(objective.init)(jax.random.key(0), batch))
    update = parallel.compile_update(objective.update)

    def step():
        nonlocal state
        state, metrics, _ = update(state, batch, jax.random.key(1))
        return jax.block_until_ready((state, metrics))[1]

    return step


def torch_step(update: Callable, networks: list, pair: tuple[np.ndarray, np.ndarray]) -> Callable[[], object]:
    """Return a function that runs ``update(*networks, gen_opt, disc_opt, real_a, real_b)`` on the device at hand.

    Args:
      update: a training step of ``torch_twin``.
      networks: its networks, generators in the first half, discriminators in the second.
      pair: image batches, which travel to the device at every step as they do in training.
    """
    import torch

    from benchmarks import torch_twin

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # as in the PyTorch release
    for network in networks:
        torch_twin.init_weights(network)
        network.to(device)
    half = len(networks) // 2
    optimizers = torch_twin.make_adam(*networks[:half]), torch_twin.make_adam(*networks[half:])
    images = [torch.from_numpy(x).permute(0, 3, 1, 2).contiguous() for x in pair]

    def step():
        losses = update(*networks, *optimizers, *(x.to(device) for x in images))
        if device == "cuda":
            torch.cuda.synchronize()
        return losses

    return step


def torch_pix2pix(size: int, batch: int) -> Callable[[], object]:
    """Return eager PyTorch's pix2pix step."""
    import torch

    from benchmarks import torch_twin

    torch.manual_seed(0)
    num_downs = pix2pix_config(size, batch).generator.num_downs
    networks = [torch_twin.UNet(num_downs=num_downs), torch_twin.PatchGAN()]
    return torch_step(torch_twin.pix2pix_step, networks, random_pair(size, batch))


def torch_cyclegan(size: int, batch: int) -> Callable[[], object]:
    """Return eager PyTorch's CycleGAN step."""
    import torch

    from benchmarks import torch_twin

    torch.manual_seed(0)
    networks = [torch_twin.ResNet() for _ in range(2)]
    networks += [torch_twin.PatchGAN(in_channels=3, norm="instance") for _ in range(2)]
    pools = {name: torch_twin.HistoryPool() for name in ("pool_a", "pool_b")}
    return torch_step(partial(torch_twin.cyclegan_step, **pools), networks, random_pair(size, batch))


STEPS = {
    "pix2pix": {"jax": lambda *sizes: jax_step(pix2pix_config(*sizes)), "torch": torch_pix2pix},
    "cyclegan": {"jax": lambda *sizes: jax_step(cyclegan_config(*sizes)), "torch": torch_cyclegan},
}


def both_see_gpu() -> bool:
    """Tell whether JAX's default device is a GPU and PyTorch has one."""
    import jax
    import torch

    return jax.default_backend() == "gpu" and torch.cuda.is_available()


def gpu_peak(library: str) -> int:
    """Return the most bytes that a library's arrays have taken on the GPU; 0 without one."""
    if library == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def work(args: argparse.Namespace) -> None:
    """Run one step per line on standard input; answer with its seconds and the peak memory so far, as JSON."""
    step = STEPS[args.objective][args.worker](args.size, args.batch)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}  # KiB on Linux
        peak["gpu"] = gpu_peak(args.worker) / 2**30
        print(json.dumps({"seconds": seconds, "peak_gib": peak}), flush=True)


def start_worker(args: argparse.Namespace, library: str, device: str) -> Callable[[], dict]:
    """Start a process for one library on "cpu" or "gpu"; returns a function that has it run a step."""
    options = f"--objective {args.objective} --size {args.size} --batch {args.batch} --worker {library}".split()
    command = [sys.executable, "-m", "benchmarks.train_step", *options]
    environment = os.environ | ({} if device == "gpu" else {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""})
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def turn():
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("step\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"the {library} process ended with {process.wait()}")
        return json.loads(answer)

    return turn


def summarise(
    args: argparse.Namespace, device: str, seconds: dict[str, list[float]], peak: dict[str, dict[str, float]]
) -> dict:
    """Return what the benchmark reports."""
    ratios = np.array(seconds["jax"]) / np.array(seconds["torch"])
    return {
        "objective": args.objective,
        "device": device,
        "size": args.size,
        "batch": args.batch,
        "repeats": args.repeats,
        "ratio_median": float(np.median(ratios)),
        "ratio_quartiles": [float(q) for q in np.quantile(ratios, [0.25, 0.75])],
        "ratio_of_minima": min(seconds["jax"]) / min(seconds["torch"]),
        "seconds_median": {library: float(np.median(times)) for library, times in seconds.items()},
        "seconds_min": {library: min(times) for library, times in seconds.items()},
        "peak_gib": peak,
        "versions": {name: version(name) for name in ("jax", "flax", "torch")} | {"python": platform.python_version()},
    }


def main() -> None:
    """Run the benchmark, or with ``--worker`` one library's side of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__.split("\n")[0])
    parser.add_argument("--objective", choices=STEPS, default="pix2pix")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20, help="rounds; two more warm up")
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    parser.add_argument("--worker", choices=("jax", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return

    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX would take most of a GPU that the libraries share
    device = "gpu" if both_see_gpu() else "cpu"
    turns = {library: start_worker(args, library, device) for library in ("jax", "torch")}
    seconds: dict[str, list[float]] = {library: [] for library in turns}
    peak: dict[str, dict[str, float]] = {}
    for i in range(2 + args.repeats):
        for library, turn in turns.items():
            answer = turn()
            peak[library] = answer["peak_gib"]
            if i >= 2:
                seconds[library].append(answer["seconds"])
    result = summarise(args, device, seconds, peak)
    low, high = result["ratio_quartiles"]
    print(f"{args.objective} on {device}, {args.size}x{args.size}, batch {args.batch}, {args.repeats} rounds")
    for library in turns:
        on_gpu = f" and {peak[library]['gpu']:.2f} on the GPU" if device == "gpu" else ""
        print(
            f"  {library:5}  {result['seconds_median'][library]:.3f} s a step (fastest "
            f"{result['seconds_min'][library]:.3f}), peak memory {peak[library]['host']:.2f} GiB{on_gpu}"
        )
    print(f"  jax / torch: {result['ratio_median']:.2f} (quartiles {low:.2f} to {high:.2f})")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
