"""Data sets in memory, runs on disk, and what is read of them."""

import csv
import os
import signal
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from p2p_jax.config import to_json
from p2p_jax.config.options import image_shapes
from p2p_jax.data import Data
from p2p_jax.training import metrics_file
from p2p_jax.training.grids import read_places
from p2p_jax.training.saving import Checkpoints
from support.images import random_batch


def memory_data(config, num_train: int = 8, num_val: int = 3) -> Data:
    """Return a data set of noise in memory: a function of the seed and the step, without TensorFlow."""

    def train(first_step):
        step = first_step
        while True:
            yield random_batch(config, seed=config.seed * 100_003 + step)
            step += 1

    def validation(batch_size):
        batch = random_batch(config, seed=7, size=num_val)
        for i in range(0, num_val, batch_size):
            yield {key: value[i : i + batch_size] for key, value in batch.items()}

    return Data(num_train=num_train, num_val=num_val, fingerprint="noise", train=train, validation=validation)


def learnable_data(config) -> Data:
    """Return pairs whose output is a simple function of the input; no adversary is needed to learn it."""

    def batch(seed, size):
        images = random_batch(config, seed, size)["real_a"].mean((1, 2), keepdims=True) * 8
        real_a = np.broadcast_to(np.clip(images, -1, 1), (size, *[config.data.crop_size] * 2, 3)).astype(np.float32)
        return {"real_a": real_a, "real_b": np.ascontiguousarray(0.8 - 0.2 * real_a)}

    def stream(first_step):
        step = first_step
        while True:
            yield batch(step, config.batch_size)
            step += 1

    return Data(8, 3, "learnable", stream, lambda size: iter([batch(10**6, 3)]))


def stop_at(step: int, data: Data, signum: int = signal.SIGTERM) -> Data:
    """Return data that bring a signal while `step` is under way: the batch after it is put on the devices then."""

    def train_batches(first_step):
        for i, batch in enumerate(data.train(first_step), start=first_step):
            if i == step:
                os.kill(os.getpid(), signum)
            yield batch

    return data._replace(train=train_batches)


def rows_of(workdir: Path, timed: bool = False) -> list[dict[str, str]]:
    """Return the rows of a run's metrics; how long they took, which no two runs have in common, only if `timed`."""
    left_out = () if timed else (metrics_file.SECONDS, metrics_file.SPEED)
    with open(workdir / "metrics.csv", newline="") as file:
        return [{name: cell for name, cell in row.items() if name not in left_out} for row in csv.DictReader(file)]


def assert_rows_close(one: Path, two: Path, count: int) -> None:
    """Check that two runs logged the same in so many rows, but for last bits."""
    rows = rows_of(one), rows_of(two)
    assert len(rows[0]) == len(rows[1]) == count
    for a, b in zip(*rows, strict=True):
        numbers = [[float(cell or 0) for cell in row.values()] for row in (a, b)]
        np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-5)


def sample_grid(workdir: Path, step: int, width: int) -> dict[str, np.ndarray]:
    """Return the images of a sample grid, of that width before it was enlarged: column -> [N, H, W, 3] uint8."""
    path = workdir / "samples" / f"step_{step:07d}.png"
    places, grid = read_places(path), np.asarray(Image.open(path))
    factor, found = places["width"] // width, {}
    for i, name in enumerate(places["columns"]):
        left = i * (places["width"] + places["gap"])
        tops = [places["top"] + row * (places["height"] + places["gap"]) for row in range(places["rows"])]
        large = np.stack([grid[top : top + places["height"], left : left + places["width"]] for top in tops])
        found[name] = large[:, ::factor, ::factor]
        np.testing.assert_array_equal(found[name].repeat(factor, 1).repeat(factor, 2), large)
    return found


def write_run(workdir: Path, config, state, step: int = 0) -> Path:
    """Make the directory of a run that holds a state, as a conversion does."""
    checkpoints = Checkpoints(workdir, config)
    checkpoints.save(step, state, None)
    checkpoints.close()
    (workdir / "config.json").write_text(to_json(config))
    return workdir


def blank_state(objective, config):
    """Return the shapes and dtypes of an objective's state."""
    batch = {name: jax.ShapeDtypeStruct((1, *shape), np.float32) for name, shape in image_shapes(config.data).items()}
    return jax.eval_shape(objective.init, jax.random.key(0), batch)


def run_command(module, *arguments) -> int | str:
    """Run a command in this process; return its exit status, or the message with which it ends."""
    try:
        module.run([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


def translate_files(run: Path, source: Path, target: Path, *options) -> int | str:
    """Run the command translate; see ``run_command``."""
    from p2p_jax.commands import translate

    return run_command(translate, run, source, "--output", target, *options)
