"""FID and KID: the same figures as torch-fidelity gives, on a random network; errors that say what to install or give.

What needs torch-fidelity is skipped without it; nothing is downloaded.
"""

import json
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.distances import Reals, features, find_features
from p2p_jax.distances.kernel import kid
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate, predict
from p2p_jax.evaluation.fid_kid import fid_kid
from p2p_jax.images import pictures
from support.configs import small_config
from support.images import to_uint8, write_pairs
from support.runs import rows_of

TRUST = "support.networks:linear"


def write_folder(folder, count, highest, size=24):
    """Write noise images of which two folders with another `highest` value differ in brightness."""
    for i in range(count):
        file = folder / f"part{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.RandomState([highest, i]).randint(0, highest, (size, size, 3), np.uint8)
        Image.fromarray(noise).save(file)
    return folder


@pytest.fixture(scope="module")
def torch_fidelity():
    """Import torch-fidelity, also where torchvision was built for another PyTorch and lacks its compiled operators.

    FID uses none of them, but torchvision's import describes two; so they are declared, without an implementation.
    """
    torch = pytest.importorskip("torch")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        yield pytest.importorskip("torch_fidelity")
        del library
    else:
        yield pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def weights(torch_fidelity, tmp_path_factory):
    """Save an Inception network with random weights that keep the scale of the features."""
    import torch

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules[torch_fidelity.FeatureExtractorInceptionV3.__module__]
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        network = torch_fidelity.FeatureExtractorInceptionV3("random", ["2048"])
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return write_folder(root / "fakes", 6, 200), write_folder(root / "reals", 5, 256)


