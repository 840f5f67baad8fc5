"""The one door of the command line: ``python -m p2p_jax VERB ...``, or ``p2p-jax VERB ...``."""

import difflib
import importlib
import sys
from typing import NamedTuple

from p2p_jax import __version__
from p2p_jax.commands import interrupts


class Verb(NamedTuple):
    """What a word on the command line does: the module whose ``run(argv)`` does it, and a line of help."""

    module: str
    help: str


VERBS = {
    "train": Verb("p2p_jax.commands.train", "train a model, or go on with a training"),
    "resume": Verb("p2p_jax.commands.resume", "go on with a training, given only its directory"),
    "translate": Verb("p2p_jax.commands.translate", "translate images, folders, stacks and videos with a trained run"),
    "evaluate": Verb("p2p_jax.commands.evaluate", "score a trained run on a split of its data, with a report"),
    "inspect": Verb("p2p_jax.commands.inspect", "look at a data set before training: faults, suggestions, a picture"),
    "convert": Verb("p2p_jax.commands.convert", "make a run of weights of the PyTorch or TensorFlow release"),
    "export": Verb("p2p_jax.commands.export", "write a trained generator as ONNX, StableHLO or for PyTorch"),
    "ablate": Verb("p2p_jax.commands.ablate", "train and score the rows of the pix2pix paper's tables"),
    "study": Verb("p2p_jax.commands.study", "make, serve and analyse a perceptual study"),
    "segmenter": Verb("p2p_jax.commands.segmenter", "train the segmenter of the FCN score"),
    "cityscapes": Verb("p2p_jax.commands.cityscapes", "make pairs of the official Cityscapes archives"),
    "runs": Verb("p2p_jax.commands.runs", "list runs: what they train, how far they are, their latest validation"),
    "config": Verb("p2p_jax.commands.config", "print all options of a config, with a star at those that differ"),
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
        close = difflib.get_close_matches(first, VERBS, n=1)
        hint = f"did you mean {close[0]}? There are" if close else "choose"
        sys.exit(f"error: {first} is not a verb; {hint} {', '.join(VERBS)}")


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: p2p-jax VERB ...    (p2p-jax VERB --help tells more; --version)",
            "",
            *lines,
            "",
            "Start: p2p-jax train --config quickstart",
        ]
    )


if __name__ == "__main__":
    run()
