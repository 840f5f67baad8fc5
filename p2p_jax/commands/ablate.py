"""Train and score the ablation tables of the pix2pix paper, next to the paper's numbers.

    python -m p2p_jax ablate configs/facades.py --output runs/ablation --table all [--config.OPTION=VALUE ...]

Every row is an ordinary run in the output folder. Run the same command again to resume. table.md and table.json are
updated after every row. The exit status is 1 if a row diverged.
"""

import argparse
from pathlib import Path

from p2p_jax.commands.command import Parser


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("ablate", __doc__, takes_overrides=True)
    add = made.add_argument
    made.add_place("config", help="config of the whole method (U-Net, L1+cGAN), by path or by name (facades)")
    add("--output", required=True, type=Path, help="folder of the runs and the tables; made if missing")
    add(
        "--table",
        required=True,
        choices=["losses", "generators", "patches", "all"],
        help="Table 1, 2 or 3 of the paper, or all; rows that tables share are trained once",
    )
    add("--num_steps", type=int, help="steps of every run; the config's by default")
    add("--split", help="split to score on; the config's data.val_split by default")
    add("--metrics", help="metrics, separated by commas: histogram, fcn, labels, fid; see evaluate")
    add("--segmenter", help="adds FCN scores: a folder made by segmenter, or module:name")
    add("--palette", help="colours of the label maps: pix2pix_facades, cmp_facades, cityscapes or a JSON file")
    add("--label_ids", help="folder of PNGs of class numbers, used instead of colours")
    add("--inception", help="file with Inception's weights, for fid without a network")
    made.add_trust()
    return made


def _ablate(args: argparse.Namespace) -> int:
    from p2p_jax.config import load_with_overrides
    from p2p_jax.evaluation.ablation import TABLES, ablate

    if args.num_steps is not None:
        args.overrides.append(f"--config.num_steps={args.num_steps}")
    config = load_with_overrides(args.config, args.overrides, args.trust)
    scoring = {name: getattr(args, name) for name in ("segmenter", "palette", "label_ids", "inception")}
    if args.metrics is not None:
        scoring["metrics"] = [name.strip() for name in args.metrics.split(",")]
    tables = TABLES if args.table == "all" else [args.table]
    try:
        told = ablate(config, args.output, tables=tables, split=args.split, trust=args.trust, **scoring)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command to resume after the last finished row") from None
    print(f"\n{(args.output / 'table.md').read_text()}\nThis table is in {args.output / 'table.md'}")
    return int(any(row["state"] == "diverged" for table in told["tables"] for row in table["rows"]))


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_ablate, argv)
