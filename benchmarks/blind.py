"""Show the translations of two groups of runs side by side without their names, and count which is preferred.

    python -m benchmarks.blind make --first RUN [RUN ...] --second RUN [RUN ...] --output FOLDER [--split test]
        [--data_dir DIR] [--count 48] [--seed 0] [--trust MODULE:NAME]
    python -m benchmarks.blind count --output FOLDER --chosen LRLLR...

`make` draws images of a split and puts the input, and a translation of each group in random order, into sheets; image
after image the next run of each group is taken, so that runs are the seeds of a recipe. Look at the sheets, write one
letter for each row, L, R or = for neither, and only then `count`, which opens key.json.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLUMNS, ROWS, GAP, LINE = 2, 6, 6, 14  # of a sheet, and pixels between and above
SIDE = 192  # least side of a picture, for the eye
CHOICES = "LR="


def make(args: argparse.Namespace) -> None:
    """Write the sheets and the key."""
    from p2p_jax import Translator
    from p2p_jax.data import load_split
    from p2p_jax.data.elsewhere import with_data_dir
    from p2p_jax.evaluation.predictions import as_picture, predict

    draw = random.Random(args.seed)
    groups, chosen, names = [], list[int](), list[str]()
    for runs in (args.first, args.second):
        pictures: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for number, run in enumerate(runs):
            translator = Translator.from_workdir(run, batch_size=1, trust=args.trust)
            config = with_data_dir(translator.config, args.data_dir, translator.run.config_file)
            every = list(predict(translator, load_split(config, args.split)))
            if not chosen:
                chosen = sorted(draw.sample(range(len(every)), min(args.count, len(every))))
                names = [every[i].name for i in chosen]
            for place in range(number, len(chosen), len(runs)):
                one = every[chosen[place]]
                if one.name != names[place]:
                    raise SystemExit(f"{run} has {one.name} where {args.first[0]} has {names[place]}: other data")
                pictures[place] = (
                    translator.domain_in.picture(one.input),
                    as_picture(translator, one.output, one.input),
                )
        groups.append(pictures)
    rows = []
    for place, name in enumerate(names):
        first, second = groups[0][place], groups[1][place]
        left = draw.choice(["first", "second"])
        shown = [first[0], first[1], second[1]] if left == "first" else [first[0], second[1], first[1]]
        rows.append((name, left, shown))
    args.output.mkdir(parents=True)
    for i in range(0, len(rows), COLUMNS * ROWS):
        part = [shown for _, _, shown in rows[i : i + COLUMNS * ROWS]]
        sheet(part, i + 1).save(args.output / f"sheet_{i // (COLUMNS * ROWS) + 1}.png")
    key = {"seed": args.seed, "split": args.split, "first": args.first, "second": args.second}
    key["rows"] = [{"name": name, "left": left} for name, left, _ in rows]
    (args.output / "key.json").write_text(json.dumps(key, indent=1) + "\n")


def sheet(rows: Sequence[Sequence[np.ndarray]], number: int) -> Image.Image:
    """Return pictures [H, W, 1 or 3] uint8 in rows of input, left and right, numbered from `number` on."""
    height, width = rows[0][0].shape[:2]
    scale = max(1, -(-SIDE // height))
    height, width = scale * height, scale * width
    block = (3 * width + 4 * GAP, height + LINE + GAP)
    image = Image.new("RGB", (COLUMNS * block[0], ROWS * block[1]), "white")
    for i, shown in enumerate(rows):
        left, top = block[0] * (i % COLUMNS), block[1] * (i // COLUMNS)
        ImageDraw.Draw(image).text((left + 2, top), f"{number + i}     input | L | R", fill="black")
        for j, pixels in enumerate(shown):
            picture = Image.fromarray(pixels.repeat(3, -1) if pixels.shape[-1] == 1 else pixels)
            image.paste(
                picture.resize((width, height), Image.Resampling.NEAREST), (left + j * (width + GAP), top + LINE)
            )
    return image


def count(rows: Sequence[dict], chosen: str) -> dict[str, float]:
    """Return how often each group was preferred.

    Args:
      rows: of the key, each with the group at the "left".
      chosen: a letter for each, of CHOICES.
    """
    letters = "".join(chosen.upper().split())
    if len(letters) != len(rows) or set(letters) - set(CHOICES):
        raise SystemExit(f"there are {len(rows)} rows and {len(letters)} choices; each is one of {CHOICES}")
    counts = {"first": 0, "second": 0, "neither": 0}
    for row, letter in zip(rows, letters, strict=True):
        other = "second" if row["left"] == "first" else "first"
        counts[{"L": row["left"], "R": other, "=": "neither"}[letter]] += 1
    return {**counts, "share_of_second": (counts["second"] + counts["neither"] / 2) / len(rows)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making, counting = verbs.add_parser("make"), verbs.add_parser("count")
    for group in ("--first", "--second"):
        making.add_argument(group, nargs="+", required=True, metavar="RUN")
    making.add_argument("--split", default="test")
    making.add_argument("--data_dir")
    making.add_argument("--trust", action="append", default=[], metavar="MODULE:NAME")
    making.add_argument("--count", type=int, default=48)
    making.add_argument("--seed", type=int, default=0)
    counting.add_argument("--chosen", required=True)
    for verb in (making, counting):
        verb.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.verb == "make":
        make(args)
    else:
        print(json.dumps(count(json.loads((args.output / "key.json").read_text())["rows"], args.chosen)))


if __name__ == "__main__":
    main()
