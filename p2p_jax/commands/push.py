"""Upload a trained run to the Hugging Face hub: its model file and a model card.

    python -m p2p_jax push runs/facades user/facades --licence cc-by-4.0

The card lists data, metrics with the number of images, limits and the licence, as far as the run knows them. Images
are uploaded only if you name them (--picture runs/facades/samples/....png): you may not have the right to publish
images of a data set. Log in with hf auth login, or set the environment variable HF_TOKEN. It then opens anywhere:
Translator.from_pretrained("user/facades").
"""

import argparse

from p2p_jax.commands.command import Parser
from p2p_jax.commands.pack import add_packing, tell


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("push", __doc__, opens_run=True)
    made.add_place("workdir", "model", metavar="RUN", help="directory of the trained run, or its model file")
    made.add_place("name", metavar="USER/NAME", help="name of the repository; made if missing")
    made.add_argument("--licence", "--license", default="", help="licence for other users, such as cc-by-4.0; required")
    made.add_argument("--private", action="store_true", help="make a new repository private")
    made.add_argument(
        "--picture",
        dest="pictures",
        action="append",
        default=[],
        metavar="FILE",
        help="a sample image; may be repeated",
    )
    add_packing(made)
    made.add_raw()
    made.add_trust()
    return made


def _push(args: argparse.Namespace) -> None:
    from p2p_jax.interop.pushing import push_to_hub

    pushed = push_to_hub(
        args.workdir,
        args.name,
        licence=args.licence,
        private=args.private,
        pictures=args.pictures,
        checkpoint=args.checkpoint,
        direction=args.direction,
        dtype=args.dtype,
        trust=args.trust,
        raw=args.raw,
    )
    tell(pushed.packed, raw=args.raw)
    print(f"{pushed.address}: {', '.join(pushed.files)}")


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_push, argv)
