"""Fine-tuning: a run that starts from another run's weights, as far as they fit (``config.init_from``)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from p2p_jax.config.stored import Trust, require_trust
from p2p_jax.errors import InputError
from p2p_jax.objectives import averaging
from p2p_jax.reporting import say
from p2p_jax.training import model_file
from p2p_jax.training.checkpoint import restore_part, saved_config, saved_shapes, saved_steps
from p2p_jax.training.model_file import ModelFile
from p2p_jax.training.network_differences import differences, misfit
from p2p_jax.training.soundness import require_sound

PyTree = Any
COLLECTIONS = ("params", "batch_stats")
"""The entries of a state that are taken."""
ORIGINS = {
    "generator": ("generator", "gen_ab"),
    "discriminator": ("discriminator", "disc_b"),
    "gen_ab": ("gen_ab", "generator"),
    "disc_b": ("disc_b", "discriminator"),
}
"""The players of a source that a player may take its weights from, the first one that is there: gen_ab maps A to B as
pix2pix's generator does."""
TURNED = {
    "generator": ("gen_ba", "generator"),
    "discriminator": ("disc_a", "discriminator"),
    "gen_ab": ("gen_ba",),
    "disc_b": ("disc_a",),
    "gen_ba": ("gen_ab", "generator"),
    "disc_a": ("disc_b", "discriminator"),
}
"""The same where ``config.data.direction`` of the two runs differs."""
_SHOWN = 6  # layers named before "and N more"


class Source(NamedTuple):
    """The checkpoint that a new run starts from; its weights are not read yet.

    Attributes:
      name: what ``config.init_from`` says.
      workdir: directory of its run, or the model file.
      step: its step.
      shapes: the structure of its state, see ``checkpoint.saved_shapes``.
      config: stored with it, see ``checkpoint.saved_config``.
      file: the model file, where it is one.
    """

    name: str
    workdir: Path
    step: int
    shapes: PyTree
    config: Mapping[str, Any]
    file: ModelFile | None = None


class _Player(NamedTuple):
    """What a player of the new state takes.

    Attributes:
      name: of the player.
      origin: the player of the source, None if it has none.
      wanted: number of parameters.
      taken: number of those that are taken.
      leaves: ``{name of a leaf of the new state: its name in the source}``, of what is taken.
      fresh: layers that are not taken, each with the reason.
      unused: layers of the source, or leaves of a layer that was taken, that have no place here.
    """

    name: str
    origin: str | None
    wanted: int
    taken: int
    leaves: dict[str, str]
    fresh: list[str]
    unused: list[str]


def find_source(init_from: str, workdir: Path, trust: Trust = ()) -> Source:
    """Find the checkpoint that a run is to start from, and read what it holds, not the weights.

    Args:
      init_from: directory of a run (its latest checkpoint is taken) or of one of its checkpoints; or a model file.
      workdir: directory of the new run.
      trust: code outside the library that its config may name.

    Raises:
      InputError: there is no such checkpoint, it is the new run's own, or its config names code that is not trusted.
    """
    path, step = Path(init_from), None
    if model_file.is_model_file(path):
        file = model_file.read(path)
        require_trust(file.about["config"], path, trust, used=("generator", "discriminator"))
        return Source(init_from, path, file.step, file.shapes(), file.about["config"], file)
    if path.is_file() or Path(f"{path}.index").is_file():
        raise InputError(
            f"config.init_from={init_from} is a file, not the directory of a run; "
            f"python -m p2p_jax convert --input {init_from} --workdir RUN makes a run of it"
        )
    if path.name == "checkpoints":
        path = path.parent
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        path, step = path.parent.parent, int(path.name)
    if not path.is_dir():
        raise InputError(f"config.init_from={init_from}: there is no directory {path}")
    if path.resolve() == workdir.resolve():
        raise InputError(f"config.init_from={init_from} is the `workdir` itself; give a new `workdir`")
    steps = saved_steps(path)
    if not steps:
        raise InputError(
            f"config.init_from={init_from} holds no checkpoint of a run; for weights of another program, "
            f"python -m p2p_jax convert --input {init_from} --workdir RUN makes one"
        )
    if step is not None and step not in steps:
        raise InputError(f"config.init_from={init_from}: {path} has only the checkpoints {steps}")
    step = steps[-1] if step is None else step
    require_sound(path, step, lambda other: f"config.init_from={path / 'checkpoints' / str(other)}")
    return Source(init_from, path, step, saved_shapes(path, step), saved_config(path, step, trust))


