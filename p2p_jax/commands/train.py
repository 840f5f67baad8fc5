"""Train from the command line: ``python -m p2p_jax train``, or ``python -m p2p_jax.main``.

    python -m p2p_jax.main --config configs/facades.py [--workdir runs/facades] [--config.OPTION=VALUE ...]

Run the same command again to resume from the last checkpoint. --config RUN/config.json, the stored config of a run,
also resumes; with another --workdir it starts a new run of the same config. Several processes train together with
--config.distributed, each started with this command: see p2p_jax/cluster/distributed.py.
"""

import argparse
import textwrap
from pathlib import Path

from p2p_jax.commands.command import Parser
from p2p_jax.commands.resume import FILE, stored_config


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("train", __doc__, epilog=_options(), takes_overrides=True, opens_run=True)
    add = made.add_argument
    made.add_place("config", help="config file, by path or by name (facades), or config.json of a run")
    add("--workdir", type=Path, help="directory of the run; runs/CONFIG by default, or the folder of config.json")
    made.add_trust()
    return made


def _options() -> str:
    """Return the options of a config by section, each one with its values, default and meaning."""
    from p2p_jax.config.options import FREE_SECTIONS, OPTIONS

    lines, section = ["options of a config, as --config.OPTION=VALUE (*: may change when a run is resumed):"], ""
    for option in OPTIONS:
        group = option.name.partition(".")[0] if "." in option.name else ""
        if group != section:
            lines, section = [*lines, ""], group
        mark = "*" if option.may_change else " "
        lines.append(f"{mark} {option.name}  ({option.wanted}; {option.default!r})")
        lines += textwrap.wrap(option.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    free = ", ".join(name for name in FREE_SECTIONS if name != "extra")
    return "\n".join([*lines, "", f"{free} have the options of what they name: see python -m p2p_jax config NAME"])


def _run_of(file: Path) -> Path | None:
    """Return the directory of the run that stores a config; None for other files."""
    beside = [file.parent / name for name in ("checkpoints", "facts.json")]
    return file.parent if file.name == FILE and any(place.exists() for place in beside) else None


def _train(args: argparse.Namespace) -> None:
    import jax

    from p2p_jax.cluster.distributed import joined
    from p2p_jax.config import find, load_with_overrides
    from p2p_jax.config.files import JSON
    from p2p_jax.published import describe
    from p2p_jax.training.loop import train

    file = find(args.config)
    if file.suffix == JSON:
        config = stored_config(file, args.overrides, args.trust)
    else:
        config = load_with_overrides(args.config, args.overrides)
    workdir = args.workdir or _run_of(file) or Path("runs") / file.stem
    with joined(config, workdir):
        if jax.process_index() == 0:
            print("options that differ from the published recipe:", *describe(config, changed_only=True), sep="\n")
        train(config, workdir, trust=args.trust)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_train, argv)
