"""A run's directory, or its model file, opened to be used: config, objective, and as much of the state as is needed."""

import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
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
from p2p_jax.objectives import Objective, averaging, make_network, make_objective, statistics
from p2p_jax.training import digests, model_file, own_code
from p2p_jax.training.checkpoint import CONVERTED, find_step, read_config, read_facts, read_filled_in, restore_part
from p2p_jax.training.model_file import ModelFile

PyTree = Any
_ENOUGH = 4  # images of a batch, for running statistics that do for single images


class Run(NamedTuple):
    """A trained run.

    Attributes:
      workdir: its directory, or the model file.
      config: its config, with the switches in force under ``inference``.
      objective: what was trained.
      step: the step of the checkpoint that is used.
      raw: take the weights as they were trained, where the run has an average of them.
      file: the model file, where it was opened from one; it holds no more than ``p2p_jax.interop.pack`` put into it.
    """

    workdir: Path
    config: ConfigDict
    objective: Objective
    step: int
    raw: bool = False
    file: ModelFile | None = None

    @property
    def name(self) -> str:
        """What the run is called: its directory, or the file without its ending."""
        return self.workdir.stem if self.file else self.workdir.resolve().name

    @property
    def config_file(self) -> Path:
        """The file of its config."""
        return self.workdir if self.file else self.workdir / "config.json"

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the images that it was trained on, as ``facts.json`` has it."""
        return self.file.facts if self.file else read_facts(self.workdir)

    @property
    def weights(self) -> str:
        """Which weights are used: "average" of the run's steps (``config.ema``), or "raw", those of the step itself."""
        if self.file:
            return self.file.weights
        return "average" if averaging.asks(self.config) and not self.raw else "raw"

    def holds(self, direction: str) -> bool:
        """Return whether the weights of a direction, "AtoB" or "BtoA", are here, if the run was trained for it."""
        return self.file is None or direction in self.file.directions

    def stored_config(self, trust: Trust = ()) -> ConfigDict | None:
        """Return its config as it is stored, without the switches that were given when it was opened."""
        if self.file:
            return model_file.config_of(self.file.about, self.workdir, trust)
        return read_config(self.workdir, trust)

    @property
    def rng(self) -> jax.Array:
        """The random key of the run's own validation and sample grids."""
        return jax.random.key(self.config.seed)

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch of one example."""
        shapes = image_shapes(self.config.data)
        return {name: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for name, shape in shapes.items()}

    @property
    def shapes(self) -> PyTree:
        """The shapes of the state as it is stored, found by tracing; of a model file with one set of weights."""
        shapes = jax.eval_shape(self.objective.init, self.rng, self.batch)
        if self.file is None or not averaging.asks(self.config):
            return shapes
        return averaging.in_use(shapes) if self.weights == "average" else averaging.trained_alone(shapes)

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
        shapes = self.shapes
        leaves, structure = jax.tree.flatten(shapes)
        read = set(self.read_by(function, batch, shapes))
        places = [i for i, name in enumerate(named(shapes)) if name in read]

        def rebuild(kept):
            values = [jnp.zeros(x.shape, x.dtype) for x in leaves]
            for place, value in zip(places, kept, strict=True):
                values[place] = value
            return self._of_state(jax.tree.unflatten(structure, values))

        return list(self.values(read, shapes).values()), rebuild

    def read_by(self, function: Callable[..., Any], batch: Any = None, shapes: PyTree = None) -> list[str]:
        """Return the names of the leaves that a function reads, as ``values`` takes them; see ``restore``."""
        shapes = self.shapes if shapes is None else shapes
        leaves, structure = jax.tree.flatten(shapes)
        batch = self.batch if batch is None else batch

        def read_of(state, batch, rng):
            return function(self._of_state(state), batch, rng)

        traced = jax.make_jaxpr(read_of)(jax.tree.unflatten(structure, leaves), batch, self.rng).jaxpr
        read = {id(x) for equation in traced.eqns for x in equation.invars} | {id(x) for x in traced.outvars}
        return [name for name, x in zip(named(shapes), traced.invars, strict=False) if id(x) in read]

    def values(self, names: Collection[str], shapes: PyTree = None) -> dict[str, jax.Array]:
        """Return leaves of the state by their names, ``params/generator/LAYER/LEAF``, in the order of the state.

        Raises:
          InputError: they cannot be read, or the model file does not hold them.
        """
        shapes = self.shapes if shapes is None else shapes
        known = named(shapes)
        if self.file is not None:
            return self._of_file(self.file, {name: leaf for name, leaf in known.items() if name in names})
        leaves, structure = jax.tree.flatten(shapes)
        template = [leaf if name in names else ocp.PLACEHOLDER for name, leaf in zip(known, leaves, strict=True)]
        state = jax.tree.leaves(restore_part(self.workdir, self.step, jax.tree.unflatten(structure, template)))
        return {name: leaf for name, leaf in zip(known, state, strict=True) if name in names}

    def _of_file(self, file: ModelFile, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        if absent := [name for name in wanted if name not in file.arrays]:
            raise InputError(
                f"{file.path} does not hold {absent[0]}{f' and {len(absent) - 1:,} more' if absent[1:] else ''}, which "
                f"is needed for that: it holds only the weights that translate {' and '.join(file.directions)}"
            )
        device = jax.local_devices()[0]
        return {name: jax.device_put(file.arrays[name].astype(leaf.dtype), device) for name, leaf in wanted.items()}

    def _of_state(self, state: PyTree) -> PyTree:
        return averaging.trained_alone(state) if averaging.asks(self.config) and self.raw else state


def name_of(path: tuple) -> str:
    """Return the name of a leaf of a state, such as "params/generator/down_1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named(state: PyTree) -> dict[str, Any]:
    """Return the leaves of a state by their names."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def open_run(
    workdir: str | Path,
    checkpoint: str | int = "latest",
    norm: str | None = None,
    dropout: bool | None = None,
    objective: Objective | None = None,
    trust: Trust = (),
    raw: bool = False,
) -> Run:
    """Open a run's directory, or a model file of it; see ``Translator.from_workdir`` for the arguments.

    Raises:
      InputError: no such run or checkpoint, a setting that does not fit, or code in its config that is not trusted.
    """
    workdir = expanded(workdir)
    if workdir.is_file():
        return _open_file(workdir, checkpoint, norm, dropout, objective, trust, raw=raw)
    config = read_filled_in(workdir, trust)
    if config is None:
        raise InputError(f"workdir={workdir} does not hold a trained run: it has no checkpoint")
    config = _with_switches(config, norm, dropout)
    if config.inference.norm == "running" and lacks_statistics(workdir):
        raise InputError(f"{workdir} was converted from a release without running statistics: leave norm=running out")
    step = find_step(workdir, config, checkpoint)
    if objective:
        own_code.compare(workdir)
    return Run(workdir, config, make_objective(config, objective), step, raw)


def _with_switches(config: ConfigDict, norm: str | None, dropout: bool | None) -> ConfigDict:
    """Return a config with the switches of inference that are given, and "auto" as what it means."""
    given = {"norm": norm, "dropout": dropout}
    inference = config.inference.to_dict() | {k: v for k, v in given.items() if v is not None}
    config = complete(config.to_dict() | {"inference": inference})
    return complete(config.to_dict() | {"inference": inference | {"norm": statistics(config)}})


def _open_file(
    path: Path,
    checkpoint: str | int,
    norm: str | None,
    dropout: bool | None,
    objective: Objective | None,
    trust: Trust,
    *,
    raw: bool,
) -> Run:
    """Open a model file.

    Raises:
      InputError: see ``open_run``; or the arrays are not those of its config.
    """
    model_file.require_form(path)
    about, shapes = model_file.read_about(path), model_file.read_shapes(path)
    config = _with_switches(model_file.config_of(about, path, trust), norm, dropout)
    if str(checkpoint) not in ("latest", "best", str(about["model"]["step"])):
        raise InputError(f"checkpoint={checkpoint}: {path} holds only the weights of step {about['model']['step']}")
    if raw and about["model"]["weights"] == "average":
        raise InputError(
            f"{path} holds only the average of the weights: leave `raw` out, or pack the run again with it"
        )
    head = ModelFile(path, {}, about, "")
    try:
        made = make_objective(config, objective)
        run = Run(path, config, made, head.step, raw, head)
        expected = named(run.shapes)
    except Exception as error:  # of any kind, where numbers of a stranger's config make no network
        told = str(error).strip().partition("\n")[0][:200]
        raise InputError(f"the config in {path} does not describe a valid network: {told}") from error
    for name, shape in shapes.items():  # before any array is read
        if name not in expected:
            raise InputError(f"{path}: the array {name} does not belong to the network of its config")
        if shape != expected[name].shape:
            raise InputError(
                f"{path}: the array {name} has the shape {shape}; its config expects {expected[name].shape}"
            )
    return run._replace(file=model_file.read(path))


def lacks_statistics(workdir: Path) -> bool:
    """Return whether a run was converted from a release without running statistics: the run's own are made up.

    Raises:
      InputError: the file that says so cannot be read.
    """
    file = workdir / CONVERTED
    digests.require_recorded(file)
    try:
        return file.is_file() and not json.loads(file.read_bytes())["running_statistics"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}); convert the weights again") from error


def warn_of_tiles(config: ConfigDict) -> None:
    """Warn where a tile is normalised by its own statistics."""
    norm = getattr(make_network(config.generator), "norm", None)
    per_image = norm in ("instance", "instance_affine")
    if per_image or (norm in ("batch", "instance_tracked") and config.inference.norm == "batch"):
        way_out = "" if per_image else _way_out(config)
        warnings.warn(
            "each tile is normalised by its own statistics, not those of the whole image, so tones or values in units "
            f"may differ between tiles; larger tiles and more overlap reduce this{way_out}",
            stacklevel=4,
        )


def _way_out(config: ConfigDict) -> str:
    """Return how a run with batch norm avoids statistics of tiles: running ones, which need batches in training."""
    if config.batch_size >= _ENOUGH:
        return ", and norm=running avoids it"
    return (
        f". norm=running avoids it, but this run was trained with batches of {config.batch_size}, so its running "
        f"statistics may give much worse images; training with config.batch_size={_ENOUGH} or more is the fix"
    )
