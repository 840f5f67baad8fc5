"""Facts found in the images of a data set. They are stored next to a config and fill in what it leaves open."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config.completing import as_dict, complete


def filled_in(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the number of training examples, the ranges, the palettes and what "auto" means.

    Args:
      config: what was asked for, complete or not.
      facts: as a config has them, where it leaves them open: "num_train"; "input" and "output" with "range", "palette",
        "numbers" and "nodata"; "inference" and "schedule" with what "auto" means for the run; "source" is "given" for
        data that were given to ``train``. Other entries are left out.
    """
    given = as_dict(config)
    data = dict(given.get("data", {}))
    data |= {name: facts[name] for name in ("num_train", "source") if name in facts}
    for side in ("input", "output"):
        data[side] = {**data.get(side, {}), **facts.get(side, {})}
    meant = {name: {**given.get(name, {}), **facts.get(name, {})} for name in ("inference", "schedule")}
    return {**given, "data": data, **meant}


def with_facts(config: Mapping[str, Any], facts: Mapping[str, Any]) -> ConfigDict:
    """Return ``filled_in(config, facts)``, complete and locked."""
    return complete(filled_in(config, facts))
