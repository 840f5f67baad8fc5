"""The table of options, in their order: each option has one line here, with everything about it.

A config, its checks, the help of the verb train and the page of options are made of this table. `generator`, `discriminator`,
`loss`, `optimizer`, `discriminator_optimizer` and `task` are free sections: each names its reader (a network, the
objective, an optimizer, a function), and the reader's own table says what else is in the section. `extra` belongs
to objectives outside the library.
"""

import re
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config.option import Option
from p2p_jax.errors import InputError
from p2p_jax.images import domains, limits

_COUNT, _COUNT_OR_NONE = "[1, inf)", "[0, inf)"
_PIXELS, _PIXELS_OR_NONE = "[1, 65536]", "[0, 65536]"
_RUNS, _PROCESSES = "runs", "processes"
SEGMENTER = "segmenter:"
"""The beginning of ``distances.features`` where it names the folder of a segmenter, not code."""
CROPPED = ("crop", "scale_shortside_and_crop", "scale_width_and_crop")
"""The kinds of ``data.preprocess`` that keep proportions and cut a crop out of the middle in validation."""
PREPROCESS = ("resize_and_crop", *CROPPED, "scale_width", "none")
_PALETTE = 'colours of labels: a built-in name, a JSON file or #rrggbb,#rrggbb,...; "": as in the files'
_NUMBERS = (
    'what files store for the classes, such as 0,255; "instances": class * 1000 + object; "": as found in the images'
)
_NODATA = (
    "the number that marks unknown values (uint16, int16, float, uint8), besides NaN and what files declare: a number, "
    'nan or mask; none: every value is known; "": as found in the images'
)
_RANGE = (
    'the values that become -1 and 1: LOW:HIGH for all channels, or one per channel with commas; "measured": from the '
    'training images; "": 0:255 for uint8, 0:65535 for uint16, else measured'
)


def _side(name: str) -> tuple[Option, ...]:
    """Return the options of a side: real_a is the input and real_b the output, after ``data.direction``."""
    return (
        Option(f"data.{name}.kind", str, "uint8", f"the kind of values in the {name}", choices=domains.KINDS),
        Option(
            f"data.{name}.channels",
            int,
            3,
            "channels that the networks see; for labels, the number of classes",
            _PIXELS,
        ),
        Option(f"data.{name}.range", str, "", _RANGE),
        Option(f"data.{name}.palette", str, "", _PALETTE),
        Option(f"data.{name}.numbers", str, "", _NUMBERS),
        Option(f"data.{name}.nodata", str, "", _NODATA),
    )


_NOT_OF_NAMES = re.compile(r"[\\:\x00-\x1f\x7f]")  # what separates on other systems, and what no name has

