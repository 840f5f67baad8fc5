"""FID and KID: the same figures as torch-fidelity gives, on a random network; errors that say what to install or give.

What needs torch-fidelity is skipped without it; nothing is downloaded.
"""

import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate, predict
from p2p_jax.evaluation.fid_kid import fid_kid
from p2p_jax.images import pictures
from support.configs import small_config
from support.images import to_uint8, write_pairs


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
    with pytest.raises(InputError, match=r"operator torchvision::nms does not exist.*builds that belong together"):
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
