"""Which part of the images metrics are computed on, in words."""

from ml_collections import ConfigDict

from p2p_jax.config.options import CROPPED, crop_shape
from p2p_jax.data import Split


def in_evaluation(opened: Split, data: ConfigDict) -> str:
    """Return which part of a split is evaluated."""
    if opened.whole:
        return "whole images" if opened.paired else "a grid of crops that covers every image"
    return in_validation(data)


def in_validation(data: ConfigDict) -> str:
    """Return which part of the images validation during training sees."""
    if data.preprocess in CROPPED:
        height, width = crop_shape(data)
        return f"centre crops of {width}x{height}"
    return "whole images, at the size that the network sees"
