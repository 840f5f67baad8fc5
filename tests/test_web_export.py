"""Runs as web pages: what is written, and what is refused; tests/test_web_page_browser.py opens the pages."""

import hashlib
import json
import sys
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest

from p2p_jax import InputError, Translator
from p2p_jax.commands.export import run as command
from p2p_jax.config import complete, resolve
from p2p_jax.images.domains import Domain
from p2p_jax.images.palettes import CMP_FACADES, PIX2PIX_FACADES
from p2p_jax.interop import onnx_weights
from p2p_jax.interop.web import page, runtime
from p2p_jax.interop.web import weights as storing
from p2p_jax.interop.web.exporting import export_web
from support.configs import SMALL, SMALL_CYCLEGAN, merged
from support.images import noise, save
from support.networks import POINTWISE, draw_state
from support.runs import blank_state, write_run
from support.web_pages import write_package

missing = [name for name in ("jax2onnx", "onnx", "onnxruntime") if find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
WHOLE = {"low": (0.0,) * 3, "high": (255.0,) * 3}


def save_run(workdir, changes=None, base=SMALL):
    config = complete(merged(base | {"generator": POINTWISE}, changes or {}))
    return write_run(workdir, config, draw_state(blank_state(resolve(config.objective)(config), config)), 7)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("npm") / "onnxruntime-web")


# --- onnxruntime-web ------------------------------------------------------------------------------------------------


def test_the_runtime_is_read_from_a_folder_and_from_an_archive(package, tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "ort.tgz", "w:gz") as archive:
        archive.add(package, "package")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "onnxruntime-web").symlink_to(package)
    monkeypatch.chdir(tmp_path)
    for path in (package, tmp_path / "ort.tgz", None):
        found = runtime.find(path)
        assert found.version == "1.30.0"
        assert found.files["ort-wasm-simd-threaded.wasm"] == b"\0asm"
        assert found.files["ort.wasm.min.module.js"] == b"export {};"
        assert found.digests()["ort-wasm-simd-threaded.wasm"] == hashlib.sha256(b"\0asm").hexdigest()
        assert b"Copyright (c) Microsoft Corporation" in found.files["LICENSE"]  # which the npm package has not
        assert ("ThirdPartyNotices.txt" in found.files) == bool(find_spec("onnxruntime"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"package.json": b'{"name": "onnxruntime-node", "version": "1"}'}, "is the package onnxruntime-node"),
        ({"package.json": b"{"}, "package.json cannot be read"),
        ({"package.json": b"[" * 100_000}, "package.json cannot be read"),
        ({"package.json": b"[1]"}, "package.json cannot be read"),
        ({"package.json": None}, "has no package.json"),
        ({"dist/ort-wasm-simd-threaded.wasm": None}, r"has no dist/ort-wasm-simd-threaded\.wasm"),
    ],
)
def test_another_package_is_refused(tmp_path, changes, message):
    folder = write_package(tmp_path / "package", changes)
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        archive.add(folder, "package")
    for path in (folder, tmp_path / "p.tgz"):
        with pytest.raises(InputError, match=f"runtime=.*{message}"):
            runtime.find(path)


