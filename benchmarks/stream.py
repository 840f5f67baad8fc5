"""Throughput of the data stream: pairs a second, with nothing behind it; no network is run.

    python -m benchmarks.stream --config configs/facades.py --config.data.dir=facades [--before CHECKOUT]

With ``--before`` another checkout of p2p_jax streams the same data in a process of its own; they take turns, and the
figure to trust is the ratio: the median over rounds of this one's throughput divided by the other's. Where images are
kept in memory, later rounds need not read them: ``--config.data.cache_mb=0`` measures reading.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

_WORKER = """
import os, signal, sys, time
from p2p_jax.config import complete, load_with_overrides
from p2p_jax.data import load
config, batches, *overrides = sys.argv[1:]
config = complete(load_with_overrides(config, overrides))
stream = load(config).train(0)
for _ in range(10):
    next(stream)
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(batches)):
        next(stream)
    print(int(batches) * config.batch_size / (time.perf_counter() - start), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)  # by itself and at once: what it would read ahead is not the other's time
"""


class _Worker:
    """A process that streams from one checkout when it is told to."""

    def __init__(self, checkout: Path, args: argparse.Namespace, overrides: list[str]):
        given = [args.config, str(args.batches), f"--config.batch_size={args.batch}", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, *given],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        while (line := self.process.stdout.readline()) != "ready\n":
            if not line:
                raise SystemExit(f"{checkout}: the stream cannot be opened")

    def run(self) -> float:
        """Return pairs a second over one round."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        speed = float(self.process.stdout.readline())
        os.waitpid(self.process.pid, os.WUNTRACED)
        return speed

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=50, help="in a round")
    parser.add_argument("--rounds", type=int, default=10)
    args, overrides = parser.parse_known_args()
    checkouts = [Path(__file__).resolve().parent.parent, *([args.before.resolve()] if args.before else [])]
    workers = [_Worker(checkout, args, overrides) for checkout in checkouts]
    for worker in workers:
        worker.run()
    rounds = np.array([[worker.run() for worker in workers] for _ in range(args.rounds)])
    for worker in workers:
        worker.end()
    for checkout, speed in zip(("this", "before"), np.median(rounds, axis=0), strict=False):
        print(f"{checkout}: {speed:.0f} pairs/s")
    if args.before:
        low, middle, high = np.percentile(rounds[:, 0] / rounds[:, 1], [25, 50, 75])
        print(f"this / before: {middle:.2f} (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
