"""What the digests of a checkpoint cost: seconds of a save and of a check, at the state of the published pix2pix.

    python -m benchmarks.checkpoints [--rounds 5] [--folder FOLDER]

"blocking" is how long the training waits for a save to begin, "done" how long until it is on the disk, in the
background, with digests and without, in turns; "check" is what reading it adds, "restore" what it takes by itself.
Numbers are noise, which compresses as little as trained weights do.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import p2p_jax
from p2p_jax import published
from p2p_jax.config.options import image_shapes
from p2p_jax.training import digests
from p2p_jax.training.checkpoint import restore_part
from p2p_jax.training.saving import Checkpoints


def _state(config):
    """Return a state of the config's objective, of noise."""
    batch = {name: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for name, shape in image_shapes(config.data).items()}
    shapes = jax.eval_shape(p2p_jax.pix2pix(config).init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32).astype(x.dtype)), shapes), shapes


def _seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="on the disk to measure; the system's for temporary files by default")
    args = parser.parse_args()
    config = published.pix2pix()
    state, shapes = _state(config)
    arrays = sum(x.nbytes for x in jax.tree.leaves(state))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for step in range(1, 2 * args.rounds + 1):
            name = "with" if step % 2 else "without"
            write = digests.write if step % 2 else lambda folder: None
            checkpoints = Checkpoints(Path(folder), config)
            with mock.patch.object(digests, "write", write):
                started = time.perf_counter()
                found.setdefault(f"blocking, {name}", []).append(_seconds(lambda: checkpoints.save(step, state, None)))  # noqa: B023
                with mock.patch.object(digests, "complete", digests.complete if step % 2 else lambda folder: None):
                    checkpoints.wait()
                found.setdefault(f"done, {name}", []).append(time.perf_counter() - started)
            checkpoints.close()
            if name == "with":
                saved = Path(folder) / "checkpoints" / str(step)
                found.setdefault("check", []).append(_seconds(lambda: digests.fault(saved)))  # noqa: B023
                restore = lambda: jax.block_until_ready(restore_part(Path(folder), step, shapes))  # noqa: B023, E731
                restore()  # the check is made once in a process
                found.setdefault("restore", []).append(_seconds(restore))
    print(f"{arrays / 1e6:,.0f} MB of arrays; seconds, the median of {args.rounds} rounds and the range")
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
