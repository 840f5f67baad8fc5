"""Networks of the papers as Flax modules; they need JAX and Flax alone.

One of your own is any Flax module that a config names: ``generator.network = "my_nets:Tiny"`` is called as
``(x, *, train, dropout)``, ``discriminator.network`` as ``(x, *, train)``; its other attributes are options of the
section, and those that follow from the rest of the config (out_channels, dtype, param_dtype, axis_name) are given to it
if it has them. ``p2p_jax.objectives.make_network`` does that.
"""

from p2p_jax.nets.mobile_resnet import MobileResNet
from p2p_jax.nets.patchgan import RECEPTIVE_FIELDS, PatchGAN
from p2p_jax.nets.resampling import halve
from p2p_jax.nets.resnet import ResNet, ResNet6, ResNet9
from p2p_jax.nets.unet import EncoderDecoder, UNet, UNet128, UNet256

__all__ = [
    "EncoderDecoder",
    "MobileResNet",
    "PatchGAN",
    "RECEPTIVE_FIELDS",
    "ResNet",
    "ResNet6",
    "ResNet9",
    "UNet",
    "UNet128",
    "UNet256",
    "halve",
]
