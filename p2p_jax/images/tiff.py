"""TIFF files of any depth and number of bands (tifffile, and imagecodecs for most compressions)."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import limits, orientation, profiles
from p2p_jax.images.stored import Header, Stored, Tags
from p2p_jax.images.tiff_pages import library, opened

if TYPE_CHECKING:
    import tifffile

_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)  # scale, tie points, transformation, and GeoTIFF's three
_RESOLUTION = (282, 283, 296)  # along x, along y, and its unit
_NO_UNIT = 1
_ORIENTATION = 274
_REDUCED_OR_MASK = 0b101  # of the new subfile type
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6  # of the photometric interpretation
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2  # what samples beyond the colours are; opacity, or no one knows
_MASK, _IS_MASK = 4, 0b100  # as photometric interpretation, and in the new subfile type
_COMPRESSION, _BANDS, _TILE, _DESCRIPTIONS, _NODATA = 259, 277, (322, 323), 42112, 42113
_COMPRESSIONS = {1: None, 5: "lzw", 8: "zlib", 32773: "packbits", 32946: "zlib", 50000: "zstd"}  # all lossless
JPEG = (6, 7, 33007, 34892)
"""Compressions with their tables in a separate tag, which give RGB for YCbCr."""
_LAB = {8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab"}
_PROFILE = 34675
MOST_BYTES = 2**32 - 2**25
"""Bytes of pixels in a file with offsets of 32 bits, with some room for the rest; more need a BigTIFF."""
OF_MASK: dict[str, Any] = {"photometric": _MASK, "subfiletype": _IS_MASK, "compression": "zlib", "metadata": None}
"""Options of tifffile for the page that says which pixels are valid."""


def read_header(path: Path, file: IO[bytes]) -> Header:
    """Read what a TIFF says of itself.

    Raises:
      InputError: the file holds several images or none, or tifffile is not installed. What is damaged raises whatever
        tifffile does.
    """
    with opened(path, file) as tif:
        series = _image(path, tif)
        page, (height, width, channels) = series.keyframe, _shape(series)
        width, height = orientation.size(width, height, _orientation(path, page))
        is_cmyk = page.photometric == _CMYK and channels == 4
        return Header(
            width,
            height,
            3 if is_cmyk else channels,
            np.dtype(np.uint8) if series.dtype.kind == "b" else series.dtype.newbyteorder("="),
            palette=_palette(page) is not None,
            mode="CMYK" if is_cmyk else "YCbCr" if _is_ycbcr(page, channels) else "",
            turned=_orientation(path, page) > 1,
            profile=profiles.foreign(_profile(page)) is not None,
            unknown=_nodata(page) is not None or _mask(tif) is not None,
            opacity=_has_opacity(page, channels),
        ).checked()


def read(path: Path, file: IO[bytes]) -> Stored:
    """Read the image of a TIFF; where 0 is white, whole numbers are turned round.

    Raises:
      InputError: as ``read_header``, or the image is too large.
    """
    with opened(path, file) as tif:
        series = _image(path, tif)
        axes, page, (height, width, channels) = _axes(series), series.keyframe, _shape(series)
        numbers = width, height, channels * series.dtype.itemsize
        limits.check(path, *numbers)
        with limits.turn(*numbers):
            pixels = series.asarray(maxworkers=1)  # in parallel are files, not strips
        pixels = pixels.reshape([size for _, size in axes])
        pixels = pixels.transpose(sorted(range(len(axes)), key=lambda i: _place(axes[i]))).reshape(_shape(series))
        pixels = as_numbers(pixels, page)
        mask, profile = _mask(tif), _profile(page)
        if mask is not None and mask.shape[:2] != pixels.shape[:2]:
            raise ValueError(f"its mask has {mask.shape[1]}x{mask.shape[0]} pixels, unlike the image")
        valid = None if mask is None else mask.asarray(maxworkers=1).reshape(pixels.shape[:2]) != 0
        if _is_ycbcr(page, channels):
            pixels = profiles.from_ycbcr(pixels)
        if page.photometric == _CMYK and channels == 4:
            pixels, profile = profiles.from_cmyk(pixels, profile), profile and profiles.srgb()
        stored = Stored(pixels, _palette(page), _kept_tags(page), profile, _nodata(page), valid)
        if _has_opacity(page, channels):
            stored = _with_opacity(page, stored)
        return stored.turned(_orientation(path, page))


def _is_ycbcr(page: "tifffile.TiffPage", channels: int) -> bool:
    """Return whether a page gives luma and colour differences; of JPEG, what is decoded is RGB."""
    return page.photometric == _YCBCR and channels == 3 and page.compression not in JPEG


def _has_opacity(page: "tifffile.TiffPage", channels: int) -> bool:
    """Return whether the last channel says how opaque pixels are, or may do so."""
    colours = {_RGB: 3, _BLACK_IS_ZERO: 1, _WHITE_IS_ZERO: 1}.get(int(page.photometric))
    extra = tuple(page.extrasamples)
    if page.dtype is None or page.dtype.kind != "u" or channels - 1 != colours:
        return False
    return extra[:1] in ((_ASSOCIATED,), (_UNASSOCIATED,)) or (colours == 3 and extra[:1] in ((), (_UNSPECIFIED,)))


def _with_opacity(page: "tifffile.TiffPage", stored: Stored) -> Stored:
    """Say that the last channel is opacity; where the file does not explain it, only if all of it is opaque."""
    opacity, extra = stored.pixels[..., -1], tuple(page.extrasamples)
    if extra[:1] not in ((_ASSOCIATED,), (_UNASSOCIATED,)) and (opacity < np.iinfo(opacity.dtype).max).any():
        return stored
    return stored._replace(opacity=opacity, premultiplied=extra[:1] == (_ASSOCIATED,))


def _orientation(path: Path, page: "tifffile.TiffPage") -> int:
    """Return how the image is to be turned.

    Raises:
      InputError: it is a map as well, which programs for maps do not turn.
    """
    found = orientation.valid(page.tags.valueof(_ORIENTATION, 1)) or 1
    if found > 1 and any(code in page.tags for code in _GEOREFERENCE):
        raise InputError(
            f"{path} has the orientation {found} and a georeference, which programs read differently; save it "
            "with the orientation 1"
        )
    return found


class Parts(NamedTuple):
    """An opened TIFF of one image: what tifffile has of its pixels and of its mask, and the fields of ``Stored``."""

    series: "tifffile.TiffPageSeries"
    shape: tuple[int, ...]
    mask: "tifffile.TiffPage | None"
    tags: Tags
    profile: bytes | None
    nodata: float | None


def parts(path: Path, tif: "tifffile.TiffFile") -> Parts:
    """Return the parts of an opened file; raises as ``read_header``."""
    series = _image(path, tif)
    page = series.keyframe
    return Parts(series, _shape(series), _mask(tif), _kept_tags(page), _profile(page), _nodata(page))


def as_numbers(pixels: np.ndarray, page: "tifffile.TiffPage") -> np.ndarray:
    """Return what is read of a page as it is given to others: no single bits, black as 0, the machine's byte order."""
    if pixels.dtype.kind == "b":
        pixels = pixels * np.uint8(255)
    if page.photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        whole = page.bitspersample in (1, 8 * pixels.dtype.itemsize)
        pixels = ~pixels if whole else pixels.dtype.type(2**page.bitspersample - 1) - pixels
    return pixels.astype(pixels.dtype.newbyteorder("="), "C", copy=False)


