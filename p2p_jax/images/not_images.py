"""Files that are called images and are none, by what they truly are."""

import re

_KINDS = (
    (rb"version https://git-lfs", "is a pointer of Git LFS, not the image: git lfs pull"),
    (rb"(\.\./)*(\.git)?/?annex/objects/", "is a pointer of git-annex, not the image: git annex get"),
    (rb"(404|403|429|500)\b|Not Found|Access Denied", "is an error page of a server, not the image; download it again"),
    (rb"GIF8", "is a GIF file, but its name says otherwise; convert it to PNG"),
    (rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head|<body|<script|<!--)", 
     "is a web page (HTML) that a server sent instead of the image; download the image again"),
    (rb"\s*<(\?xml|svg|error|!doctype svg)", "is text (XML or SVG), not an image of pixels; convert or replace it"),
    (rb"\s*[{\[][\s\"{\[]", "is text (JSON), not an image; replace or remove it"),
    (rb"%PDF-", "is a PDF document, not an image; convert it to PNG"),
    (rb"8BPS", "is a Photoshop file; convert it to PNG"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "is a JPEG 2000 file; convert it to TIFF or PNG"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "is a JPEG XL file; convert it to PNG"),
    (rb"\x76\x2f\x31\x01", "is an OpenEXR file; convert it to a TIFF of floats"),
    (rb"P[1-7]\s", "is a PNM file (PBM, PGM, PPM); convert it to PNG"),
    (rb"\x89HDF|CDF[\x01\x02\x05]", "is a HDF5 or NetCDF file; save its arrays as .npy or TIFF"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|PK\x03\x04", "is a compressed archive, not an image; unpack it"),
    (rb"\x00\x05\x16\x07", "is a Mac's extra file for an image (AppleDouble); remove it"),
    (rb"....ftyp", "is a video or another file of the MP4 family; save its frames as images"),
    (rb"\x00{16}", "holds only zeros: its download or copy did not finish; replace it"),
)  # fmt: skip


def recognise(start: bytes) -> str | None:
    """Return what a file truly is, as the end of a sentence, with the fix; None if that is not known.

    Args:
      start: its first bytes, some hundred.
    """
    return next((told for pattern, told in _KINDS if re.match(pattern, start, re.DOTALL | re.IGNORECASE)), None)
