"""Try a trained run on a web page: upload a picture, take one with the camera, or draw; compare before and after.

    python -m p2p_jax demo runs/facades

Only this machine can open the page, unless --share-on-lan is given. With --space FOLDER nothing is served: the command
writes a folder that runs as a Space of Hugging Face, or anywhere with Python.
"""

import argparse
import signal
from pathlib import Path

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError


def parser() -> Parser:
    """Return the argument parser of the command."""
    from p2p_jax.demo.settings import MAX_PIXELS

    made = Parser("demo", __doc__, opens_run=True)
    add = made.add_argument
    made.add_place("workdir", metavar="RUN", help="directory of the trained run, or its model file")
    add("--port", type=int, default=7860, help="0 chooses a free one (%(default)s)")
    add(
        "--share-on-lan", "--share_on_lan", action="store_true",
        help="let everybody in this network use the page; by default only this machine can",
    )  # fmt: skip
    add("--title", default="", help="title of the page; the run's name by default")
    add(
        "--palette",
        default="",
        help="colours to draw with, if the run does not know its classes: a name, a file, or lines",
    )
    add("--examples", type=int, help="validation images to offer (8; none with --space)")
    add("--data_dir", help="folder of the data set, if it is no longer where the run's config says")
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="the direction selected first, for runs with both")
    add("--norm", choices=["batch", "running"], help="statistics of the image itself or of training; as stored")
    add("--dropout", choices=["on", "off"], help="noise of training at translation; as stored by default")
    add("--tile", type=int, help="translate images with a longer side in overlapping tiles of this side")
    add("--overlap", type=int, help="pixels that tiles share; a quarter of --tile by default")
    add("--max_pixels", type=int, default=MAX_PIXELS, help="largest picture to accept, in pixels (%(default)s)")
    add("--space", type=Path, metavar="FOLDER", help="write a Space into this folder, new or empty")
    add("--licence", "--license", default="", help="licence of the model, such as mit or cc-by-4.0; needed by --space")
    made.add_raw()
    made.add_trust()
    return made


def _demo(args: argparse.Namespace) -> None:
    from p2p_jax.demo.settings import Settings

    for name in ("max_pixels", "examples", "port"):
        least = 1 if name == "max_pixels" else 0
        if (value := getattr(args, name)) is not None and value < least:
            raise InputError(f"--{name} {value} must be at least {least}")
    settings = Settings(
        checkpoint=args.checkpoint,
        direction=args.direction,
        norm=args.norm,
        dropout=None if args.dropout is None else args.dropout == "on",
        tile=args.tile,
        overlap=args.overlap,
        trust=tuple(args.trust),
        raw=args.raw,
        palette=args.palette,
        max_pixels=args.max_pixels,
        title=args.title,
    )
    if args.space is None:
        from p2p_jax.demo.serving import serve

        # Uploaded files are then removed when the demo ends.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            serve(
                args.workdir,
                settings,
                port=args.port,
                share_on_lan=args.share_on_lan,
                num_examples=8 if args.examples is None else args.examples,
                data_dir=args.data_dir,
            )
        finally:
            signal.signal(signal.SIGTERM, before)
        return
    from p2p_jax.demo.space import write

    files = write(args.workdir, args.space, settings, args.licence, args.examples or 0, args.data_dir)
    print(f"{args.space}: {files:,} files; {args.space / 'README.md'} says how to start and publish it")


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_demo, argv)