def test_a_runtime_that_is_not_there_is_told_how_to_get(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="format=web needs the npm package onnxruntime-web.*npm install onnxruntime-web"
    ):
        runtime.find(None)
    with pytest.raises(InputError, match="runtime=a.tgz: there is no such file.*npm pack onnxruntime-web"):
        runtime.find("a.tgz")
    (tmp_path / "a.tgz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="runtime=a.tgz cannot be read"):
        runtime.find("a.tgz")
    with tarfile.open(tmp_path / "link.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("package/package.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match="has no package.json"):
        runtime.find("link.tgz")


# --- weights in fewer bits ------------------------------------------------------------------------------------------


def test_whole_numbers_have_a_scale_a_channel_where_it_loses_least():
    scales = np.array([1, 100, 0.01, 3], np.float32)
    tensor = noise(3, 3, 5, 4, dtype=np.float32) * scales
    for axis, given in ((3, tensor), (2, np.moveaxis(tensor, 3, 2)), (0, np.moveaxis(tensor, 3, 0))):
        found = onnx_weights.quantize(np.ascontiguousarray(given))
        assert found.axis == axis and found.numbers.dtype == np.int8 and np.abs(found.numbers).max() == 127
        np.testing.assert_allclose(found.scales, np.abs(tensor).max((0, 1, 2)) / 127, rtol=1e-6)
        shape = [-1 if i == axis else 1 for i in range(4)]
        assert (np.abs(found.tensor - given) <= found.scales.reshape(shape) * 0.5001).all()
    assert (onnx_weights.quantize(np.zeros((4, 80), np.float32)).tensor == 0).all()


def test_differences_are_in_grey_levels():
    ones = np.ones((2, 1, 1, 1), np.float32)
    assert storing.compare(ones, ones * [[[[1 - 2 / 255]]], [[[1]]]]) == pytest.approx((1, 0.5))
    assert storing.compare(ones * 9, ones) == (0, 0)  # as a picture shows it
    assert storing.compare(ones * [[[[np.nan]]], [[[1]]]], ones).largest == np.inf


def product(*weights):
    """Make a model of images [1, H, W, C] that are multiplied by matrices, and of which the tangent is taken."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, names = [], ["images"]
    for i in range(len(weights)):
        names.append(f"x{i}")
        nodes.append(helper.make_node("MatMul", [names[-2], f"w{i}"], [names[-1]]))
    nodes.append(helper.make_node("Tanh", [names[-1]], ["translated"]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "h", "w", 16]) for n in ("images", "translated")]
    initializers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def expected_of(images, *weights):
    for weight in weights:
        images = images @ weight
    return np.tanh(images)


@needs_onnx
@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_stored_weights_compute_what_they_did(weights):
    matrix, images = noise(16, 16, dtype=np.float32) / 8, noise(4, 8, 8, 16, dtype=np.float32)
    model = product(matrix)
    before = model.SerializeToString()
    found = storing.store(model, weights, images, expected_of(images, matrix))
    assert model.SerializeToString() == before
    bits = {"float32": 32, "float16": 16, "int8": 8}[weights]
    assert 256 * bits / 8 <= len(found.content) < 256 * bits / 8 + 700
    lower, upper = {"float32": (0, 1e-3), "float16": (1e-4, 0.1), "int8": (0.05, 2)}[weights]
    assert lower < found.difference.largest < upper and found.difference.mean < found.difference.largest
    assert found.share == 1


@needs_onnx
def test_what_costs_most_keeps_more_bits():
    """The first map has large numbers in every row and column, of which nothing comes, and rounds all others away."""
    images, small = noise(4, 8, 8, 16, dtype=np.float32), noise(16, 16, dtype=np.float32, seed=2) / 2
    images[..., 0], small[0], small[:, 0] = 0, 90, 90
    first, second = (noise(*shape, dtype=np.float32, seed=i) / 8 for i, shape in enumerate([(16, 256), (256, 16)]))
    first[0] = 0
    expected = expected_of(images, small, first, second)
    model = product(small, first, second)
    content = storing._stored(model, "int8")
    assert storing.compare(storing._run(content, images), expected).largest > storing.MOST
    found = storing.store(model, "int8", images, expected)
    assert found.difference.largest <= storing.MOST and found.share == 1 - 256 / (2 * 4096 + 256)
    assert storing.compare(storing._run(found.content, images), expected) == found.difference


@needs_onnx
def test_translations_that_would_differ_are_refused():
    matrix, images = noise(16, 16, dtype=np.float32) * 3, noise(4, 8, 8, 16, dtype=np.float32)
    expected = expected_of(images, matrix)
    with pytest.raises(InputError, match=r"weights=int8: .* by \d+\.\d grey levels, and may by 2.*weights=float16"):
        storing.store(product(matrix), "int8", images, expected)
    with pytest.raises(InputError, match=r"weights=float32: .* by \d+\.\d grey levels, and may by 2$"):
        storing.store(product(matrix), "float32", images, -expected)
    with pytest.raises(InputError, match="by inf grey levels"):
        storing.store(product(matrix), "float32", images, np.full_like(expected, np.nan))


@needs_onnx
def test_numbers_beyond_16_bits_stay_as_they_are():
    from onnx import numpy_helper

    huge = noise(16, 16, dtype=np.float32) * 1e5
    model = product(huge, np.ones((16, 4), np.float32))
    assert onnx_weights.sizes(model) == {}
    onnx_weights.store(model, "float16")
    assert [numpy_helper.to_array(x).dtype for x in model.graph.initializer] == [np.float32] * 2


# --- what the page is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (Domain("uint16", 1, (0.0,), (1.0,)), "takes uint16 of 1 channels: use format=onnx"),
        (Domain("float", 3, (0.0,) * 3, (1.0,) * 3), "takes float of 3"),
        (Domain("uint8", 5, (0.0,) * 5, (1.0,) * 5), "takes uint8 of 5"),
        (Domain("uint8", 3, **WHOLE, unknown=True), "with unknown values"),
        (Domain("uint8", 3), "range of the values that the run takes is not known"),
    ],
)
def test_what_is_no_picture_is_refused(domain, message):
    with pytest.raises(InputError, match=message):
        page.check_domain(domain, "takes")


def test_what_drawings_are_made_with():
    pictures = Domain("uint8", 3, **WHOLE)
    labels = page.drawn_with(Domain("labels", 12, palette=CMP_FACADES), "", None, None)
    assert labels["kind"] == "palette" and labels["paper"] == "#0000aa" and labels["colors"][3] == ["door", "#00aaff"]
    maps = PIX2PIX_FACADES.colors[noise(2, 32, 32, low=0, high=12)]
    assert page.drawn_with(pictures, "", None, maps)["colors"][3] == ["door", "#00cfff"]  # recognised
    assert page.drawn_with(pictures, "", CMP_FACADES, maps)["colors"][3] == ["door", "#00aaff"]  # asked for
    grays = page.drawn_with(Domain("labels", 3), "", None, None)
    assert grays["colors"] == [["class 0", "#000000"], ["class 1", "#7f7f7f"], ["class 2", "#ffffff"]]
    edges = np.where(
        noise(2, 32, 32, 1) < 30, noise(2, 32, 32, 1, low=0, high=20), noise(2, 32, 32, 1, low=240, high=256)
    )
    lines = [["pen", "#000000"], ["rubber", "#ffffff"]]
    for found in (
        page.drawn_with(pictures, "", None, edges.astype(np.uint8).repeat(3, -1)),
        page.drawn_with(Domain("uint8", 1, (0.0,), (255.0,)), "", None, edges.astype(np.uint8)),
        page.drawn_with(Domain("uint8", 1, (0.0,), (255.0,)), "p2p_jax.images.tasks:canny_edges", None, None),
    ):
        assert (found["kind"], found["colors"], found["paper"]) == ("lines", lines, "#ffffff")
    for examples in (noise(2, 32, 32, 3), 255 - edges.astype(np.uint8).repeat(3, -1), None):
        assert page.drawn_with(pictures, "", None, examples)["kind"] == "colors"


# --- whole pages ----------------------------------------------------------------------------------------------------


@needs_onnx
def test_a_page_is_one_folder(small_run, package, tmp_path):
    found = export_web(small_run, tmp_path / "a" / "page", runtime_path=package, title="<b>Façades & more")
    folder = tmp_path / "a" / "page"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    licence = {"ort/LICENSE", "ort/ThirdPartyNotices.txt"}
    ort = {"ort.wasm.min.module.js", "ort-wasm-simd-threaded.module.js", "ort-wasm-simd-threaded.wasm"}
    own = {"app.js", "app.css", "drawing.js", "pictures.js", "translate.js", "index.html", "manifest.json", "_headers"}
    assert names == own | licence | {f"ort/{name}" for name in ort} | {"BtoA.onnx"}
    assert found.megabytes == sum((folder / name).stat().st_size for name in names) / 1e6
    assert folder.stat().st_mode & 0o777 == 0o755  # servers run as somebody else
    assert "<title>&lt;b&gt;Façades &amp; more</title>" in (folder / "index.html").read_text("utf-8")
    told = json.loads((folder / "manifest.json").read_bytes())
    (way,) = told["directions"]
    content = (folder / "BtoA.onnx").read_bytes()
    assert (way["bytes"], way["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (way["name"], way["steps"], way["fixed"], told["size"]) == ("BtoA", [1, 1], False, [16, 16])
    assert told["checkpoint_id"] == Translator.from_workdir(small_run).checkpoint_id and told["step"] == 7
    assert found.compared_on == "32 images of val" and 0 <= found.ways[0].difference.largest < 0.5
    assert way["draw"]["colors"][0] == ["background", "#0000aa"]  # recognised in the validation set's label maps
    assert not list((tmp_path / "a").glob(".*"))


@needs_onnx
def test_both_directions_of_cyclegan(package, tmp_path):
    run = save_run(tmp_path / "run", {"data": {"background": "#204060"}}, SMALL_CYCLEGAN)
    both = export_web(run, tmp_path / "both", runtime_path=package, weights="float32")
    told = json.loads((tmp_path / "both" / "manifest.json").read_bytes())
    assert [way.direction for way in both.ways] == [way["name"] for way in told["directions"]] == ["AtoB", "BtoA"]
    assert told["background"] == "#204060"
    one = export_web(run, tmp_path / "one", runtime_path=package, direction="BtoA")
    assert [way.direction for way in one.ways] == ["BtoA"]
    assert {path.name for path in (tmp_path / "one").glob("*.onnx")} == {"BtoA.onnx"}


@needs_onnx
def test_only_pages_are_replaced(small_run, package, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for output, message in {"mine": "holds other files", "file": "is a file"}.items():
        with pytest.raises(InputError, match=f"output=.*{output} {message}"):
            export_web(small_run, tmp_path / output, runtime_path=package)
    assert (tmp_path / "mine" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export_web(small_run, tmp_path / "empty", runtime_path=package)
    (tmp_path / "empty" / "AtoB.onnx").write_text("of an earlier run")
    export_web(small_run, tmp_path / "empty", runtime_path=package, title="second")
    assert not (tmp_path / "empty" / "AtoB.onnx").exists()
    assert "<h1>second</h1>" in (tmp_path / "empty" / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine"]


@needs_onnx
def test_a_page_that_differs_is_not_written(small_run, package, tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "_run", lambda content, images: np.zeros((len(images), 16, 16, 3), np.float32))
    with pytest.raises(InputError, match="grey levels, and may by 2"):
        export_web(small_run, tmp_path / "page", runtime_path=package)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workdir": "nothing"}, "does not hold a trained run"),
        ({"direction": "AtoB"}, "trained for only BtoA"),
        ({"weights": "int4"}, "weights=int4: choose one of float32, float16, int8"),
        ({"runtime_path": "nowhere"}, "runtime=nowhere: there is no such"),
        ({"palette": "nowhere"}, "there is no palette 'nowhere'"),
        ({"split": "nowhere"}, "nowhere"),
        ({"data_dir": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_refused(small_run, package, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        export_web(**{"workdir": small_run, "output": "page", "runtime_path": package} | options)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_images_of_the_data_set_or_noise(package, tmp_path):
    data = {"source": "side_by_side", "dir": str(tmp_path / "data"), "direction": "AtoB"}
    run = save_run(tmp_path / "run", {"data": data})
    told = export_web(run, tmp_path / "page", runtime_path=package)
    assert told.compared_on == "noise, because the run's images are not here"
    for i in range(3):
        save(tmp_path / "moved" / "val" / f"{i}.png", noise(16, 32, 3, seed=i))
    moved = str(tmp_path / "moved")
    assert export_web(run, tmp_path / "page", runtime_path=package, data_dir=moved).compared_on == "3 images of val"


@needs_onnx
def test_files_that_are_no_pictures(package, tmp_path):
    run = save_run(tmp_path / "run", {"data": {"input": {"kind": "uint16"}, "direction": "AtoB"}})
    with pytest.raises(InputError, match="format=web is for pictures, and this run takes uint16 of 3 channels"):
        export_web(run, tmp_path / "page", runtime_path=package)


def test_a_missing_extra_is_named(small_run, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(InputError, match=r"format=web needs jax2onnx.*pip install 'p2p_jax\[export\]'"):
        export_web(small_run, tmp_path / "page", runtime_path=package)


@needs_onnx
def test_command(small_run, package, tmp_path, capsys):
    output, given = tmp_path / "my page", ["--workdir", str(small_run), "--format", "web"]
    command([*given, "--output", str(output), "--runtime", str(package), "--weights", "int8", "--title", "T"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].startswith("BtoA: 0.0 MB, 100% of the weights in int8; differs from the run by at most ")
    assert lines[-4].endswith(" on average, on 32 images of val")
    assert lines[-3].startswith("16x16 on the CPU, outside a browser: ")
    assert lines[-2].startswith(f"{output}: ") and "ONNX Runtime Web 1.30.0" in lines[-2]
    assert lines[-1] == f"    python3 -m http.server --bind 127.0.0.1 --directory '{output}'"
    with pytest.raises(SystemExit, match="error: --pixels and --tolerance are only for onnx and stablehlo"):
        command([*given, "--output", str(output), "--pixels"])


def test_flags_of_pages_are_for_pages(small_run, tmp_path):
    flags = ["--weights", "int8", "--title", "T"]
    with pytest.raises(SystemExit, match="error: --weights, --title: only for --format web"):
        command(["--workdir", str(small_run), "--format", "stablehlo", "--output", str(tmp_path / "f"), *flags])


def test_pages_stand_in_the_package():
    """In the wheel too: what setup.py takes along."""
    from importlib.resources import files

    own = files("p2p_jax.interop.web")
    for name in (*page.STATIC, "app.css", "index.html", "onnxruntime_licence.txt"):
        assert own.joinpath(name).is_file()
    for name in ("drawing.js", "drawing_pad.js", "look.css"):
        assert files("p2p_jax").joinpath(name).is_file()