# fmt: off
OPTIONS = (
    Option("objective", str, "p2p_jax:pix2pix", '"module:function" from a config to an Objective'),
    Option("seed", int, 0, "seed of all random numbers: weights, dropout, data order, augmentation", "[0, 4294967295]"),
    Option("init_from", str, "", 'start from the weights of another run, where they fit: the directory of the run or of one of its checkpoints, or a model file; "": random'),
    Option("num_steps", int, 80_000, "total number of generator updates", _COUNT, may_change=_RUNS),
    Option("batch_size", int, 1, "images per step, summed over all devices", _COUNT),
    Option("dtype", str, "float32", "dtype of the computation; bfloat16 on accelerators", choices=("float32", "bfloat16", "float64")),
    Option("precision", str, "auto", "of products and convolutions of float32 numbers: float32, tf32, bfloat16, or auto: what the device does by itself, that is TF32 on NVIDIA GPUs from Ampere on, bfloat16 on TPUs, and float32 elsewhere", choices=("auto", "float32", "tf32", "bfloat16")),
    Option("param_dtype", str, "float32", "dtype of parameters and optimizer state", choices=("float32", "bfloat16", "float64")),
    Option("sync_batch_norm", bool, False, "average batch-norm statistics over devices instead of per device"),
    Option("log_every", int, 100, "steps between rows of metrics.csv; losses are those of the row's batch, not means", _COUNT, may_change=_RUNS),
    Option("sample_every", int, 2_000, "steps between sample grids", _COUNT, may_change=_RUNS),
    Option("eval_every", int, 4_000, "steps between evaluations on the whole validation split", _COUNT, may_change=_RUNS),
    Option("checkpoint_every", int, 4_000, "steps between checkpoints", _COUNT, may_change=_RUNS),
    Option("keep_checkpoints", int, 2, "number of latest checkpoints to keep, besides the best one", _COUNT, may_change=_RUNS),
    Option("metrics", str, "l1,psnr,ssim", "metrics of pairs in validation, with commas: l1, psnr, ssim, or 'module:name' of your own"),
    Option("best_metric", str, "l1", "the validation metric that chooses the best checkpoint"),
    Option("best_mode", str, "min", "whether its lowest or its highest value is the best", choices=("min", "max")),
    Option("loggers", str, "", "where metrics and sample grids go besides metrics.csv and TensorBoard, with commas: wandb, mlflow, trackio, or 'module:name' of your own", may_change=_RUNS),
    Option("num_samples", int, 4, "validation images in a sample grid", "[1, 256]", may_change=_RUNS),
    Option("steps_per_dispatch", int, 0, "steps that devices run without returning to the host; 0: chosen automatically", _COUNT_OR_NONE, may_change=_RUNS),
    Option("distributed", bool, False, "one of several processes that train together; found automatically on TPU pods and SLURM", may_change=_PROCESSES),

    Option("data.source", str, "side_by_side", 'pairs: toy_facades, side_by_side, side_by_side/AB, side_by_side/BA, folders, suffixes, csv, pix2pix/NAME; unpaired: toy_unpaired, unpaired, cycle_gan/NAME; photographs that A is computed from: photos; containers: zip, array_record, hugging_face, also with /side_by_side, /photos, /unpaired; your own: "module:name"'),
    Option("data.dir", str, "", 'folder with the images, zip file, or name on the Hugging Face hub; "" if the source needs none', may_change=_PROCESSES),
    Option("data.columns", str, "", 'for array_record and hugging_face: the columns of A and B, "imageA,imageB", or the one column of single images; "": the columns that hold images'),
    Option("data.dir_a", str, "", 'for folders and unpaired: the folder of A, in data.dir or elsewhere; {split} is replaced by the split, * matches any folder; "": SPLIT/A, A/SPLIT or SPLITA', may_change=_PROCESSES),
    Option("data.dir_b", str, "", "the same for B", may_change=_PROCESSES),
    Option("data.suffix_a", str, "", 'ending of the file names of A, such as _leftImg8bit or .jpg; other files are left out; "": _A for suffixes, else none', may_change=_PROCESSES),
    Option("data.suffix_b", str, "", "the same for B", may_change=_PROCESSES),
    Option("data.direction", str, "AtoB", "BtoA swaps the two images, or sides", choices=("AtoB", "BtoA")),
    Option("data.preprocess", str, "resize_and_crop", "crop: without resizing; scale_shortside_and_crop: keeps the proportions; scale_width_and_crop: the same, unless an image is too flat; scale_width: to crop_width, no crop; none: images already have the crop size", choices=PREPROCESS),
    Option("data.load_size", int, 286, "images are resized to this height, then cropped", _PIXELS),
    Option("data.load_width", int, 0, "and to this width; 0: the same", _PIXELS_OR_NONE),
    Option("data.crop_size", int, 256, "height of the images that the networks see", _PIXELS),
    Option("data.crop_width", int, 0, "their width; 0: the same", _PIXELS_OR_NONE),
    Option("data.flip", bool, True, "mirror at random"),
    Option("data.background", str, "", 'white, black or #rrggbb: the colour behind transparent parts of images; "": transparent images are refused'),
    Option("data.max_pixels", int, limits.MAX_PIXELS, "largest number of pixels in an image, each of up to 4 bytes; larger images are refused before they are decoded", _COUNT, may_change=_PROCESSES),
    *_side("input"),
    *_side("output"),
    Option("data.train_split", str, "train", "the split to train on"),
    Option("data.val_split", str, "val", 'the split to validate on; "" trains without validation'),
    Option("data.val_fraction", float, 0.0, "share of the training images kept for validation if there is no validation folder; chosen by file name", "[0, 1)"),
    Option("data.resident", bool, False, "keep all training images on the device, and shuffle and crop them there"),
    Option("data.cache_mb", int, 2048, "MiB of resized images that each process keeps in memory; 0: none", _COUNT_OR_NONE, may_change=_PROCESSES),
    Option("data.num_train", int, 0, "training pairs in an epoch, or images of the larger side; 0: counted at the start", _COUNT_OR_NONE),

    Option("augment.vflip", bool, False, "flip upside down at random"),
    Option("augment.quarter_turns", bool, False, "turn by 0, 90, 180 or 270 degrees at random"),
    Option("augment.scale_jitter", float, 0.0, "enlarge by a random factor in [1, 1 + this] before the crop", "[0, 1)"),
    Option("augment.photometric", float, 0.0, "multiply the contrast of the input (CycleGAN: of A) by a factor in [1 - this, 1 + this], and shift its brightness by up to this share of the range", "[0, 1)"),

    Option("schedule.kind", str, "constant", "schedule of the learning rate", choices=("constant", "linear_decay", "cosine")),
    Option("schedule.unit", str, "auto", "unit of the next two options; auto: epochs if their sum is num_steps, else shares of the run, so the rate ends at 0", choices=("auto", "epochs", "steps")),
    Option("schedule.constant_for", int, 100, "how long the rate stays constant", _COUNT_OR_NONE),
    Option("schedule.decay_over", int, 100, "how long the rate then falls to 0", _COUNT),
    Option("schedule.beyond_zero", bool, False, "keep training after the rate reaches 0; otherwise a run that would spend more than a tenth there is refused", may_change=_RUNS),

    Option("gradients.clip", str, "", "how to clip the gradient of each side (generators, discriminators), after averaging and accumulating: global_norm, value, adaptive (clip_at times the weights' norm), or 'module:name' of a function like optax.clip; \"\": none"),
    Option("gradients.clip_at", float, 1.0, "the largest norm, value or share that is not clipped", "(0, inf)"),
    Option("gradients.accumulate", int, 1, "number of batches averaged into one optimizer step; steps and schedules count batches", _COUNT),

    Option("ema.decay", float, 0.0, "moving average of the generators' weights, used for translation: each step keeps this share of it; 0: see half_life", "[0, 1)"),
    Option("ema.half_life", float, 0.0, "the same, as the number of images after which half is kept; 0: see decay", "[0, inf)"),
    Option("ema.ramp_up", float, 0.0, "the half-life is at most this share of the images seen so far, so early weights are soon forgotten (0.05 in StyleGAN2-ADA); 0: no such limit", "[0, inf)"),

    Option("distances.features", str, "", 'compute KID and FID in validation from features of: inception, FID\'s network; segmenter:FOLDER, made by p2p-jax segmenter; "module:name", uint8 [N, H, W, 3] -> [N, D]; "": none'),
    Option("distances.weights", str, "", "file with the weights of inception; \"\": torch-fidelity downloads them", may_change=_PROCESSES),
    Option("distances.every", int, 0, "steps between two computations of KID and FID; 0: eval_every", _COUNT_OR_NONE, may_change=_RUNS),

    Option("inference.norm", str, "auto", "statistics for batch norm: batch (of the translated image itself), running, or auto: batch if every device trains on one image per step, else running", choices=("auto", "batch", "running")),
    Option("inference.dropout", bool, True, "use dropout, the paper's noise z, at test time too"),
)
FREE_SECTIONS: dict[str, dict[str, Any]] = {
    "task": {},  # `input` names a function that makes A of photographs B (p2p_jax/images/tasks.py has ours)
    "generator": {"network": "p2p_jax.nets:UNet"},
    "discriminator": {"network": "p2p_jax.nets:PatchGAN"},
    "loss": {},
    "optimizer": {"factory": "optax:adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-8},
    "discriminator_optimizer": {},  # what differs from `optimizer`; another factory takes only its own options
    "extra": {},
}
# fmt: on


def check(config: ConfigDict) -> None:
    """Refuse options that contradict each other.

    Args:
      config: complete; each value is valid by itself.

    Raises:
      InputError: names the options.
    """
    data, augment = config.data, config.augment
    for name in ("train_split", "val_split"):
        if data[name] and not _is_inside(data[name]):
            raise InputError(
                f"config.data.{name} is {data[name]!r}; a split is the name of a folder in the data set, "
                "without .., ~, \\ and :, and does not begin with /"
            )
    load, crop = load_shape(data), crop_shape(data)
    sides = {"crop": (), "scale_width": (), "none": (), "scale_width_and_crop": (1,)}.get(data.preprocess, (0, 1))
    if any(crop[i] > load[i] for i in sides):
        raise InputError(
            f"images are loaded at {load[0]}x{load[1]} (config.data.load_size, load_width) and the crop is "
            f"{crop[0]}x{crop[1]} (crop_size, crop_width); the crop must fit into the loaded image"
        )
    input_domain, _ = domains.of_config(data)
    if data.columns and data.source.partition("/")[0] not in ("array_record", "hugging_face"):
        raise InputError(
            f"config.data.columns={data.columns} is for array_record and hugging_face; config.data.source is {data.source}"
        )
    if augment.scale_jitter and "crop" not in data.preprocess:
        raise InputError(
            f"config.augment.scale_jitter needs a crop, and config.data.preprocess={data.preprocess} has none"
        )
    _check_distances(config)
    if config.task and "input" not in config.task:
        raise InputError(
            f"config.task has {', '.join(config.task)} but no input: set config.task.input to the function that uses it"
        )
    _check_steps(config)
    if augment.quarter_turns and crop[0] != crop[1]:
        raise InputError("config.augment.quarter_turns needs square crops: set config.data.crop_width=0")
    if augment.photometric and input_domain.kind not in (*domains.NUMBERS, "lab_l"):
        raise InputError(
            f"config.augment.photometric needs a numeric input; this one is {input_domain.kind}: set it to 0."
        )


def _check_steps(config: ConfigDict) -> None:
    """Refuse options of gradients and averages that contradict each other."""
    ema, gradients = config.ema, config.gradients
    if ema.decay and ema.half_life:
        raise InputError(
            f"config.ema.decay={ema.decay:g} and config.ema.half_life={ema.half_life:g} both say how long the average "
            "lasts: set one of them to 0."
        )
    if ema.ramp_up and not (ema.decay or ema.half_life):
        raise InputError(
            f"config.ema.ramp_up={ema.ramp_up:g} needs a moving average: set config.ema.half_life or config.ema.decay"
        )
    if not gradients.clip and gradients.clip_at != 1:
        raise InputError(
            f"config.gradients.clip_at={gradients.clip_at:g} has no effect: set config.gradients.clip, such as "
            "to global_norm"
        )


def _check_distances(config: ConfigDict) -> None:
    """Refuse options of distances that nothing reads."""
    features = config.distances.features
    for name in ("weights", "every"):
        if config.distances[name] and not features:
            raise InputError(f"config.distances.{name} needs config.distances.features, which is empty")
    if config.distances.weights and features != "inception":
        raise InputError(f"config.distances.weights is of inception; config.distances.features is {features}")


def _is_inside(name: str) -> bool:
    """Return whether a name, or several joined by /, is a path inside a folder."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") and part[0] != "~" for part in parts) and not _NOT_OF_NAMES.search(name)


def load_shape(data: ConfigDict) -> tuple[int, int]:
    """Return height and width of resized images, before the crop."""
    return data.load_size, data.load_width or data.load_size


def crop_shape(data: ConfigDict) -> tuple[int, int]:
    """Return height and width of the images that the networks see."""
    return data.crop_size, data.crop_width or data.crop_size


def image_shapes(data: ConfigDict) -> dict[str, tuple[int, int, int]]:
    """Return the shape [H, W, C] of every image of a batch, by its name there."""
    crop = crop_shape(data)
    return {"real_a": (*crop, data.input.channels), "real_b": (*crop, data.output.channels)}


def is_unpaired(source: str) -> bool:
    """Return whether a ``config.data.source`` of ours has no pairs."""
    return source in ("unpaired", "toy_unpaired") or source.startswith("cycle_gan/") or source.endswith("/unpaired")


def are_photos(source: str) -> bool:
    """Return whether a ``config.data.source`` of ours has single photographs, so A is computed from them."""
    return source == "photos" or source.endswith("/photos")
