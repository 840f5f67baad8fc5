"""Folders that are served to a browser, the runtime of exported pages, and what a browser asked of the network."""

import contextlib
import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

VARIABLE = "P2P_JAX_ONNXRUNTIME_WEB"


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
