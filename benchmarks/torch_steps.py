"""PyTorch's side of the benchmarks: training steps and translation, eager as people run it, and at its best."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

# Not "from tests import": torch-fidelity installs a package of that name.
sys.path.append(str(Path(__file__).parent.parent / "tests"))

import torch_twin


class Variant(NamedTuple):
    """How PyTorch is run.

    Attributes:
      tuned: channels-last memory, fused Adam, TF32 for matrix products too, images sent from pinned memory.
      compiled: the mode of ``torch.compile``; None leaves the networks eager.

    Note:
      Tuned but not compiled, CycleGAN's gradients are wrong on CPUs at batch 1: PyTorch 2.13's instance norm mistakes
      the layout of what comes back to it. Compiled they are right.
    """

    tuned: bool = False
    compiled: str | None = None


VARIANTS = {
    "eager": Variant(),  # with cuDNN's benchmark mode, as in the PyTorch release
    "best": Variant(tuned=True, compiled="default"),
    "graphs": Variant(tuned=True, compiled="reduce-overhead"),  # CUDA graphs besides
}


class _InBfloat16(nn.Module):
    """A network under autocast; its result is float32 again."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            y = self.network(x)
        return y.float()


def prepare(network: nn.Module, variant: Variant, device: str, dtype: str) -> nn.Module:
    """Put a network on "cpu" or "cuda", in training mode, in the way of a variant; draws its weights."""
    torch.backends.cudnn.benchmark = True
    torch_twin.init_weights(network)
    network.train().to(device)
    if variant.tuned:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        network.to(memory_format=torch.channels_last)
    if dtype == "bfloat16":
        network = _InBfloat16(network)
    if variant.compiled is not None:
        # A discriminator is compiled for each kind of call; beyond this number PyTorch would go on without a word.
        torch._dynamo.config.recompile_limit = 64
        network = torch.compile(network, mode=variant.compiled)
    return network


def sender(images: np.ndarray, variant: Variant, device: str) -> Callable[[], torch.Tensor]:
    """Return a function that sends images [B, H, W, C] to the device, as [B, C, H, W]."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    memory_format = torch.channels_last if variant.tuned else torch.contiguous_format
    tensor = tensor.contiguous(memory_format=memory_format)
    if variant.tuned and device == "cuda":
        tensor = tensor.pin_memory()
    return lambda: tensor.to(device, non_blocking=True)


def make_networks(objective: str, size: int, width: int = 64) -> list[nn.Module]:
    """Return the twins of the networks of an experiment: generators in the first half, discriminators in the second."""
    if objective == "pix2pix":
        num_downs = min(8, size.bit_length() - 1)
        return [torch_twin.UNet(num_downs=num_downs, base_width=width), torch_twin.PatchGAN(base_width=width)]
    networks: list[nn.Module] = [torch_twin.ResNet(base_width=width) for _ in range(2)]
    return networks + [torch_twin.PatchGAN(3, base_width=width, norm="instance") for _ in range(2)]


def make_step(
    objective: str,
    variant: str,
    pair: tuple[np.ndarray, np.ndarray],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    width: int = 64,
) -> Callable[[], dict[str, torch.Tensor]]:
    """Return a function that trains the twin of an experiment for one step.

    Args:
      objective: "pix2pix" or "cyclegan", with the networks of ``experiments.make_config``.
      variant: of VARIANTS.
      pair: two batches [B, H, W, C] float32 in [-1, 1], which travel to the device at every step as in training.
      device: "cpu" or "cuda".
      dtype: "bfloat16" runs the networks under autocast.
      width: channels of the first layer of every network.
    """
    torch.manual_seed(0)
    way = VARIANTS[variant]
    networks = make_networks(objective, pair[0].shape[1], width)
    update: Callable[..., dict[str, torch.Tensor]] = torch_twin.pix2pix_step
    if objective == "cyclegan":
        pools = [torch_twin.HistoryPool() for _ in range(2)]
        # CUDA graphs write every step's fakes to the same place: what is kept must be a copy.
        pool_a, pool_b = (lambda fakes, pool=pool: pool(fakes.clone()) for pool in pools)
        update = partial(torch_twin.cyclegan_step, pool_a=pool_a, pool_b=pool_b)
    half = len(networks) // 2
    players = [prepare(network, way, device, dtype) for network in networks]
    fused = True if way.tuned else None
    optimizers = [torch_twin.make_adam(*side, fused=fused) for side in (players[:half], players[half:])]
    send = [sender(images, way, device) for images in pair]

    def step() -> dict[str, torch.Tensor]:
        if way.compiled == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return update(*players, *optimizers, *(images() for images in send))

    return step


def make_translator(
    objective: str, variant: str, size: int, *, device: str = "cpu", width: int = 64, running: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that translates images [B, H, W, 3] uint8 to as many.

    Args:
      objective: "pix2pix" or "cyclegan".
      variant: of VARIANTS.
      size: side of the images.
      device: "cpu" or "cuda".
      width: channels of the first layer.
      running: normalise by running statistics and drop nothing out (``eval()``), as people do who translate batches;
        else, as the PyTorch release, by the statistics of the batch, with dropout.
    """
    torch.manual_seed(0)
    way = VARIANTS[variant]
    generator = prepare(make_networks(objective, size, width)[0], way, device, "float32")
    generator.train(not running)

    @torch.inference_mode()
    def translate(images: np.ndarray) -> np.ndarray:
        x = sender(images, way, device)()
        y = generator(x.float() / 127.5 - 1)
        return ((y.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    return translate


def find_device(platform: str) -> str:
    """Return PyTorch's name for the device on which JAX runs ("cpu" or "gpu").

    Raises:
      RuntimeError: PyTorch cannot use it.
    """
    if platform == "cpu":
        return "cpu"
    if platform != "gpu" or not torch.cuda.is_available():
        raise RuntimeError(f"this PyTorch ({torch.__version__}) cannot use the {platform} that JAX runs on")
    return "cuda"


def finish(device: str) -> None:
    """Wait for what is under way."""
    if device == "cuda":
        torch.cuda.synchronize()


def device_peak(device: str) -> float:
    """Return the most memory that tensors have taken on the GPU, in GiB; 0 without one."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
