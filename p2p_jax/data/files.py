"""Image files on disk: finding, pairing and checking them before training starts (Pillow; no TensorFlow)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from p2p_jax.errors import InputError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png")
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
# Up to this many files are decoded whole before training; above it only headers are read, and a damaged body stops the
# run by name when it is met.
DECODE_AT_MOST = 5_000


class Header(NamedTuple):
    """What an image file says of itself: width and height in pixels, and its channels (1 or 3)."""

    width: int
    height: int
    channels: int


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; says how many others it leaves out.

    Raises:
      InputError: the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    files = sorted(p for p in folder.iterdir() if p.is_file())
    images = [p for p in files if p.suffix.lower() in EXTENSIONS]
    others = Counter(p.suffix.lower() or p.name for p in files if p.suffix.lower() not in EXTENSIONS)
    left_out = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
    if not images:
        found = f"it holds {left_out}" if left_out else "it holds no file"
        raise InputError(f"no image in {folder} ({', '.join(EXTENSIONS)} are read): {found}")
    if left_out:
        print(f"{folder}: {len(images)} images; not images, left out: {left_out}")
    return images


def match_stems(a: Sequence[Path], b: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair the files of two folders by stem (the name without its ending).

    Raises:
      InputError: a file has no partner, or two files in one folder share a stem; names them.
    """
    sides = []
    for files in (a, b):
        by_stem: dict[str, Path] = {}
        for path in files:
            if path.stem in by_stem:
                raise InputError(f"{by_stem[path.stem]} and {path} have the same stem; remove or rename one of them")
            by_stem[path.stem] = path
        sides.append(by_stem)
    lonely = sorted(sides[0].keys() ^ sides[1].keys())
    if lonely:
        examples = [str(sides[0].get(stem) or sides[1][stem]) for stem in lonely[:3]]
        raise InputError(
            f"{len(lonely)} of {len(a)} + {len(b)} images have no partner of the same stem in the other folder: "
            f"{', '.join(examples)}{' ...' if len(lonely) > 3 else ''}; add the missing ones or remove these"
        )
    return [(sides[0][stem], sides[1][stem]) for stem in sorted(sides[0])]


def read_headers(files: Iterable[Path]) -> list[Header]:
    """Return the header of every file; up to ``DECODE_AT_MOST`` files are decoded whole as well.

    Raises:
      InputError: a file cannot be read or has neither 1 nor 3 channels; names it.
    """
    files = list(files)

    def read(path: Path) -> Header:
        try:
            with Image.open(path) as image:
                if len(files) <= DECODE_AT_MOST:
                    image.load()
                size, mode = image.size, image.mode
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path} cannot be read as an image ({error}); replace or remove it") from error
        if mode not in _CHANNELS:
            raise InputError(
                f"{path} has {len(Image.new(mode, (1, 1)).getbands())} channels (mode {mode}); "
                "convert it to grayscale or RGB with 8 bits"
            )
        return Header(*size, _CHANNELS[mode])

    with ThreadPoolExecutor() as pool:
        return list(pool.map(read, files))
