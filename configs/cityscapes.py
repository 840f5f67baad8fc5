"""Cityscapes, label maps to photographs: Tables 1 to 3 of the pix2pix paper.

    python -m p2p_jax.prepare_cityscapes --gtfine gtFine_trainvaltest.zip --photos leftImg8bit_trainvaltest.zip \
        --output data/cityscapes
    python -m p2p_jax.main --config configs/cityscapes.py --workdir runs/cityscapes \
        --config.data.dir=data/cityscapes

Data: 2975/500 pairs (photograph left, labels right) made from the official archives, which ask for a registration; the
pix2pix server no longer has them. Hardware: any GPU with 4 GB. Time: 200 epochs are 595,000 steps, about 15 h at
11 images/s. Expected: FCN score .66/.23/.17 (per-pixel accuracy, per-class accuracy, class IoU; paper, Table 1).

Other rows of Table 1: ``--config.loss.lambda_gan=0`` (L1), ``--config.loss.conditional=False
--config.loss.lambda_l1=0`` (GAN), ``--config.loss.lambda_l1=0`` (cGAN), ``--config.loss.conditional=False`` (L1+GAN).
Table 2: ``--config.generator.skips=False`` (encoder-decoder). Table 3: ``--config.discriminator.receptive_field=1``
(or 16, 70, 286).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the complete experiment; its options are explained in ``p2p_jax/options.py`` and ``p2p_jax/nets``."""
    return ConfigDict(
        dict(
            objective="p2p_jax:pix2pix",
            seed=0,
            init_from="",
            num_steps=595_000,  # 200 epochs
            batch_size=1,
            dtype="float32",
            param_dtype="float32",
            sync_batch_norm=False,
            log_every=100,
            sample_every=5000,
            eval_every=29_750,
            checkpoint_every=5950,
            keep_checkpoints=2,
            best_metric="l1",
            best_mode="min",
            num_samples=4,
            steps_per_dispatch=0,
            distributed=False,
            data=dict(
                source="side_by_side",
                dir="",
                direction="BtoA",
                preprocess="resize_and_crop",
                load_size=286,
                load_width=0,
                crop_size=256,
                crop_width=0,
                flip=True,
                kind_a="uint8",
                channels_a=3,
                range_a="",
                palette_a="",
                kind_b="uint8",
                channels_b=3,
                range_b="",
                palette_b="",
                train_split="train",
                val_split="val",
                resident=False,
                cache_mb=2048,
            ),
            augment=dict(vflip=False, quarter_turns=False, scale_jitter=0.0, photometric=0.0),
            task=dict(),
            generator=dict(
                network="p2p_jax.nets:UNet",
                num_downs=8,
                base_width=64,
                skips=True,
                norm="batch",
                biases="auto",
                bottleneck_norm=False,
                dropout_rate=0.5,
                dropout_layout="paper",
                upsampling="transposed",
                remat=False,
                init_type="normal",
                init_gain=0.02,
            ),
            discriminator=dict(
                network="p2p_jax.nets:PatchGAN",
                receptive_field=70,
                base_width=64,
                norm="batch",
                biases="auto",
                padding=1,
                init_type="normal",
                init_gain=0.02,
            ),
            loss=dict(gan="vanilla", lambda_gan=1.0, lambda_l1=100.0, conditional=True),
            optimizer=dict(factory="optax:adam", learning_rate=0.0002, b1=0.5, b2=0.999, eps=1e-8),
            schedule=dict(kind="constant", unit="epochs", constant_for=100, decay_over=100),
            inference=dict(norm="batch", dropout=True),
            extra=dict(),
        )
    )
