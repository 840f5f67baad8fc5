"""Memory of one training step, and the largest images and batches that a device holds.

    python -m benchmarks.memory [--device TARGET] [--objective NAME ...] [--json FILE]

pix2pix (U-Net-256, 70x70 PatchGAN) and CycleGAN (two ResNet-9, two PatchGANs, pool of 50; with and without the identity
loss) at the published widths; float32 and bfloat16; ``remat`` off and on. The whole step is compiled, with the old
state's memory given to the new one, and XLA's memory analysis says what it holds. Temporary memory is fitted by a line
in batch times pixels through two batches of 256x256; a third point, of larger images, tells how far the line is off.
State and images are counted. The tables follow.

TARGET is the path of a description of a GPU that need not be there, a ``GpuTargetConfigProto`` as XLA's repository has
them (xla/backends/gpu/target_config/specs/h200.txtpb), or the name of a TPU, such as v5e; compiling for them takes
``pip install 'jax[cuda12]'`` or ``'jax[tpu]'``, and ``JAX_PLATFORMS=cpu``. Without TARGET the step is compiled for the
device at hand. A CPU's figures are rougher, and in bfloat16, which it widens, of no use. On an accelerator every point
is run as well, for the peak that the allocator saw: twice, each time in a process of its own, because in the first the
search for the fastest algorithms takes memory too; the second finds them in the compilation cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from benchmarks.experiments import make_config
from p2p_jax.config import complete, resolve
from p2p_jax.config.options import image_shapes
from p2p_jax.process.compiler_options import QUICK, on_cpu
from p2p_jax.training import parallel

CARDS = (16, 24, 80, 141)
"""Memory of devices in GiB (makers say GB)."""
USABLE = 0.9
"""Share of it that a step may take: the rest is for the runtime, workspaces of convolutions and what lies unused."""
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "pix2pix": {"objective": "pix2pix"},
    "cyclegan": {"objective": "cyclegan", "identity": True},
    "cyclegan without identity": {"objective": "cyclegan", "identity": False},
}
POINTS = {"pix2pix": ((256, 16), (256, 64), (1024, 4)), "cyclegan": ((256, 4), (256, 12), (512, 3))}
"""Sizes and batches: two for the line, one to check it."""
MULTIPLES = {"pix2pix": 256, "cyclegan": 64}
"""The sides of the table are multiples of these."""


class Memory(NamedTuple):
    """Bytes of one compiled step: ``state`` comes in and goes out in one place, `images` come in."""

    state: int
    images: int
    temporary: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(self)


class Line(NamedTuple):
    """Temporary bytes as ``fixed + per_pixel * batch * pixels``."""

    fixed: float
    per_pixel: float


def with_remat(config: ConfigDict, remat: bool) -> ConfigDict:
    """Return the config with its generator's ``remat`` set."""
    given = config.to_dict()
    return complete(given | {"generator": given["generator"] | {"remat": remat}})


def describe(target: str) -> list:
    """Return the devices of a machine that need not be there; see the top of this file."""
    from jax.experimental import topologies

    if not Path(target).is_file():
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # do not look for a TPU in the network
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")  # of the machine at hand, which has none
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        return topologies.get_topology_desc(f"{target}:2x2", "tpu").devices
    text = Path(target).read_text()
    return topologies.get_topology_desc("gpu", "cuda", topology="1x1x1", target_config=text).devices


def shapes_of(config: ConfigDict) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """Return shapes and dtypes of the state and of a batch."""
    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.float32)
        for name, shape in image_shapes(config.data).items()
    }
    return jax.eval_shape(resolve(config.objective)(config).init, jax.random.key(0), batch), batch


