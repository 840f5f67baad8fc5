"""Inpainting: photographs whose middle is missing (pix2pix, section 4; the holes of Pathak et al. 2016).

    python -m p2p_jax.main --config configs/inpainting.py --workdir runs/inpainting --config.data.dir=FOLDER

Data: your photographs, in FOLDER/train and FOLDER/val; a square of half the side is taken out of the middle. The paper
used 14,828 photographs of Paris, batch 4, 25 epochs. Hardware: a GPU with 6 GB. Time: 80,000 steps of 4 images are 8 h
at 11 images/s. Expected: no score is published; judge by the sample grids.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the complete experiment; its options are explained in ``p2p_jax/options.py`` and ``p2p_jax/nets``."""
    return ConfigDict(
        dict(
            objective="p2p_jax:pix2pix",
            seed=0,
            init_from="",
            num_steps=80_000,
            batch_size=4,
            dtype="float32",
            param_dtype="float32",
            sync_batch_norm=False,
            log_every=100,
            sample_every=2000,
            eval_every=4000,
            checkpoint_every=4000,
            keep_checkpoints=2,
            best_metric="l1",
            best_mode="min",
            num_samples=4,
            steps_per_dispatch=0,
            distributed=False,
            data=dict(
                source="photos",
                dir="",
                direction="AtoB",
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
            task=dict(input="p2p_jax.images.tasks:centre_hole", size=0.5),
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
