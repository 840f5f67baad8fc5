"""Sizes of model files beside a run's directory, the seconds to pack and to open one, and what float16 costs.

    python -m benchmarks.model_files [--configs horse2zebra facades] [--folder FOLDER]

Weights are noise of the published initial spread; the difference of float16 is of a translation of noise at the size of
training, on the scale of grey levels.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import p2p_jax
from p2p_jax.config import to_json
from p2p_jax.inference import Translator
from p2p_jax.interop import pack
from p2p_jax.objectives import blank_batch, make_objective
from p2p_jax.training import model_file
from p2p_jax.training.saving import Checkpoints


def _make_run(folder: Path, name: str) -> Path:
    config = p2p_jax.load_config(name)
    shapes = jax.eval_shape(make_objective(config).init, jax.random.key(config.seed), blank_batch(config))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: (0.02 * rng.standard_normal(x.shape, np.float32)).astype(x.dtype), shapes)
    checkpoints = Checkpoints(folder, config)
    checkpoints.save(0, state, None)
    checkpoints.close()
    (folder / "config.json").write_text(to_json(config))
    return folder


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["horse2zebra", "facades"])
    parser.add_argument("--folder", help="the system's for temporary files by default")
    args = parser.parse_args()
    for name in args.configs:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            run = _make_run(Path(folder) / "run", name)
            size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
            print(f"{name}: directory with one checkpoint {size / 1e6:.1f} MB")
            direction = p2p_jax.load_config(name).data.direction
            for ways in dict.fromkeys(
                (direction, None if len(Translator.from_workdir(run).directions) > 1 else direction)
            ):
                for dtype in ("float32", "float16"):
                    started = time.perf_counter()
                    packed = pack(run, Path(folder) / "model.safetensors", direction=ways, dtype=dtype)
                    packing, started = time.perf_counter() - started, time.perf_counter()
                    model_file.read(packed.path)
                    reading = time.perf_counter() - started
                    told = f"{packed.megabytes:.1f} MB, packed in {packing:.1f} s, read and checked in {reading:.2f} s"
                    levels = f", at most {packed.difference * 127.5:.2f} grey levels" if packed.difference else ""
                    print(f"  {ways or 'both'}, {dtype}: {told}{levels}", flush=True)


if __name__ == "__main__":
    main()
