"""Many images of one size in one ``.npy`` file, translated."""

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import pictures, raw
from p2p_jax.images.resize import resize
from p2p_jax.inference import scale
from p2p_jax.inference.translator import Translator
from p2p_jax.inference.values import Task
from p2p_jax.storage.writing import check_target, unfinished


def translate_stack(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    size: scale.Wanted = None,
    task: Task | None = None,
    overwrite: bool = False,
    on_done: Callable[[], Any] = lambda: None,
) -> int:
    """Translate ``.npy``, [N, H, W, C], [N, H, W] or [H, W, C], as ``Translator`` takes and gives them; returns N.

    Neither array is held in memory whole. With a `task` they are photographs; it makes the run's inputs from them.

    Raises:
      InputError: the file is not such an array, or the target exists or is the file itself.
    """
    if target.suffix != ".npy":
        target = target / source.name
    try:
        images = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read as an array ({error})") from error
    domain = task.photographs if task else translator.domain_in
    if images.ndim == 3:  # many of one channel, or one whose channels come last
        one = images.shape[-1] == domain.value_channels
        images = images[None] if one else images[..., None]
    if images.ndim != 4 or not images.size:
        raise InputError(f"{source} must hold images [N, H, W, C] or [N, H, W], not {images.shape}")
    translator.refuse_channels_first(images.shape[1:])
    if task and domain.fault(images.dtype, images.shape[-1], has_palette=False):
        raise InputError(f"{source} {raw.not_of_run(images.dtype, images.shape[-1], domain)}")
    if size is not None and domain.is_bytes and images.dtype != np.uint8:
        raise InputError(f"`size` resizes images of 8 bits; {source} holds {images.dtype}")
    wanted = scale.sides(images.shape[1:], scale.found(size, translator.config.data))
    if not translator.tile:
        scale.tell([wanted], domain, translator.config.data)

    def prepared() -> Iterator[tuple[Hashable, np.ndarray]]:
        for i, image in enumerate(images):
            if domain.kind == "uint8":
                image = pictures.with_channels(image, domain.channels)  # before resizing, as in training
            image = resize(image, wanted, nearest=domain.is_labels)
            yield i, task.values(image, translator.domain_in) if task else image

    check_target(source, target, overwrite=overwrite)
    with unfinished(target) as temporary:
        outputs = None
        for i, output in translator.stream(prepared()):
            if outputs is None:
                shape = (len(images), *output.shape)
                outputs = np.lib.format.open_memmap(temporary, mode="w+", dtype=output.dtype, shape=shape)
            outputs[i] = output
            on_done()
        assert outputs is not None  # there is one image at least
        outputs.flush()
    return len(images)
