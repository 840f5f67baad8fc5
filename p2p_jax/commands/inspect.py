"""Check a data set before training on it.

    python -m p2p_jax inspect configs/facades.py [--output FOLDER] [--config.OPTION=VALUE ...]

Prints errors, warnings and suggested options. Writes sheet.png, training images as the network gets them, and
inspection.json. The exit status is 1 if there are errors.
"""

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError
from p2p_jax.reporting import printable

if TYPE_CHECKING:
    from p2p_jax.data.inspect.inspection import Inspection

_SENTENCES, _ALIKE = 20, 5  # printed of each kind; of those that differ only in the file
_CHANNELS = 8
_BLOCKS = " ▁▂▃▄▅▆▇█"


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("inspect", __doc__, computes=False, takes_overrides=True)
    add = made.add_argument
    made.add_place("config", help="config file, by path or by name (facades)")
    add("--output", type=Path, help="folder for sheet.png and inspection.json; runs/inspect/CONFIG by default")
    add("--every", action="store_true", help="measure every image, however many there are")
    return made


def _inspect(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from p2p_jax.config import complete, find, load_with_overrides
    from p2p_jax.data.inspect.inspection import inspect
    from p2p_jax.data.inspect.sheet import draw
    from p2p_jax.images import pictures
    from p2p_jax.storage.writing import write_text

    config = complete(load_with_overrides(args.config, args.overrides))
    output = args.output or Path("runs") / "inspect" / find(args.config).stem
    with contextlib.ExitStack() as stack:

        def progress(examples, split):
            bar = tqdm(examples, desc=split, unit=" examples", disable=None, leave=False)
            return stack.enter_context(contextlib.closing(bar))

        report = inspect(config, every=args.every, progress=progress, output=output)
    write_text(output / "inspection.json", json.dumps(report._asdict(), indent=2) + "\n")
    for line in describe(report):
        print(line)
    sheet = output / "sheet.png"
    found = report.facts["splits"].get(config.data.train_split, {"unusable": [], "lonely": 0})
    is_partial = bool(found["unusable"] or found["lonely"])
    try:
        drawn = draw(config, found["unusable"] if is_partial else None)
    except InputError as error:
        sheet.unlink(missing_ok=True)  # from an earlier run
        print(f"cannot draw the sheet: {error}")
    else:
        pictures.write(sheet, drawn)
        left_out = ", without those that cannot be used" if is_partial else ""
        print(f"open {sheet}: training images as the network gets them{left_out}")
    if report.errors:
        print(f"all errors are in {output / 'inspection.json'}")
    return 1 if report.errors else 0


def describe(report: "Inspection") -> Iterator[str]:
    """Yield an inspection as short lines."""
    facts = report.facts
    yield " ".join(facts[key] for key in ("source", "dir", "direction") if facts[key])
    for split, found in facts["splits"].items():
        yield from _describe_split(split, found, facts["direction"])
    for kind in ("errors", "warnings", "suggestions"):
        sentences = getattr(report, kind)
        yield f"{len(sentences)} {kind if len(sentences) != 1 else kind[:-1]}"
        shown = list(_few_of_each(sentences))
        yield from (f"  {printable(sentence)}" for sentence in shown[:_SENTENCES])
        if len(shown) < len(sentences) or len(shown) > _SENTENCES:
            yield f"  ... and {len(sentences) - min(len(shown), _SENTENCES):,} more in inspection.json"


def _few_of_each(sentences: Sequence[str]) -> Iterator[str]:
    """Leave out sentences that say the same of many files, so the rest can be seen."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        what = " ".join(word for word in sentence.split()[1:] if not {"/", "\\"} & set(word))  # without the files
        counts[what] += 1
        if counts[what] <= _ALIKE:
            yield sentence


def _describe_split(split: str, found: Mapping[str, Any], direction: str) -> Iterator[str]:
    count = " + ".join(f"{n:,}" for n in found["count"]) + (" pairs" if found["paired"] else " images")
    seen = max(found["looked_at"])
    told = f", {seen:,} measured" if seen < max(found["count"]) else ""
    told += f"; {found['faulty']:,} files cannot be used" if found["faulty"] else ""
    told += f"; {found['lonely']:,} more files have no partner" if found["lonely"] else ""
    yield f"{split}: {count}{told}"
    if sizes := found["sizes"]:
        sides = ", ".join(f"{name} {_size(sizes[name])}" for name in ("smallest", "largest"))
        if sizes["smallest"] == sizes["largest"]:
            yield f"  size    {_size(sizes['most common'])}"
        else:
            yield f"  size    {_size(sizes['most common'])} of {sizes['share']:.0%}; {sides}"
    for name, counts in zip("AB", found["stored"], strict=True):
        if counts:
            yield f"  files {name} {'; '.join(f'{n:,} with {words}' for words, n in counts.items())}"
    for name in "AB":
        if name in found:
            role = "in" if direction.startswith(name) else "out"
            yield from _describe_side(f"{name} {role}", found[name])


def _describe_side(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    low, high = found["range"]
    channels = found["channels"]
    yield f"  {name:7} min        max        mean       histogram from {low:g} to {high:g}"
    for i, channel in enumerate(channels[:_CHANNELS]):
        numbers = "".join(f"{channel[key]:<11.4g}" for key in ("min", "max", "mean"))
        yield f"  {i:<7} {numbers}|{_bars(channel['histogram'])}|"
    if len(channels) > _CHANNELS:
        yield f"  ... and {len(channels) - _CHANNELS} more channels in inspection.json"


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _bars(counts: Sequence[int]) -> str:
    """Draw counts as a line of text; every count above zero is visible."""
    highest = max(*counts, 1)
    return "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // highest)] for count in counts)


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_inspect, argv)
