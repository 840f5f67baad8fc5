"""Translate images or a video with a trained run.

    python -m p2p_jax.translate --workdir runs/facades --input photos --output translated

The input is an image, a folder (with the folders in it), a pattern in quotes ("photos/*.png"), an array (.npy,
[N, H, W, C]) or a video. Names, formats and sizes are kept; existing files are left as they are. The exit status is 1
if a file could not be translated.
"""

import argparse
import contextlib
import sys
import warnings
from pathlib import Path

from p2p_jax.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_jax.translate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workdir", required=True, help="directory of the trained run")
    add("--input", required=True, help="image, folder, quoted pattern, .npy array or video")
    add("--output", required=True, type=Path, help="folder, or file where the input is one; made if missing")
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="for CycleGAN, in the words of the training folders")
    add("--size", help="resize to this square, or WIDTHxHEIGHT, before translating; the original size by default")
    add("--norm", choices=["batch", "running"], help="statistics of the image itself or of training; as stored")
    add("--dropout", choices=["on", "off"], help="noise of training at translation; as stored by default")
    add("--tile", type=int, help="translate images with a longer side in overlapping tiles of this side")
    add("--overlap", type=int, help="pixels that tiles share; a quarter of --tile by default")
    add("--batch_size", type=int, default=8, help="images at a time (8)")
    add("--format", default="", help="png, jpg, webp, tif or bmp for all files written; each its own by default")
    add("--keep_alpha", action="store_true", help="give translations the transparency of their sources")
    add("--overwrite", action="store_true", help="replace files that exist")
    return parser


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Read "256" or "640x480" (width x height) as (height, width)."""
    if text is None:
        return None
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise InputError(f"--size {text}: write one number, such as 256, or WIDTHxHEIGHT, such as 640x480")
    return int(numbers[-1]), int(numbers[0])


def _translate(args: argparse.Namespace) -> int:
    from absl import logging
    from tqdm import tqdm

    from p2p_jax.images import pictures
    from p2p_jax.inference import Translator, files, video

    logging.set_verbosity(logging.ERROR)  # Orbax otherwise tells every step that it takes
    size, source = parse_size(args.size), Path(args.input)
    ending = f".{args.format.lower().lstrip('.')}" if args.format else ""
    if ending and ending not in pictures.EXTENSIONS:
        raise InputError(f"--format {args.format}: choose one of {', '.join(e[1:] for e in pictures.EXTENSIONS)}")
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size} must be at least 1")
    whole = {".npy": files.translate_stack, **dict.fromkeys(video.EXTENSIONS, video.translate_video)}
    one = whole.get(source.suffix.lower()) if source.is_file() else None
    if one and (ending or args.keep_alpha):
        raise InputError(f"--format and --keep_alpha are for image files; {source} is written in its own format")
    jobs = [] if one else files.plan(args.input, args.output, ending)

    translator = Translator.from_workdir(
        args.workdir,
        args.checkpoint,
        args.direction,
        args.norm,
        None if args.dropout is None else args.dropout == "on",
        batch_size=args.batch_size,
        tile=args.tile,
        overlap=args.overlap,
    )
    print(f"{args.workdir}: step {translator.step:,}, {translator.direction}", flush=True)
    with contextlib.closing(tqdm(total=len(jobs) or None, unit=" images", disable=None)) as bar:
        if one:
            count = one(translator, source, args.output, size=size, overwrite=args.overwrite, on_done=bar.update)
            print(f"translated {count:,} images of {source}")
            return 0
        outcome = files.translate_files(
            translator,
            jobs,
            size=size,
            keep_alpha=args.keep_alpha,
            overwrite=args.overwrite,
            on_done=bar.update,
        )
    print(f"translated {outcome.done:,} of {len(jobs):,} images to {args.output}")
    if outcome.existing:
        print(f"{outcome.existing:,} exist and were left as they are; --overwrite replaces them")
    for line in outcome.failures:
        print(f"error: {line}", file=sys.stderr)
    return 1 if outcome.failures else 0


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            sys.exit(_translate(args))
        except InputError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
