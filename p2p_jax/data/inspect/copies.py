"""Sentences on many files at once, and on examples that are twice in a data set, in one split or in two."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ml_collections import ConfigDict

from p2p_jax.data import files
from p2p_jax.data.layouts import Layout

_LEAK = 0.05  # share of validation images that are in training too; above it scores say little
_NAMES = 10  # that a sentence has at most
_FEW = 5  # files with the same fault that are named one by one


def some(names: Sequence[object]) -> str:
    """Return some of many names; those that would break a line, as Python writes them."""
    return ", ".join(map(files.shown, names[:_NAMES])) + (", ..." if len(names) > _NAMES else "")


def told_together(faults: Iterable[tuple[Path, str]]) -> Iterator[str]:
    """Say what is wrong with files; of many that have the same fault in one sentence, with some names."""
    by_fault: dict[str, list[Path]] = defaultdict(list)
    for path, fault in faults:
        by_fault[fault].append(path)
    for fault, paths in by_fault.items():
        if len(paths) > _FEW:
            folder = Path(os.path.commonpath(paths))
            names = some([path.relative_to(folder) for path in paths])
            yield f"{len(paths):,} files in {folder}: each {fault} ({names})"
        else:
            yield from (f"{path} {fault}" for path in paths)


def across_splits(found: Mapping[str, Layout], data: ConfigDict) -> tuple[list[str], list[str]]:
    """Return errors and warnings on examples of the same bytes, within a split and across."""
    errors: list[str] = []
    warnings: list[str] = []
    paths = dict.fromkeys(path for layout in found.values() for path in (*layout.a, *layout.b))
    first = {path: group[0] for group in files.find_duplicates(paths) for path in group}
    places: dict[tuple[Path, ...], list[tuple[str, Path]]] = defaultdict(list)
    for split, layout in found.items():
        pairs = list(zip(layout.a, layout.b, strict=True)) if layout.paired else [(x,) for x in (*layout.a, *layout.b)]
        for pair in pairs:
            places[tuple(first.get(path, path) for path in pair)].append((split, pair[0]))
    within: list[str] = []
    across: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (split, path), *others in places.values():
        for other_split, copy in others:
            group = within if other_split == split else across[other_split, split]
            group.append(f"{copy} is the same as {path}")
    if within:
        warnings.append(within[0] if len(within) == 1 else f"{len(within):,} images are there twice: {some(within)}")
    for (split, other), examples in across.items():
        flatters = {split, other} == {data.train_split, data.val_split} and found[split].paired
        many = len(examples) > _LEAK * min(len(found[split].a), len(found[other].a))
        told = some(examples) if len(examples) == 1 else f"{len(examples):,} images: {some(examples)}"
        if flatters and many:
            errors.append(
                f"{told}: {split} and {other} must have nothing in common, or scores are too good; remove one of them"
            )
        else:
            warnings.append(f"{told}: {split} and {other} should have nothing in common")
    warnings.extend(_shared_images(found, first, places))
    return errors, warnings


def _shared_images(
    found: Mapping[str, Layout], first: Mapping[Path, Path], places: Mapping[tuple[Path, ...], Sequence]
) -> Iterator[str]:
    """Report images of pairs that are in two splits with different partners."""
    whole = {path for key, members in places.items() if len(members) > 1 for path in key}
    for (split, one), (other_split, other) in combinations(found.items(), 2):
        for side in (0, 1) if one.paired and one.a is not one.b else ():
            known = {first.get(path, path) for path in one.sides[side]} - whole
            shared = [path for path in other.sides[side] if first.get(path, path) in known]
            if shared:
                few = ", ".join(map(str, shared[:3])) + (", ..." if len(shared) > 3 else "")
                one_or_more = "image", "is", "another partner"
                noun, verb, partner = one_or_more if len(shared) == 1 else ("images", "are", "other partners")
                name = "AB"[side]
                yield f"{len(shared)} {noun} of {name} in {other_split} also {verb} in {split}, with {partner} ({few})"
