"""Serving a demo: only to this machine, unless the caller says otherwise, and asking no other machine for anything."""

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
    # The page may ask only this server, whatever a part of gradio would like to have.
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
      run: its directory, or a file that holds a model.
      settings: how it is shown.
      port: 0 takes a free one.
      share_on_lan: let other machines of this network use it; by default only this machine can.
      num_examples: of the validation set, in each direction.
      data_dir: the folder of the data set, if it is no longer where the run's config says.

    Raises:
      InputError: the run cannot be opened, the port cannot be had, or gradio is not installed.
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
    """Start the server of a page, in threads of its own; without an address as gradio's variables say.

    Raises:
      OSError: the port cannot be had.
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
        app_kwargs={"middleware": _middleware(address)} if address else None,
    )


@contextlib.contextmanager
def environment() -> Iterator[Path]:
    """Keep gradio, which is loaded in here, from asking other machines; yield a folder that is there as long as it."""
    with tempfile.TemporaryDirectory(prefix="p2p_jax_demo_", ignore_cleanup_errors=True) as folder:
        given = {
            "GRADIO_TEMP_DIR": str(Path(folder, "sent")),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
        }
        for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own server whether it is there
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

    # A page of another site can reach this machine through the browser, but not under this machine's name.
    hosts = [_HERE, "localhost"] if address == _HERE else ["*"]
    return [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_WithHeaders)]


class _WithHeaders:
    """Sends headers with every reply."""

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
    """Return a port that can be had; raises InputError."""
    try:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just been closed may be had again
            one.bind((address, port))
            return one.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise _taken(port, error) from error


def _taken(port: int, error: Exception) -> InputError:
    return InputError(f"port {port} cannot be had ({error}); choose another with `port`")
