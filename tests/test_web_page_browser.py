"""The exported page in a real browser, from a plain server on the loopback address, and without one."""

import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator
from p2p_jax.config import complete, resolve
from p2p_jax.images.domains import Domain
from p2p_jax.images.palettes import CMP_FACADES
from p2p_jax.inference import values
from p2p_jax.interop.web import runtime
from p2p_jax.interop.web.exporting import export_web
from support.browser import chromium
from support.configs import SMALL, SMALL_CYCLEGAN, merged
from support.images import noise
from support.networks import POINTWISE, draw_state
from support.runs import blank_state, write_run
from support.web_pages import Browser, asked_by_pages, runtime_package, served

pytestmark = pytest.mark.slow

for package in ("jax2onnx", "onnx", "onnxruntime"):
    pytest.importorskip(package)
DOCS = Path(__file__).parent.parent / "docs"
SIDE = 32
DATA = {"data": {"crop_size": SIDE, "load_size": SIDE}}


def made_run(workdir, base, changes):
    config = complete(merged(merged(base, {"loss": {"lambda_gan": 0.0}} if base is SMALL else {}), changes))
    return write_run(workdir, config, draw_state(blank_state(resolve(config.objective)(config), config), 8.0), 7)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    generator = {"num_blocks": 1, "base_width": 4}
    labels = {"kind": "labels", "channels": len(CMP_FACADES.names), "palette": "cmp_facades"}
    data = DATA["data"] | {"direction": "AtoB", "input": labels, "background": "#204060"}
    return {
        "cycle": made_run(folder / "cycle", SMALL_CYCLEGAN, DATA | {"generator": generator}),
        "labels": made_run(folder / "labels", SMALL | {"generator": POINTWISE}, {"data": data}),
    }


@pytest.fixture(scope="module")
def pages(runs, tmp_path_factory):
    folder, package = tmp_path_factory.mktemp("pages"), runtime_package()
    made = {name: export_web(run, folder / name, runtime_path=package, title=name) for name, run in runs.items()}
    assert [way.direction for way in made["cycle"].ways] == ["AtoB", "BtoA"]
    assert all(0 < way.difference.largest < 2 for page in made.values() for way in page.ways)
    return folder


