"""Quickstart: label maps to toy facades at 64x64, with nothing to download.

    python -m p2p_jax.main --config configs/quickstart.py --workdir runs/quickstart

Hardware: any CPU. Time: under 2 minutes on 2 cores. Expect a validation L1 below 0.06 and sample grids
(runs/quickstart/samples) in which the outputs resemble the targets. So that it is quick: half the published width, a
shallower U-Net, a smaller patch, batches of 4 at twice the learning rate, no jitter. All else is as published.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the complete experiment; its options are explained in ``p2p_jax/options.py`` and ``p2p_jax/nets``."""
    return ConfigDict(
        dict(
            objective="p2p_jax:pix2pix",
            seed=0,
            init_from="",
            num_steps=1_800,
            batch_size=4,
            dtype="float32",
            param_dtype="float32",
            sync_batch_norm=False,
            log_every=50,
            sample_every=600,
            eval_every=600,
            checkpoint_every=600,
            keep_checkpoints=2,
            best_metric="l1",
            best_mode="min",
            num_samples=4,
            steps_per_dispatch=0,
            distributed=False,
            data=dict(
                source="toy_facades",
                dir="",
                direction="BtoA",
                preprocess="resize_and_crop",
                load_size=64,
                load_width=0,
                crop_size=64,
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
                num_downs=6,
                base_width=32,
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
                receptive_field=34,
                base_width=32,
                norm="batch",
                biases="auto",
                padding=1,
                init_type="normal",
                init_gain=0.02,
            ),
            loss=dict(gan="vanilla", lambda_gan=1.0, lambda_l1=100.0, conditional=True),
            optimizer=dict(factory="optax:adam", learning_rate=0.0004, b1=0.5, b2=0.999, eps=1e-8),
            schedule=dict(kind="constant", unit="epochs", constant_for=100, decay_over=100),
            inference=dict(norm="batch", dropout=True),
            extra=dict(),
        )
    )
