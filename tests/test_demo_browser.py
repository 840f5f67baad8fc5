"""The demo's page in a real browser: draw, upload, slide, both directions, an example; and whom it asks."""

import contextlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator
from p2p_jax.images.palettes import CMP_FACADES
from p2p_jax.objectives import make_objective
from support.browser import chromium, requests
from support.configs import small_cyclegan_config
from support.images import load, noise, save
from support.networks import draw_state
from support.processes import environment, python
from support.runs import blank_state, write_run

pytestmark = pytest.mark.slow

exceptions = pytest.importorskip("selenium.common.exceptions", reason="pip install selenium")
pytest.importorskip("gradio", reason="pip install 'p2p_jax[demo]'")

# Runs the command, and writes down whom the process calls: addresses of sockets, and names that it looks up.
SERVER = """
import socket, sys
called = open(sys.argv.pop(1), "a", buffering=1)
connect, look_up = socket.socket.connect, socket.getaddrinfo
def connect_told(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        called.write(f"{address[0]}\\n")
    return connect(self, address)
def look_up_told(host, *rest, **more):
    called.write(f"{host}\\n")
    return look_up(host, *rest, **more)
socket.socket.connect, socket.getaddrinfo = connect_told, look_up_told
from p2p_jax.__main__ import run
run(sys.argv[1:])
"""
HERE = {"127.0.0.1", "localhost", "None", "0.0.0.0"}  # the last one is looked up to listen at


