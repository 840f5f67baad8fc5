"""The server of a study: standard library, this machine only."""

import io
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

from p2p_jax.errors import InputError
from p2p_jax.evaluation.study.serving import RefusedError, Sessions
from p2p_jax.reporting import say

_ADDRESS = "127.0.0.1"
_HOSTS = {_ADDRESS, "localhost"}
_LONGEST_REQUEST = 4_096  # bytes
_IDLE, _SLOWEST = 60, 20  # seconds to wait for a request, and to receive it
_SECRET = "X-Study-Secret"  # header of all requests of a running session
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
    """Serves a study at ``url``, to this machine only; one thread per connection.

    Args:
      study: directory that ``make`` wrote.
      port: port of the server; 0 chooses a free one.

    Raises:
      InputError: it is not a study, another server uses it, or the port is in use.
    """

    daemon_threads = True
    request_queue_size = 128  # many people may press the button together

    def __init__(self, study: str | os.PathLike[str], port: int = 8000):
        self.sessions = Sessions(Path(study))
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            self.sessions.close()
            raise InputError(f"port {port} is not available ({error}); choose another with `port`") from error
        self.url = f"http://{_ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print one line about a failed connection; nothing if the other side has closed it."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            say(f"error: {type(error).__name__}: {error}")

    def server_close(self) -> None:
        """Release the port and the study."""
        super().server_close()
        self.sessions.close()


def serve(study: str | os.PathLike[str], port: int = 8000) -> None:
    """Serve a study until Ctrl-C. A kill at any moment loses no answer; started again, it continues.

    Raises:
      InputError: see ``Server``.
    """
    with Server(study, port) as server:
        say(f"The study {study} is at {server.url} until you press Ctrl-C; answers are saved as they come.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("\nStopped; run the same command to continue.")


class _InTime(socket.SocketIO):
    """The data of a connection; once a request has begun, all of it must arrive in time, in any number of pieces."""

    def __init__(self, connection: socket.socket):
        super().__init__(connection, "r")
        connection._io_refs += 1  # type: ignore[attr-defined]  # as its makefile() counts
        self._connection, self._ends = connection, 0.0

    def next_request(self) -> None:
        """Wait for another request."""
        self._ends = 0.0

    def readinto(self, buffer: Any) -> int | None:
        """Read the data that has arrived, or wait for it; raises TimeoutError."""
        left = self._ends - time.monotonic() if self._ends else _IDLE
        if left <= 0:
            raise TimeoutError("a request takes too long to arrive")
        self._connection.settimeout(left)
        count = super().readinto(buffer)
        self._ends = self._ends or time.monotonic() + _SLOWEST
        self._connection.settimeout(_SLOWEST)  # for replies
        return count


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "p2p_jax", ""
    wbufsize = -1  # headers and body in one packet
    timeout = _IDLE

    def setup(self) -> None:
        """Set up reading with time limits."""
        super().setup()
        self.rfile.close()
        self._incoming = _InTime(self.connection)
        self.rfile = io.BufferedReader(self._incoming)

    def handle_one_request(self) -> None:
        """Answer one request."""
        self._incoming.next_request()
        super().handle_one_request()

    def do_GET(self) -> None:  # noqa: N802 (the standard library calls it so)
        """Answer a request for a page, an image or the state of a session."""
        self._guard(self._get)

    def do_POST(self) -> None:  # noqa: N802
        """Answer a participant who enters or answers."""
        self._guard(self._post)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse other methods and invalid requests, on behalf of the standard library."""
        self.close_connection = True  # the next bytes may belong to it
        status = {501: 405, 505: 400}.get(int(code), int(code))
        reason = "This server knows GET and POST." if status == 405 else "This is not a request."
        self._send_json(status, {"error": reason}, {"Allow": "GET, POST"} if status == 405 else {})

    def _get(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise RefusedError(400, "This request has no body.")
        path, _, rest = self.path.partition("?")
        query = {name: values[0] for name, values in parse_qs(rest).items()}
        sessions, who = self.server.sessions, (query.get("participant"), self.headers.get(_SECRET))
        if path in _PAGES:
            name, kind = _PAGES[path]
            self._send(200, files(__package__).joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
        elif path == "/api/study":
            self._send_json(200, sessions.describe())
        elif path == "/api/state":
            self._send_json(200, sessions.state(*who))
        elif path == "/image":
            trial = query.get("trial", "")
            number = int(trial) if trial.isascii() and trial.isdigit() and len(trial) < 9 else -1
            self._send(200, sessions.image(*who, number, query.get("side", "")), "image/png")
        else:
            raise RefusedError(404, "This page does not exist.")

    def _post(self) -> None:
        request, secret = self._read_json(), self.headers.get(_SECRET)
        if self.path == "/api/session":
            self._send_json(200, self.server.sessions.enter(request.get("participant"), secret))
        elif self.path == "/api/answer":
            self._send_json(200, self.server.sessions.answer(request, secret))
        else:
            raise RefusedError(404, "This page does not exist.")

    def _guard(self, handle: Callable[[], None]) -> None:
        """Turn refusals and failures into replies."""
        try:
            # A page of another site can reach this machine through the browser, but not by this machine's name.
            if self.headers.get("Host", "").partition(":")[0].lower() not in _HOSTS:
                self.close_connection = True
                raise RefusedError(403, "This server answers only this machine.")
            handle()
        except RefusedError as refusal:
            self._send_json(refusal.status, {"error": str(refusal)})
        except ConnectionError:
            self.close_connection = True
        except TimeoutError:
            self.close_connection = True
            self._send_json(408, {"error": "This request takes too long to arrive."})
        except OSError as error:  # for example, the disk is full
            say(f"error: {error}")
            self._send_json(503, {"error": "The server could not do this; please call the person in charge."})

    def _read_json(self) -> dict[str, Any]:
        # A request refused before its body is read ends the connection: otherwise the body would be the next request.
        end, self.close_connection = self.close_connection, True
        if self.headers.get_content_type() != "application/json":  # other sites' pages cannot send it without asking
            raise RefusedError(415, "Requests are JSON.")
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise RefusedError(411, "The request has no length.")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise RefusedError(400, "The length of a request must be one number.")
        if len(lengths[0]) > 9 or int(lengths[0]) > _LONGEST_REQUEST:
            raise RefusedError(413, "This request is too long.")
        contents = self.rfile.read(int(lengths[0]))
        if len(contents) < int(lengths[0]):
            raise ConnectionAbortedError("it was closed within a request")
        self.close_connection = end
        try:
            request = json.loads(contents)
        except (ValueError, RecursionError):  # numbers of thousands of digits are among these
            request = None
        if not isinstance(request, dict):
            raise RefusedError(400, "A request must be a JSON object.")
        return request

    def _send_json(self, status: int, reply: dict[str, Any], headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._send(status, json.dumps(reply).encode(), "application/json", headers)

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        if self.request_version in ("", "HTTP/0.9"):  # not a request: it would get no status
            self.request_version = "HTTP/1.0"
        self.send_response(status)
        for name, value in {**_HEADERS, **headers, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Do not log requests."""
