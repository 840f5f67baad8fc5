"""What is to be known of a data set before hours are spent on it: faults, doubts and numbers."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from p2p_jax.data import checks, files, layouts
from p2p_jax.data.inspect import copies, doubts, fitting, measures, options, proposals, samples
from p2p_jax.data.inspect.measures import StoredAs
from p2p_jax.data.inspect.samples import Example, Seen
from p2p_jax.data.inspect.suggestions import suggest
from p2p_jax.data.layouts import Layout
from p2p_jax.data.spread import evenly
from p2p_jax.data.stream.sources import Unpaired, make_source
from p2p_jax.errors import InputError
from p2p_jax.images.domains import Domain, of_files
from p2p_jax.images.formats import Header

_QUICK = 24  # examples that training looks at
_QUICK_PIXELS = 60_000_000  # of these, together, at most
_PIXELS = 2_000_000_000  # of the examples of a split that are measured: a minute or less
_DRAWN = 200  # examples of a source that draws its images, or that is somebody's own
_PAIRS = 200  # whose sizes training compares
_MUCH = 0.005  # share of values beyond the range that is worth a word


class Progress(Protocol):
    """Shows how far something is, while it passes on what is worked at."""

    def __call__(self, items: list[Example], what: str, /) -> Iterable[Example]:
        """Pass items on."""


class Inspection(NamedTuple):
    """What was found in a data set.

    Attributes:
      errors: sentences on what stops training or makes its results wrong; they name the file.
      warnings: sentences on what may be intended.
      suggestions: sentences on options of the config.
      facts: numbers, as JSON knows them: {"splits": {split: {"paired", "count", "looked_at", "unusable",
        "sizes", "stored", "A", "B"}}}; A and B are those of the files, before ``direction`` is applied.
    """

    errors: list[str]
    warnings: list[str]
    suggestions: list[str]
    facts: dict[str, Any]


def inspect(
    config: ConfigDict,
    *,
    every: bool = False,
    progress: Progress = lambda items, what: items,
    output: Path | None = None,
) -> Inspection:
    """Look for everything that training would refuse in a data set, and for what people regret later.

    The headers of all files are read, and so many examples of a split are measured, evenly over all of them, as some
    two billion pixels hold.

    Args:
      config: complete; reads ``data`` and ``generator``.
      every: measure every example.
      progress: ``(examples, what they are) -> examples``, which may show how far it is.
      output: a folder for CSV files with pairs, where the names of files make some that no options describe.
    """
    data, domains = config.data, of_files(config.data)
    report = Inspection([], [], [], {key: data[key] for key in ("source", "dir", "direction")} | {"splits": {}})
    found: dict[str, Layout] = {}
    from_files = layouts.is_file_source(data.source) and bool(data.dir or not data.source.startswith("cycle_gan/"))
    for split in _splits(data, from_files):
        before = len(report.errors)
        try:
            if from_files:
                found[split] = layouts.find(data, split, lenient=True)
                facts, to_see = _of_files(found[split], domains, data, report, every=every)
            else:
                facts, to_see = _of_source(data, split)
            seen = samples.look_at(progress(to_see, split), domains)
            report.errors.extend(seen.faults)
            facts["faulty"] += len(seen.faults)
            facts["unusable"] += seen.unusable
            _doubt(split, seen, domains, report, paired=facts["paired"])
            in_words = [{str(form): count for form, count in counts.items()} for counts in facts["stored"]]
            report.facts["splits"][split] = _numbers(seen, domains) | facts | {"stored": in_words}
            if split == data.train_split:
                layout = found.get(split)
                paths = layout.sides if layout and not layout.halves and data.source != "photos" else ((), ())
                report.suggestions.extend(suggest(config, facts["stored"], seen, paired=facts["paired"], paths=paths))
                if facts["lonely"] > facts["count"][0] or _are_sides(layout, data):
                    _propose(data, output, report)
        except InputError as error:
            report.errors.append(str(error))
            if split == data.train_split:
                _propose(data, output, report)
        if split not in (data.train_split, data.val_split):  # training does without it
            report.warnings.extend(report.errors[before:])
            del report.errors[before:]
    report.suggestions.extend(_without_lonely(found, data, output))
    report.errors.extend(doubts.doubt_halves(found, data))
    report.warnings.extend(doubts.compare(found, data))
    errors, warnings = copies.across_splits(found, data)
    report.errors.extend(errors)
    report.warnings.extend(warnings)
    for sentences in report[:3]:
        sentences[:] = dict.fromkeys(sentences)
    return report


def _splits(data: ConfigDict, from_files: bool) -> list[str]:
    """Return the splits of a config, and "test" where a folder of files has it as well."""
    splits = [split for split in (data.train_split, data.val_split) if split]
    try:
        if from_files and layouts.has_split(data, "test"):
            splits.append("test")
    except InputError:  # there is no folder; the other splits report it
        pass
    return list(dict.fromkeys(splits))


def _propose(data: ConfigDict, output: Path | None, report: Inspection) -> None:
    """Suggest the layout that the names of the files have, and no more: with it they are other images."""
    proposed, others = proposals.look(data, output)
    report.suggestions[:] = proposed or report.suggestions
    report.warnings.extend(others)


def _without_lonely(found: Mapping[str, Layout], data: ConfigDict, output: Path | None) -> Iterator[str]:
    """Write CSV files with the pairs there are, if a few files have no partner, and say which options read them."""
    trained = {split: found[split] for split in (data.train_split, data.val_split) if split in found}
    lonely = {path for layout in trained.values() for path in layout.lonely}
    if not lonely or output is None or any(len(layout.lonely) > len(layout.a) for layout in trained.values()):
        return
    count = "1 file that has" if len(lonely) == 1 else f"{len(lonely):,} files that have"
    read_by = options.written(options.write_found(trained, data, output / "pairs"))
    yield f"the pairs without the {count} no partner are written to CSV files: {read_by}"


def _are_sides(layout: Layout | None, data: ConfigDict) -> bool:
    """Return whether files that are to be halved have the names of the sides of pairs."""
    if layout is None or not layout.halves or data.source == "side_by_side/AB":
        return False
    return proposals.names_pairs([path.relative_to(layout.folders[0]).parts for path in layout.a])


def _of_files(
    layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict, report: Inspection, *, every: bool
) -> tuple[dict[str, Any], list[Example]]:
    """Return facts on the files of a split, and examples without faults in their headers."""
    alone = "has no partner; add the missing image or remove this one"
    report.errors.extend(copies.told_together([(path, alone) for path in layout.lonely]))
    for folder in dict.fromkeys(layout.folders):
        if lost := files.look_below(folder).lost_images:
            report.warnings.append(f"{folder}: images in unsupported formats are left out ({lost}); convert them")
    report.warnings.extend(doubts.describe_folders(layout))
    headers, faults = checks.examine(layout, domains, data, pixels=0)  # they are read to be measured
    report.errors.extend(copies.told_together(faults))
    faulty = {path for path, _ in faults}
    unlike = [pair for pair in checks.unlike_pairs(layout, headers) if faulty.isdisjoint(pair)]
    report.warnings.extend(doubts.describe_unlike(unlike, headers))
    report.warnings.extend(doubts.describe_squeezed(headers, data, halved=bool(layout.halves)))
    whole = samples.of_layout(layout, headers.keys() - faulty)
    pixels = sum(header.width * header.height for header in headers.values())
    facts = {
        "paired": layout.paired,
        "count": [len(layout.a)] if layout.paired else [len(layout.a), len(layout.b)],
        "faulty": len(faulty),
        "unusable": sorted(map(str, faulty)),
        "lonely": len(layout.lonely),
        "stored": [_count_headers(headers, paths) for paths in (() if data.source == "photos" else layout.a, layout.b)],
        "sizes": _describe_sizes((x.width // (2 if layout.halves else 1), x.height) for x in headers.values()),
    }
    return facts, whole if every else evenly(whole, max(len(whole) * _PIXELS // max(pixels, 1), _QUICK))


def _count_headers(headers: Mapping[Path, Header], paths: Sequence[Path]) -> dict[StoredAs, int]:
    return fitting.stored_as([headers[path] for path in paths if path in headers])


def _of_source(data: ConfigDict, split: str) -> tuple[dict[str, Any], list[Example]]:
    """Return the same of a source that has no files."""
    source = make_source(data, split)
    parts = [source.a, source.b] if isinstance(source, Unpaired) else [source]
    facts: dict[str, Any] = {"paired": len(parts) == 1, "count": [len(part.names) for part in parts]}
    facts |= {"faulty": 0, "unusable": [], "lonely": 0, "stored": [{}, {}]}
    return facts, samples.of_source(source, _DRAWN)


def _numbers(seen: Seen, domains: tuple[Domain, Domain]) -> dict[str, Any]:
    """Summarise what was looked at."""
    sizes = _describe_sizes(one.size for side in seen.sides for one in side)
    numbers: dict[str, Any] = {"looked_at": [len(side) for side in seen.sides], "sizes": sizes}
    for name, side, domain in zip("AB", seen.sides, domains, strict=True):
        if side:
            numbers[name] = measures.summarise(side, domain)
    return numbers


def _describe_sizes(sizes: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Count sizes, (width, height)."""
    counts = Counter(sizes)
    if not counts:
        return {}
    by_area = sorted(counts, key=math.prod)
    [(size, number)] = counts.most_common(1)
    share = number / counts.total()
    return {"most common": [*size], "share": share, "smallest": [*by_area[0]], "largest": [*by_area[-1]]}


