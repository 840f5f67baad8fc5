"""Evaluate a trained run on every image of a split, and write a report.

    python -m p2p_jax evaluate runs/facades --split test

Writes results.json, images.csv and report.html, one file that opens without a network. They go into a folder of
RUN/evaluation named by split, step and switches, or into --output. Several processes can share the work, for example as
a cluster's job array: each one computes a part of the results, and one call merges them:

    python -m p2p_jax evaluate runs/facades --split test --shard 2/8
    python -m p2p_jax evaluate runs/facades --split test --merge
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2p_jax.commands.command import Parser, told_weights
from p2p_jax.errors import InputError


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("evaluate", __doc__, opens_run=True)
    add = made.add_argument
    made.add_place("workdir", "model", metavar="RUN", type=Path, help="directory of the trained run, or its model file")
    add("--split", help="split to score, such as test; the validation split by default")
    add(
        "--metrics",
        help="set metrics, with commas: histogram, fcn, labels, fid, distances, or your own module:name; by "
        "default histogram if scikit-image is installed, and fcn if --segmenter is given",
    )
    add("--output", type=Path, help="folder for the results; RUN/evaluation/SPLIT_STEP by default")
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="for CycleGAN: the direction that metrics of whole sets score")
    add("--norm", choices=["batch", "running"], help="statistics of the image itself or of training; as stored")
    add("--dropout", choices=["on", "off"], help="noise of training at translation; as stored by default")
    add("--data_dir", help="folder of the data set, if it is no longer where the run's config says")
    add("--segmenter", help="for fcn: directory made by python -m p2p_jax segmenter, or 'module:name'")
    add(
        "--palette",
        help="for fcn and labels: pix2pix_facades, cmp_facades, cityscapes or a JSON file; detected by default",
    )
    add("--label_ids", help="for fcn and labels: folder of PNGs of class numbers, instead of colours")
    add(
        "--crops",
        action="store_true",
        help="for runs trained on crops: score the centre crop of each image, as validation does, not the whole image",
    )
    add("--tile", type=int, help="translate whole images with a longer side in tiles of this side, to save memory")
    add("--inception", help="for fid and distances: file with Inception's weights, if they cannot be downloaded")
    add(
        "--features",
        help="for distances: inception, segmenter:FOLDER or module:name; by default those of the run",
    )
    add(
        "--shard",
        metavar="I/N",
        help="evaluate every N-th image from the I-th on and write a part of the results",
    )
    add("--merge", action="store_true", help="merge the parts; repeat the other options that they were made with")
    made.add_raw()
    made.add_trust()
    return made


def _evaluate(args: argparse.Namespace) -> None:
    from p2p_jax.data.splits import split_meant
    from p2p_jax.evaluation import evaluate
    from p2p_jax.training.checkpoint import find_step, read_config

    options = {name: value for name, value in vars(args).items() if value is not None}
    if "metrics" in options:
        options["metrics"] = [name.strip() for name in args.metrics.split(",")]
    if "dropout" in options:
        options["dropout"] = args.dropout == "on"
    if args.workdir.is_file() and "output" not in options:
        raise InputError(f"{args.workdir} is a file, not a directory: name a folder for the results with --output")
    if "output" not in options and (config := read_config(args.workdir, args.trust)) is not None:
        step = find_step(args.workdir, config, args.checkpoint)
        dropout = f"dropout_{args.dropout}" if args.dropout else None
        crops = "crops" if args.crops else None
        raw = "raw" if args.raw else None
        parts = [split_meant(config.data, args.split), step, args.direction, args.norm, dropout, crops, raw]
        name = "_".join(str(part) for part in parts if part is not None)
        folder = args.workdir / "evaluation" / name.replace("/", "_").replace(os.sep, "_")
        if not folder.resolve().is_relative_to(args.workdir.resolve()):
            raise InputError(f"{folder} is a link to a place outside {args.workdir}: name a folder with --output")
        options["output"] = folder
    with _tidy_ending():
        results = evaluate(options.pop("workdir"), whole=not options.pop("crops"), **options)
    if args.shard:
        count = f"{len(results['images']):,} of {results['num_images']:,} images of {results['split']}"
        print(f"{args.workdir}: step {results['step']:,}, {count}; {results['part']}")
        print("when all parts are written, merge them: the same command with --merge instead of --shard")
        return
    count = f"{results['num_images']:,} images of {results['split']}, {results['seen']}"
    told = f"step {results['step']:,}{told_weights(results['weights'], args.raw)}, {count}"
    print(f"{args.workdir}: {told}")
    for name, found in results["metrics"].items():
        apart = "".join(f"; {found[kind]} {kind}, not in the mean" for kind in ("infinite", "unknown") if kind in found)
        print(f"  {name}: {_told(found['mean'])} ({_told(found['std'])} between images{apart})")
    for name, found in results["set_metrics"].items():
        print(f"  {name}: {_line(found)}")
        for part, values in found.items():
            if isinstance(values, dict) and not part.startswith("per_class"):
                print(f"    {part}: {_line(values)}")
    print(f"results.json, images.csv and report.html are in {options['output']}")


@contextlib.contextmanager
def _tidy_ending() -> Iterator[None]:
    """Make SIGTERM, which clusters send to end jobs, raise an error, so temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(values: dict[str, Any]) -> str:
    told = (f"{key} {_told(value)}" for key, value in values.items() if not isinstance(value, dict))
    return ", ".join(told)


def _told(value: Any) -> str:
    return "undefined" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_evaluate, argv)
