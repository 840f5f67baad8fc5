"""Small experiments: 16-pixel images, a few thousand parameters, four steps."""

import copy

from ml_collections import ConfigDict

from p2p_jax.config import complete

SMALL = {
    "num_steps": 4,
    "batch_size": 4,
    "log_every": 1,
    "sample_every": 2,
    "eval_every": 2,
    "checkpoint_every": 2,
    "num_samples": 2,
    "data": {"source": "toy_facades", "direction": "BtoA", "load_size": 18, "crop_size": 16},
    "generator": {"num_downs": 3, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4},
    "loss": {"lambda_l1": 100.0},
}
SMALL_CYCLEGAN = {
    **SMALL,
    "objective": "p2p_jax:cyclegan",
    "best_metric": "cycle",
    "data": {"source": "toy_unpaired", "load_size": 18, "crop_size": 16},
    "generator": {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4, "norm": "instance"},
    "loss": {"lambda_identity": 0.5, "pool_size": 4},
    "inference": {"norm": "batch", "dropout": False},
}
SMALL_CUT = {
    **SMALL_CYCLEGAN,
    "objective": "p2p_jax:cut",
    "best_metric": "nce",
    "loss": {"num_patches": 16, "head_width": 8},
}
SGD = {"factory": "optax:sgd", "learning_rate": 0.01}  # Adam makes much of last bits, and hides wrong scales
_NOT_OF_DATA = ("batch_size", "seed")


def merged(base: dict, changes: dict) -> dict:
    """Return a config with the options of some sections changed."""
    return base | {k: base.get(k, {}) | v if isinstance(v, dict) else v for k, v in changes.items()}


def small_config(base: dict = SMALL, **changes) -> ConfigDict:
    """Return the small experiment; ``section__key=value`` changes an option in a section."""
    config = copy.deepcopy(base)
    for name, value in changes.items():
        *sections, key = name.split("__")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = copy.deepcopy(value)
    return complete(config)


def small_cyclegan_config(**changes) -> ConfigDict:
    """Return the small experiment without pairs; see ``small_config``."""
    return small_config(SMALL_CYCLEGAN, **changes)


def small_cut_config(**changes) -> ConfigDict:
    """Return the small experiment without pairs, in one direction; see ``small_config``."""
    return small_config(SMALL_CUT, **changes)


def data_config(make=small_config, **options) -> ConfigDict:
    """Return a small experiment that is about its images: options of ``data``, and of other sections as section__key.

    From A to B, 16 pixels, neither resized nor mirrored unless the options say so.
    """
    defaults = {"direction": "AtoB", "load_size": 16, "crop_size": 16, "flip": False}
    elsewhere = ("augment__", "data__", "generator__", "inference__", "loss__", "task__")
    named = {
        k if k.startswith(elsewhere) or k in _NOT_OF_DATA else f"data__{k}": v for k, v in (defaults | options).items()
    }
    return make(**named)


def pairs_config(folder, **options) -> ConfigDict:
    """Return a small experiment on the files of ``support.images.write_pairs``; see ``data_config``."""
    return data_config(**{"source": "side_by_side", "dir": str(folder), "flip": True} | options)
