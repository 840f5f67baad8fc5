"""Edges to photographs: the edges are found in your photographs on the fly (pix2pix, section 4; appendix 6.2).

    python -m p2p_jax.main --config configs/edges_to_photos.py --workdir runs/edges --config.data.dir=FOLDER

Data: your photographs, in FOLDER/train and FOLDER/val. Canny's edges, ``--config.task.sigma=3.`` for fewer, are dark
lines on white, 1 channel. The paper's are those of HED: set ``--config.task.input=p2p_jax.images.tasks:hed_edges`` in
a config of your own with its weights (see there). Needs ``pip install -e '.[images]'``. Hardware: a GPU with 6 GB.
Time: 80,000 steps of 4 images are 8 h at 11 images/s. Expected: no score is published; judge by the sample grids.
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
                load_size=256,
                load_width=0,
                crop_size=256,
                crop_width=0,
                flip=True,
                kind_a="uint8",
                channels_a=1,
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
            task=dict(input="p2p_jax.images.tasks:canny_edges", sigma=2.0),
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
