r"""Compare configs of equal cost: train each with several seeds, and put what they came to side by side.

    python -m p2p_jax compare CONFIG [CONFIG ...] --output runs/compare --seeds 0,1 [--config.OPTION=VALUE ...]

Every run is an ordinary one, in OUTPUT/NAME/seed_SEED. All train for as many multiply-adds as the first config does in
its num_steps; the table of that is printed before the first training. table.md, table.json, runs.csv and
comparison.html, one page with the same validation images side by side, are brought up to date after every run. Running
the same command again goes on where it stopped. A variant of a config needs no file:

    python -m p2p_jax compare facades --output runs/l1 --variant "weak: --config.loss.lambda_l1=10" \
        --variant "deep: my_config.py --config.generator.num_downs=8"

The exit status is 1 if a run diverged.
"""

import argparse
import shlex
from pathlib import Path

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("compare", __doc__, takes_overrides=True)
    add = made.add_argument
    made.add_place("config", nargs="*", help="configs by path or by name; the first one's num_steps say what all cost")
    add("--output", required=True, type=Path, help="folder of the runs, the table and the page; made if missing")
    add(
        "--variant",
        action="append",
        default=[],
        metavar="NAME: [CONFIG] OPTIONS",
        help="one more config: the first one, or the one that is named, with options of its own; may stand again",
    )
    add("--seeds", default="0", help="of every config, with commas; 0 by default")
    add(
        "--equal",
        choices=["gmac", "steps"],
        default="gmac",
        help="what all have in common: the multiply-adds of a training (gmac), or the num_steps of their configs",
    )
    add("--gmac", type=float, help="multiply-adds of a training in 1e9, in place of those of the first config")
    add("--num_images", type=int, default=12, help="validation images on the page, 12 by default")
    made.add_trust()
    return made


def read_variant(text: str, first: str) -> tuple[str, str, list[str]]:
    """Return name, config and options of a variant.

    Args:
      text: "NAME: [CONFIG] OPTIONS", as in "weak: --config.loss.lambda_l1=10".
      first: the config of those that name none.

    Raises:
      InputError: it has another form.
    """
    name, colon, rest = text.partition(":")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InputError(f"variant={text!r}: {error}") from error
    config = words.pop(0) if words and not words[0].startswith("-") else first
    if not colon or not name.strip() or not (words or config != first):
        raise InputError(
            f"variant={text!r}: write a name, a colon, and what it changes, 'weak: --config.loss.lambda_l1=10'"
        )
    return name.strip(), config, words


def _compare(args: argparse.Namespace) -> int:
    from p2p_jax.config import find, load_with_overrides
    from p2p_jax.evaluation.comparison import compare

    if any(flag.partition("=")[0] == "--config.seed" for flag in args.overrides):
        raise InputError("config.seed is that of one run: give those of all, `seeds`")
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        raise InputError(f"seeds={args.seeds}: whole numbers with commas, such as 0,1") from None
    first = args.config[0]
    asked = [(find(path).stem, path, list[str]()) for path in args.config]
    asked += [read_variant(text, first) for text in args.variant]
    configs = {}
    for name, path, own in asked:
        if name in configs:
            raise InputError(f"there are two configs of the name {name}: `variant` gives one another, 'NAME: {path}'")
        configs[name] = load_with_overrides(path, [*args.overrides, *own])
    settings = {"seeds": seeds, "equal": args.equal, "gmac": args.gmac, "num_images": args.num_images}
    try:
        told = compare(configs, args.output, trust=args.trust, **settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where this one stopped") from None
    states = [run["state"] for row in told["configs"] for run in row["runs"].values()]
    print(f"\n{(args.output / 'table.md').read_text()}\nThis table is {args.output / 'table.md'}")
    print(f"Look at {args.output / 'comparison.html'}")
    if "stopped" in states:
        print("stopped; the same command goes on where this one stopped")
    return int("diverged" in states)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_compare, argv)
