"""Pack a trained run as one file: its generators, and what is known of them.

    python -m p2p_jax pack runs/facades facades.safetensors --dtype float16 --licence cc-by-4.0

translate, evaluate, export, study make and --config.init_from take the file as they take a run's directory, on a
machine that has neither the run nor its images. It is data: nothing in it is executed. The average of the weights is
packed where the run has one; optimizers and discriminators stay behind, and what names places of this machine is left
out. A packed file may be packed again, in another dtype, say.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_jax.commands.command import Parser, told_weights

if TYPE_CHECKING:
    from p2p_jax.interop.packing import Packed


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("pack", __doc__, opens_run=True)
    made.add_place("workdir", "model", metavar="RUN", help="directory of the trained run, or a model file of it")
    made.add_place("output", metavar="FILE", type=Path, help="FILE.safetensors to write")
    add_packing(made)
    made.add_argument("--licence", "--license", default="", help="under which others may use it, such as cc-by-4.0")
    made.add_raw()
    made.add_trust()
    return made


def add_packing(made: Parser) -> None:
    """Add the flags that say what is packed."""
    add = made.add_argument
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="only the generator of this way; all by default")
    add("--dtype", choices=["float32", "float16"], help="of the weights (float32); float16 is half as long")


def tell(packed: "Packed", *, raw: bool) -> None:
    """Print what was packed."""
    model = packed.about["model"]
    ways = " and ".join(model["directions"])
    step = f"step {model['step']:,}{told_weights(model['weights'], raw)}"
    licence = packed.about["licence"]["name"] or "none said (--licence)"
    print(f"{packed.path}: {step}, {ways}, {model['dtype']}, {packed.megabytes:.1f} MB, licence: {licence}")
    if packed.difference:
        levels = packed.difference * 127.5
        print(
            f"to float32, of noise: at most {packed.difference:.1e} on the scale of [-1, 1], {levels:.2f} grey levels"
        )
    for note in packed.notes:
        print(f"note: {note}")


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
