"""The code that a stored config may name: a run's directory is data, and may come from a stranger.

A config that you write may name any code, "module:name". A config that is in a run's directory
names only code of the library, unless the caller trusts the rest by name. The checks only read:
nothing is imported, made or called.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from p2p_jax.config.completing import as_dict
from p2p_jax.config.options import FREE_SECTIONS, OPTIONS, SEGMENTER
from p2p_jax.config.readers import READERS
from p2p_jax.config.reference import is_reference
from p2p_jax.errors import InputError
from p2p_jax.images import palettes
from p2p_jax.reporting import say

Trust = str | Collection[str]
"""What a caller trusts: "module:name", or several of them."""


def _of(modules: Mapping[str, str]) -> frozenset[str]:
    return frozenset(f"{module}:{name}" for module, names in modules.items() for name in names.split())


_NETWORKS = _of(
    {
        "p2p_jax.nets": (
            "EncoderDecoder MobileResNet MultiScalePatchGAN PatchGAN ResNet ResNet6 ResNet9 UNet UNet128 UNet256 "
            "UNetDiscriminator UNetViT"
        ),
        "p2p_jax.nets.mobile_resnet": "MobileResNet",
        "p2p_jax.nets.multiscale": "MultiScalePatchGAN",
        "p2p_jax.nets.patchgan": "PatchGAN",
        "p2p_jax.nets.resnet": "ResNet ResNet6 ResNet9",
        "p2p_jax.nets.unet": "EncoderDecoder UNet UNet128 UNet256",
        "p2p_jax.nets.unet_discriminator": "UNetDiscriminator",
        "p2p_jax.nets.unet_vit": "UNetViT",
    }
)
_OPTIMIZERS = (
    "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lbfgs lion nadam "
    "nadamw noisy_sgd novograd optimistic_adam optimistic_adam_v2 optimistic_gradient_descent radam rmsprop rprop sgd "
    "sign_sgd signum sm3 yogi"
)
_CONTRIBUTED = "acprop ademamix adopt cocob dadapt_adamw dog dowg madgrad momo momo_adam muon prodigy sophia"
_AVERAGING = "schedule_free_adamw schedule_free_sgd simplified_ademamix"
_OPTAX = _of({"optax": _OPTIMIZERS, "optax.contrib": f"{_CONTRIBUTED} {_AVERAGING}"})
LIBRARY: dict[str, frozenset[str]] = {
    "objective": _of(
        {
            "p2p_jax": "cut cyclegan pix2pix",
            "p2p_jax.objectives": "cut cyclegan pix2pix",
            "p2p_jax.objectives.cut": "cut",
            "p2p_jax.objectives.cyclegan": "cyclegan",
            "p2p_jax.objectives.pix2pix": "pix2pix",
        }
    ),
    "data.source": frozenset(),
    "metrics": frozenset(),
    "loggers": frozenset(),
    "distances.features": frozenset(),
    "task.input": _of({"p2p_jax.images.tasks": "canny_edges centre_hole gaussian_noise hed_edges low_resolution"}),
    "generator.network": _NETWORKS,
    "discriminator.network": _NETWORKS,
    "loss.gan": frozenset(),
    "optimizer.factory": _OPTAX,
    "discriminator_optimizer.factory": _OPTAX,
    "gradients.clip": _of({"optax": "adaptive_grad_clip clip clip_by_block_rms clip_by_global_norm"}),
}
"""The options that name code, and the names allowed in a stored config; some of ours are bare names."""
_SECTIONS = sorted({section for option in OPTIONS if (section := option.name.rpartition(".")[0])})
_ANY = frozenset().union(*LIBRARY.values())  # elsewhere in the free sections
_PLACES = ("data.dir", "data.dir_a", "data.dir_b", "task.weights", "distances.weights", "distances.features")
_DEEPEST, _SHOWN = 20, 8
_BETWEEN = re.compile(r"[\s,;|=]+")


def references(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the code that a config names, by the option; nothing is looked up.

    In the free sections every text of the form "module:name" counts: their readers may look up
    what they like.

    Args:
      config: complete or not.

    Raises:
      InputError: an option that names code is not text; names it.
    """
    config = as_dict(config)
    found = {key: names for key in LIBRARY if (names := _named(config, key))}
    for section in FREE_SECTIONS:
        for key, text in _texts(config.get(section), section):
            names = [part for part in _BETWEEN.split(text) if is_reference(part)]
            if names and key not in found:
                found[key] = names
    return found


def all_references(config: Mapping[str, Any]) -> frozenset[str]:
    """Return all code that a config names."""
    return _names_in(references(config))


def _names_in(found: Mapping[str, list[str]]) -> frozenset[str]:
    return frozenset(name for names in found.values() for name in names)


