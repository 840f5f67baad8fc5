"""Cityscapes, label maps to photographs: Tables 1 to 3 of the pix2pix paper.

    python -m p2p_jax cityscapes --gtfine gtFine_trainvaltest.zip --photos leftImg8bit_trainvaltest.zip \
        --output data/cityscapes
    python -m p2p_jax.main --config configs/cityscapes.py --workdir runs/cityscapes \
        --config.data.dir=data/cityscapes

Data: 2975/500 pairs (photograph left, labels right) made from the official archives, which need a registration; the
pix2pix server no longer has them. Hardware: any GPU with 4 GB. Time: 200 epochs are 595,000 steps, about 15 h at 11
images/s. Expected: FCN score .66/.23/.17 (per-pixel accuracy, per-class accuracy, class IoU; paper, Table 1).

Other rows of Table 1: ``--config.loss.lambda_gan=0`` (L1), ``--config.loss.conditional=False
--config.loss.lambda_l1=0`` (GAN), ``--config.loss.lambda_l1=0`` (cGAN), ``--config.loss.conditional=False`` (L1+GAN).
Table 2: ``--config.generator.skips=False``. Table 3: ``--config.discriminator.receptive_field=1`` (or 16, 70, 286).
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.num_steps = 595_000  # 200 epochs
    config.sample_every = 5_000
    config.eval_every = 29_750
    config.checkpoint_every = 5_950
    config.data.direction = "BtoA"
    return config
