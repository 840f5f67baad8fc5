"""What a run makes of a split of its data set."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from p2p_jax.data import Split, load_split
from p2p_jax.inference import Translator


class Prediction(NamedTuple):
    """One translated image.

    Attributes:
      name: of the input, as the data set has it.
      input: [H, W, C] float32 in [-1, 1], as the network sees it: of the run's ``crop_size`` and ``crop_width``.
      output: the same size, in [-1, 1]; the translation.
      target: the same size, in [-1, 1]; what the output should be. None in an unpaired data set.
    """

    name: str
    input: np.ndarray
    output: np.ndarray
    target: np.ndarray | None


def predict(translator: Translator, split: str | Split) -> Iterator[Prediction]:
    """Translate every image of a split, or of its shard, once, in the order of the data set.

    The images pass through the very stream that validation during training reads.

    Args:
      translator: the run, and the direction in which to translate.
      split: such as "val" or "test", of the data set that the run's config names; or an opened one.

    Raises:
      InputError: there is no such split, or a file cannot be read.
    """
    opened = load_split(translator.config, split) if isinstance(split, str) else split
    given, wanted, names = sides(translator, opened)
    places, done = opened.places(len(names)), 0
    # A shard is filled up to the batches of all: a program for fewer images may round otherwise.
    rows = 1 if opened.whole else min(translator.batch_size, len(names))
    for batch in opened.batches(translator.batch_size):
        inputs = batch[given][: len(places) - done]  # beside a longer side this one starts again
        if not len(inputs):
            return
        filled = inputs[np.minimum(np.arange(max(rows, len(inputs))), len(inputs) - 1)]
        for i, output in enumerate(translator(filled, normalized=True)[: len(inputs)]):
            yield Prediction(names[places[done + i]], inputs[i], output, batch[wanted][i] if opened.paired else None)
        done += len(inputs)


def translations(translator: Translator, split: Split, chosen: Sequence[int]) -> Iterator[Prediction]:
    """Translate some images of a split.

    Args:
      translator: of the run.
      split: opened.
      chosen: places of the images, in rising order.
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
    """Yield a picture of every image of the domain that is translated into once, in the order of the data set.

    Pictures are [H, W, 1 or 3] uint8; of ab in an unpaired data set, where its L is not known, with a medium one.
    """
    given, wanted, _ = sides(translator, split)
    left = len(split.places(len(split.names[int(wanted == "real_b")])))
    for batch in split.batches(translator.batch_size):
        images, inputs = batch[wanted][:left], batch[given][:left]  # beside a longer side this one starts again
        yield from as_picture(translator, images, inputs if split.paired else None)
        left = max(left - len(batch[wanted]), 0)


def as_picture(translator: Translator, images: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    """Turn outputs or targets into pictures [..., H, W, 1 or 3] uint8, of ab with the L of the inputs.

    Args:
      translator: whose domains they are of.
      images: [..., H, W, C] float32 in [-1, 1].
      inputs: that belong to them, the same; None if there are none.
    """
    return translator.domain_out.picture(images, inputs if translator.domain_in.kind == "lab_l" else None)


def sides(translator: Translator, split: Split) -> tuple[str, str, Sequence[str]]:
    """Return the names in a batch of what is translated and of its domain of destination, and the inputs' names."""
    forward = translator.direction == translator.config.data.direction
    return ("real_a", "real_b", split.names[0]) if forward else ("real_b", "real_a", split.names[1])
