"""Train and score the ablation tables of the pix2pix paper, and write them beside its numbers.

    python -m p2p_jax.ablate --config configs/facades.py --output runs/ablation --table all [--config.OPTION=VALUE ...]

Every row is an ordinary run in the output folder. Running the same command again goes on where it stopped; table.md and
table.json are brought up to date after every row. The exit status is 1 if a row diverged.
"""

import argparse
import sys
from pathlib import Path

from p2p_jax.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_jax.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, help="config of the whole method (U-Net, L1+cGAN), by path or by name (facades)")
    add("--output", required=True, type=Path, help="folder of the runs and the tables; made if missing")
    add(
        "--table",
        required=True,
        choices=["losses", "generators", "patches", "all"],
        help="Table 1, 2 or 3 of the paper, or all of them, whose common rows are trained once",
    )
    add("--num_steps", type=int, help="steps of every run; the config's by default")
    add("--split", help="split to score on; the config's data.val_split by default")
    add("--metrics", help="what to score by, with commas: histogram, fcn, labels, fid; see p2p_jax.evaluate")
    add("--segmenter", help="adds FCN scores: a folder from p2p_jax.train_segmenter, or module:name")
    add("--palette", help="colours of the label maps: pix2pix_facades, cmp_facades, cityscapes or a JSON file")
    add("--label_ids", help="folder of PNGs of class numbers that take the place of the colours")
    add("--inception", help="file with Inception's weights, for fid without internet")
    return parser


def _ablate(args: argparse.Namespace, overrides: list[str]) -> int:
    if args.num_steps is not None:
        overrides = [*overrides, f"--config.num_steps={args.num_steps}"]
    from absl import logging

    from p2p_jax.config import load_with_overrides
    from p2p_jax.evaluation.ablation import TABLES, ablate

    logging.set_verbosity(logging.ERROR)  # JAX and Orbax otherwise tell every step that they take
    config = load_with_overrides(args.config, overrides)
    scoring = {name: getattr(args, name) for name in ("segmenter", "palette", "label_ids", "inception")}
    if args.metrics is not None:
        scoring["metrics"] = args.metrics.split(",")
    tables = TABLES if args.table == "all" else [args.table]
    told = ablate(config, args.output, tables=tables, split=args.split, **scoring)
    print(f"\n{(args.output / 'table.md').read_text()}\nThis table is {args.output / 'table.md'}")
    return int(any(row["state"] == "diverged" for table in told["tables"] for row in table["rows"]))


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    args, overrides = _parser().parse_known_args(argv)
    try:
        status = _ablate(args, overrides)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last finished row")
    sys.exit(status)


if __name__ == "__main__":
    run()
