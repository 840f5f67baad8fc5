"""A run's translations of a split of its data set."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from p2p_jax.data import Split, load_split
from p2p_jax.inference import Translator


class Prediction(NamedTuple):
    """One translated image.

    Attributes:
      name: name of the input in the data set.
      input: [H, W, C] float32 in [-1, 1], as the network gets it: at the run's ``crop_size`` and ``crop_width``.
      output: the same size, in [-1, 1]; the translation.
      target: the same size, in [-1, 1]; the true output. None in an unpaired data set.
    """

    name: str
    input: np.ndarray
    output: np.ndarray
    target: np.ndarray | None


def predict(translator: Translator, split: str | Split) -> Iterator[Prediction]:
    """Translate every image of a split, or of its shard, once, in the order of the data set.

    The images come from the same stream as in validation during training.

    Args:
      translator: the run, and the direction in which to translate.
      split: such as "val" or "test", of the data set in the run's config; or an opened one.

    Raises:
      InputError: the split does not exist, or a file cannot be read.
    """
    opened = load_split(translator.config, split) if isinstance(split, str) else split
    given, wanted, names = sides(translator, opened)
    places, done = opened.places(len(names)), 0
    # A shard uses the same batch size as all: a program for fewer images may round differently.
    rows = 1 if opened.whole else min(translator.batch_size, len(names))
    for batch in opened.batches(translator.batch_size):
        inputs = batch[given][: len(places) - done]  # the shorter side starts again from its beginning
        if not len(inputs):
            return
        filled = inputs[np.minimum(np.arange(max(rows, len(inputs))), len(inputs) - 1)]
        for i, output in enumerate(translator(filled, normalized=True)[: len(inputs)]):
            yield Prediction(names[places[done + i]], inputs[i], output, batch[wanted][i] if opened.paired else None)
        done += len(inputs)


def translations(translator: Translator, split: Split, chosen: Sequence[int]) -> Iterator[Prediction]:
    """Translate some images of a split.

    Args:
      translator: translator of the run.
      split: an opened split.
      chosen: indices of the images, in ascending order.
    """
    given, wanted, names = sides(translator, split)
    left, first = list(chosen), 0
    for batch in split.batches(8):
        while left and left[0] < first + len(batch[given]):
            at = left[0] - first
            image = batch[given][at]
            output = translator(image[None], normalized=True)[0]
            yield Prediction(names[left.pop(0)], image, output, batch[wanted][at] if split.paired else None)
        if not left:
            return
        first += len(batch[given])


def targets_of(translator: Translator, split: Split) -> Iterator[np.ndarray]:
    """Yield a picture of every image of the target domain once, in the order of the data set.

    Pictures are [H, W, 1 or 3] uint8; for ab in an unpaired data set, with unknown L, with a medium L.
    """
    given, wanted, _ = sides(translator, split)
    left = len(split.places(len(split.names[int(wanted == "real_b")])))
    for batch in split.batches(translator.batch_size):
        images, inputs = batch[wanted][:left], batch[given][:left]  # the shorter side starts again from its beginning
        yield from as_picture(translator, images, inputs if split.paired else None)
        left = max(left - len(batch[wanted]), 0)


def as_picture(translator: Translator, images: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    """Convert outputs or targets to pictures [..., H, W, 1 or 3] uint8; ab get the L of the inputs.

    Args:
      translator: the translator with their domains.
      images: [..., H, W, C] float32 in [-1, 1].
      inputs: their inputs, the same shape; None if there are none.
    """
    return translator.domain_out.picture(images, inputs if translator.domain_in.kind == "lab_l" else None)


def sides(translator: Translator, split: Split) -> tuple[str, str, Sequence[str]]:
    """Return the names in a batch of the inputs and of the target domain, and the inputs' file names."""
    forward = translator.direction == translator.config.data.direction
    return ("real_a", "real_b", split.names[0]) if forward else ("real_b", "real_a", split.names[1])
