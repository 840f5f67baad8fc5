"""KID and FID in validation: how far what a run makes of the validation images is from the real ones.

Nothing of it touches the training: it reads the state and draws no random numbers. Pictures are looked at as
``Domain.picture`` shows them, and are gone when their features are known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape, is_unpaired
from p2p_jax.data import Data
from p2p_jax.distances import NAMES, Collected, Features, Named, Reals, find_features
from p2p_jax.errors import InputError
from p2p_jax.images.domains import Domain, of_config
from p2p_jax.images.shown import has_colours
from p2p_jax.objectives import Objective, averaging
from p2p_jax.reporting import say
from p2p_jax.training import parallel

PyTree = Any
FEWEST = 2
_PER_DEVICE = 8  # as evaluation afterwards has them: a program for another number may round otherwise
_COPIED = ("kid", "fid")


class _Way(NamedTuple):
    """A direction of translation.

    Attributes:
      given: the name in a batch of what is translated.
      wanted: the name of what it is translated into.
      fake: its name among translations.
      ending: of its figures: "" if it is the only direction.
      domains: of what is given, and of what it is translated into.
      counts: how many there are of either.
    """

    given: str
    wanted: str
    fake: str
    ending: str
    domains: tuple[Domain, Domain]
    counts: tuple[int, int]


class Distances:
    """The distances of a run.

    Args:
      config: complete, with the facts of the images.
      objective: what is trained.
      shapes: of its state.
      data: the data set.
      features: of ``config.distances.features``, see ``open_features``.

    Attributes:
      names: of all figures, in their order.
      every: steps between them.
      counted: how many images there are, in words.

    Raises:
      InputError: there are not enough validation images, or what objective and features give cannot be compared.
    """

    def __init__(self, config: ConfigDict, objective: Objective, shapes: PyTree, data: Data, features: Features):
        if data.num_val < FEWEST or min(data.val_counts or (FEWEST,)) < FEWEST:
            raise InputError(
                f"config.distances.features={features.name} needs at least {FEWEST} validation images, better "
                f"thousands, but there are {_counted(data)}: see config.data.val_split and config.data.val_fraction"
            )
        self.every = config.distances.every or config.eval_every
        self._data, self._features, self._rng = data, features, jax.random.key(config.seed)
        self._ways = _ways(config, objective, shapes, data)
        source = config.data.source
        self._paired = len(self._ways) == 1 if source == "given" else not is_unpaired(source)
        self._has_average = averaging.asks(config)  # an objective may keep something else under that name
        self._reals: dict[str, Reals] = {}
        self._copies: dict[str, float] = {}

        def translate(state, batch, rng):
            fakes = objective.translate(state, batch, rng)
            return {}, {way.fake: fakes[way.fake] for way in self._ways}

        self._translate = parallel.Evaluation(translate, _PER_DEVICE)
        self.names = list(_named({way.ending: dict.fromkeys(NAMES, 0.0) for way in self._ways}))
        if self._has_average:
            self.names += [f"raw_{name}" for name in self.names if not name.startswith("kid_std")]
        if copied := {way.ending: dict.fromkeys(_COPIED, 0.0) for way in self._ways if has_colours(way.domains[0])}:
            self.names += [f"copy_{name}" for name in _named(copied)]
        self.counted = f"{_counted(data)} images, features {features.name}"

    def look(self) -> None:
        """Find the features of the real images, which are kept, and how far the inputs themselves are from these.

        Raises:
          InputError: a feature is not finite, or the function of features gives something else.
        """
        say(f"distances: features of {_counted(self._data)} real validation images by {self._features.name} ...")
        kinds = "real images", "inputs"
        found = {(way.fake, kind): Collected(self._features) for way in self._ways for kind in kinds}
        for places, batch in self._batches():
            for way in self._ways:
                given, wanted = batch[way.given], batch[way.wanted]
                lightness = given if way.domains[0].kind == "lab_l" and self._paired else None
                _collect(
                    found[way.fake, "real images"], places, way.domains[1].picture(wanted, lightness), way.counts[1]
                )
                if has_colours(way.domains[0]):
                    _collect(found[way.fake, "inputs"], places, way.domains[0].picture(given), way.counts[0])
        gathered = {key: _gathered(one, self._features) for key, one in found.items()}
        for (_, kind), rows in gathered.items():
            if not np.isfinite(rows).all():
                raise InputError(
                    f"config.distances.features={self._features.name} gives NaN or infinite numbers for {kind} of "
                    "validation"
                )
        self._reals = {way.fake: Reals(gathered[way.fake, "real images"]) for way in self._ways}
        copied = {
            way.ending: self._reals[way.fake].distances(gathered[way.fake, "inputs"])
            for way in self._ways
            if has_colours(way.domains[0])
        }
        self._copies = {f"copy_{name}": value for name, value in _named(_only(copied, _COPIED)).items()}

    def __call__(self, state: PyTree) -> dict[str, float]:
        """Return ``names`` -> figures of all validation images of all processes.

        Where the state has averages of the generators, the figures are those of these, and those of the raw ones have
        "raw_" in front.
        """
        states = {"": state}
        if self._has_average:
            states["raw_"] = averaging.trained_alone(state)
        found = {(kind, way.fake): Collected(self._features) for kind in states for way in self._ways}
        for places, batch in self._batches():
            for kind, one in states.items():
                _, fakes = self._translate(one, batch, self._rng)
                for way in self._ways:
                    lightness = batch[way.given] if way.domains[0].kind == "lab_l" else None
                    pictures = way.domains[1].picture(_known(fakes[way.fake], batch[way.given]), lightness)
                    _collect(found[kind, way.fake], places, pictures, way.counts[0])
        gathered = {key: _gathered(one, self._features) for key, one in found.items()}
        figures: dict[str, float] = {}
        if jax.process_index() == 0:  # others might round differently, and not agree on the best
            for kind in states:
                told = {way.ending: self._reals[way.fake].distances(gathered[kind, way.fake]) for way in self._ways}
                figures |= {f"{kind}{name}": value for name, value in _named(told).items()}
            figures |= self._copies
        values = parallel.sum_over_processes(np.array([figures.get(name, 0.0) for name in self.names]))
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def _batches(self):
        """Yield this process's batches of validation, with the places of their images in the set."""
        first = 0
        for batch in self._data.validation(self._translate.part):
            count = len(batch["real_a"])
            yield [jax.process_index() + i * jax.process_count() for i in range(first, first + count)], batch
            first += count


