"""Twins of the PyTorch release's networks, with its names of modules and with the layouts of its earlier years."""

import torch
from torch import nn


def norm_layer(kind, channels):
    """Return "batch", "instance", "instance_affine", "instance_tracked" or "none"."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    return nn.InstanceNorm2d(channels, affine=kind == "instance_affine", track_running_stats=kind == "instance_tracked")


class UNetLevel(nn.Module):
    """One level of the U-Net with everything below it."""

    def __init__(
        self, outer, inner, child, *, channels=None, place="middle", norm="batch", bias=False, order="skip_up"
    ):
        super().__init__()
        self.outermost, self.order = place == "outermost", order
        down = nn.Conv2d(channels or outer, inner, 4, 2, 1, bias=bias)
        below = inner if place == "innermost" else 2 * inner
        if self.outermost:
            up = nn.ConvTranspose2d(below, outer, 4, 2, 1)
            layers = [down, child, nn.ReLU(), up, nn.Tanh()]
        else:
            up = nn.ConvTranspose2d(below, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down]
            layers += [] if place == "innermost" else [norm_layer(norm, inner), child]
            layers += [nn.ReLU(), up, norm_layer(norm, outer)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        """Apply to [B, C, H, W]."""
        y = self.model(x)
        if self.outermost:
            return y
        return torch.cat([x, y] if self.order == "skip_up" else [y, x], 1)


class UNet(nn.Module):
    """The U-Net generator, without dropout."""

    def __init__(self, in_channels, out_channels, num_downs, width, norm="batch", bias=None, order="skip_up"):
        super().__init__()
        bias = norm.startswith("instance") if bias is None else bias
        settings = {"norm": norm, "bias": bias, "order": order}
        widths = [width * min(2**i, 8) for i in range(num_downs)]
        level = UNetLevel(widths[-2], widths[-1], None, place="innermost", **settings)
        for i in range(num_downs - 2, 0, -1):
            level = UNetLevel(widths[i - 1], widths[i], level, **settings)
        self.model = UNetLevel(out_channels, width, level, channels=in_channels, place="outermost", **settings)

    def forward(self, x):
        """Translate [B, C, H, W]."""
        return self.model(x)


class Residual(nn.Module):
    """A residual block."""

    def __init__(self, width, norm, bias, padded, dropout):
        super().__init__()
        conv = [nn.Conv2d(width, width, 3, padding=int(not padded), bias=bias), norm_layer(norm, width)]
        again = [nn.Conv2d(width, width, 3, padding=int(not padded), bias=bias), norm_layer(norm, width)]
        pad, noise = [nn.ReflectionPad2d(1)] * padded, [nn.Dropout(0.5)] * dropout
        self.conv_block = nn.Sequential(*pad, *conv, nn.ReLU(), *noise, *pad, *again)

    def forward(self, x):
        """Apply to [B, C, H, W]."""
        return x + self.conv_block(x)


class ResNet(nn.Module):
    """The ResNet generator; ``padded=False`` is that of some days in July 2017."""

    def __init__(
        self, in_channels, out_channels, num_blocks, width, norm="instance", bias=None, padded=True, dropout=0
    ):
        super().__init__()
        bias = norm.startswith("instance") if bias is None else bias
        pad, zeros = [nn.ReflectionPad2d(3)] * padded, 3 * int(not padded)
        layers = [*pad, nn.Conv2d(in_channels, width, 7, padding=zeros, bias=bias), norm_layer(norm, width), nn.ReLU()]
        for w in (width, 2 * width):
            layers += [nn.Conv2d(w, 2 * w, 3, 2, 1, bias=bias), norm_layer(norm, 2 * w), nn.ReLU()]
        layers += [Residual(4 * width, norm, bias, padded, dropout) for _ in range(num_blocks)]
        for w in (4 * width, 2 * width):
            layers += [nn.ConvTranspose2d(w, w // 2, 3, 2, 1, 1, bias=bias), norm_layer(norm, w // 2), nn.ReLU()]
        layers += [*pad, nn.Conv2d(width, out_channels, 7, padding=zeros), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        """Translate [B, C, H, W]."""
        return self.model(x)


class Separable(nn.Module):
    """The separable convolution of GAN-Compression: always with biases, and an instance norm inside."""

    def __init__(self, inputs, outputs):
        super().__init__()
        depthwise = nn.Conv2d(inputs, inputs, 3, groups=inputs)
        self.conv = nn.Sequential(depthwise, nn.InstanceNorm2d(inputs), nn.Conv2d(inputs, outputs, 1))

    def forward(self, x):
        """Apply to [B, C, H, W], which is padded already."""
        return self.conv(x)


class MobileResidual(nn.Module):
    """A residual block of separable convolutions."""

    def __init__(self, width, inside, norm):
        super().__init__()
        first = [nn.ReflectionPad2d(1), Separable(width, inside), norm_layer(norm, inside), nn.ReLU(), nn.Dropout(0.0)]
        second = [nn.ReflectionPad2d(1), Separable(inside, width), norm_layer(norm, width)]
        self.conv_block = nn.Sequential(*first, *second)

    def forward(self, x):
        """Apply to [B, C, H, W]."""
        return x + self.conv_block(x)


class MobileResNet(nn.Module):
    """The generator of GAN-Compression, whole or with the widths of a search; clamps its input, as theirs.

    Args:
      in_channels: of images that come in.
      out_channels: of those that go out.
      widths: of the stem, two downsamplings, the inside of every block, and two upsamplings, before multiplication.
      norm: see ``norm_layer``.
    """

    def __init__(self, in_channels, out_channels, widths, norm="instance"):
        super().__init__()
        bias, stem, (*blocks, up_2, up_1) = norm.startswith("instance"), widths[0], widths[3:]
        down_1, down_2 = 2 * widths[1], 4 * widths[2]
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, stem, 7, bias=bias), norm_layer(norm, stem), nn.ReLU()]
        for before, after in ((stem, down_1), (down_1, down_2)):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=bias), norm_layer(norm, after), nn.ReLU()]
        layers += [MobileResidual(down_2, 4 * width, norm) for width in blocks]
        for before, after in ((down_2, 2 * up_2), (2 * up_2, up_1)):
            layers += [nn.ConvTranspose2d(before, after, 3, 2, 1, 1, bias=bias), norm_layer(norm, after), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(up_1, out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        """Translate [B, C, H, W]."""
        return self.model(x.clamp(-1, 1))


class PatchGAN(nn.Module):
    """The discriminator with that many convolutions of stride 2."""

    def __init__(self, in_channels, num_layers, width, norm="batch", bias=None, padding=1):
        super().__init__()
        bias = norm.startswith("instance") if bias is None else bias
        layers = [nn.Conv2d(in_channels, width, 4, 2, padding), nn.LeakyReLU(0.2)]
        before = width
        for i in range(1, num_layers + 1):
            after, stride = width * min(2**i, 8), 2 if i < num_layers else 1
            layers += [nn.Conv2d(before, after, 4, stride, padding, bias=bias), norm_layer(norm, after)]
            layers, before = [*layers, nn.LeakyReLU(0.2)], after
        self.model = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, padding))

    def forward(self, x):
        """Return logits of [B, C, H, W]."""
        return self.model(x)


def blur_filter(taps, channels):
    """Return [channels, 1, k, k], of which the sum is 1 for each channel."""
    taps = torch.tensor(taps)
    return (torch.outer(taps, taps) / taps.sum() ** 2).repeat(channels, 1, 1, 1)


class Downsample(nn.Module):
    """CUT's smaller maps: blurred, reflected at the border, every second pixel."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("filt", blur_filter([1.0, 2.0, 1.0], channels))

    def forward(self, x):
        """Apply to [B, C, H, W]."""
        padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return nn.functional.conv2d(padded, self.filt, stride=2, groups=x.shape[1])


