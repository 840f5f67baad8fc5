"""Palettes: the colours of label maps and their classes. No JAX, no TensorFlow.

Label maps are uint8 [..., 3], RGB; labels are int32 numbers of classes from 0, or ``VOID``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError

VOID = 255
"""The label of pixels that belong to no class: neither trained on nor scored."""


class Palette(NamedTuple):
    """The colours of a label map.

    Attributes:
      names: one per class.
      colors: [K, 3] uint8, in the order of the names.
      void: [V, 3] uint8, colours that belong to no class; often none.
    """

    names: tuple[str, ...]
    colors: np.ndarray
    void: np.ndarray = np.zeros((0, 3), np.uint8)  # never written to

    def to_json(self) -> dict[str, Any]:
        """Return what ``palette_from_json`` reads."""
        named: dict[str, Any] = dict(zip(self.names, self.colors.tolist(), strict=True))
        return named | ({"void": self.void.tolist()} if len(self.void) else {})


CMP_FACADES = Palette(
    (
        "background", "facade", "window", "door", "cornice", "sill",
        "balcony", "blind", "deco", "molding", "pillar", "shop",
    ),
    np.array([
        (0, 0, 170), (0, 0, 255), (0, 85, 255), (0, 170, 255), (0, 255, 255), (85, 255, 170),
        (170, 255, 85), (255, 255, 0), (255, 170, 0), (255, 85, 0), (255, 0, 0), (170, 0, 0),
    ], np.uint8),
)  # fmt: skip
"""The CMP facades (Tylecek and Sara 2013) in their own colours, which the toy facades have too."""

# Measured: the flat areas of the published JPEGs, within 2 levels.
PIX2PIX_FACADES = Palette(
    CMP_FACADES.names,
    np.array([
        (0, 0, 222), (0, 48, 255), (0, 128, 255), (0, 207, 255), (32, 255, 224), (112, 255, 142),
        (192, 255, 63), (255, 240, 0), (255, 159, 0), (255, 80, 0), (255, 0, 0), (174, 0, 0),
    ], np.uint8),
)  # fmt: skip
"""The same classes as the files published with pix2pix paint them."""

CITYSCAPES = Palette(
    (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    np.array([
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ], np.uint8),
    np.array([
        (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
        (150, 120, 90), (0, 0, 90), (0, 0, 110),
    ], np.uint8),
)  # fmt: skip
"""Cordts et al. 2016: the 19 classes that are scored, train ids 0 to 18; all others are void.

