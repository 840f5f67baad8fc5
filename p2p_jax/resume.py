"""Go on with a training, given only its directory: the stored config is the experiment.

    python -m p2p_jax resume runs/facades [--config.num_steps=160000 ...]

Options that may change between two starts can be given; others are refused by name.
"""

import argparse
import sys
from pathlib import Path

from p2p_jax.errors import InputError, TrainingDivergedError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_jax resume",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("workdir", type=Path, help="directory of the run")
    return parser


def _resume(args: argparse.Namespace, overrides: list[str]) -> None:
    from absl import logging

    from p2p_jax.checkpoint import read_config
    from p2p_jax.config import override
    from p2p_jax.distributed import joined
    from p2p_jax.loop import train

    logging.set_verbosity(logging.ERROR)  # JAX and Orbax otherwise tell every step that they take
    stored = read_config(args.workdir)
    if stored is None:
        raise InputError(f"{args.workdir} holds no training that could go on: there is no checkpoint in it")
    config = override(stored, overrides)
    with joined(config, args.workdir):
        train(config, args.workdir)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    try:
        _resume(*_parser().parse_known_args(argv))
    except (InputError, TrainingDivergedError) as error:
        sys.exit(f"error: {error}")
