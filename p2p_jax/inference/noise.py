"""Translations with other noise than the run's own, where a run keeps that of dropout."""

from typing import Any

import jax

from p2p_jax.inference.programs import Programs
from p2p_jax.inference.run import Run
from p2p_jax.inference.translator import Translator
from p2p_jax.objectives import make_network


def has_noise(run: Run) -> bool:
    """Return whether translations of a run depend on noise; False for networks from outside, where it is not known."""
    return bool(run.config.inference.dropout) and getattr(make_network(run.config.generator), "dropout_rate", 0.0) > 0


class NoisyTranslator(Translator):
    """A translator with noise from a seed that may change; another seed needs no new compilation.

    With the seed of the run's config it translates as ``Translator`` does.
    """

    def __init__(self, run: Run, **settings: Any):
        """Make a translator of an opened run; see ``Translator`` for the settings."""
        self._key: Any = None
        super().__init__(run, **settings)
        plain = self._programs

        def with_key(given: Any, images: jax.Array) -> jax.Array:
            weights, data = given
            self._key = jax.random.wrap_key_data(data)
            try:
                return plain.function(weights, images)
            finally:
                self._key = None

        self._programs = Programs(with_key, (plain.weights, jax.random.key_data(run.rng)), self._mesh)

    def seed(self, seed: int) -> None:
        """Draw the noise of the translations to come from a seed."""
        self._programs.weights = (self._programs.weights[0], jax.random.key_data(jax.random.key(seed)))

    def _translate(self, state: Any, images: Any) -> jax.Array:
        rng = self.run.rng if self._key is None else self._key
        return self.run.objective.translate(state, {self._given: images}, rng)[self._fake]
