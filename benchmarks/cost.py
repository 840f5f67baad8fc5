"""A model of what a training step costs: arithmetic and memory traffic, and a device's peak.

    python -m benchmarks.cost [--objective pix2pix] [--size 256] [--batch 1,16,64] [--dtype float32] [--xla]

prints the least time that a step can take on each device of the table. Only the convolutions are counted, by the
shapes of the networks: forward, gradient of the kernel, and gradient of the input where somebody needs it. Each such
pass reads its two operands and writes its result once; Adam reads and writes 28 bytes a parameter. All else (norms,
activations, losses) is taken to be fused into these. ``p2p_jax.training.cost`` counts the arithmetic of any objective;
what is read and written by each pass is known only here, and a test holds the two together. ``--xla`` adds what XLA's
own analysis says of the step compiled for the device at hand. On CPUs neither of its figures is the work: products over
patches write the patches first, and calls of libraries and fast algorithms hide arithmetic.
"""

import argparse
import functools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from benchmarks import turns
from benchmarks.experiments import OBJECTIVES, make_config
from p2p_jax.config import complete, resolve
from p2p_jax.config.options import image_shapes
from p2p_jax.nets.layers import Conv
from p2p_jax.objectives import DEVICE_AXIS, make_networks

ADAM_BYTES = 28  # a parameter: itself and two moments, each read and written, and its gradient read


class Peak(NamedTuple):
    """What a device can do at most.

    Attributes:
      flops: dtype -> floating-point operations a second, a multiply-add being two; dense. "float32" is what JAX takes
        by default: TF32 where there is one, bfloat16 products on a TPU.
      bandwidth: bytes a second to and from its memory.
    """

    flops: dict[str, float]
    bandwidth: float


def _peak(float32: float, bfloat16: float, bandwidth: float) -> Peak:
    return Peak({"float32": float32 * 1e12, "bfloat16": bfloat16 * 1e12}, bandwidth * 1e12)


# From the makers' data sheets, without sparsity; keys are how JAX's ``device_kind`` begins, the longest one counts.
PEAKS = {
    "NVIDIA H200": _peak(494.7, 989.4, 4.8),
    "NVIDIA H200 NVL": _peak(417.5, 835.5, 4.8),
    "NVIDIA H100": _peak(494.7, 989.4, 3.35),
    "NVIDIA H100 NVL": _peak(417.5, 835.5, 3.9),
    "NVIDIA H100 PCIe": _peak(378.0, 756.0, 2.0),
    "NVIDIA A100": _peak(156.0, 312.0, 1.555),
    "NVIDIA A100 80GB PCIe": _peak(156.0, 312.0, 1.935),
    "NVIDIA A100-SXM4-80GB": _peak(156.0, 312.0, 2.039),
    "NVIDIA L4": _peak(60.0, 121.0, 0.3),
    "Tesla T4": _peak(8.1, 8.1, 0.32),  # knows neither TF32 nor bfloat16
    "TPU v4": _peak(275.0, 275.0, 1.2288),
    "TPU v5 lite": _peak(197.0, 197.0, 0.819),
    "TPU v5": _peak(459.0, 459.0, 2.765),
    "TPU v6 lite": _peak(918.0, 918.0, 1.64),
}


def find_peak(kind: str) -> Peak | None:
    """Return the peak of a device by JAX's name for it; None if the table lacks it."""
    known = [name for name in PEAKS if kind.startswith(name)]
    return PEAKS[max(known, key=len)] if known else None


def measure_peak(repeats: int = 5) -> Peak:
    """Measure what the device at hand reaches, on a matrix product in each dtype and on one pass over an array."""
    # On accelerators large enough that starting a program does not count.
    side, megabytes = (2048, 128) if jax.default_backend() == "cpu" else (8192, 2048)

    def fastest(function: Any, *args: jax.Array) -> float:
        jax.block_until_ready(function(*args))
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            times.append(time.perf_counter() - start)
        return min(times)

    flops = {}
    for dtype in ("float32", "bfloat16"):
        matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
        flops[dtype] = 2 * side**3 / fastest(jax.jit(jnp.matmul), matrix, matrix)
    array = jnp.ones(megabytes * 2**18, jnp.float32)
    return Peak(flops, 2 * array.nbytes / fastest(jax.jit(lambda x: x + 1), array))


