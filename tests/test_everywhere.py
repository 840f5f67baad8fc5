"""One run, and the same picture in every form in which it is handed on, in grey levels."""

import importlib.util

import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from p2p_jax import Translator
from p2p_jax.config import complete
from p2p_jax.demo.model import Model
from p2p_jax.interop import export, export_web, pack, push_to_hub
from p2p_jax.objectives import make_objective
from support.browser import chromium
from support.configs import SMALL_CYCLEGAN, merged
from support.hub import TOKEN, pretend, running
from support.images import noise
from support.networks import draw_state
from support.runs import blank_state, write_run
from support.web_pages import Browser, runtime_package, served

SIDE = 32
DIRECTIONS = ("AtoB", "BtoA")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A CycleGAN with an average of its generators, which differs from those of the step."""
    config = complete(merged(SMALL_CYCLEGAN, {"data": {"crop_size": SIDE, "load_size": SIDE}, "ema": {"decay": 0.5}}))
    state = draw_state(blank_state(make_objective(config), config), 8.0)
    return write_run(tmp_path_factory.mktemp("runs") / "cycle", config, state, 7)


@pytest.fixture(scope="module")
def picture():
    return noise(SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def expected(run, picture):
    """What the run makes of the picture, by direction."""
    made = {way: Translator.from_workdir(run, direction=way)(picture) for way in DIRECTIONS}
    raw = Translator.from_workdir(run, direction="AtoB", raw=True)(picture)
    assert min(image.std() for image in made.values()) > 10
    assert np.abs(made["AtoB"].astype(int) - made["BtoA"]).max() > 50
    assert np.abs(made["AtoB"].astype(int) - raw).max() > 10  # so that the average is told from it
    return made


def levels(found, expected):
    """Return the largest difference in grey levels."""
    assert found.shape == expected.shape and found.dtype == np.uint8
    return np.abs(found.astype(int) - expected).max()


def of_export(call, picture):
    normalized = picture[None].astype(np.float32) / 127.5 - 1
    return np.rint(np.clip((np.asarray(call(normalized))[0] + 1) * 127.5, 0, 255)).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_file_and_the_hub(run, picture, expected, tmp_path, monkeypatch, dtype):
    packed = pack(run, tmp_path / "model.safetensors", dtype=dtype, licence="mit")
    bound = 0 if dtype == "float32" else 2
    for way in DIRECTIONS:
        assert levels(Translator.from_file(packed.path, direction=way)(picture), expected[way]) <= bound
    pytest.importorskip("huggingface_hub")
    with running() as hub:
        pretend(monkeypatch, hub, tmp_path / "cache")
        push_to_hub(run, "user/cycle", dtype=dtype, licence="mit", token=TOKEN)
        for way in DIRECTIONS:
            pulled = Translator.from_pretrained("user/cycle", direction=way)
            assert levels(pulled(picture), expected[way]) <= bound


@pytest.mark.slow
def test_the_demo(run, picture, expected, tmp_path):
    Image.fromarray(picture).save(tmp_path / "picture.png")
    packed = pack(run, tmp_path / "model.safetensors").path
    for source in (run, packed):
        model = Model(source, tmp_path / source.stem)
        for way in DIRECTIONS:
            shown = model.translate(way, tmp_path / "picture.png")
            assert levels(np.asarray(Image.open(shown.after)), expected[way]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_other_programs(run, picture, expected, tmp_path, form):
    if form == "onnx":
        for package in ("jax2onnx", "onnx", "onnxruntime"):
            pytest.importorskip(package)
    packed = pack(run, tmp_path / "model.safetensors").path
    for source in (run, packed):
        for way in DIRECTIONS:
            made = export(source, form, tmp_path / f"{way}.{form}", direction=way)
            if form == "onnx":
                import onnxruntime

                session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
                call = lambda images, session=session: session.run(None, {"images": images})[0]  # noqa: E731
            else:
                call = jax_export.deserialize(bytearray(made.path.read_bytes())).call
            assert levels(of_export(call, picture), expected[way]) <= 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is None, reason="pip install 'p2p_jax[export]'")
def test_the_web_page(run, picture, expected, tmp_path):
    Image.fromarray(picture).save(tmp_path / "picture.png")
    package = runtime_package()
    packed = pack(run, tmp_path / "model.safetensors").path
    for name, source in {"run": run, "file": packed}.items():
        export_web(source, tmp_path / "pages" / name, runtime_path=package)
    with served(tmp_path / "pages") as server, chromium(tmp_path / "profile") as driver:
        browser = Browser(driver, server, tmp_path / "pages")
        for name in ("run", "file"):
            browser.open(name)
            browser.choose(tmp_path / "picture.png")
            for way in DIRECTIONS:
                browser.select("#direction", way)
                browser.settle()
                assert levels(browser.pixels("after"), expected[way]) <= 2
