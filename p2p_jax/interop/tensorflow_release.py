"""The names of weights in the TensorFlow release of pix2pix (affinelayer's pix2pix-tensorflow).

The networks are those of the paper, with three differences: batch norm always uses the statistics of the batch, the
innermost layer of the U-Net is normalised too, and skips are concatenated after the features from below.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from p2p_jax.errors import InputError
from p2p_jax.interop.network import ForeignNetwork, check_variables, name_some
from p2p_jax.nets import RECEPTIVE_FIELDS

_DEEPEST = 16  # layers of an encoder, for images of 65,536 pixels
_UNUSED = re.compile(r".*/batch_normalization/moving_(mean|variance)")  # the release never updates them


class Generation(NamedTuple):
    """The names of the variables within a layer's scope."""

    convolution: str
    transposed: str
    scale: str
    offset: str
    bias: str | None  # None: no convolution has one


LATER = Generation(
    "conv2d/kernel",
    "conv2d_transpose/kernel",
    "batch_normalization/gamma",
    "batch_normalization/beta",
    "bias",
)
EARLIER = Generation("conv/filter", "deconv/filter", "batchnorm/scale", "batchnorm/offset", None)


class Layer(NamedTuple):
    """A layer of the release.

    Attributes:
      scope: name in the release, such as "generator/encoder_1".
      name: our name, such as "down_1".
      has_norm: whether a batch norm follows.
      transposed: whether it is a transposed convolution.
      after_concat: whether its input is a concatenation of the features from below and a skip.
      always_bias: whether ours has a bias even if theirs does not.
    """

    scope: str
    name: str
    has_norm: bool
    transposed: bool = False
    after_concat: bool = False
    always_bias: bool = False


def unet(num_downs: int, *, bottleneck_norm: bool) -> Iterator[Layer]:
    """List the layers of a U-Net."""
    for i in range(1, num_downs + 1):
        yield Layer(f"generator/encoder_{i}", f"down_{i}", has_norm=1 < i < num_downs or (i > 1 and bottleneck_norm))
    for i in range(num_downs, 0, -1):
        yield Layer(
            f"generator/decoder_{i}",
            f"up_{i}",
            has_norm=i > 1,
            transposed=True,
            after_concat=i < num_downs,
            always_bias=i == 1,
        )


def patchgan(num_layers: int) -> Iterator[Layer]:
    """List the layers of a PatchGAN with `num_layers` convolutions in total."""
    for i in range(1, num_layers + 1):
        inner = 1 < i < num_layers
        name = "logits" if i == num_layers else f"conv_{i}"
        yield Layer(f"discriminator/layer_{i}", name, has_norm=inner, always_bias=not inner)


def recognise(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, ForeignNetwork]:
    """Recognise the release's networks by names and shapes of their weights.

    Args:
      tensors: as ``tensorflow_files.read_checkpoint`` and ``tensorflow_files.read_pict`` give them.
      source: the file, for messages.

    Returns:
      "generator" and, if the file has one, "discriminator".

    Raises:
      InputError: there is no such generator, or a network is incomplete or of another architecture.
    """
    tensors = {_with_player(name): value for name, value in tensors.items()}
    if any("separable_conv2d" in name for name in tensors):
        raise InputError(
            f"{source} was trained with --separable_conv: separable convolutions are not supported; train "
            "without that option"
        )
    sections = {"generator": _generator_section, "discriminator": _discriminator_section}
    networks = {}
    for player, section_of in sections.items():
        own = {name: value for name, value in tensors.items() if name.startswith(f"{player}/")}
        if own:
            networks[player] = _read_network(own, section_of(own, source), source)
    if "generator" not in networks:
        raise InputError(
            f"{source} has no generator of the TensorFlow release (generator/encoder_1, ...), but {name_some(tensors)}"
        )
    step = np.ravel(tensors.get("global_step", 0))
    return {player: network._replace(step=int(step[0])) for player, network in networks.items()}


def _with_player(name: str) -> str:
    """Return a variable's name with the outermost scope added if it is missing."""
    match = re.match(r"(encoder|decoder|layer)_\d+/", name)
    return name if not match else f"{'discriminator' if match[1] == 'layer' else 'generator'}/{name}"


