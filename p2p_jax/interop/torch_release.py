"""A trained run as files for the PyTorch release of pix2pix and CycleGAN."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from p2p_jax.config import complete_section
from p2p_jax.errors import InputError
from p2p_jax.inference.run import Run
from p2p_jax.interop import torch_files
from p2p_jax.interop.network import expected_shapes
from p2p_jax.interop.torch_state_dicts import SKIP_UP, TRACKED, write_network
from p2p_jax.nets import PatchGAN, ResNet, UNet
from p2p_jax.nets.layers import has_biases
from p2p_jax.objectives import averaging, make_network
from p2p_jax.objectives.cyclegan import LOSS
from p2p_jax.training.checkpoint import restore_part

# In the release, D_A judges the images that G_A makes: those of domain B.
FILES = {
    "generator": "latest_net_G.pth",
    "discriminator": "latest_net_D.pth",
    "gen_ab": "latest_net_G_A.pth",
    "gen_ba": "latest_net_G_B.pth",
    "disc_b": "latest_net_D_A.pth",
    "disc_a": "latest_net_D_B.pth",
}
"""The release's file names, by the players of our objectives."""
_KINDS = {UNet: "p2p_jax.nets:UNet", ResNet: "p2p_jax.nets:ResNet", PatchGAN: "p2p_jax.nets:PatchGAN"}


class Written(NamedTuple):
    """A file for the release.

    Attributes:
      path: path of the file.
      options: options of the release's command line that make the fitting network.
      notes: notes about the file, each a sentence.
    """

    path: Path
    options: str
    notes: tuple[str, ...]


def write_torch(run: Run, output: str | Path, direction: str | None = None, *, concat: str = SKIP_UP) -> list[Written]:
    """Write networks of a run as state dicts.

    Args:
      run: an opened run of `pix2pix` or `cyclegan` with networks of this library.
      output: a file, FILE.pth, for the generator, or a directory for all networks, with the release's names.
      direction: "AtoB" or "BtoA": the generator to write to a file; by default the run's own.
      concat: order of the skips, see ``torch_state_dicts.CONCATS``; the release before 2017-09-22 needs "up_skip".

    Raises:
      InputError: PyTorch is not installed, or the release does not have such a network.
    """
    torch_files.import_torch()
    if direction not in (None, "AtoB", "BtoA"):
        raise InputError(f"direction={direction}: choose AtoB or BtoA")
    held = run.file.shapes() if run.file else run.shapes
    output, players = Path(output), [name for name in FILES if name in held.get("params", {})]
    if output.suffix.lower() in (".pt", ".pkl", ".bin", ".ckpt"):
        raise InputError(f"output={output}: name FILE.pth for the generator, or a folder for all networks")
    if output.suffix.lower() == ".pth":
        own = direction in (None, run.config.data.direction)
        wanted = ("generator", "gen_ab") if own else ("gen_ba",)
        players = [name for name in players if name in wanted]
        if not players:
            ways = " and ".join(run.file.directions) if run.file else run.config.data.direction
            raise InputError(f"direction={direction}: this run was trained for only {ways}")
        paths = [output]
    else:
        if direction is not None:
            raise InputError(f"`direction` selects the generator for a FILE.pth; the folder {output} gets all")
        paths = [output / FILES[name] for name in players]
    if not players:
        raise InputError(f"the run of {run.config.objective} has none of the players {', '.join(FILES)}")
    for path in paths:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"`output`: {path} exists and is not a plain file; choose another name")
    networks = {name: _network(run, name) for name in players}  # before writing: they may be refused
    variables, files = _restore(run), []
    for name, network in networks.items():
        fields = network.__dataclass_fields__.keys() - {"parent", "name", "out_channels"}
        section = {key: getattr(network, key) for key in fields} | {"network": _KINDS[type(network)]}
        _check(name, section, variables[name])
        batches = run.step * _batches_of_a_step(run.config, name)
        files.append(write_network(section, variables[name], batches, concat=concat))
    for path, tensors in zip(paths, files, strict=True):
        torch_files.write(path, tensors)
    channels = _channels(run.config.data)
    return [
        Written(path, _options(net := networks[name]) + channels + _test_time(run, net), _notes(net, concat))
        for name, path in zip(players, paths, strict=True)
    ]


def _batches_of_a_step(config: ConfigDict, player: str) -> int:
    """Return the number of batches that a player sees in a step; its batch norms count them."""
    if player.startswith("disc"):
        return 3  # for the generator's update, and a real and a fake one for its own
    if player == "generator" or config.objective != "p2p_jax:cyclegan":
        return 1
    loss = complete_section(config.loss, LOSS, "loss")
    source = {"gen_ab": "backward", "gen_ba": "forward"}[player]  # in this cycle it makes the reconstruction
    has_cycle = loss.lambda_cycle > 0 and loss.cycle in ("both", source)
    return 1 + has_cycle + bool(loss.lambda_identity and loss.lambda_cycle)


def _check(player: str, section: Mapping[str, Any], variables: Mapping[str, np.ndarray]) -> None:
    """Refuse weights of a network other than the config describes, as your own objectives may have."""
    first, last = ("conv_1", "logits") if player.startswith("disc") else ("down_1", "up_1")
    if section["network"].endswith(":ResNet"):
        first, last = "stem", "output"
    kernels = [variables.get(f"params/{layer}/kernel", np.empty((0,) * 4)) for layer in (first, last)]
    channels = kernels[0].shape[2], kernels[1].shape[2 if last == "up_1" else 3]
    fits = all(channels) and expected_shapes(section, *channels) == {k: v.shape for k, v in variables.items()}
    if not fits:
        raise InputError(f"{player}: its weights are not those of the {section['network']} that the config describes")


