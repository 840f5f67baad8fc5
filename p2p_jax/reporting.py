"""Messages of the library: records of the logger "p2p_jax", printed unless the caller says otherwise.

logging.getLogger("p2p_jax").setLevel(logging.WARNING)      # silence
logging.getLogger("p2p_jax").handlers = [my_handler]        # to another place
"""

import contextlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator


class _Printer(logging.Handler):
    """Print records on what is standard output at that moment, so redirections and notebooks get them.

    Below them is at most one line that is drawn over itself.
    """

    line = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.line
        with contextlib.suppress(OSError):  # a terminal that was closed, a pipe that nobody reads: the work goes on
            self.draw("")
            print(self.format(record), flush=True)
            self.draw(line)

    def draw(self, line: str) -> None:
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
            if line != self.line:
                rest = " " * (len(self.line) - len(line))  # a notebook knows no other way to clear a line
                print(f"\r{line}{rest}", end="" if line else "\r", flush=True)
            self.line = line


_LOGGER, _PRINTER = logging.getLogger("p2p_jax"), _Printer()
if not _LOGGER.handlers:
    _LOGGER.addHandler(_PRINTER)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def printable(text: str) -> str:
    """Write what breaks lines, and what a terminal would obey, as Python does; names of files may hold such letters."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def say(text: str) -> None:
    """Print a message, at level INFO."""
    _LOGGER.info("%s", text.encode("utf-8", "backslashreplace").decode())  # names of files may not be text


def caution(text: str) -> None:
    """Print a warning that must not be missed, at level WARNING; the work goes on."""
    _LOGGER.warning("%s", f"warning: {text}".encode("utf-8", "backslashreplace").decode())


@contextlib.contextmanager
def reworded(change: Callable[[str], str]) -> Iterator[None]:
    """Change the words of all messages inside the block: commands name flags where the library names arguments.

    Args:
      change: message to message.
    """

    def reword(record: logging.LogRecord) -> bool:
        record.msg, record.args = "%s", (change(record.getMessage()),)
        return True

    _LOGGER.addFilter(reword)
    try:
        yield
    finally:
        _LOGGER.removeFilter(reword)


def columns_to_draw_in() -> int:
    """Return how many columns a line has that is drawn over itself; 0 where what is printed stays, as in a file."""
    if _PRINTER not in _LOGGER.handlers or not _LOGGER.isEnabledFor(logging.INFO) or _LOGGER.disabled:
        return 0
    if type(sys.stdout).__module__.startswith("ipykernel"):  # a notebook's
        return 80
    if not sys.stdout.isatty():
        return 0
    return shutil.get_terminal_size().columns - 1  # in the last one some terminals would begin a new line


def draw(line: str) -> None:
    """Draw a line below all that is said, over the one before; "" takes it away."""
    _PRINTER.draw(line)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Print nothing inside the block."""
    before = _LOGGER.disabled
    _LOGGER.disabled = True
    try:
        yield
    finally:
        _LOGGER.disabled = before
