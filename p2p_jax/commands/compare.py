r"""Compare configs of equal cost, each trained with several seeds, or compare existing runs: a table and a page.

    python -m p2p_jax compare CONFIG [CONFIG ...] --output runs/compare --seeds 0,1 [--config.OPTION=VALUE ...]

The runs are ordinary runs in OUTPUT/NAME/seed_SEED. All train for as many multiply-adds as the first config in its
num_steps; a table of these is printed before training starts. table.md, table.json, runs.csv and comparison.html, one
page with the same validation images side by side, are updated after every run. Run the same command again to resume. A
variant of a config needs no file:

    python -m p2p_jax compare facades --output runs/l1 --variant "weak: --config.loss.lambda_l1=10" \
        --variant "deep: my_config.py --config.generator.num_downs=8"

Directories of runs, finished or stopped, are compared as they are. Nothing is trained, and no run is changed:

    python -m p2p_jax compare runs/one runs/other --output runs/beside [--checkpoint best] [--split test]

The exit status is 1 if a run diverged.
"""

import argparse
import shlex
from pathlib import Path

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("compare", __doc__, takes_overrides=True, opens_run=True)
    add = made.add_argument
    made.add_place(
        "config",
        nargs="*",
        help="configs by path or name (num_steps of the first sets the cost of all), or directories of runs",
    )
    add("--output", required=True, type=Path, help="folder of the runs, the table and the page; made if missing")
    add(
        "--variant",
        action="append",
        default=[],
        metavar="NAME: [CONFIG] OPTIONS",
        help="another config: the first one, or the named one, with these options; may be repeated",
    )
    add("--seeds", help="seeds of every config, separated by commas; 0 by default")
    add(
        "--equal",
        choices=["gmac", "steps"],
        help="what is equal for all: the multiply-adds of a training (gmac, the default), or the num_steps of "
        "their configs",
    )
    add("--gmac", type=float, help="multiply-adds of a training in 1e9, instead of those of the first config")
    add("--num_images", type=int, default=12, help="validation images on the page, 12 by default")
    add("--checkpoint", help="for runs: latest (default), best or a step")
    add("--split", help="for runs: split to compare on, such as test; the validation split by default")
    add("--data_dir", help="for runs: folder of the data set, if it is no longer where their configs say")
    made.add_trust()
    return made


def read_variant(text: str, first: str) -> tuple[str, str, list[str]]:
    """Return the name, config and options of a variant.

    Args:
      text: "NAME: [CONFIG] OPTIONS", as in "weak: --config.loss.lambda_l1=10".
      first: the config to use if none is named.

    Raises:
      InputError: the text has another form.
    """
    name, colon, rest = text.partition(":")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InputError(f"variant={text!r}: {error}") from error
    config = words.pop(0) if words and not words[0].startswith("-") else first
    if not colon or not name.strip() or not (words or config != first):
        raise InputError(
            f"variant={text!r}: write a name, a colon and the changed options, 'weak: --config.loss.lambda_l1=10'"
        )
    return name.strip(), config, words


def _is_run(path: str) -> bool:
    return any((Path(path) / name).exists() for name in ("config.json", "checkpoints"))


def _compare(args: argparse.Namespace) -> int:
    runs = [path for path in args.config if _is_run(path)]
    if not runs:
        return _compare_configs(args)
    if configs := [path for path in args.config if path not in runs]:
        raise InputError(
            f"{runs[0]} is a run, and {configs[0]} is not: compare runs with runs, or configs with configs; the "
            f"config of that run is {Path(runs[0]) / 'config.json'}"
        )
    _compare_runs(args)
    return 0


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(args, name):
            raise InputError(f"`{name}` {why}")


def _compare_runs(args: argparse.Namespace) -> None:
    from p2p_jax.evaluation.finished_runs import compare_runs

    _refuse(
        args,
        ("seeds", "variant", "equal", "gmac"),
        "is only for configs, which are trained; runs are compared as they are",
    )
    if args.overrides:
        raise InputError(f"{args.overrides[0]} is only for configs, which are trained; runs are compared as they are")
    given = {"checkpoint": args.checkpoint, "split": args.split, "data_dir": args.data_dir}
    settings = {name: value for name, value in given.items() if value is not None}
    compare_runs(args.config, args.output, num_images=args.num_images, trust=args.trust, **settings)
    _tell(args.output)


def _tell(output: Path) -> None:
    print(f"\n{(output / 'table.md').read_text()}\nThis table is in {output / 'table.md'}")
    print(f"Open {output / 'comparison.html'}")


def _name(path: str) -> str:
    """Return the name of a config; for a stored config, the name of its run."""
    from p2p_jax.config import find

    file = find(path)
    return file.resolve().parent.name if file.name == "config.json" else file.stem


def _compare_configs(args: argparse.Namespace) -> int:
    from p2p_jax.config import load_with_overrides
    from p2p_jax.evaluation.comparison import compare

    _refuse(args, ("checkpoint", "split", "data_dir"), "is only for existing runs, and these are configs")
    if any(flag.partition("=")[0] == "--config.seed" for flag in args.overrides):
        raise InputError("config.seed is for one run; give `seeds` for all")
    try:
        seeds = [int(seed) for seed in (args.seeds or "0").split(",")]
    except ValueError:
        raise InputError(f"seeds={args.seeds}: give whole numbers separated by commas, such as 0,1") from None
    first = args.config[0]
    asked = [(_name(path), path, list[str]()) for path in args.config]
    asked += [read_variant(text, first) for text in args.variant]
    configs = {}
    for name, path, own in asked:
        if name in configs:
            raise InputError(f"two configs are named {name}; rename one with `variant`, 'NAME: {path}'")
        configs[name] = load_with_overrides(path, [*args.overrides, *own], args.trust)
    settings = {"seeds": seeds, "equal": args.equal or "gmac", "gmac": args.gmac, "num_images": args.num_images}
    try:
        told = compare(configs, args.output, trust=args.trust, **settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command to resume") from None
    states = [run["state"] for row in told["configs"] for run in row["runs"].values()]
    _tell(args.output)
    if "stopped" in states:
        print("stopped; run the same command to resume")
    return int("diverged" in states)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_compare, argv)