def size_of(shapes: Any) -> int:
    """Return the bytes of a tree of shapes and dtypes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def lower_step(config: ConfigDict, devices: list | None = None) -> jax.stages.Lowered:
    """Lower the training step as accelerators get it, for one device: of `devices`, or the first at hand."""
    update, (state, batch) = resolve(config.objective)(config).update, shapes_of(config)
    mesh = Mesh(np.array((devices or jax.devices())[:1]), (parallel.DEVICE_AXIS,))
    whole, split = PartitionSpec(), PartitionSpec(parallel.DEVICE_AXIS)
    platform = devices[0].platform if devices else "gpu"
    step = jax.shard_map(update, mesh=mesh, in_specs=(whole, split, whole), out_specs=whole, check_vma=False)
    with mock.patch("jax.default_backend", return_value=platform):  # else a CPU gets forms of its own of many layers
        return jax.jit(step, donate_argnums=0).lower(state, batch, jax.eval_shape(lambda: jax.random.key(0)))


def compile_step(config: ConfigDict, devices: list | None = None) -> jax.stages.Compiled:
    """Compile what ``lower_step`` returns."""
    if devices:
        is_gpu = devices[0].platform == "gpu"
        options: dict[str, Any] = {"xla_gpu_autotune_level": 0} if is_gpu else {}  # which needs the device
    else:
        options = on_cpu(xla_cpu_scheduler_type="CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED", **QUICK)
    return lower_step(config, devices).compile(compiler_options=options)


def analyse(config: ConfigDict, devices: list | None = None) -> Memory:
    """Return what XLA says of the compiled step."""
    found = compile_step(config, devices).memory_analysis()
    returned = found.output_size_in_bytes - found.alias_size_in_bytes  # metrics, unless the state is not taken over
    images = size_of(shapes_of(config)[1])
    return Memory(found.argument_size_in_bytes - images, images, found.temp_size_in_bytes + returned)


def fit(points: list[tuple[ConfigDict, Memory]]) -> Line:
    """Return the line through two points."""
    (x0, y0), (x1, y1) = [(c.batch_size * c.data.crop_size**2, memory.temporary) for c, memory in points]
    slope = (y1 - y0) / (x1 - x0)
    return Line(y0 - slope * x0, slope)


def predict(line: Line, config: ConfigDict) -> Memory:
    """Return the memory of a step by the line, with state and images counted."""
    state, batch = map(size_of, shapes_of(config))
    return Memory(state, batch, round(line.fixed + line.per_pixel * config.batch_size * config.data.crop_size**2))


def largest(line: Line, experiment: dict[str, Any], gib: float) -> dict[str, int]:
    """Return the largest square image at batch 1 and the largest batch at 256x256 that fit; 0: none does."""
    state, step = {}, MULTIPLES[experiment["objective"]]

    def fits(size, batch):
        if size not in state:
            state[size] = size_of(shapes_of(make_config(size=size, **experiment))[0])
        pixels = batch * size**2
        return state[size] + pixels * (2 * 3 * 4 + line.per_pixel) + line.fixed <= USABLE * gib * 2**30

    size, batch = 0, 0
    while fits(size + step, 1):
        size += step
    while fits(256, batch + 1):
        batch += 1
    return {"size": size, "batch": batch}


def run_steps(name: str, size: int, batch: int, dtype: str, remat: bool) -> int:
    """Train three steps on the device at hand; returns the most bytes that its allocator has given away."""
    config = with_remat(make_config(size=size, batch=batch, dtype=dtype, **EXPERIMENTS[name]), remat)
    objective = resolve(config.objective)(config)
    images = {key: np.zeros(x.shape, np.float32) for key, x in shapes_of(config)[1].items()}
    state = parallel.replicate(jax.jit(objective.init)(jax.random.key(0), images))
    update = parallel.shard_map_update(objective.update, jax.local_devices()[:1])
    for _ in range(3):
        state = jax.block_until_ready(update(state, images, jax.random.key(1)))[0]
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def measure(name: str, *point: Any) -> list[int] | None:
    """Return the peaks of two processes that run a point, or None where it does not fit."""
    peaks = []
    with tempfile.TemporaryDirectory() as cache:
        keep = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for _ in range(2):
            command = [sys.executable, "-m", "benchmarks.memory", "--run", json.dumps([name, *point])]
            environment = os.environ | keep | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                return None
            peaks.append(int(done.stdout.split()[-1]))
    return peaks


def rows(names: list[str], dtypes: list[str], devices: list | None, *, on_device: bool) -> Iterator[dict[str, Any]]:
    """Yield one result for each experiment, dtype and choice of ``remat``."""
    for name in names:
        experiment = EXPERIMENTS[name]
        for dtype, remat in [(dtype, remat) for dtype in dtypes for remat in (False, True)]:
            points = []
            for size, batch in POINTS[experiment["objective"]]:
                config = with_remat(make_config(size=size, batch=batch, dtype=dtype, **experiment), remat)
                points.append((config, analyse(config, devices)))
            line = fit(points[:2])
            (config, found), guess = points[2], predict(line, points[2][0])
            yield {
                "experiment": name,
                "dtype": dtype,
                "remat": remat,
                "points": [[c.data.crop_size, c.batch_size, memory._asdict()] for c, memory in points],
                "line": line._asdict(),
                "found_of_predicted": found.total / guess.total,
                "largest": {gib: largest(line, experiment, gib) for gib in CARDS},
                "measured": on_device
                and [measure(name, size, batch, dtype, remat) for size, batch in POINTS[experiment["objective"]]],
            }


def show(row: dict[str, Any]) -> str:
    """Return a row of the table in Markdown."""
    state = row["points"][0][2]["state"] / 2**30
    mib = row["line"]["per_pixel"] * 256**2 / 2**20
    cells = [f"{best['size']} / {best['batch']}" for best in row["largest"].values()]
    first = [row["experiment"], row["dtype"], "on" if row["remat"] else "off", f"{state:.2f}", f"{mib:.0f}"]
    text = " | ".join([*first, *cells, f"{row['found_of_predicted']:.2f}"])
    if row["measured"]:
        text += f" | measured {row['measured']}"
    return f"| {text} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n")[0])
    parser.add_argument("--objective", nargs="*", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--dtype", nargs="*", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--device", default="", help="description of a GPU, or name of a TPU, that need not be there")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(run_steps(*args.run))
        return
    devices = describe(args.device) if args.device else None
    cards = " | ".join(f"{gib} GB" for gib in CARDS)
    print(f"| experiment | dtype | remat | state, GiB | MiB an image of 256x256 | {cards} | found / line |")
    print("|" + "---|" * (6 + len(CARDS)))
    results = []
    on_device = jax.default_backend() != "cpu" and not devices
    for row in rows(args.objective, args.dtype, devices, on_device=on_device):
        results.append(row)
        print(show(row), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
