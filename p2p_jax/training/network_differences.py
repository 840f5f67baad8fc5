"""Differences between the networks of a run and those of the run whose weights it starts from."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config.stored import LIBRARY
from p2p_jax.errors import InputError
from p2p_jax.objectives import make_network

# Attributes of networks.
_SAME_FUNCTION = {*("init_type", "init_gain", "dtype", "param_dtype", "axis_name"), *("remat", "out_channels")}
_SAME_FUNCTION |= {"parent", "name"}


def differences(stored: Mapping[str, Any], config: ConfigDict) -> list[str]:
    """Say what the networks compute otherwise with the same weights, and the option that keeps it as it was."""
    found = []
    for section in ("generator", "discriminator"):
        theirs = (stored.get(section) or {}).get("network")
        if theirs != config[section].get("network") and theirs not in LIBRARY[f"{section}.network"]:
            continue  # another network, which is not made to be compared
        try:
            old, new = make_network(stored.get(section) or {}, section), make_network(config[section], section)
        except (InputError, KeyError, ImportError, TypeError):
            continue  # of a lab that is gone, or of none
        for name in old.__dataclass_fields__.keys() - _SAME_FUNCTION if type(old) is type(new) else ():
            there, here = getattr(old, name), getattr(new, name)
            if there != here:
                keeps = f"--config.{section}.{name}={there} keeps it"
                found.append(f"{section}.{name} was {there!r} there and is {here!r} here; {keeps}")
    return sorted(found)


def misfit(
    name: str, stored: Mapping[str, Any], config: ConfigDict, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> str:
    """Return the message that nothing fits, with both networks and the options that differ."""
    here = config.generator.to_dict()
    keys = [key for key in sorted(stored.keys() | here.keys()) if stored.get(key) != here.get(key)]

    def describe(section, players):
        options = ", ".join(f"{key}={section[key]}" for key in keys if key in section and key != "network")
        return f"{section.get('network', 'unknown')}{f' with {options}' if options else ''} ({', '.join(players)})"

    return (
        f"config.init_from={name}: none of its generator layers fit. It has {describe(stored, theirs)}, the "
        f"new run {describe(here, ours)}; use the same config.generator, or leave config.init_from empty"
    )
