"""Data that a caller gives to ``train`` or ``evaluate``: checked at the start, and cheaply with every batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import with_facts
from p2p_jax.config.options import image_shapes
from p2p_jax.data.dataset import Batch, Data
from p2p_jax.errors import InputError
from p2p_jax.images.domains import of_config
from p2p_jax.reporting import say

_NEEDED = ("num_train", "num_val", "fingerprint", "train", "validation")
_ROUNDING = 1e-3  # beyond [-1, 1], as resizing and half precision leave it


class _Wanted(NamedTuple):
    """The shape [H, W, C] of an image, and whether some values may be unknown (NaN)."""

    shape: tuple[int, ...]
    has_unknown: bool


def check_given(data: Any, config: ConfigDict, process_count: int = 1) -> Data:
    """Return data whose every batch is checked: names, shapes, dtype, and values in [-1, 1].

    Tensors of PyTorch and TensorFlow become arrays, and float16 and float64 become float32. Where the iterator of
    ``train`` ends, as a loader does after an epoch, ``train`` is called again with the next step.

    Args:
      data: with the attributes of ``Data``.
      config: reads ``data`` and ``batch_size``.
      process_count: the number of processes that share every batch.

    Raises:
      InputError: an attribute is missing; and later, from the iterators: a batch does not fit the networks.
    """
    missing = [name for name in _NEEDED if not hasattr(data, name)]
    if missing:
        raise InputError(
            f"data must be a p2p_jax.data.Data: num_train, num_val, fingerprint, train(first_step) and "
            f"validation(batch_size). {type(data).__name__} has no {', '.join(missing)}"
        )
    given = Data(**{name: getattr(data, name) for name in Data._fields if hasattr(data, name)})
    for name in ("num_train", "num_val"):
        if not isinstance(getattr(given, name), int | np.integer) or getattr(given, name) < (name == "num_train"):
            raise InputError(f"data.{name} is {getattr(given, name)!r}; it must be the number of examples")
    if given.val_counts is not None and not _are_counts(given.val_counts, given.num_val):
        raise InputError(
            f"data.val_counts is {given.val_counts!r}; it must be the numbers of real_a and of real_b in validation; "
            f"the larger one is data.num_val, {given.num_val}"
        )
    if given.resident is not None:
        return given  # the library's own
    domains = of_config(with_facts(config, given.facts).data)
    shapes, share = image_shapes(config.data), config.batch_size // process_count
    wanted = {name: _Wanted(shapes[name], domain.unknown) for name, domain in zip(shapes, domains, strict=True)}
    return given._replace(
        train=lambda first_step: _endless(given.train, first_step, wanted, share),
        validation=lambda batch_size: (
            _checked(batch, wanted, f"batch {i} of data.validation({batch_size})")
            for i, batch in enumerate(given.validation(batch_size))
        ),
    )


def _are_counts(counts: Any, num_val: int) -> bool:
    if not isinstance(counts, tuple | list) or len(counts) != 2:
        return False
    return all(isinstance(n, int | np.integer) and n >= min(num_val, 1) for n in counts) and max(counts) == num_val


def _endless(
    train: Callable[[int], Iterator[Any]], first_step: int, wanted: Mapping[str, _Wanted], share: int
) -> Iterator[Batch]:
    step = first_step
    while True:
        batches, begun = iter(train(step)), step
        try:
            for given in batches:
                batch = _checked(given, wanted, f"the batch of step {step} of data.train", share)
                if step == first_step:
                    _wonder_at_range(batch)
                yield batch
                step += 1
        finally:
            getattr(batches, "close", lambda: None)()  # a generator's reading threads end with the run
        if step == begun:
            raise InputError(
                f"data.train({step}) gave no batch; it must give the batches of that step and all later ones"
            )


def _checked(batch: Any, wanted: Mapping[str, _Wanted], which: str, count: int | None = None) -> Batch:
    """Return a batch as float32 arrays."""
    if not isinstance(batch, Mapping) or not wanted.keys() <= batch.keys():
        told = f"the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise InputError(f"{which} is {told}; it must be a mapping with real_a and real_b, the input and the output")
    arrays = {name: _as_array(batch[name], f"{name} in {which}") for name in wanted}
    for name, (shape, has_unknown) in wanted.items():
        array, where = arrays[name], f"{name} in {which}"
        if array.shape[1:] != shape:
            channels_first = array.ndim == 4 and array.shape[1:] == (shape[2], *shape[:2])
            way = "put the channels last" if channels_first else "config.data has crop_size, crop_width and channels"
            raise InputError(f"{where} is {array.shape}; it must be [B, {', '.join(map(str, shape))}]: {way}")
        if count is not None and len(array) != count:
            way = "leave out the last, smaller batch of an epoch" if len(array) < count else "see config.batch_size"
            raise InputError(f"{where} has {len(array)} images; it must have {count}: {way}")
        known = array[~np.isnan(array)] if has_unknown else array
        low, high = known.min(initial=0), known.max(initial=0)
        if not -1 - _ROUNDING <= low <= high <= 1 + _ROUNDING:  # false for NaN too
            way = "use x / 127.5 - 1 for bytes" if high > 1.5 else "scale them"
            values = f"values from {array.min():g} to {array.max():g}"
            raise InputError(f"{where} has {values}; networks take [-1, 1]: {way}")
    if len({len(array) for array in arrays.values()}) > 1:
        raise InputError(f"{which} has {len(arrays['real_a'])} real_a and {len(arrays['real_b'])} real_b")
    return arrays


def _as_array(value: Any, where: str) -> np.ndarray:
    """Return an array, or a tensor of PyTorch, TensorFlow or JAX, as a float32 array."""
    if hasattr(value, "detach"):  # of PyTorch, maybe on a GPU
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point else value  # NumPy knows no bfloat16
    array = np.asarray(value)
    if array.dtype.kind not in "fV":  # V: bfloat16
        raise InputError(f"{where} is {array.dtype}; it must be floats in [-1, 1]: use x / 127.5 - 1 for bytes")
    if not array.size:
        raise InputError(f"{where} is empty")
    return array.astype(np.float32, copy=False)


def _wonder_at_range(batch: Batch) -> None:
    """Note images that look as if they were in [0, 1]."""
    for name, array in batch.items():
        if array.min() >= 0:
            say(f"note: all values of {name} in the first batch are in [0, 1], not in [-1, 1]; is x * 2 - 1 missing?")