class Layer(NamedTuple):
    """A convolution: multiply-adds of one pass, and the numbers in its input, kernel and output."""

    multiply_adds: int
    numbers: int


@functools.cache
def find_layers(network: nn.Module, shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return the convolutions of a network on images [B, H, W, C], in the order in which they run."""
    found = []

    def note(call, args, kwargs, context):
        y = call(*args, **kwargs)
        conv = context.module
        if isinstance(conv, Conv):
            (x,) = args
            kernel = conv.kernel_size**2 * x.shape[-1] * conv.features
            places = x if conv.transposed else y  # a kernel's worth of multiply-adds at each
            found.append(Layer(places.size // places.shape[-1] * kernel, x.size + kernel + y.size))
        return y

    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda x: network.init(jax.random.key(0), x, train=False), jax.ShapeDtypeStruct(shape, "float32")
        )
    return tuple(found)


def passes(layers: tuple[Layer, ...], *, kernel: bool, image: bool) -> tuple[Layer, ...]:
    """Return the passes of a call: forward, and the gradients with respect to the kernels and to the input image.

    The gradient goes down to the second layer for the kernels, and through the first one for the image.
    """
    through = layers if image else layers[1:] if kernel else ()
    return layers + (layers if kernel else ()) + through


def find_passes(config: ConfigDict) -> tuple[Layer, ...]:
    """Return every pass through a convolution in one step of pix2pix or CycleGAN, on the whole batch.

    Raises:
      ValueError: the objective is another one.
    """
    config, loss = complete(config), config.loss
    shapes = {name: (config.batch_size, *shape) for name, shape in image_shapes(config.data).items()}
    build = make_networks(config, axis_name=None)
    a, b = shapes["real_a"][-1], shapes["real_b"][-1]
    gen = {"b": find_layers(build("generator", out_channels=b), shapes["real_a"])}
    if config.objective == "p2p_jax:pix2pix":
        work = passes(gen["b"], kernel=True, image=False)
        if loss.get("lambda_gan", 1.0):
            channels = b + (a if loss.get("conditional", True) else 0)
            disc = find_layers(build("discriminator"), (*shapes["real_b"][:-1], channels))
            work += 2 * passes(disc, kernel=True, image=False) + passes(disc, kernel=False, image=True)
        return work
    if config.objective != "p2p_jax:cyclegan":
        raise ValueError(f"the cost of {config.objective} is not known")
    gen["a"] = find_layers(build("generator", out_channels=a), shapes["real_b"])
    cycles = {"both": "ab", "forward": "a", "backward": "b"}[loss.get("cycle", "both")]
    work = ()
    for domain in "ab":
        alone = passes(gen[domain], kernel=True, image=False)
        work += alone
        if loss.get("lambda_cycle", 10.0):
            work += passes(gen[domain], kernel=True, image=True) if domain in cycles else ()
            work += alone if loss.get("lambda_identity", 0.0) else ()
        if loss.get("lambda_gan", 1.0):
            disc = find_layers(build("discriminator"), shapes[f"real_{domain}"])
            work += 2 * passes(disc, kernel=True, image=False) + passes(disc, kernel=False, image=True)
    return work


def multiply_adds(work: Iterable[Layer]) -> int:
    """Return how many there are in all passes."""
    return sum(layer.multiply_adds for layer in work)


def count_parameters(config: ConfigDict) -> int:
    """Return the number of parameters of all networks that are trained."""
    objective, batch = resolve(config.objective)(config), _batch(config)
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(objective.init, jax.random.key(0), batch)["params"]))


def traffic(config: ConfigDict, work: Iterable[Layer]) -> int:
    """Return the least bytes that a step reads and writes: every pass its operands and result once, and Adam's."""
    return jnp.dtype(config.dtype).itemsize * sum(x.numbers for x in work) + ADAM_BYTES * count_parameters(config)


def roofline(config: ConfigDict, peak: Peak, num_devices: int = 1) -> float:
    """Return the least seconds of a step: each pass is bound by arithmetic or by memory, Adam by memory."""
    config = complete({**config.to_dict(), "batch_size": config.batch_size // num_devices})
    flops, itemsize = peak.flops[config.dtype], jnp.dtype(config.dtype).itemsize
    seconds = [max(2 * x.multiply_adds / flops, itemsize * x.numbers / peak.bandwidth) for x in find_passes(config)]
    return sum(seconds) + ADAM_BYTES * count_parameters(config) / peak.bandwidth


def share_of_peak(config: ConfigDict, seconds: float, peak: Peak, num_devices: int = 1) -> float:
    """Return the share of the devices' arithmetic that a step of so many seconds uses."""
    return 2 * multiply_adds(find_passes(config)) / (seconds * peak.flops[config.dtype] * num_devices)


def describe(config: ConfigDict, peak: Peak | None, seconds: float | None = None, num_devices: int = 1) -> dict:
    """Return the cost of a step as plain numbers, beside a device's peak and a measured time if they are known."""
    work = find_passes(config)
    found = {"gmac": multiply_adds(work) / 1e9, "gigabytes": traffic(config, work) / 1e9}
    found["parameters"] = count_parameters(config)
    if peak is not None:
        found |= {
            "peak_tflops": peak.flops[config.dtype] / 1e12,
            "peak_gigabytes_per_s": peak.bandwidth / 1e9,
            "roofline_s": roofline(config, peak, num_devices),
        }
        if seconds is not None:
            found["share_of_peak"] = share_of_peak(config, seconds, peak, num_devices)
            found["share_of_roofline"] = found["roofline_s"] / seconds
    return found


def ask_xla(config: ConfigDict) -> dict[str, float]:
    """Compile a step for one device and return what XLA counts in it: gigaflops and gigabytes."""
    objective, rng = resolve(config.objective)(config), jax.random.key(0)
    state = jax.eval_shape(objective.init, rng, _batch(config))
    mesh = Mesh(np.array(jax.devices()[:1]), (DEVICE_AXIS,))
    replicated = PartitionSpec()
    update = jax.shard_map(
        objective.update,
        mesh=mesh,
        in_specs=(replicated, PartitionSpec(DEVICE_AXIS), replicated),
        out_specs=replicated,
        check_vma=False,
    )
    found = jax.jit(update).lower(state, _batch(config), rng).compile().cost_analysis()
    return {"gigaflop": found["flops"] / 1e9, "gigabytes": found["bytes accessed"] / 1e9}


def _batch(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = image_shapes(config.data)
    return {name: jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.float32) for name, shape in shapes.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objective", choices=OBJECTIVES, default="pix2pix")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", default="1,16,64", help="batch sizes, with commas")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--no_identity", action="store_true", help="CycleGAN without the identity loss")
    parser.add_argument("--xla", action="store_true", help="compile the step and ask XLA too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    here = jax.devices()[0]
    peaks = dict(PEAKS)
    if find_peak(here.device_kind) is None:
        peaks[f"this {here.device_kind}, measured"] = measure_peak()
    result: dict[str, Any] = {"options": {**vars(args), "json": None}, "batches": {}}
    for batch in map(int, args.batch.split(",")):
        config = make_config(args.objective, args.size, batch, dtype=args.dtype, identity=not args.no_identity)
        found = describe(config, None)
        print(
            f"{args.objective} {args.size}x{args.size}, batch {batch}, {args.dtype}: {found['gmac']:.1f} GMAC, "
            f"{found['gigabytes']:.2f} GB, {found['parameters'] / 1e6:.1f} M parameters a step"
        )
        if args.xla:
            found["xla"] = ask_xla(config)
            print(f"  XLA counts {found['xla']['gigaflop']:.1f} GFLOP and {found['xla']['gigabytes']:.2f} GB")
        found["roofline_s"] = {name: roofline(config, peak) for name, peak in peaks.items()}
        for name, seconds in found["roofline_s"].items():
            share = share_of_peak(config, seconds, peaks[name])
            print(
                f"  {name:32} {1e3 * seconds:9.2f} ms  {batch / seconds:8.0f} images/s at most, {share:.0%} of its "
                f"{peaks[name].flops[args.dtype] / 1e12:.3g} TFLOP/s"
            )
        result["batches"][batch] = found
    turns.report(result, args.json)


if __name__ == "__main__":
    main()
