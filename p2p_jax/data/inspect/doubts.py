"""Whether files hold two images side by side, and whether the splits of a data set are alike."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import CROPPED, crop_shape
from p2p_jax.data import checks, matching
from p2p_jax.data.layouts import Layout
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import formats

_READ, _HEADERS = 24, 200  # files of a split that are looked at
_PIXELS = 60_000_000  # of these, together, at most
_NEAR = 4  # columns on either side to compare the middle with
_TEXTURE = (0.008, 0.2)  # of an image's range: smaller steps between neighbours are flat and larger ones noise
_FEW, _SHARED = 3, 0.9  # names that two folders share at least, and their share of all
_ALIKE = 0.5  # correlation of the two middle columns of a single image
_SEAMLESS = (0.6, 1.7)  # times the step between other columns: the step across the middle of a single image


def doubt_halves(found: Mapping[str, Layout], data: ConfigDict) -> list[str]:
    """Return why files that are to be halved look like single images, a sentence for each split.

    The two images of a pair meet in a seam, which single images do not have; and all files of a data set of pairs are
    twice as wide as their halves. If you write ``side_by_side/AB`` instead of ``side_by_side`` you have looked, and are
    not asked again.

    Args:
      found: split to its files.
      data: reads ``source`` and ``train_split``.
    """
    halved = {split: layout for split, layout in found.items() if layout.halves and data.source == "side_by_side"}
    doubts = {split: fault for split, layout in halved.items() if (fault := _seamless(layout.a))}
    shapes = {split: _most_common_aspect(layout.a) for split, layout in halved.items()}
    train = shapes.get(data.train_split)
    for split, aspect in shapes.items():
        if split not in doubts and train and aspect and abs(aspect * 2 / train - 1) < 0.03:
            doubts[split] = f"most files are half as wide as those of {data.train_split}"
    return [
        f"the files of {split} ({found[split].a[0]}) look like single images, not two side by side: {fault}. "
        "For images in two folders use config.data.source=folders, or unpaired; if they are pairs all the same, "
        "side_by_side/AB"
        for split, fault in doubts.items()
    ]


def compare(found: Mapping[str, Layout], data: ConfigDict) -> Iterator[str]:
    """Say in what the files of the other splits differ from those of training: channels, depth and sizes."""
    if data.train_split not in found:
        return
    for side, name in enumerate("AB" if not found[data.train_split].halves else ("",)):
        whose = f"images of {name} in" if name else "files of"
        train = _headers(found[data.train_split].sides[side])
        for split in (split for split in found if split != data.train_split):
            other = _headers(found[split].sides[side])
            for what, of in (("", _form), ("pixels", _shape)):
                (a, share_a), (b, share_b) = _most_common(train, of), _most_common(other, of)
                if a != b and share_a > 0.9 and share_b > 0.9:
                    told = f" {what}" if what else ""
                    yield f"{whose} {split} are {b}{told}, those of {data.train_split} {a}{told}"


def describe_unlike(pairs: Sequence[tuple[Path, Path]], headers: Mapping[Path, formats.Header]) -> Iterator[str]:
    """Say how many pairs have images of two sizes, as rasters of two resolutions have."""
    if pairs:
        sizes = " and ".join(_shape(headers[path]) for path in pairs[0])
        yield (
            f"the images of {len(pairs):,} pair{'s' * (len(pairs) > 1)} differ in size, such as {pairs[0][0]} "
            f"({sizes}): they are resized to the same size"
        )


def describe_squeezed(headers: Mapping[Path, formats.Header], data: ConfigDict, *, halved: bool) -> Iterator[str]:
    """Say how many images lose their proportions where they are scaled to a width.

    Args:
      headers: of the files.
      data: reads ``preprocess`` and the sizes.
      halved: an image is half of a file.
    """
    sizes = {path: (one.height, one.width // (2 if halved else 1)) for path, one in headers.items()}
    flat = [path for path, size in sizes.items() if checks.is_squeezed(*size, data)]
    if flat:
        height, width = sizes[flat[0]]
        yield (
            f"{len(flat):,} of {len(sizes):,} images, such as {flat[0]} ({width}x{height}), are too low for the crop "
            f"when they are scaled to its width (config.data.preprocess={data.preprocess}), so they are stretched: "
            "--config.data.preprocess=scale_shortside_and_crop keeps the proportions of all"
        )


def few_of(layout: Layout, at_most: int, pixels: int) -> int:
    """Return how many examples of a layout to read for at most so many pixels; at least 3."""
    headers = _headers([*layout.a[:2], *layout.b[:2]])
    largest = max((header.width * header.height for header in headers), default=1)
    return max(min(at_most, pixels // largest), 3)


def describe_folders(layout: Layout) -> Iterator[str]:
    """Say that two folders hold images of the same names, where each file is taken for a whole example."""
    if layout.a is not layout.b or not layout.folders:
        return
    names: dict[str, set[str]] = defaultdict(set)
    for path in layout.a:
        top, *below = path.relative_to(layout.folders[0]).parts
        if below:
            names[top].add(matching.alike(path.stem))
    largest = sorted(names, key=lambda top: -len(names[top]))[:2]
    if len(largest) < 2:
        return
    one, other = (names[top] for top in largest)
    if len(one & other) >= max(_FEW, _SHARED * max(len(one), len(other))):
        first, second = (layout.folders[0] / top for top in sorted(largest))
        yield (
            f"{first} and {second} hold images of the same names, as pairs do, but each image is read as a separate "
            "example: did you mean config.data.source=folders (dir_a, dir_b), or one of these folders?"
        )


def describe_validation(layout: Layout, data: ConfigDict) -> str | None:
    """Say which share of the pixels validation looks at, where it is less than half: one crop of each image."""
    if data.preprocess not in CROPPED:
        return None
    crop_height, crop_width = crop_shape(data)
    shares = []
    for header in _headers(layout.b):
        height, width = header.height, header.width // (2 if layout.halves else 1)
        loaded = math.prod(checks.load_size(height, width, data))
        shares.append(min(crop_height * crop_width / loaded, 1.0))
    share = float(np.mean(shares)) if shares else 1.0
    if share >= 0.5:
        return None
    told = f"validation uses the centre crop of each image, {share:.1%} of the pixels"
    return f"{told}; the best checkpoint is chosen by it (the command evaluate takes whole images)"


def _form(header: formats.Header) -> str:
    return f"{header.channels} channel{'s' * (header.channels > 1)} of {header.dtype}"


def _shape(header: formats.Header) -> str:
    return f"{header.width}x{header.height}"


def _most_common(headers: Sequence[formats.Header], of) -> tuple[str, float]:
    counts = Counter(map(of, headers))
    if not counts:
        return "", 0.0
    [(value, count)] = counts.most_common(1)
    return value, count / counts.total()


def _most_common_aspect(paths: Sequence[Path]) -> float | None:
    """Return the width over the height that nine of ten files have, None if there is none."""
    counts = Counter(round(header.width / header.height, 2) for header in _headers(paths))
    for aspect, count in counts.most_common(1):
        return aspect if count > 0.9 * counts.total() else None
    return None


def _headers(paths: Sequence[Path]) -> list[formats.Header]:
    return list(read_headers(evenly(paths, _HEADERS)).values())


def read_headers(paths: Sequence[Path]) -> dict[Path, formats.Header]:
    """Read the headers of files; one that cannot be read is left out, and named elsewhere."""

    def read(path: Path) -> formats.Header | None:
        try:
            return formats.read_header(path)
        except InputError:
            return None

    with ThreadPoolExecutor() as pool:
        return {path: header for path, header in zip(paths, pool.map(read, paths), strict=True) if header}


def _seamless(paths: Sequence[Path]) -> str | None:
    """Return a sentence if the left halves continue in the right ones in nearly all files that show it."""
    chosen = evenly(paths, few_of(Layout(paths, paths), _READ, _PIXELS))
    with ThreadPoolExecutor() as pool:
        steps = [step for step in pool.map(_step_across, chosen) if step is not None]
    seamless = sum(_SEAMLESS[0] <= step <= _SEAMLESS[1] for step in steps)
    if len(steps) < max(3, len(chosen) / 2) or seamless < 0.8 * len(steps):
        return None
    return f"the left half continues in the right half without a seam in {seamless} of {len(steps)} that were looked at"


def _step_across(path: Path) -> float | None:
    """Return the step between the two middle columns, in units of the steps next to it; None where all is flat."""
    try:
        stored = formats.read(path)
    except InputError:
        return None
    pixels = stored.pixels if stored.palette is None else stored.palette[stored.pixels[..., 0]]
    middle = pixels.shape[1] // 2
    columns = pixels[:, max(middle - _NEAR - 1, 0) : middle + _NEAR + 1].astype(np.float32)
    steps = np.abs(np.diff(columns, axis=1)).mean((0, 2))
    across = min(_NEAR, middle - 1)
    near = float(np.delete(steps, across).mean()) if steps.size > 1 else 0.0
    least, most = (share * (float(pixels.max()) - float(pixels.min())) for share in _TEXTURE)
    if not least < near < most:
        return None
    sides = columns[:, across : across + 2].mean(-1)
    alike = np.corrcoef(sides.T)[0, 1] if np.ptp(sides, axis=0).all() else 0.0  # std of equal numbers may round up
    return float(steps[across]) / near if alike > _ALIKE else np.inf  # two textures that have nothing in common
