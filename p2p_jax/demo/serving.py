"""Serves a demo: by default only to this machine, and without requests to any other machine."""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2p_jax.demo import page as pages
from p2p_jax.demo.model import Model
from p2p_jax.demo.settings import Settings
from p2p_jax.errors import InputError
from p2p_jax.reporting import say

_HERE, _EVERYWHERE = "127.0.0.1", "0.0.0.0"
_LARGEST_FILE = 200 * 2**20  # bytes
_HEADERS = {
    # The page may load only from this server, although parts of gradio ask for more.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'self'; "
        "form-action 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def serve(
    run: str | Path,
    settings: Settings = Settings(),  # noqa: B008 (a tuple)
    *,
    port: int = 7860,
    share_on_lan: bool = False,
    num_examples: int = 8,
    data_dir: str | None = None,
) -> None:
    """Serve the demo of a run until Ctrl-C.

    Args:
      run: directory of the run, or its model file.
      settings: settings of the demo.
      port: port of the server; 0 chooses a free one.
      share_on_lan: let other machines of this network use it; by default only this machine can.
      num_examples: number of validation images in each direction.
      data_dir: the folder of the data set, if it is no longer where the run's config says.

    Raises:
      InputError: the run cannot be opened, the port is not available, or gradio is not installed.
    """
    address = _EVERYWHERE if share_on_lan else _HERE
    port = _free(address, port)
    with environment() as folder:
        pages.import_gradio()
        model = Model(run, folder, settings, num_examples=num_examples, data_dir=data_dir)
        page = pages.make(model)
        try:
            launch(page, port=port, address=address)
        except OSError as error:
            raise _taken(port, error) from error
        try:
            where = f"http://{_HERE}:{port}/"
            if share_on_lan:
                where += f" and, for everybody in this network, at port {port} of this machine's address"
            say(f"The demo of {run} is at {where} until you press Ctrl-C.")
            threading.Event().wait()
        except KeyboardInterrupt:
            say("\nStopped.")
        finally:
            page.close(verbose=False)


def launch(page: Any, *, port: int | None = None, address: str | None = None) -> None:
    """Start the server of a page in its own threads; gradio's variables set the address if none is given.

    Raises:
      OSError: the port is not available.
    """
    gr = pages.import_gradio()
    page.launch(
        server_name=address,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        inline=False,
        prevent_thread_lock=True,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        max_file_size=_LARGEST_FILE,
        theme=gr.themes.Default(**pages.FONTS),
        css=pages.CSS,
        head=pages.head(),
        app_kwargs={"middleware": _middleware(address)} if address else None,
    )


@contextlib.contextmanager
def environment() -> Iterator[Path]:
    """Import gradio so that it sends no requests to other machines; yield its temporary folder."""
    with tempfile.TemporaryDirectory(prefix="p2p_jax_demo_", ignore_cleanup_errors=True) as folder:
        given = {
            "GRADIO_TEMP_DIR": str(Path(folder, "sent")),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
        }
        for name in ("NO_PROXY", "no_proxy"):  # gradio checks that its own server runs
            given[name] = ",".join(filter(None, (os.environ.get(name, ""), _HERE, "localhost")))
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _middleware(address: str) -> list[Any]:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A page of another site can reach this machine through the browser, but not by this machine's name.
    hosts = [_HERE, "localhost"] if address == _HERE else ["*"]
    return [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_WithHeaders)]


class _WithHeaders:
    """Adds headers to every reply."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_more(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = message | {"headers": [*message.get("headers", []), *own]}
            await send(message)

        await self.app(scope, receive, send_more if scope["type"] == "http" else send)


def _free(address: str, port: int) -> int:
    """Return a free port; raises InputError."""
    try:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed can be used again
            one.bind((address, port))
            return one.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise _taken(port, error) from error


def _taken(port: int, error: Exception) -> InputError:
    return InputError(f"port {port} is not available ({error}); choose another with `port`")
