"""What a GPU or a TPU has to do in a training step, counted in its program: neither need be there.

    python -m benchmarks.program [--device TARGET] [--objective NAME ...] [--batch N ...] [--dtype NAME ...]

The step is lowered as accelerators get it, at 256x256 and the published widths, and its convolutions, products and
transposes are counted. With TARGET, the description of a GPU or the name of a TPU (see ``benchmarks.memory``), it is
compiled for this device too: the kernels that a GPU starts are counted, and for a TPU the cycles that its compiler
expects. True float32 and TF32 have the same program but for the algorithms in the kernels.
"""

import argparse
import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from ml_collections import ConfigDict

from benchmarks import memory
from benchmarks.experiments import make_config

EXPERIMENTS = ("pix2pix", "cyclegan")
_CALLS = ("while", "call", "conditional")
_NO_KERNELS = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", *_CALLS}
_CUDNN = {
    "__cudnn$convForward": "convolutions",
    "__cudnn$convBiasActivationForward": "convolutions",
    "__cudnn$convBackwardInput": "input gradients",
    "__cudnn$convBackwardFilter": "kernel gradients",
}
_LEAST_HELD = 5  # kernels, by a command buffer
_MOVES = {"copy", "transpose", "bitcast", "parameter", "copy-start", "copy-done"}
_MOVES_ON_TPUS = _MOVES.union(("slice", "pad", "concatenate", "reverse", "reshape", "broadcast", "constant", "convert"))
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_SHAPE = re.compile(r"\b(\w+)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")


def count_lowered(text: str) -> dict[str, int]:
    """Count what a program in StableHLO asks for, before XLA's choices.

    A convolution of zeros between the pixels of its input ("dilated inputs") is a transposed one, or the input gradient
    of a strided one. One that sums over the batch is a kernel gradient.
    """
    bodies: dict[str, list[str]] = {}
    for line in text.splitlines():
        if head := re.search(r"func\.func .*?@([\w.]+)\(", line):
            lines = bodies[head[1]] = []
        elif bodies:
            lines.append(line)

    @functools.cache
    def count_of(name: str) -> collections.Counter[str]:
        found = collections.Counter[str]()
        for line in bodies[name]:
            if kind := _kind_of_line(line):
                found[kind] += 1
            elif called := re.search(r"\bcall @([\w.]+)\(", line):
                found += count_of(called[1])
        return found

    kinds = ("convolutions", "dilated inputs", "kernel gradients", "products", "transposes")
    return {kind: count_of("main")[kind] for kind in kinds}


def _kind_of_line(line: str) -> str | None:
    if "stablehlo.dot_general" in line:
        return "products"
    if "stablehlo.transpose" in line:
        return "transposes"
    if "stablehlo.convolution(" not in line:
        return None
    if "dim_numbers = [f" in line:
        return "kernel gradients"
    dilated = re.search(r"lhs_dilate = \[([\d, ]+)\]", line)
    return "dilated inputs" if dilated and set(dilated[1].split(", ")) != {"1"} else "convolutions"


class Instruction(NamedTuple):
    """One of XLA's instructions: the type of its result, what it does, and its operands and attributes as written."""

    name: str
    type: str
    opcode: str
    rest: str


def count_compiled(text: str) -> dict[str, int]:
    """Count the kernels of a program in HLO, optimised for a GPU; those in a loop count once.

    Returns:
      Kernels in all and of each kind: convolutions by cuDNN's kinds, products, reductions, copies (to another layout or
      place), and the rest, which is elementwise. "MiB" are what kernels other than convolutions and products read and
      write. "launches" are those from the host: by default a command buffer holds kernels one after another, 5 or more,
      but neither cuDNN's convolutions nor loops.
    """
    bodies = dict(_computations(text))
    found: collections.Counter[str] = collections.Counter()
    for instructions in _that_run(bodies):
        types = {x.name: x.type for x in instructions}
        together = [0]
        for x in instructions:
            if x.opcode in _CALLS:
                together += [1, 0]
            if x.opcode in _NO_KERNELS:
                continue
            kind = _kind(x, bodies)
            found["kernels"] += 1
            found[kind] += 1
            if kind in _CUDNN.values():
                together += [1, 0]
            else:
                together[-1] += 1
            if kind in ("reductions", "copies", "elementwise"):
                operands = [types.get(name, "") for name in re.findall(r"%([\w.-]+)", x.rest.partition(")")[0])]
                found["bytes"] += _size(x.type) + sum(_read(operand, x.type, kind) for operand in operands)
        found["launches"] += sum(1 if count >= _LEAST_HELD else count for count in together)
    kinds = ("convolutions", "input gradients", "kernel gradients", "products", "reductions", "copies", "elementwise")
    return {name: found[name] for name in ("kernels", "launches", *kinds)} | {"MiB": round(found["bytes"] / 2**20)}