def write(path: Path, stored: Stored) -> None:
    """Write one page whose bands are the samples of a pixel, tiled and compressed as its tags say, else deflated.

    Unknown values are written as a number (``nodata``), and as a mask, which is a page of its own (``valid``).

    Note:
      Three or four channels of uint8 or uint16 are called red, green, blue, and one more that is not explained, for
      programs that know no bands to show a picture.

    Args:
      path: of the file.
      stored: [H, W, C] of numbers; its tags as ``read`` gives them.
    """
    pixels = stored.pixels
    channels = pixels.shape[-1]
    options = settings(pixels.dtype, channels, stored.palette, stored.tags, stored.profile, stored.nodata)
    with library().TiffWriter(path, bigtiff=pixels.nbytes > MOST_BYTES) as tif:
        tif.write(pixels if channels > 1 else pixels[..., 0], **options)
        if stored.valid is not None:
            tif.write(stored.valid, **OF_MASK)


def settings(
    dtype: np.dtype, channels: int, palette: np.ndarray | None, tags: Tags, profile: bytes | None, nodata: float | None
) -> dict[str, Any]:
    """Return the options of tifffile for a page, besides its pixels; see ``write`` for the arguments."""
    options: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "iccprofile": profile}
    if palette is not None:
        colors = np.zeros((3, 256), np.uint16)
        colors[:, : len(palette)] = palette.T.astype(np.uint16) * 257
        options |= {"photometric": "palette", "colormap": colors}
    elif dtype in (np.uint8, np.uint16) and channels in (3, 4):
        options |= {"photometric": "rgb", "extrasamples": ["unspecified"] * (channels - 3)}
    if channels > 1:
        options["planarconfig"] = "contig"
    known = {code: value for code, _, _, value in tags}
    if all(code in known for code in _RESOLUTION):
        options["resolution"], options["resolutionunit"] = (known[282], known[283]), known[296]
    if all(code in known for code in _TILE):
        options["tile"] = (known[323], known[322])
    compression = _COMPRESSIONS.get(known.get(_COMPRESSION, 0), "zlib")
    has_predictor = palette is None and dtype.kind in "iu" and dtype.itemsize < 8  # no other has one
    options |= {"compression": compression, "predictor": compression not in (None, "packbits") and has_predictor}
    same_bands = known.get(_BANDS) == channels
    kept = [tag for tag in tags if tag[0] in _GEOREFERENCE or (tag[0] == _DESCRIPTIONS and same_bands)]
    extra = [(*tag, True) for tag in kept]
    if nodata is not None:
        extra.append((_NODATA, 2, 0, f"{nodata:.17g}", True))
    return options | {"extratags": extra}


