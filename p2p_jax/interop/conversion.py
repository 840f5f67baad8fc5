"""Converts foreign weights to a run's directory, which everything that takes a run accepts."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import complete, to_json
from p2p_jax.config.paths import expanded
from p2p_jax.errors import InputError
from p2p_jax.interop import tensorflow_files, tensorflow_release, tfjs_files, torch_files, torch_state_dicts
from p2p_jax.interop.converted_config import Networks, Options, assumptions, make_config
from p2p_jax.interop.file_kinds import identify_folder
from p2p_jax.interop.network import name_some
from p2p_jax.objectives import blank_batch, make_objective
from p2p_jax.storage.refusals import StorageError, reason
from p2p_jax.storage.writing import unfinished_folder
from p2p_jax.training import digests
from p2p_jax.training.checkpoint import CONVERTED
from p2p_jax.training.saving import Checkpoints


class Converted(NamedTuple):
    """A run made from foreign weights.

    Attributes:
      workdir: directory of the run.
      config: config of the run.
      step: step of its checkpoint.
      networks: for each player ("generator", "gen_ab", ...), the file and the network found in it.
      assumed: assumptions that the files do not settle, each a sentence with the option that changes it.
    """

    workdir: Path
    config: ConfigDict
    step: int
    networks: Networks
    assumed: tuple[str, ...]


def convert(
    inputs: str | Path | Sequence[str | Path],
    workdir: str | Path,
    discriminators: str | Path | Sequence[str | Path] = (),
    options: Options = Options(),  # noqa: B008, it cannot be changed
) -> Converted:
    """Convert foreign weights to a run's directory.

    Args:
      inputs: a generator (PyTorch's .pth, the browser's .pict or model.json, a checkpoint of the TensorFlow release),
        or two of the PyTorch release for CycleGAN, G_A and G_B; or a directory of the PyTorch release with files
        ``latest_net_*.pth``; all of them are used.
      workdir: directory of the run; it must not exist, or be empty.
      discriminators: the same number of files of the PyTorch release, or none: D, or D_A and D_B.
      options: see ``Options``.

    Raises:
      InputError: a file cannot be used, or files do not fit together; nothing is left in `workdir`.
    """
    options.check()
    files, judges = _paths(inputs), _paths(discriminators)
    workdir = expanded(workdir)
    target = workdir.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"workdir={workdir} exists and is not empty; choose another")
    if len(files) == 1 and files[0].is_dir() and not _is_tensorflow(files[0]):
        files, found = _files_in(files[0])
        judges = judges or found
    if not 1 <= len(files) <= 2 or len(judges) not in (0, len(files)):
        raise InputError(
            f"{len(files)} generators and {len(judges)} discriminators were given: give one generator (pix2pix), or "
            "two, G_A and G_B (CycleGAN), and as many discriminators or none"
        )
    tensorflow = any(_is_tensorflow(path) for path in files)
    networks = _read_tensorflow(files, judges, options) if tensorflow else _read_pytorch(files, judges, options)
    config = complete(make_config(networks, options))
    step = _step(networks)
    told = {
        "files": {name: {"path": path.name, "sha256": _sha256(path)} for name, (path, _) in networks.items()},
        "options": options._asdict(),
        "networks": {name: network.section for name, (_, network) in networks.items()},
        "running_statistics": not tensorflow,  # the TensorFlow release keeps none
    }
    _save(target, config, networks, step, told)
    return Converted(workdir, config, step, networks, tuple(assumptions(networks, options, tensorflow=tensorflow)))


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]


def _is_tensorflow(path: Path) -> bool:
    return path.suffix == ".pict" or _is_tfjs(path) or tensorflow_files.is_checkpoint(path)


def _is_tfjs(path: Path) -> bool:
    """Return whether a path belongs to TensorFlow.js; if a folder also holds the original files, those are used."""
    others = path.is_dir() and any(path.glob("latest_net_G*.pth"))
    return tfjs_files.is_tfjs(path) and not others and not tensorflow_files.is_checkpoint(path)


def _files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the generators and discriminators of the PyTorch release's folder ``checkpoints/NAME``."""
    for names in (("G_A", "G_B"), ("G",)):
        files = [folder / f"latest_net_{name}.pth" for name in names]
        if all(file.is_file() for file in files):
            judges = [folder / f"latest_net_{name.replace('G', 'D')}.pth" for name in names]
            return files, [file for file in judges if file.is_file()]
    found = [path.name for path in folder.iterdir()]
    if (kind := identify_folder(found)) is not None:
        raise InputError(f"{folder} is {kind.name}: {kind.mend}")
    raise InputError(
        f"{folder} holds no latest_net_G.pth, no pair latest_net_G_A.pth and latest_net_G_B.pth, no checkpoint of "
        f"TensorFlow and no model.json, but {name_some(found)}; name the files"
    )


