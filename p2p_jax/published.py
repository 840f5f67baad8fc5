"""The published recipes as complete configs. A config starts from one of them and is compared with it."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import complete_experiment, flat
from p2p_jax.config.options import OPTIONS

_RESAMPLED = {"downsampling": "antialiased", "init_type": "xavier"}
_CUT: dict[str, Any] = {
    "objective": "p2p_jax:cut",
    "eval_every": 10_000,
    "checkpoint_every": 5_000,
    "best_metric": "nce",
    "data": {"source": "unpaired", "val_split": "test"},
    "generator": {"network": "p2p_jax.nets:ResNet", "upsampling": "antialiased", **_RESAMPLED},
    "discriminator": {"norm": "instance", **_RESAMPLED},
    "schedule": {"kind": "linear_decay", "constant_for": 200, "decay_over": 200},
    "inference": {"dropout": False},
}


def pix2pix() -> ConfigDict:
    """Return pix2pix (Isola et al. 2017): U-Net-256, 70x70 PatchGAN, cGAN + 100 L1, Adam at 2e-4, batches of 1."""
    return _unlocked({})  # the defaults of all options


def cyclegan() -> ConfigDict:
    """Return CycleGAN (Zhu et al. 2017): ResNet-9, 70x70 PatchGAN, LSGAN + 10 cycle, 100 epochs and 100 of decay."""
    return _unlocked(
        {
            "objective": "p2p_jax:cyclegan",
            "eval_every": 10_000,
            "checkpoint_every": 5_000,
            "best_metric": "cycle",
            "data": {"source": "unpaired", "val_split": "test"},
            "generator": {"network": "p2p_jax.nets:ResNet"},
            "discriminator": {"norm": "instance"},
            "schedule": {"kind": "linear_decay"},
            "inference": {"dropout": False},
        }
    )


def cut() -> ConfigDict:
    """Return CUT (Park et al. 2020): anti-aliased ResNet-9 and 70x70 PatchGAN, LSGAN + contrast, 200 + 200 epochs."""
    return _unlocked(_CUT)


def fast_cut() -> ConfigDict:
    """Return FastCUT (same paper): contrast weight 10, random mirroring, no identity term, 150 + 50 epochs."""
    faster = {
        "loss": {"lambda_nce": 10.0, "identity": False, "flip_equivariance": True},
        "schedule": {"kind": "linear_decay", "constant_for": 150, "decay_over": 50},
    }
    return _unlocked(_CUT | faster)


def base_of(config: Mapping[str, Any]) -> ConfigDict:
    """Return the recipe that a config is compared with: the one of its objective, else pix2pix.

    FastCUT is CUT's objective with ``loss.flip_equivariance``.
    """
    if config["objective"] == "p2p_jax:cut":
        return fast_cut() if config.get("loss", {}).get("flip_equivariance") else cut()
    return cyclegan() if config["objective"] == "p2p_jax:cyclegan" else pix2pix()


def describe(config: ConfigDict, *, changed_only: bool = False) -> list[str]:
    """Return a config as lines, one per option, in the order of the table.

    Args:
      config: complete in all sections.
      changed_only: leave out options that have the published value.

    Returns:
      Lines ``name = value``. Options that differ from the recipe have a star and, at the end, the recipe's value.
    """
    base, places = flat(base_of(config)), {option.name: i for i, option in enumerate(OPTIONS)}
    lines = []
    for name, value in sorted(flat(config).items(), key=lambda item: places.get(item[0], len(places))):
        if name in base and base[name] == value:
            lines += [] if changed_only else [f"  {name} = {value!r}"]
        else:
            lines.append(f"* {name} = {value!r}" + (f"    (published: {base[name]!r})" if name in base else ""))
    return lines


def _unlocked(options: Mapping[str, Any]) -> ConfigDict:
    return ConfigDict(complete_experiment(options).to_dict())