def outside(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the code outside the library that a config names, by option; see ``references``."""
    found = {
        key: [name for name in names if name not in LIBRARY.get(key, _ANY)] for key, names in references(config).items()
    }
    return {key: names for key, names in found.items() if names}


def trusted(trust: Trust) -> frozenset[str]:
    """Return the names that a caller trusts, checked.

    Raises:
      InputError: it has another form.
    """
    names = frozenset([trust] if isinstance(trust, str) else trust)
    for name in sorted(names, key=str):
        if not isinstance(name, str) or not is_reference(name):
            raise InputError(f"trust={name}: write it as configs do, module:name")
    return names


def require_trust(
    config: Any, file: Path, trust: Trust | None = (), used: Collection[str] | None = None
) -> dict[str, list[str]]:
    """Refuse a stored config that names untrusted code outside the library.

    Args:
      config: as it was read from the file: anything that JSON holds.
      file: its file, for messages.
      trust: what the caller trusts; None: the config is compared with another one, and nothing in it is used.
      used: the sections that are used; code that others name is reported, not executed. None: all.

    Returns:
      The trusted code outside the library that it names, by option.

    Raises:
      InputError: it is not a config, or names such code; gives the file, options, names, and how to allow them.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"{file} is not a config: it must be an object of options, {{...}}")
    for key in (*FREE_SECTIONS, *_SECTIONS):
        section = _value(config, key)
        if section is not None and not isinstance(section, Mapping):
            raise InputError(f"{file}: config.{key} is {section!r}; it must be a section with options")
    try:
        found = outside(config)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if unused := {} if used is None else {key: x for key, x in found.items() if key.split(".")[0] not in used}:
        told = ", ".join(f"config.{key} names {name}" for key, names in unused.items() for name in names[:_SHOWN])
        say(f"note: {file}: {told}, which is not needed here; it was not executed")
        found = {key: names for key, names in found.items() if key not in unused}
    allowed = _names_in(found) if trust is None else trusted(trust)
    refused = {key: [name for name in names if name not in allowed] for key, names in found.items()}
    for key, names in refused.items():
        if strange := next((name for name in names if not is_reference(name)), None):
            raise InputError(f"{file}: config.{key} is {strange!r}; it must have the form 'package.module:name'")
    wrong = [(key, name) for key, names in refused.items() for name in names]
    if wrong:
        more = f" and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        raise InputError(
            f"{file}: {', '.join(f'config.{key} names {name}' for key, name in wrong[:_SHOWN])}{more}: code outside "
            "the library, which opening the run would execute. Nothing was executed. If you know and trust it, add "
            f"trust={json.dumps(list(dict.fromkeys(name for _, name in wrong[:_SHOWN])), ensure_ascii=False)}"
        )
    _require_no_palette_files(config, file)
    return found


def require_plain_facts(facts: Any, file: Path) -> dict[str, Any]:
    """Return the facts that a run has stored of its images, with their form checked.

    Raises:
      InputError: they have another form; names the file.
    """
    sections = ("input", "output", "inference", "schedule", "distances", "images", "computed_on")
    if not isinstance(facts, Mapping) or any(not isinstance(facts.get(name, {}), Mapping) for name in sections):
        raise InputError(f"{file} does not hold the facts of a run: it must be an object with sections, {{...}}")
    if facts.get("source", "given") != "given":
        raise InputError(f"{file}: source is {facts['source']!r}; the only source in facts is 'given'")
    splits = facts.get("images", {}).values()
    if not all(isinstance(x, Mapping) and isinstance(x.get("contents"), str) for x in splits) or not all(
        type(count) is int for count in (facts.get("num_train", 0), *(x.get("count") for x in splits))
    ):
        raise InputError(f"{file}: num_train and images do not describe the training images")
    _require_no_palette_files({"data": facts}, file)
    return dict(facts)


def _require_no_palette_files(config: Mapping[str, Any], file: Path) -> None:
    """Refuse palettes that are files: those that are stored hold their colours."""
    for key in ("data.input.palette", "data.output.palette"):
        value = _value(config, key)
        if isinstance(value, str) and not palettes.is_self_contained(value):
            raise InputError(
                f"{file}: config.{key} is {value!r}; a stored palette must list its colours, not name a file"
            )


def tell_places(config: Mapping[str, Any], file: Path, *sections: str) -> None:
    """Print the paths that are read because a stored config names them.

    Args:
      config: complete.
      file: its file.
      *sections: of the config that are used, such as "data".
    """
    named = {key: _value(as_dict(config), key) for key in _PLACES if key.partition(".")[0] in sections}
    named["distances.features"] = _folder_of_segmenter(named.get("distances.features"))
    told = [f"{place} (config.{key})" for key, place in named.items() if isinstance(place, str) and place]
    if told:
        say(f"reading what {file} names: {', '.join(told)}")


def _folder_of_segmenter(features: Any) -> str:
    return features.removeprefix(SEGMENTER) if isinstance(features, str) and features.startswith(SEGMENTER) else ""


def stays_inside(place: str) -> bool:
    """Return whether a path in a config is inside the folder that it is relative to."""
    path = PurePosixPath(place.replace("\\", "/"))
    return not (path.is_absolute() or ".." in path.parts or place.startswith("~") or PureWindowsPath(place).drive)


def _value(config: Mapping[str, Any], key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _named(config: Mapping[str, Any], key: str) -> list[str]:
    """Return the code that an option names which is made for that."""
    value = _value(config, key)
    if value is None or value == "":
        return []
    if not isinstance(value, str):
        raise InputError(f"config.{key} is {value!r}; it must be text, 'package.module:name'")
    if key == "distances.features" and value.startswith(SEGMENTER):
        return []  # a folder
    names = [part.strip() for part in value.split(",")] if key in ("metrics", "loggers") else [value]
    section, _, naming = key.partition(".")
    always = key == "objective" or READERS.get(section) == naming
    return [name for name in names if always or ":" in name]


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield all text in a section with the name of its option, in lists, nested sections and the names of these too."""
    left = [(key, value, 0)]
    while left:
        key, value, depth = left.pop()
        if depth > _DEEPEST:
            raise InputError(f"config.{key} is nested deeper than {_DEEPEST} sections")
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, Mapping):
            yield from ((key, name) for name in value if isinstance(name, str))
            left += [(f"{key}.{name}", part, depth + 1) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            left += [(f"{key}[{number}]", part, depth + 1) for number, part in enumerate(value)]
