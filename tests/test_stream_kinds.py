"""The stream for images of any kind: values, sizes, augmentation, inputs made of photographs."""

import itertools

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import from_arrays, load, unpaired_from_arrays
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.domains import of_config
from p2p_jax.images.palettes import to_hex
from support.configs import data_config
from support.images import levels, noise
from support.kinds import KINDS
from support.processes import python, run
from support.streams import in_order

PHOTOS = noise(6, 16, 16, 3)
VALUES = {name: kind.raw[:, :16, :16] for name, kind in KINDS.items()}


def stream(config, a, b, **more):
    return load(config, train=from_arrays(a, b), **more)


def test_ranges_are_measured_in_the_training_images_of_each_channel(capsys):
    values = np.stack([np.linspace(-3, 9, 256), np.linspace(0.5, 0.75, 256)], axis=-1).reshape(1, 16, 16, 2)
    data = stream(data_config(output__kind="float", output__channels=2), PHOTOS[:1], values.astype(np.float32))
    assert data.facts == {"input": {}, "output": {"range": "-3.0:9.0,0.5:0.75"}}
    assert "values of the output in 1 training images: -3.0:9.0,0.5:0.75" in capsys.readouterr().out
    batch = next(data.train(0))["real_b"]
    np.testing.assert_allclose(batch.min((0, 1, 2)), -1, atol=1e-6)
    np.testing.assert_allclose(batch.max((0, 1, 2)), 1, atol=1e-6)


def test_values_beyond_a_given_range_are_cut_off():
    values = np.full((1, 16, 16, 1), 5000, np.uint16)
    data = stream(data_config(input__kind="uint16", input__channels=1, input__range="0:4095"), values, PHOTOS[:1])
    assert data.facts == {"input": {}, "output": {}}
    assert next(data.train(0))["real_a"].max() == 1


def test_direction_takes_the_descriptions_along():
    values = VALUES["uint16"]
    config = data_config(input__kind="uint8", output__kind="uint16", output__channels=2, direction="BtoA")
    source = from_arrays(values, PHOTOS)
    found = in_order(load(config, train=source, val=source).validation)
    domain_a, domain_b = of_config(config.data)
    np.testing.assert_array_equal(domain_a.decode(found["real_a"]), PHOTOS)
    np.testing.assert_array_equal(domain_b.decode(found["real_b"]), values)


def test_unpaired_sides_differ_in_kind_and_size():
    a, b = VALUES["float"][:, :8, :8], VALUES["int16"]
    config = data_config(input__kind="float", input__channels=5, output__kind="int16", output__channels=1)
    data = load(config, train=unpaired_from_arrays(a, b))
    batch = next(data.train(0))
    assert (batch["real_a"].shape, batch["real_b"].shape) == ((4, 16, 16, 5), (4, 16, 16, 1))
    assert {side: list(found) for side, found in data.facts.items()} == {"input": ["range"], "output": ["range"]}