def open_features(config: ConfigDict) -> Features:
    """Return the features that a config names, tried on black pictures.

    Raises:
      InputError: they cannot be had, or are not features.
    """
    section = config.distances
    named = Named("config.distances.features", "config.distances.weights")
    features = find_features(section.features, section.weights or None, named)
    features.try_on(*crop_shape(config.data))
    return features


def require_same_features(facts: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """Return what is to be stored of features, if a run may go on with them.

    Args:
      facts: of the run, so far.
      features: of now.

    Raises:
      InputError: they have other weights, so figures would not compare.
    """
    before, now = facts.get("distances", {}).get("weights", ""), features.digest
    if before and before != now:
        raise InputError(
            f"config.distances.features={features.name}: the weights have changed (SHA-256 {now}, before "
            f"{before}), so figures of this run would not compare: restore them, or give a new `workdir`"
        )
    return {"weights": now} if now else {}


def _ways(config: ConfigDict, objective: Objective, shapes: PyTree, data: Data) -> list[_Way]:
    a, b = of_config(config.data)
    batch = {
        name: jax.ShapeDtypeStruct((1, *crop_shape(config.data), domain.channels), np.float32)
        for name, domain in (("real_a", a), ("real_b", b))
    }
    fakes = jax.eval_shape(objective.translate, shapes, batch, jax.random.key(0))
    counts = data.val_counts or (data.num_val, data.num_val)
    ways = [_Way("real_a", "real_b", "fake_b", "_b", (a, b), (counts[0], counts[1]))]
    if "fake_a" in fakes:
        ways.append(_Way("real_b", "real_a", "fake_a", "_a", (b, a), (counts[1], counts[0])))
    for way in ways:
        if way.fake not in fakes or fakes[way.fake].shape[-1] != way.domains[1].channels:
            raise InputError(
                f"config.distances.features needs translations of {way.domains[1].channels} channels, {way.fake}; the "
                f"objective gives {', '.join(f'{name} {list(x.shape)}' for name, x in fakes.items())}"
            )
    return ways if len(ways) > 1 else [ways[0]._replace(ending="")]


def _named(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return figures by name, of two directions also their means."""
    each = {f"{name}{ending}": value for ending, figures in found.items() for name, value in figures.items()}
    if len(found) < 2:
        return each
    names = next(iter(found.values()))
    return {name: float(np.mean([figures[name] for figures in found.values()])) for name in names} | each


def _only(found: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    return {ending: {name: figures[name] for name in names} for ending, figures in found.items()}


def _collect(collected: Collected, places: Sequence[int], pictures: np.ndarray, count: int) -> None:
    """Take pictures; those of a shorter side, which repeats next to a longer one, once."""
    for place, picture in zip(places, pictures, strict=True):
        if place < count:
            collected.add(place, picture)


def _known(fakes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return fakes that are unknown where nothing is known of what they were made of, as translations are."""
    lost = np.isnan(given).any(-1, keepdims=True)
    return np.where(lost, np.nan, fakes) if lost.any() else fakes


def _gathered(collected: Collected, features: Features) -> np.ndarray:
    """Return the features of all processes, in the order of the set; all must call it at the same place."""
    _, own = collected.in_order()
    if jax.process_count() == 1:
        return own
    counts = np.asarray(multihost_utils.process_allgather(np.array(len(own), np.int32)))
    filled = np.zeros((counts.max(), features.width), features.dtype)
    filled[: len(own)] = own
    parts = multihost_utils.process_allgather(filled.view(np.uint32))  # as they are: JAX would round to float32
    parts = np.asarray(parts).view(features.dtype).swapaxes(0, 1)  # processes take turns, see Data.validation
    return parts[np.arange(len(parts))[:, None] < counts]


def _counted(data: Data) -> str:
    """Say how many validation images there are."""
    a, b = data.val_counts or (data.num_val, data.num_val)
    return f"{a:,}" if a == b else f"{a:,} and {b:,}"
