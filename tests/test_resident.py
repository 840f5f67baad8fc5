"""Training images on the device: pixels of the stream, drawn from the seed and the place alone; no TensorFlow."""

import itertools
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import small_config
from PIL import Image

from p2p_jax import data as stream
from p2p_jax import resident
from p2p_jax.data import Source, from_arrays, sides, unpaired_from_arrays
from p2p_jax.data.opening import with_facts
from p2p_jax.data.sources import loader, make_source
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.domains import of_config

DATA = os.environ.get("P2P_JAX_TEST_DATA")
RNG = np.random.RandomState(0)
PHOTOS = RNG.randint(0, 256, (5, 20, 20, 3), np.uint8)
# What values there are of each kind: an array [5, 20, 20, C], and the options that describe it.
KINDS = {
    "uint8": (RNG.randint(0, 256, (5, 20, 20, 4), np.uint8), {"channels_a": 4, "range_a": "10:200"}),
    "uint16": (RNG.randint(0, 65536, (5, 20, 20, 2)).astype(np.uint16), {"channels_a": 2}),
    "int16": (RNG.randint(-900, 3000, (5, 20, 20, 1)).astype(np.int16), {"channels_a": 1}),
    "float": (RNG.normal(5, 3, (5, 20, 20, 5)).astype(np.float32), {"channels_a": 5}),
    "labels": (RNG.randint(0, 8, (5, 20, 20, 1)).astype(np.uint8), {"channels_a": 7}),  # 7 is no class
    "label_colors": (
        np.array([(255, 0, 0), (0, 0, 255)], np.uint8)[RNG.randint(0, 2, (5, 20, 20))],
        {"palette_a": "#ff0000,#0000ff"},
    ),
    "lab_l": (PHOTOS, {"channels_a": 1}),
    "lab_ab": (PHOTOS, {"channels_a": 2}),
}


def config_of(**options):
    """Return a config; options of ``data``, and of other sections as section__key."""
    defaults = {"direction": "AtoB", "load_size": 18, "crop_size": 16, "resident": True}
    named = {
        k if "__" in k or k in ("batch_size", "seed") else f"data__{k}": v for k, v in (defaults | options).items()
    }
    return small_config(**named)


def drawn(data, positions):
    """Return the batch of places in the stream, as the device draws it."""
    return jax.device_get(jax.jit(data.resident.draw)(data.resident.arrays, np.array(positions, np.uint32)))


def streamed(source, choices, config):
    """Return the batch that the stream's own functions make of what was chosen."""
    tf = pytest.importorskip("tensorflow")
    batch = []
    for side, choice in zip(sides.make_sides(source, config, of_config(config.data)), choices, strict=True):
        made = []
        for i, index in enumerate(choice.index):
            raw = side.raw(tf.constant(index, tf.int64))
            raw = sides.geometry.enlarge(raw, side.read_domains, config, tf.constant([0, 0], tf.int64))
            rows, columns = (slice(start, start + config.data.crop_size) for start in (choice.top[i], choice.left[i]))
            crops = [x[rows, columns] for x in raw]
            crops = [tf.reverse(x, [1]) if choice.mirrored[i] else x for x in crops]
            made.append(side._normalized(crops, config, None))
        batch += [np.stack(images) for images in zip(*made, strict=True)]
    return dict(zip(("real_a", "real_b"), batch, strict=True))


def chosen(arrays, positions, config):
    """Return what is chosen for places in the stream, of each side in the order of a batch; can be traced."""
    order = sorted((x for x in arrays if x.startswith("sizes_")), reverse=config.data.direction == "BtoA")
    return [resident.choose(arrays[name], positions, int(name[-1]), config) for name in order]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def assert_as_streamed(source, config, capsys=None):
    """Compare everything about a data set with the stream: what is said and stored, training and validation images."""
    ours = resident.load(config, train=source, val=source, process_index=0, process_count=1)
    said = capsys.readouterr().out if capsys else ""
    theirs = stream.load(config, train=source, val=source)
    assert [getattr(ours, x) for x in ("num_train", "num_val", "fingerprint", "facts")] == [
        getattr(theirs, x) for x in ("num_train", "num_val", "fingerprint", "facts")
    ]
    if capsys:
        lines = [line for line in said.splitlines() if "stay on the device" not in line]
        assert lines == capsys.readouterr().out.splitlines()
    for a, b in itertools.zip_longest(ours.validation(3), theirs.validation(3)):
        assert_equal(a, b)
    config = with_facts(config, ours.facts)
    both = jax.jit(lambda *args: (ours.resident.draw(*args), chosen(*args, config)))
    found, choices = jax.device_get(both(ours.resident.arrays, np.arange(3, 12, dtype=np.uint32)))
    assert all(x.dtype == np.float32 for x in found.values())
    assert_equal(found, streamed(source, choices, config))
    return ours


