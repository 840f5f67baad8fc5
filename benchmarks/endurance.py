"""What a process keeps: memory of an evaluation by its number of images, and of trainings by their number.

    python -m benchmarks.endurance evaluate [--images 1000 5000] [--shards N] [--json FILE]
    python -m benchmarks.endurance train [--calls 40] [--json FILE]
    python -m benchmarks.endurance long [--steps 20000] [--images 5000] [--frames 2000] [--json FILE]

`evaluate` runs the command, in a process of its own, on pairs of 256x256 through a tiny network, and tells the most
memory that the process held at any time, and how much comes on with an image. With ``--shards`` the same images are
evaluated in parts, which are merged; the largest part and the merge are told. `train` calls ``p2p_jax.train`` again and
again in one process, and tells after each call the pieces of mapped memory, of which Linux allows a process 65,530, and
the memory that is held. `long` runs commands for long and looks at each every half second: a training of many steps,
a translation of many images, and one of a long video; it tells memory, open files and threads after a quarter of the
time and at the end, and what is on disk.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 256
_EVALUATE = """
import re, sys
from pathlib import Path
from p2p_jax.commands import evaluate
evaluate.run(sys.argv[1:])
# Not getrusage, which counts what the process was before it became this program.
print("peak", re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""
_TINY = {
    "generator": {"num_downs": 3, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4},
    "batch_size": 1,
}


def write_pairs(folder: Path, count: int, first: int = 0) -> None:
    """Write smooth pictures with a little noise, two side by side, each of them another, from number `first` on."""
    folder.mkdir(parents=True)
    for i in range(first, first + count):
        rng = np.random.RandomState(i)
        coarse = (Image.fromarray(rng.randint(0, 256, (8, 8, 3), np.uint8)) for _ in "ab")
        pair = [np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in coarse]
        noisy = np.concatenate(pair, axis=1).astype(np.int16) + rng.randint(-8, 8, (SIZE, 2 * SIZE, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=90)


def make_run(folder: Path, counts: list[int]) -> Path:
    """Train a tiny network for one step, on pairs of which there is a split for every count."""
    from p2p_jax import train

    write_pairs(folder / "data" / "train", 4)
    write_pairs(folder / "data" / "val", 4)
    most = folder / "data" / str(max(counts))
    write_pairs(most, max(counts))
    for count in counts:
        if count != max(counts):
            (folder / "data" / str(count)).mkdir()
            for path in sorted(most.iterdir())[:count]:
                os.link(path, folder / "data" / str(count) / path.name)
    data = {"source": "side_by_side", "dir": str(folder / "data"), "load_size": SIZE, "crop_size": SIZE}
    train(_TINY | {"data": data, "num_steps": 1}, folder / "run")
    return folder / "run"


def peak_of(run: Path, split: str, *options: str) -> dict[str, float]:
    """Evaluate by the command; return seconds and the most memory that was resident, in MB."""
    started = time.monotonic()
    arguments = [sys.executable, "-c", _EVALUATE, str(run), "--split", split, *options]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    kilobytes = int(done.stdout.rpartition("peak ")[2])
    return {"seconds": time.monotonic() - started, "peak MB": kilobytes * 1024 / 1e6}


def evaluations(counts: list[int], shards: int) -> dict[str, Any]:
    """Return what evaluations of the counts of images take."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), counts)
        for count in counts:
            found[f"{count} images"] = _told(f"{count:,} images", peak_of(run, str(count)))
            if shards:
                parts = [peak_of(run, str(count), "--shard", f"{i}/{shards}") for i in range(1, shards + 1)]
                largest = max(parts, key=lambda part: part["peak MB"])
                found[f"{count} images, a part"] = _told(f"{count:,} images, largest of {shards} parts", largest)
                merged = peak_of(run, str(count), "--merge")
                found[f"{count} images, merge"] = _told(f"{count:,} images, merge", merged)
            page = next((run / "evaluation").glob(f"{count}_*/report.html"))
            found[f"{count} images"]["report MB"] = page.stat().st_size / 1e6
            print(f"  report.html has {page.stat().st_size / 1e6:.1f} MB", flush=True)
    if len(counts) > 1:
        few, many = (found[f"{count} images"]["peak MB"] for count in (min(counts), max(counts)))
        found["kB an image"] = (many - few) * 1e3 / (max(counts) - min(counts))
        print(f"{found['kB an image']:.1f} kB come on with an image")
    return found


def _told(name: str, figures: dict[str, float]) -> dict[str, float]:
    print(f"{name}: {figures['peak MB']:,.0f} MB at most, {figures['seconds']:.0f} s", flush=True)
    return figures


def held(process: int | str = "self") -> dict[str, float]:
    """Return what a process holds now: pieces of mapped memory, resident memory in MB, open files and threads."""
    folder = Path("/proc") / str(process)
    pages = int((folder / "statm").read_text().split()[1])
    return {
        "maps": (folder / "maps").read_text().count("\n"),
        "resident MB": pages * resource.getpagesize() / 1e6,
        "files": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
    }


def trainings(calls: int) -> list[dict[str, float]]:
    """Train a tiny network for two steps again and again; return what the process holds after each time."""
    from p2p_jax import train

    data = {"source": "toy_facades", "direction": "BtoA", "load_size": 18, "crop_size": 16}
    config = _TINY | {"data": data, "num_steps": 2, "batch_size": 2}
    found = []
    for i in range(1, calls + 1):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            train(config, folder)
        gc.collect()
        found.append(held())
        if i in (1, 2, 3, 5) or i % 10 == 0:
            print(f"call {i}: {found[-1]['maps']:,} maps, {found[-1]['resident MB']:,.0f} MB", flush=True)
    return found


def long_commands(steps: int, images: int, frames: int) -> dict[str, Any]:
    """Return what trainings, translations of images and of a video hold after a quarter of the time, and later."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder, [images])
        toy = ["--config", "configs/quickstart.py", "--workdir", str(folder / "long"), f"--config.num_steps={steps}"]
        widths = ["--config.generator.base_width=4", "--config.discriminator.base_width=4"]
        intervals = [f"--config.{what}_every={steps // 40}" for what in ("sample", "eval", "checkpoint")]
        train = ["-m", "p2p_jax.main", *toy, *widths, *intervals, "--config.log_every=10"]
        found[f"{steps} steps"] = watched(train, folder / "long")
        translate = ["-m", "p2p_jax", "translate", str(run)]
        photographs = [*translate, str(folder / "data" / str(images)), "--output", str(folder / "translated")]
        found[f"{images} images"] = watched(photographs, folder / "translated")
        write_video(folder / "long.mp4", frames)
        video = [*translate, str(folder / "long.mp4"), "--output", str(folder / "translated.mp4")]
        found[f"{frames} frames"] = watched(video, folder / "translated.mp4")
    for what, figures in found.items():
        print(f"{what}: {figures}", flush=True)
    return found


def write_video(path: Path, frames: int) -> None:
    """Write a video of 128x128 in which a picture moves by a pixel a frame."""
    import av

    still = np.asarray(Image.effect_noise((128, 128), 60).convert("RGB").resize((256, 256)))
    with av.open(str(path), "w") as made:
        video = made.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 128, 128, "yuv420p"
        for i in range(frames):
            picture = np.ascontiguousarray(np.roll(still, i, axis=1)[:128, :128])
            made.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(video.encode())


def watched(arguments: list[str], target: Path) -> dict[str, float]:
    """Run Python to its end; return seconds, what it held after a quarter of the time, at the end and at most."""
    started, seen = time.monotonic(), []
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):  # it may end while it is looked at
            seen.append(held(process.pid))
        time.sleep(0.5)
    if process.returncode:
        sys.exit(process.stderr.read()[-3000:] if process.stderr else "")
    seen = [figures for figures in seen if figures["resident MB"] > 50]
    quarter, last = seen[len(seen) // 4], seen[-2]
    files = [path for path in (target, *target.rglob("*")) if path.is_file()]
    return {
        "seconds": round(time.monotonic() - started),
        **{f"{what}, a quarter": round(value) for what, value in quarter.items()},
        **{f"{what}, end": round(last[what]) for what in last},
        "resident MB, most": round(max(figures["resident MB"] for figures in seen)),
        "files on disk": len(files),
        "MB on disk": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluate", "train", "long"])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000], help="how many are evaluated")
    parser.add_argument("--shards", type=int, default=0, help="evaluate in so many parts as well")
    parser.add_argument("--calls", type=int, default=40, help="of train")
    parser.add_argument("--steps", type=int, default=20_000, help="of the long training")
    parser.add_argument("--frames", type=int, default=2_000, help="of the long video")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    match args.what:
        case "evaluate":
            found: Any = evaluations(args.images, args.shards)
        case "train":
            found = trainings(args.calls)
        case "long":
            found = long_commands(args.steps, max(args.images), args.frames)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
