"""Networks of the papers as Flax modules; they need only JAX and Flax.

Your own network is any Flax module that a config names: ``generator.network = "my_nets:Tiny"`` is called as
``(x, *, train, dropout)``, ``discriminator.network`` as ``(x, *, train)``, which may return several maps of logits; its
other attributes are options of the section, and those that follow from the rest of the config (out_channels, dtype,
param_dtype, axis_name) are given to it if it has them. ``p2p_jax.objectives.make_network`` does that. A generator that
takes `until` besides, and has ``feature_layers``, serves CUT without further options; see ``ResNet``.
"""

from p2p_jax.nets.mobile_resnet import MobileResNet
from p2p_jax.nets.multiscale import MultiScalePatchGAN
from p2p_jax.nets.patchgan import RECEPTIVE_FIELDS, PatchGAN
from p2p_jax.nets.resnet import ResNet, ResNet6, ResNet9
from p2p_jax.nets.unet import EncoderDecoder, UNet, UNet128, UNet256
from p2p_jax.nets.unet_discriminator import UNetDiscriminator
from p2p_jax.nets.unet_vit import UNetViT

__all__ = [
    "EncoderDecoder",
    "MobileResNet",
    "MultiScalePatchGAN",
    "PatchGAN",
    "RECEPTIVE_FIELDS",
    "ResNet",
    "ResNet6",
    "ResNet9",
    "UNet",
    "UNet128",
    "UNet256",
    "UNetDiscriminator",
    "UNetViT",
]
