"""Image files as they are stored: of any depth and number of channels, in NumPy arrays.

Unlike ``p2p_jax.images.pictures``, which gives what is to be looked at, nothing here turns images by their EXIF
orientation, lays transparent parts on white, changes CMYK, or takes fewer bits.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image

from p2p_jax.errors import InputError
from p2p_jax.images import pictures, png, tiff, writing

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".npy", ".npz", ".png", ".tif", ".tiff", ".webp")
WITH_PALETTE = (".bmp", ".png", ".tif", ".tiff")
"""The endings of formats that hold indices of a palette."""
_FORMATS = {
    ".bmp": "BMP", ".jpeg": "JPEG", ".jpg": "JPEG", ".npy": "NumPy", ".npz": "ZIP", ".png": "PNG", ".tif": "TIFF",
    ".tiff": "TIFF", ".webp": "WebP",
}  # fmt: skip
_FIRST_BYTES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"), (b"\x93NUMPY", "NumPy"), (b"PK\3\4", "ZIP"), (b"GIF8", "GIF"),
)  # fmt: skip
_ALIKE = ("BMP", "JPEG", "PNG")  # each is often given another's ending, and every program reads it all the same
_Result = TypeVar("_Result")


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
      width: in pixels.
      height: in pixels.
      channels: as they are stored, 1 where they are indices of a palette.
      dtype: of what ``read`` returns.
      palette: whether pixels are indices of a palette.
      mode: Pillow's ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", ...); "" of 16-bit PNG, of arrays, and of TIFF but for
        "CMYK".
      upright: whether no EXIF orientation says that the image is to be turned or mirrored.
    """

    width: int
    height: int
    channels: int
    dtype: np.dtype
    palette: bool = False
    mode: str = ""
    upright: bool = True


class Stored(NamedTuple):
    """The content of an image file.

    Attributes:
      pixels: [H, W, C] as they are stored, in the byte order of the machine; single bits are uint8, 0 and 255, and a
        PNG of 4 or 16 grays is one of indices of these.
      palette: [K, 3] uint8, RGB, if `pixels` are indices of it.
      tags: where a TIFF lies on the earth, and its resolution, for ``write``; see ``p2p_jax.images.tiff``.
    """

    pixels: np.ndarray
    palette: np.ndarray | None = None
    tags: tiff.Tags = ()


def read_header(path: Path) -> Header:
    """Read what an image file says of itself, without decoding it where that can be.

    Args:
      path: ends in one of ``EXTENSIONS``.

    Raises:
      InputError: it cannot be read, is of another format than its ending says, holds no image or several, or its
        library is not installed; names it.
    """
    return _with_file(path, _pillow_header, lambda *file: Header(*tiff.read_header(*file)), _array_header)


def read(path: Path) -> Stored:
    """Read an image file.

    Args:
      path: ends in one of ``EXTENSIONS``. TIFF: one page, or one band a page; .npy and .npz: one array [H, W] or
        [H, W, C].

    Raises:
      InputError: it is damaged or ends too early, or one of the reasons of ``read_header``; names it.
    """
    return _with_file(path, _read_pillow, lambda *file: Stored(*tiff.read(*file)), _read_array)


def write(path: Path, pixels: np.ndarray, *, palette: np.ndarray | None = None, tags: tiff.Tags = ()) -> None:
    """Write an image file in the format of its ending, in one step: a kill leaves the old file or the new one.

    Args:
      path: ends in one of ``EXTENSIONS``; its folder is made if missing.
      pixels: [H, W, C], which the format must hold; see ``holds``.
      palette: [K, 3] uint8, RGB, of which `pixels`, uint8 [H, W, 1], are indices. TIFF fills it up to 256 colours.
      tags: as ``read`` gives them; formats other than TIFF leave them out.

    Raises:
      InputError: the format does not hold such pixels, or the file cannot be written; names it.
    """
    ending = path.suffix.lower()
    _check_writable(path, pixels, palette)
    with writing.in_one_step(path) as temporary:
        if ending in (".tif", ".tiff"):
            tiff.write(temporary, pixels, palette, tags)
        elif ending == ".npy":
            np.save(temporary, pixels)
        elif ending == ".npz":
            np.savez_compressed(temporary, pixels)
        elif pixels.dtype == np.uint16:
            temporary.write_bytes(
                _imagecodecs().png_encode(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels, 3)
            )
        else:
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            if palette is not None:
                image.putpalette(np.ascontiguousarray(palette).tobytes())
            image.save(temporary, **pictures.SAVE_OPTIONS.get(ending, {}))


def holds(ending: str, dtype: np.dtype, channels: int) -> bool:
    """Tell whether a format keeps the depth and the channels of such pixels; see ``is_lossless`` for their values.

    Args:
      ending: one of ``EXTENSIONS``. WebP knows no gray: a reader finds it repeated in three channels.
      dtype: of the pixels.
      channels: their number.
    """
    if ending in (".npy", ".npz", ".tif", ".tiff"):
        return dtype.kind in "fiu"
    if ending == ".png":
        return dtype in (np.uint8, np.uint16) and channels in (1, 2, 3, 4)
    return dtype == np.uint8 and channels in ((1, 3, 4) if ending == ".webp" else (1, 3))


def is_lossless(ending: str) -> bool:
    """Tell whether what is written in a format is read again unchanged; JPEG and WebP, as written here, are not."""
    return ending not in (".jpeg", ".jpg", ".webp")


