"""Put a trained run on the Hugging Face hub: its model file, and a card that says what it is.

    python -m p2p_jax push runs/facades user/facades --licence cc-by-4.0

The card tells data, metrics with the number of images, limits and the licence, as far as the run knows them. Images go
there only where they are named (--picture runs/facades/samples/....png): those of a data set may not be yours to
publish. Who you are says hf auth login, or the environment variable HF_TOKEN. What lies there opens anywhere:
Translator.from_pretrained("user/facades").
"""

import argparse

from p2p_jax.commands.command import Parser
from p2p_jax.commands.pack import add_packing, tell


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("push", __doc__, opens_run=True)
    made.add_place("workdir", "model", metavar="RUN", help="directory of the trained run, or a model file of it")
    made.add_place("name", metavar="USER/NAME", help="of the repository; made if missing")
    made.add_argument(
        "--licence", "--license", default="", help="under which others may use it, such as cc-by-4.0; has to be said"
    )
    made.add_argument("--private", action="store_true", help="not for everybody, where the repository is made now")
    made.add_argument(
        "--picture", dest="pictures", action="append", default=[], metavar="FILE", help="a sample; may stand again"
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
