"""Many bands of 16 bits to one of physical values, such as satellite bands to elevation: an example for your own data.

    python -m p2p_jax.main --config configs/bands.py --workdir runs/bands --config.data.dir=FOLDER

Data: TIFF (or .npy) files that match by name in FOLDER/train/A, FOLDER/train/B, FOLDER/val/A and FOLDER/val/B: A has
four bands of uint16, B one of floats, whose range is measured in the training files. p2p-jax inspect, with the same
flags, checks them first and suggests ranges. Needs ``pip install -e '.[images]'``. Hardware: a GPU with 4 GB.
Time: 20,000 steps are 2 h at 11 images/s. Expected: PSNR is relative to the measured range. Batches are of 4: with 1,
as published, batch norm uses statistics of the image or tile, and values in units depend on the size of the tile. The
learning rate falls to 0, so that running statistics, which are used then, settle.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.update(num_steps=20_000, batch_size=4, sample_every=500, eval_every=1_000, checkpoint_every=1_000)
    config.schedule.kind = "linear_decay"
    config.data.update(source="folders", preprocess="crop")
    config.data.input.update(kind="uint16", channels=4)
    config.data.output.update(kind="float", channels=1)
    return config
