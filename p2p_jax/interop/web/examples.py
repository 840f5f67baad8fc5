"""Images of the run's validation set, to compare translations on; noise if there are none."""

import itertools
from typing import NamedTuple

import numpy as np

from p2p_jax.config.options import crop_shape
from p2p_jax.data import load_split
from p2p_jax.data.elsewhere import is_downloaded, with_data_dir
from p2p_jax.data.splits import split_meant
from p2p_jax.errors import InputError
from p2p_jax.inference.run import Run

_MOST = 32  # images


class Examples(NamedTuple):
    """Images in the form that the networks of a run take.

    Attributes:
      images: "real_a" and "real_b" -> [N, H, W, C] float32 in [-1, 1].
      told: description, such as "32 images of val".
      are_real: whether they are images and not noise.
    """

    images: dict[str, np.ndarray]
    told: str
    are_real: bool


def find(run: Run, data_dir: str | None, split: str | None = None) -> Examples:
    """Return the first images of a split, or noise. Downloads nothing.

    Args:
      run: an opened run.
      data_dir: the folder of the data set; by default that of the config, if it exists.
      split: split of the data set; by default the validation split.

    Raises:
      InputError: `data_dir` or `split` is given, and there are no such images.
    """
    asked = data_dir is not None or split is not None
    split = split_meant(run.config.data, split) or run.config.data.train_split
    if asked or not is_downloaded(run.config.data):
        try:
            config = with_data_dir(run.config, data_dir, run.config_file)
            batches = load_split(config, split).batches(2)
            found = list(itertools.islice(batches, _MOST // 2))
            images = {name: np.concatenate([batch[name] for batch in found]) for name in ("real_a", "real_b")}
            return Examples(images, f"{len(images['real_a'])} images of {split}", True)
        except InputError:
            if asked:
                raise
    rng, crop = np.random.default_rng(0), crop_shape(run.config.data)
    shapes = {name: (4, *crop, spec.shape[-1]) for name, spec in run.batch.items()}
    noise = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    return Examples(noise, "noise, because the run's images are not here", False)
