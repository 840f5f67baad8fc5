"""The experiments that are measured: the published ones, at any size and width."""

from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import complete

OBJECTIVES = ("pix2pix", "cyclegan")


def make_config(
    objective: str,
    size: int = 256,
    batch: int = 1,
    *,
    dtype: str = "float32",
    width: int = 64,
    identity: bool = True,
    **options: Any,
) -> ConfigDict:
    """Return the config of a published experiment.

    Args:
      objective: "pix2pix" (U-Net, 70x70 PatchGAN) or "cyclegan" (two ResNet-9, two 70x70 PatchGANs, pool of 50).
      size: side of the images in pixels; of a U-Net a power of two.
      batch: images, or unpaired couples, in a step.
      dtype: of the computation.
      width: channels of the first layer of every network; 64 is published.
      identity: with CycleGAN's identity loss, as in the PyTorch release.
      **options: other options of the config's first level.
    """
    if objective == "pix2pix":
        generator = {"network": "p2p_jax.nets:UNet", "num_downs": min(8, size.bit_length() - 1), "base_width": width}
        sections = {"generator": generator, "discriminator": {"base_width": width}}
    else:
        sections = {
            "generator": {"network": "p2p_jax.nets:ResNet", "num_blocks": 9, "base_width": width},
            "discriminator": {"receptive_field": 70, "base_width": width, "norm": "instance"},
            "loss": {"lambda_identity": 0.5 if identity else 0.0, "pool_size": 50},
        }
    data = {"load_size": size, "crop_size": size} | options.pop("data", {})
    given = {"objective": f"p2p_jax:{objective}", "batch_size": batch, "dtype": dtype, "data": data}
    return complete(given | sections | options)