class Page:
    """The demo's page in a browser, and the server behind it; a context."""

    def __init__(self, driver, folder, run, *options):
        self.driver, self.called = driver, folder / "called"
        arguments = ["demo", run, "--port", 0, *options]
        self.server = subprocess.Popen(
            python(SERVER, self.called, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip

    def __enter__(self):
        told = self.server.stdout.readline()
        while "127.0.0.1" not in told:
            assert told or self.server.poll() is None, self.server.stderr.read()[-3000:]
            told = self.server.stdout.readline()
        self.url = re.search(r"http://127\.0\.0\.1:\d+/", told)[0]
        self.driver.get(self.url)
        self.wait("#direction")
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.communicate()

    def wait(self, selector, until=lambda found: bool(found)):
        """Return the elements that are seen and fit a selector, once they are as they should be."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(
                exceptions.StaleElementReferenceException
            ):  # the page puts new elements for old ones
                found = [x for x in self.driver.find_elements("css selector", selector) if x.is_displayed()]
                if until(found):
                    return found
            assert time.monotonic() < deadline, f"{selector}: {self.driver.find_element('css selector', 'body').text}"
            time.sleep(0.05)

    def press(self, selector, place=0):
        element = self.wait(selector, lambda found: len(found) > place)[place]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, name):
        """Choose the picture or the drawing."""
        for tab in self.wait("button[role=tab]"):
            if tab.text == name:
                tab.click()

    def turn(self, way):
        """Turn to a direction, and wait until the page has: its examples are seen, and no others."""
        self.press(f"#direction input[value={way}]")
        ids = lambda found: [x.get_attribute("id") for x in found]  # noqa: E731
        self.wait("#examples-AtoB, #examples-BtoA", lambda found: ids(found) == [f"examples-{way}"])
        time.sleep(1)  # an editor that has just come is enlarged

    def draw(self, way, color, *points):
        """Draw a line through places of the canvas, in pixels from its middle; None: in the chosen colour."""
        from selenium.webdriver.common.action_chains import ActionChains

        (canvas,) = self.wait(f"#drawing-{way} canvas")
        if color is not None:
            self.press(f"#drawing-{way} button[aria-label=Color]")
            self.press(f"#drawing-{way} button.color[style*='rgb({', '.join(map(str, color))})']")
            time.sleep(1)
            if self.driver.find_elements("css selector", f"#drawing-{way} button.color"):  # else it was closed by that
                self.press(f"#drawing-{way} button[aria-label=Color]")
        actions = ActionChains(self.driver, duration=50)
        for i, (x, y) in enumerate(points):
            actions.move_to_element_with_offset(canvas, x, y)
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()
        time.sleep(0.5)  # the editor hands a stroke over a moment later

    def shown(self, told):
        """Return the pictures under the slider, [H, W, C] each, once the line beside them begins as it should."""
        self.wait("#told", lambda found: bool(found) and found[0].text.startswith(told))
        before, after = self.wait("#slider img", lambda found: len(found) == 2)
        return [self.picture(image.get_attribute("src")) for image in (before, after)]

    def picture(self, url):
        assert url.startswith(self.url), url
        with urllib.request.urlopen(url) as reply:
            return np.asarray(Image.open(BytesIO(reply.read())))

    def said(self):
        """Return the sentence with which the page refuses something, and take it away."""
        (toast,) = self.wait(".toast-body")
        text = toast.text
        self.press(".toast-close")
        self.wait(".toast-body", lambda found: not found)
        return [line for line in text.split("\n") if line not in ("Error", "×")]

    def errors(self):
        """Return what the console says is wrong, but for gradio's editor, which may be drawn on before it is ready."""
        told = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in told if "No draw texture found for layer" not in message]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Toy facades and their labels, both ways, with noise."""
    generator = {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4, "dropout_rate": 0.5}
    config = small_cyclegan_config(
        generator=generator, data__source="toy_facades", data__direction="AtoB", inference__dropout=True
    )
    objective = make_objective(config)
    folder = tmp_path_factory.mktemp("runs") / "facades"
    return write_run(folder, config, draw_state(blank_state(objective, config)), 3)


def test_the_page_shows_what_the_translator_makes(run, tmp_path):
    back, forth = (Translator.from_workdir(run, direction=way) for way in ("BtoA", "AtoB"))
    blue, window, pillar = (tuple(CMP_FACADES.colors[i].tolist()) for i in (0, 2, 10))
    with chromium(tmp_path, network=True) as driver, Page(driver, tmp_path, run, "--direction", "BtoA") as page:
        # Labels are drawn in the colours of their classes, which have names.
        (swatches,) = page.wait("#swatches-BtoA", lambda found: bool(found and found[0].text))
        assert swatches.text.split("\n")[:3] == ["background", "facade", "window"]
        page.draw("BtoA", window, (-60, -60), (-50, 40))
        page.draw("BtoA", pillar, (50, -50), (50, 60))
        page.press("#translate-BtoA")
        before, after = page.shown("drawing.png: 16x16, B → A")
        drawn = {tuple(color) for color in before.reshape(-1, 3).tolist()}
        assert drawn == {blue, window, pillar} and before.shape == (16, 16, 3)
        assert (before == pillar).all(-1).any(0).argmax() > 8 and (before == window).all(-1).any(0).argmax() < 6
        np.testing.assert_array_equal(after, back(before))
        assert after.std() > 5

        # Other noise.
        seed = page.wait("#seed input")[0]
        seed.clear()
        seed.send_keys("7\t")
        page.press("#translate-BtoA")
        deadline = time.monotonic() + 60
        while ((other := page.shown("drawing.png")[1]) == after).all():
            assert time.monotonic() < deadline
        assert (other != after).mean() > 0.1
        seed.clear()
        seed.send_keys("0\t")

        # The other direction has a drawing of its own; photographs have no classes.
        page.turn("AtoB")
        page.draw("AtoB", None, (-50, 0), (50, 0))
        page.press("#translate-AtoB")
        before, after = page.shown("drawing.png: 16x16, A → B")
        assert {tuple(color) for color in before.reshape(-1, 3).tolist()} == {(0, 0, 0), (255, 255, 255)}
        np.testing.assert_array_equal(after, forth(before))

        # A file, as it was sent.
        page.choose("Picture")
        given = save(tmp_path / "given.png", noise(20, 28, 3))
        page.press("#size input[value=own]")
        driver.find_element("css selector", "#picture input[type=file]").send_keys(str(tmp_path / "given.png"))
        before, after = page.shown("given.png: 28x20, A → B")
        np.testing.assert_array_equal(before, given)
        np.testing.assert_array_equal(after, forth(given))
        behaviour = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
        driver.execute_cdp_cmd("Page.setDownloadBehavior", behaviour)
        page.press("#download")
        file = tmp_path / "downloads" / "given_AtoB.png"
        page.wait("#download", lambda found: file.is_file() and file.stat().st_size > 0)
        np.testing.assert_array_equal(load(file), after)

        # The slider is moved.
        from selenium.webdriver.common.action_chains import ActionChains

        def clip():
            script = "return [...document.querySelectorAll('#slider *')].map((x) => x.style.cssText).join()"
            return driver.execute_script(script)

        at_first, handle = clip(), page.wait("#slider .outer, #slider .inner")[0]
        ActionChains(driver).drag_and_drop_by_offset(handle, 80, 0).perform()
        assert clip() != at_first

        # What is no image is one sentence; the page goes on.
        page.press("#picture button[aria-label='Remove Image'], #picture button[aria-label=Clear]")
        (tmp_path / "strange.png").write_text("hello")
        page.wait("#picture", lambda found: bool(driver.find_elements("css selector", "#picture input[type=file]")))
        driver.find_element("css selector", "#picture input[type=file]").send_keys(str(tmp_path / "strange.png"))
        assert page.said() == ["strange.png cannot be read as an image (it is not a PNG file); replace or remove it"]

        # Endings in large letters, whose type the browser does not know, are taken too.
        (tmp_path / "IMG_0903.HEIC").write_text("hello")
        driver.find_element("css selector", "#picture input[type=file]").send_keys(str(tmp_path / "IMG_0903.HEIC"))
        assert "IMG_0903.HEIC cannot be read" in page.said()[-1]

        # An example of the validation set.
        page.turn("BtoA")
        page.press("#examples-BtoA button img", 1)
        before, after = page.shown("2.png: 16x16, B → A")
        np.testing.assert_array_equal(after, back(before))
        assert len({tuple(color) for color in before.reshape(-1, 3).tolist()}) > 4

        asked = requests(driver)
        assert len(asked) > 50
        outside = [url for url in asked if not url.startswith((page.url, "data:", "blob:"))]
        assert outside == [] and page.errors() == []
        assert set(page.called.read_text().split()) <= HERE


def get(url, **headers):
    """Return status and body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
            return reply.status, dict(reply.headers), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def test_the_server_answers_to_this_machine_and_gives_its_own_files_alone(run, tmp_path):
    class NoBrowser:
        def get(self, url):
            pass

    page = Page(NoBrowser(), tmp_path, run)
    page.wait = lambda selector: None
    secret = tmp_path / "secret.png"
    save(secret, noise(16, 16, 3))
    with page:
        status, headers, body = get(page.url)
        assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
        named = re.findall(r"""(?:src|href)=["']?((?:https?:)?//[^"' >]*)""", body)
        assert all(url.startswith(page.url) for url in named), named
        assert get(page.url, Host="evil.example")[0] == 400
        for path in (f"gradio_api/file={secret}", f"gradio_api/file={run}/config.json", "gradio_api/file=/etc/passwd"):
            assert get(page.url + path)[0] in (403, 404)
        assert re.search(r'"api_visibility":"private"', get(page.url + "config")[2].replace(" ", ""))


def test_it_is_for_this_machine_unless_one_says_so():
    from p2p_jax.demo.serving import launch

    told = []

    class Blocks:
        def launch(self, **settings):
            told.append(settings)

    for address in ("127.0.0.1", None):
        launch(Blocks(), port=1, address=address)
    assert [settings["server_name"] for settings in told] == ["127.0.0.1", None]
    assert all(settings["share"] is False and settings["ssr_mode"] is False for settings in told)
    assert sys.modules["gradio"]
