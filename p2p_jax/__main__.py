"""The entry point of the command line: ``python -m p2p_jax VERB ...``, or ``p2p-jax VERB ...``."""

import importlib
import os
import sys
from typing import NamedTuple

from p2p_jax import __version__
from p2p_jax.commands import interrupts


class Verb(NamedTuple):
    """A verb of the command line: the module with its ``run(argv)``, and a line of help.

    Verbs that open a run, perhaps a stranger's, do not search the current folder for modules.
    """

    module: str
    help: str
    opens_run: bool = False


VERBS = {
    "train": Verb("p2p_jax.commands.train", "train a model, or resume a training", True),
    "resume": Verb("p2p_jax.commands.resume", "resume a training from its directory", True),
    "translate": Verb(
        "p2p_jax.commands.translate", "translate images, folders, stacks and videos with a trained run", True
    ),
    "evaluate": Verb("p2p_jax.commands.evaluate", "score a trained run on a split of its data, with a report", True),
    "inspect": Verb("p2p_jax.commands.inspect", "check a data set before training: errors, suggestions, a picture"),
    "convert": Verb("p2p_jax.commands.convert", "make a run from weights of the PyTorch or TensorFlow release"),
    "export": Verb("p2p_jax.commands.export", "write a trained generator as ONNX, StableHLO or for PyTorch", True),
    "demo": Verb("p2p_jax.commands.demo", "try a trained run on a web page: upload, draw, before and after", True),
    "pack": Verb("p2p_jax.commands.pack", "write a trained generator as one file that opens anywhere", True),
    "push": Verb("p2p_jax.commands.push", "upload a trained generator to the Hugging Face hub, with a card", True),
    "ablate": Verb("p2p_jax.commands.ablate", "train and score the rows of the pix2pix paper's tables"),
    "compare": Verb("p2p_jax.commands.compare", "compare runs, or configs of equal cost, in a table and a page", True),
    "study": Verb("p2p_jax.commands.study", "make, serve and analyse a perceptual study", True),
    "segmenter": Verb("p2p_jax.commands.segmenter", "train the segmenter of the FCN score", True),
    "cityscapes": Verb("p2p_jax.commands.cityscapes", "make pairs from the official Cityscapes archives"),
    "runs": Verb(
        "p2p_jax.commands.runs", "list runs: what they train, their progress, latest and best validation", True
    ),
    "config": Verb("p2p_jax.commands.config", "print all options of a config; a star marks those that differ"),
}


def run(argv: list[str] | None = None) -> None:
    """Run the verb that the first argument names."""
    if argv is None:
        interrupts.expect()
    arguments = sys.argv[1:] if argv is None else argv
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(_help())
    elif first == "--version":
        print(f"p2p_jax {__version__}")
    elif first in VERBS:
        importlib.import_module(VERBS[first].module).run(arguments[1:])
    else:
        import difflib

        close = difflib.get_close_matches(first, VERBS, n=1)
        hint = f"did you mean {close[0]}? There are" if close else "choose"
        sys.exit(f"error: {first} is not a verb; {hint} {', '.join(VERBS)}")


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: p2p-jax VERB ...    (p2p-jax VERB --help says more; --version)",
            "",
            *lines,
            "",
            "Start: p2p-jax train --config quickstart",
        ]
    )


def _search_elsewhere() -> None:
    """Remove the current folder from the front of Python's path if a run is opened; ``python -m`` puts it there.

    A run may be translated in the folder it was downloaded to; an ``optax.py`` in that folder must not be imported.
    """
    verb = VERBS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if verb and verb.opens_run and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]


if __name__ == "__main__":
    _search_elsewhere()
    run()
