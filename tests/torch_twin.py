"""PyTorch twins of the networks and of the training steps: a reference for parity tests and for benchmarks.

Written from the papers and from the facts about the PyTorch release, as an ordinary PyTorch programmer would. Layers
carry the names that p2p_jax's Flax modules give them ("block_1/conv_1" in a nested one), so that weights map by name.
Images are [B, C, H, W] in [-1, 1].
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import nn

RECEPTIVE_FIELDS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation layer called `kind`: "batch", "instance", "instance_tracked" or "none"."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    return nn.InstanceNorm2d(channels, track_running_stats=kind == "instance_tracked")


class ResizeConv2d(nn.Conv2d):
    """A 3x3 convolution of the image enlarged to twice its size by repeating pixels."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any):
        super().__init__(in_channels, out_channels, 3, 1, 1, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to [B, C, H, W]."""
        return super().forward(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))


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
        upsampling: str = "transposed",
    ):
        super().__init__()
        self.num_downs, self.skips = num_downs, skips
        up = ResizeConv2d
        if upsampling == "transposed":
            up = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)
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
            self.layers[f"up_{i}"] = up(channels, widths[i - 2], bias=use_bias)
            self.layers[f"up_{i}_norm"] = make_norm(norm, widths[i - 2])
            distance = num_downs - i  # from the innermost decoder layer
            if distance < 3 if dropout_layout == "paper" else 1 <= distance < num_downs - 4:
                self.layers[f"up_{i}_dropout"] = nn.Dropout(dropout_rate)
            channels = widths[i - 2] * (2 if skips else 1)
        self.layers["up_1"] = up(channels, out_channels)

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


class ResNet(nn.Module):
    """ResNet generator of Zhu et al. 2017; attributes as of ``p2p_jax.nets.ResNet``."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        num_blocks: int = 9,
        base_width: int = 64,
        norm: str = "instance",
        padding: str = "reflect",
        dropout_rate: float = 0.0,
        upsampling: str = "transposed",
    ):
        super().__init__()
        self.num_blocks = num_blocks
        padding_mode, use_bias = "zeros" if padding == "zero" else padding, norm != "batch"
        conv = partial(nn.Conv2d, padding_mode=padding_mode, bias=use_bias)
        up = partial(ResizeConv2d, padding_mode=padding_mode, bias=use_bias)
        if upsampling == "transposed":
            up = partial(nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1, bias=use_bias)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(dropout_rate)
        self.layers = nn.ModuleDict()

        def add(name: str, layer: nn.Module) -> None:
            self.layers[name], self.layers[f"{name}_norm"] = layer, make_norm(norm, layer.out_channels)

        width = base_width
        add("stem", conv(in_channels, width, 7, padding=3))
        add("down_1", nn.Conv2d(width, 2 * width, 3, 2, 1, bias=use_bias))
        add("down_2", nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=use_bias))
        for i in range(1, num_blocks + 1):
            add(f"block_{i}/conv_1", conv(4 * width, 4 * width, 3, padding=1))
            add(f"block_{i}/conv_2", conv(4 * width, 4 * width, 3, padding=1))
        add("up_2", up(4 * width, 2 * width))
        add("up_1", up(2 * width, width))
        self.layers["output"] = nn.Conv2d(width, out_channels, 7, padding=3, padding_mode=padding_mode)

    def _normalised(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.layers[f"{name}_norm"](self.layers[name](x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Translate images; sides must be multiples of 4."""
        for name in ("stem", "down_1", "down_2"):
            x = self.relu(self._normalised(name, x))
        for i in range(1, self.num_blocks + 1):
            inside = self.dropout(self.relu(self._normalised(f"block_{i}/conv_1", x)))
            x = x + self._normalised(f"block_{i}/conv_2", inside)
        for name in ("up_2", "up_1"):
            x = self.relu(self._normalised(name, x))
        return torch.tanh(self.layers["output"](x))


class MobileResNet(nn.Module):
    """ResNet of separable convolutions (Li et al. 2020); attributes as of ``p2p_jax.nets.MobileResNet``."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        num_blocks: int = 9,
        base_width: int = 64,
        channels: str = "",
        norm: str = "instance",
        padding: str = "reflect",
    ):
        super().__init__()
        self.num_blocks = num_blocks
        widths = [int(width) for width in channels.split("_")] if channels else [base_width] * (5 + num_blocks)
        stem, down_1, down_2 = widths[0], 2 * widths[1], 4 * widths[2]
        inside, (up_2, up_1) = [4 * width for width in widths[3:-2]], (2 * widths[-2], widths[-1])
        inside = inside * num_blocks if len(inside) == 1 else inside
        padding_mode, use_bias = "zeros" if padding == "zero" else padding, norm != "batch"
        conv = partial(nn.Conv2d, padding_mode=padding_mode, bias=use_bias)
        up = partial(nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1, bias=use_bias)
        self.relu, self.layers = nn.ReLU(inplace=True), nn.ModuleDict()

        def add(name: str, layer: nn.Module) -> None:
            self.layers[name], self.layers[f"{name}_norm"] = layer, make_norm(norm, layer.out_channels)

        def add_separable(name: str, before: int, after: int) -> None:
            depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before, padding_mode=padding_mode)
            self.layers[f"{name}/depthwise"] = depthwise
            self.layers[f"{name}/norm"] = nn.InstanceNorm2d(before)
            self.layers[f"{name}/pointwise"] = nn.Conv2d(before, after, 1)
            self.layers[f"{name}_norm"] = make_norm(norm, after)

        add("stem", conv(in_channels, stem, 7, padding=3))
        add("down_1", nn.Conv2d(stem, down_1, 3, 2, 1, bias=use_bias))
        add("down_2", nn.Conv2d(down_1, down_2, 3, 2, 1, bias=use_bias))
        for i, width in enumerate(inside, 1):
            add_separable(f"block_{i}/conv_1", down_2, width)
            add_separable(f"block_{i}/conv_2", width, down_2)
        add("up_2", up(down_2, up_2))
        add("up_1", up(up_2, up_1))
        self.layers["output"] = nn.Conv2d(up_1, out_channels, 7, padding=3, padding_mode=padding_mode)

    def _apply_all(self, x: torch.Tensor, *names: str) -> torch.Tensor:
        for name in names:
            x = self.layers[name](x)
        return x

    def _separable(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self._apply_all(x, f"{name}/depthwise", f"{name}/norm", f"{name}/pointwise", f"{name}_norm")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Translate images; sides must be multiples of 4."""
        for name in ("stem", "down_1", "down_2"):
            x = self.relu(self._apply_all(x, name, f"{name}_norm"))
        for i in range(1, self.num_blocks + 1):
            inside = self.relu(self._separable(f"block_{i}/conv_1", x))
            x = x + self._separable(f"block_{i}/conv_2", inside)
        for name in ("up_2", "up_1"):
            x = self.relu(self._apply_all(x, name, f"{name}_norm"))
        return torch.tanh(self.layers["output"](x))


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


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield ("COLLECTION/LAYER/LEAF" as in Flax, tensor) for every weight and running statistic."""
    for name, layer in network.layers.items():
        if isinstance(layer, nn.BatchNorm2d):
            yield f"params/{name}/scale", layer.weight
            yield f"params/{name}/bias", layer.bias
            yield f"batch_stats/{name}/mean", layer.running_mean
            yield f"batch_stats/{name}/var", layer.running_var
        elif isinstance(layer, nn.InstanceNorm2d) and layer.track_running_stats:
            yield f"batch_stats/{name}/mean", layer.running_mean
            yield f"batch_stats/{name}/var", layer.running_var
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            yield f"params/{name}/kernel", layer.weight
            if layer.bias is not None:
                yield f"params/{name}/bias", layer.bias


@torch.no_grad()
def load_variables(network: nn.Module, variables: Mapping[str, Any]) -> None:
    """Copy a Flax variables tree, ``{"params": ..., "batch_stats": ...}``, into a twin.

    Kernels [kH, kW, in, out] become [out, in, kH, kW]; transposed ones [kH, kW, out, in] become [in, out, kH, kW].

    Raises:
      ValueError: the tree has other leaves than the twin has weights.
    """
    tensors, values = dict(_named_tensors(network)), flatten_dict(variables, sep="/")
    if tensors.keys() != values.keys():
        raise ValueError(f"the trees differ in {sorted(tensors.keys() ^ values.keys())}")
    for name, tensor in tensors.items():
        value = torch.from_numpy(np.array(values[name]))
        value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
        if value.shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(value.shape)} in PyTorch's order, not {tuple(tensor.shape)}")
        tensor.copy_(value)


def to_flax(network: nn.Module, of: Callable[[torch.Tensor], torch.Tensor | None] = lambda t: t) -> dict[str, Any]:
    """Return a twin's tensors as a Flax variables tree of numpy arrays.

    Args:
      network: a twin.
      of: what to take of each weight or running statistic; ``lambda t: t.grad`` collects gradients. None is left out.
    """
    values = {}
    for name, tensor in _named_tensors(network):
        value = of(tensor)
        if value is not None:
            value = value.detach().cpu()
            value = value.permute(2, 3, 1, 0) if value.ndim == 4 else value
            values[name] = value.numpy().copy()
    return unflatten_dict(values, sep="/")


def make_adam(*networks: nn.Module, fused: bool | None = None) -> torch.optim.Adam:
    """Return the papers' optimizer, one for the weights of all the networks; `fused` as PyTorch has it."""
    parameters = itertools.chain.from_iterable(network.parameters() for network in networks)
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999), eps=1e-8, fused=fused)


