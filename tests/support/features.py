"""Functions from pictures to features, for tests of distances."""

import numpy as np


def colours(pictures: np.ndarray) -> np.ndarray:
    """Return mean and deviation of each quarter's channels, [N, 24] float32 in [0, 1]."""
    count, height, width, _ = pictures.shape
    quarters = pictures.reshape(count, 2, height // 2, 2, width // 2, 3) / np.float32(255)
    return np.concatenate([quarters.mean((2, 4)).reshape(count, -1), quarters.std((2, 4)).reshape(count, -1)], axis=1)


def means(pictures: np.ndarray) -> np.ndarray:
    """Return the mean of each channel, [N, 3] float32."""
    return pictures.mean((1, 2)).astype(np.float32)