@pytest.mark.parametrize(("direction", "kind"), list(zip(["AtoB", "BtoA"] * 4, KINDS, strict=True)))
def test_pixels_of_every_kind_are_the_streams(kind, direction, capsys):
    if kind.startswith("lab_"):
        pytest.importorskip("skimage")
    values, options = KINDS[kind]
    pair = (values, PHOTOS) if direction == "AtoB" else (PHOTOS, values)
    assert_as_streamed(from_arrays(*pair), config_of(kind_a=kind, direction=direction, **options), capsys)


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_unpaired_sides_have_their_own_lengths_sizes_and_kinds(direction, capsys):
    a, b = KINDS["int16"][0], PHOTOS[:3, :17, :13]
    pair = (a, b) if direction == "AtoB" else (b, a)
    config = config_of(kind_a="int16", channels_a=1, direction=direction)
    data = assert_as_streamed(unpaired_from_arrays(*pair), config, capsys)
    assert (data.num_train, data.num_val) == (5, 5)


def write(folder, sizes, mode="RGB"):
    """Write side-by-side files of noise of these sizes, JPEG and PNG in turn."""
    folder.mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        image = Image.fromarray(RNG.randint(0, 256, (height, 2 * width, 3), np.uint8)).convert(mode)
        image.save(folder / f"{i}.{'jpg' if i % 2 and mode != 'P' else 'png'}")


PREPROCESS = [
    {"load_size": 286, "crop_size": 256},
    {},
    {"preprocess": "crop"},
    {"preprocess": "scale_width_and_crop", "load_size": 24},
    {"preprocess": "scale_width"},
]


@pytest.mark.parametrize("options", PREPROCESS)
def test_files_of_different_sizes(tmp_path, options, capsys):
    wide = options.get("preprocess") == "scale_width"
    sizes = [(17, 40), (30, 64), (16, 33)] if wide else [(17, 40), (64, 23), (16, 16), (30, 31), (25, 70)]
    for split in ("train", "val"):
        write(tmp_path / split, sizes)
    config = config_of(source="side_by_side/BA", dir=str(tmp_path), direction="BtoA", **options)
    source = make_source(config.data, "train")
    data = assert_as_streamed(source, config, capsys)
    loaded = data.resident.arrays["sizes_0"]
    found = jax.jit(partial(resident.choose, number=0, config=config))(loaded, np.arange(200, dtype=np.uint32))
    tops, lefts = np.asarray(found.top), np.asarray(found.left)
    room = loaded.max(0) - config.data.crop_size
    assert (tops.min(), lefts.min()) == (0, 0) and tops.max() <= room[0] and lefts.max() <= room[1]
    if options.get("preprocess") == "crop":
        assert loaded.tolist() == [list(size) for size in sizes]
        assert data.resident.arrays["real_a"].shape == (5, 64, 70, 3)
        assert tops.max() > 40 and lefts.max() > 45


@pytest.mark.skipif(not DATA, reason="P2P_JAX_TEST_DATA names no folder")
@pytest.mark.parametrize("name", ["facades", "horse2zebra"])
def test_real_images(tmp_path, name):
    paired = name == "facades"
    for folder in ("train",) if paired else ("trainA", "trainB"):
        (tmp_path / folder).mkdir()
        for path in sorted((type(tmp_path)(DATA) / name / folder).iterdir())[: 6 if folder != "trainB" else 4]:
            (tmp_path / folder / path.name).symlink_to(path)
    gray = "n02391049_226.jpg"  # among colours
    if not paired and not (tmp_path / "trainB" / gray).exists():
        (tmp_path / "trainB" / gray).symlink_to(type(tmp_path)(DATA) / name / "trainB" / gray)
    kind = "side_by_side" if paired else "unpaired"
    config = config_of(source=kind, dir=str(tmp_path), direction="BtoA", load_size=286, crop_size=256)
    assert_as_streamed(make_source(config.data, "train"), config)


