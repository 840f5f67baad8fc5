"""PyTorch twins of the networks and of the pix2pix step: a reference for parity tests and for benchmarks.

Written from the papers and from the facts about the PyTorch release, as an ordinary PyTorch programmer would. Layers
carry the names that p2p_jax's Flax modules give them, so that weights map by name. Images are [B, C, H, W] in [-1, 1].
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

RECEPTIVE_FIELDS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation layer called `kind`: "batch", "instance" or "none"."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


class UNet(nn.Module):
    """U-Net, or with ``skips=False`` encoder-decoder, of Isola et al. 2017; attributes as of ``p2p_jax.nets.UNet``."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        num_downs: int = 8,
        base_width: int = 64,
        skips: bool = True,
        norm: str = "batch",
        bottleneck_norm: bool = False,
        dropout_rate: float = 0.5,
        dropout_layout: str = "paper",
    ):
        super().__init__()
        self.num_downs, self.skips = num_downs, skips
        widths = [min(base_width * 2**i, base_width * 8) for i in range(num_downs)]
        use_bias = norm != "batch"
        # In place, as in the PyTorch release. That it also activates the skips is harmless: a ReLU follows them.
        self.leaky_relu, self.relu = nn.LeakyReLU(0.2, inplace=True), nn.ReLU(inplace=True)
        self.layers = nn.ModuleDict()
        for i in range(1, num_downs + 1):
            channels = in_channels if i == 1 else widths[i - 2]
            self.layers[f"down_{i}"] = nn.Conv2d(channels, widths[i - 1], 4, 2, 1, bias=use_bias)
            if 1 < i < num_downs or (i == num_downs and bottleneck_norm):
                self.layers[f"down_{i}_norm"] = make_norm(norm, widths[i - 1])
        channels = widths[-1]
        for i in range(num_downs, 1, -1):
            self.layers[f"up_{i}"] = nn.ConvTranspose2d(channels, widths[i - 2], 4, 2, 1, bias=use_bias)
            self.layers[f"up_{i}_norm"] = make_norm(norm, widths[i - 2])
            distance = num_downs - i  # from the innermost decoder layer
            if distance < 3 if dropout_layout == "paper" else 1 <= distance < num_downs - 4:
                self.layers[f"up_{i}_dropout"] = nn.Dropout(dropout_rate)
            channels = widths[i - 2] * (2 if skips else 1)
        self.layers["up_1"] = nn.ConvTranspose2d(channels, out_channels, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Translate images; sides must be multiples of ``2 ** num_downs``."""
        encoded = []
        for i in range(1, self.num_downs + 1):
            x = self.layers[f"down_{i}"](x if i == 1 else self.leaky_relu(x))
            if f"down_{i}_norm" in self.layers:
                x = self.layers[f"down_{i}_norm"](x)
            encoded.append(x)
        for i in range(self.num_downs, 1, -1):
            x = self.layers[f"up_{i}_norm"](self.layers[f"up_{i}"](self.relu(x)))
            if f"up_{i}_dropout" in self.layers:
                x = self.layers[f"up_{i}_dropout"](x)
            if self.skips:
                x = torch.cat([encoded[i - 2], x], dim=1)
        return torch.tanh(self.layers["up_1"](self.relu(x)))


class PatchGAN(nn.Module):
    """PatchGAN, or with ``receptive_field=1`` PixelGAN, of Isola et al. 2017; returns logits."""

    def __init__(self, in_channels: int = 6, receptive_field: int = 70, base_width: int = 64, norm: str = "batch"):
        super().__init__()
        depth = RECEPTIVE_FIELDS[receptive_field]
        use_bias = norm != "batch"
        self.leaky_relu = nn.LeakyReLU(0.2, inplace=True)
        self.layers = nn.ModuleDict()
        if depth == 0:
            self.layers["conv_1"] = nn.Conv2d(in_channels, base_width, 1)
            self.layers["conv_2"] = nn.Conv2d(base_width, 2 * base_width, 1, bias=use_bias)
            self.layers["conv_2_norm"] = make_norm(norm, 2 * base_width)
            self.layers["logits"] = nn.Conv2d(2 * base_width, 1, 1, bias=use_bias)
            return
        self.layers["conv_1"] = nn.Conv2d(in_channels, base_width, 4, 2, 1)
        width = base_width
        for i in range(1, depth + 1):
            before, width = width, base_width * min(2**i, 8)
            self.layers[f"conv_{i + 1}"] = nn.Conv2d(before, width, 4, 2 if i < depth else 1, 1, bias=use_bias)
            self.layers[f"conv_{i + 1}_norm"] = make_norm(norm, width)
        self.layers["logits"] = nn.Conv2d(width, 1, 4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one logit per patch, [B, 1, h, w]."""
        for name, layer in self.layers.items():
            x = layer(x)
            if name == "conv_1" or name.endswith("_norm"):
                x = self.leaky_relu(x)
        return x


def init_weights(network: nn.Module) -> None:
    """Draw convolution kernels from N(0, 0.02) and batch-norm scales from N(1, 0.02); biases are 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, str, str, torch.Tensor]]:
    """Yield (Flax collection, layer, leaf, tensor) for every weight and running statistic."""
    for name, layer in network.layers.items():
        if isinstance(layer, nn.BatchNorm2d):
            yield "params", name, "scale", layer.weight
            yield "params", name, "bias", layer.bias
            yield "batch_stats", name, "mean", layer.running_mean
            yield "batch_stats", name, "var", layer.running_var
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            yield "params", name, "kernel", layer.weight
            if layer.bias is not None:
                yield "params", name, "bias", layer.bias


@torch.no_grad()
def load_variables(network: nn.Module, variables: Mapping[str, Any]) -> None:
    """Copy a Flax variables tree, ``{"params": ..., "batch_stats": ...}``, into a twin.

    Kernels [kH, kW, in, out] become [out, in, kH, kW]; transposed ones [kH, kW, out, in] become [in, out, kH, kW].

    Raises:
      ValueError: the tree has other leaves than the twin has weights.
    """
    tensors = list(_named_tensors(network))
    wanted = {(collection, layer, leaf) for collection, layer, leaf, _ in tensors}
    given = {
        (collection, layer, leaf)
        for collection, layers in variables.items()
        for layer, leaves in layers.items()
        for leaf in leaves
    }
    if wanted != given:
        raise ValueError(f"the trees differ in {sorted(wanted ^ given)}")
    for collection, layer, leaf, tensor in tensors:
        value = torch.from_numpy(np.array(variables[collection][layer][leaf]))
        value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
        if value.shape != tensor.shape:
            raise ValueError(f"{layer}/{leaf} is {tuple(value.shape)} in PyTorch's order, not {tuple(tensor.shape)}")
        tensor.copy_(value)


def to_flax(network: nn.Module, of: Callable[[torch.Tensor], torch.Tensor | None] = lambda t: t) -> dict[str, Any]:
    """Return a twin's tensors as a Flax variables tree of numpy arrays.

    Args:
      network: a twin.
      of: what to take of each weight or running statistic; ``lambda t: t.grad`` collects gradients. None is left out.
    """
    tree: dict[str, Any] = {}
    for collection, layer, leaf, tensor in _named_tensors(network):
        value = of(tensor)
        if value is not None:
            value = value.detach()
            value = value.permute(2, 3, 1, 0) if value.ndim == 4 else value
            tree.setdefault(collection, {}).setdefault(layer, {})[leaf] = value.numpy().copy()
    return tree


def make_adam(network: nn.Module) -> torch.optim.Adam:
    """Return the papers' optimizer."""
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=1e-8)


