"""Cezanne's paintings to photographs and back: an experiment of the CycleGAN paper.

    python -m p2p_jax.main --config configs/cezanne2photo.py --workdir runs/cezanne2photo

Data: 525 + 6,287 training and 58 + 751 test images (280 MB, downloaded by TensorFlow Datasets). Hardware: a GPU
with 12 GB. Time: 200 epochs of the longer side are 1,257,400 steps, about 66 h at 5.3 images/s (a published V100's
speed). Expect the painter's palette and strokes on photographs; no score is published.

The identity loss is on, as in the paper for paintings and flowers.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the complete experiment; its options are explained in ``p2p_jax/options.py`` and the rooms it names."""
    return ConfigDict(
        dict(
            objective="p2p_jax:cyclegan",
            seed=0,
            init_from="",
            num_steps=1_257_400,  # 200 epochs
            batch_size=1,
            dtype="float32",
            param_dtype="float32",
            sync_batch_norm=False,
            log_every=100,
            sample_every=2000,
            eval_every=10000,
            checkpoint_every=5000,
            keep_checkpoints=2,
            best_metric="cycle",
            best_mode="min",
            num_samples=4,
            steps_per_dispatch=0,
            distributed=False,
            data=dict(
                source="cycle_gan/cezanne2photo",
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
                val_split="test",
                resident=False,
                cache_mb=2048,
            ),
            augment=dict(vflip=False, quarter_turns=False, scale_jitter=0.0, photometric=0.0),
            task=dict(),
            generator=dict(
                network="p2p_jax.nets:ResNet",
                num_blocks=9,
                base_width=64,
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
                receptive_field=70,
                base_width=64,
                norm="instance",
                biases="auto",
                padding=1,
                init_type="normal",
                init_gain=0.02,
            ),
            loss=dict(gan="lsgan", lambda_gan=1.0, lambda_cycle=10.0, cycle="both", lambda_identity=0.5, pool_size=50),
            optimizer=dict(factory="optax:adam", learning_rate=0.0002, b1=0.5, b2=0.999, eps=1e-8),
            schedule=dict(kind="linear_decay", unit="epochs", constant_for=100, decay_over=100),
            inference=dict(norm="batch", dropout=False),
            extra=dict(),
        )
    )
