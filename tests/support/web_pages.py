"""Folders that are served to a browser, the runtime of exported pages, and what a browser asked of the network."""

import base64
import contextlib
import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

VARIABLE = "P2P_JAX_ONNXRUNTIME_WEB"
PIXELS = """
const canvas = document.getElementById(arguments[0]);
const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
return [Array.from(data), height, width];
"""
CHOOSE = """
const [code, name, kind] = arguments;
const bytes = Uint8Array.from(atob(code), (x) => x.charCodeAt(0));
const files = new DataTransfer();
files.items.add(new File([bytes], name, {type: "image/png"}));
const how = {bubbles: true, cancelable: true};
if (kind === "drop") document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, ...how}));
if (kind === "paste") document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: files, ...how}));
"""


def runtime_package() -> Path:
    """Return the npm package onnxruntime-web: what ``VARIABLE`` names, or what npm has installed in the checkout.

    A test that asks for it where it is not is skipped; a place that is named must be there.
    """
    if named := os.environ.get(VARIABLE):
        assert Path(named).exists(), f"{VARIABLE}={named}: there is no such file or folder"
        return Path(named)
    installed = Path(__file__).parents[2] / "node_modules" / "onnxruntime-web"
    if not installed.is_dir():
        pytest.skip(f"no onnxruntime-web: npm install --no-save onnxruntime-web, or {VARIABLE}=FILE.tgz of npm pack")
    return installed


class _Quiet(SimpleHTTPRequestHandler):
    headers_sent: Mapping[str, str] = MappingProxyType({})

    def log_message(self, *args):
        pass

    def end_headers(self):
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()


@contextlib.contextmanager
def served(folder: Path, headers: Mapping[str, str] = MappingProxyType({})) -> Iterator[ThreadingHTTPServer]:
    """Serve a folder on the loopback address, as ``python3 -m http.server`` does, with more headers if wanted."""
    handler = type("Handler", (_Quiet,), {"headers_sent": headers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked_by_pages(log: Path) -> list[str]:
    """Return the URLs that pages and their workers asked for, in Chromium's own log of the network.

    The flag is ``--log-net-log=FILE``, and the log is whole when the browser has ended. What Chromium asks for on its
    own behalf has no page as its initiator.
    """
    events = [json.loads(line.rstrip(",")) for line in log.read_text().splitlines() if '"initiator":"' in line]
    params = [event["params"] for event in events]  # an event is a line
    return [found["url"] for found in params if found["initiator"] != "not an origin"]


def write_package(folder: Path, changes: Mapping[str, bytes | None] = MappingProxyType({})) -> Path:
    """Write what looks like the npm package onnxruntime-web, unpacked; no browser would run it.

    Args:
      folder: new.
      changes: content of a file by its name; None leaves it out.
    """
    files: dict[str, bytes | None] = {
        "package.json": json.dumps({"name": "onnxruntime-web", "version": "1.30.0"}).encode(),
        "dist/ort.wasm.min.mjs": b"export {};",
        "dist/ort-wasm-simd-threaded.mjs": b"export default 0;",
        "dist/ort-wasm-simd-threaded.wasm": b"\0asm",
    }
    files |= changes
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


class Browser:
    """Chromium with an exported page open, which it got from a server."""

    def __init__(self, driver, server, folder):
        self.driver, self.server, self.folder = driver, server, folder

    def open(self, name):
        self.driver.get(f"http://127.0.0.1:{self.server.server_port}/{name}/index.html")
        self.wait("document.body.dataset.state")

    def wait(self, condition):
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 30, 0.05).until(lambda driver: driver.execute_script(f"return {condition}"))

    def settle(self):
        """Wait until what was drawn or chosen is translated."""
        self.driver.execute_async_script("setTimeout(arguments[0], 100)")  # after which a translation has begun
        self.wait("!document.querySelector('#output[aria-busy]')")
        assert self.status() == ""

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def status(self):
        return self.driver.execute_script("return document.getElementById('status').textContent")

    def pixels(self, canvas):
        data, height, width = self.driver.execute_script(PIXELS, canvas)
        pixels = np.array(data, np.uint8).reshape(height, width, 4)
        assert (pixels[..., 3] == 255).all()
        return pixels[..., :3]

    def choose(self, path, how="file"):
        if how == "file":
            self.find("#file").send_keys(str(path))
        else:
            self.driver.execute_script(CHOOSE, base64.b64encode(path.read_bytes()).decode(), path.name, how)
        self.settle()

    def select(self, selector, value):
        from selenium.webdriver.support.select import Select

        Select(self.find(selector)).select_by_value(value)

    def color(self, name):
        self.find(f"#colors label:has([aria-label='{name}'])").click()

    def drag(self, start, end):
        """Move the mouse from one pixel of the drawing to another one, with the button held."""
        from selenium.webdriver import ActionChains

        canvas = self.find("#drawing")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        size = self.driver.execute_script("return [arguments[0].width, arguments[0].height]", canvas)
        scale = canvas.size["width"] / size[0]
        (x0, y0), (x1, y1) = (
            [round((at - side / 2) * scale) for at, side in zip(p, size, strict=True)] for p in (start, end)
        )
        actions = ActionChains(self.driver, duration=20).move_to_element_with_offset(canvas, x0, y0).click_and_hold()
        actions.move_to_element_with_offset(canvas, x1, y1).release().perform()
        self.settle()
