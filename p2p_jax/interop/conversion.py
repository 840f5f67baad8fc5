"""Foreign weights as a run's directory, which everything that takes a run accepts."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.checkpoint import Checkpoints
from p2p_jax.config import complete, resolve, to_json
from p2p_jax.errors import InputError
from p2p_jax.interop import tensorflow_files, tensorflow_release, torch_files, torch_layouts
from p2p_jax.interop.network import ForeignNetwork
from p2p_jax.options import image_shapes

CONVERTED = "converted_from.json"


class Options(NamedTuple):
    """What cannot be seen in files of the PyTorch release, and what a run needs besides weights.

    Attributes:
      concat, norm, discriminator_padding: see ``torch_layouts.read_network``.
      dropout: whether the run translates with the noise of dropout; None: as the release does by default, with it for
        pix2pix and where a ResNet has dropout, without it for CycleGAN.
      direction: "AtoB" or "BtoA": which side of a data set a single generator takes.
      crop_size: side of the images of evaluation, in pixels; 0: that of the published setting.
      source: ``config.data.source``, for evaluation; "": side_by_side, or unpaired for a pair of generators.
    """

    concat: str = torch_layouts.SKIP_UP
    norm: str | None = None
    discriminator_padding: int = 1
    dropout: bool | None = None
    direction: str = "AtoB"
    crop_size: int = 0
    source: str = ""


class Converted(NamedTuple):
    """A run that was made of foreign weights.

    Attributes:
      workdir: its directory.
      config: its config.
      step: of its checkpoint.
      networks: by player ("generator", "gen_ab", ...), the file and what was found in it.
      assumed: what the files do not tell, each a sentence with the option that says otherwise.
    """

    workdir: Path
    config: ConfigDict
    step: int
    networks: dict[str, tuple[Path, ForeignNetwork]]
    assumed: tuple[str, ...]


def convert(
    inputs: Sequence[str | Path],
    workdir: str | Path,
    discriminators: Sequence[str | Path] = (),
    options: Options = Options(),  # noqa: B008, it cannot be changed
) -> Converted:
    """Make a run's directory of foreign weights.

    Args:
      inputs: a generator (PyTorch's .pth, the browser's .pict, a checkpoint of the TensorFlow release), or two of the
        PyTorch release for CycleGAN, G_A and G_B; or a directory of the PyTorch release with files
        ``latest_net_*.pth``, all of which are taken.
      workdir: of the run; it must not exist, or be empty.
      discriminators: as many files of the PyTorch release, or none: D, or D_A and D_B.
      options: see ``Options``.

    Raises:
      InputError: a file cannot be used, or files do not fit together; nothing is left at `workdir`.
    """
    workdir, files = Path(workdir), [Path(path) for path in inputs]
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise InputError(f"--workdir {workdir} exists and is not empty; choose another")
    judges = [Path(path) for path in discriminators]
    if len(files) == 1 and files[0].is_dir() and not _is_tensorflow(files[0]):
        files, found = _files_in(files[0])
        judges = judges or found
    if not 1 <= len(files) <= 2 or len(judges) not in (0, len(files)):
        raise InputError(
            f"{len(files)} generators and {len(judges)} discriminators were given: give one generator (pix2pix), or "
            "two, G_A and G_B (CycleGAN), and as many discriminators or none"
        )
    networks = _read_all(files, judges, options)
    config = complete(_config(networks, options))
    step = next(iter(networks.values()))[1].step
    _save(workdir, config, networks, step, options)
    assumed = [] if _is_tensorflow(files[0]) else _of_release(networks, options)
    if _paints_colours(networks):
        assumed.append("1 to 2 channels are colorization in CIE Lab, from photographs to their colours")
    return Converted(workdir, config, step, networks, tuple(assumed))


def _is_tensorflow(path: Path) -> bool:
    return path.suffix == ".pict" or tensorflow_files.is_checkpoint(path)


def _files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the generators and discriminators of the release's folder ``checkpoints/NAME``."""
    for names in (("G_A", "G_B"), ("G",)):
        files = [folder / f"latest_net_{name}.pth" for name in names]
        if all(file.is_file() for file in files):
            judges = [folder / f"latest_net_{name.replace('G', 'D')}.pth" for name in names]
            return files, judges if all(file.is_file() for file in judges) else []
    raise InputError(
        f"{folder} holds no latest_net_G.pth, no pair latest_net_G_A.pth and latest_net_G_B.pth, and no checkpoint of "
        "TensorFlow; name the files"
    )


def _read_all(files: list[Path], judges: list[Path], options: Options) -> dict[str, tuple[Path, ForeignNetwork]]:
    """Read every network, under the name of its player; the release's D_A judges the images that G_A makes."""
    players = ("generator", "discriminator") if len(files) == 1 else ("gen_ab", "gen_ba", "disc_b", "disc_a")
    found: dict[str, tuple[Path, ForeignNetwork]] = {}
    for path in files:
        if _is_tensorflow(path):
            if len(files) > 1 or judges:
                raise InputError(
                    f"{path} is of the TensorFlow release, which knows pix2pix alone and keeps the discriminator with "
                    "the generator: give one --input and nothing else"
                )
            read = tensorflow_files.read_pict if path.suffix == ".pict" else tensorflow_files.read_checkpoint
            both = tensorflow_release.recognise(read(path), str(path))
            return {name: (path, network) for name, network in both.items()}
    for player, path in zip(players, [*files, *judges], strict=False):
        network = torch_layouts.read_network(
            torch_files.read(path),
            str(path),
            concat=options.concat,
            norm=options.norm,
            discriminator_padding=options.discriminator_padding,
        )
        is_judge = path in judges
        if network.is_discriminator != is_judge:
            kind, option = ("generator", "--input") if is_judge else ("discriminator", "--discriminator")
            raise InputError(f"{path} is a {kind}; name it after {option}")
        found[player] = path, network
    return found


