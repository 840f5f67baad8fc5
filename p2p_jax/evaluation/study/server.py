"""The server of a study: standard library, this machine only."""

import json
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from p2p_jax.errors import InputError
from p2p_jax.evaluation.study.sessions import RefusedError, Sessions
from p2p_jax.reporting import say

_ADDRESS = "127.0.0.1"
_HOSTS = {_ADDRESS, "localhost"}
_LONGEST_REQUEST = 4_096  # bytes
_PAGES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serve a study at ``url``, to this machine only; a thread per connection.

    Args:
      study: directory that ``make`` wrote.
      port: 0 takes a free one.

    Raises:
      InputError: it is no study, another server has it, or the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # a room of people who press the button together

    def __init__(self, study: str | os.PathLike[str], port: int = 8000):
        self.sessions = Sessions(Path(study))
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            self.sessions.close()
            raise InputError(f"port {port} cannot be had ({error}); choose another with `port`") from error
        self.url = f"http://{_ADDRESS}:{self.server_port}/"

    def server_close(self) -> None:
        """Give back the port and the study."""
        super().server_close()
        self.sessions.close()


def serve(study: str | os.PathLike[str], port: int = 8000) -> None:
    """Serve a study until Ctrl-C. Killed at any moment, it loses no answer; started again, it goes on.

    Raises:
      InputError: see ``Server``.
    """
    with Server(study, port) as server:
        say(f"The study {study} is at {server.url} until you press Ctrl-C; answers are saved as they come.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("\nStopped; the same command goes on.")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "p2p_jax", ""
    wbufsize = -1  # headers and body in one packet
    timeout = 60

    def do_GET(self) -> None:  # noqa: N802 (the standard library calls it so)
        """Answer a request for a page, an image or the state of a session."""
        self._guard(self._get)

    def do_POST(self) -> None:  # noqa: N802
        """Answer somebody who enters, or who answers."""
        self._guard(self._post)

    def _get(self) -> None:
        path, _, rest = self.path.partition("?")
        query = {name: values[0] for name, values in parse_qs(rest).items()}
        sessions = self.server.sessions
        if path in _PAGES:
            name, kind = _PAGES[path]
            self._send(200, files(__package__).joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
        elif path == "/api/study":
            self._send_json(200, sessions.describe())
        elif path == "/api/state":
            self._send_json(200, sessions.state(query.get("participant")))
        elif path == "/image":
            trial = query.get("trial", "")
            number = int(trial) if trial.isascii() and trial.isdigit() and len(trial) < 9 else -1
            self._send(200, sessions.image(query.get("participant"), number, query.get("side", "")), "image/png")
        else:
            raise RefusedError(404, "There is no such page.")

    def _post(self) -> None:
        request = self._read_json()
        if self.path == "/api/session":
            self._send_json(200, self.server.sessions.enter(request.get("participant")))
        elif self.path == "/api/answer":
            self._send_json(200, self.server.sessions.answer(request))
        else:
            raise RefusedError(404, "There is no such page.")

    def _guard(self, handle: Callable[[], None]) -> None:
        """Turn refusals and failures into replies."""
        try:
            # A page of another site can reach this machine through the browser, but not under this machine's name.
            if self.headers.get("Host", "").partition(":")[0].lower() not in _HOSTS:
                self.close_connection = True
                raise RefusedError(403, "This server answers to this machine alone.")
            handle()
        except RefusedError as refusal:
            self._send_json(refusal.status, {"error": str(refusal)})
        except ConnectionError:
            self.close_connection = True
        except OSError as error:  # the disk is full, say
            say(f"error: {error}")
            self._send_json(503, {"error": "The server could not do this; please call the person in charge."})

    def _read_json(self) -> dict[str, Any]:
        # Other sites' pages cannot send this type without asking first.
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise RefusedError(415, "Requests are JSON.")
        if int(length) > _LONGEST_REQUEST:
            self.close_connection = True
            raise RefusedError(413, "This request is too long.")
        try:
            request = json.loads(self.rfile.read(int(length)))
        except ValueError:
            request = None
        if not isinstance(request, dict):
            raise RefusedError(400, "A request is a JSON object.")
        return request

    def _send_json(self, status: int, reply: dict[str, Any]) -> None:
        self._send(status, json.dumps(reply).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing of every request."""