class Upsample(nn.Module):
    """CUT's larger maps: zeros between the pixels, blurred, with the border repeated before and cut off after."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("filt", 4 * blur_filter([1.0, 3.0, 3.0, 1.0], channels))

    def forward(self, x):
        """Apply to [B, C, H, W]."""
        padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        y = nn.functional.conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=x.shape[1])
        return y[:, :, 1:-1, 1:-1]


class SmoothResNet(nn.Module):
    """CUT's ResNet generator; `down` and `up` say which of its resamplings blur."""

    def __init__(self, in_channels, out_channels, num_blocks, width, norm="instance", dropout=0, down=True, up=True):
        super().__init__()
        bias = norm.startswith("instance")
        layers = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, width, 7, bias=bias),
            norm_layer(norm, width),
            nn.ReLU(),
        ]
        for w in (width, 2 * width):
            layers += [nn.Conv2d(w, 2 * w, 3, 1 if down else 2, 1, bias=bias), norm_layer(norm, 2 * w), nn.ReLU()]
            layers += [Downsample(2 * w)] * down
        layers += [Residual(4 * width, norm, bias, True, dropout) for _ in range(num_blocks)]
        for w in (4 * width, 2 * width):
            if up:
                layers += [Upsample(w), nn.Conv2d(w, w // 2, 3, 1, 1, bias=bias)]
            else:
                layers += [nn.ConvTranspose2d(w, w // 2, 3, 2, 1, 1, bias=bias)]
            layers += [norm_layer(norm, w // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh())

    def forward(self, x):
        """Translate [B, C, H, W]."""
        return self.model(x)


class SmoothPatchGAN(nn.Module):
    """CUT's discriminator with that many downsamplings."""

    def __init__(self, in_channels, num_layers, width, norm="instance"):
        super().__init__()
        layers, before = [nn.Conv2d(in_channels, width, 4, 1, 1), nn.LeakyReLU(0.2), Downsample(width)], width
        for i in range(1, num_layers + 1):
            after = width * min(2**i, 8)
            layers += [nn.Conv2d(before, after, 4, 1, 1, bias=norm != "batch"), norm_layer(norm, after)]
            layers += [nn.LeakyReLU(0.2), *[Downsample(after)] * (i < num_layers)]
            before = after
        self.model = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, x):
        """Return logits of [B, C, H, W]."""
        return self.model(x)


class PixelGAN(nn.Module):
    """The 1x1 discriminator."""

    def __init__(self, in_channels, width, norm="batch", bias=None):
        super().__init__()
        bias = norm.startswith("instance") if bias is None else bias
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            norm_layer(norm, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, x):
        """Return logits of [B, C, H, W]."""
        return self.net(x)


@torch.no_grad()
def randomise(network, seed):
    """Give every weight, bias and running statistic a random value that keeps signals in proportion."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor):
        return torch.randn(tensor.shape, generator=generator)

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.copy_(noise(module.weight) * (1.5 / module.weight[0].numel() ** 0.5))
            if module.bias is not None:
                module.bias.copy_(0.3 * noise(module.bias))
        elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            if module.affine:
                module.weight.copy_(1 + 0.3 * noise(module.weight))
                module.bias.copy_(0.3 * noise(module.bias))
            if module.running_mean is not None:
                module.running_mean.copy_(0.3 * noise(module.running_mean))
                module.running_var.copy_(0.5 + noise(module.running_var).abs())
    return network
