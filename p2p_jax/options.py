"""Options: what may stand in a config, its defaults, and what its values may be."""

from typing import Any

from ml_collections import ConfigDict

from p2p_jax.errors import InputError
from p2p_jax.images import domains

# Every option with the value that it has where a config is silent: pix2pix on a folder of side-by-side images as
# published. Sections set to None are free: `generator`, `discriminator` and `optimizer` are checked against what they
# name, `loss` by the objective (`LOSS` in objectives/pix2pix.py and objectives/cyclegan.py explains its options). In
# `task`, `input` names a function that makes A of photographs B (p2p_jax/images/tasks.py has ours), whose options stand
# beside it. `extra` belongs to objectives outside the library.
# --8<-- [start:defaults]
DEFAULTS: dict[str, Any] = {
    "objective": "p2p_jax:pix2pix",  # "module:function" from a config to an Objective
    "seed": 0,  # of everything random: initialisation, dropout, data order, augmentation
    # Start from the weights of another run as far as they fit: its directory, or that of one of its checkpoints
    # (RUN/checkpoints/4000); "": from random ones. A run that goes on no longer needs it.
    "init_from": "",
    "num_steps": 80_000,  # generator updates in all
    "batch_size": 1,  # images per step over all devices together
    "dtype": "float32",  # of the computation; "bfloat16" on accelerators
    "param_dtype": "float32",  # of parameters and optimizer state
    "sync_batch_norm": False,  # average batch-norm statistics over devices instead of per device
    "log_every": 100,  # steps between rows of metrics.csv
    "sample_every": 2_000,  # steps between sample grids
    "eval_every": 4_000,  # steps between evaluations on the whole validation split
    "checkpoint_every": 4_000,  # steps between checkpoints
    "keep_checkpoints": 2,  # latest checkpoints kept, besides the best one
    "best_metric": "l1",  # evaluation metric by which the best checkpoint is chosen
    "best_mode": "min",  # "min" or "max"
    "num_samples": 4,  # validation images in a sample grid
    "steps_per_dispatch": 0,  # steps that devices do between two words with the host; 0: what suits them
    "distributed": False,  # one of several processes that train together; found out by itself on TPU pods and SLURM
    "data": {
        # In pairs: toy_facades | side_by_side | side_by_side/BA | folders | suffixes | csv | pix2pix/NAME. Without:
        # toy_unpaired | unpaired | cycle_gan/NAME. Photographs from which A is made: photos. Your own: "module:name".
        "source": "side_by_side",
        "dir": "",  # folder with the images; "" where the source needs none
        "direction": "AtoB",  # "BtoA" swaps the two images, or sides
        # "resize_and_crop", "crop" (out of images of their own size), "scale_width_and_crop" (keeps the aspect, unless
        # an image is too flat), "scale_width" (to crop_width, no crop) or "none" (images are of the size of the crop).
        "preprocess": "resize_and_crop",
        "load_size": 286,  # images are resized to this height, then cropped
        "load_width": 0,  # and to this width; 0: the same
        "crop_size": 256,  # height of the images that the networks see
        "crop_width": 0,  # their width; 0: the same
        "flip": True,  # mirror at random
        # Of the input, a, and of the output, b (after `direction`): `kind` says what values are, and is explained in
        # p2p_jax/images/domains.py: uint8 | uint16 | int16 | float | labels | label_colors | lab_l | lab_ab.
        "kind_a": "uint8",
        "channels_a": 3,  # that networks see; of labels the number of classes
        "range_a": "",  # values that become -1 and 1, LOW:HIGH, one or with commas one a channel; "measured" in the
        # training images; "": 0:255 of uint8, 0:65535 of uint16, else measured
        "palette_a": "",  # colours of labels: a built-in name, a JSON file or #rrggbb,#rrggbb,...; "": the files' own
        "kind_b": "uint8",
        "channels_b": 3,
        "range_b": "",
        "palette_b": "",
        "train_split": "train",
        "val_split": "val",  # "" trains without validation
        "resident": False,  # keep all training images on the device, where they are shuffled and cropped too
        # Of resized images that the stream keeps in memory, for each process, in MiB; 0: none. With scale_jitter no
        # training image can be kept: its size changes.
        "cache_mb": 2048,
        "num_train": 0,  # training pairs, or images of the longer side, an epoch; 0: counted at the start
        "fingerprint": "",  # of the images; "": computed at the start
    },
    # Beyond the papers' mirroring, for pairs and for each side of unpaired images; the same for both of a pair but the
    # last, which is for the input (of CycleGAN: for A) alone.
    "augment": {
        "vflip": False,  # upside down at random
        "quarter_turns": False,  # by 0, 90, 180 or 270 degrees at random
        "scale_jitter": 0.0,  # enlarge by a random factor in [1, 1 + this] before the crop
        "photometric": 0.0,  # contrast by a factor in [1 - this, 1 + this], brightness by as much of the range
    },
    "task": None,
    "generator": None,
    "discriminator": None,
    "loss": None,
    "optimizer": None,
    "schedule": {
        "kind": "constant",  # or "linear_decay"
        "unit": "epochs",  # of the next two: "epochs" or "steps"
        "constant_for": 100,
        "decay_over": 100,
    },
    "inference": {
        "norm": "batch",  # statistics of the translated image itself, or "running" ones
        "dropout": True,  # the paper's noise z, kept at test time
    },
    "extra": None,
}
# --8<-- [end:defaults]
SECTION_DEFAULTS: dict[str, dict[str, Any]] = {
    "task": {},
    "generator": {"network": "p2p_jax.nets:UNet"},
    "discriminator": {"network": "p2p_jax.nets:PatchGAN"},
    "loss": {},
    "optimizer": {"factory": "optax:adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-8},
    "extra": {},
}

# May change between two runs of one workdir: they alter how long and how often, not what is computed at a step, or
# where the data (recognised by its fingerprint) lies.
FREE_TO_CHANGE = frozenset(
    [
        "num_steps",
        "log_every",
        "sample_every",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
        "num_samples",
        "steps_per_dispatch",
        "distributed",
        "data.dir",
        "data.cache_mb",
    ]
)


PREPROCESS = ("resize_and_crop", "crop", "scale_width_and_crop", "scale_width", "none")


def check(config: ConfigDict) -> None:
    """Refuse values that cannot be used.

    Args:
      config: complete.

    Raises:
      InputError: a value cannot be used, or contradicts another; names the option.
    """
    counts = [key for key, default in DEFAULTS.items() if type(default) is int and default > 0]
    for key in [*counts, "data.load_size", "data.crop_size"]:
        value = config.data[key[5:]] if key.startswith("data.") else config[key]
        if type(value) is not int or value < 1:
            raise InputError(f"config.{key} is {value!r}; it must be a whole number of at least 1")
    if type(config.steps_per_dispatch) is not int or config.steps_per_dispatch < 0:
        raise InputError(
            f"config.steps_per_dispatch is {config.steps_per_dispatch!r}; it must be a whole number, 0 for what suits"
        )
    if not isinstance(config.init_from, str):
        raise InputError(f'config.init_from is {config.init_from!r}; it must be text, the directory of a run or ""')
    _check_data(config.data)
    jitter = config.augment.scale_jitter, config.augment.photometric
    if not all(isinstance(value, int | float) and 0 <= value < 1 for value in jitter):
        raise InputError(f"config.augment.scale_jitter and photometric are {jitter}; they must be in [0, 1)")
    if config.augment.scale_jitter and "crop" not in config.data.preprocess:
        raise InputError(
            f"config.augment.scale_jitter needs a crop, and config.data.preprocess={config.data.preprocess} has none"
        )
    if config.task and "input" not in config.task:
        raise InputError(
            f"config.task has {', '.join(config.task)} but no input, which names the function that takes it"
        )
    if config.augment.quarter_turns and len(set(crop_shape(config.data))) > 1:
        raise InputError("config.augment.quarter_turns needs square crops: set config.data.crop_width=0")
    if config.augment.photometric and domains.of_config(config.data)[0].kind not in (*domains.NUMBERS, "lab_l"):
        raise InputError("config.augment.photometric changes numbers; the input's are labels or colours: set it to 0.")
    if config.best_mode not in ("min", "max"):
        raise InputError(f"config.best_mode is {config.best_mode!r}; choose min or max")
    if config.inference.norm not in ("batch", "running"):
        raise InputError(f"config.inference.norm is {config.inference.norm!r}; choose batch or running")
    for key in ("dtype", "param_dtype"):
        if config[key] not in ("float32", "bfloat16", "float64"):
            raise InputError(f"config.{key} is {config[key]!r}; choose float32, bfloat16 or float64")


def _check_data(data: ConfigDict) -> None:
    if data.direction not in ("AtoB", "BtoA"):
        raise InputError(f"config.data.direction is {data.direction!r}; choose AtoB or BtoA")
    if data.preprocess not in PREPROCESS:
        raise InputError(f"config.data.preprocess is {data.preprocess!r}; choose {', '.join(PREPROCESS)}")
    for key, zero in {"load_width": "a square", "crop_width": "a square", "cache_mb": "none"}.items():
        if type(data[key]) is not int or data[key] < 0:
            raise InputError(f"config.data.{key} is {data[key]!r}; it must be a whole number, 0 for {zero}")
    load, crop = load_shape(data), crop_shape(data)
    sides = {"resize_and_crop": (0, 1), "scale_width_and_crop": (1,)}.get(data.preprocess, ())
    if any(crop[i] > load[i] for i in sides):
        raise InputError(
            f"config.data.crop_size is {crop[0]} and load_size {load[0]} (width {crop[1]} and {load[1]}); "
            "the crop must fit into the loaded image"
        )
    domains.of_config(data)


def load_shape(data: ConfigDict) -> tuple[int, int]:
    """Return height and width to which images are resized before they are cropped."""
    return data.load_size, data.load_width or data.load_size


def crop_shape(data: ConfigDict) -> tuple[int, int]:
    """Return height and width of the images that the networks see."""
    return data.crop_size, data.crop_width or data.crop_size


def image_shapes(data: ConfigDict) -> dict[str, tuple[int, int, int]]:
    """Return the shape [H, W, C] of every image of a batch, by its name there."""
    crop = crop_shape(data)
    return {"real_a": (*crop, data.channels_a), "real_b": (*crop, data.channels_b)}


def is_unpaired(source: str) -> bool:
    """Tell whether a ``config.data.source`` of ours has no pairs."""
    return source in ("unpaired", "toy_unpaired") or source.startswith("cycle_gan/")
