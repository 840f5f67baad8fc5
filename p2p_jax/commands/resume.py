"""Go on with a training, given only its directory: the stored config is the experiment.

    python -m p2p_jax resume runs/facades [--config.num_steps=160000 ...]

Options that may change between two starts can be given; others are refused by name.
"""

import argparse
from pathlib import Path

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("resume", __doc__, takes_overrides=True, opens_run=True)
    made.add_place("workdir", metavar="RUN", type=Path, help="directory of the run")
    made.add_trust()
    return made


def _resume(args: argparse.Namespace) -> None:
    from p2p_jax.cluster.distributed import joined
    from p2p_jax.config import override
    from p2p_jax.config.stored import tell_places
    from p2p_jax.training.checkpoint import read_config
    from p2p_jax.training.loop import train

    stored = read_config(args.workdir, args.trust)
    if stored is None:
        raise InputError(f"{args.workdir} holds no training that could go on: there is no checkpoint in it")
    config = override(stored, args.overrides)
    tell_places(stored, args.workdir / "config.json", "data", "task")
    with joined(config, args.workdir):
        train(config, args.workdir, trust=args.trust)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_resume, argv)
