"""Experiments of equal cost: which options may differ, the steps of each, and the table of costs."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from p2p_jax.config import flat
from p2p_jax.errors import InputError
from p2p_jax.evaluation.series import changed
from p2p_jax.training import parallel
from p2p_jax.training.cost import Cost, measure

EQUAL = ("gmac", "steps")
"""What is equal for all experiments: multiply-adds of the whole training, or steps."""
FILES = ("table.json", "table.md", "runs.csv", "comparison.html")
"""Files written next to the folders of the experiments."""
GIGA = 1e9
_MOST = 2**31 - 1  # steps: they are counted in 32 bits
_TOLD = 0.02  # share by which whole steps may miss a budget without a note
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")  # of a folder
_OF_TRAINING = ("data.flip", "data.resident", "data.cache_mb", "data.max_pixels", "data.num_train")
_LOADED = ("data.load_size", "data.load_width")  # only for training images, unless they are cropped afterwards


class Plan(NamedTuple):
    """One of the experiments.

    Attributes:
      name: name of its folder.
      config: its complete config, with its number of steps; the seed is that of its file.
      cost: cost of a step and of an image.
      evaluations: number of evaluations in a run.
      differs: option -> value, the differences from the first one in addition to the number of steps.
      off: share of the budget by which whole steps miss it.
    """

    name: str
    config: ConfigDict
    cost: Cost
    evaluations: int
    differs: Mapping[str, Any]
    off: float = 0.0

    @property
    def total(self) -> float:
        """Multiply-adds of the whole training."""
        return self.config.num_steps * self.cost.step

    @property
    def doubts(self) -> list[str]:
        """Notes on multiply-adds that are not certain or not equal."""
        less = "fewer" if self.off < 0 else "more"
        missed = f"whole steps make {abs(self.off):.0%} {less} multiply-adds than the budget"
        return [*self.cost.doubts, *([missed] if abs(self.off) > _TOLD else [])]


def plan(configs: Mapping[str, ConfigDict], equal: str = "gmac", gmac: float | None = None) -> list[Plan]:
    """Give each experiment its number of steps.

    With `equal` "gmac", all train for as many multiply-adds as the first one in its ``num_steps``. ``eval_every`` of
    the others is scaled too, so each one is evaluated as often as its file says, and the best of equally many is used.
    With "steps" every config keeps its own steps.

    Args:
      configs: name -> complete config.
      equal: one of ``EQUAL``.
      gmac: multiply-adds of a training in 1e9, instead of those of the first config.

    Raises:
      InputError: the configs differ in data set, split or size; a name cannot be the name of a folder; a config cannot
        be traced, or its learning rate does not follow the number of steps.
    """
    if equal not in EQUAL:
        raise InputError(f"equal={equal}: choose gmac (multiply-adds of the whole training) or steps")
    if gmac is not None and (equal == "steps" or not 0 < gmac < math.inf):
        raise InputError(f"gmac={gmac}: must be above 0, in 1e9 multiply-adds of a training; not with equal=steps")
    for name in configs:
        if not _NAME.fullmatch(name) or name in FILES:
            raise InputError(
                f"{name!r} cannot be the name of a folder: use letters, digits and . _ + = -, and not a file that is "
                f"written there ({', '.join(FILES)})"
            )
    first, *others = configs.items()
    for name, config in others:
        refuse_other_images(first[0], first[1], name, config)
    named = {config.distances.features: name for name, config in configs.items() if config.distances.features}
    if len(named) > 1:
        told = ", ".join(f"{features} in {name}" for features, name in named.items())
        raise InputError(f"config.distances.features is {told}: KID and FID can be compared only with equal features")
    costs = {name: _measured(name, config) for name, config in configs.items()}
    budget = None if gmac is None else gmac * GIGA
    if equal == "gmac" and budget is None:
        budget = first[1].num_steps * costs[first[0]].step
    return [_planned(name, config, costs[name], budget, first[1]) for name, config in configs.items()]


def _measured(name: str, config: ConfigDict) -> Cost:
    try:
        parallel.check_batch_size(config.batch_size)
        return measure(config)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _planned(name: str, config: ConfigDict, cost: Cost, budget: float | None, first: ConfigDict) -> Plan:
    asked = config.num_steps
    differs = {
        option: value
        for option, value in flat(config.to_dict()).items()
        if flat(first.to_dict()).get(option) != value and option not in ("seed", "num_steps")
    }
    if budget is not None:
        config, cost = _within(name, config, cost, budget)
    evaluations = -(-config.num_steps // config.eval_every)
    if config.num_steps != asked and config.schedule.kind != "constant" and config.schedule.unit != "auto":
        raise InputError(
            f"{name}: config.schedule.unit={config.schedule.unit} keeps the learning rate of {asked:,} steps, but this "
            f"run gets {config.num_steps:,}: set config.schedule.unit=auto to fit it, or equal=steps"
        )
    off = 0.0 if budget is None else config.num_steps * cost.step / budget - 1
    return Plan(name, config, cost, evaluations, differs, off)


def _within(name: str, config: ConfigDict, cost: Cost, budget: float) -> tuple[ConfigDict, Cost]:
    """Return a config with as many steps as a budget of multiply-adds allows."""
    evaluations = -(-config.num_steps // config.eval_every)
    for _ in range(3):  # the mean over a run may depend on its length
        if not cost.step:
            raise InputError(f"{name}: a step has no convolution and no matrix product: use equal=steps")
        steps = max(1, round(budget / cost.step))
        if steps > _MOST:
            raise InputError(
                f"{name}: {giga(budget)} GMAC are {steps:,} steps, more than {_MOST:,}: give a smaller `gmac`"
            )
        if steps == config.num_steps:
            break
        every = -(-steps // evaluations)
        config = changed(config, {"num_steps": steps, "eval_every": every})
        cost = measure(config)
    if cost.step > 2 * budget:
        raise InputError(
            f"{name}: a step has {giga(cost.step)} GMAC, more than the {giga(budget)} of a run: give a larger `gmac`"
        )
    return config, cost


def refuse_other_images(
    first: str, one: ConfigDict, name: str, other: ConfigDict, may_differ: Collection[str] = ()
) -> None:
    """Check that two experiments are validated on the same images, at the same size.

    Args:
      first: name of the first one.
      one: config of the first one.
      name: name of the other one.
      other: config of the other one.
      may_differ: options that may differ, in addition to those that change only the training images.

    Raises:
      InputError: they are not; names both, and the options that differ.
    """
    free = {*_OF_TRAINING, *may_differ}
    if one.data.preprocess == other.data.preprocess == "resize_and_crop":
        free.update(_LOADED)
    sections = [flat({"data": config.data.to_dict(), "task": config.task.to_dict()}) for config in (one, other)]
    differing = [
        f"config.{key} is {sections[0].get(key)!r} in {first} and {sections[1].get(key)!r} in {name}"
        for key in sorted(sections[0].keys() | sections[1].keys())
        if sections[0].get(key) != sections[1].get(key) and key not in free
    ]
    if differing:
        raise InputError(
            f"{'; '.join(differing)}: data, split and size must be equal to compare the same validation images"
        )


def describe(plans: list[Plan], seeds: int) -> str:
    """Return the table of costs that is printed before training starts."""
    rows = [["", "GMAC a step", "steps", "evaluations", "GMAC a run", f"of {seeds} seeds"]]
    for one in plans:
        numbers = [giga(one.cost.step), f"{one.config.num_steps:,}", f"{one.evaluations:,}"]
        rows.append([one.name, *numbers, giga(one.total), giga(seeds * one.total)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*lines, *(f"{one.name}: {doubt}" for one in plans for doubt in one.doubts)])


def giga(multiply_adds: float) -> str:
    """Return multiply-adds in 1e9, with four digits or all before the point."""
    number = multiply_adds / GIGA
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"
