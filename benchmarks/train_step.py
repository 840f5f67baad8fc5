"""Time a training step of p2p_jax beside the same step in PyTorch.

    python -m benchmarks.train_step [--objective pix2pix|cyclegan] [--size 256] [--batch 1] [--dtype float32|bfloat16]
        [--twins eager,best] [--devices 1] [--resident] [--steps_per_dispatch 1] [--repeats 20] [--json FILE]

Published widths, dropout on, random images, on the device that JAX takes by itself (JAX_PLATFORMS=cpu keeps off a GPU).
Each library and variant lives in a process of its own; they take turns, so that whatever else the machine does meets
all alike, and the ratio of a round is more trustworthy than any time. The twins are "eager", as the PyTorch release
runs; "best": channels-last, torch.compile, fused Adam, TF32; "graphs": with CUDA graphs besides. In bfloat16 they run
under autocast. What cannot be had, for want of memory or of a compiler, is left out by name.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import turns
from benchmarks.experiments import OBJECTIVES, make_config

TWINS = ("eager", "best", "graphs")
_RESIDENT_IMAGES = 64
_WORKERS_OWN = ("worker", "platform", "steps_per_turn")


def random_pair(size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two image batches, [batch, size, size, 3] float32 in [-1, 1]."""
    random = np.random.RandomState(0)
    real_a, real_b = random.uniform(-1, 1, (2, batch, size, size, 3)).astype(np.float32)
    return real_a, real_b


def resident_data(config, folder: Path):
    """Make images for an experiment in a folder, and load them as ``config.data.resident`` does.

    Returns:
      What ``on_device.load`` returns.
    """
    from PIL import Image

    from p2p_jax.config import complete
    from p2p_jax.data import on_device

    random, side = np.random.RandomState(0), config.data.load_size
    paired = config.objective == "p2p_jax:pix2pix"
    for name in ("train",) if paired else ("trainA", "trainB"):
        (folder / name).mkdir()
        for i in range(_RESIDENT_IMAGES):
            smooth = Image.fromarray(random.randint(0, 256, (8, 16 if paired else 8, 3), np.uint8))
            smooth.resize((2 * side if paired else side, side)).save(folder / name / f"{i}.jpg")
    data = {"source": "side_by_side" if paired else "unpaired", "dir": str(folder), "val_split": "", "resident": True}
    return on_device.load(complete({**config.to_dict(), "data": {**config.data.to_dict(), **data}}))