def count_cycles(text: str) -> dict[str, int]:
    """Count the operations of a program in HLO, optimised for a TPU; those in a loop count once.

    Returns:
      Operations, thousands of cycles that the compiler expects of them in all, and of each kind: products (convolutions
      too, with what is fused to them), reductions, copies (to another layout or place, with borders, or in part), and
      the rest, which is elementwise.
    """
    bodies = dict(_computations(text))
    found: collections.Counter[str] = collections.Counter()
    for instructions in bodies.values():
        for x in instructions:
            if cycles := re.search(r'"estimated_cycles":"(\d+)"', x.rest):
                found["operations"] += 1
                found["cycles"] += int(cycles[1])
                found[_kind_of_work(_work(x, bodies), _MOVES_ON_TPUS)] += int(cycles[1])
    kinds = ("cycles", "products", "reductions", "copies", "elementwise")
    return {"operations": found["operations"]} | {f"thousand {kind}": round(found[kind] / 1000) for kind in kinds}


def _computations(text: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Yield the name and the instructions of each computation; that of the entry is ""."""
    name, instructions = None, []
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name, instructions = "" if head[1] else head[2], []
        elif line.startswith("}") and name is not None:
            yield name, instructions
            name = None
        elif name is not None and (one := _INSTRUCTION.match(line)):
            instructions.append(Instruction(*one.groups()))


def _that_run(bodies: dict[str, list[Instruction]]) -> Iterator[list[Instruction]]:
    """Yield the computations that start kernels: the entry, and what it calls or repeats."""
    waiting, seen = [""], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield bodies[name]
        for x in bodies[name]:
            if x.opcode in _CALLS:
                waiting += [called for called in re.findall(r"%([\w.-]+)", x.rest) if called in bodies]


def _kind(x: Instruction, bodies: dict[str, list[Instruction]]) -> str:
    if target := re.search(r'custom_call_target="([^"]+)"', x.rest):
        return _CUDNN.get(target[1], "products" if "cublas" in target[1] else "elementwise")
    return _kind_of_work(_work(x, bodies), _MOVES)


def _kind_of_work(inside: set[str], moves: set[str]) -> str:
    if inside & {"dot", "convolution"}:
        return "products"
    if "reduce" in inside:
        return "reductions"
    return "copies" if inside <= moves else "elementwise"


def _work(x: Instruction, bodies: dict[str, list[Instruction]]) -> set[str]:
    """Return what a kernel does; a fusion may hold others."""
    called = re.search(r"calls=%?([\w.-]+)", x.rest)
    if not called:
        return {x.opcode}
    return set().union(*(_work(one, bodies) for one in bodies.get(called[1], ())))


def _read(operand: str, result: str, kind: str) -> int:
    """Return how many bytes of an operand a kernel reads: without a sum, a number for each that it returns at most."""
    size, numbers = _size(operand), _numbers(operand)
    return size if kind == "reductions" or not numbers else size * min(numbers, _numbers(result)) // numbers


def _size(type_: str) -> int:
    """Return the bytes of an array or a tuple of them."""
    return sum(_BYTES.get(name, 0) * _product(sides) for name, sides in _SHAPE.findall(type_))


def _numbers(type_: str) -> int:
    """Return the numbers in an array or a tuple of them."""
    return sum(_product(sides) for _, sides in _SHAPE.findall(type_))


def _product(sides: str) -> int:
    return math.prod(map(int, filter(None, sides.split(","))))


def count(config: ConfigDict, devices: list | None = None) -> dict[str, dict[str, int]]:
    """Return what a step asks for, and with a device that need not be there, what it becomes."""
    found = {"lowered": count_lowered(memory.lower_step(config).as_text())}
    if devices:
        counted = count_compiled if devices[0].platform == "gpu" else count_cycles
        found["compiled"] = counted(memory.compile_step(config, devices).as_text())
    return found


def main() -> None:
    """Print a line of counts for each step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.program", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--objective", nargs="*", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 16, 64])
    parser.add_argument("--dtype", nargs="*", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--device", default="", help="description of a GPU, or name of a TPU, that need not be there")
    args = parser.parse_args()
    devices = memory.describe(args.device) if args.device else None
    for objective in args.objective:
        for dtype in args.dtype:
            for batch in args.batch:
                found = count(make_config(objective, 256, batch, dtype=dtype), devices)
                for name, counts in found.items():
                    cells = ", ".join(f"{what} {number:,}" for what, number in counts.items())
                    print(f"{objective}, {dtype}, batch {batch}, {name}: {cells}", flush=True)


if __name__ == "__main__":
    main()
