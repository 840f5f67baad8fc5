"""MAE, PSNR and SSIM against closed forms, scikit-image and the training loop; Lab histograms against hand values."""

import sys

import jax
import numpy as np
import pytest

import p2p_jax
from p2p_jax.errors import InputError
from p2p_jax.evaluation.histograms import LabHistograms
from p2p_jax.objectives.metrics import full_reference, in_units
from support.configs import small_config
from support.images import random_batch
from support.processes import run_python


def pairs(channels, side=40, count=3):
    """Return targets in [-1, 1] and outputs at growing distances from them."""
    noise = np.random.RandomState(channels)
    targets = noise.uniform(-1, 1, (count, side, side + 8, channels)).astype(np.float32)
    scale = np.array([0.05, 0.3, 2.0])[:, None, None, None]
    outputs = np.clip(targets + scale * noise.standard_normal(targets.shape), -1, 1).astype(np.float32)
    return outputs, targets


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_equal_scikit_image(channels):
    metrics = pytest.importorskip("skimage.metrics")
    outputs, targets = pairs(channels)
    found = full_reference(outputs, targets)
    for i, (output, target) in enumerate(zip((outputs + 1) / 2, (targets + 1) / 2, strict=True)):
        ssim = metrics.structural_similarity(
            output.astype(np.float64),
            target.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        assert float(found["ssim"][i]) == pytest.approx(ssim, abs=1e-5)
        psnr = metrics.peak_signal_noise_ratio(target.astype(np.float64), output.astype(np.float64), data_range=1)
        assert float(found["psnr"][i]) == pytest.approx(psnr, rel=1e-5)
    assert found["ssim"][0] > 0.9 > 0.3 > found["ssim"][2]


def test_a_constant_distance_has_a_closed_form():
    """0.2 apart in [-1, 1] is 0.1 apart in [0, 1]: MAE 0.1, PSNR 20 decibels."""
    targets = np.linspace(-1, 0.8, 2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(np.float32)
    found = full_reference(targets + 0.2, targets)
    assert found["l1"] == pytest.approx([0.1, 0.1], rel=1e-5)
    assert found["psnr"] == pytest.approx([20, 20], rel=1e-5)
    same = full_reference(targets, targets)
    assert np.array_equal(same["l1"], [0, 0]) and np.isposinf(same["psnr"]).all()
    assert same["ssim"] == pytest.approx([1, 1], abs=1e-6)


def test_errors_in_units_have_closed_forms():
    """Of eight pixels six are 2 too high and one is 6 too low, one is unknown: MAE 18/7, bias 6/7, RMSE sqrt(60/7)."""
    target = np.arange(8.0).reshape(1, 2, 4, 1)
    apart = np.array([2, 2, 2, 2, 2, 2, -6, np.nan]).reshape(target.shape)
    found = in_units(target + apart, target, by_channel=False)
    assert {name: value.tolist() for name, value in found.items()} == {
        "mae_units": [pytest.approx(18 / 7)],
        "rmse_units": [pytest.approx((60 / 7) ** 0.5)],
        "bias_units": [pytest.approx(6 / 7)],
    }
    nothing = in_units(target * np.nan, target, by_channel=False)
    assert all(np.isnan(value).all() for value in nothing.values())


def test_channels_are_measured_by_themselves():
    """One 3 too high, one 1 too low: together the bias is 1, and neither channel has it."""
    target = np.zeros((2, 3, 3, 2))
    found = in_units(target + [3.0, -1.0], target, by_channel=True)
    expected = {"mae_units": 2, "rmse_units": 5**0.5, "bias_units": 1}
    expected |= {"mae_units_1": 3, "rmse_units_1": 3, "bias_units_1": 3}
    expected |= {"mae_units_2": 1, "rmse_units_2": 1, "bias_units_2": -1}
    assert {name: pytest.approx([value] * 2) for name, value in expected.items()} == found


@pytest.mark.slow
def test_figures_are_those_of_a_training_run():
    config = small_config()
    objective = p2p_jax.pix2pix(config)
    batch = random_batch(config)
    state = jax.jit(objective.init)(jax.random.key(0), batch)
    expected, images = jax.jit(objective.evaluate)(state, batch, jax.random.key(1))
    found = full_reference(images["output"], images["target"])
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.asarray(values), rel=1e-5)


@pytest.fixture
def histograms():
    pytest.importorskip("skimage")
    return LabHistograms


def filled(histograms, images):
    result = histograms()
    result.add(images)
    return result


def flat(*rgb):
    return np.full((4, 5, len(rgb)), rgb, np.uint8)


# L*, a*, b* of the corners of sRGB under D65, to two decimals as published: (100, 0, 0), (53.24, 80.09, 67.20),
# (87.73, -86.18, 83.18), (32.30, 79.19, -107.86); mid gray is (53.59, 0, 0).
@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((255, 255, 255), (100, 0, 0)),
        ((128, 128, 128), (54, 0, 0)),
        ((255, 0, 0), (53, 80, 67)),
        ((0, 255, 0), (88, -86, 83)),
        ((0, 0, 255), (32, 79, -108)),
    ],
)
def test_lab_of_known_colours(histograms, rgb, lab):
    counts = filled(histograms, flat(*rgb)).counts
    assert {name: len(count) for name, count in counts.items()} == {"L": 101, "a": 256, "b": 256}
    for (name, count), value in zip(counts.items(), lab, strict=True):
        assert count.sum() == count[value - (0 if name == "L" else -128)] == 20


