"""Image files as they are stored: of any depth and number of channels, in NumPy arrays.

Images are turned upright by their EXIF orientation, and CMYK becomes RGB. Nothing here lays transparent parts on a
colour, or takes fewer bits: see ``p2p_jax.images.raw``. Each format has one entry in ``FORMATS``.
"""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import array_files, not_images, pillow_files, tiff
from p2p_jax.images.stored import Header, Stored, Tags
from p2p_jax.storage import writing

_Result = TypeVar("_Result")


class Format(NamedTuple):
    """A file format.

    Attributes:
      name: in messages.
      endings: of file names, in small letters; the last one is proposed where a file has the wrong one.
      start: regular expression of a file's first bytes.
      read_header: ``(path, open file) -> Header``, without decoding where that can be.
      read: ``(path, open file) -> Stored``.
      write: ``(path, Stored)``; of a format that is only read it is never called.
      holds: ``(dtype, channels)``: whether depth and channels are kept when one is written.
      lossless: whether what is written is read again unchanged.
      has_palette: it holds indices of a palette.
      is_picture: programs that show pictures know it, and ``pictures`` reads and writes it through Pillow.
      save_options: options for Pillow when it writes one.
      often_misnamed: often given the ending of another such format, which every program reads all the same.
      end: regular expression for a file's last bytes, where they show that it is complete.
      is_written: files of the format are written, and not only read.
    """

    name: str
    endings: tuple[str, ...]
    start: bytes
    read_header: Callable[[Path, IO[bytes]], Header]
    read: Callable[[Path, IO[bytes]], Stored]
    write: Callable[[Path, Stored], None]
    holds: Callable[[np.dtype, int], bool]
    lossless: bool = True
    has_palette: bool = False
    is_picture: bool = True
    save_options: dict[str, Any] = {}
    often_misnamed: bool = False
    end: bytes = b""
    is_written: bool = True


def _by_pillow(name: str, endings: tuple[str, ...], start: bytes, **facts: Any) -> Format:
    options = facts.get("save_options", {})
    write = partial(pillow_files.write, options=options)
    return Format(name, endings, start, pillow_files.read_header, pillow_files.read, write, **facts)


def _of_arrays(name: str, ending: str, start: bytes, save: Callable[[Path, np.ndarray], None]) -> Format:
    return Format(
        name,
        (ending,),
        start,
        array_files.read_header,
        array_files.read,
        write=lambda path, stored: save(path, stored.pixels),
        holds=_any_number,
        is_picture=False,
    )


def _any_number(dtype: np.dtype, channels: int) -> bool:
    return dtype.kind in "fiu"


def _nothing(dtype: np.dtype, channels: int) -> bool:
    return False


def _bytes_in(*counts: int) -> Callable[[np.dtype, int], bool]:
    return lambda dtype, channels: dtype == np.uint8 and channels in counts


FORMATS = (
    _by_pillow("AVIF", (".avif",), rb"....ftyp(avif|avis)", holds=_nothing, often_misnamed=True, is_written=False),
    _by_pillow("BMP", (".bmp",), rb"BM", holds=_bytes_in(1, 3), has_palette=True, often_misnamed=True),
    _by_pillow(
        "HEIC",  # of phones
        (".heif", ".heic"),
        rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)",
        holds=_nothing,
        often_misnamed=True,
        is_written=False,
    ),
    _by_pillow(
        "JPEG",
        (".jfif", ".jpe", ".jpeg", ".jpg"),
        rb"\xff\xd8\xff",
        holds=_bytes_in(1, 3),
        lossless=False,
        save_options={"quality": 95, "subsampling": 0},
        often_misnamed=True,
        end=rb"\xff\xd9",
    ),
    _of_arrays("NumPy", ".npy", rb"\x93NUMPY", np.save),
    _of_arrays("ZIP", ".npz", rb"PK\x03\x04", np.savez_compressed),
    _by_pillow(
        "PNG",
        (".png",),
        rb"\x89PNG\r\n\x1a\n",
        holds=lambda dtype, channels: dtype in (np.uint8, np.uint16) and channels in (1, 2, 3, 4),
        has_palette=True,
        save_options={"compress_level": 3},  # a third of the time of Pillow's own choice, for files a tenth larger
        often_misnamed=True,
        end=b"IEND",
    ),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
        read_header=tiff.read_header,
        read=tiff.read,
        write=tiff.write,
        holds=_any_number,
        has_palette=True,
    ),
    _by_pillow(
        "WebP",  # it knows no gray: a reader finds it repeated in three channels
        (".webp",),
        rb"RIFF....WEBP",
        holds=_bytes_in(1, 3, 4),
        lossless=False,
        save_options={"quality": 95},
        often_misnamed=True,
    ),
)
_START, _TAIL = 256, 64  # bytes to search for the beginning of a file, and for its end
_BY_ENDING = {ending: known for known in FORMATS for ending in known.endings}
EXTENSIONS = tuple(sorted(_BY_ENDING))
WRITTEN = tuple(ending for ending in EXTENSIONS if _BY_ENDING[ending].is_written)
"""The endings of formats that are written too."""
WITH_PALETTE = tuple(ending for ending in EXTENSIONS if _BY_ENDING[ending].has_palette)
"""The endings of formats that hold indices of a palette."""
OF_PICTURES = tuple(ending for ending in EXTENSIONS if _BY_ENDING[ending].is_picture)
"""The endings of formats that programs show."""


def of_ending(ending: str) -> Format:
    """Return the format of files with that ending, one of ``EXTENSIONS``."""
    return _BY_ENDING[ending]


