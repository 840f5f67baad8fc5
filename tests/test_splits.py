"""Splits to be evaluated on: to the bit what validation in training sees, without TensorFlow."""

import sys

import numpy as np
import pytest
from conftest import small_config, small_cyclegan_config
from test_data import write_pairs
from test_train import write_images

from p2p_jax.data import load, load_split


def assert_same_batches(config, split, monkeypatch):
    streamed = list(load(config).validation(2))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        opened = load_split(config, split)
        decoded = list(opened.batches(2))
    assert [len(batch["real_a"]) for batch in decoded] == [2, 1]
    for one, other in zip(streamed, decoded, strict=True):
        for name in ("real_a", "real_b"):
            np.testing.assert_array_equal(one[name], other[name])
    return opened


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pairs(direction, tmp_path, monkeypatch):
    for split, count in (("train", 2), ("val", 3)):
        write_pairs(tmp_path / split, count)
    data = {"data__source": "side_by_side", "data__dir": str(tmp_path), "data__direction": direction}
    opened = assert_same_batches(small_config(**data), "val", monkeypatch)
    assert opened.paired and opened.names[0] == opened.names[1] and len(opened.names[0]) == 3
    a, b = (opened.original(side, 1) for side in (0, 1))
    assert a.shape == b.shape and not np.array_equal(a, b)


def test_unpaired(tmp_path, monkeypatch):
    for folder, count in (("trainA", 2), ("trainB", 2), ("testA", 3), ("testB", 2)):
        write_images(tmp_path / folder, count)
    data = {"data__source": "unpaired", "data__dir": str(tmp_path), "data__val_split": "test"}
    opened = assert_same_batches(small_cyclegan_config(**data), "test", monkeypatch)
    assert not opened.paired and [len(names) for names in opened.names] == [3, 2]
