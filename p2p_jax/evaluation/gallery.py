"""The pictures in a report, selected as images pass by: few are held at a time, each as the page stores it."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

MAX_IMAGES = 200
QUALITY = 90
"""Quality of a JPEG."""
NUM_CASES = 6
"""Number of best and of worst images that the page shows side by side."""
_TINY = 2_048  # bytes up to which a picture stays lossless


class Gallery:
    """The pictures of the rows that a report may show: an even sample, and the best and worst so far.

    Args:
      num_rows: rows of the whole evaluation.
      max_images: largest number of rows with pictures.

    Attributes:
      shown: row -> column -> ``{"uri", "width", "height"}``; JSON can hold it.
    """

    def __init__(self, num_rows: int, max_images: int = MAX_IMAGES):
        self.num_rows, self._max_images = num_rows, max_images
        self.shown: dict[int, dict[str, dict[str, Any]]] = {}
        self._sample = frozenset(_sample(num_rows, max_images))
        self._extremes: dict[tuple[str, int], list[tuple[float, int]]] = {}

    def add(self, index: int, row: Mapping[str, Any], images: Mapping[str, np.ndarray]) -> None:
        """Add a row, and its pictures if they may be shown.

        Args:
          index: index of the row among all.
          row: ``name`` and metrics.
          images: column -> [H, W, 1 or 3] uint8.

        Raises:
          ValueError: a picture has another shape or dtype.
        """
        if self._rank(index, row):
            self.shown[index] = {column: _encoded(image) for column, image in images.items()}
            self._drop()

    def add_shown(self, rows: Mapping[int, Mapping[str, Any]], shown: Mapping[Any, Any]) -> None:
        """Add the rows of a part of the evaluation by their index, and its gallery's `shown`."""
        for index, row in rows.items():
            self._rank(index, row)
        for index in self._kept() & rows.keys():
            self.shown[index] = shown[index]
        self._drop()

    def chosen(self, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> tuple[list[dict], list[dict]]:
        """Return the distinct pictures, and for each selected row column -> index into them; see ``choose_rows``.

        All rows must have been added.
        """
        pictures: list[dict[str, Any]] = []
        seen: dict[str, int] = {}
        found = []
        for row in choose_rows(rows, metrics, self._max_images):
            cells = {}
            for column, picture in self.shown[row].items():
                if picture["uri"] not in seen:
                    seen[picture["uri"]] = len(pictures)
                    pictures.append(dict(picture))
                cells[column] = seen[picture["uri"]]
            found.append({"row": row, "cells": cells})
        return pictures, found

    def _rank(self, index: int, row: Mapping[str, Any]) -> bool:
        """Add a row's metrics; return whether its pictures may be shown."""
        is_extreme = False
        for name, value in row.items():
            if name == "name" or finite(value) is None:
                continue
            for sign in (1, -1):
                best = self._extremes.setdefault((name, sign), [])
                best.append((sign * value, index))
                best.sort()
                is_extreme |= index in [place for _, place in best[:NUM_CASES]]
                del best[NUM_CASES:]
        return is_extreme or index in self._sample

    def _kept(self) -> frozenset[int]:
        return self._sample.union(place for best in self._extremes.values() for _, place in best)

    def _drop(self) -> None:
        """Drop the pictures of rows that are no longer among the best or worst."""
        for index in self.shown.keys() - self._kept():
            del self.shown[index]


def choose_rows(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], max_images: int) -> list[int]:
    """Select the images to show: all, or the best and worst by every metric, and an even sample of the others.

    The sample is taken from rows spread evenly over all, regardless of the metrics: so code that sees the rows one by
    one knows which pictures to keep.

    Args:
      rows: name -> value, for every image; None or NaN is neither good nor bad.
      metrics: names of values to rank by.
      max_images: largest number to select.

    Returns:
      Indices of rows, ascending.
    """
    if len(rows) <= max_images:
        return list(range(len(rows)))
    ranked = []
    for name in metrics:
        valid = [i for i, row in enumerate(rows) if finite(row.get(name)) is not None]
        # Equal values keep the order of the rows at either end, as they do on the page.
        ranked.append(sorted(valid, key=lambda i: (rows[i][name], i))[:NUM_CASES])
        ranked.append(sorted(valid, key=lambda i: (-rows[i][name], i))[:NUM_CASES])
    extremes = [one[rank] for rank in range(NUM_CASES) for one in ranked if rank < len(one)]
    chosen = list(dict.fromkeys(extremes))[:max_images]
    others = sorted(set(_sample(len(rows), max_images)) - set(chosen))
    places = np.linspace(0, len(others) - 1, max_images - len(chosen)).round().astype(int)
    return sorted([*chosen, *(others[i] for i in places)])


def _sample(count: int, most: int) -> Iterable[int]:
    """Return at most this many positions, spread evenly."""
    return range(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def data_uri(image: np.ndarray) -> str:
    """Return a picture as a data URI: PNG, or JPEG if it is smaller and the picture is not tiny.

    Args:
      image: [H, W, 1 or 3] uint8.

    Raises:
      ValueError: another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"expected a picture [H, W, 1 or 3] uint8, not {image.shape} {image.dtype}")
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    picture.save(jpeg, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    lossless = len(png.getvalue()) <= max(_TINY, len(jpeg.getvalue()))
    kind, file = ("png", png) if lossless else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _encoded(image: np.ndarray) -> dict[str, Any]:
    return {"uri": data_uri(image), "width": image.shape[1], "height": image.shape[0]}


def finite(value: Any) -> Any:
    """Return a number, or None for None, infinity and NaN."""
    return None if value is None or not math.isfinite(value) else value
