"""A network read from a foreign file, in the terms of this library."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from p2p_jax.errors import InputError
from p2p_jax.objectives import make_network

_SIDE = 192  # or a multiple of it: every network can be traced at this size


class ForeignNetwork(NamedTuple):
    """A network read from a file of another program.

    Attributes:
      section: the section of a config that describes it: "network" and attributes of that Flax module.
      in_channels: channels of its input images.
      out_channels: channels of its output images; 1 for discriminators.
      variables: ``{"params": ..., "batch_stats": ...}`` in float32, as in that module.
      step: number of updates; 0 if the file does not say.
    """

    section: dict[str, Any]
    in_channels: int
    out_channels: int
    variables: dict[str, Any]
    step: int = 0

    @property
    def num_parameters(self) -> int:
        """Count of the numbers in ``variables["params"]``."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    @property
    def is_discriminator(self) -> bool:
        """Whether it judges images instead of making them."""
        return self.section["network"].endswith(":PatchGAN")


def title(section: Mapping[str, Any]) -> str:
    """Return the name of the network that a section describes, such as "UNet"."""
    return section["network"].partition(":")[2]


def name_some(names: Iterable[str]) -> str:
    """Return the first few of many names, and the number of the others."""
    shown = sorted(names)
    return (", ".join(shown[:4]) or "nothing") + (f" and {len(shown) - 4:,} more" if len(shown) > 4 else "")


def describe(network: ForeignNetwork) -> str:
    """Return a description of a network in one line."""
    name = title(network.section)
    facts = [f"{key}={value}" for key, value in network.section.items() if key != "network"]
    channels = f"{network.in_channels} to {network.out_channels} channels"
    return f"{name}({', '.join(facts)}), {channels}, {network.num_parameters:,} parameters"


def expected_shapes(section: Mapping[str, Any], in_channels: int, out_channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every variable of the network that a section describes, ``{"params/LAYER/LEAF": shape}``."""
    network = make_network(section, out_channels=out_channels)
    side = math.lcm(_SIDE, 2 ** section.get("num_downs", 0))
    images = jax.ShapeDtypeStruct((1, side, side, in_channels), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    return {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}


def check_variables(network: ForeignNetwork, names: Mapping[str, str], source: str) -> None:
    """Compare the variables with those of the network that the section describes.

    Args:
      network: the network to check.
      names: name in the file of each variable "params/LAYER/LEAF" or "batch_stats/LAYER/LEAF".
      source: the file, for messages.

    Raises:
      InputError: a variable is missing, unexpected or has another shape; names it and the file.
    """
    expected = expected_shapes(network.section, network.in_channels, network.out_channels)
    found = flatten_dict(network.variables, sep="/")
    kind = title(network.section)
    for name in sorted(expected.keys() | found.keys()):
        known = names.get(name, name)
        if name not in found:
            raise InputError(
                f"{source}: {known} is missing; a {kind} of {_size(network)} has it. Is the file complete?"
            )
        if name not in expected:
            raise InputError(f"{source}: {known} does not belong to a {kind} of {_size(network)}: another architecture")
        if np.shape(found[name]) != expected[name]:
            raise InputError(
                f"{source}: {known} has the shape {np.shape(found[name])} (in the order of Flax), but a {kind} of "
                f"{_size(network)} has {expected[name]}: another architecture"
            )
        if not np.isfinite(found[name]).all():
            raise InputError(f"{source}: {known} holds numbers that are not finite: its training diverged")


def _size(network: ForeignNetwork) -> str:
    section = network.section
    keys = ("num_downs", "num_blocks", "receptive_field", "channels")
    depth = {key: section[key] for key in keys if key in section}
    return ", ".join(f"{key}={value}" for key, value in (depth | {"base_width": section["base_width"]}).items())