class HistoryPool:
    """The last fakes of a generator, for its discriminator to see old ones too (Shrivastava et al. 2017)."""

    def __init__(self, size: int = 50):
        self.size, self.images = size, []

    def __call__(self, fakes: torch.Tensor) -> torch.Tensor:
        """Store fakes, [B, C, H, W]; returns each of them, or by chance once the pool is full an old one instead."""
        returned = []
        for fake in fakes:
            if len(self.images) < self.size:
                self.images.append(fake)
            elif random.random() < 0.5:
                place = random.randrange(self.size)
                self.images[place], fake = fake, self.images[place]
            returned.append(fake)
        return torch.stack(returned)


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
) -> dict[str, torch.Tensor]:
    """Update both players once, in the PyTorch release's order, and return the losses by p2p_jax's names.

    They stay on the device, as in the release, which looks at them now and then.
    """
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
    return {name: value.detach() for name, value in losses.items()}


def cyclegan_step(
    gen_ab: nn.Module,
    gen_ba: nn.Module,
    disc_a: nn.Module,
    disc_b: nn.Module,
    gen_opt: torch.optim.Optimizer,
    disc_opt: torch.optim.Optimizer,
    real_a: torch.Tensor,
    real_b: torch.Tensor,
    *,
    lambda_cycle: float = 10.0,
    lambda_identity: float = 0.5,
    pool_a: Callable[[torch.Tensor], torch.Tensor] | None = None,
    pool_b: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Update both generators, then both discriminators, and return the losses by p2p_jax's names.

    Generators translate A to B and B to A; discriminators judge images of A and of B; each optimizer holds both
    networks of its side. `lambda_identity` is a fraction of `lambda_cycle`. A pool exchanges the fakes of a domain for
    those that its discriminator shall see; None leaves them.
    """
    l1 = nn.functional.l1_loss

    def mse(logits: torch.Tensor, label: float) -> torch.Tensor:
        return nn.functional.mse_loss(logits, torch.full_like(logits, label))

    losses = {}
    discs = nn.ModuleList([disc_a, disc_b])

    discs.requires_grad_(False)
    gen_opt.zero_grad()
    fake_b, fake_a = gen_ab(real_a), gen_ba(real_b)
    losses["gen/gan_ab"], losses["gen/gan_ba"] = mse(disc_b(fake_b), 1.0), mse(disc_a(fake_a), 1.0)
    losses["gen/cycle_a"], losses["gen/cycle_b"] = l1(gen_ba(fake_b), real_a), l1(gen_ab(fake_a), real_b)
    losses["gen/identity_a"], losses["gen/identity_b"] = l1(gen_ba(real_a), real_a), l1(gen_ab(real_b), real_b)
    losses["gen/total"] = (
        losses["gen/gan_ab"]
        + losses["gen/gan_ba"]
        + lambda_cycle * (losses["gen/cycle_a"] + losses["gen/cycle_b"])
        + lambda_cycle * lambda_identity * (losses["gen/identity_a"] + losses["gen/identity_b"])
    )
    losses["gen/total"].backward()
    gen_opt.step()

    discs.requires_grad_(True)
    disc_opt.zero_grad()
    for domain, disc, real, fake, pool in (
        ("a", disc_a, real_a, fake_a.detach(), pool_a),
        ("b", disc_b, real_b, fake_b.detach(), pool_b),
    ):
        losses[f"disc/real_{domain}"] = mse(disc(real), 1.0)
        losses[f"disc/fake_{domain}"] = mse(disc(pool(fake) if pool else fake), 0.0)
        (0.5 * (losses[f"disc/real_{domain}"] + losses[f"disc/fake_{domain}"])).backward()
    disc_opt.step()

    return {name: value.detach() for name, value in losses.items()}
