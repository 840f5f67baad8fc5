"""The FCN score (Isola et al. 2017, section 4.1): does a segmenter see the right labels in generated photographs?

Images are uint8 [H, W, 3]; labels are whole numbers [H, W], 0 ... K - 1 for classes, anything else for pixels that
are not scored. Label maps are never resized: images are resized to them.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from p2p_jax.config import resolve
from p2p_jax.errors import InputError
from p2p_jax.images.palettes import Palette, nearest_labels
from p2p_jax.nets.fcn import load_fcn

_MOST_WAITING = 8  # batches of images with labels of sizes that do not fill a batch yet


class Segmenter(Protocol):
    """Any function from images to labels; scores are named after its attribute `name`, if it has one."""

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """Map uint8 [N, H, W, 3] to whole numbers [N, H, W]."""


def find_segmenter(reference: str) -> Segmenter:
    """Return the segmenter of a reference.

    Args:
      reference: a directory made by ``python -m p2p_jax segmenter``, or "module:name" of a callable.

    Raises:
      InputError: it does not exist, or cannot be called.
    """
    if Path(reference).is_dir():
        return load_fcn(reference)
    if ":" not in reference:
        raise InputError(
            f"there is no segmenter {reference}: name a directory made by python -m p2p_jax segmenter, or 'module:name'"
        )
    segmenter = resolve(reference)
    if not callable(segmenter):
        raise InputError(f"{reference!r} is not a segmenter: it must be a function from images to labels")
    return segmenter


class Scores(NamedTuple):
    """The agreement of predicted labels with true ones, all values in [0, 1].

    Attributes:
      pixel_accuracy: fraction of all pixels with the right class.
      class_accuracy: mean over the classes that occur in the truth.
      class_iou: mean intersection over union of the classes that occur in truth or prediction.
      per_class_accuracy: fraction of each class's pixels with the right class; nan for a class not in the truth.
      per_class_iou: IoU of each class; nan for a class that is in neither.
    """

    pixel_accuracy: float
    class_accuracy: float
    class_iou: float
    per_class_accuracy: tuple[float, ...]
    per_class_iou: tuple[float, ...]


def scores(confusion: np.ndarray) -> Scores:
    """Return the three metrics of the papers from one confusion matrix.

    With C the matrix, t its row sums and p its column sums: ``sum(diag C) / sum C``, ``mean(diag C / t)`` and
    ``mean(diag C / (t + p - diag C))``.

    Note:
      The means leave out classes whose quotient is 0 / 0, as scikit-learn does; the authors' script counts these as 0.
      On a set in which every class occurs, as on Cityscapes' validation split, the two are the same.

    Args:
      confusion: [K, K] whole numbers, rows are true classes.

    Raises:
      InputError: it counts no pixel.
    """
    if not confusion.sum():
        raise InputError("no pixel has a true class, so there is nothing to score: check the palette")
    right, true, told = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        accuracy, iou = right / true, right / (true + told - right)
    return Scores(
        pixel_accuracy=float(right.sum() / confusion.sum()),
        class_accuracy=float(np.nanmean(accuracy)),
        class_iou=float(np.nanmean(iou)),
        per_class_accuracy=tuple(accuracy.tolist()),
        per_class_iou=tuple(iou.tolist()),
    )


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the predictions of each class for each true class.

    Args:
      truth: [...] whole numbers; pixels outside 0 ... K - 1, such as 255 for void, are ignored.
      predicted: the same shape; in 0 ... K - 1 wherever the truth is.
      num_classes: K.

    Returns:
      [K, K] int64; the entry [i, j] counts pixels of class i with prediction j.

    Raises:
      InputError: wrong shapes or types, or a prediction that is not a class.
    """
    for name, labels in (("true", truth), ("predicted", predicted)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{name} labels must be whole numbers, not {labels.dtype}")
    if truth.shape != predicted.shape:
        raise InputError(f"true and predicted labels must have the same shape, not {truth.shape} and {predicted.shape}")
    scored = (truth >= 0) & (truth < num_classes)
    true, told = truth[scored].astype(np.int64), predicted[scored].astype(np.int64)
    if told.size and not 0 <= told.min() <= told.max() < num_classes:
        raise InputError(
            f"labels {told.min()} to {told.max()} were predicted, but the classes are 0 to {num_classes - 1}: "
            "the segmenter was made for other classes"
        )
    return np.bincount(num_classes * true + told, minlength=num_classes**2).reshape(num_classes, num_classes)


class Confusion:
    """A confusion matrix, summed over images.

    Args:
      judge: ``(images, truths) -> [K, K]`` for a few images with labels of one size.
      num_classes: K.
      batch_size: largest number of images for `judge` at a time.
    """

    def __init__(
        self,
        judge: Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray],
        num_classes: int,
        batch_size: int = 1,
    ):
        self._judge, self._batch_size = judge, batch_size
        self._sum = np.zeros((num_classes, num_classes), np.int64)
        self._waiting: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}  # oldest first

    @classmethod
    def by_segmenter(cls, segmenter: Segmenter, num_classes: int, batch_size: int = 8) -> "Confusion":
        """Make one for the labels of a segmenter; see ``fcn_score``."""

        def judge(images, truths):
            size = truths[0].shape
            batch = np.stack([resized(image, size, Image.Resampling.BILINEAR) for image in images])
            truth = np.stack(truths)
            predicted = np.asarray(segmenter(batch))
            if predicted.shape != truth.shape:
                raise InputError(
                    f"the segmenter gave {list(predicted.shape)} for images {list(batch.shape)}; "
                    f"it must give a label for every pixel, {list(truth.shape)}"
                )
            return confusion_matrix(truth, predicted, num_classes)

        return cls(judge, num_classes, batch_size)

    @classmethod
    def by_palette(cls, palette: Palette) -> "Confusion":
        """Make one for the nearest colours; see ``palette_score``."""
        count = len(palette.names)

        def judge(images, truths):
            (image,), (truth,) = images, truths
            drawn = resized(image, truth.shape, Image.Resampling.NEAREST)
            return confusion_matrix(truth, nearest_labels(drawn, palette), count)

        return cls(judge, count)

    def add(self, image: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, at once or in a batch with later ones of the same label size.

        Args:
          image: [H, W, 3] uint8.
          truth: [h, w] labels.

        Raises:
          InputError: wrong types or shapes, or labels of a segmenter that cannot be used.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"images must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        if truth.ndim != 2:
            raise InputError(f"labels must be [H, W], not {list(truth.shape)}")
        self._waiting.setdefault(truth.shape, []).append((image, truth))
        if len(self._waiting[truth.shape]) == self._batch_size:
            self._count(truth.shape)
        elif sum(map(len, self._waiting.values())) > _MOST_WAITING * self._batch_size:
            self._count(next(iter(self._waiting)))

    def add_matrix(self, matrix: np.ndarray) -> None:
        """Add a matrix [K, K] from elsewhere."""
        self._sum += matrix

    def total(self) -> np.ndarray:
        """Count the waiting images; return [K, K] int64."""
        for size in list(self._waiting):
            self._count(size)
        return self._sum

    def _count(self, size: tuple[int, ...]) -> None:
        images, truths = zip(*self._waiting.pop(size), strict=True)
        self._sum += self._judge(list(images), list(truths))


def fcn_score(
    images: Iterable[np.ndarray],
    truths: Iterable[np.ndarray],
    segmenter: Segmenter,
    num_classes: int,
    batch_size: int = 8,
) -> Scores:
    """Label images with a segmenter and compare with the truth; one confusion matrix is summed over all images.

    Each image is first resized to its labels with Pillow's bilinear filter.

    Args:
      images: [H, W, 3] uint8 each, generated or real photographs of any size.
      truths: [h, w] labels each, in the same order.
      segmenter: the segmenter.
      num_classes: K.
      batch_size: largest number of images for the segmenter at a time, all of one size.

    Raises:
      InputError: there are more images than labels or the reverse, none at all, or the segmenter's labels cannot be
        used.
    """
    return _score(images, truths, Confusion.by_segmenter(segmenter, num_classes, batch_size))


def palette_score(images: Iterable[np.ndarray], truths: Iterable[np.ndarray], palette: Palette) -> Scores:
    """Score label maps drawn by a network: every pixel gets the class of the nearest colour.

    Each image is first resized to its labels by the nearest pixel.

    Args:
      images: [H, W, 3] uint8 each.
      truths: [h, w] labels each, in the same order.
      palette: the colours.

    Raises:
      InputError: there are more images than labels or the reverse, or none at all.
    """
    return _score(images, truths, Confusion.by_palette(palette))


def _score(images: Iterable[np.ndarray], truths: Iterable[np.ndarray], confusion: Confusion) -> Scores:
    end, empty, rest = object(), True, iter(truths)
    for image in images:
        truth = next(rest, end)
        if truth is end:
            raise InputError("there are more images than label maps")
        assert isinstance(truth, np.ndarray)
        confusion.add(image, truth)
        empty = False
    if next(rest, end) is not end:
        raise InputError("there are more label maps than images")
    if empty:
        raise InputError("there is no image to score")
    return scores(confusion.total())


def resized(image: np.ndarray, size: tuple[int, ...], resample: Image.Resampling) -> np.ndarray:
    """Return a resized image.

    Args:
      image: [H, W, 3] uint8, or [H, W] uint8.
      size: (height, width).
      resample: Pillow's filter.
    """
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), resample))
