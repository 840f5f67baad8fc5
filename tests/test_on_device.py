"""Training images on the device: pixels of the stream, drawn from the seed and the place alone; no TensorFlow."""

import itertools
from collections import Counter
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from p2p_jax.data import from_arrays, on_device
from p2p_jax.errors import InputError
from support.comparers import assert_equal_batches
from support.configs import data_config
from support.images import noise, write_sides_of_pairs
from support.kinds import KINDS
from support.processes import run_python
from support.streams import drawn

PHOTOS = noise(5, 20, 20, 3)
config_of = partial(data_config, load_size=18, flip=True, resident=True)


def order(count, number=0, places=60, **options):
    """Return the examples of the first places in the stream of so many."""
    choose = jax.jit(partial(on_device.choose, number=number, config=config_of(**options)))
    return choose(np.full((count, 2), 18, np.int32), np.arange(places, dtype=np.uint32)).index.tolist()


@pytest.mark.slow
def test_every_pass_over_a_side_is_a_permutation_of_it():
    for number, count in ((0, 5), (1, 3)):
        found = order(count, number)
        passes = [tuple(found[i : i + count]) for i in range(0, 60, count)]
        assert {tuple(sorted(x)) for x in passes} == {tuple(range(count))}
        assert len(set(passes)) > 3
    assert order(5, seed=1) != order(5)
    assert len(set(zip(order(8, 0), order(8, 1), strict=True))) > 30  # of 64 that there are


def test_crops_reach_all_of_images_of_different_sizes():
    sizes = np.array([(17, 40), (64, 23), (16, 16), (30, 31), (25, 70)], np.int32)
    choose = jax.jit(partial(on_device.choose, number=0, config=config_of(preprocess="crop")))
    found = jax.device_get(choose(sizes, np.arange(200, dtype=np.uint32)))
    room = sizes[found.index] - 16
    assert (found.top >= 0).all() and (found.left >= 0).all()
    assert (found.top <= room[:, 0]).all() and (found.left <= room[:, 1]).all()
    assert (found.top.min(), found.left.min()) == (0, 0) and found.top.max() > 40 and found.left.max() > 45


@pytest.mark.parametrize("count", [1, 5])
def test_draws_depend_on_the_place_alone(count):
    options = dict(flip=True, augment__vflip=True, augment__quarter_turns=True, augment__photometric=0.2)
    data = on_device.load(config_of(**options), train=from_arrays(PHOTOS[:count], PHOTOS[-count:]))
    whole = drawn(data, range(30))
    for n in (1, 10):
        parts = [drawn(data, range(first, first + n)) for first in range(0, 30, n)]
        assert_equal_batches({k: np.concatenate([part[k] for part in parts]) for k in whole}, whole)


@pytest.mark.slow
def test_the_host_draws_what_the_device_draws():
    config, source = config_of(), from_arrays(PHOTOS, 255 - PHOTOS)
    whole = on_device.load(config, train=source, val=source)
    shares = [on_device.load(config, train=source, val=source, process_index=i, process_count=2) for i in range(2)]
    for step in (0, 7):
        expected = drawn(whole, range(4 * step, 4 * step + 4))
        assert_equal_batches(next(whole.train(step)), expected)
        parts = [next(share.train(step)) for share in shares]
        assert_equal_batches({k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, expected)
    assert_equal_batches(next(itertools.islice(whole.train(3), 4, 5)), next(whole.train(7)))
    together = np.concatenate([batch["real_a"] for batch in whole.validation(2)])
    for i, share in enumerate(shares):
        assert share.num_val == 5
        np.testing.assert_array_equal(np.concatenate([b["real_a"] for b in share.validation(2)]), together[i::2])
    with pytest.raises(InputError, match="config.batch_size=4 is not a multiple of 3"):
        on_device.load(config, train=source, process_index=0, process_count=3)


def test_crops_and_mirrors_reach_all_that_there_are_and_are_shared_by_pairs():
    ramp = np.broadcast_to(np.arange(18, dtype=np.uint8) * 10, (18, 18))
    image = np.stack([ramp, ramp.T, ramp], axis=-1)[None]
    found = drawn(on_device.load(config_of(), train=from_arrays(image, 255 - image)), range(150))
    np.testing.assert_allclose(found["real_a"], -found["real_b"], atol=1e-6)
    values = np.rint((found["real_a"] + 1) * 127.5 / 10).astype(int)
    mirrored = values[:, 0, 0, 0] > values[:, 0, 1, 0]
    left = np.where(mirrored, values[:, 0, -1, 0], values[:, 0, 0, 0])
    seen = Counter(zip(values[:, 0, 0, 1].tolist(), left.tolist(), mirrored.tolist(), strict=True))
    assert set(seen) == set(itertools.product(range(3), range(3), (False, True)))
    plain = drawn(on_device.load(config_of(flip=False), train=from_arrays(image, image)), range(50))["real_a"]
    assert (np.diff(plain[..., 0], axis=2) > 0).all()


def test_turns_and_photometric_changes():
    image = PHOTOS[:1, :16, :16]
    options = dict(flip=True, augment__vflip=True, augment__quarter_turns=True)
    config = config_of(load_size=16, **options)
    found = drawn(on_device.load(config, train=from_arrays(image, 255 - image)), range(64))
    values = np.rint((found["real_a"] + 1) * 127.5).astype(int)
    turned = [np.rot90(x, k) for x in (image[0], image[0, :, ::-1]) for k in range(4)]
    assert {next(i for i, x in enumerate(turned) if np.array_equal(x, y)) for y in values} == set(range(8))
    np.testing.assert_allclose(found["real_a"], -found["real_b"], atol=1e-6)
    plain, data = (
        on_device.load(config_of(load_size=16, augment__photometric=x), train=from_arrays(image, image))
        for x in (0.0, 0.2)
    )
    before, after = drawn(plain, range(20)), drawn(data, range(20))
    assert np.abs(after["real_a"]).max() == 1  # cut off where networks have no more room
    np.testing.assert_array_equal(before["real_b"], after["real_b"])
    contrasts = set()
    for x, y in zip(before["real_a"], after["real_a"], strict=True):
        inside = np.abs(y) < 1
        slope, shift = np.polyfit(x[inside], y[inside], 1)
        np.testing.assert_allclose(y[inside], x[inside] * slope + shift, atol=1e-5)
        assert 0.8 <= slope <= 1.2 and abs(shift) <= 0.2
        contrasts.add(round(float(slope), 4))
    assert len(contrasts) == 20


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"augment__scale_jitter": 0.1}, "config.augment.scale_jitter resizes every image each time"),
        ({"task__input": "p2p_jax.images.tasks:centre_hole"}, "config.task computes inputs with Python functions"),
        ({"source": "photos"}, "config.data.source=photos has no input images"),
    ],
)
def test_what_needs_the_stream_is_refused(options, reason):
    with pytest.raises(InputError, match=f"{reason}, .*: set config.data.resident=False"):
        on_device.load(config_of(**options))