def _config(networks: dict[str, tuple[Path, ForeignNetwork]], options: Options) -> dict[str, Any]:
    """Return the config of the run, incomplete; check that the networks fit together."""
    paired = "generator" in networks
    path, first = networks["generator" if paired else "gen_ab"]
    inputs, outputs = first.in_channels, first.out_channels
    config: dict[str, Any] = {
        "objective": "p2p_jax:pix2pix" if paired else "p2p_jax:cyclegan",
        "batch_size": 1,
        "generator": first.section,
        "loss": {},
    }
    if not paired:
        config["best_metric"] = "cycle"
        other_path, other = networks["gen_ba"]
        if other.section != first.section or (other.in_channels, other.out_channels) != (outputs, inputs):
            raise InputError(f"{path} and {other_path} are no pair: their networks or channels differ")
    judges = {name: network for name, network in networks.items() if name.startswith("disc")}
    sees = {"discriminator": (outputs, inputs + outputs), "disc_b": (outputs,), "disc_a": (inputs,)}
    for name, (judge_path, judge) in judges.items():
        if judge.in_channels not in sees[name]:
            wanted = " or ".join(map(str, sees[name]))
            raise InputError(
                f"{judge_path} takes {judge.in_channels} channels, but beside {path} a discriminator takes {wanted}"
            )
        if config.setdefault("discriminator", judge.section) != judge.section:
            raise InputError(f"{judge_path} has another architecture than the other discriminator: they are no pair")
        if name == "discriminator":
            config["loss"]["conditional"] = judge.in_channels != outputs
    if not judges:
        config["loss"]["lambda_gan"] = 0.0
    crop = options.crop_size or _published_size(first.section)
    kinds = {"kind_a": "lab_l", "kind_b": "lab_ab"} if _paints_colours(networks) else {}
    config["data"] = kinds | {
        "source": options.source or ("photos" if kinds else "side_by_side" if paired else "unpaired"),
        "direction": options.direction,
        "load_size": round(crop * 286 / 256),
        "crop_size": crop,
        "channels_a": inputs,
        "channels_b": outputs,
    }
    is_unet = first.section["network"].endswith(":UNet")
    noisy = paired if is_unet else first.section["dropout_rate"] > 0
    config["inference"] = {"norm": "batch", "dropout": noisy if options.dropout is None else options.dropout}
    return config


def _paints_colours(networks: dict[str, tuple[Path, ForeignNetwork]]) -> bool:
    """Tell whether a pix2pix generator maps lightness to colours, as both releases' colorization does."""
    found = networks.get("generator")
    return found is not None and (found[1].in_channels, found[1].out_channels) == (1, 2)


def _published_size(section: dict[str, Any]) -> int:
    """Return the side of the images for which the release offers a network."""
    if section.get("num_downs", 0) >= 7:
        return 2 ** section["num_downs"]
    return 128 if section.get("num_blocks") == 6 else 256


def _of_release(networks: dict[str, tuple[Path, ForeignNetwork]], options: Options) -> list[str]:
    """Say what files of the PyTorch release do not tell."""
    found = []
    sections = [network.section for _, network in networks.values()]
    if any(section.get("dropout_layout") == "pytorch" for section in sections) and options.concat == "skip_up":
        found.append(
            "skips are concatenated as since 2017-09-22; where pictures are a colourful mess, --concat up_skip is the "
            "older order"
        )
    if any(section["norm"] == "batch" and section.get("use_bias") for section in sections) and options.norm is None:
        found.append(
            "norms with weights and running statistics are batch norm; a file from before July 2017 may have "
            "instance norm, and then looks well after --norm instance only"
        )
    patches = [s for s in sections if s["network"].endswith(":PatchGAN") and s["receptive_field"] > 1]
    if patches and options.discriminator_padding == 1:
        found.append(
            "the discriminator's maps are padded by 1; one from before 2017-09-23 wants --discriminator_padding 2, "
            "without which it takes good images for fakes at the start of fine-tuning"
        )
    return found


def _save(
    workdir: Path, config: ConfigDict, networks: dict[str, tuple[Path, ForeignNetwork]], step: int, options: Options
) -> None:
    """Write a run's directory, whole or not at all."""
    batch = {name: np.zeros((1, *shape), np.float32) for name, shape in image_shapes(config.data).items()}
    state = jax.jit(resolve(config.objective)(config).init)(jax.random.key(config.seed), batch)
    state = jax.tree.map(np.asarray, state)
    for name, (_, network) in networks.items():
        for key in ("params", "batch_stats"):
            state[key][name] = network.variables.get(key, {})
    state["step"] = jnp.asarray(step, jnp.int32)
    told = {
        "files": {name: {"path": path.name, "sha256": _sha256(path)} for name, (path, _) in networks.items()},
        "options": options._asdict(),
        "networks": {name: network.section for name, (_, network) in networks.items()},
    }
    workdir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = workdir.with_name(f".{workdir.name}.{os.getpid()}")
    try:
        checkpoints = Checkpoints(unfinished, config)
        checkpoints.save(step, state, None)
        checkpoints.close()
        (unfinished / "config.json").write_text(to_json(config))
        (unfinished / CONVERTED).write_text(json.dumps(told, indent=2) + "\n")
        os.replace(unfinished, workdir)  # an empty directory is replaced too
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _sha256(path: Path) -> str:
    """Return the digest of a file; of the files in a folder or with a prefix, together."""
    if path.is_file():
        files = [path]
    else:
        files = sorted(
            p for p in (path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}.*")) if p.is_file()
        )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
