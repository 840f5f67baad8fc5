"""Make a run from weights that another program trained.

    python -m p2p_jax convert latest_net_G.pth --workdir runs/theirs [--discriminator latest_net_D.pth]
    python -m p2p_jax convert latest_net_G_A.pth latest_net_G_B.pth --workdir runs/theirs

The input is a generator of the PyTorch release of pix2pix and CycleGAN (.pth, read weights-only), its folder
checkpoints/NAME with all networks, a small generator of GAN-Compression (.pth), a checkpoint of the TensorFlow release
of pix2pix, a .pict file of its browser demo, or a model.json of TensorFlow.js. The kind of network, its depth, width,
channels, norm and blocks are read from the file. Everything else is an option; the command prints what it assumed.
"""

import argparse
from pathlib import Path

from p2p_jax.commands.command import Parser


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("convert", __doc__)
    add = made.add_argument
    made.add_place("input", nargs="*", help="generator, or G_A and G_B of CycleGAN, or the folder that holds them")
    add("--workdir", required=True, type=Path, help="directory of the new run")
    add("--discriminator", nargs="+", default=[], help="D, or D_A and D_B; for fine-tuning")
    add(
        "--concat",
        choices=["skip_up", "up_skip"],
        default="skip_up",
        help="order of a U-Net's skips: up_skip for PyTorch files from before 2017-09-22; the wrong order "
        "loads but gives garbled images",
    )
    add(
        "--norm",
        choices=["batch", "instance", "none"],
        help="for PyTorch files from before July 2017: instance norm with weights and statistics looks like batch "
        "norm; the wrong one gives flat or glaring colours. Running statistics of instance norm (files of 2018-06 to "
        "2019-01) are dropped with instance",
    )
    add(
        "--discriminator_padding",
        type=int,
        choices=[1, 2],
        default=1,
        help="2 for PyTorch's discriminators from before 2017-09-23; otherwise they score good images as fake",
    )
    add(
        "--eval",
        action="store_true",
        help="translate like PyTorch's --eval: no noise, running statistics if the norms have them",
    )
    add("--dropout", choices=["on", "off"], help="noise at translation; by default on for pix2pix, off for CycleGAN")
    add("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="which side of a data set the generator takes")
    add("--crop_size", type=int, default=0, help="side of the images in evaluation; as in the release by default")
    add("--source", default="", help="layout of the data set in evaluation: side_by_side (default), folders, ...")
    return made


def _convert(args: argparse.Namespace) -> None:
    from p2p_jax.interop.conversion import Options, convert
    from p2p_jax.interop.network import describe

    dropout = None if args.dropout is None else args.dropout == "on"
    names = ("concat", "norm", "discriminator_padding", "eval", "direction", "crop_size", "source")
    options = Options(dropout=dropout, **{name: getattr(args, name) for name in names})
    made = convert(args.input, args.workdir, args.discriminator, options)
    for player, (path, network) in made.networks.items():
        print(f"{path}: {player} {describe(network)}")
    for sentence in made.assumed:
        print(f"assumed: {parser().with_flags(sentence)}")
    print(f"{made.workdir}: a run at step {made.step:,}, for translate, evaluate, export and --config.init_from")


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_convert, argv)
