"""What the images of a domain are: their values and units, and how these map to the [-1, 1] of networks.

There are three forms of an image [H, W, C]:

- raw: what a file gives and what the stream resizes and crops, [H, W, ``raw_channels``];
- values: in the units of the domain, of its ``dtype``, [H, W, ``value_channels``];
- normalized: what networks see, float32 in [-1, 1], [H, W, ``channels``].

Raw and values differ only in Lab, where files hold RGB.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.errors import InputError
from p2p_jax.images import lab, labels, opacity, shown, unknown
from p2p_jax.images.palettes import VOID, Palette, find_palette, nearest_labels, true_labels
from p2p_jax.images.pictures import with_channels
from p2p_jax.images.ranges import parse_range

NUMBERS = ("uint8", "uint16", "int16", "float")
"""Kinds whose values map to [-1, 1] by a straight line."""
KINDS = (*NUMBERS, "labels", "label_colors", "lab_l", "lab_ab")
_WHOLE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
_LAB = {"lab_l": ((0.0,), (100.0,)), "lab_ab": ((-110.0,) * 2, (110.0,) * 2)}  # the PyTorch release's ranges


class Domain(NamedTuple):
    """The images of one domain.

    Attributes:
      kind: one of ``KINDS``. "uint8", "uint16", "int16" and "float" are numbers of any meaning, in any number of
        channels. "labels" are numbers of classes, one-hot for networks; "label_colors" are labels as colours. "lab_l"
        and "lab_ab" are the lightness and the colour of photographs in CIE Lab.
      channels: of the images that networks see.
      low: per channel, the value that becomes -1; empty until it is measured, and for labels.
      high: per channel, the value that becomes 1.
      palette: the colours of labels, if they are known.
      numbers: what files store for the classes of labels, in their order; empty: 0, 1, ...
      instances: whether files store ids of instances, see ``p2p_jax.images.labels``.
      unknown: whether of some values nothing is known: NaN in raw images, which are float32 then, and in values.
      nodata: the number that stands for them besides what files say; see ``p2p_jax.images.unknown``.
      asks_files: whether what files say of unknown values counts.
      background: the colour behind transparent parts of images, RGB; None: transparent parts are refused.
    """

    kind: str
    channels: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    palette: Palette | None = None
    numbers: tuple[int, ...] = ()
    instances: bool = False
    unknown: bool = False
    nodata: float | None = None
    asks_files: bool = True
    background: tuple[int, int, int] | None = None

    @property
    def is_labels(self) -> bool:
        """Whether values are classes, which cannot be mixed: images are resized to the nearest pixel."""
        return self.kind in ("labels", "label_colors")

    @property
    def is_bytes(self) -> bool:
        """Whether values are the 8 bits of pictures: 0 becomes -1 and 255 becomes 1."""
        whole = set(zip(self.low, self.high, strict=True)) == {_WHOLE["uint8"]}
        return self.kind == "uint8" and whole and not self.unknown

    @property
    def is_photograph(self) -> bool:
        """Whether values may be the colours or the grays of a photograph."""
        return self.kind in _LAB or (self.is_bytes and self.channels in (1, 3))

    @property
    def is_measured(self) -> bool:
        """Whether the range is known, or none is needed."""
        return bool(self.low) or self.is_labels

    @property
    def dtype(self) -> np.dtype:
        """Of values."""
        kinds = {"uint16": np.uint16, "int16": np.int16, "float": np.float32, "lab_l": np.float32, "lab_ab": np.float32}
        return np.dtype(kinds.get(self.kind, np.uint8))

    @property
    def value_channels(self) -> int:
        """Channels of values."""
        return 1 if self.kind == "labels" else self.channels

    @property
    def raw_channels(self) -> int:
        """Channels of a raw image."""
        return 3 if self.kind.startswith("lab_") else self.value_channels

    @property
    def raw_dtype(self) -> np.dtype:
        """Of a raw image."""
        return np.dtype(np.float32) if self.unknown else self.file_dtype

    @property
    def file_dtype(self) -> np.dtype:
        """Of what files store."""
        return np.dtype(np.uint8) if self.kind.startswith("lab_") else self.dtype

    def fault(self, dtype: np.dtype, channels: int, has_palette: bool) -> str | None:
        """Return why an image as it is stored cannot be one of this domain, as the end of a sentence.

        Args:
          dtype: of what is stored.
          channels: as they are stored, 1 for indices of a palette.
          has_palette: whether they are such indices.
        """
        bits = f"{8 * dtype.itemsize} bits ({dtype})"
        if self.kind == "labels":
            if dtype.kind in "iu" and (channels == 1 or (dtype == np.uint8 and channels == 3 and self.palette)):
                return None
            named = " or colours" if self.palette else ", or 3 channels of colours with config.data.input.palette"
            return f"has {channels} channels of {bits}; labels are one channel of whole numbers or indices{named}"
        if self.kind == "float":
            return self._wrong_count(channels)
        if has_palette:
            channels = 3  # what its colours have
        if dtype != self.file_dtype:
            kind = str(dtype) if dtype.name in NUMBERS else "float"
            declared = f"but this side is declared {self.kind}"
            return f"has {bits}, {declared}: set config.data.input.kind or output.kind to {kind}"
        return self._wrong_count(channels)

    def _wrong_count(self, channels: int) -> str | None:
        convertible = self.file_dtype == np.uint8 and {channels, self.raw_channels} <= {1, 3}
        if channels == self.raw_channels or convertible:
            return None
        takes = f"this side takes {self.raw_channels}"
        return f"has {channels} channels, but {takes}: set config.data.input.channels or output.channels"

    def raw(self, pixels: np.ndarray, palette: np.ndarray | None = None) -> np.ndarray:
        """Turn the contents of a file, without a ``fault``, into a raw image.

        Args:
          pixels: [H, W, C] as stored.
          palette: [K, 3] uint8, the colours that `pixels` index.

        Returns:
          [H, W, raw_channels] of ``raw_dtype``; gray is repeated and colour becomes ITU-R 601 luma where they must.
          Labels become classes: by their colours where both the file and the domain have them, else by their numbers.
        """
        if self.kind == "labels":
            if pixels.shape[-1] == 3 and self.palette is not None:
                return true_labels(pixels.astype(np.uint8), self.palette)[..., None].astype(np.uint8)
            if palette is not None and self.palette is not None:
                by_colour = labels.by_colour(pixels, palette, self.palette)
                if by_colour is not None:
                    return by_colour
            if self.channels == 2 and not self.numbers and (self.palette is None or not len(self.palette.void)):
                pixels = np.where(pixels == 255, 1, pixels)  # a mask, as programs for drawing save it
            return labels.by_number(pixels, self.channels, self.numbers, instances=self.instances)
        if self.kind == "float":
            return pixels.astype(np.float32)
        if palette is not None:
            pixels = palette[pixels[..., 0]]
        pixels = with_channels(pixels, self.raw_channels)
        if self.kind == "label_colors" and self.palette is not None:
            return self.palette.colors[nearest_labels(pixels, self.palette)]
        return pixels

    def check(self, values: np.ndarray) -> None:
        """Refuse an array that is not values of this domain.

        Raises:
          InputError: another dtype or number of channels, or a number that is not finite.
        """
        fits = values.ndim >= 3 and values.shape[-1] == self.value_channels
        if not fits or values.dtype not in (self.dtype, self.raw_dtype):
            raise InputError(
                f"images must be {self.dtype} [..., H, W, {self.value_channels}] ({self.kind}), "
                f"not {values.dtype} {list(values.shape)}"
            )
        bad = np.isinf(values) if self.unknown else ~np.isfinite(values)
        if values.dtype.kind == "f" and bad.any():
            raise InputError("an image holds numbers that are not finite (NaN or infinite)")

    def values(self, raw: np.ndarray) -> np.ndarray:
        """Turn a raw image into values: RGB into Lab, all else as it is."""
        if not self.kind.startswith("lab_"):
            return raw
        found = lab.from_rgb(raw)
        return found[..., :1] if self.kind == "lab_l" else found[..., 1:]

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Map values to [-1, 1].

        Args:
          values: [..., H, W, value_channels] of ``dtype``. Numbers beyond the range are cut off; a class of
            ``channels`` or more becomes no class: -1 in every channel.

        Returns:
          [..., H, W, channels] float32.
        """
        if self.kind == "labels":
            return np.where(values == np.arange(self.channels), np.float32(1), np.float32(-1))
        low, half = self.line
        return np.clip((values.astype(np.float32) - low) / half - 1, -1, 1)

    def decode(self, normalized: np.ndarray) -> np.ndarray:
        """Map [-1, 1] to values: the inverse of ``encode``, rounded to the nearest value that the domain knows.

        Args:
          normalized: [..., H, W, channels] float.

        Returns:
          [..., H, W, value_channels] of ``dtype``, within its limits; of labels the most probable class, of their
          colours the nearest.
        """
        if self.kind == "labels":
            return normalized.argmax(axis=-1)[..., None].astype(np.uint8)
        low, half = self.line
        numbers = (np.clip(normalized.astype(np.float32), -1, 1) + 1) * half + low
        if self.dtype.kind == "f":
            return numbers
        limits = np.iinfo(self.dtype)  # a range may be wider than the dtype
        numbers = np.clip(np.rint(np.nan_to_num(numbers)), limits.min, limits.max).astype(self.dtype)
        if self.kind == "label_colors" and self.palette is not None:
            return self.palette.colors[nearest_labels(numbers, self.palette)]
        return numbers

    @property
    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """``(low, half)`` per channel, float32: normalized is ``(value - low) / half - 1``."""
        low, high = (np.array(x, np.float32) for x in (self.low, self.high))
        return low, (high - low) / 2

    def picture(self, normalized: np.ndarray, lightness: np.ndarray | None = None) -> np.ndarray:
        """Turn normalized images into pictures to look at.

        Args:
          normalized: [..., H, W, channels] float in [-1, 1].
          lightness: [..., H, W, 1] in [-1, 1], the L that belongs to an ab; without it a medium one is taken.

        Returns:
          [..., H, W, 1 or 3] uint8: of numbers the first channel or the first three; black where nothing is known.
        """
        return shown.picture(self, normalized, lightness)


