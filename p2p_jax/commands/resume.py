"""Resume a training from its directory; the config is the one stored there.

    python -m p2p_jax resume runs/facades [--config.num_steps=160000 ...]

Options that may change between two starts can be given; others are refused by name. You can start it in any folder:
relative paths, such as data.dir, are also looked up where the run was started. Code of your own that the config names
is executed if you trust it with --trust module:name. The verb train with --config RUN/config.json does the same.
"""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError

FILE = "config.json"
"""Name of the file in a run's directory that holds the config as it was asked for."""


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("resume", __doc__, takes_overrides=True, opens_run=True)
    made.add_place("workdir", metavar="RUN", type=Path, help="directory of the run")
    made.add_trust()
    return made


def stored_config(file: Path, overrides: list[str], trust: list[str]) -> ConfigDict:
    """Return a stored config, in a run's directory or elsewhere, with options changed.

    Relative paths in it are looked up in the current folder, and where the run was started.

    Args:
      file: config.json of a run, or a copy of it.
      overrides: overrides of its options.
      trust: code outside the library that it may name.
    """
    from p2p_jax.config import load, override
    from p2p_jax.config.stored import tell_places
    from p2p_jax.data.elsewhere import as_started
    from p2p_jax.training.checkpoint import read_config

    stored = read_config(file.parent, trust) if file.name == FILE else None  # this also loads the run's own code
    config = as_started(load(str(file), trust) if stored is None else stored, file.parent)
    tell_places(config, file, "data", "task")
    return override(config, overrides)


def _resume(args: argparse.Namespace) -> None:
    from p2p_jax.cluster.distributed import joined
    from p2p_jax.training.loop import train
    from p2p_jax.training.soundness import saved_steps

    if not args.workdir.exists():
        raise InputError(f"there is no run {args.workdir}; give the directory of a run, such as runs/mine")
    if args.workdir.is_dir() and not saved_steps(args.workdir):
        raise InputError(f"{args.workdir} cannot be resumed: it has no checkpoint; name another run")
    config = stored_config(args.workdir / FILE, args.overrides, args.trust)
    with joined(config, args.workdir):
        train(config, args.workdir, trust=args.trust)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_resume, argv)