def _check_writable(path: Path, pixels: np.ndarray, palette: np.ndarray | None) -> None:
    ending, dtype, channels = path.suffix.lower(), pixels.dtype, pixels.shape[-1]
    if ending not in EXTENSIONS:
        raise InputError(f"{path} cannot be written: its ending is none of {', '.join(EXTENSIONS)}")
    if not holds(ending, dtype, channels):
        others = [other for other in EXTENSIONS if holds(other, dtype, channels)]
        mend = f"choose {', '.join(others)}" if others else "no format does"
        raise InputError(f"{path} cannot be written: {ending} does not hold {channels} channels of {dtype}; {mend}")
    if palette is None:
        return
    if ending not in WITH_PALETTE:
        raise InputError(f"{path} cannot be written: {ending} holds no palette; choose {', '.join(WITH_PALETTE)}")
    if dtype != np.uint8 or channels != 1 or not len(palette) <= 256 or pixels.max(initial=0) >= len(palette):
        raise InputError(
            f"{path} cannot be written: with a palette of {len(palette)} colours (at most 256), pixels must be uint8 "
            f"[H, W, 1] below that, not {dtype} {list(pixels.shape)} up to {pixels.max(initial=0)}"
        )


def _with_file(path: Path, *readers: Callable[[Path, IO[bytes]], _Result]) -> _Result:
    """Open a file, look whether it is what its name says, and give it to the reader for Pillow, TIFF or arrays."""
    ending = path.suffix.lower()
    if ending not in EXTENSIONS:
        raise InputError(f"{path} cannot be read as an image: its ending is none of {', '.join(EXTENSIONS)}")
    try:
        with path.open("rb") as file:
            _check_format(path, file.read(12))
            file.seek(0)
            reader = readers[2 if ending in (".npy", ".npz") else ending in (".tif", ".tiff")]
            return reader(path, file)
    except InputError:
        raise
    except Exception as error:  # of what is damaged, the libraries raise whatever its bytes lead them to
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error


def _check_format(path: Path, start: bytes) -> None:
    wanted = _FORMATS[path.suffix.lower()]
    found = next((name for first, name in _FIRST_BYTES if start.startswith(first)), None)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        found = "WebP"
    if found is None:
        raise ValueError(f"it is {'no ' + wanted + ' file' if start else 'empty'}")
    if found != wanted and not (found in _ALIKE and wanted in _ALIKE):
        endings = [ending for ending, name in _FORMATS.items() if name == found and found != "ZIP"]
        mend = f"rename it to {endings[-1]}" if endings else f"convert it to {wanted}"
        raise InputError(f"{path} is a {found} file whatever its name says; {mend}")


def _pillow_header(path: Path, file: IO[bytes]) -> Header:
    with Image.open(file) as image:
        # PNG's own getexif decodes the image first, to look behind it.
        exif = image.getexif() if image.format != "PNG" or png.has_exif(file) else {}
        upright = exif.get(ExifTags.Base.Orientation, 1) <= 1
        if channels := png.deep_channels(image):
            return Header(*image.size, channels, np.dtype(np.uint16), upright=upright)
        mode = "P" if png.few_grays(image) else image.mode
        return Header(*image.size, len(image.getbands()), np.dtype(np.uint8), mode == "P", mode, upright)


def _read_pillow(path: Path, file: IO[bytes]) -> Stored:
    with Image.open(file) as image:
        if channels := png.deep_channels(image):
            file.seek(0)
            pixels = _with_channels(_imagecodecs().png_decode(file.read()))
            return Stored(np.ascontiguousarray(pixels[..., :channels]))  # it makes opacity of a transparent colour
        if grays := png.few_grays(image):
            ramp = np.linspace(0, 255, grays).astype(np.uint8)
            return Stored(np.asarray(image)[..., None] // ramp[1], np.repeat(ramp[:, None], 3, axis=1))
        image.load()
        if image.mode == "1":
            return Stored(np.asarray(image, np.uint8)[..., None] * np.uint8(255))
        pixels = _with_channels(np.asarray(image))
        if image.mode != "P":
            return Stored(pixels)
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    if pixels.max() >= len(palette):
        raise ValueError(f"it has an index {pixels.max()}, but a palette of {len(palette)} colours")
    return Stored(pixels, palette)


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _array_header(path: Path, file: IO[bytes]) -> Header:
    shape, dtype = _of_array(path, file)
    height, width, channels = (*shape, 1)[:3]
    return Header(width, height, channels, dtype)


def _of_array(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype, as ``read`` gives it, of the array in a .npy or .npz file, of which it reads the head."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(file) as archive:
            if len(archive.namelist()) != 1:
                names = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
                raise InputError(
                    f"{path} holds {len(archive.namelist())} arrays ({names}); an image is one array alone"
                )
            with archive.open(archive.namelist()[0]) as member:
                shape, dtype = _npy_head(member)
    else:
        shape, dtype = _npy_head(file)
        missing = file.tell() + math.prod(shape) * dtype.itemsize - path.stat().st_size
        if missing > 0:
            raise ValueError(f"{missing} bytes are missing at its end")
    if dtype.kind not in "bfiu":
        raise InputError(f"{path} holds an array of {dtype}; an image is of whole numbers, floats or bools")
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"{path} holds an array of shape {list(shape)}; an image is [H, W] or [H, W, C]")
    return shape, np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _npy_head(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read_head: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_head(file)
    return shape, dtype


def _read_array(path: Path, file: IO[bytes]) -> Stored:
    _, dtype = _of_array(path, file)
    file.seek(0)
    loaded = np.load(file, allow_pickle=False)
    array = loaded[loaded.files[0]] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    pixels = array * np.uint8(255) if array.dtype.kind == "b" else array.astype(dtype, "C", copy=False)
    return Stored(_with_channels(pixels))


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise InputError("PNG of 16 bits needs imagecodecs: pip install 'p2p_jax[images]'") from error
    return imagecodecs