def test_what_does_not_fit_is_refused_with_the_arithmetic(monkeypatch):
    source = from_arrays(PHOTOS, KINDS["float"].raw[:5])
    config = config_of(output__kind="float", output__channels=5, output__range="0:1")
    size = 5 * 18 * 18 * (3 + 4 * 5)
    devices = [SimpleNamespace(memory_stats=lambda: {"bytes_limit": 2 * size - 2})]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    message = r"^5 images of 18x18x23 bytes are 3.73e-05 GB, more than half of the 7.45e-05 GB of the device: set "
    with pytest.raises(InputError, match=message + r"config.data.resident=False, or take smaller"):
        on_device.load(config, train=source)
    devices[0] = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 2 * size})
    assert on_device.load(config, train=source).num_train == 5
    devices[0] = SimpleNamespace(memory_stats=lambda: None)
    devices.append(devices[0])
    monkeypatch.setattr(on_device, "_free_memory", lambda: 4.0 * (size + 16 * 16 * 23 * 5) - 4)
    assert on_device.load(config, train=source).num_train == 5
    message = r"and 5 images of 16x16x23 bytes are .* of this machine's free memory for each of 3 copies"
    with pytest.raises(InputError, match=message):
        on_device.load(config, train=source, val=source)
    assert on_device._free_memory() > 0


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("p2p_jax.data.checks.PIXELS_READ", 0)
    write_sides_of_pairs(tmp_path / "train", [(16, 16)] * 5)
    (tmp_path / "train" / "3.jpg").write_bytes((tmp_path / "train" / "3.jpg").read_bytes()[:150])
    with pytest.raises(InputError, match=r"3\.jpg cannot be read"):
        on_device.load(config_of(source="side_by_side", dir=str(tmp_path), val_split=""))


WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from p2p_jax.data import on_device
from p2p_jax import train
from p2p_jax.config import complete
config = complete({
    "num_steps": 2, "batch_size": 2, "log_every": 1, "sample_every": 2, "eval_every": 2, "checkpoint_every": 2,
    "num_samples": 2, "generator": {"num_downs": 3, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4},
    "data": {"source": "side_by_side", "dir": sys.argv[1], "load_size": 18, "crop_size": 16, "resident": True,
             "input": {"kind": "uint8", "range": "measured"}},
})
state = train(config, sys.argv[2])
assert int(state["step"]) == 2
loaded = [name for name in sys.modules if name.startswith("tensorflow") and sys.modules[name] is not None]
print("loaded", loaded)
"""


@pytest.mark.slow
def test_training_from_files_on_a_machine_without_tensorflow(tmp_path):
    write_sides_of_pairs(tmp_path / "data" / "train", [(20, 20), (40, 30), (16, 16)])
    write_sides_of_pairs(tmp_path / "data" / "val", [(18, 18), (40, 30)])
    printed = run_python(WITHOUT_TENSORFLOW, tmp_path / "data", tmp_path / "run")
    assert printed.endswith("loaded []\n")
    assert "values of the input in 3 training images" in printed
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3 and "eval/l1" in rows[0]
