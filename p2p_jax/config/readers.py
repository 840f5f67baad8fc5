"""The reader of a free section of a config, and the options in its signature."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from p2p_jax.config.option import Option, type_of
from p2p_jax.config.options import FREE_SECTIONS
from p2p_jax.config.reference import resolve
from p2p_jax.errors import InputError
from p2p_jax.reporting import say

READERS = {
    "task": "input",
    "generator": "network",
    "discriminator": "network",
    "optimizer": "factory",
    "discriminator_optimizer": "factory",
}
"""The option of a free section that names its reader."""
PUBLISHED = {
    "generator": ("p2p_jax.nets:UNet", "p2p_jax.nets:ResNet"),
    "discriminator": ("p2p_jax.nets:PatchGAN",),
    "optimizer": ("optax:adam",),
    "discriminator_optimizer": ("optax:adam",),
}
"""The readers that the published experiments have."""
OURS = {
    "generator": (*PUBLISHED["generator"], "p2p_jax.nets:UNetViT", "p2p_jax.nets:MobileResNet"),
    "discriminator": (*PUBLISHED["discriminator"], "p2p_jax.nets:MultiScalePatchGAN", "p2p_jax.nets:UNetDiscriminator"),
    "optimizer": PUBLISHED["optimizer"],
}
"""The readers that a section may have been written for before another one was named in it; first the default one."""
OF_THE_CONFIG = ("out_channels", "dtype", "param_dtype", "axis_name")
"""Attributes of networks that follow from the rest of the config, so they are not options."""
_OF_MODULES = {"parent", "name"}  # what Flax gives every module
_ANNOTATIONS = {"bool": bool, "int": int, "float": float, "str": str}
_RATES = {  # of optimizers, which say nothing of their bounds
    **dict.fromkeys(("b1", "b2", "decay", "momentum"), "[0, 1)"),
    **dict.fromkeys(("learning_rate", "eps", "eps_root", "weight_decay", "initial_scale"), "[0, inf)"),
}


def options_of(section: str, reference: str, given: Collection[str] = ()) -> dict[str, Option]:
    """Return the options of a free section that a reader knows, its own name first.

    Args:
      section: "generator", "optimizer" ...
      reference: the reader, "module:name": a Flax module, whose attributes they are, or a function.
      given: names that the reader takes from elsewhere.

    Raises:
      InputError: there is nothing of this name.
    """
    naming = READERS[section]
    reader = resolve(reference, f"config.{section}.{naming}")
    try:
        found = _of_class(reader) if dataclasses.is_dataclass(reader) else _of_function(reader, section)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.{section}.{naming}={reference} does not take options ({error})") from None
    return {naming: Option(naming, str, reference)} | {k: v for k, v in found.items() if k not in given}


def takes_anything(reference: str) -> bool:
    """Return whether a reader is a function of any options, ``**kwargs``."""
    reader = resolve(reference)
    parameters = [] if dataclasses.is_dataclass(reader) else inspect.signature(reader).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def inherited(section: str, reader: str, values: Mapping[str, Any], known: Collection[str]) -> set[str]:
    """Return the options of a free section that its reader does not know, and that were not chosen for it.

    A config that names another reader in a copy of ours has them: those with a published reader's default and, unless
    the reader is the default one, those of any reader of ours. (Under the default one such an option is a mistake:
    whoever sets ``num_blocks`` has forgotten to name the ResNet.)
    """
    unknown = set(values) - set(known)
    if not unknown:
        return set()
    is_default = reader in OURS.get(section, ())[:1]
    of_another = set() if is_default else {key for key in unknown if owner_of(section, key)}
    return of_another | {key for key in unknown if _is_published(section, key, values[key])}


def owner_of(section: str, option: str) -> str:
    """Return the reader of ours that has an option, "" if none has."""
    ours = OURS.get(section, ())
    return next((name for name in ours if option in options_of(section, name, OF_THE_CONFIG)), "")


def tell_dropped(section: str, reader: str, values: Mapping[str, Any], known: Collection[str]) -> None:
    """Print which options of a section are not used because its reader does not know them.

    Those that have a published default were never chosen, and are not named.
    """
    lost = [key for key in values if key not in known and not _is_published(section, key, values[key])]
    if lost:
        named = ", ".join(f"{key}={values[key]!r}" for key in lost)
        say(f"config.{section}: {reader} does not have {named}; dropped")


def _is_published(section: str, key: str, value: Any) -> bool:
    """Return whether an option has the value of a published experiment."""
    tables = [options_of(section, reference) for reference in PUBLISHED.get(section, ())]
    defaults = [{name: option.default for name, option in table.items()} for table in tables]
    defaults.append(FREE_SECTIONS[section])
    return any(key in table and table[key] == value for table in defaults)


def _of_class(network: Any) -> dict[str, Option]:
    """Return the attributes of a module; types without a usable annotation are those of the defaults."""
    options = {}
    for field in dataclasses.fields(network):
        if field.name in _OF_MODULES or not field.init:
            continue
        default = None if field.default is dataclasses.MISSING else field.default
        options[field.name] = Option(
            field.name,
            _annotated(field.type) or type_of(default),
            default,
            bounds=field.metadata.get("bounds", ""),
            choices=field.metadata.get("choices", ()),
        )
    return options


def _of_function(function: Callable, section: str) -> dict[str, Option]:
    """Return the parameters of a function; those of a task come after the image and the random generator."""
    parameters = list(inspect.signature(function).parameters.values())[2 if section == "task" else 0 :]
    options = {}
    for parameter in parameters:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.name not in _OF_MODULES:
            bounds = _RATES.get(parameter.name, "") if READERS[section] == "factory" else ""
            default = None if parameter.default is parameter.empty else parameter.default
            kind = float if bounds else _annotated(parameter.annotation) or type_of(default)
            if kind is int and not _annotated(parameter.annotation):
                kind = None  # a default of 0 fits a number of any kind
            options[parameter.name] = Option(parameter.name, kind, default, bounds=bounds)
    return options


def _annotated(annotation: Any) -> type | None:
    """Return the type that an annotation names, if it is one of an option's."""
    return _ANNOTATIONS.get(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
