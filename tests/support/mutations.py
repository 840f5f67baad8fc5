"""Files of images that were damaged, or made to do damage: seeded, of every format that the library reads."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tifffile
from PIL import Image, features

_SIZE = 16, 32  # height and width: a pair of squares
_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def whole_files() -> dict[str, bytes]:
    """Return good files by their names, each an image of 32 x 16 pixels, most of them RGB of 8 bits."""
    y, x = np.mgrid[: _SIZE[0], : _SIZE[1]]
    pixels = np.stack([(5 * x + 3 * y + 60 * c) % 256 for c in range(3)], -1).astype(np.uint8)
    pixels ^= np.random.default_rng(0).integers(0, 8, pixels.shape, dtype=np.uint8)
    image, deep = Image.fromarray(pixels), pixels.astype(np.uint16) * 257
    exif = image.getexif()
    exif[0x0112] = 6
    found = {
        "plain.jpg": _saved(image, "JPEG", quality=90),
        "progressive.jpg": _saved(image, "JPEG", progressive=True, optimize=True, exif=exif),
        "gray.jpeg": _saved(image.convert("L"), "JPEG"),
        "cmyk.jpg": _saved(image.convert("CMYK"), "JPEG"),
        "plain.png": _saved(image, "PNG"),
        "palette.png": _saved(image.quantize(16), "PNG"),
        "opaque.png": _saved(image.convert("RGBA"), "PNG", dpi=(72, 72), exif=exif),
        "plain.webp": _saved(image, "WEBP", quality=80),
        "lossless.webp": _saved(image.convert("RGBA"), "WEBP", lossless=True),
        "plain.bmp": _saved(image, "BMP"),
        "palette.bmp": _saved(image.quantize(200), "BMP"),
        "gif.png": _saved(image.quantize(16), "GIF"),  # under the name of another
        "plain.npy": _array(pixels),
        "float.npy": _array(pixels.astype(np.float32) / 255),
        "plain.npz": _arrays(pixels),
        "plain.tif": _tiff(pixels, photometric="rgb"),
        "deflated.tif": _tiff(pixels, photometric="rgb", compression="zlib", predictor=True, rowsperstrip=4),
        "tiled.tiff": _tiff(pixels, photometric="rgb", tile=(16, 16), compression="packbits"),
        "big.tif": _tiff(pixels, photometric="rgb", bigtiff=True),
        "float.tif": _tiff(pixels.astype(np.float32), photometric="minisblack", planarconfig="contig"),
    }
    try:
        import imagecodecs

        found["deep.png"] = imagecodecs.png_encode(deep, 3)
        gamma = {"whitepoint": (0.3127, 0.329, 1.0), "primaries": (0.64, 0.33, 0.3, 0.6, 0.15, 0.06), "gamma": 1.4}
        profile = imagecodecs.cms_profile("rgb", **gamma)
        found["profile.jpg"] = _saved(image, "JPEG", icc_profile=profile)
        found["profile.png"] = _saved(image, "PNG", icc_profile=profile)
        found["profile.tif"] = _tiff(pixels, photometric="rgb", iccprofile=profile)
        found["lzw.tif"] = _tiff(deep, photometric="rgb", compression="lzw")
    except ImportError:
        pass
    if features.check("avif"):
        found["plain.avif"] = _saved(image, "AVIF")
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found["plain.heic"] = _saved(image, "HEIF")
    except (ImportError, OSError, KeyError):  # it may read and not write
        pass
    return found


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _array(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def _arrays(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, pixels)
    return file.getvalue()


def _tiff(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


# Each takes a file and a source of chance.


def _flip(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _flip_at_the_start(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        found[rng.randrange(min(len(found), 200))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 64)), len(data) - 1))]


def _length(data: bytes, rng: random.Random) -> bytes:
    """Some field says another number, as lengths, counts and sizes are written."""
    found, width = bytearray(data), rng.choice((1, 2, 4, 4))
    value = rng.choice(_LENGTHS) & (256**width - 1)
    for _ in range(rng.choice((1, 1, 3))):
        start = rng.randrange(max(1, min(len(found) - width, 300)))
        found[start : start + width] = value.to_bytes(width, rng.choice(("big", "little")))
    return bytes(found)


def _size(data: bytes, rng: random.Random) -> bytes:
    """Width or height, wherever they seem to stand, are huge or nothing."""
    for width in (4, 2):
        for order in rng.sample(("big", "little"), 2):
            old = rng.choice(_SIZE).to_bytes(width, order)
            if old in data[8:]:
                new = (rng.choice(_LENGTHS) & (256**width - 1)).to_bytes(width, order)
                start = data.index(old, 8)
                return data[:start] + new + data[start + width :]
    return _length(data, rng)


def _swap(data: bytes, rng: random.Random) -> bytes:
    places = sorted(rng.randrange(len(data)) for _ in range(4))
    a, b, c, d = places
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    count = min(rng.choice((4, 16, 64, len(data))), len(data) - start)
    return data[:start] + bytes(count) + data[start + count :]


def _double(data: bytes, rng: random.Random) -> bytes:
    head = data[: rng.choice((8, 16, 33, 64, 128, len(data)))]
    return head + data


def _insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice((1, 7, 100))) + data[start:]


def _whole_chunks(data: bytes, rng: random.Random) -> bytes:
    """Chunks of a PNG change their places or their contents, with sums that fit; of others, any two parts."""
    if not data.startswith(b"\x89PNG"):
        return _swap(data, rng)
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], bytearray(data[place + 8 : place + 8 + length])))
        place += 12 + length
    what = rng.randrange(4)
    if what == 0:
        rng.shuffle(chunks)
    elif what == 1:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    elif what == 2:
        del chunks[rng.randrange(len(chunks))]
    else:
        for _, contents in chunks:
            if contents:
                contents[rng.randrange(len(contents))] ^= 1 << rng.randrange(8)
    parts = [
        struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + bytes(contents)))
        for kind, contents in chunks
    ]
    return data[:8] + b"".join(parts)


def _entry(data: bytes, rng: random.Random) -> bytes:
    """A tag of a TIFF says another kind, count or value; of others, some field."""
    if data[:4] != b"II*\0":
        return _length(data, rng)
    found, start = bytearray(data), int.from_bytes(data[4:8], "little")
    entry = start + 2 + 12 * rng.randrange(int.from_bytes(data[start : start + 2], "little"))
    place, width = rng.choice(((2, 2), (4, 4), (8, 4)))
    found[entry + place : entry + place + width] = (rng.choice(_LENGTHS) & (256**width - 1)).to_bytes(width, "little")
    return bytes(found)


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip_at_the_start, _cut, _length, _size, _swap, _zeros, _double, _insert, _whole_chunks, _entry,
)  # fmt: skip


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of damaged files: every format and every way of damage in turn."""
    rng, files = random.Random(seed), list(whole_files().items())
    for number in range(count):
        name, data = files[number % len(files)]
        way = _WAYS[(number + number // len(files)) % len(_WAYS)]
        yield f"{number:04d}_{way.__name__.strip('_')}_{name}", way(data, rng)