@pytest.mark.parametrize(("mode", "channels"), [("1", 3), ("L", 3), ("P", 1), ("RGB", 1)])
def test_gray_and_colour_are_converted_as_in_the_stream(tmp_path, mode, channels):
    write(tmp_path / "train", [(16, 16)] * 4, mode)
    # Colours whose luma lies between two grays but for rounding.
    image = np.tile(np.array([[0, 138, 171], [0, 172, 224]], np.uint8), (8, 8, 1)).reshape(8, 16, 3)
    Image.fromarray(np.tile(image, (2, 2, 1))).convert(mode).save(tmp_path / "train" / "9.png")
    config = config_of(source="side_by_side", dir=str(tmp_path), channels_a=channels, load_size=16)
    assert_as_streamed(make_source(config.data, "train"), config)


@pytest.mark.parametrize("source", ["folders", "suffixes", "csv", "side_by_side", "unpaired", "toy_facades", "16 bits"])
def test_sources_load_what_they_read(tmp_path, source):
    tf = pytest.importorskip("tensorflow")
    names = {"folders": ("train/A/{}", "train/B/{}"), "suffixes": ("train/{}_A", "train/{}_B")}
    names |= {"csv": ("left/{}", "right/{}"), "unpaired": ("trainA/{}", "trainB/{}"), "16 bits": names["folders"]}
    values = KINDS["uint16"][0][..., 0] if source == "16 bits" else PHOTOS
    for side, name in enumerate(names.get(source, ())):
        for i in range(3):
            ending = "tif" if source == "16 bits" else "png" if i else "jpg"
            formats.write(tmp_path / f"{name.format(i)}.{ending}", np.atleast_3d(values[i + 2 * side]))
    if source == "csv":
        rows = "".join(f"left/{i}.{e},right/{i}.{e}\n" for i, e in enumerate(("jpg", "png", "png")))
        (tmp_path / "train.csv").write_text("a,b\n" + rows)
    if source == "side_by_side":
        write(tmp_path / "train", [(16, 16)] * 3, "P")
    kinds = dict(kind_a="uint16", channels_a=1, kind_b="uint16", channels_b=1) if source == "16 bits" else {}
    name = "folders" if source == "16 bits" else source
    made = make_source(config_of(source=name, dir=str(tmp_path), **kinds).data, "train")
    for part in made if source == "unpaired" else [made]:
        for index in (0, 2):
            read, loaded = part.read(tf.constant(index, tf.int64)), part.load(index)
            assert len(read) == len(loaded)
            for a, b in zip(read, loaded, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            for a, b in zip(part.in_order(-1).load(index), part.in_order(-1).read(index), strict=True):
                np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(part.in_order(-1).load(index)[0], loaded[-1])


def test_tfds_files_are_decoded_as_in_the_stream(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    write(tmp_path / "rgb", [(16, 16)] * 4)
    write(tmp_path / "gray", [(16, 16)] * 2, "L")
    encoded = [{str(path): path.read_bytes() for path in sorted(tmp_path.glob(f"*/{i}.*"))} for i in (0, 1)]
    monkeypatch.setattr("p2p_jax.data.cycle_gan_sets.fetch", lambda name, split: encoded)
    config = config_of(source="cycle_gan/zebras", load_size=16)
    assert_as_streamed(make_source(config.data, "train"), config)


def test_a_source_from_outside_that_only_reads():
    pytest.importorskip("tensorflow")
    pairs = from_arrays(PHOTOS, 255 - PHOTOS)
    assert_as_streamed(Source(pairs.names, pairs.read), config_of())
    wrong = Source(["one"], lambda index: pairs.read(index)[:1])
    with pytest.raises(InputError, match="the source of one gives 1 images .* a tuple of two images"):
        resident.load(config_of(), train=wrong)
    with pytest.raises(InputError, match="one cannot be read"):
        loader(Source(["one"], lambda index: 1 / 0 if index else (pairs.read(9),)))(0)
    with pytest.raises(InputError, match=r"16 bits \(uint16\), but this side is declared uint8"):
        resident.load(config_of(), train=from_arrays(KINDS["uint16"][0], PHOTOS))


def order(count, number=0, places=60, **options):
    """Return the examples of the first places in the stream of so many."""
    choose = jax.jit(partial(resident.choose, number=number, config=config_of(**options)))
    return choose(np.full((count, 2), 18, np.int32), np.arange(places, dtype=np.uint32)).index.tolist()


def test_every_pass_over_a_side_is_a_permutation_of_it():
    for number, count in ((0, 5), (1, 3)):
        found = order(count, number)
        passes = [tuple(found[i : i + count]) for i in range(0, 60, count)]
        assert {tuple(sorted(x)) for x in passes} == {tuple(range(count))}
        assert len(set(passes)) > 3
    assert order(5, seed=1) != order(5)
    assert len(set(zip(order(8, 0), order(8, 1), strict=True))) > 30  # of 64 that there are


@pytest.mark.parametrize("count", [1, 5])
def test_draws_depend_on_the_place_alone(count):
    options = dict(flip=True, augment__vflip=True, augment__quarter_turns=True, augment__photometric=0.2)
    data = resident.load(config_of(**options), train=from_arrays(PHOTOS[:count], PHOTOS[-count:]))
    whole = drawn(data, range(30))
    for n in (1, 10):
        parts = [drawn(data, range(first, first + n)) for first in range(0, 30, n)]
        assert_equal({k: np.concatenate([part[k] for part in parts]) for k in whole}, whole)


def test_the_host_draws_what_the_device_draws():
    config, source = config_of(), from_arrays(PHOTOS, 255 - PHOTOS)
    whole = resident.load(config, train=source, val=source)
    shares = [resident.load(config, train=source, val=source, process_index=i, process_count=2) for i in range(2)]
    for step in (0, 7):
        expected = drawn(whole, range(4 * step, 4 * step + 4))
        assert_equal(next(whole.train(step)), expected)
        parts = [next(share.train(step)) for share in shares]
        assert_equal({k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, expected)
    assert_equal(next(itertools.islice(whole.train(3), 4, 5)), next(whole.train(7)))
    together = np.concatenate([batch["real_a"] for batch in whole.validation(2)])
    for i, share in enumerate(shares):
        assert share.num_val == 5
        np.testing.assert_array_equal(np.concatenate([b["real_a"] for b in share.validation(2)]), together[i::2])
    with pytest.raises(InputError, match="config.batch_size=4 is not a multiple of 3"):
        resident.load(config, train=source, process_index=0, process_count=3)


def test_crops_and_mirrors_reach_all_that_there_are_and_are_shared_by_pairs():
    ramp = np.broadcast_to(np.arange(18, dtype=np.uint8) * 10, (18, 18))
    image = np.stack([ramp, ramp.T, ramp], axis=-1)[None]
    found = drawn(resident.load(config_of(), train=from_arrays(image, 255 - image)), range(150))
    np.testing.assert_allclose(found["real_a"], -found["real_b"], atol=1e-6)
    values = np.rint((found["real_a"] + 1) * 127.5 / 10).astype(int)
    mirrored = values[:, 0, 0, 0] > values[:, 0, 1, 0]
    left = np.where(mirrored, values[:, 0, -1, 0], values[:, 0, 0, 0])
    seen = Counter(zip(values[:, 0, 0, 1].tolist(), left.tolist(), mirrored.tolist(), strict=True))
    assert set(seen) == set(itertools.product(range(3), range(3), (False, True)))
    plain = drawn(resident.load(config_of(flip=False), train=from_arrays(image, image)), range(50))["real_a"]
    assert (np.diff(plain[..., 0], axis=2) > 0).all()


def test_turns_and_photometric_changes():
    image = PHOTOS[:1, :16, :16]
    options = dict(flip=True, augment__vflip=True, augment__quarter_turns=True)
    config = config_of(load_size=16, **options)
    found = drawn(resident.load(config, train=from_arrays(image, 255 - image)), range(64))
    values = np.rint((found["real_a"] + 1) * 127.5).astype(int)
    turned = [np.rot90(x, k) for x in (image[0], image[0, :, ::-1]) for k in range(4)]
    assert {next(i for i, x in enumerate(turned) if np.array_equal(x, y)) for y in values} == set(range(8))
    np.testing.assert_allclose(found["real_a"], -found["real_b"], atol=1e-6)
    plain, data = (
        resident.load(config_of(load_size=16, augment__photometric=x), train=from_arrays(image, image))
        for x in (0.0, 0.2)
    )
    before, after = drawn(plain, range(20)), drawn(data, range(20))
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
        ({"augment__scale_jitter": 0.1}, "config.augment.scale_jitter resizes every image anew"),
        ({"task__input": "p2p_jax.images.tasks:centre_hole"}, "config.task makes inputs with functions of Python"),
        ({"source": "photos"}, "config.data.source=photos has no inputs of its own"),
    ],
)
def test_what_needs_the_stream_is_refused(options, reason):
    with pytest.raises(InputError, match=f"{reason}, .*: set config.data.resident=False"):
        resident.load(config_of(**options))


def test_what_does_not_fit_is_refused_with_the_arithmetic(monkeypatch):
    source = from_arrays(PHOTOS, KINDS["float"][0])
    config = config_of(kind_b="float", channels_b=5, range_b="0:1")
    size = 5 * 18 * 18 * (3 + 4 * 5)
    devices = [SimpleNamespace(memory_stats=lambda: {"bytes_limit": 2 * size - 2})]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    message = r"^5 images of 18x18x23 bytes are 3.73e-05 GB, more than half of the 7.45e-05 GB of the device: set "
    with pytest.raises(InputError, match=message + r"config.data.resident=False, or take smaller"):
        resident.load(config, train=source)
    devices[0] = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 2 * size})
    assert resident.load(config, train=source).num_train == 5
    devices[0] = SimpleNamespace(memory_stats=lambda: None)
    devices.append(devices[0])
    monkeypatch.setattr(resident, "_free_memory", lambda: 4.0 * (size + 16 * 16 * 23 * 5) - 4)
    assert resident.load(config, train=source).num_train == 5
    message = r"and 5 images of 16x16x23 bytes are .* of this machine's free memory for each of 3 copies"
    with pytest.raises(InputError, match=message):
        resident.load(config, train=source, val=source)
    assert resident._free_memory() > 0


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("p2p_jax.data.files.DECODE_AT_MOST", 0)
    write(tmp_path / "train", [(16, 16)] * 5)
    (tmp_path / "train" / "3.jpg").write_bytes((tmp_path / "train" / "3.jpg").read_bytes()[:150])
    with pytest.raises(InputError, match=r"3\.jpg cannot be read"):
        resident.load(config_of(source="side_by_side", dir=str(tmp_path), val_split=""))


WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from p2p_jax import resident, train
from p2p_jax.config import complete
config = complete({
    "num_steps": 2, "batch_size": 2, "log_every": 1, "sample_every": 2, "eval_every": 2, "checkpoint_every": 2,
    "num_samples": 2, "generator": {"num_downs": 3, "base_width": 4},
    "discriminator": {"receptive_field": 16, "base_width": 4},
    "data": {"source": "side_by_side", "dir": sys.argv[1], "load_size": 18, "crop_size": 16, "resident": True,
             "kind_a": "uint8", "range_a": "measured"},
})
state = train(config, sys.argv[2])
assert int(state["step"]) == 2
loaded = [name for name in sys.modules if name.startswith("tensorflow") and sys.modules[name] is not None]
print("loaded", loaded)
"""


def test_training_from_files_on_a_machine_without_tensorflow(tmp_path):
    write(tmp_path / "data" / "train", [(20, 20), (40, 30), (16, 16)])
    write(tmp_path / "data" / "val", [(18, 18), (40, 30)])
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path / "data"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded []\n")
    assert "values of a in 3 training images" in done.stdout
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3 and "eval/l1" in rows[0]
