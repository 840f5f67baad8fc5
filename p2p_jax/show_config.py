"""Print a whole experiment: every option, with a star at those that differ from the published recipe.

python -m p2p_jax config facades [--config.OPTION=VALUE ...]
"""

import argparse
import sys

from p2p_jax.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_jax config",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", help="config file, by path or by name (facades)")
    return parser


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    args, overrides = _parser().parse_known_args(argv)
    from p2p_jax.config import load_with_overrides
    from p2p_jax.published import describe

    try:
        print("\n".join(describe(load_with_overrides(args.config, overrides))))
    except InputError as error:
        sys.exit(f"error: {error}")