def pix2pix_step(
    gen: nn.Module,
    disc: nn.Module,
    gen_opt: torch.optim.Optimizer,
    disc_opt: torch.optim.Optimizer,
    real_a: torch.Tensor,
    real_b: torch.Tensor,
    *,
    lambda_l1: float = 100.0,
    conditional: bool = True,
) -> dict[str, float]:
    """Update both players once, in the PyTorch release's order, and return the losses by p2p_jax's names."""
    bce, l1 = nn.functional.binary_cross_entropy_with_logits, nn.functional.l1_loss

    def discriminate(image: torch.Tensor) -> torch.Tensor:
        return disc(torch.cat([real_a, image], dim=1) if conditional else image)

    fake_b = gen(real_a)

    disc.requires_grad_(True)
    disc_opt.zero_grad()
    logits_fake = discriminate(fake_b.detach())
    disc_fake = bce(logits_fake, torch.zeros_like(logits_fake))
    logits_real = discriminate(real_b)
    disc_real = bce(logits_real, torch.ones_like(logits_real))
    (0.5 * (disc_fake + disc_real)).backward()
    disc_opt.step()

    disc.requires_grad_(False)
    gen_opt.zero_grad()
    logits = discriminate(fake_b)
    gen_gan = bce(logits, torch.ones_like(logits))
    gen_l1 = l1(fake_b, real_b)
    (gen_gan + lambda_l1 * gen_l1).backward()
    gen_opt.step()

    losses = {"disc/fake": disc_fake, "disc/real": disc_real, "gen/gan": gen_gan, "gen/l1": gen_l1}
    return {name: value.item() for name, value in losses.items()}
