"""Quickstart without pairs: toy facades by day to toy facades at night and back, 64x64, with nothing to download.

    python -m p2p_jax.main --config configs/quickstart_cyclegan.py --workdir runs/quickstart_cyclegan

Hardware: any CPU. Time: 3 to 4 minutes on 2 cores. Expect lit windows in a dark wall one way, and daylight, blurred
and a little checkered, the other; a cycle error of about 0.06 in validation. So that it is quick: three residual blocks
at three eighths of the published width, a smaller patch, no jitter. All else is as published.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the complete experiment; its options are explained in ``p2p_jax/options.py`` and the rooms it names."""
    return ConfigDict(
        dict(
            objective="p2p_jax:cyclegan",
            seed=0,
            init_from="",
            num_steps=1_500,
            batch_size=1,
            dtype="float32",
            param_dtype="float32",
            sync_batch_norm=False,
            log_every=50,
            sample_every=500,
            eval_every=500,
            checkpoint_every=500,
            keep_checkpoints=2,
            best_metric="cycle",
            best_mode="min",
            num_samples=4,
            steps_per_dispatch=0,
            distributed=False,
            data=dict(
                source="toy_unpaired",
                dir="",
                direction="AtoB",
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
                val_split="test",
                resident=False,
                cache_mb=2048,
            ),
            augment=dict(vflip=False, quarter_turns=False, scale_jitter=0.0, photometric=0.0),
            task=dict(),
            generator=dict(
                network="p2p_jax.nets:ResNet",
                num_blocks=3,
                base_width=24,
                norm="instance",
                biases="auto",
                padding="reflect",
                dropout_rate=0.0,
                upsampling="transposed",
                remat=False,
                init_type="normal",
                init_gain=0.02,
            ),
            discriminator=dict(
                network="p2p_jax.nets:PatchGAN",
                receptive_field=34,
                base_width=32,
                norm="instance",
                biases="auto",
                padding=1,
                init_type="normal",
                init_gain=0.02,
            ),
            loss=dict(gan="lsgan", lambda_gan=1.0, lambda_cycle=10.0, cycle="both", lambda_identity=0.0, pool_size=50),
            optimizer=dict(factory="optax:adam", learning_rate=0.0002, b1=0.5, b2=0.999, eps=1e-8),
            schedule=dict(kind="linear_decay", unit="steps", constant_for=1000, decay_over=500),
            inference=dict(norm="batch", dropout=False),
            extra=dict(),
        )
    )
