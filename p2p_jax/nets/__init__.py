"""Networks of the papers as Flax modules; they need JAX and Flax alone."""

from p2p_jax.nets.patchgan import RECEPTIVE_FIELDS, PatchGAN
from p2p_jax.nets.resnet import ResNet, ResNet6, ResNet9
from p2p_jax.nets.unet import EncoderDecoder, UNet, UNet128, UNet256

__all__ = [
    "EncoderDecoder",
    "PatchGAN",
    "RECEPTIVE_FIELDS",
    "ResNet",
    "ResNet6",
    "ResNet9",
    "UNet",
    "UNet128",
    "UNet256",
]