def ramps(height, width):
    """Return an image whose first channel is the row and whose second is the column."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)[None]


def test_crops_of_images_at_their_own_size():
    image = ramps(40, 56)
    config = data_config(preprocess="crop", crop_size=16, crop_width=24, batch_size=64)
    source = from_arrays(image, 255 - image)
    data = load(config, train=source, val=source)
    batch = next(data.train(0))
    a = levels(batch["real_a"])
    assert a.shape == (64, 16, 24, 3)
    assert (np.diff(a[..., 0], axis=1) == 1).all() and (np.diff(a[..., 1], axis=2) == 1).all()  # not resized
    tops, lefts = a[:, 0, 0, 0], a[:, 0, 0, 1]
    assert tops.min() < 4 and 20 < tops.max() <= 24
    assert lefts.min() < 4 and 28 < lefts.max() <= 32
    np.testing.assert_array_equal(a, 255 - levels(batch["real_b"]))  # the same crop
    middle = levels(next(data.validation(1))["real_a"])[0]
    assert middle[0, 0].tolist() == [12, 16, 0]


def test_scaling_to_a_width_keeps_the_aspect():
    image = ramps(40, 80)
    source = from_arrays(image, image)
    config = data_config(preprocess="scale_width", crop_size=20, crop_width=40)
    found = levels(next(load(config, train=source, val=source).validation(1))["real_a"])[0]
    assert np.abs(found[:, 20, 0] - (2 * np.arange(20) + 0.5)).max() <= 1
    assert np.abs(found[10, :, 1] - (2 * np.arange(40) + 0.5)).max() <= 1
    config = data_config(preprocess="scale_width_and_crop", load_size=40, crop_size=16)
    found = levels(next(load(config, train=source, val=source).validation(1))["real_a"])[0]
    assert found.shape == (16, 16, 3)
    assert abs(found[0, 0, 0] - 4) <= 1 and abs(found[0, 0, 1] - 24) <= 1  # the middle of 20x40


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20)])
def test_scaling_to_the_shorter_side_keeps_the_proportions_of_wide_and_of_upright_images(height, width):
    image = ramps(height, width)
    source = from_arrays(image, image)
    config = data_config(preprocess="scale_shortside_and_crop", load_size=20, crop_size=16)
    found = levels(next(load(config, train=source, val=source).validation(1))["real_a"])[0]
    np.testing.assert_array_equal(found, image[0, (height - 16) // 2 :, (width - 16) // 2 :][:16, :16])
    twice = data_config(preprocess="scale_shortside_and_crop", load_size=40, crop_size=16)
    found = levels(next(load(twice, train=source, val=source).validation(1))["real_a"])[0]
    assert abs(found[8, 8, 0] - height / 2) <= 1 and abs(found[8, 8, 1] - width / 2) <= 1  # the middle stays there


def test_none_leaves_images_as_they_are():
    source = from_arrays(PHOTOS, PHOTOS)
    config = data_config(preprocess="none")
    np.testing.assert_array_equal(levels(in_order(load(config, train=source, val=source).validation)["real_a"]), PHOTOS)


def test_rectangular_sizes():
    data = stream(data_config(load_size=20, load_width=40, crop_size=16, crop_width=32), PHOTOS, PHOTOS)
    assert next(data.train(0))["real_a"].shape == (4, 16, 32, 3)


def test_mirrors_and_turns_reach_all_eight_positions_and_are_shared():
    image = PHOTOS[:1]
    config = data_config(flip=True, augment__vflip=True, augment__quarter_turns=True, batch_size=64)
    batch = next(stream(config, image, 255 - image).train(0))
    a = levels(batch["real_a"])
    np.testing.assert_array_equal(a, 255 - levels(batch["real_b"]))
    turned = [np.rot90(x, k) for x in (image[0], image[0, :, ::-1]) for k in range(4)]
    found = {next(i for i, x in enumerate(turned) if np.array_equal(x, y)) for y in a}
    assert found == set(range(8))


def test_scale_jitter_enlarges_by_up_to_its_factor():
    image = np.broadcast_to((np.arange(32) * 4).astype(np.uint8)[None, None, :, None], (1, 32, 32, 3))
    config = data_config(load_size=32, crop_size=32, augment__scale_jitter=0.5, batch_size=32)
    a = levels(next(stream(config, image, image).train(0))["real_a"])
    slopes = (a[:, 16, 24, 0] - a[:, 16, 8, 0]) / 16 / 4  # source pixels a pixel
    assert 1 / 1.5 - 0.05 < slopes.min() < 0.72 and 0.93 < slopes.max() < 1.05


def test_photometric_changes_are_for_the_input_alone():
    source = from_arrays(PHOTOS, PHOTOS)
    plain = next(load(data_config(), train=source).train(0))
    changed = next(load(data_config(augment__photometric=0.2), train=source).train(0))
    np.testing.assert_array_equal(changed["real_b"], plain["real_b"])
    assert np.abs(changed["real_a"]).max() == 1  # cut off where networks have no more room
    factors = set()
    for before, after in zip(plain["real_a"], changed["real_a"], strict=True):
        inside = np.abs(after) < 1
        slope, shift = np.polyfit(before[inside], after[inside], 1)
        np.testing.assert_allclose(after[inside], before[inside] * slope + shift, atol=1e-5)
        assert 0.8 <= slope <= 1.2 and abs(shift) <= 0.2
        factors.add(round(float(slope), 4))
    assert len(factors) == 4


@pytest.mark.slow
def test_augmentation_is_a_function_of_seed_and_step():
    options = dict(vflip=True, quarter_turns=True, scale_jitter=0.3, photometric=0.1)
    options = {f"augment__{key}": value for key, value in options.items()}
    source = from_arrays(PHOTOS, PHOTOS)
    config = data_config(flip=True, load_size=20, **options)
    batches = list(itertools.islice(load(config, train=source).train(0), 4))
    again = next(load(config, train=source).train(3))
    np.testing.assert_array_equal(again["real_a"], batches[3]["real_a"])
    np.testing.assert_array_equal(again["real_b"], batches[3]["real_b"])


def test_labels_are_never_mixed_by_a_change_of_size():
    values, options = VALUES["labels"] % 7, KINDS["labels"].options
    source = from_arrays(values, PHOTOS)
    config = data_config(input__kind="labels", load_size=21, crop_size=16, **options)
    batch = next(load(config, train=source).train(0))["real_a"]
    assert set(np.unique(batch)) == {-1.0, 1.0}
    np.testing.assert_array_equal((batch == 1).sum(-1), 1)


def test_an_input_is_made_of_the_photograph():
    source = from_arrays(PHOTOS, PHOTOS)
    options = {"task__input": "p2p_jax.images.tasks:centre_hole", "task__size": 0.5}
    batch = next(load(data_config(**options), train=source).train(0))
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    np.testing.assert_array_equal(batch["real_a"][:, ~hole], batch["real_b"][:, ~hole])
    assert len(np.unique(batch["real_a"][0, hole], axis=0)) == 1


def test_noise_is_new_at_every_step_and_fixed_in_validation():
    source = from_arrays(PHOTOS[:1], PHOTOS[:1])
    config = data_config(task__input="p2p_jax.images.tasks:gaussian_noise", task__sigma=20.0)
    data = load(config, train=source, val=source)
    first, second = itertools.islice(data.train(0), 2)
    np.testing.assert_array_equal(first["real_b"], second["real_b"])
    assert not np.array_equal(first["real_a"], second["real_a"])
    assert not np.array_equal(first["real_a"][0], first["real_a"][1])
    np.testing.assert_array_equal(next(data.train(1))["real_a"], second["real_a"])
    np.testing.assert_array_equal(*(next(data.validation(1))["real_a"] for _ in range(2)))


@pytest.mark.slow
def test_photographs_from_a_folder(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for i, photo in enumerate(PHOTOS):
            Image.fromarray(photo).save(tmp_path / split / f"{i}.png")
    options = {"input__kind": "lab_l", "input__channels": 1, "output__kind": "lab_ab", "output__channels": 2}
    config = data_config(source="photos", dir=str(tmp_path), **options)
    found = in_order(load(config).validation)
    domain_a, domain_b = of_config(config.data)
    np.testing.assert_array_equal(found["real_a"], domain_a.encode(domain_a.values(PHOTOS)))
    np.testing.assert_array_equal(found["real_b"], domain_b.encode(domain_b.values(PHOTOS)))


def test_tasks_that_do_not_fit_are_named():
    source = from_arrays(PHOTOS, PHOTOS)
    task = {"task__input": "p2p_jax.images.tasks:centre_hole"}
    with pytest.raises(InputError, match="config.data.direction=AtoB"):
        load(data_config(direction="BtoA", **task), train=source)
    with pytest.raises(InputError, match="config.task.hole"):
        next(load(data_config(task__hole=3, **task), train=source).train(0))
    with pytest.raises(InputError, match="is unpaired: use photos"):
        load(data_config(**task), train=unpaired_from_arrays(PHOTOS, PHOTOS))
    with pytest.raises(InputError, match="has 1 channels, but this side takes 4"):
        load(data_config(input__channels=4, task__input="p2p_jax.images.tasks:canny_edges"), train=source)


def test_arrays_of_another_kind_than_the_config_says():
    with pytest.raises(InputError, match=r"16 bits \(uint16\), but this side is declared uint8"):
        load(data_config(), train=from_arrays(VALUES["uint16"], PHOTOS))
    with pytest.raises(InputError, match="has 4 channels, but this side takes 3"):
        load(data_config(), train=from_arrays(VALUES["uint8"], PHOTOS))


def test_photometric_changes_meet_the_input_of_unpaired_images_whatever_the_direction():
    a, b = np.full((2, 16, 16, 3), 50, np.uint8), np.full((2, 16, 16, 3), 150, np.uint8)
    config = data_config(direction="BtoA", augment__photometric=0.3)
    batch = next(load(config, train=unpaired_from_arrays(a, b)).train(0))
    np.testing.assert_array_equal(levels(batch["real_b"]), 50)
    assert len(np.unique(levels(batch["real_a"]))) == 4


def test_faults_of_a_task_are_told_before_training():
    source = from_arrays(PHOTOS, PHOTOS)
    with pytest.raises(InputError, match="config.task.sigma"):
        load(data_config(task__input="p2p_jax.images.tasks:gaussian_noise", task__sigma=-1.0), train=source)
    with pytest.raises(InputError, match="so its range cannot be measured; set config.data.input.range"):
        options = {"input__kind": "float", "task__input": "p2p_jax.images.tasks:centre_hole"}
        load(data_config(**options), train=source)


def test_arrays_too_small_for_the_crop_and_names_of_others_are_refused():
    with pytest.raises(InputError, match="has an image of 16x16 pixels, smaller than the crop of 32x32"):
        load(data_config(preprocess="crop", crop_size=32, load_size=32), train=from_arrays(PHOTOS, PHOTOS))
    with pytest.raises(InputError, match="there are 1 names for 6 pairs"):
        from_arrays(PHOTOS, PHOTOS, ["one"])
    with pytest.raises(InputError, match="labels are one channel of whole numbers"):
        floats = np.zeros((6, 16, 16, 1), np.float32)
        load(data_config(input__kind="labels", input__channels=4), train=from_arrays(floats, PHOTOS))


COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)], np.uint8)


def write_labels(folder, classes):
    """Write paletted label maps of 6 colours beside photographs."""
    for split in ("train", "val"):
        for i, (labels, photo) in enumerate(zip(classes, PHOTOS, strict=True)):
            formats.write(folder / split / "A" / f"{i}.png", labels[..., None], palette=COLORS)
            formats.write(folder / split / "B" / f"{i}.png", photo)


@pytest.mark.slow
def test_all_the_colours_of_files_with_a_palette_are_found(tmp_path):
    classes = noise(6, 16, 16, low=0, high=6)
    write_labels(tmp_path, classes)
    config = data_config(source="folders", dir=str(tmp_path), input__kind="label_colors")
    data = load(config)
    assert data.facts == {"input": {"palette": to_hex(COLORS)}, "output": {}}
    np.testing.assert_array_equal(levels(in_order(data.validation)["real_a"]), COLORS[classes])


def test_void_colours_are_no_class(tmp_path):
    (tmp_path / "palette.json").write_text('{"red": [255, 0, 0], "green": [0, 255, 0], "void": [[0, 0, 0]]}')
    colors = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
    classes = noise(6, 16, 16, low=0, high=3)
    source = from_arrays(colors[classes], PHOTOS)
    config = data_config(input__kind="labels", input__channels=2, input__palette=str(tmp_path / "palette.json"))
    found = in_order(load(config, train=source, val=source).validation)["real_a"]
    expected = np.array([(-1, -1), (1, -1), (-1, 1)], np.float32)[classes]
    np.testing.assert_array_equal(found, expected)


def test_masks_of_0_and_255_are_two_classes():
    domain = of_config(data_config(input__kind="labels", input__channels=2).data)[0]
    np.testing.assert_array_equal(
        domain.raw(np.array([[[0], [255]], [[1], [7]]], np.uint8))[..., 0], [[0, 1], [1, 255]]
    )


def test_other_partners_in_a_csv_are_other_data(tmp_path):
    for name in ("a", "b", "longer"):
        formats.write(tmp_path / f"{name}.png", PHOTOS[0])
    fingerprints = []
    for partner in ("b", "longer"):
        (tmp_path / "train.csv").write_text(f"a,b\na.png,{partner}.png\n\n")  # a blank line is none
        fingerprints.append(load(data_config(source="csv", dir=str(tmp_path), val_split="")).fingerprint)
    assert fingerprints[0] != fingerprints[1]


@pytest.mark.slow
def test_a_program_ends_while_functions_of_python_read_ahead():
    script = """
import time
import numpy as np
from p2p_jax.config import complete
from p2p_jax.data import from_arrays, load

def slow(photograph, rng):
    time.sleep(0.05)
    return photograph

images = np.zeros((8, 16, 16, 3), np.uint8)
data = {"load_size": 16, "crop_size": 16, "direction": "AtoB"}
config = complete({"batch_size": 2, "data": data, "task": {"input": "__main__:slow"}})
stream = load(config, train=from_arrays(images, images)).train(0)
print(next(stream)["real_a"].shape)
"""
    done = run(python(script))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("(2, 16, 16, 3)\n")
    assert "Exception" not in done.stderr
