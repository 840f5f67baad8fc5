"""The config of a converted run, and the assumptions in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.config.options import is_unpaired
from p2p_jax.data import layouts
from p2p_jax.errors import InputError
from p2p_jax.interop.network import ForeignNetwork
from p2p_jax.interop.torch_state_dicts import CONCATS, NORMS, SKIP_UP

Networks = Mapping[str, tuple[Path, ForeignNetwork]]
"""For each player ("generator", "gen_ab", ...), the file and the network found in it."""


class Options(NamedTuple):
    """Options for facts that files do not show and that a run needs.

    Attributes:
      concat, norm, discriminator_padding: only for the PyTorch release; see ``torch_state_dicts.read_network``.
      dropout: whether the run translates with the noise of dropout. None: like the release, with noise for pix2pix and
        for a ResNet with dropout, without it for CycleGAN.
      eval: translate like the PyTorch release does with ``eval``: without noise, and with running statistics in norms
        that have them. Otherwise norms use the statistics of the image.
      direction: "AtoB" or "BtoA": the side of a data set that is the input of a single generator.
      crop_size: side of the images in evaluation, in pixels; 0: as published.
      source: ``config.data.source``, for evaluation; "": side_by_side, or unpaired for a pair of generators.
    """

    concat: str = SKIP_UP
    norm: str | None = None
    discriminator_padding: int = 1
    dropout: bool | None = None
    eval: bool = False
    direction: str = "AtoB"
    crop_size: int = 0
    source: str = ""

    def check(self) -> None:
        """Raise InputError for a value that is not a valid choice."""
        choices: dict[str, tuple] = {
            "concat": CONCATS,
            "norm": (None, *NORMS),
            "discriminator_padding": (1, 2),
            "direction": ("AtoB", "BtoA"),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise InputError(f"{name}={value}; choose one of {', '.join(str(x) for x in known if x)}")
        if self.source and not (layouts.is_file_source(self.source) or ":" in self.source):
            raise InputError(f"source={self.source}: choose one of {', '.join(layouts.SOURCES)}, or 'module:name'")
        if self.eval and self.dropout:
            raise InputError("`eval` turns dropout off; it cannot be combined with dropout=on")


def make_config(networks: Networks, options: Options) -> dict[str, Any]:
    """Return the config of the run, without options at their defaults.

    Raises:
      InputError: the networks do not fit together.
    """
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
            raise InputError(f"{path} and {other_path} are not a pair: their networks or channels differ")
    elif is_unpaired(options.source):
        raise InputError(
            f"source={options.source} has no pairs, and a single generator is evaluated on pairs; give both generators "
            "of a CycleGAN, or images in pairs (side_by_side, folders, ...)"
        )
    _add_discriminators(config, networks, inputs, outputs)
    crop = options.crop_size or _published_size(first.section)
    kinds = ({"kind": "lab_l"}, {"kind": "lab_ab"}) if _paints_colours(networks) else ({}, {})
    config["data"] = {
        "source": options.source or ("photos" if kinds[0] else "side_by_side" if paired else "unpaired"),
        "direction": options.direction,
        "load_size": round(crop * 286 / 256),
        "crop_size": crop,
        "input": {"channels": inputs} | kinds[0],
        "output": {"channels": outputs} | kinds[1],
    }
    noise = has_noise(networks) if options.dropout is None else options.dropout
    config["inference"] = {"norm": "running" if options.eval else "batch", "dropout": noise and not options.eval}
    return config


def _add_discriminators(config: dict[str, Any], networks: Networks, inputs: int, outputs: int) -> None:
    sees = {"discriminator": (outputs, inputs + outputs), "disc_b": (outputs,), "disc_a": (inputs,)}
    judges = {name: network for name, network in networks.items() if name in sees}
    for name, (path, judge) in judges.items():
        if judge.in_channels not in sees[name]:
            wanted = " or ".join(map(str, sees[name]))
            raise InputError(
                f"{path}: the discriminator takes {judge.in_channels} channels, but with generators of {inputs} to "
                f"{outputs} channels it must take {wanted}"
            )
        if config.setdefault("discriminator", judge.section) != judge.section:
            raise InputError(f"{path} has another architecture than the other discriminator: they are not a pair")
        if name == "discriminator":
            config["loss"]["conditional"] = judge.in_channels != outputs
    if not judges:
        config["loss"]["lambda_gan"] = 0.0


def has_noise(networks: Networks) -> bool:
    """Return whether the release translates with dropout by default."""
    _, first = networks["generator" if "generator" in networks else "gen_ab"]
    if "dropout_rate" in first.section:
        return first.section["dropout_rate"] > 0
    return "generator" in networks


def _paints_colours(networks: Networks) -> bool:
    """Return whether a pix2pix generator maps lightness to colours, as in colorization with both releases."""
    found = networks.get("generator")
    return found is not None and (found[1].in_channels, found[1].out_channels) == (1, 2)


def _published_size(section: Mapping[str, Any]) -> int:
    """Return the image size that the release uses with a network."""
    if section.get("num_downs", 0) >= 7:
        return 2 ** section["num_downs"]
    return 128 if section.get("num_blocks") == 6 else 256


def assumptions(networks: Networks, options: Options, *, tensorflow: bool) -> list[str]:
    """Return the assumptions that the files do not settle, one sentence each.

    Args:
      networks: the networks that were read.
      options: the options that were given.
      tensorflow: whether the files are from the TensorFlow release, which leaves less open.
    """
    found = [] if tensorflow else _of_pytorch(networks, options)
    if options.dropout is None and not options.eval and has_noise(networks):
        found.append("translations keep the noise of dropout, as the release does; dropout=off removes it")
    if _paints_colours(networks):
        found.append("1 to 2 channels are colorization in CIE Lab, from photographs to their colours")
    elif "generator" in networks and options.direction == "AtoB":
        found.append("the input is side A of a data set; set direction=BtoA if it is B")
    return found


def _of_pytorch(networks: Networks, options: Options) -> list[str]:
    found = []
    sections = [network.section for _, network in networks.values()]
    if any(section["network"].endswith(":UNet") for section in sections) and options.concat == SKIP_UP:
        found.append(
            "skips are concatenated as since 2017-09-22; if pictures are garbled, set concat=up_skip for the older "
            "order"
        )
    if (
        any(section["norm"] == "batch" and section.get("biases") == "all" for section in sections)
        and options.norm is None
    ):
        found.append(
            "norms with weights and running statistics are batch norm; a file from before July 2017 may have instance "
            "norm: if its images look wrong, set norm=instance"
        )
    if any(section["norm"] == "instance_tracked" for section in sections):
        found.append(
            "instance norm has running statistics, as in the release from 2018-06 to 2019-01, which uses them with "
            "`eval`; norm=instance drops them, as today's release does"
        )
    if "gen_ab" in networks and "disc_b" not in networks and networks["gen_ab"][1].step:
        found.append(
            "norms have counted three batches per step, as the release trains with its identity loss; the step of the "
            "run is a third of that count"
        )
    if any("MobileResNet" in section["network"] for section in sections):
        found.append("a generator of GAN-Compression has no dropout; its files do not say")
    if any(section["norm"] == "instance" for section in sections) and options.norm is None:
        found.append("biases without weights of norms are instance norm; set norm=none if there was none")
    patches = [s for s in sections if s["network"].endswith(":PatchGAN") and s["receptive_field"] > 1]
    patches = [s for s in patches if "downsampling" not in s]  # CUT is newer
    if patches and options.discriminator_padding == 1:
        found.append(
            "the discriminator's maps are padded by 1; a file from before 2017-09-23 needs discriminator_padding=2, or "
            "it scores good images as fake at the start of fine-tuning"
        )
    return found
