r"""Make the paper's Cityscapes pairs from the official archives, which only their owner may distribute.

    python -m p2p_jax cityscapes --gtfine gtFine_trainvaltest.zip \
        --photos leftImg8bit_trainvaltest.zip --output data/cityscapes

Download both archives from cityscapes-dataset.com after registering; unpacked folders work too. Train on the result
with --config.data.dir=data/cityscapes.
"""

import argparse

from p2p_jax.commands.command import Parser


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("cityscapes", __doc__, computes=False)
    add = made.add_argument
    add("--gtfine", required=True, help="gtFine_trainvaltest.zip, or its folder")
    add("--photos", required=True, help="leftImg8bit_trainvaltest.zip, or its folder")
    add("--output", required=True, help="folder for train/ and val/")
    add("--size", type=int, default=256, help="side of each half in pixels (%(default)s)")
    return made


def _prepare(args: argparse.Namespace) -> None:
    from p2p_jax.data.cityscapes import prepare

    prepare(args.gtfine, args.photos, args.output, size=args.size)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_prepare, argv)
