"""Horses to zebras and back: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/horse2zebra.py --workdir runs/horse2zebra

Data: 1,067 + 1,334 training and 120 + 140 test images (117 MB, downloaded by TensorFlow Datasets). Hardware: a GPU with
12 GB. Time: 200 epochs of the longer side are 266,800 steps, about 14 h at 5.3 images/s (a published V100's speed).
Expect stripes on most horses that are large in the image; other implementations report an FID of 62 to 77 (horse to
zebra, 120 test images).

Seen: a run with these settings on 250 + 250 of the images, 30,064 steps at 33.6 steps/s on an H200 (the rate constant
for 16,000, then falling). From 4,000 steps on stripes begin, at 30,000 most horses near the camera have them on coat
and mane, and so have some trees and dark corners. White horses hardly change. Zebras turn brown but keep traces of
their stripes; distant ones dissolve. Colours drift a little, and a faint grid shows in plain areas. Cycle error 0.135
at 2,000 steps, 0.082 at 14,000, 0.070 at 30,000.

The paper leaves the identity loss out here; the PyTorch release has it on: ``--config.loss.lambda_identity=0.5``.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from CycleGAN as published."""
    config = published.cyclegan()
    config.num_steps = 266_800  # 200 epochs
    config.data.source = "cycle_gan/horse2zebra"
    return config
