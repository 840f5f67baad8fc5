"""A data set as training sees it, from the stream or on the devices."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

if TYPE_CHECKING:
    from p2p_jax.data.identity import Identity
    from p2p_jax.data.stream.sources import Source, Unpaired

Batch = dict[str, np.ndarray]


class Data(NamedTuple):
    """A data set as training sees it; anything with these attributes can be given to ``p2p_jax.train``.

    Attributes:
      num_train: training examples in an epoch, over all processes: pairs, or images of the larger side.
      num_val: validation examples over all processes, counted the same way; 0 trains without validation.
      fingerprint: recognises the data set when a run is resumed; "" if there is nothing to compare.
      train: ``(first_step) -> iterator`` of this process's share of the batches of that step and all later ones,
        {"real_a": [B, H, W, C_a], "real_b": [B, H, W, C_b]} float32 in [-1, 1]. A function of the seed and the step.
        Unpaired sides are shuffled, cropped and mirrored each by itself, and each is passed over again and again.
      validation: ``(batch_size) -> iterator`` over this process's share of the validation set, once, in a fixed order;
        the last batch may be smaller. The smaller of two unpaired sides is repeated.
      facts: ranges and palettes that ``config.data`` leaves open and that were found in the images, such as
        {"input": {"range": "0.0:1.0"}}; a run stores them in ``facts.json``.
      resident: training images for the device, see p2p_jax.data.on_device; the loop then draws from them instead of
        calling `train`.
      identities: digests that identify the images of each split, in addition to `fingerprint`; may be left out.
      val_counts: how many images of real_a and of real_b validation has, where it repeats those of one side; None:
        `num_val` of each. Distances of sets use each image once.
    """

    num_train: int
    num_val: int
    fingerprint: str
    train: Callable[[int], Iterator[Batch]]
    validation: Callable[[int], Iterator[Batch]]
    facts: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    resident: Any = None
    identities: "Mapping[str, Identity]" = MappingProxyType({})
    val_counts: tuple[int, int] | None = None


def load(
    config: ConfigDict,
    *,
    process_index: int = 0,
    process_count: int = 1,
    train: "Source | Unpaired | None" = None,
    val: "Source | Unpaired | None" = None,
) -> Data:
    """Open the data set of a config and print what was found.

    Args:
      config: reads ``data``, ``augment``, ``task``, ``seed`` and ``batch_size``; with ``data.resident`` the training
        images are decoded now and stay on the devices, else they are a stream.
      process_index: index of this process among those that share every batch.
      process_count: their number.
      train: data to train on instead of ``config.data.source``, such as ``from_arrays(a, b)``.
      val: the data to validate on; if only `train` is given, there is no validation.

    Raises:
      InputError: the files cannot be used, with the first one's name and how to fix it; or the images must stay on the
        devices and do not fit, or an option needs the stream.
    """
    options: dict[str, Any] = {
        "process_index": process_index,
        "process_count": process_count,
        "train": train,
        "val": val,
    }
    if config.data.resident:
        from p2p_jax.data import on_device  # with JAX

        return on_device.load(config, **options)
    from p2p_jax.data.stream import pipeline  # with TensorFlow

    return pipeline.load(config, **options)
