"""Make a run of weights that another program trained.

    python -m p2p_jax.convert --input latest_net_G.pth --workdir runs/theirs [--discriminator latest_net_D.pth]
    python -m p2p_jax.convert --input latest_net_G_A.pth latest_net_G_B.pth --workdir runs/theirs

The input is a generator of the PyTorch release of pix2pix and CycleGAN (.pth, read weights-only), its folder
checkpoints/NAME (with all networks in it), a checkpoint of the TensorFlow release of pix2pix, or a .pict file of its
browser demo. The kind of network, its depth, width, channels, norm and blocks are read off the file. What it does not
tell is an option; the command says what it took for granted.
"""

import argparse
import sys
from pathlib import Path

from p2p_jax.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, nargs="+", help="generator, or G_A and G_B of CycleGAN, or the folder with them")
    add("--workdir", required=True, type=Path, help="directory of the run that is made")
    add("--discriminator", nargs="+", default=[], help="D, or D_A and D_B; for fine-tuning")
    add(
        "--concat",
        choices=["skip_up", "up_skip"],
        default="skip_up",
        help="order of a U-Net's skips: up_skip for PyTorch files from before 2017-09-22, else a colourful mess",
    )
    add(
        "--norm",
        choices=["batch", "instance", "none"],
        help="for PyTorch files from before July 2017: instance norm with weights and statistics looks like batch "
        "norm; the wrong one gives flat or glaring colours",
    )
    add(
        "--discriminator_padding",
        type=int,
        choices=[1, 2],
        default=1,
        help="2 for PyTorch's discriminators from before 2017-09-23, which else take good images for fakes",
    )
    add(
        "--eval", action="store_true", help="translate as PyTorch's --eval: no noise, running statistics for batch norm"
    )
    add("--dropout", choices=["on", "off"], help="noise at translation; by default on for pix2pix, off for CycleGAN")
    add("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="which side of a data set a generator takes")
    add("--crop_size", type=int, default=0, help="side of the images in evaluation; that of the release by default")
    add("--source", default="", help="layout of the data set in evaluation: side_by_side (default), folders, ...")
    return parser


def _convert(args: argparse.Namespace) -> None:
    from absl import logging

    from p2p_jax.interop.conversion import Options, convert
    from p2p_jax.interop.network import describe

    logging.set_verbosity(logging.ERROR)  # Orbax otherwise tells every step that it takes
    dropout = None if args.dropout is None else args.dropout == "on"
    options = Options(
        args.concat,
        args.norm,
        args.discriminator_padding,
        dropout,
        args.eval,
        args.direction,
        args.crop_size,
        args.source,
    )
    made = convert(args.input, args.workdir, args.discriminator, options)
    for player, (path, network) in made.networks.items():
        print(f"{path}: {player} {describe(network)}")
    for sentence in made.assumed:
        print(f"taken for granted: {sentence}")
    print(f"{made.workdir}: a run at step {made.step:,}, for translate, evaluate, export and --config.init_from")


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = _parser().parse_args(argv)
    try:
        _convert(args)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
