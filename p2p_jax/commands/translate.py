"""Translate images or a video with a trained run.

    python -m p2p_jax translate runs/facades photos --output translated

The input is an image, a folder (with its subfolders), a pattern in quotes ("photos/*.png"), a stack of images (.npy,
[N, H, W, C]; a .npy file found in a folder or by a pattern is one image, [H, W] or [H, W, C]) or a video. Outputs have
the depth of the run's training targets. A run that made its inputs from photographs makes them from these photographs
too (``--no_task``: they are inputs already). Names, sizes and, if they can hold the result, formats are kept; existing
files are not changed. The exit status is 1 if a file could not be translated.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Literal

from p2p_jax.commands.command import Parser, told_weights
from p2p_jax.errors import InputError


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("translate", __doc__, opens_run=True)
    add = made.add_argument
    made.add_place("workdir", "model", metavar="RUN", help="directory of the trained run, or its model file")
    made.add_place("input", help="image, folder, quoted pattern, .npy stack or video")
    add("--output", required=True, type=Path, help="folder, or file if the input is one; made if missing")
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="for CycleGAN, in the words of the training folders")
    add(
        "--size",
        help="resize first: training (in proportion, as in training), a square (256), WIDTHxHEIGHT or a factor (x4); "
        "the original size by default",
    )
    add("--no_task", action="store_true", help="use images as they are, if the run made its inputs from photographs")
    add("--norm", choices=["batch", "running"], help="statistics of the image itself or of training; as stored")
    add("--dropout", choices=["on", "off"], help="noise of training at translation; as stored by default")
    add("--tile", type=int, help="translate images with a longer side in overlapping tiles of this side")
    add("--overlap", type=int, help="pixels that tiles share; a quarter of --tile by default")
    add("--batch_size", type=int, default=8, help="images at a time (8)")
    add("--format", default="", help="png, jpg, tif, npy, ... for all output files; as the input by default")
    add("--shard", help="I/N: translate share I of N of the files, for N processes such as a job array")
    add("--max_pixels", type=int, help="largest image to accept, in pixels, instead of the usual limit")
    add("--keep_alpha", action="store_true", help="copy the transparency of the sources")
    made.add_raw()
    made.add_trust()
    add("--overwrite", action="store_true", help="replace existing files")
    return made


def parse_size(text: str | None) -> tuple[int, int] | float | Literal["training"] | None:
    """Read "256" or "640x480" (width x height) as (height, width), and "x4" as the factor 4.0."""
    if text is None:
        return None
    if text == "training":
        return "training"
    numbers = text.lower().split("x")
    if numbers[0] == "" and len(numbers) == 2 and numbers[1].replace(".", "", 1).isdecimal() and float(numbers[1]):
        return float(numbers[1])
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise InputError(
            f"--size {text}: write training, one number, such as 256, WIDTHxHEIGHT, such as 640x480, or a factor, such "
            "as x4"
        )
    return int(numbers[-1]), int(numbers[0])


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Read "2/4" as (2, 4): the second of four shares."""
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"--shard {text}: write I/N, such as 1/4 for the first of four shares")
    index, count = map(int, parts)
    if not 1 <= index <= count:
        raise InputError(f"--shard {text}: I must be from 1 to N, such as 1/4 to 4/4")
    return index, count


def _translate(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from p2p_jax.config.stored import tell_places
    from p2p_jax.images import formats, limits
    from p2p_jax.inference import Translator, files, stacks, values, video

    size, share, source = parse_size(args.size), parse_shard(args.shard), Path(args.input)
    ending = f".{args.format.lower().lstrip('.')}" if args.format else ""
    if ending and ending not in formats.WRITTEN:
        raise InputError(f"--format {args.format}: choose one of {', '.join(e[1:] for e in formats.WRITTEN)}")
    for name in ("batch_size", "max_pixels"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name} {value} must be at least 1")
    translators_of_whole = {".npy": stacks.translate_stack, **dict.fromkeys(video.EXTENSIONS, video.translate_video)}
    translate_whole = translators_of_whole.get(source.suffix.lower()) if source.is_file() else None
    if translate_whole and (ending or args.keep_alpha):
        raise InputError(f"--format and --keep_alpha are for image files; {source} is not one")
    if translate_whole and share:
        raise InputError(f"--shard divides image files; {source} is one file")
    jobs = [] if translate_whole else files.plan(args.input, args.output, ending)
    if share and any(job.target.parent.resolve() == job.source.parent.resolve() for job in jobs):
        raise InputError("--shard needs another folder as --output: one share would read what another one writes")

    translator = Translator.from_workdir(
        args.workdir,
        args.checkpoint,
        args.direction,
        args.norm,
        None if args.dropout is None else args.dropout == "on",
        batch_size=args.batch_size,
        tile=args.tile,
        overlap=args.overlap,
        trust=args.trust,
        raw=args.raw,
    )
    limits.allow(args.max_pixels or translator.config.data.max_pixels, "max_pixels")
    forward = translator.direction == translator.config.data.direction
    task = values.find_task(translator.config) if forward and not args.no_task else None
    named = source.is_file() and bool(args.output.suffix) and not args.output.is_dir()
    jobs = files.fit_endings(jobs, translator, chosen=bool(ending) or named)
    if share:
        of_all, jobs = len(jobs), files.shard(jobs, *share)
        print(f"share {args.shard}: {len(jobs):,} of {of_all:,} images")
        if not jobs:
            return 0
    weights = told_weights(translator.weights, args.raw)
    print(f"{args.workdir}: step {translator.step:,}{weights}, {translator.direction}", flush=True)
    if task:
        tell_places(translator.config, translator.run.config_file, "task")
        print(f"{translator.config.task.input} makes inputs from these images; --no_task: they are inputs already")
    with contextlib.closing(tqdm(total=len(jobs) or None, unit=" images", disable=None)) as bar:
        if translate_whole:
            count = translate_whole(
                translator, source, args.output, size=size, task=task, overwrite=args.overwrite, on_done=bar.update
            )
            print(f"translated {count:,} images of {source}")
            return 0
        outcome = files.translate_files(
            translator,
            jobs,
            size=size,
            task=task,
            keep_alpha=args.keep_alpha,
            overwrite=args.overwrite,
            on_done=bar.update,
        )
    print(f"translated {outcome.done:,} of {len(jobs):,} images to {args.output}")
    if outcome.existing:
        print(f"{outcome.existing:,} exist already and were not changed; --overwrite replaces them")
    flags = parser()
    for line in outcome.failures:
        print(f"error: {flags.with_flags(line)}", file=sys.stderr)
    return 1 if outcome.failures else 0


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_translate, argv)
