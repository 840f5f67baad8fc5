"""What images are compared by: the distance of the objective's own terms, and terms from outside."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from p2p_jax.config import Option, resolve
from p2p_jax.errors import InputError
from p2p_jax.objectives import losses
from p2p_jax.objectives.unknown import Unknown

Distance = Callable[[jax.Array, jax.Array], jax.Array]
DISTANCES: dict[str, Distance] = {"l1": losses.l1, "l2": lambda x, y: jnp.square(x - y).mean()}
OPTIONS = (
    Option("distance", str, "l1", 'between images that should be equal: l1, l2 or "module:name", (x, y) -> scalar'),
    Option(
        "terms",
        None,
        None,
        'more losses, {"module:name": weight} or "module:name=weight, ...": (fake, real, batch) -> scalar',
    ),
    Option("perceptual", str, "", '"module:name" of features for a perceptual distance: images -> feature maps'),
    Option("lambda_perceptual", float, 0.0, "weight of that distance", "[0, inf)"),
)
"""Options of ``config.loss``."""


def find_distance(loss: ConfigDict, unknown: Unknown) -> Distance:
    """Return the distance of images [B, H, W, C] in [-1, 1] that ought to be equal, ``(x, y) -> scalar``.

    Values of `y` that are unknown do not count: l1 is the mean of the others, and for all other distances they are 0 in
    both images.

    Args:
      loss: with ``distance``.
      unknown: what is done with unknown pixels.

    Raises:
      InputError: there is none of that name.
    """
    if loss.distance == "l1":
        return unknown.l1
    distance = _resolve(loss.distance, "distance", "x, y", DISTANCES)
    return _of_known(lambda x, y: _scalar(distance(x, y), f"config.loss.distance={loss.distance}"), unknown)


def find_perceptual(loss: ConfigDict, unknown: Unknown) -> Distance | None:
    """Return the perceptual distance, see ``losses.perceptual``; None if its weight is 0.

    Raises:
      InputError: its features are not named, or cannot be found.
    """
    if loss.perceptual:
        distance = losses.perceptual(_resolve(loss.perceptual, "perceptual", "images"))
        return _of_known(distance, unknown) if loss.lambda_perceptual else None
    if loss.lambda_perceptual:
        raise InputError(
            "config.loss.lambda_perceptual needs features: set config.loss.perceptual to the 'module:name' of them"
        )
    return None


class OwnTerms:
    """The terms of ``config.loss.terms``.

    Args:
      loss: with ``terms``, "module:name=weight, ..."; a config may have a mapping in its place.
      unknown: what is done with unknown pixels: they are 0 in all images.

    Raises:
      InputError: it has another form, a function cannot be found, or two have the same name.
    """

    def __init__(self, loss: ConfigDict, unknown: Unknown):
        self._unknown = unknown
        self._terms: dict[str, tuple[float, Callable]] = {}
        for reference, weight in _read(loss.terms).items():
            name = reference.rpartition(":")[2]
            if name in self._terms:
                raise InputError(
                    f"config.loss.terms has two terms called {name}; give one of the functions another name"
                )
            self._terms[name] = (weight, _resolve(reference, "terms", "fake, real, batch"))

    def __bool__(self) -> bool:
        return bool(self._terms)

    def __call__(
        self, fake: jax.Array, real: jax.Array, batch: Mapping[str, jax.Array], suffix: str = ""
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the weighted sum of all terms, and each by its name for metrics: "gen/NAME", with `suffix` behind.

        Args:
          fake: [B, H, W, C] in [-1, 1].
          real: images of the same domain; in pairs the targets.
          batch: "real_a", the source of the fakes, and "real_b", which is `real`.
          suffix: of names in metrics.
        """
        fake, real = self._unknown.hide(fake, real), self._unknown.fill(real)
        batch = {name: self._unknown.fill(images) for name, images in batch.items()}
        found = {
            name: _scalar(term(fake, real, batch), f"config.loss.terms: {name}")
            for name, (_, term) in self._terms.items()
        }
        total = sum((weight * found[name] for name, (weight, _) in self._terms.items()), start=jnp.zeros(()))
        return total, {f"gen/{name}{suffix}": value for name, value in found.items()}


def beside(found: Mapping[str, jax.Array], each: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the metrics of an objective and those of its own terms together.

    Raises:
      InputError: one would hide the other.
    """
    if hidden := sorted({*found, "gen/total"} & each.keys()):
        raise InputError(
            f"config.loss.terms: the objective already has a metric {hidden[0]}; give the function another name"
        )
    return {**found, **each}


def _scalar(value: Any, told: str) -> Any:
    if value is None or jnp.shape(value) != ():
        raise InputError(f"{told} must return a scalar, not {None if value is None else jnp.shape(value)}")
    return value


def _read(terms: str | None) -> dict[str, float]:
    """Return weights by reference."""
    if not isinstance(terms, str | None):
        raise InputError(f"config.loss.terms is {terms!r}; it must map 'module:name' to weights, or be text")
    parts = [part.partition("=") for part in (terms or "").split(",") if part.strip()]
    pairs = [(reference.strip(), weight) for reference, _, weight in parts]
    found: dict[str, float] = {}
    for reference, weight in pairs:
        if reference in found:
            raise InputError(f"config.loss.terms names {reference} twice")
        try:
            found[reference] = float(weight)
        except ValueError:
            raise InputError(
                f"config.loss.terms: the weight of {reference} is {weight!r}; write module:name=10, with a number"
            ) from None
        if not math.isfinite(found[reference]):
            raise InputError(f"config.loss.terms: the weight of {reference} is {weight!r}, not a finite number")
    return found


def _resolve(name: str, option: str, takes: str, known: Mapping[str, Callable] = {}) -> Callable:
    """Return one of ours, or the function that "module:name" names, which must be one of such arguments."""
    if name in known:
        return known[name]
    if ":" not in name:
        ours = f"one of {', '.join(known)} or " if known else ""
        raise InputError(f"config.loss.{option} has {name!r}; choose {ours}'module:name' of a function")
    found = resolve(name, f"config.loss.{option}")
    if not callable(found):
        raise InputError(f"config.loss.{option}={name} is a {type(found).__name__}, not a function")
    try:
        inspect.signature(found).bind(*takes.split(", "))
    except TypeError as error:
        raise InputError(f"config.loss.{option}: {name} must take ({takes}), but {error}") from None
    except ValueError:  # some functions written in C have no signature
        pass
    return found


def _of_known(distance: Distance, unknown: Unknown) -> Distance:
    return lambda x, y: distance(unknown.hide(x, y), unknown.fill(y))
