"""Train from the command line.

    python -m p2p_jax.main --config configs/facades.py [--workdir runs/facades] [--config.OPTION=VALUE ...]

Running the same command again goes on from the last checkpoint. Several processes train together with
--config.distributed, each started with this command: see p2p_jax/distributed.py.
"""

import argparse
import sys
from pathlib import Path

from p2p_jax.errors import InputError, TrainingDivergedError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_jax.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, help="config file, by path or by name (facades)")
    add("--workdir", type=Path, help="directory of the run; runs/CONFIG by default")
    return parser


def _train(args: argparse.Namespace, overrides: list[str]) -> None:
    from absl import logging

    from p2p_jax.config import complete, find, load_with_overrides
    from p2p_jax.distributed import joined
    from p2p_jax.train import train  # after the flags are read, so that --help is quick

    logging.set_verbosity(logging.ERROR)  # JAX and Orbax otherwise tell every step that they take
    config = complete(load_with_overrides(args.config, overrides))
    workdir = args.workdir or Path("runs") / find(args.config).stem
    with joined(config, workdir):
        train(config, workdir)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    try:
        _train(*_parser().parse_known_args(argv))
    except (InputError, TrainingDivergedError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
