"""What the library tells while it works: records of the logger "p2p_jax", printed unless the caller says otherwise.

logging.getLogger("p2p_jax").setLevel(logging.WARNING)      # silence
logging.getLogger("p2p_jax").handlers = [my_handler]        # to another place
"""

import contextlib
import logging
from collections.abc import Iterator


class _Printer(logging.Handler):
    """Print records on what is standard output at that moment, so that redirections and notebooks get them."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed, a pipe that nobody reads: the work goes on
            print(self.format(record), flush=True)


_LOGGER = logging.getLogger("p2p_jax")
if not _LOGGER.handlers:
    _LOGGER.addHandler(_Printer())
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def printable(text: str) -> str:
    """Write what breaks lines, and what a terminal would obey, as Python does; names of files may hold such letters."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def say(text: str) -> None:
    """Tell the user something, at level INFO."""
    _LOGGER.info("%s", text.encode("utf-8", "backslashreplace").decode())  # names of files may not be text


def caution(text: str) -> None:
    """Tell the user something that must not be missed, at level WARNING; the work goes on."""
    _LOGGER.warning("%s", f"warning: {text}".encode("utf-8", "backslashreplace").decode())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Tell nothing in the meantime."""
    before = _LOGGER.disabled
    _LOGGER.disabled = True
    try:
        yield
    finally:
        _LOGGER.disabled = before
