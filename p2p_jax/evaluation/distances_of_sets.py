"""KID and FID of an evaluation: the same values as during training, with the same features and formulas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.distances import Collected, Reals
from p2p_jax.errors import InputError
from p2p_jax.evaluation.gathering import Sets

_COPIED = ("kid", "fid")


class SetDistances:
    """Features of outputs, targets and inputs; only these are kept, and a part stores them as files."""

    def __init__(self, sets: Sets, folder: Path):
        self._folder, self._features = folder, sets.judge.features
        self._collected = {kind: Collected(self._features) for kind in ("outputs", "targets", "inputs")}

    def output(self, place: int, image: np.ndarray) -> None:
        """Compute its features."""
        self._collected["outputs"].add(place, image)

    def target(self, place: int, image: np.ndarray) -> None:
        """Compute its features."""
        self._collected["targets"].add(place, image)

    def input(self, place: int, image: np.ndarray) -> None:
        """Compute its features: those of a run that only copies its input."""
        self._collected["inputs"].add(place, image)

    def kept(self) -> dict[str, Any]:
        """Return nothing: the features are in files."""
        for kind, collected in self._collected.items():
            places, found = collected.in_order()
            if len(places):
                self._folder.mkdir(parents=True, exist_ok=True)
                for name, array in (("places", places), ("features", found)):
                    np.save(self._folder / f"{kind}_{places[0]}_{name}.npy", array)
        return {}

    def add(self, kept: Mapping[str, Any]) -> None:
        """Do nothing: the files exist already."""

    def result(self) -> dict[str, Any]:
        """Return the distances, with the numbers of images."""
        outputs, targets, inputs = (self._whole(kind) for kind in ("outputs", "targets", "inputs"))
        if min(len(outputs), len(targets)) < 2:
            raise InputError(
                "the metric distances needs at least 2 images of each kind, better thousands; there are "
                f"{len(outputs)} outputs and {len(targets)} real images"
            )
        reals = Reals(targets)
        found = dict(reals.distances(outputs))
        if len(inputs):
            copied = reals.distances(inputs)
            found |= {f"copy_{name}": copied[name] for name in _COPIED}
        return found | {"count_fake": len(outputs), "count_real": len(targets)}

    def _whole(self, kind: str) -> np.ndarray:
        """Return the features of all parts, or of all images seen here, in order."""
        parts = [found for found in (self._collected[kind].in_order(),) if len(found[0])]
        for path in self._folder.glob(f"{kind}_*_places.npy"):
            files = path, path.with_name(path.name.replace("places", "features"))
            try:
                parts.append(tuple(np.load(file, allow_pickle=False) for file in files))
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"{path.name} of a part is damaged ({error}): make the part again") from error
        if not parts:
            return np.zeros((0, 1))
        places, found = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return found[np.argsort(places, kind="stable")]