@pytest.fixture(scope="module")
def chromium_of(pages, tmp_path_factory):
    """The browser; in the end, what all the pages that it opened have asked of the network."""
    profile, log = tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("log") / "net.json"
    flags = [f"--log-net-log={log}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with served(pages) as server, chromium(profile, flags=flags) as driver:
        yield Browser(driver, server, pages)
        origin = f"http://127.0.0.1:{server.server_port}/"
    urls = asked_by_pages(log)
    assert any(url.endswith(".onnx") for url in urls)  # asked by a worker, and seen nevertheless
    assert [url for url in urls if not url.startswith((origin, "blob:", "data:"))] == []


@pytest.fixture
def browser(chromium_of):
    """The browser, whose console a test leaves empty."""
    yield chromium_of
    assert chromium_of.driver.get_log("browser") == []


def translated(run, image, direction=None):
    return Translator.from_workdir(run, direction=direction, dropout=False)(image)


def assert_same(found, expected):
    """Within 2 gray levels, and a picture with contrast."""
    assert found.shape == expected.shape and expected.std() > 10
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_both_directions_are_the_translator(browser, runs, tmp_path):
    image = noise(SIDE, SIDE, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    browser.open("cycle")
    browser.choose(tmp_path / "a.png")
    np.testing.assert_array_equal(browser.pixels("drawing"), image)
    for direction in ("AtoB", "BtoA"):
        browser.select("#direction", direction)
        browser.settle()
        assert_same(browser.pixels("after"), translated(runs["cycle"], image, direction))
        np.testing.assert_array_equal(browser.pixels("before"), image)
        told = browser.find("#time")
        assert told.text.endswith(f" ms for {SIDE} \u00d7 {SIDE}") and float(told.text.split()[0]) > 0
        assert told.get_attribute("data-direction") == direction


def test_what_is_drawn_on_an_image_stays_in_the_other_direction(browser, tmp_path):
    Image.fromarray(noise(SIDE, SIDE, 3)).save(tmp_path / "a.png")
    browser.open("cycle")
    browser.choose(tmp_path / "a.png")
    browser.select("#tool", "rectangle")
    browser.color("#c0392b")
    browser.drag((4, 6), (20, 12))
    drawn = browser.pixels("drawing")
    assert (drawn[6:12, 4:20] == (0xC0, 0x39, 0x2B)).all()
    browser.select("#direction", "BtoA")
    browser.settle()
    np.testing.assert_array_equal(browser.pixels("before"), drawn)


def upright_jpeg(path):
    """Write what a camera held sideways does."""
    y, x = np.mgrid[:70, :54]
    waves = np.stack([128 + 100 * np.sin(x / (5 + c)) * np.cos(y / (7 - c)) for c in range(3)], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(waves).save(path, quality=95, subsampling=0, exif=exif)


def half_transparent(path):
    pixels = noise(45, 33, 4)
    pixels[:20, :, 3], pixels[20:30, :, 3] = 255, 0
    Image.fromarray(pixels, "RGBA").save(path)


@pytest.mark.parametrize("how", ["file", "drop", "paste"])
def test_photographs_come_in_as_translate_reads_them(browser, runs, tmp_path, how):
    """Upright, and of the size that is chosen: here as it is, which the network takes with padding alone."""
    upright_jpeg(tmp_path / "b.jpg")
    browser.open("cycle")
    browser.select("#size", "own")
    browser.choose(tmp_path / "b.jpg", how)
    domain = Translator.from_workdir(runs["cycle"]).domain_in
    given = values.read(tmp_path / "b.jpg", domain).values
    shown = browser.pixels("drawing")
    assert shown.shape == given.shape == (54, 70, 3)
    assert np.abs(shown.astype(int) - given).max() <= 2  # two decoders of JPEG
    assert_same(browser.pixels("after"), translated(runs["cycle"], shown))
    browser.select("#size", str(SIDE))
    browser.settle()
    smaller = browser.pixels("drawing")
    assert smaller.shape == (25, 32, 3)
    assert np.abs(smaller.astype(int) - values.read(tmp_path / "b.jpg", domain, size=(25, 32)).values).max() <= 2
    assert_same(browser.pixels("after"), translated(runs["cycle"], smaller))


def test_what_is_transparent_lies_on_the_runs_background(browser, tmp_path):
    half_transparent(tmp_path / "c.png")
    browser.open("labels")
    browser.select("#size", "own")
    browser.choose(tmp_path / "c.png")
    shown = browser.pixels("drawing").astype(int)
    expected = values.read(tmp_path / "c.png", Domain("uint8", 3, (0.0,) * 3, (255.0,) * 3, background=(32, 64, 96)))
    assert (shown[20:30] == (0x20, 0x40, 0x60)).all()
    np.testing.assert_array_equal(shown[:20], expected.values[:20])
    assert np.abs(shown[30:] - expected.values[30:]).max() <= 2  # a canvas multiplies colours and opacity in 8 bits


def test_a_drawing_in_the_colours_of_the_labels(browser, runs):
    browser.open("labels")
    names = [label.text for label in browser.driver.find_elements("css selector", "#colors label")]
    assert names == list(CMP_FACADES.names)
    background, window, door = (CMP_FACADES.colors[i] for i in (0, 2, 3))
    expected = np.broadcast_to(background, (SIDE, SIDE, 3)).copy()
    np.testing.assert_array_equal(browser.pixels("drawing"), expected)
    browser.select("#tool", "rectangle")
    browser.color("window")
    browser.drag((4, 6), (20, 12))
    expected[6:12, 4:20] = window
    np.testing.assert_array_equal(browser.pixels("drawing"), expected)
    assert_same(browser.pixels("after"), translated(runs["labels"], expected))
    browser.select("#tool", "brush")
    browser.color("door")
    browser.drag((2, 20), (28, 28))
    drawn = browser.pixels("drawing")
    changed = (drawn != expected).any(-1)
    assert 20 < changed.sum() < 200 and (drawn[changed] == door).all()  # no mixed colours
    assert_same(browser.pixels("after"), translated(runs["labels"], drawn))
    browser.find("#undo").click()
    np.testing.assert_array_equal(browser.pixels("drawing"), expected)
    browser.find("#clear").click()
    browser.settle()
    assert (browser.pixels("drawing") == background).all()


def test_drawing_with_the_keyboard(browser):
    from selenium.webdriver import Keys

    browser.open("labels")
    browser.select("#tool", "rectangle")
    browser.color("door")
    canvas = browser.find("#drawing")
    browser.driver.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(" ", Keys.ARROW_RIGHT * 5, Keys.ARROW_DOWN * 3)
    assert browser.find("#place").is_displayed()
    canvas.send_keys(" ")
    browser.settle()
    drawn = (browser.pixels("drawing") == CMP_FACADES.colors[3]).all(-1)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[16:19, 16:21] = True
    np.testing.assert_array_equal(drawn, expected)


def test_the_slider_divides_before_and_after(browser):
    from selenium.webdriver import ActionChains, Keys

    def clip():
        return browser.driver.execute_script("return getComputedStyle(document.getElementById('after')).clipPath")

    browser.open("labels")
    assert clip() == "inset(0px 0px 0px 0%)"
    browser.find("#divide").send_keys(Keys.ARROW_RIGHT * 3)
    assert clip() == "inset(0px 0px 0px 3%)"
    stage = browser.find("#stage")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
    ActionChains(browser.driver).click_and_hold(stage).move_by_offset(stage.size["width"] // 4, 0).release().perform()
    assert browser.find("#divide").get_attribute("value") in ("74", "75")
    assert clip() in ("inset(0px 0px 0px 74%)", "inset(0px 0px 0px 75%)")


def test_the_translation_is_downloaded_as_it_is_shown(browser, tmp_path):
    browser.open("cycle")
    Image.fromarray(noise(SIDE, SIDE, 3)).save(tmp_path / "night.x.png")
    browser.choose(tmp_path / "night.x.png")
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.find("#save").click()
    for _ in range(100):
        if (tmp_path / "night.x_AtoB.png").exists():
            break
        browser.driver.execute_async_script("setTimeout(arguments[0], 50)")
    with Image.open(tmp_path / "night.x_AtoB.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), browser.pixels("after"))


def test_what_is_no_image_is_named(browser, tmp_path):
    (tmp_path / "words.png").write_text("no picture")
    browser.open("labels")
    browser.find("#file").send_keys(str(tmp_path / "words.png"))
    browser.wait("document.getElementById('status').textContent")
    assert browser.status() == "words.png is not an image that this browser can read."


@pytest.mark.parametrize("width", [420, 1280])
def test_nothing_sticks_out(browser, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.open("labels")
    browser.driver.execute_script("document.querySelector('details').open = true")
    inner, outer = browser.driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    facts = browser.find("#facts").text
    assert facts.endswith("Threads\n1")
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inner == outer <= width
    assert "ONNX Runtime Web 1." in facts and "grey levels" in facts and "step 7" in facts


def test_everything_has_a_name(browser):
    browser.open("cycle")
    for control in browser.driver.find_elements("css selector", "button, select, input, canvas, summary"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")


def test_it_goes_on_without_the_network(pages, runs, tmp_path):
    """The server is gone and the browser is offline; the other direction was fetched before."""
    with chromium(tmp_path / "profile") as driver:
        with served(pages) as server:
            browser = Browser(driver, server, pages)
            browser.open("cycle")
            assert browser.driver.execute_script("return document.body.dataset.state") == "ready"
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        image = noise(SIDE, SIDE, 3, seed=3)
        Image.fromarray(image).save(tmp_path / "a.png")
        browser.choose(tmp_path / "a.png")
        browser.select("#direction", "BtoA")
        browser.settle()
        assert_same(browser.pixels("after"), translated(runs["cycle"], image, "BtoA"))
        assert driver.get_log("browser") == []


def test_threads_where_the_server_allows_them(pages, runs, tmp_path):
    """With the headers that stand in the folder for hosts that read them."""
    lines = (pages / "cycle" / "_headers").read_text().splitlines()
    headers = dict(line.strip().split(": ") for line in lines[1:])
    with served(pages, headers) as server, chromium(tmp_path / "profile") as driver:
        browser = Browser(driver, server, pages)
        browser.open("cycle")
        assert driver.execute_script("return [crossOriginIsolated, navigator.hardwareConcurrency]")[0]
        cores = driver.execute_script("return navigator.hardwareConcurrency")
        assert driver.execute_script("return document.getElementById('threads').textContent") == str(min(cores, 8))
        drawn = browser.pixels("drawing")
        browser.drag((4, 6), (20, 12))
        assert (browser.pixels("drawing") != drawn).any()
        assert_same(browser.pixels("after"), translated(runs["cycle"], browser.pixels("drawing")))
        assert driver.get_log("browser") == []


def test_a_file_that_is_opened_names_the_server(chromium_of):
    """Browsers refuse scripts of pages that no server gave; the page says what to do."""
    chromium_of.driver.get((chromium_of.folder / "cycle" / "index.html").as_uri())
    chromium_of.driver.execute_async_script("setTimeout(arguments[0], 2500)")
    notice = chromium_of.find("#needs-server")
    assert notice.is_displayed() and "python3 -m http.server" in notice.text
    assert not chromium_of.find("main").is_displayed()
    chromium_of.driver.get_log("browser")  # which names the script that was refused


@pytest.mark.parametrize("fault", ["changed", "cut", "missing"])
def test_a_model_that_is_not_the_pages_own_is_refused(chromium_of, fault):
    folder = chromium_of.folder / fault
    shutil.copytree(chromium_of.folder / "labels", folder)
    model = folder / "AtoB.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    {
        "changed": lambda: model.write_bytes(content),
        "cut": lambda: model.write_bytes(content[:-9]),
        "missing": model.unlink,
    }[fault]()
    chromium_of.open(fault)
    wanted = "is missing (404)" if fault == "missing" else "is not the file of this page"
    assert chromium_of.status().startswith("The page cannot start: AtoB.onnx " + wanted)
    chromium_of.driver.get_log("browser")


def test_the_page_lets_nothing_of_others_in(pages):
    html = (pages / "cycle" / "index.html").read_text()
    assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'" in html
    manifest = json.loads((pages / "cycle" / "manifest.json").read_text())
    assert manifest["runtime"]["package"] == "onnxruntime-web" and len(manifest["runtime"]["sha256"]) >= 3
    assert not [line for line in html.splitlines() if "//" in line and "localhost" not in line]
    assert io.BytesIO((pages / "cycle" / "ort" / "ort-wasm-simd-threaded.wasm").read_bytes()).read(4) == b"\0asm"


def test_the_documentation_has_a_live_page(tmp_path):
    import onnxruntime

    spec = importlib.util.spec_from_file_location("extras", DOCS / "extras.py")
    extras = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extras)
    model = DOCS / extras.LIVE / "BtoA.onnx"
    assert model.stat().st_size < 300_000
    shutil.copytree(model.parent, tmp_path / "site" / extras.LIVE)
    extras.live_page(DOCS, tmp_path / "site", runtime.find(runtime_package()))
    with served(tmp_path / "site") as server, chromium(tmp_path / "profile") as driver:
        browser = Browser(driver, server, tmp_path / "site")
        browser.open(extras.LIVE)
        browser.select("#tool", "rectangle")
        browser.color("facade")
        browser.drag((8, 10), (56, 60))
        browser.color("window")
        browser.drag((16, 20), (24, 30))
        drawn, found = browser.pixels("drawing"), browser.pixels("after")
        assert driver.get_log("browser") == []
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"images": drawn[None].astype(np.float32) / 127.5 - 1})
    assert_same(found, np.rint((expected[0] + 1) * 127.5).astype(int))