def test_equal_to_the_package_itself(torch_fidelity, weights, folders):
    import torch

    fakes, reals = folders
    expected = torch_fidelity.calculate_metrics(
        input1=str(fakes),
        input2=str(reals),
        cuda=torch.cuda.is_available(),
        fid=True,
        kid=True,
        kid_subset_size=5,
        feature_extractor_weights_path=str(weights),
        samples_find_deep=True,
        save_cpu_ram=True,
        verbose=False,
    )
    found = fid_kid(fakes, reals, weights=weights)
    assert found["fid"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    assert found["kid_mean"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert found["kid_std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-6)
    assert found["fid"] > 1 and found["kid_mean"] > 0 and found["kid_std"] > 0
    assert (found["count_fake"], found["count_real"]) == (6, 5)
    assert "6 generated, 5 real" in found["note"] and "singular" in found["note"]


def features_of(count, width, seed, shift=0.0):
    """Return features as networks have them: not below 0, and mixed."""
    drawn = np.random.RandomState(seed).normal(0.4 + shift, 0.3, (count, width))
    mixing = np.eye(width) + np.random.RandomState(9).normal(0, 0.1 / np.sqrt(width), (width, width))
    return np.maximum(drawn @ mixing, 0)


@pytest.mark.parametrize("counts, width", [((300, 280), 64), ((40, 50), 64), ((30, 30), 200), ((2100, 2050), 24)])
def test_our_formulas_give_the_figures_of_the_package(torch_fidelity, counts, width):
    """On the same features: more images than features, fewer, equally many, and more than a subset takes."""
    import torch
    from torch_fidelity import metric_fid, metric_kid

    sets = features_of(counts[0], width, 0, 0.05), features_of(counts[1], width, 1)
    given = [torch.from_numpy(x) for x in sets]
    statistics = [metric_fid.fid_features_to_statistics(x) for x in given]
    fid = metric_fid.fid_statistics_to_metric(*statistics, False)[torch_fidelity.KEY_METRIC_FID]
    options = {"kid_subsets": 100, "kid_kernel": "poly", "kid_kernel_poly_degree": 3, "rng_seed": 2020}
    by_size = {
        size: metric_kid.kid_features_to_metric(*given, kid_subset_size=size, verbose=False, **options)
        for size in {min(*counts, 1000), min(*counts, 2000) // 2}
    }
    means = {size: found[torch_fidelity.KEY_METRIC_KID_MEAN] for size, found in by_size.items()}
    stds = {size: found[torch_fidelity.KEY_METRIC_KID_STD] for size, found in by_size.items()}
    found = Reals(sets[1]).distances(sets[0])
    assert found["fid"] == pytest.approx(fid, rel=1e-6)
    assert found["kid"] == pytest.approx(means[min(*counts, 1000)], rel=1e-6)
    assert found["kid_std"] == pytest.approx(stds[min(*counts, 2000) // 2], rel=1e-6)
    for size in by_size:
        assert kid(*sets, size=size) == pytest.approx((means[size], stds[size]), rel=1e-6, abs=1e-12)


def test_training_and_evaluation_with_inception_give_the_figures_of_the_package(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_AT_ONCE", (4, 4 * 256 * 256))  # no batch is filled up: each image takes long
    write_pairs(tmp_path / "pairs" / "train", 3)
    write_pairs(tmp_path / "pairs" / "val", 4, seed=1)
    data = {"data__source": "side_by_side", "data__dir": str(tmp_path / "pairs")}
    inception = {"distances__features": "inception", "distances__weights": str(weights)}
    config = small_config(objective="support.networks:linear", num_steps=1, batch_size=2, **data, **inception)
    train(config, tmp_path / "run")
    for i, prediction in enumerate(predict(Translator.from_workdir(tmp_path / "run", trust=TRUST), "val")):
        for kind in ("output", "target", "input"):
            pictures.write(tmp_path / kind / f"{i}.png", to_uint8(getattr(prediction, kind)))
    (row,) = rows_of(tmp_path / "run")
    row = {name.removeprefix("eval/"): float(value) for name, value in row.items() if name.startswith("eval/")}
    for kind, ahead in (("output", ""), ("input", "copy_")):
        expected = fid_kid(tmp_path / kind, tmp_path / "target", weights=weights)
        assert row[f"{ahead}fid"] == pytest.approx(expected["fid"], rel=1e-6)
        # Its kernels of these features, which are float32, are of float32 too.
        assert row[f"{ahead}kid"] == pytest.approx(expected["kid_mean"], rel=1e-5, abs=1e-6)
    found = evaluate(tmp_path / "run", metrics=["distances"], trust=TRUST)["set_metrics"]["distances [inception]"]
    for name in ("kid", "kid_std", "fid", "copy_kid", "copy_fid"):
        assert found[name] == pytest.approx(row[name], rel=1e-6)
    stored = json.loads((tmp_path / "run" / "facts.json").read_text())["distances"]["weights"]
    assert stored == find_features("inception", weights).digest


def test_wrong_weights_of_a_training_name_its_option(torch_fidelity, tmp_path):
    inception = {"distances__features": "inception", "distances__weights": str(tmp_path / "none.pth")}
    config = small_config(objective="support.networks:linear", num_steps=1, **inception)
    with pytest.raises(InputError, match="config.distances.weights=.*none.pth does not hold the weights"):
        train(config, tmp_path / "run")


def test_a_set_is_at_no_distance_from_itself(weights, folders, capfd):
    found = fid_kid(folders[0], folders[0], weights=weights)
    assert found["fid"] == pytest.approx(0, abs=1e-3)
    assert found["kid_mean"] <= 0  # unbiased, so not above 0 for equal sets
    assert found["kid_std"] == pytest.approx(0, abs=1e-6)
    assert "kid_std is 0" in found["note"]
    assert capfd.readouterr() == ("", "")


def test_weights_of_another_network_are_refused(torch_fidelity, weights, folders, tmp_path):
    import torch

    other, torn = tmp_path / "other.pth", tmp_path / "torn.pth"
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, other)
    torn.write_bytes(weights.read_bytes()[:5000])
    for path in (other, torn, tmp_path / "nowhere.pth"):
        with pytest.raises(InputError, match=rf"inception={path} does not hold the weights"):
            fid_kid(*folders, weights=path)


def test_weights_that_would_run_code_are_not_loaded(torch_fidelity, folders, tmp_path):
    import torch

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save(Trap(), tmp_path / "trap.pth")
    with pytest.raises(InputError, match="trap.pth does not hold the weights"):
        fid_kid(*folders, weights=tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_failed_download_says_how_to_give_the_file(torch_fidelity, folders, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    module = sys.modules[torch_fidelity.FeatureExtractorInceptionV3.__module__]
    monkeypatch.setattr(module, "load_state_dict_from_url", unreachable)
    with pytest.raises(InputError, match=r"not be downloaded \(no route to host\).*inception=FILE"):
        fid_kid(*folders)


def test_folders_are_checked_before_the_network(torch_fidelity, folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds 0 PNG files"):
        fid_kid(tmp_path / "empty", folders[1])
    large = write_folder(tmp_path / "large", 2, 256, size=30)
    with pytest.raises(InputError, match=r"24x24 pixels and .*large.* 30x30"):
        fid_kid(folders[0], large)
    (large / "broken.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"broken.png is not a readable PNG"):
        fid_kid(folders[0], large)


def test_without_the_extra_one_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InputError, match=r"FID and KID need torch-fidelity.*pip install 'p2p_jax\[fid\]'"):
        fid_kid(tmp_path, tmp_path)


def test_builds_that_do_not_fit_are_told_with_the_cause(tmp_path, monkeypatch):
    (tmp_path / "torch_fidelity.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch_fidelity", raising=False)
    with pytest.raises(InputError, match=r"operator torchvision::nms does not exist.*matching builds"):
        fid_kid(tmp_path, tmp_path)


def test_an_evaluation_measures_outputs_against_targets(weights, tmp_path):
    write_pairs(tmp_path / "pairs" / "train", 3)
    write_pairs(tmp_path / "pairs" / "val", 3, seed=1)
    data = {"data__source": "side_by_side", "data__dir": str(tmp_path / "pairs")}
    train(small_config(num_steps=1, batch_size=2, **data), tmp_path / "run")
    found = evaluate(tmp_path / "run", metrics=["fid"], inception=weights)["set_metrics"]["FID and KID"]
    for i, prediction in enumerate(predict(Translator.from_workdir(tmp_path / "run"), "val")):
        for kind, image in (("fakes", prediction.output), ("reals", prediction.target)):
            pictures.write(tmp_path / kind / f"{i}.png", to_uint8(image))
    expected = fid_kid(tmp_path / "fakes", tmp_path / "reals", weights=weights)
    assert found["fid"] == pytest.approx(expected["fid"], rel=1e-6)
    assert found["kid_mean"] == pytest.approx(expected["kid_mean"], rel=1e-6)
    assert (found["count_fake"], found["count_real"]) == (3, 3) and "3 generated" in found["note"]
    for i in (1, 2):
        evaluate(tmp_path / "run", metrics=["fid"], inception=weights, output=tmp_path / "out", shard=f"{i}/2")
    given = {"metrics": ["fid"], "inception": weights, "output": tmp_path / "out"}
    merged = evaluate(tmp_path / "run", merge=True, **given)["set_metrics"]["FID and KID"]
    assert merged == found
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"parts", "results.json", "images.csv", "report.html"}
