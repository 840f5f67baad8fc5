r"""Make the paper's Cityscapes pairs from the official archives, which only their owner may hand out.

    python -m p2p_jax cityscapes --gtfine gtFine_trainvaltest.zip \
        --photos leftImg8bit_trainvaltest.zip --output data/cityscapes

Both archives come from cityscapes-dataset.com after registration; their unpacked folders do as well. Train on the
result with --config.data.dir=data/cityscapes.
"""

import argparse

from p2p_jax.commands.command import Parser


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("cityscapes", __doc__, computes=False)
    add = made.add_argument
    add("--gtfine", required=True, help="gtFine_trainvaltest.zip, or its folder")
    add("--photos", required=True, help="leftImg8bit_trainvaltest.zip, or its folder")
    add("--output", required=True, help="folder that receives train/ and val/")
    add("--size", type=int, default=256, help="side of each half in pixels (%(default)s)")
    return made


def _prepare(args: argparse.Namespace) -> None:
    from p2p_jax.data.cityscapes import prepare

    prepare(args.gtfine, args.photos, args.output, size=args.size)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_prepare, argv)