def _read_tensorflow(files: list[Path], judges: list[Path], options: Options) -> Networks:
    """Read the generator and, if present, the discriminator."""
    path = next(path for path in files if _is_tensorflow(path))
    if len(files) > 1 or judges:
        raise InputError(
            f"{path} is from the TensorFlow release, which has only pix2pix and stores the discriminator with the "
            "generator: give only one `input`"
        )
    default = Options()
    if (options.concat, options.norm, options.discriminator_padding) != default[:3] or options.eval:
        raise InputError(
            f"{path} is from the TensorFlow release, where `concat`, `norm`, `discriminator_padding` and `eval` are "
            "fixed: leave them out"
        )
    read = tensorflow_files.read_checkpoint
    if path.suffix == ".pict":
        read = tensorflow_files.read_pict
    elif _is_tfjs(path):
        read = tfjs_files.read
    both = tensorflow_release.recognise(read(path), str(path))
    return {name: (path, network) for name, network in both.items()}


def _read_pytorch(files: list[Path], judges: list[Path], options: Options) -> Networks:
    """Read every network by the name of its player; the release's D_A judges the images that G_A makes."""
    players = ("generator", "discriminator") if len(files) == 1 else ("gen_ab", "gen_ba", "disc_b", "disc_a")
    found = {}
    for i, (player, path) in enumerate(zip(players, [*files, *judges], strict=False)):
        network = torch_state_dicts.read_network(
            torch_files.read(path),
            str(path),
            concat=options.concat,
            norm=options.norm,
            discriminator_padding=options.discriminator_padding,
        )
        is_judge = i >= len(files)
        if network.is_discriminator != is_judge:
            kind, option = ("generator", "input") if is_judge else ("discriminator", "discriminator")
            raise InputError(f"{path} is a {kind}; give it with `{option}`")
        found[player] = path, network
    has_skips = any(network.section["network"].endswith(":UNet") for _, network in found.values())
    if options.concat != torch_state_dicts.SKIP_UP and not has_skips:
        raise InputError(f"concat={options.concat} is only for U-Nets; {files[0]} is not one")
    if options.discriminator_padding != 1 and not judges:
        raise InputError(f"discriminator_padding={options.discriminator_padding}: no discriminator was given")
    return found


def _step(networks: Networks) -> int:
    """Return the number of updates of the networks, from the batches that PyTorch's norms have counted.

    In each step, a discriminator sees three batches, and a generator of pix2pix one. A generator of CycleGAN sees
    three with the identity loss, the default of the release, and two without.
    """
    counts = {name: network.step for name, (_, network) in networks.items()}
    if "generator" in counts:
        return counts["generator"]
    return (counts.get("disc_b") or counts["gen_ab"]) // 3


def _save(target: Path, config: ConfigDict, networks: Networks, step: int, told: dict) -> None:
    """Write a run's directory, whole or not at all."""
    state = jax.jit(make_objective(config).init)(jax.random.key(config.seed), blank_batch(config))
    state = jax.tree.map(np.asarray, state)
    for name, (_, network) in networks.items():
        for key in ("params", "batch_stats"):
            state[key][name] = network.variables.get(key, {})
    state["step"] = jnp.asarray(step, jnp.int32)
    try:
        with unfinished_folder(target) as unfinished:
            checkpoints = Checkpoints(unfinished, config)
            checkpoints.save(step, state, None)
            checkpoints.close()
            digests.write_recorded(unfinished / "config.json", to_json(config))
            digests.write_recorded(unfinished / CONVERTED, json.dumps(told, indent=2) + "\n")
            os.replace(unfinished, target)  # an empty directory is replaced too
    except (OSError, StorageError) as error:
        cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        raise InputError(f"workdir={target} cannot be written ({reason(cause, target)}); choose another") from error


def _sha256(path: Path) -> str:
    """Return the digest of a file; for a model of several files, of all of them."""
    if _is_tfjs(path):
        files = tfjs_files.files_of(path)
    elif path.is_file():
        files = [path]
    else:
        parts = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}.*")
        files = sorted(part for part in parts if part.is_file())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)
    return digest.hexdigest()