def _image(path: Path, tif: "tifffile.TiffFile") -> "tifffile.TiffPageSeries":
    """Return the one image of a file, which holds every byte of it."""
    images = [series for series in tif.series if not series.keyframe.subfiletype & _REDUCED_OR_MASK]
    if len(images) != 1:
        raise InputError(f"{path} holds {len(images)} images; save each as a separate file")
    series = images[0]
    letters = "".join(letter for letter, _ in sorted(_axes(series), key=_place))
    if letters not in ("YX", "YXC", "YXS", "YXQ"):  # channels, samples, and what no one has named
        size = " x ".join(map(str, series.shape))
        raise InputError(
            f"{path} holds {size} numbers with the axes {series.axes}; an image is YX, or has bands (YXS, SYX, CYX): "
            "save each image as a separate file, or as bands"
        )
    if (space := _LAB.get(int(series.keyframe.photometric))) is not None:
        raise InputError(
            f"{path} holds colours in {space}; convert it to RGB (kinds lab_l, lab_ab compute Lab from RGB)"
        )
    if series.dtype is None or series.dtype.kind not in "bfiu":
        raise InputError(f"{path} holds {series.dtype}; an image holds whole numbers or floats")
    parts = [part for page in series.pages if page for part in zip(page.dataoffsets, page.databytecounts, strict=True)]
    missing = max(offset + count for offset, count in parts) - tif.filehandle.size
    if missing > 0:
        raise ValueError(f"{missing} bytes are missing at its end")
    return series


def _axes(series: "tifffile.TiffPageSeries") -> list[tuple[str, int]]:
    """Return letter and size of those axes that are not trivial."""
    return [axis for axis in zip(series.axes, series.shape, strict=True) if axis[1] > 1 or axis[0] in "YX"]


def _place(axis: tuple[str, int]) -> int:
    return {"Y": 0, "X": 1}.get(axis[0], 2)


def _shape(series: "tifffile.TiffPageSeries") -> tuple[int, ...]:
    return (*(size for _, size in sorted(_axes(series), key=_place)), 1)[:3]


def _palette(page: "tifffile.TiffPage") -> np.ndarray | None:
    """Return the colours of a paletted page, the grays of one of 2 or 4 bits."""
    if page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and page.bitspersample in (2, 4) and page.dtype == np.uint8:
        return np.repeat(np.linspace(0, 255, 2**page.bitspersample).astype(np.uint8)[:, None], 3, axis=1)
    if page.photometric != _PALETTE or page.colormap is None or page.dtype != np.uint8:
        return None
    colors = page.colormap.T
    return (colors if colors.max() < 256 else colors >> 8).astype(np.uint8)  # some write 8 bits into its 16


def _nodata(page: "tifffile.TiffPage") -> float | None:
    """Return the number that marks unknown values (GDAL), None if there is none."""
    try:
        return float(str(page.tags.valueof(_NODATA)).strip("\0 "))
    except ValueError:
        return None


def _mask(tif: "tifffile.TiffFile") -> "tifffile.TiffPage | None":
    """Return the page that says which pixels are valid, None if there is none; smaller copies of it do not count."""
    masks = [series.keyframe for series in tif.series if series.keyframe.subfiletype & _REDUCED_OR_MASK == _IS_MASK]
    return masks[0] if masks else None


def _profile(page: "tifffile.TiffPage") -> bytes | None:
    return page.tags.valueof(_PROFILE)


def _kept_tags(page: "tifffile.TiffPage") -> Tags:
    codes: tuple[int, ...] = _GEOREFERENCE
    if any(code in page.tags for code in (*_GEOREFERENCE, _DESCRIPTIONS, _NODATA)):  # a raster, to be kept as it is
        codes += (_DESCRIPTIONS, _COMPRESSION, _BANDS, *_TILE)
    if page.tags.valueof(_RESOLUTION[-1], _NO_UNIT) != _NO_UNIT:
        codes += _RESOLUTION
    found = [page.tags[code] for code in codes if code in page.tags]
    return tuple((tag.code, int(tag.dtype), tag.count, _plain(tag.value)) for tag in found)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, int) else value  # tifffile's enumerations are of its own classes