def of_config(data: ConfigDict) -> tuple[Domain, Domain]:
    """Return the domains of ``real_a`` and ``real_b`` that the data section of a config describes.

    Raises:
      InputError: an option of it is unknown or contradicts another.
    """
    background = opacity.parse(data.background, "config.data.background")
    a, b = _domain(data.input, "input"), _domain(data.output, "output")
    return a._replace(background=background), b._replace(background=background)


def of_files(data: ConfigDict) -> tuple[Domain, Domain]:
    """Return the domains of A and B as the data set has them, before ``direction`` is applied."""
    a, b = of_config(data)
    return (b, a) if data.direction == "BtoA" else (a, b)


def _domain(side: ConfigDict, name: str) -> Domain:
    option = f"config.data.{name}"
    kind, channels = side.kind, side.channels
    palette = find_palette(side.palette) if side.palette else None
    if kind not in KINDS:
        raise InputError(f"{option}.kind is {kind!r}; choose {', '.join(KINDS)}")
    needed = {"label_colors": 3, "lab_l": 1, "lab_ab": 2}.get(kind)
    if kind == "labels" and palette is not None:
        needed = len(palette.colors)
    if type(channels) is not int or channels < 1 or (needed and channels != needed):
        wanted = f"{needed}, as {kind} need" if needed else "a whole number of at least 1"
        raise InputError(f"{option}.channels is {channels!r}; it must be {wanted}")
    if kind == "labels" and not 2 <= channels <= VOID:
        raise InputError(f"{option}.channels is {channels}; labels have 2 to {VOID} classes, one per channel")
    if palette is not None and kind not in ("labels", "label_colors"):
        raise InputError(f"{option}.palette is for labels; {option}.kind is {kind}")
    if side.numbers and kind != "labels":
        raise InputError(f"{option}.numbers is for labels; {option}.kind is {kind}")
    numbers, instances = labels.parse_numbers(side.numbers, channels, f"{option}.numbers")
    has_unknown, nodata = unknown.parse(side.nodata, f"{option}.nodata")
    if has_unknown and kind not in NUMBERS:
        raise InputError(f"{option}.nodata is for {', '.join(NUMBERS)}; {option}.kind is {kind}")
    asks_files = side.nodata != unknown.NONE
    domain = Domain(kind, channels, (), (), palette, numbers, instances, has_unknown, nodata, asks_files)
    if kind in _LAB or domain.is_labels:
        if side.range:
            raise InputError(f"{option}.range: {kind} have a fixed range; leave it empty")
        low, high = _LAB.get(kind) or (((0.0,) * 3, (255.0,) * 3) if kind == "label_colors" else ((), ()))
        return domain._replace(low=low, high=high)
    if side.range == "measured" or (not side.range and kind not in _WHOLE):
        return domain
    pairs = parse_range(side.range, f"{option}.range") if side.range else [_WHOLE[kind]]
    if len(pairs) not in (1, channels):
        raise InputError(f"{option}.range has {len(pairs)} ranges for {channels} channels; give one, or one for each")
    low, high = zip(*pairs * (channels if len(pairs) == 1 else 1), strict=True)
    return domain._replace(low=low, high=high)