def take_weights(source: Source, state: PyTree, config: ConfigDict) -> PyTree:
    """Put a source's weights into a fresh state, and print what was taken and what was not.

    A layer (its parameters and statistics together) is taken if the source has all its leaves with the
    same shapes; otherwise all of it keeps its initial values. For generators the average is taken if there is one.
    Everything but parameters and batch statistics stays as it is: the step, optimizer states, the pool of fakes; an
    average of the new run begins at the weights that it has then.

    Args:
      source: see ``find_source``.
      state: what ``Objective.init`` returned.
      config: complete.

    Returns:
      The state, with leaves of the same shapes and dtypes; those that were taken are NumPy arrays.

    Raises:
      InputError: only discriminators and heads of the source fit, its file is damaged, or the state holds
        copies of the parameters, as some optimizers do.
    """
    state = averaging.trained_alone(state) if averaging.asks(config) else state
    theirs, ours = _layers(source.shapes), _layers(state)
    direction = source.config.get("data", {}).get("direction", config.data.direction)
    origins = ORIGINS if direction == config.data.direction else TURNED
    players = [_match(name, origins.get(name, (name,)), ours[name], theirs) for name in ours]
    if not any(player.leaves for player in players if not player.name.startswith(("disc", "head"))):
        raise InputError(misfit(source.name, source.config.get("generator") or {}, config, ours, theirs))
    _refuse_copies(state)
    average = {name.removeprefix("ema/"): name for name in _named_leaves(source.shapes) if name.startswith("ema/")}
    origins_of = {name: average.get(origin, origin) for player in players for name, origin in player.leaves.items()}
    values = _read(source, set(origins_of.values()))
    taken = {name: values[origin] for name, origin in origins_of.items()}
    _report(source, players, sorted(theirs.keys() - {player.origin for player in players}))
    if origins is TURNED:
        say(f"  note: config.data.direction was {direction} there and is {config.data.direction} here")
    for line in differences(source.config, config):
        say(f"  note: {line}")
    state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: taken[_name(path)].astype(leaf.dtype) if _name(path) in taken else leaf, state
    )
    return averaging.begun(state) if averaging.asks(config) else state


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named_leaves(state: PyTree) -> dict[str, Any]:
    """Return ``{"params/generator/down_1/kernel": leaf, ...}`` of a whole state."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _layers(state: PyTree) -> dict[str, dict[str, dict[str, Any]]]:
    """Return ``{player: {layer: {name of a leaf: leaf}}}``; batch statistics are with the parameters of their layer."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, leaf in _named_leaves(state).items():
        collection, _, place = name.partition("/")
        if collection in COLLECTIONS:
            player, *layer = place.split("/")
            found.setdefault(player, {}).setdefault("/".join(layer[:-1]), {})[name] = leaf
    return found


def _match(
    player: str, origins: Iterable[str], layers: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Any]
) -> _Player:
    """Say which layers of a player the source has."""
    origin = next((name for name in origins if name in theirs), "")
    if not origin:
        return _Player(player, None, _count(layers.values()), 0, {}, [], [])
    leaves: dict[str, str] = {}
    fresh, unused = [], sorted(theirs[origin].keys() - layers.keys())
    for layer, ours in sorted(layers.items()):
        there = theirs[origin].get(layer, {})
        # "params/generator/..." is "params/gen_ab/..." there
        names = {name: name.replace(f"/{player}", f"/{origin}", 1) for name in ours}
        faults = [_fault(name, leaf, there.get(names[name])) for name, leaf in ours.items()]
        if not any(faults):
            leaves |= names
            unused += [f"{layer}/{name.rpartition('/')[2]}" for name in there.keys() - names.values()]
        else:
            reason = ", ".join(fault for fault in faults if fault) if there else "absent"
            fresh.append(f"{layer} ({reason})")
    taken = _count({name: leaf for name, leaf in ours.items() if name in leaves} for ours in layers.values())
    return _Player(player, origin, _count(layers.values()), taken, leaves, fresh, unused)


def _fault(name: str, leaf: Any, there: Any) -> str:
    """Say why a leaf cannot be taken; empty if it can."""
    if there is None:
        return f"{name.rpartition('/')[2]} is absent"
    old, new = ("x".join(map(str, x.shape)) or "scalar" for x in (there, leaf))
    return f"{name.rpartition('/')[2]} {old} -> {new}" if old != new else ""


def _count(layers: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of parameters of layers, batch statistics not counted."""
    leaves = [leaf for layer in layers for name, leaf in layer.items() if name.startswith("params/")]
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)


def _read(source: Source, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read leaves of the source's state."""
    if source.file is not None:
        return {name: source.file.arrays[name] for name in wanted}
    template = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.ShapeDtypeStruct(x.shape, x.dtype) if _name(path) in wanted else ocp.PLACEHOLDER,
        source.shapes,
    )
    state = restore_part(source.workdir, source.step, template)
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(state).items() if name in wanted}


def _refuse_copies(state: PyTree) -> None:
    """Refuse a state that holds its parameters a second time: the copy would stay random and pull them back."""
    leaves = _named_leaves(state)
    kernels = {name: leaf for name, leaf in leaves.items() if name.startswith("params/") and leaf.ndim > 1}
    for name, leaf in leaves.items():
        if name.startswith(tuple(f"{x}/" for x in COLLECTIONS)) or leaf.ndim < 2 or not np.any(np.asarray(leaf)):
            continue
        for kernel, value in kernels.items():
            if value.shape == leaf.shape and np.array_equal(value, leaf):
                mend = "choose another config.optimizer, such as optax:adam, or " if "opt_state" in name else ""
                raise InputError(
                    f"the new state's {name} is a copy of its random {kernel}, which config.init_from cannot fill; "
                    f"{mend}leave config.init_from empty"
                )


def _report(source: Source, players: list[_Player], others: list[str]) -> None:
    start = f"init_from {source.name}, step {source.step:,}"
    is_average = source.file.weights == "average" if source.file else averaging.KEY in source.shapes
    start += ", generators as averaged there" if is_average else ""
    if source.file is not None:
        say(f"{start}: a model file, without discriminators: parts that it does not hold start fresh")
    for player in players:
        if player.origin is None:
            say(f"{start}: {player.name}: none of {player.wanted:,} parameters; there is no {player.name} there")
            continue
        alias = f", from {player.origin}" if player.origin != player.name else ""
        say(f"{start}: {player.name}: {player.taken:,} of {player.wanted:,} parameters{alias}")
        for title, names in (("starts fresh", player.fresh), ("not used from the source", player.unused)):
            if names:
                more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                say(f"  {title}: {', '.join(names[:_SHOWN])}{more}")
    if others:
        say(f"{start}: not used: {', '.join(others)}")