def _test_time(run: Run, network: Any) -> str:
    """Return the release's option for running statistics in translation; it also turns off the noise."""
    running = run.config.inference.norm == "running" and getattr(network, "norm", "") in TRACKED
    return " --eval" if running and not isinstance(network, PatchGAN) else ""


def _channels(data: ConfigDict) -> str:
    """Return the release's options for images that differ from its default."""
    options = {"--direction": data.direction, "--input_nc": data.input.channels, "--output_nc": data.output.channels}
    default = {"--direction": "AtoB", "--input_nc": 3, "--output_nc": 3}
    return "".join(f" {name} {value}" for name, value in options.items() if value != default[name])


def _network(run: Run, player: str) -> Any:
    """Return a player's Flax module.

    Raises:
      InputError: the release does not have such a network.
    """
    section, channels = run.config.generator, run.config.data.output.channels
    if player.startswith("disc"):
        section = run.config.discriminator
    elif player == "gen_ba":
        channels = run.config.data.input.channels
    network = make_network(section, out_channels=channels)
    fault = _fault(network)
    if fault:
        raise InputError(f"{player}: the PyTorch release has no network {fault}; export it as ONNX or StableHLO")
    return network


def _fault(network: nn.Module) -> str:
    if type(network) not in _KINDS:
        return f"like {type(network).__name__}"
    if isinstance(network, UNet) and not network.skips:
        return "without skips (skips=False)"
    if isinstance(network, UNet) and network.bottleneck_norm:
        return "with a norm in the bottleneck (bottleneck_norm=True)"
    if isinstance(network, UNet | ResNet) and network.upsampling != "transposed":
        return f"with upsampling={network.upsampling}"
    if isinstance(network, UNet | ResNet) and network.attention_mask:
        return "with attention_mask=True"
    if isinstance(network, ResNet | PatchGAN) and network.downsampling != "strided":
        return f"with downsampling={network.downsampling}"
    if isinstance(network, PatchGAN) and network.spectral_norm:
        return "with spectral_norm=True"
    return ""


def _options(network: Any) -> str:
    norm = network.norm.partition("_")[0]
    if isinstance(network, PatchGAN):
        layers = {1: "pixel", 70: "basic"}.get(network.receptive_field, "n_layers")
        count = {16: 1, 34: 2, 142: 4, 286: 5}.get(network.receptive_field)
        depth = f" --n_layers_D {count}" if count else ""
        return f"--netD {layers}{depth} --norm {norm} --ndf {network.base_width}"
    if isinstance(network, ResNet):
        kind, dropout = f"resnet_{network.num_blocks}blocks", network.dropout_rate > 0
    else:
        kind, dropout = f"unet_{2**network.num_downs}", network.dropout_rate > 0
    return f"--netG {kind} --norm {norm} --ngf {network.base_width}" + ("" if dropout else " --no_dropout")


def _notes(network: Any, concat: str) -> tuple[str, ...]:
    notes = []
    if isinstance(network, UNet):
        if network.num_downs not in (7, 8):
            notes.append(f"the release has only U-Nets with 7 and 8 downs: add one with {network.num_downs}")
        if network.dropout_layout == "paper" and network.dropout_rate:
            notes.append("the release has dropout one decoder layer further out; --no_dropout turns it off")
        if concat != SKIP_UP:
            notes.append("the skips are in the release's order before 2017-09-22")
    if isinstance(network, ResNet) and network.num_blocks not in (6, 9):
        notes.append(f"the release has only ResNets with 6 and 9 blocks: add one with {network.num_blocks}")
    if isinstance(network, ResNet) and network.padding == "zero":
        notes.append("only the release of July 2017 pads every convolution with zeros")
    if network.norm == "instance_affine":
        notes.append("its instance norm has weights: InstanceNorm2d(affine=True), as before 2017-07-02")
    if network.norm == "instance_tracked":
        notes.append(
            "its instance norm has running statistics, which the release from 2018-06 to 2019-01 uses with --eval, and "
            "others drop"
        )
    biased = has_biases(network.biases, network.norm)
    if biased != network.norm.startswith("instance"):
        which = "have" if biased else "have no"
        notes.append(f"its convolutions before norms {which} biases, unlike in today's release")
    if network.norm == "none" and biased:
        notes.append("convert reads biases without norms as instance norm: give it --norm none")
    if isinstance(network, PatchGAN) and network.padding != 1:
        notes.append(f"its convolutions are padded by {network.padding}, as before 2017-09-23")
    return tuple(notes)


def _restore(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Return weights and statistics of every player, flat; for generators the average, if the run has one."""
    kept = ("params", "batch_stats")
    if run.file:
        return _flat(run.file.shapes(), kept)
    shapes, absent = run.shapes, functools.partial(jax.tree.map, lambda _: ocp.PLACEHOLDER)
    average: Mapping[str, Any] = shapes[averaging.KEY] if run.weights == "average" else {}
    template = {key: part if key in kept else absent(part) for key, part in shapes.items()}
    if average:
        template[averaging.KEY] = average
        for key in kept:
            template[key] = {k: absent(x) if k in average[key] else x for k, x in shapes[key].items()}
    stored = restore_part(run.workdir, run.step, template)
    state: Mapping[str, Any] = averaging.in_use(stored) if average else averaging.trained_alone(stored)
    return _flat(state, kept)


def _flat(state: Mapping[str, Any], kept: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: {
            f"{key}/{leaf}": np.asarray(value, np.float32)
            for key in kept
            for leaf, value in flatten_dict(state.get(key, {}).get(name, {}), sep="/").items()
        }
        for name in state["params"]
    }
