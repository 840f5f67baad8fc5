"""Image files on disk: finding, pairing and checking them before training starts (Pillow; no TensorFlow)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

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
    entries = sorted(folder.iterdir())
    images = [p for p in entries if p.suffix.lower() in EXTENSIONS and p.is_file()]
    others = Counter("folder" if p.is_dir() else p.suffix.lower() or p.name for p in set(entries) - set(images))
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not images:
        found = f"it holds {left_out}" if left_out else "it is empty"
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
                fault = _fault(image)
                header = Header(*image.size, _CHANNELS.get(image.mode, 0))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path} cannot be read as an image ({error}); replace or remove it") from error
        if fault:
            raise InputError(f"{path} {fault}")
        return header

    with ThreadPoolExecutor() as pool:
        return list(pool.map(read, files))


def _fault(image: Image.Image) -> str | None:
    """Return what is wrong with an image, as the end of a sentence: everything that TensorFlow reads otherwise."""
    convert = "convert it to grayscale or RGB with 8 bits"
    if image.format not in ("BMP", "JPEG", "PNG"):
        return f"is a {image.format} file whatever its name says; convert it to JPEG or PNG"
    if image.mode not in _CHANNELS:
        return f"has {len(image.getbands())} channels (mode {image.mode}); {convert}"
    if (image.mode == "P" and "transparency" in image.info) or (image.format == "BMP" and image.mode in ("1", "P")):
        return f"has a palette that would not be read rightly (mode {image.mode}); {convert}"
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation > 1:
        return f"is stored turned (EXIF orientation {orientation}), which no decoder here undoes; save it upright"
    return None