def _doubt(split: str, seen: Seen, domains: tuple[Domain, Domain], report: Inspection, *, paired: bool) -> None:
    """Report images that are probably not as intended."""
    report.warnings.extend(_constant(seen))
    pairs = len(seen.sides[0])
    if pairs and len(seen.identical) == pairs:
        report.errors.append(
            f"A and B are the same image in all {pairs:,} pairs of {split}, such as {seen.identical[0]}: there is "
            "nothing to learn"
        )
    else:
        report.warnings.extend(_of_many(seen.identical, "A and B are the same image", f"pairs of {split}"))
    swapped = measures.find_swapped(*seen.sides) if paired else []
    if len(swapped) == 1:
        names = [side[swapped[0]].name for side in seen.sides]
        report.warnings.append(
            f"{names[0]} looks like the B of the other pairs, and {names[1]} like their A: are they swapped?"
        )
    else:
        names = [seen.sides[0][i].name for i in swapped]
        report.warnings.extend(
            _of_many(names, "A looks like the B of the others: are they swapped?", f"pairs of {split}")
        )
    for name, side, domain in zip("AB", seen.sides, domains, strict=True):
        beyond = sum(one.beyond for one in side) / max(len(side), 1)
        if domain.kind == "labels" and beyond:
            report.warnings.append(
                f"{beyond:.2%} of the labels of {name} in {split} are {domain.channels} or more, so have no class: "
                "is the number of classes, config.data.input.channels or output.channels, right?"
            )
        elif beyond > _MUCH:
            report.warnings.append(
                f"{beyond:.2%} of the values of {name} in {split} are outside the declared range and are clipped"
            )