def _generator_section(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    depth = len({match[1] for name in tensors if (match := re.match(r"generator/(?:en|de)coder_(\d+)/", name))})
    if not 2 <= depth <= _DEEPEST:
        raise InputError(f"{source}: a generator with {depth} encoder layers; the release's U-Net has 8")
    return {
        "network": "p2p_jax.nets:UNet",
        "num_downs": depth,
        "bottleneck_norm": any(name.startswith(f"generator/encoder_{depth}/batch") for name in tensors),
        "dropout_layout": "paper",
    }


def _discriminator_section(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    depth = len({match[1] for name in tensors if (match := re.match(r"discriminator/layer_(\d+)/", name))})
    fields = {num_strided + 2: field for field, num_strided in RECEPTIVE_FIELDS.items() if num_strided}
    if depth not in fields:
        known = ", ".join(map(str, fields))
        raise InputError(f"{source}: a discriminator with {depth} layers; the release's has 5; {known} are supported")
    return {"network": "p2p_jax.nets:PatchGAN", "receptive_field": fields[depth]}


def _read_network(tensors: Mapping[str, np.ndarray], section: dict[str, Any], source: str) -> ForeignNetwork:
    """Return the network of a section, before its width, norm and biases are known."""
    if "num_downs" in section:
        layers = list(unet(section["num_downs"], bottleneck_norm=section["bottleneck_norm"]))
    else:
        layers = list(patchgan(RECEPTIVE_FIELDS[section["receptive_field"]] + 2))
    generation = EARLIER if f"{layers[0].scope}/{EARLIER.convolution}" in tensors else LATER
    names = _names(layers, generation)
    _check_names(tensors, names, source)

    values: dict[str, Any] = {}
    for ours, name in names.items():
        values[ours] = np.asarray(tensors[name], np.float32)
        if ours.endswith("/kernel") and (values[ours].ndim != 4 or not values[ours].size):
            raise InputError(f"{source}: {name} has the shape {values[ours].shape}, which is not the shape of a kernel")
    for layer in layers:
        kernel = values[f"params/{layer.name}/kernel"]
        if layer.after_concat:
            values[f"params/{layer.name}/kernel"] = np.roll(kernel, kernel.shape[3] // 2, axis=3)
        if layer.always_bias and generation.bias is None:
            values[f"params/{layer.name}/bias"] = np.zeros(kernel.shape[2 if layer.transposed else 3], np.float32)
        if layer.has_norm:
            shape = values[f"params/{layer.name}_norm/scale"].shape
            values[f"batch_stats/{layer.name}_norm/mean"] = np.zeros(shape, np.float32)
            values[f"batch_stats/{layer.name}_norm/var"] = np.ones(shape, np.float32)

    first, last = (values[f"params/{layers[i].name}/kernel"] for i in (0, -1))
    section = section | {"base_width": first.shape[3], "norm": "batch"}
    if generation.bias is not None:
        section["biases"] = "all"
    variables = unflatten_dict({"params": {}, "batch_stats": {}} | values, sep="/")
    network = ForeignNetwork(section, first.shape[2], last.shape[2] if layers[-1].transposed else 1, variables)
    check_variables(network, names, source)
    return network


def _names(layers: list[Layer], generation: Generation) -> dict[str, str]:
    """Return the release's names of its variables, by our names."""
    names = {}
    for layer in layers:
        kernel = f"{layer.scope}/{generation.transposed if layer.transposed else generation.convolution}"
        names[f"params/{layer.name}/kernel"] = kernel
        if generation.bias is not None:
            names[f"params/{layer.name}/bias"] = f"{kernel.rpartition('/')[0]}/{generation.bias}"
        if layer.has_norm:
            names[f"params/{layer.name}_norm/scale"] = f"{layer.scope}/{generation.scale}"
            names[f"params/{layer.name}_norm/bias"] = f"{layer.scope}/{generation.offset}"
    return names


def _check_names(tensors: Mapping[str, np.ndarray], names: Mapping[str, str], source: str) -> None:
    missing = names.values() - tensors.keys()
    unknown = {name for name in tensors if not _UNUSED.fullmatch(name)} - set(names.values())
    if missing and unknown:
        raise InputError(f"{source} lacks {name_some(missing)}, and has {name_some(unknown)}: another architecture")
    if missing:
        raise InputError(f"{source} lacks {name_some(missing)}; is it complete?")
    if unknown:
        raise InputError(f"{source} has {name_some(unknown)}, but the release's network does not: another architecture")
