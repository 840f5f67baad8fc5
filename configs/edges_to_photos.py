"""Edges to photographs: the edges are found in your photographs on the fly (pix2pix, section 4; appendix 6.2).

    python -m p2p_jax.main --config configs/edges_to_photos.py --workdir runs/edges --config.data.dir=FOLDER

Data: your photographs, in FOLDER/train and FOLDER/val. Canny's edges, ``--config.task.sigma=3.`` for fewer, are dark
lines on white, 1 channel. The paper's are those of HED: set ``--config.task.input=p2p_jax.images.tasks:hed_edges`` in
a config of your own with its weights (see there). Needs ``pip install -e '.[images]'``. Hardware: a GPU with 6 GB.
Time: 80,000 steps of 4 images are 8 h at 11 images/s. Expected: no score is published; judge by the sample grids.
"""

from ml_collections import ConfigDict

from p2p_jax import published


def get_config() -> ConfigDict:
    """Return what differs from pix2pix as published."""
    config = published.pix2pix()
    config.batch_size = 4
    config.data.update(source="photos", load_size=256)
    config.data.input.channels = 1
    config.task.update(input="p2p_jax.images.tasks:canny_edges", sigma=2.0)
    return config