By only their colour number plates are cars, and groups of poles are poles.
"""

BUILT_IN = {"cmp_facades": CMP_FACADES, "pix2pix_facades": PIX2PIX_FACADES, "cityscapes": CITYSCAPES}
_FAR = 16  # median distance to the nearest colour that no compression explains


def find_palette(reference: str) -> Palette:
    """Return a palette by its name in ``BUILT_IN``, or from a JSON file.

    Args:
      reference: the name; colours "#rrggbb,#rrggbb,..."; or the path of a file ``{"wall": [255, 0, 0], "door": [0, 255,
        0], ...}`` with one colour per class, whose order numbers the classes; ``"void": [[0, 0, 0], ...]`` lists the
        colours without a class.

    Raises:
      InputError: no such palette, or the file cannot be used.
    """
    if reference in BUILT_IN:
        return BUILT_IN[reference]
    if reference.startswith("#"):
        return _from_hex(reference)
    try:
        return palette_from_json(json.loads(reference if reference.startswith("{") else Path(reference).read_text()))
    except FileNotFoundError:
        raise InputError(
            f"there is no palette {reference!r}: choose {', '.join(BUILT_IN)} or name a JSON file "
            '{"class": [red, green, blue], ...}'
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # InputError and JSON's own error are ValueErrors
        raise InputError(f"the palette {reference} cannot be used: {error}") from error


def self_contained(reference: str) -> str:
    """Return a reference to the same palette that needs no file.

    Raises:
      InputError: no such palette, or the file cannot be used.
    """
    return reference if is_self_contained(reference) else json.dumps(find_palette(reference).to_json())


def is_self_contained(reference: str) -> bool:
    """Return whether a reference needs no file."""
    return not reference or reference in BUILT_IN or reference.startswith(("#", "{"))


def to_hex(colors: np.ndarray) -> str:
    """Write colours [K, 3] uint8 as "#rrggbb,#rrggbb,..."."""
    return ",".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist())


def _from_hex(text: str) -> Palette:
    try:
        colors = [list(bytes.fromhex(part.strip().removeprefix("#"))) for part in text.split(",")]
        return palette_from_json({f"class {i}": color for i, color in enumerate(colors)})
    except ValueError as error:
        raise InputError(f"the palette {text!r} cannot be used: {error}") from error


def palette_from_json(named: Any) -> Palette:
    """Return the palette that ``Palette.to_json`` wrote.

    Raises:
      InputError: an entry is not a colour, a colour is in it twice, or it has no class or more than 255.
    """
    if not isinstance(named, dict) or not isinstance(named.get("void", []), list):
        raise InputError('it must be {"class": [red, green, blue], ..., "void": [[red, green, blue], ...]}')
    classes = {name: color for name, color in named.items() if name != "void"}
    if not 1 <= len(classes) <= VOID:
        raise InputError(f"it has {len(classes)} classes; it must have 1 to {VOID}")
    colors, void = _colors(classes), _colors({f"void {i}": color for i, color in enumerate(named.get("void", []))})
    distinct, counts = np.unique(np.concatenate([colors, void]), axis=0, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"the colour {distinct[counts.argmax()].tolist()} is in it {counts.max()} times")
    return Palette(tuple(classes), colors, void)


def _colors(named: Mapping[str, Any]) -> np.ndarray:
    for name, color in named.items():
        numbers = color if isinstance(color, list) else []
        if len(numbers) != 3 or not all(type(number) is int and 0 <= number <= 255 for number in numbers):
            raise InputError(f"{name!r} is {color!r}; a colour is three whole numbers from 0 to 255")
    return np.array(list(named.values()), np.uint8).reshape(-1, 3)


def nearest_labels(image: np.ndarray, palette: Palette) -> np.ndarray:
    """Give every pixel the class of the nearest colour (Euclidean in RGB; of equals the first).

    For maps that a network has drawn: every pixel gets a class, the void colours are not considered.

    Args:
      image: [..., 3] uint8; it may be noisy, as JPEGs are.
      palette: the colours of the classes.

    Returns:
      [...] int32 in 0 ... K - 1.
    """
    return _nearest(image, palette.colors)[0]


def true_labels(image: np.ndarray, palette: Palette) -> np.ndarray:
    """Read a label map of ground truth: as ``nearest_labels``, but what is nearest to a void colour is ``VOID``.

    Note:
      Where a lossy file has blurred the border of two classes, the mixture may be nearest to a third.

    Args:
      image: [..., 3] uint8.
      palette: the colours of the classes and of void.

    Returns:
      [...] int32 in 0 ... K - 1, or ``VOID``.
    """
    labels = _nearest(image, _everything(palette))[0]
    return np.where(labels < len(palette.colors), labels, np.int32(VOID))


def check_palette(label_maps: Sequence[np.ndarray], palette: Palette) -> None:
    """Check that label maps have the colours of a palette.

    Args:
      label_maps: [H, W, 3] uint8 each; a dozen will do. A single one may be all borders, which JPEG blurs.
      palette: its void colours count as well.

    Raises:
      InputError: half of the pixels are far from every colour: they are photographs, or the palette is another one.
    """
    if (far := _typical_distance(label_maps, palette)) > _FAR:
        better = recognise(label_maps)
        raise InputError(
            f"half of the pixels of the label maps are {far:.0f} levels or more away from every colour of the palette; "
            + (f"{better} fits them" if better else "are they photographs, or is it another palette?")
        )


def recognise(label_maps: Sequence[np.ndarray]) -> str | None:
    """Return the name of the built-in palette whose colours label maps have, None if it is none of them."""
    distances = {_typical_distance(label_maps, palette): name for name, palette in BUILT_IN.items()}
    return distances[min(distances)] if min(distances) <= _FAR else None


def _typical_distance(label_maps: Sequence[np.ndarray], palette: Palette) -> float:
    distances = [_nearest(image, _everything(palette))[1].ravel() for image in label_maps]
    return float(np.median(np.concatenate(distances)))


def palette_distances(colors: np.ndarray, palette: Palette) -> tuple[np.ndarray, np.ndarray]:
    """Return for colours [K, 3] uint8 the nearest of a palette, void after those of classes, and how far it is."""
    return _nearest(colors, _everything(palette))


def _everything(palette: Palette) -> np.ndarray:
    return np.concatenate([palette.colors, palette.void])


def _nearest(image: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return index and distance of the nearest colour; holds a few numbers per pixel, however many colours."""
    if image.dtype != np.uint8 or image.shape[-1:] != (3,):
        raise InputError(f"a label map must be uint8 [..., 3], not {image.dtype} {list(image.shape)}")
    # Whole numbers below 2**24: float32 is exact, and its products are fast.
    pixels = image.reshape(-1, 3).astype(np.float32)
    labels = np.zeros(len(pixels), np.int32)
    nearest = np.full(len(pixels), np.inf, np.float32)
    for label, color in enumerate(colors.astype(np.float32)):
        distance = color @ color - 2 * (pixels @ color)  # squared, less the pixel's own square
        labels[distance < nearest] = label
        np.minimum(distance, nearest, out=nearest)
    nearest = np.sqrt(nearest + np.einsum("nc,nc->n", pixels, pixels))
    return labels.reshape(image.shape[:-1]), nearest.reshape(image.shape[:-1])
