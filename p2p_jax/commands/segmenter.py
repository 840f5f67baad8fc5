"""Train the segmenter of the FCN score on a data set's true labels.

    python -m p2p_jax segmenter --workdir runs/facades --output runs/facades_fcn
    python -m p2p_jax evaluate runs/facades --segmenter runs/facades_fcn

It learns from the photographs of the training split as the score will show them: at the run's crop size, resized to
the resolution of their label maps with a bilinear filter. The label maps keep their resolution, unless --size is given.
More --num_steps make it better: the default is enough for the toy facades.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from ml_collections import ConfigDict

    from p2p_jax.data import Split
    from p2p_jax.evaluation.ground_truth import GroundTruth
    from p2p_jax.images.domains import Domain


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("segmenter", __doc__, opens_run=True)
    add = made.add_argument
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, help="directory of a run, to train on its data set")
    source.add_argument("--config", help="or a config file, by path or by name")
    add("--output", type=Path, required=True, help="directory to write")
    add("--overwrite", action="store_true", help="replace the segmenter in --output")
    add(
        "--palette",
        help="cmp_facades, pix2pix_facades, cityscapes or a JSON file; detected from the colours by default",
    )
    add("--label_ids", type=Path, help="folder of PNGs of class numbers, instead of colours; needs --palette")
    add(
        "--labels",
        choices=["input", "output"],
        default="input",
        help="side of the data with the label maps (%(default)s)",
    )
    add("--data_dir", help="folder of the data set, if it is no longer where the config says")
    add("--size", type=int, help="train at this square instead of the label maps' own resolution")
    add("--num_steps", type=int, default=300, help="updates (%(default)s)")
    add("--batch_size", type=int, default=8, help="crops per update (%(default)s)")
    add("--base_width", type=int, default=16, help="channels of the first stage (%(default)s)")
    add(
        "--stride",
        type=int,
        choices=[1, 2, 4, 8],
        help="stride of the finest scores, 8 in the paper; depends on the size by default",
    )
    add("--crop_size", type=int, help="side of the crops; by default the photographs' shorter side, but at most 192")
    add("--seed", type=int, default=0, help="seed of initialisation and augmentation (%(default)s)")
    made.add_trust()
    return made


def _train(args: argparse.Namespace) -> None:
    from p2p_jax.data import load_split
    from p2p_jax.evaluation.fcn_training import train_fcn
    from p2p_jax.evaluation.ground_truth import GroundTruth
    from p2p_jax.images.domains import of_config
    from p2p_jax.images.palettes import find_palette
    from p2p_jax.nets.fcn import check_output
    from p2p_jax.training.progress import format_seconds

    for name in ("size", "num_steps", "batch_size", "base_width", "crop_size"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name} {value}: must be at least 1")
    check_output(args.output, overwrite=args.overwrite)
    config = _config(args)
    data, side = config.data, ("input", "output").index(args.labels)
    train = load_split(config, data.train_split)
    if not train.paired:
        raise InputError("a segmenter needs photographs with their labels: give a paired data set")
    domains = of_config(data)
    palette = find_palette(args.palette) if args.palette else None
    truth = GroundTruth(train, side, palette, args.label_ids, domains[side])
    examples, validation = _examples(train, domains, side, truth, args.size), []
    if data.val_split:
        held_out = load_split(config, data.val_split)
        held_out_truth = GroundTruth(held_out, side, truth.palette, args.label_ids, domains[side])
        validation = _examples(held_out, domains, side, held_out_truth, None)
    print(f"{len(examples):,} photographs of {data.train_split}; classes: {', '.join(truth.palette.names)}", flush=True)
    started = time.monotonic()
    kept = ("source", "direction", "crop_size", "train_split", "val_split")
    segmenter = train_fcn(
        examples,
        truth.palette,
        args.output,
        validation=validation,
        facts={"labels": args.labels, "data": {key: data[key] for key in kept}},
        **{
            name: getattr(args, name)
            for name in ("seed", "num_steps", "batch_size", "base_width", "stride", "crop_size", "overwrite")
        },
    )
    text = f"{args.output}: {segmenter.name}, trained in {format_seconds(time.monotonic() - started)}"
    if validation:
        values = (f"{name.replace('_', ' ')} {value:.4f}" for name, value in segmenter.facts["validation"].items())
        text += f"; on {len(validation)} real photographs of {data.val_split}: {', '.join(values)}"
    print(text)


def _examples(
    split: "Split", domains: "tuple[Domain, Domain]", side: int, truth: "GroundTruth", size: int | None
) -> "list[tuple[np.ndarray, np.ndarray]]":
    """Return every photograph at the size that the run sees, with its labels at their own size or a square."""
    import numpy as np
    from PIL import Image

    from p2p_jax.evaluation.segmentation import resized
    from p2p_jax.images.pictures import with_channels

    photographs = (
        with_channels(domains[1 - side].picture(photo), 3)
        for batch in split.batches(8)
        for photo in batch[("real_b", "real_a")[side]]
    )
    maps = (labels.astype(np.uint8) for labels in truth)
    if size is not None:
        maps = (resized(labels, (size, size), Image.Resampling.NEAREST) for labels in maps)
    return list(zip(photographs, maps, strict=True))


def _config(args: argparse.Namespace) -> "ConfigDict":
    from p2p_jax.config import complete, load
    from p2p_jax.data.elsewhere import with_data_dir
    from p2p_jax.training.checkpoint import read_filled_in

    config = load(args.config) if args.config else read_filled_in(args.workdir, args.trust)
    if config is None:
        raise InputError(f"--workdir {args.workdir} is not a run; name another one, or a config file with --config")
    if args.workdir:
        config = with_data_dir(config, args.data_dir, args.workdir / "config.json")
    config = complete(config).to_dict()
    config["data"]["load_size"] = config["data"]["crop_size"]  # toy facades are then drawn as they are generated
    if args.data_dir is not None:
        config["data"]["dir"] = args.data_dir
    return complete(config)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_train, argv)
