"""Pack a trained run as one file: its generators and their metadata.

    python -m p2p_jax pack runs/facades facades.safetensors --dtype float16 --licence cc-by-4.0

translate, evaluate, export, study make and --config.init_from accept the file like a run's directory, on a machine
without the run or its images. The file is data: nothing in it is executed. The average of the weights is packed if the
run has one; optimizers, discriminators and paths of this machine are left out. A packed file may be packed again, for
example in another dtype.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_jax.commands.command import Parser, told_weights

if TYPE_CHECKING:
    from p2p_jax.interop.packing import Packed


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("pack", __doc__, opens_run=True)
    made.add_place("workdir", "model", metavar="RUN", help="directory of the trained run, or its model file")
    made.add_place("output", metavar="FILE", type=Path, help="FILE.safetensors to write")
    add_packing(made)
    made.add_argument("--licence", "--license", default="", help="licence for other users, such as cc-by-4.0")
    made.add_raw()
    made.add_trust()
    return made


def add_packing(made: Parser) -> None:
    """Add the flags that choose what is packed."""
    add = made.add_argument
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="pack only the generator of this direction; all by default")
    add("--dtype", choices=["float32", "float16"], help="dtype of the weights (float32); float16 is half as long")


def tell(packed: "Packed", *, raw: bool) -> None:
    """Print a summary of the packed file."""
    model = packed.about["model"]
    ways = " and ".join(model["directions"])
    step = f"step {model['step']:,}{told_weights(model['weights'], raw)}"
    licence = packed.about["licence"]["name"] or "not given (--licence)"
    print(f"{packed.path}: {step}, {ways}, {model['dtype']}, {packed.megabytes:.1f} MB, licence: {licence}")
    if packed.difference:
        print(f"to float32, of noise: at most {packed.difference:.1e} on the scale of [-1, 1]{_in_values(packed)}")
    for note in packed.notes:
        print(f"note: {note}")


def _in_values(packed: "Packed") -> str:
    """Return the difference in grey levels, or in the units of the output where it has some; "" for labels."""
    model = packed.about["model"]
    made = packed.about["domains"]["output" if model["directions"][0] == model["direction"] else "input"]
    widest = max((high - low for low, high in made["range"]), default=0)
    if not widest:
        return ""
    values = f"{packed.difference * widest / 2:.2g}"
    return f", {values} grey levels" if made["kind"] == "uint8" else f", {values} in the units of the output"


def _pack(args: argparse.Namespace) -> None:
    from p2p_jax.interop.packing import pack

    packed = pack(
        args.workdir,
        args.output,
        args.checkpoint,
        args.direction,
        dtype=args.dtype,
        licence=args.licence,
        trust=args.trust,
        raw=args.raw,
    )
    tell(packed, raw=args.raw)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_pack, argv)