def read_header(path: Path) -> Header:
    """Read what an image file says of itself, without decoding it where that can be.

    Args:
      path: ends in one of ``EXTENSIONS``.

    Raises:
      InputError: it cannot be read, is of another format than its ending says, holds no image or several, or its
        library is not installed; names it.
    """
    return _with_file(path, lambda found: found.read_header)


def seems_whole(path: Path) -> bool:
    """Return whether a file ends as its format does; False where only reading it shows that."""
    with path.open("rb") as file:
        found = _recognised(file.read(_START))
        if found is None or not found.end:
            return True
        file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return re.search(found.end, file.read()) is not None


def read(path: Path) -> Stored:
    """Read an image file.

    Args:
      path: ends in one of ``EXTENSIONS``. TIFF: one page, or one band a page; .npy and .npz: one array [H, W] or
        [H, W, C].

    Raises:
      InputError: it is damaged or ends too early, or one of the reasons of ``read_header``; names it.
    """
    return _with_file(path, lambda found: found.read)


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    palette: np.ndarray | None = None,
    tags: Tags = (),
    profile: bytes | None = None,
    nodata: float | None = None,
    valid: np.ndarray | None = None,
) -> None:
    """Write an image file in the format of its ending, in one step: a kill leaves the old file or the new one.

    Args:
      path: ends in one of ``EXTENSIONS``; its folder is made if missing.
      pixels: [H, W, C], which the format must hold; see ``holds``.
      palette: [K, 3] uint8, RGB, indexed by `pixels`, uint8 [H, W, 1]. TIFF fills it up to 256 colours.
      tags: as ``read`` gives them; formats other than TIFF leave them out.
      profile: the ICC profile of its colours; TIFF and those that Pillow writes, but BMP, keep it.
      nodata: the number that marks unknown values; TIFF keeps it.
      valid: [H, W] bool, False where nothing is known; TIFF keeps it.

    Raises:
      InputError: the format does not hold such pixels, or the file cannot be written; names it.
    """
    found = _check_writable(path, pixels, palette)
    with writing.in_one_step(path) as temporary:
        found.write(temporary, Stored(pixels, palette, tags, profile, nodata, valid))


def holds(ending: str, dtype: np.dtype, channels: int) -> bool:
    """Return whether a format keeps the depth and the channels of such pixels; see ``is_lossless`` for their values.

    Args:
      ending: one of ``EXTENSIONS``.
      dtype: of the pixels.
      channels: their number.
    """
    return _BY_ENDING[ending].holds(dtype, channels)


def is_lossless(ending: str) -> bool:
    """Return whether what is written in a format is read again unchanged; JPEG and WebP, as written here, are not."""
    return _BY_ENDING[ending].lossless


def _check_writable(path: Path, pixels: np.ndarray, palette: np.ndarray | None) -> Format:
    ending, dtype, channels = path.suffix.lower(), pixels.dtype, pixels.shape[-1]
    if ending not in WRITTEN:
        raise InputError(f"{path} cannot be written: its ending must be one of {', '.join(WRITTEN)}")
    if not holds(ending, dtype, channels):
        others = [other for other in WRITTEN if holds(other, dtype, channels)]
        mend = f"choose {', '.join(others)}" if others else "no format can"
        raise InputError(f"{path} cannot be written: {ending} cannot hold {channels} channels of {dtype}; {mend}")
    if palette is None:
        return _BY_ENDING[ending]
    if ending not in WITH_PALETTE:
        raise InputError(f"{path} cannot be written: {ending} cannot hold a palette; choose {', '.join(WITH_PALETTE)}")
    if dtype != np.uint8 or channels != 1 or len(palette) > 256 or pixels.max(initial=0) >= len(palette):
        raise InputError(
            f"{path} cannot be written: with a palette of {len(palette)} colours (at most 256), pixels must be uint8 "
            f"[H, W, 1] below that, not {dtype} {list(pixels.shape)} up to {pixels.max(initial=0)}"
        )
    return _BY_ENDING[ending]


def _with_file(path: Path, reader: Callable[[Format], Callable[[Path, IO[bytes]], _Result]]) -> _Result:
    """Open a file, look whether it is what its name says, and give it to the reader of its format."""
    ending = path.suffix.lower()
    if ending not in EXTENSIONS:
        raise InputError(f"{path} cannot be read as an image: its ending must be one of {', '.join(EXTENSIONS)}")
    wanted = _BY_ENDING[ending]
    try:
        with path.open("rb") as file:
            _check_format(path, file.read(_START), wanted)
            file.seek(0)
            return reader(wanted)(path, file)
    except InputError:
        raise
    except Exception as error:  # libraries raise many kinds of errors for damaged files
        if path.is_symlink() and not path.exists():
            raise InputError(
                f"{path} is a link to {path.readlink()}, which is not there; replace or remove it"
            ) from error
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(told.split())[:200]  # bytes of the file may be in it
        raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error


def _recognised(start: bytes) -> Format | None:
    """Return the format of a file that begins so."""
    return next((known for known in FORMATS if re.match(known.start, start, re.DOTALL)), None)


def _check_format(path: Path, start: bytes, wanted: Format) -> None:
    found = _recognised(start)
    if found is wanted or (found and found.often_misnamed and wanted.often_misnamed):
        return
    if found is None and (other := not_images.recognise(start)):
        raise InputError(f"{path} {other}")
    if found is None:
        raise ValueError(f"it is not a {wanted.name} file" if start else "it is empty")
    mend = f"rename it to {found.endings[-1]}" if found.name != "ZIP" else f"convert it to {wanted.name}"
    raise InputError(f"{path} is a {found.name} file, but its name says otherwise; {mend}")
