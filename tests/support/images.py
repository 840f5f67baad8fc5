"""Images to test with: noise, files of it, and batches."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from p2p_jax.config.options import image_shapes


def noise(*shape: int, low: int | None = None, high: int | None = None, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    """Return numbers in [low, high): by default all that a whole `dtype` has, and [-1, 1) of a float one."""
    rng, dtype = np.random.RandomState(seed), np.dtype(dtype)
    if dtype.kind == "f":
        return rng.uniform(-1 if low is None else low, 1 if high is None else high, shape).astype(dtype)
    if low is None:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max + 1
    return rng.randint(low, high, shape).astype(dtype)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Map [-1, 1] to whole numbers in [0, 255], rounding to the nearest."""
    return np.rint((np.clip(np.asarray(images, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def levels(images: np.ndarray) -> np.ndarray:
    """Map [-1, 1] to whole numbers, those beyond 0 and 255 included."""
    return np.rint((images + 1) * 127.5).astype(int)


def save(path: Path, pixels: np.ndarray, **options) -> np.ndarray:
    """Write an image into a folder that may be new: by Pillow; numbers that it does not know, in TIFF, by tifffile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_picture = pixels.ndim == 2 or (pixels.dtype == np.uint8 and pixels.shape[2] in (3, 4))
    if path.suffix == ".tif" and not is_picture:
        import tifffile

        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig" if pixels.shape[2] > 1 else None)
    else:
        Image.fromarray(pixels).save(path, **options)
    return pixels


def load(path: Path) -> np.ndarray:
    """Read an image as Pillow does."""
    with Image.open(path) as image:
        return np.asarray(image)


def random_batch(config, seed: int = 0, size: int | None = None) -> dict[str, np.ndarray]:
    """Return a batch of noise in [-1, 1]."""
    rng, count = np.random.RandomState(seed), size or config.batch_size
    shapes = image_shapes(config.data)
    return {name: rng.uniform(-1, 1, (count, *shape)).astype(np.float32) for name, shape in shapes.items()}


def write_pairs(folder: Path, count: int, size=(16, 16), start: int = 0, seed: int = 0) -> None:
    """Write side-by-side files whose left half is a photograph-like noise and whose right half is its negative."""
    rng = np.random.RandomState(seed)
    for i in range(start, start + count):
        a = rng.randint(0, 256, (*size, 3), np.uint8)
        save(folder / f"{i:03d}.png", np.concatenate([a, 255 - a], axis=1))


def write_facades(folder: Path, counts: dict[str, int]) -> None:
    """Write toy facades as side-by-side files, photograph left, of 32 pixels a side, in a folder for each split."""
    from p2p_jax.data.toy import facades

    for split, count in counts.items():
        for i in range(count):
            facade = facades.render(i, split, 32)
            save(folder / split / f"house_{i}.png", np.concatenate([facade.photo, facade.labels], axis=1))


def write_images(folder: Path, count: int) -> None:
    """Write noise of different widths."""
    for i in range(count):
        save(folder / f"{i}.png", np.random.RandomState([i, count]).randint(0, 256, (20, 16 + i, 3), np.uint8))


def write_sides_of_pairs(folder: Path, sizes: Iterable[tuple[int, int]], mode: str = "RGB", seed: int = 0) -> None:
    """Write side-by-side files of noise of these heights and widths, PNG and JPEG in turn."""
    folder.mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        image = Image.fromarray(noise(height, 2 * width, 3, seed=seed + i)).convert(mode)
        image.save(folder / f"{i}.{'jpg' if i % 2 and mode != 'P' else 'png'}")
