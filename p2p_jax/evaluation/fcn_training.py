"""Training the library's own FCN-8s on photographs and their true labels."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.evaluation.segmentation import Scores, fcn_score, resized
from p2p_jax.images.palettes import VOID, Palette
from p2p_jax.nets.fcn import FCN, STRIDES, OwnSegmenter, check_output, init, to_floats
from p2p_jax.process.freed_memory import arrived
from p2p_jax.reporting import say
from p2p_jax.training.progress import format_seconds

Examples = Sequence[tuple[np.ndarray, np.ndarray]]
"""Photographs [H, W, 3] uint8, each with its labels [h, w]. They are resized to their labels' size, bilinear."""

_CELLS = 32  # at least, along the shortest side of the label maps, if no stride is given
_ZOOM, _TINT = 1.25, 0.2  # largest change of a crop's scale, and of a colour channel's brightness
_REPORTS = 10
_TX = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(1e-4))  # AdamW without the learning rate


def train_fcn(
    examples: Examples,
    palette: Palette,
    directory: str | Path,
    *,
    seed: int = 0,
    num_steps: int = 300,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    base_width: int = 16,
    stride: int | None = None,
    crop_size: int | None = None,
    validation: Examples = (),
    facts: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> OwnSegmenter:
    """Train an FCN-8s and write it to a directory.

    Cross-entropy over the pixels that have a class, AdamW with a cosine schedule, and random crops, zooms, tints and
    mirror images. The last parameters are kept; validation is only reported.

    Args:
      examples: training examples; labels outside 0 ... K - 1 are ignored.
      palette: names and colours of the K classes.
      directory: directory to write, see ``load_fcn``.
      seed: seed of initialisation and augmentation.
      num_steps: number of updates.
      batch_size: crops per update.
      learning_rate: initial learning rate; it falls to 0.
      base_width: see ``FCN``.
      stride: see ``FCN``; by default the largest that leaves 32 cells along the shortest side of the label maps.
      crop_size: side of the crops in pixels; by default that side, but at most 192.
      validation: examples to report the pixel accuracy on during training.
      facts: further facts to store in the directory, such as the training data.
      overwrite: whether to replace a segmenter in the directory.

    Raises:
      InputError: the directory is in use, or an argument is not valid.
      TrainingDivergedError: the loss is no longer finite.
    """
    directory = Path(directory)
    check_output(directory, overwrite=overwrite)
    if min(num_steps, batch_size, base_width) < 1 or seed < 0:
        raise InputError("num_steps, batch_size and base_width must be at least 1, and the seed at least 0")
    if not examples:
        raise InputError("there are no training examples")
    examples = [
        (
            resized(photo, truth.shape, Image.Resampling.BILINEAR),
            np.where((truth >= 0) & (truth < len(palette.names)), truth, VOID).astype(np.uint8),
        )
        for photo, truth in examples
    ]
    side = min(min(truth.shape) for _, truth in examples)
    stride = stride or max(s for s in STRIDES if s == 1 or side // s >= _CELLS)
    if stride not in STRIDES:
        raise InputError(f"stride {stride} is not one of {', '.join(map(str, STRIDES))}")
    asked = crop_size or min(side, 192)
    crop_size = asked // (4 * stride) * 4 * stride
    if not 0 < crop_size <= side:
        raise InputError(
            f"crop_size {asked}: stride {stride} needs {4 * stride} pixels, and the label maps have {side}"
        )

    network = FCN(len(palette.names), base_width, stride)
    stored = {
        "architecture": {"base_width": base_width, "stride": stride},
        "palette": palette.to_json(),
        "seed": seed,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "crop_size": crop_size,
        "num_train": len(examples),
        "num_validation": len(validation),
    } | (facts or {})
    segmenter = OwnSegmenter(init(network, seed), stored)
    _fit(segmenter, network, examples, validation)
    if validation:
        found = _validate(segmenter, validation)
        stored["validation"] = {
            name: getattr(found, name) for name in ("pixel_accuracy", "class_accuracy", "class_iou")
        }
    segmenter.save(directory, overwrite=overwrite)
    return segmenter


def _fit(segmenter: OwnSegmenter, network: FCN, examples: Examples, validation: Examples) -> None:
    """Train the segmenter in place, according to its facts."""
    facts, variables = segmenter.facts, segmenter.variables
    num_steps = facts["num_steps"]
    rate = optax.cosine_decay_schedule(facts["learning_rate"], num_steps)
    opt_state = _TX.init(variables["params"])
    started, report_every = time.monotonic(), max(num_steps // _REPORTS, 1)
    for step in range(num_steps):
        rng = np.random.RandomState([facts["seed"], step])
        chosen = rng.randint(len(examples), size=facts["batch_size"])
        batch = [augmented(photo, truth, facts["crop_size"], rng) for photo, truth in (examples[i] for i in chosen)]
        images, truths = arrived(jax.device_put([np.stack(arrays) for arrays in zip(*batch, strict=True)]))
        variables, opt_state, value = _update(network, variables, opt_state, images, truths, rate(step))
        done = step + 1
        if done % report_every and done < num_steps:
            continue
        if not np.isfinite(value):
            raise TrainingDivergedError(f"step {done:,}: the loss is {value}; lower the learning rate")
        segmenter.variables = variables
        line = f"step {done:,}/{num_steps:,}  loss {value:.4g}"
        if validation:
            accuracy = _validate(segmenter, validation).pixel_accuracy
            line += f"  validation pixel accuracy {accuracy:.4f}"
        left = (time.monotonic() - started) / done * (num_steps - done)
        say(f"{line}  {format_seconds(left)} left")


@partial(jax.jit, static_argnums=0)
def _update(network, variables, opt_state, images, truths, learning_rate):
    """Return variables, optimizer state and loss after one step."""

    def loss(params):
        logits, changed = network.apply(
            {**variables, "params": params}, to_floats(images), train=True, mutable=["batch_stats"]
        )
        known = truths != VOID
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, truths, 0))
        return jnp.sum(losses * known) / jnp.maximum(known.sum(), 1), changed

    (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    updates, opt_state = _TX.update(grads, opt_state, variables["params"])
    params = jax.tree.map(lambda x, y: x - learning_rate * y, variables["params"], updates)
    return {"params": params, **changed}, opt_state, value


def _validate(segmenter: OwnSegmenter, validation: Examples) -> Scores:
    images, truths = zip(*validation, strict=True)
    return fcn_score(images, truths, segmenter, len(segmenter.palette.names))


def augmented(
    photo: np.ndarray, labels: np.ndarray, size: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Crop a random square of a photograph and its labels, randomly zoomed, tinted and mirrored.

    Args:
      photo: [H, W, 3] uint8.
      labels: [H, W] uint8.
      size: side of the result in pixels, at most H and W.
      rng: random number generator.

    Returns:
      [size, size, 3] and [size, size], of the same types.
    """
    height, width = labels.shape
    zoom, y, x = _ZOOM ** rng.uniform(-1, 1), rng.random_sample(), rng.random_sample()
    side = min(round(size / zoom), height, width)
    top, left = int(y * (height - side + 1)), int(x * (width - side + 1))
    window = np.s_[top : top + side, left : left + side]
    photo = resized(photo[window], (size, size), Image.Resampling.BILINEAR)
    labels = resized(labels[window], (size, size), Image.Resampling.NEAREST)
    tint = 1 + _TINT * rng.uniform(-1, 1) + _TINT / 2 * rng.uniform(-1, 1, 3)
    photo = np.clip(np.rint(photo * tint), 0, 255).astype(np.uint8)
    return (photo[:, ::-1], labels[:, ::-1]) if rng.random_sample() < 0.5 else (photo, labels)