def _of_many(names: Sequence[str], what: str, whose: str) -> Iterator[str]:
    """Say the same of one image or of many, in one sentence with some of the names."""
    if len(names) == 1:
        yield f"{names[0]}: {what}"
    elif names:
        yield f"{len(names):,} {whose}: {what} ({copies.some(names)})"


def _constant(seen: Seen) -> Iterator[str]:
    alike: dict[str, list[str]] = defaultdict(list)
    for one in (one for side in seen.sides for one in side if one.is_constant):
        alike[", ".join(f"{x:g}" for x in one.low.tolist())].append(one.name)
    for value, names in alike.items():
        yield from _of_many(names, f"all pixels have the value {value}", "images")


def quick(found: Mapping[str, Layout], domains: tuple[Domain, Domain], data: ConfigDict) -> list[str]:
    """Return sentences on what is odd in a data set, in a second or two, for training to print at its start.

    Files that are there more than once are found by their bytes; a few pairs of the training split are read.

    Args:
      found: split to its files, which have no faults.
      domains: of A and B as the files have them.
      data: reads ``train_split``.
    """
    folders: dict[str, Sequence[Path]] = {}
    held_out: set[str] = set()
    for split, layout in found.items():
        parts = {split: layout.a} if layout.paired else {f"{split}A": layout.a, f"{split}B": layout.b}
        folders |= parts
        held_out |= parts.keys() if split != data.train_split else set()
    notes = [*files.describe_duplicates(folders, held_out), *doubts.compare(found, data)]
    if data.train_split in found:
        layout = found[data.train_split]
        to_see = evenly(samples.of_layout(layout, {*layout.a, *layout.b}), doubts.few_of(layout, _QUICK, _QUICK_PIXELS))
        seen = samples.look_at(to_see, domains)  # its faults are named when they are met
        notes.extend(doubts.describe_folders(layout))
        constant = [one.name for side in seen.sides for one in side if one.is_constant]
        if not layout.halves and layout.paired:
            pairs = evenly(list(zip(layout.a, layout.b, strict=True)), _PAIRS)
            headers = doubts.read_headers([path for pair in pairs for path in pair])
            looked_at = layout._replace(a=[a for a, _ in pairs], b=[b for _, b in pairs])
            notes.extend(doubts.describe_unlike(checks.unlike_pairs(looked_at, headers), headers))
        for what, names in (("of one constant value", constant), ("the same image as A and as B", seen.identical)):
            if names:
                few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                count = f"{len(names)} {'are' if len(names) > 1 else 'is'}"
                notes.append(f"of the {len(to_see)} examples looked at, {count} {what} ({few})")
    return notes