def test_gray_is_one_colour_at_every_level(histograms):
    """All grays fall into the bins a = 0 and b = 0; grayscale images have no others than L, which is the same."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    colour, gray = filled(histograms, np.repeat(ramp, 3, axis=-1)), filled(histograms, ramp)
    assert colour.counts["a"][128] == colour.counts["b"][128] == 256
    assert gray.counts.keys() == {"L"}
    assert np.array_equal(gray.counts["L"], colour.counts["L"])


def test_every_colour_lies_in_range(histograms):
    """The extremes of a and b over the whole cube, sampled on its faces, where they lie."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    counts = filled(histograms, cube).counts
    assert {name: int(count.sum()) for name, count in counts.items()} == dict.fromkeys("Lab", 52**3)
    occupied = {name: np.flatnonzero(count) for name, count in counts.items()}
    assert [(int(o[0]), int(o[-1])) for o in occupied.values()] == [
        (0, 100),
        (128 - 86, 128 + 98),
        (128 - 108, 128 + 94),
    ]


def test_intersection(histograms):
    noise = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3), np.uint8)
    whole = filled(histograms, noise)
    shuffled = filled(histograms, noise[::-1, ::-1])
    assert whole.intersection(shuffled) == pytest.approx({"L": 1, "a": 1, "b": 1}, abs=1e-12)
    red, green = filled(histograms, flat(255, 0, 0)), filled(histograms, flat(0, 255, 0))
    assert red.intersection(green) == {"L": 0, "a": 0, "b": 0}
    # A set three times as large counts no more; a quarter of green pixels leaves three quarters in common.
    mixed = filled(histograms, np.stack([flat(255, 0, 0)] * 3 + [flat(0, 255, 0)]))
    assert red.intersection(mixed) == mixed.intersection(red) == {"L": 0.75, "a": 0.75, "b": 0.75}


def test_parts_add_up_to_the_whole(histograms):
    noise = np.random.RandomState(1).randint(0, 256, (5, 8, 9, 3), np.uint8)
    whole, parts = filled(histograms, noise), histograms()
    for image in noise:
        parts.add(image)
    for name, count in whole.counts.items():
        assert np.array_equal(count, parts.counts[name])
        assert count.sum() == 5 * 8 * 9


def test_what_does_not_belong_together_is_refused(histograms):
    colour, gray = filled(histograms, flat(1, 2, 3)), filled(histograms, flat(1))
    with pytest.raises(ValueError, match="grayscale and colour"):
        colour.add(flat(1))
    for other in (gray, histograms()):
        with pytest.raises(ValueError, match="no intersection"):
            colour.intersection(other)
    with pytest.raises(ValueError, match="float32"):
        colour.add(flat(1, 2, 3).astype(np.float32))


def test_without_scikit_image_one_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.color", None)
    with pytest.raises(InputError, match=r"pip install 'p2p_jax\[eval\]'"):
        LabHistograms()


@pytest.mark.slow
def test_import_is_light():
    code = (
        "import p2p_jax.evaluation.histograms, p2p_jax.evaluation.fid_kid, p2p_jax.evaluation.ablation, sys; "
        "print([m for m in ('tensorflow', 'torch', 'skimage', 'torch_fidelity') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"