def jax_step(config, *, from_resident: bool = False, num_steps: int = 1) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Compile a training step as training does it.

    Args:
      config: the experiment.
      from_resident: draw batches from resident images inside the step; else one random batch travels every time.
      num_steps: in one dispatch.

    Returns:
      A function that starts a dispatch, and one that waits for all of them.
    """
    import jax

    from p2p_jax.config import resolve
    from p2p_jax.training import parallel

    objective = resolve(config.objective)(config)
    batch = dict(zip(("real_a", "real_b"), random_pair(config.data.crop_size, config.batch_size), strict=True))
    init, rng, results = parallel.compile_init(objective.init), jax.random.key(1), None
    first = jax.random.key(0), batch
    if from_resident:
        # Room to crop, as in training.
        data = {**config.data.to_dict(), "load_size": config.data.crop_size * 286 // 256}
        with tempfile.TemporaryDirectory() as folder:
            found = resident_data(type(config)({**config.to_dict(), "data": data}), Path(folder)).resident
        step = parallel.compile_update(objective.update, found.draw, config.batch_size, num_steps)
        placed = step.place(found.arrays)
    else:
        step = parallel.compile_update(objective.update, num_steps=num_steps)
        batch = {k: np.stack([v] * num_steps) for k, v in batch.items()} if num_steps > 1 else batch
        placed = step.place(batch)
    step.compile(jax.eval_shape(init, *first), placed, rng)
    state = parallel.replicate(init(*first))

    def dispatch():
        nonlocal state, results
        state, *results = step.run(state, placed if from_resident else step.place(batch), rng)

    return dispatch, lambda: jax.block_until_ready((state, results))


def _prepare_jax(args: argparse.Namespace):
    import jax

    from benchmarks import cost
    from p2p_jax.process import freed_memory
    from p2p_jax.training.dispatches import num_steps

    freed_memory.keep_freed_memory()  # as training does before all else
    if jax.device_count() != args.devices:
        raise RuntimeError(f"JAX sees {jax.device_count()} devices, not {args.devices}: see --devices")
    device = jax.devices()[0]
    peak = cost.find_peak(device.device_kind) or cost.measure_peak()
    freed_memory.give_back()  # it is no part of training
    given = {"dtype": args.dtype, "width": args.width, "steps_per_dispatch": args.steps_per_dispatch}
    config = make_config(args.objective, args.size, args.batch, **given)
    per_dispatch = num_steps(config)
    dispatch, wait = jax_step(config, from_resident=args.resident, num_steps=per_dispatch)
    # On accelerators enough without a pause that the host may run ahead of them.
    dispatches = 1 if device.platform == "cpu" else max(4, -(-16 // (args.batch * per_dispatch)))

    freed_memory.give_back()  # as training does before and after the first step
    dispatch()
    wait()
    freed_memory.give_back()

    def turn():
        for _ in range(dispatches):
            dispatch()
        wait()
        on_device = (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30
        return {"peak_gib": {"host": turns.host_peak(), "device": on_device}}

    num_peaks = 1 if device.platform == "cpu" else args.devices  # simulated ones share the machine's
    facts = {
        "platform": device.platform,
        "device": device.device_kind,
        "num_peaks": num_peaks,
        "steps_per_dispatch": per_dispatch,
        "steps_per_turn": per_dispatch * dispatches,
        "cost": cost.describe(config, peak, num_devices=num_peaks),
    }
    return {"step": turn}, facts


def _prepare_torch(args: argparse.Namespace):
    from benchmarks import torch_steps

    device = torch_steps.find_device(args.platform)
    pair = random_pair(args.size, args.batch)
    step = torch_steps.make_step(args.objective, args.worker, pair, device=device, dtype=args.dtype, width=args.width)

    def turn():
        for _ in range(args.steps_per_turn):
            step()
        torch_steps.finish(device)
        return {"peak_gib": {"host": turns.host_peak(), "device": torch_steps.device_peak(device)}}

    return {"step": turn}, {}


def measure(args: argparse.Namespace) -> dict:
    """Run the workers and return what the benchmark reports."""
    options = ("objective", "size", "batch", "dtype", "width", "devices", "steps_per_dispatch")
    given = ["benchmarks.train_step", *(f"--{name}={getattr(args, name)}" for name in options)]
    given += ["--resident"] if args.resident else []
    facts: dict = {}
    answers: dict[str, list[dict]] = {}
    left_out: dict[str, str] = {}
    names = ["jax", *args.twins]
    for group in [[name] for name in names] if args.alone else [names]:
        workers = {}
        for name in group:
            told = [f"--{fact}={facts[fact]}" for fact in ("platform", "steps_per_turn") if facts]
            environment = turns.environment(args.devices if name == "jax" else 1)
            workers[name] = turns.Worker([*given, f"--worker={name}", *told], environment)
            facts = facts or workers["jax"].facts
            if not facts:
                return {"options": _options(args), "left_out": turns.end(workers)}
        answers |= turns.take_turns({name: (worker, "step") for name, worker in workers.items()}, args.repeats)
        left_out |= turns.end(workers)
    return summarise(args, facts, answers, left_out)


def summarise(args: argparse.Namespace, facts: dict, answers: dict[str, list[dict]], left_out: dict[str, str]) -> dict:
    """Return what the benchmark reports of the answers of its workers."""
    seconds = {name: [x["seconds"] / facts["steps_per_turn"] for x in found] for name, found in answers.items()}
    others = [name for name in answers if name != "jax"] if "jax" in answers else []
    result = {
        "options": _options(args),
        **{name: facts[name] for name in ("platform", "device", "steps_per_dispatch", "steps_per_turn", "cost")},
        "seconds": {name: turns.spread(times) | {"least": min(times)} for name, times in seconds.items()},
        "images_per_s": {name: args.batch / float(np.median(times)) for name, times in seconds.items()},
        "peak_gib": {name: found[-1]["peak_gib"] for name, found in answers.items()},
        "ratios": {f"jax/{name}": turns.ratio(answers, "jax", name) for name in others},
        "left_out": left_out,
    }
    peak, gflop = 1e3 * facts["cost"]["peak_tflops"] * facts["num_peaks"], 2 * facts["cost"]["gmac"]
    result["share_of_peak"] = {name: gflop / float(np.median(times)) / peak for name, times in seconds.items()}
    return result


def _options(args: argparse.Namespace) -> dict:
    return {name: value for name, value in vars(args).items() if name not in ("json", *_WORKERS_OWN)}


def tell(result: dict) -> None:
    """Print a result."""
    options = result["options"]
    print(
        f"{options['objective']} on {result.get('device', 'no device')}, {options['size']}x{options['size']}, batch "
        f"{options['batch']}, {options['dtype']}, {options['repeats']} rounds"
    )
    for name, seconds in result.get("seconds", {}).items():
        peak = result["peak_gib"][name]
        on_device = f", {peak['device']:.2f} on the device" if peak["device"] else ""
        print(
            f"  {name:6} {seconds['median']:.4g} s a step (least {seconds['least']:.4g}), "
            f"{result['images_per_s'][name]:.4g} images/s, {result['share_of_peak'][name]:.1%} of peak, "
            f"peak memory {peak['host']:.2f} GiB{on_device}"
        )
    for name, found in result.get("ratios", {}).items():
        print(f"  {name}: {turns.told(found)}")
    for name, reason in result["left_out"].items():
        print(f"  {name} left out: {reason}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--objective", choices=OBJECTIVES, default="pix2pix")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=1, help="images in a step, over all devices")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer of every network")
    parser.add_argument("--devices", type=int, default=1, help="that JAX uses; on a CPU simulated ones")
    parser.add_argument("--resident", action="store_true", help="JAX draws its batches from images on the device")
    parser.add_argument("--steps_per_dispatch", type=int, default=1, help="JAX's, in one call; 0: as in training")
    parser.add_argument("--twins", default="eager", help=f"of {', '.join(TWINS)}, with commas; empty for only JAX")
    parser.add_argument("--alone", action="store_true", help="one process after the other: each has all memory")
    parser.add_argument("--repeats", type=int, default=20, help="rounds; two more warm up")
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    parser.add_argument("--worker", choices=("jax", *TWINS), help=argparse.SUPPRESS)
    parser.add_argument("--platform", help=argparse.SUPPRESS)
    parser.add_argument("--steps_per_turn", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.twins = [name for name in args.twins.split(",") if name]
    if unknown := set(args.twins) - set(TWINS):
        parser.error(f"--twins: there is no {', '.join(sorted(unknown))}; choose of {', '.join(TWINS)}")
    if args.devices > 1 and args.twins:
        parser.error("PyTorch's twins run on one device: add --twins= to time only JAX on several")
    if args.batch % args.devices:
        parser.error(f"--batch {args.batch} does not divide over {args.devices} devices")
    return args


def main() -> None:
    """Run the benchmark, or with ``--worker`` one process's side of it."""
    args = parse()
    if args.worker:
        turns.serve(lambda: (_prepare_jax if args.worker == "jax" else _prepare_torch)(args))
        return
    result = measure(args)
    tell(result)
    turns.report(result, args.json)
    if "jax" in result["left_out"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
