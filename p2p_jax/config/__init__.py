"""Configs: the table of options, completing, files, and ``"module:name"`` references."""

from p2p_jax.config.completing import (
    complete,
    complete_experiment,
    complete_read_section,
    complete_section,
    completed_like,
)
from p2p_jax.config.facts import filled_in, with_facts
from p2p_jax.config.files import differences, find, flat, from_json, load, load_with_overrides, override, to_json
from p2p_jax.config.option import Option, attribute
from p2p_jax.config.reference import resolve

__all__ = [
    "Option",
    "attribute",
    "complete",
    "complete_experiment",
    "complete_read_section",
    "complete_section",
    "completed_like",
    "differences",
    "filled_in",
    "find",
    "flat",
    "from_json",
    "load",
    "load_with_overrides",
    "override",
    "resolve",
    "to_json",
    "with_facts",
]
