"""Facts in the chunks of a PNG file: Pillow reports only some of them, or only after decoding."""

import io
import re
import zlib
from typing import IO, NamedTuple

from p2p_jax.images import orientation

_MOST_TEXT = 2**20  # bytes of a text that are looked at
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_OF_16_BITS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type: channels
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GRAY = 0
_AT_ONCE = 2**20  # bytes that are unpacked
# Of Adam7, each pass: its first column and row, and how many on the next ones are.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
_MOST_PROFILE = 2**25  # bytes of a profile of colours, which Pillow takes up to 2**20


class Head(NamedTuple):
    """What the chunks of a PNG say.

    Attributes:
      depth: bits of a sample.
      colour_type: 0 gray, 2 RGB, 3 indices of a palette, 4 gray and opacity, 6 RGB and opacity.
      orientation: of EXIF, 1 to 8; see ``p2p_jax.images.orientation``.
      interlaced: whether its rows come in seven passes.
    """

    depth: int
    colour_type: int
    orientation: int = 1
    interlaced: bool = False

    @property
    def deep_channels(self) -> int:
        """How many channels a PNG of 16 bits has, else 0; Pillow reads only 8 bits of colour."""
        return _OF_16_BITS.get(self.colour_type, 0) if self.depth == 16 else 0

    @property
    def few_grays(self) -> int:
        """How many grays a PNG of 2 or 4 bits has, whose numbers Pillow stretches to 255; else 0."""
        return 2**self.depth if self.colour_type == _GRAY and self.depth in (2, 4) else 0


def read_head(file: IO[bytes]) -> Head:
    """Walk along the chunks of a PNG; the place in the file stays what it is."""
    back = file.tell()
    file.seek(8)
    head, found, texts = Head(0, 0), 0, b""
    while len(start := file.read(8)) == 8:
        length, kind = int.from_bytes(start[:4]), start[4:]
        end = file.tell() + length + 4
        if kind == b"IHDR":
            contents = file.read(13)
            head = Head(contents[8], contents[9], interlaced=bool(contents[12]))
        elif kind == b"eXIf":
            found = orientation.of_exif(file.read(length))
        elif kind in _TEXTS:
            texts += _telling(kind, file.read(min(length, _MOST_TEXT)))
        elif kind == b"IEND":
            break
        file.seek(end)
    file.seek(back)
    return head._replace(orientation=found or orientation.of_text(texts))


def check(file: IO[bytes]) -> None:
    """Refuse a PNG with damaged chunks or without its last chunk; Pillow accepts some of these.

    Raises:
      ValueError: says what is wrong.
    """
    back = file.tell()
    file.seek(8)
    while len(start := file.read(8)) == 8:
        contents, sum_there = file.read(int.from_bytes(start[:4])), file.read(4)
        if len(sum_there) < 4 or zlib.crc32(start[4:] + contents) != int.from_bytes(sum_there):
            raise ValueError(f"its chunk {start[4:].decode('latin-1')} is damaged or cut short")
        if start[4:] == b"IEND":
            file.seek(back)
            return
    raise ValueError("it ends too early")


def check_rows(file: IO[bytes], width: int, height: int) -> None:
    """Refuse a PNG whose packed pixels are fewer than its size says: cut, and closed again.

    Raises:
      ValueError: it is so.
    """
    head = read_head(file)
    wanted = sum(
        -(-(height - top) // down) * (1 + -(-columns * _CHANNELS[head.colour_type] * head.depth // 8))
        for left, top, across, down in (_PASSES if head.interlaced else ((0, 0, 1, 1),))
        if (columns := -(-(width - left) // across)) > 0 and height > top
    )
    packed = zlib.decompressobj()
    file.seek(8)
    while wanted > 0 and len(start := file.read(8)) == 8:
        contents, _ = file.read(int.from_bytes(start[:4])), file.read(4)
        while start[4:] == b"IDAT" and contents and wanted > 0:
            wanted -= len(packed.decompress(contents, _AT_ONCE))
            contents = packed.unconsumed_tail
    if wanted > 0:
        raise ValueError("rows at its end are missing: it was cut short")


def without_extras(file: IO[bytes]) -> tuple[IO[bytes], bytes | None]:
    """Return a PNG without the chunks that Pillow may refuse for their length, and its colour profile."""
    file.seek(0)
    kept, profile = [file.read(8)], None
    while len(start := file.read(8)) == 8:
        rest = file.read(int.from_bytes(start[:4]) + 4)
        kept += [start, rest] if start[4:] in _OF_PIXELS else []
        if start[4:] == b"iCCP":
            profile = _unpacked(rest[:-4].partition(b"\0")[2][1:], _MOST_PROFILE) or None
    return io.BytesIO(b"".join(kept)), profile


def _unpacked(contents: bytes, most: int) -> bytes:
    """Return what was packed with zlib, or its beginning; b"" of what is damaged."""
    try:
        return zlib.decompressobj().decompress(contents, most)
    except zlib.error:
        return b""


def _telling(kind: bytes, contents: bytes) -> bytes:
    """Return the EXIF (ImageMagick) or XMP (Adobe) in a text chunk, b"" if it has neither."""
    keyword, _, rest = contents.partition(b"\0")
    is_exif = re.fullmatch(rb"Raw profile type (exif|app1)", keyword, re.IGNORECASE)
    if not is_exif and keyword != b"XML:com.adobe.xmp":
        return b""
    compressed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if kind == b"iTXt":
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after language and translated keyword
    elif compressed:
        rest = rest[1:]
    text = _unpacked(rest, _MOST_TEXT) if compressed else rest
    return _from_hexadecimal(text) if is_exif else text


def _from_hexadecimal(text: bytes) -> bytes:
    """Return what ImageMagick writes as a name, a length and hexadecimal digits, as XMP would say it."""
    digits = re.sub(rb"\s", b"", b"".join(text.split(b"\n")[3:]))
    try:
        found = orientation.of_exif(bytes.fromhex(digits.decode("ascii")))
    except ValueError:
        return b""
    return b'tiff:Orientation="%d"' % found if found else b""


def check_length(file: IO[bytes], row: int, rows: int) -> None:
    """Refuse a PNG that holds far more than its pixels, which a library would undo to its end all the same.

    Args:
      file: stays where it is.
      row: bytes of a row of pixels.
      rows: how many.

    Raises:
      ValueError: there is more than pixels that cannot be made smaller take.
    """
    back, length = file.tell(), 0
    file.seek(8)
    while len(start := file.read(8)) == 8:
        length += int.from_bytes(start[:4]) if start[4:] == b"IDAT" else 0
        file.seek(int.from_bytes(start[:4]) + 4, 1)
    file.seek(back)
    if length > 2 * (row + 1) * rows + 2**16:
        raise ValueError("it holds more data than its pixels")
