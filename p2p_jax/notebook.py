"""For notebooks, on Colab and elsewhere: pictures, sample grids while a run trains, a pad to draw label maps on."""

import base64
import contextlib
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.images.domains import Domain
from p2p_jax.training.grids import make_grid

try:
    import anywidget
    import traitlets
    from IPython import display
except ImportError as error:
    raise InputError(
        f"p2p_jax.notebook needs the packages of notebooks ({error}): pip install 'p2p_jax[notebooks]'"
    ) from error

_LOOK_EVERY = 0.5  # seconds
_WIDTH = 500  # pixels, to about which small grids are enlarged


@contextlib.contextmanager
def live_samples(workdir: str | Path) -> Iterator[None]:
    """Show the newest sample grid of a run under the cell, as long as the block lasts that trains it.

    Args:
      workdir: the run's directory; it need not be there yet.
    """
    done = threading.Event()
    shown, handle = None, display.DisplayHandle()

    def show_newest():
        nonlocal shown
        newest = max(Path(workdir, "samples").glob("step_*.png"), default=None)
        if newest in (None, shown):
            return
        show = handle.display if shown is None else handle.update
        with contextlib.suppress(OSError), Image.open(newest) as image:  # no reason to end a training
            show(display.Image(newest.read_bytes(), width=image.width * max(1, round(_WIDTH / image.width))))
            shown = newest

    def watch():
        while not done.wait(_LOOK_EVERY):
            show_newest()

    thread, verbosity = threading.Thread(target=watch, daemon=True), logging.get_verbosity()
    thread.start()
    logging.set_verbosity(logging.ERROR)  # JAX and Orbax otherwise report each of their steps
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        done.set()
        thread.join()
        show_newest()


def grid(columns: Mapping[str, np.ndarray | Sequence[np.ndarray]], height: int = 128) -> Image.Image:
    """Lay images out in named columns, to be the last line of a cell.

    Args:
      columns: name -> images [N, H, W, 1 or 3] (or a sequence of them), uint8 or floating in [-1, 1]; those of another
        size than the first are resized to it.
      height: smaller images are enlarged by whole factors to about this height, without smoothing.
    """
    height_of_all, width = np.shape(next(iter(columns.values()))[0])[:2]
    pictures = {
        name: np.stack([_picture(np.asarray(image), height_of_all, width) for image in images])
        for name, images in columns.items()
    }
    factor = max(1, round(height / height_of_all))
    return Image.fromarray(make_grid({k: x.repeat(factor, 1).repeat(factor, 2) for k, x in pictures.items()}))


def _picture(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.dtype != np.uint8:
        image = Domain("float", image.shape[-1]).picture(image)
    if image.shape[:2] == (height, width):
        return image
    resized = np.asarray(Image.fromarray(image.squeeze()).resize((width, height)))
    return resized.reshape(height, width, -1)


class DrawingPad(anywidget.AnyWidget):
    """A picture to draw on with the mouse, in rectangles or freely, with the colours of a palette.

    Args:
      image: [H, W, 3] uint8, the picture to begin with.
      colors: name -> (red, green, blue), 0 to 255.
      scale: how many times as large it is shown.
    """

    _esm = "".join(Path(__file__).with_name(name).read_text("utf-8") for name in ("drawing.js", "drawing_pad.js"))
    _colors: traitlets.List = traitlets.List().tag(sync=True)  # of [name, "#rrggbb"]
    _scale = traitlets.Int().tag(sync=True)
    _start = traitlets.Unicode().tag(sync=True)  # pictures are PNG files as data URLs
    _drawn = traitlets.Unicode().tag(sync=True)

    def __init__(self, image: np.ndarray, colors: Mapping[str, np.ndarray | tuple[int, int, int]], scale: int = 2):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise InputError(f"the image to draw on must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        start = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        named = [[name, "#" + bytes(int(x) for x in color).hex()] for name, color in colors.items()]
        super().__init__(_colors=named, _scale=scale, _start=start, _drawn=start)

    @property
    def image(self) -> np.ndarray:
        """The picture as it is drawn now: [H, W, 3] uint8."""
        with Image.open(io.BytesIO(base64.b64decode(self._drawn.partition(",")[2]))) as image:
            return np.asarray(image.convert("RGB"))
