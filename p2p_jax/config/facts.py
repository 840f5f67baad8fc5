"""What is found in the images of a data set. It is stored beside a config, and fills in what that leaves open."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config.completing import as_dict, complete


def filled_in(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the number of training examples, the ranges, the palettes and the norm that were found.

    Args:
      config: what was asked for, complete or not.
      facts: ``{"num_train": 400, "input": {"palette": "#ff0000,..."}, "output": {"range": "0.0:1.0"}}``; what a config
        says itself is not among them, and other entries are left out. ``{"inference": {"norm": "running"}}`` is what
        "auto" meant.
    """
    given = as_dict(config)
    data = dict(given.get("data", {}))
    if "num_train" in facts:
        data["num_train"] = facts["num_train"]
    for side in ("input", "output"):
        data[side] = {**data.get(side, {}), **facts.get(side, {})}
    return {**given, "data": data, "inference": {**given.get("inference", {}), **facts.get("inference", {})}}


def with_facts(config: Mapping[str, Any], facts: Mapping[str, Any]) -> ConfigDict:
    """Return ``filled_in(config, facts)``, complete and locked."""
    return complete(filled_in(config, facts))
