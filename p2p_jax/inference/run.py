"""A run's directory, opened to be used: its config, its objective, and as much of its state as is needed."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from p2p_jax.config import complete
from p2p_jax.config.options import image_shapes
from p2p_jax.config.paths import expanded
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.objectives import Objective, averaged, averaging, make_network, make_objective, statistics
from p2p_jax.training import digests, own_code
from p2p_jax.training.checkpoint import CONVERTED, find_step, read_filled_in, restore_part

PyTree = Any


class Run(NamedTuple):
    """A trained run.

    Attributes:
      workdir: its directory.
      config: its config, with the switches in force under ``inference``.
      objective: what was trained.
      step: the step of the checkpoint that is used.
      raw: take the weights as they were trained, where the run has an average of them.
    """

    workdir: Path
    config: ConfigDict
    objective: Objective
    step: int
    raw: bool = False

    @property
    def weights(self) -> str:
        """Which weights are used: "average" of the run's steps (``config.ema``), or "raw", those of the step itself."""
        return "average" if averaging.asks(self.config) and not self.raw else "raw"

    @property
    def rng(self) -> jax.Array:
        """The key with which the run's own validation and sample grids were made."""
        return jax.random.key(self.config.seed)

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch of one example."""
        shapes = image_shapes(self.config.data)
        return {name: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for name, shape in shapes.items()}

    @property
    def shapes(self) -> PyTree:
        """The shapes of the state as it is stored, found by tracing."""
        return jax.eval_shape(self.objective.init, self.rng, self.batch)

    def restore(
        self, function: Callable[..., Any], batch: Any = None
    ) -> tuple[list[jax.Array], Callable[[Sequence[jax.Array]], PyTree]]:
        """Restore what a function of the objective reads of the state, and no more.

        Optimizers and discriminators, most of a checkpoint, so stay on the disk.

        Args:
          function: ``(state, batch, rng) -> anything``.
          batch: shapes of its batch; ``self.batch`` by default.

        Returns:
          The leaves, and a function that makes a state of them. Its other leaves are zeros; it has no average where the
          weights are wanted as they were trained.
        """
        leaves, structure = jax.tree.flatten(self.shapes)
        batch = self.batch if batch is None else batch
        of_state = averaging.trained_alone if averaging.asks(self.config) and self.raw else lambda state: state

        def read_of(state, batch, rng):
            return function(of_state(state), batch, rng)

        traced = jax.make_jaxpr(read_of)(jax.tree.unflatten(structure, leaves), batch, self.rng).jaxpr
        read = {id(x) for equation in traced.eqns for x in equation.invars} | {id(x) for x in traced.outvars}
        places = [i for i, x in enumerate(traced.invars[: len(leaves)]) if id(x) in read]
        template = [leaf if i in places else ocp.PLACEHOLDER for i, leaf in enumerate(leaves)]
        state = jax.tree.leaves(restore_part(self.workdir, self.step, jax.tree.unflatten(structure, template)))

        def rebuild(kept):
            values = [jnp.zeros(x.shape, x.dtype) for x in leaves]
            for place, value in zip(places, kept, strict=True):
                values[place] = value
            return of_state(jax.tree.unflatten(structure, values))

        return [state[place] for place in places], rebuild


def open_run(
    workdir: str | Path,
    checkpoint: str | int = "latest",
    norm: str | None = None,
    dropout: bool | None = None,
    objective: Objective | None = None,
    trust: Trust = (),
    raw: bool = False,
) -> Run:
    """Open a run; see ``Translator.from_workdir`` for the arguments.

    Raises:
      InputError: no such run or checkpoint, a setting that does not fit, or code in its config that is not trusted.
    """
    workdir = expanded(workdir)
    config = read_filled_in(workdir, trust)
    if config is None:
        raise InputError(f"workdir={workdir} holds no trained run: there is no checkpoint in it")
    given = {"norm": norm, "dropout": dropout}
    inference = config.inference.to_dict() | {k: v for k, v in given.items() if v is not None}
    config = complete(config.to_dict() | {"inference": inference})
    config = complete(config.to_dict() | {"inference": inference | {"norm": statistics(config)}})
    if config.inference.norm == "running" and _lacks_statistics(workdir):
        raise InputError(
            f"{workdir} was converted from a release that keeps no running statistics: leave norm=running out"
        )
    step = find_step(workdir, config, checkpoint)
    if objective:
        own_code.compare(workdir)
    return Run(workdir, config, averaged(objective, config) if objective else make_objective(config), step, raw)


def _lacks_statistics(workdir: Path) -> bool:
    file = workdir / CONVERTED
    digests.require_recorded(file)
    try:
        return file.is_file() and not json.loads(file.read_bytes())["running_statistics"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}); convert the weights again") from error


def warn_of_tiles(config: ConfigDict) -> None:
    """Warn where a tile is normalised by statistics of its own."""
    norm = getattr(make_network(config.generator), "norm", None)
    per_image = norm in ("instance", "instance_affine")
    if per_image or (norm in ("batch", "instance_tracked") and config.inference.norm == "batch"):
        warnings.warn(
            "tiles are normalised by their own statistics, not by those of the whole image, so that tones may differ "
            "from one to the next; larger tiles and more overlap soften it"
            + ("" if per_image else ", and norm=running avoids it"),
            stacklevel=4,
        )
