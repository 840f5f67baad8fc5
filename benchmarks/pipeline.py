"""Pairs a second of the data stream, beside PIL in threads that does the work of the PyTorch release's data set.

    python -m benchmarks.pipeline --data FOLDER [--batch 1] [--pairs 400] [--rounds 10] [--json FILE]

FOLDER holds ``train/`` with side-by-side images. Both read, cut into halves, resize to 286x286, crop 256x256 at random,
mirror at random and give float32 batches in [-1, 1]; no network is run. The stream is timed in its first pass, with
nothing kept in memory, and in later ones. PIL has as many threads as there are cores. Each is a process of its own that
is stopped while another one is timed (Unix); the figure to trust is the ratio of a round.
"""

import argparse
import collections
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import turns
from p2p_jax.process import freed_memory

LOAD, CROP = 286, 256
WAYS = ("first pass", "later passes", "PIL")


def our_stream(folder: Path, batch: int, cache_mb: int) -> Iterator[dict[str, np.ndarray]]:
    """Return p2p_jax's batches of the published preparation."""
    from p2p_jax.config import complete
    from p2p_jax.data import load

    data = {"source": "side_by_side", "dir": str(folder), "direction": "BtoA", "val_split": "", "cache_mb": cache_mb}
    return load(complete({"batch_size": batch, "data": data})).train(0)


def pil_pair(path: Path, seed: int) -> dict[str, np.ndarray]:
    """Prepare one pair as the PyTorch release's data set does."""
    random = np.random.default_rng(seed)
    with Image.open(path) as file:
        image = file.convert("RGB")
    width, height = image.size
    top, left = random.integers(0, LOAD - CROP + 1, 2)
    mirrored = random.random() < 0.5

    def prepare(half: Image.Image) -> np.ndarray:
        half = half.resize((LOAD, LOAD), Image.Resampling.BICUBIC).crop((left, top, left + CROP, top + CROP))
        if mirrored:
            half = half.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(half, np.float32) / 127.5 - 1

    halves = image.crop((0, 0, width // 2, height)), image.crop((width // 2, 0, width, height))
    return {name: prepare(half) for name, half in zip(("real_b", "real_a"), halves, strict=True)}


def pil_stream(folder: Path, batch: int, threads: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield endless shuffled batches of pairs that threads prepare ahead of time."""
    paths = sorted((folder / "train").iterdir())
    random = np.random.default_rng(0)
    order = itertools.chain.from_iterable(random.permutation(len(paths)) for _ in itertools.count())
    with ThreadPoolExecutor(threads) as pool:
        ahead: collections.deque = collections.deque()
        for seed, i in enumerate(order):
            ahead.append(pool.submit(pil_pair, paths[i], seed))
            if len(ahead) >= 4 * threads + batch:
                pairs = [ahead.popleft().result() for _ in range(batch)]
                yield {name: np.stack([pair[name] for pair in pairs]) for name in pairs[0]}


def work(args: argparse.Namespace) -> None:
    """Be one of the processes: for every line on standard input take so many pairs, tell the seconds, stand still."""
    if args.worker == "PIL":
        batches = pil_stream(args.data, args.batch, threads=len(os.sched_getaffinity(0)))
    else:
        freed_memory.keep_freed_memory()  # as training on CPUs does before all else
        batches = our_stream(args.data, args.batch, cache_mb=2048 if args.worker == "later passes" else 0)
    first = next(batches)
    assert all(x.shape == (args.batch, CROP, CROP, 3) and x.dtype == np.float32 for x in first.values())
    warm_up = -(-count_images(args.data) // args.batch) if args.worker == "later passes" else 4
    collections.deque(itertools.islice(batches, warm_up), maxlen=0)
    for line in sys.stdin:
        start = time.perf_counter()
        collections.deque(itertools.islice(batches, int(line) // args.batch), maxlen=0)
        os.write(args.answers, f"{time.perf_counter() - start}\n".encode())
        os.kill(os.getpid(), signal.SIGSTOP)  # by itself and at once: what it would read ahead is not the others' time


def count_images(folder: Path) -> int:
    """Return the number of training images."""
    return len(list((folder / "train").iterdir()))


class Worker:
    """A process that runs one way when it is told to, and stands still while it is not."""

    def __init__(self, way: str, args: argparse.Namespace):
        self.way, (answers, their_end) = way, os.pipe()
        options = ["--data", str(args.data), "--batch", str(args.batch), "--worker", way, "--answers", str(their_end)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pipeline", *options],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=[their_end],
        )
        os.close(their_end)
        self.answers = os.fdopen(answers)

    def take(self, pairs: int) -> float:
        """Return the seconds that so many pairs took."""
        self.process.send_signal(signal.SIGCONT)
        print(pairs, file=self.process.stdin, flush=True)
        answer = self.answers.readline()
        if not answer:
            raise SystemExit(f"{self.way}: the process ended with {self.process.wait()}")
        os.waitpid(self.process.pid, os.WUNTRACED)
        return float(answer)

    def end(self) -> None:
        """Let the process end."""
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Measure and print, or with ``--worker`` be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, side-by-side images")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=400, help="in a turn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return

    workers = [Worker(way, args) for way in WAYS]
    for worker in workers:
        worker.take(args.batch)  # one after the other gets ready
    rounds = [{worker.way: worker.take(args.pairs) for worker in workers} for _ in range(args.rounds)]
    for worker in workers:
        worker.end()

    speeds = {way: turns.spread(args.pairs / seconds[way] for seconds in rounds) for way in WAYS}
    ratios = {way: turns.spread(x["PIL"] / x[way] for x in rounds) for way in WAYS[:2]}
    images = count_images(args.data)
    print(f"{images} images, batch {args.batch}, {len(os.sched_getaffinity(0))} core(s), {args.rounds} rounds")
    for way in WAYS:
        beside = f", {turns.told(ratios[way])} times PIL's" if way in ratios else ""
        print(f"  {way}: {speeds[way]['median']:.0f} pairs/s{beside}")
    result = {"batch": args.batch, "pairs": args.pairs, "rounds": args.rounds, "images": images}
    turns.report(result | {"pairs_per_second": speeds, "times_pil": ratios}, args.json)


if __name__ == "__main__":
    main()
