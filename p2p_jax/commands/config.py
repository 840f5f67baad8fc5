"""Print a whole config: every option, with a star next to those that differ from the published recipe.

python -m p2p_jax config facades [--config.OPTION=VALUE ...]
"""

import argparse

from p2p_jax.commands.command import Parser


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("config", __doc__, computes=False, takes_overrides=True)
    made.add_place("config", help="config file, by path or by name (facades)")
    return made


def _show(args: argparse.Namespace) -> None:
    from p2p_jax.config import load_with_overrides
    from p2p_jax.published import describe

    print("\n".join(describe(load_with_overrides(args.config, args.overrides))))


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_show, argv)
