"""The web page of the demo, built with gradio."""

import html
import importlib.resources
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.demo.model import Model, Shown, Way
from p2p_jax.demo.pads import Pad
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.reporting import say

FONTS = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
"""Fonts of the page: those of the browser, so none is downloaded."""
CSS = """
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; }
.swatches { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 13px; }
.swatches i { display: inline-block; width: 12px; height: 12px; margin-right: 5px; border: 1px solid #888; }
"""
_PAD_HEIGHT = 380  # pixels on the page
_SIZES = (("as in training", "training"), ("its own", "own"))


def head() -> str:
    """Return what the page's head holds: a script that makes the browser send every image file that is read."""
    script = importlib.resources.files("p2p_jax.demo").joinpath("uploads.js").read_text(encoding="utf-8")
    return f"<script>{{const ENDINGS = {json.dumps(formats.EXTENSIONS)};\n{script}}}</script>"


class _NothingThereError(InputError):
    """No picture was given."""


def import_gradio() -> Any:
    """Return gradio.

    Raises:
      InputError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"the demo needs gradio ({error}): pip install 'p2p_jax[demo]'") from error
    return gradio


def make(model: Model) -> Any:
    """Return the page of a model, ``gradio.Blocks``."""
    gr = import_gradio()
    names = list(model.ways)
    first = model.ways[names[0]]

    with gr.Blocks(title=model.title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(f"<h1>{html.escape(model.title)}</h1><p>{html.escape(model.about)}</p>", elem_id="about")
        direction = gr.Radio(
            [(model.names[name], name) for name in names],
            value=names[0],
            label="Direction",
            visible=len(names) > 1,
            elem_id="direction",
        )
        with gr.Row():
            with gr.Column(min_width=320), gr.Tabs(selected="draw" if _is_drawn_first(first) else "picture") as tabs:
                with gr.Tab("Picture", id="picture", elem_id="picture-tab"):
                    picture = gr.Image(
                        label="Picture", sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None,
                        visible=first.is_picture, height=_PAD_HEIGHT, elem_id="picture",
                    )  # fmt: skip
                    file = gr.File(
                        label="Image file (TIFF, PNG, .npy)",
                        type="filepath",
                        visible=not first.is_picture,
                        elem_id="file",
                    )
                    size = gr.Radio(
                        _SIZES, value=model.first_size, label="Size at which it is translated", elem_id="size"
                    )
                    go = gr.Button("Translate", variant="primary", elem_id="translate")
                with gr.Tab("Draw", id="draw", elem_id="draw-tab", visible=first.pad is not None) as draw_tab:
                    # One for each direction, so a drawing is never used for the other one.
                    drawn = [_drawn_in(gr, name, model.ways[name], visible=name == names[0]) for name in names]
            with gr.Column(min_width=320):
                slider = gr.ImageSlider(
                    label="Before and after", type="filepath", format="png", interactive=False, elem_id="slider",
                    max_height=_PAD_HEIGHT,
                )  # fmt: skip
                told = gr.Markdown(elem_id="told")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                seed = gr.Number(
                    model.seed or 0,
                    label="Seed of the noise",
                    precision=0,
                    minimum=0,
                    visible=model.seed is not None,
                    elem_id="seed",
                )
        gr.Markdown("Examples from the validation set", visible=any(way.examples for way in model.ways.values()))
        galleries = [_gallery(gr, name, model.ways[name], visible=name == names[0]) for name in names]

        results = [slider, download, told]
        given = [direction, picture, file, size, seed]
        translate = _guarded(gr, _translator(model))
        at_once = _guarded(gr, _translator(model), is_asked=False)
        shown = {"api_visibility": "private", "show_progress_on": slider}
        settings = {"preprocess": False, **shown}
        go.click(translate, given, results, **settings)
        gr.on([picture.input, file.upload], at_once, given, results, **settings)
        for name, (_, drawing, draw) in zip(names, drawn, strict=True):
            if draw:
                draw.click(_guarded(gr, _drawer(model, name)), [drawing, seed], results, **shown)

        def turn(name: str) -> list[Any]:
            way = model.ways[name]
            return [
                gr.update(visible=way.is_picture, value=None),
                gr.update(visible=not way.is_picture, value=None),
                gr.update(visible=way.pad is not None),
                gr.update() if way.pad else gr.update(selected="picture"),
                *(gr.update(visible=other == name) for other in names),
                *(gr.update(visible=other == name and bool(model.ways[other].examples)) for other in names),
            ]

        turned = [picture, file, draw_tab, tabs, *(column for column, _, _ in drawn), *galleries]
        direction.change(turn, direction, turned, api_visibility="private", show_progress="hidden")
        for name, gallery in zip(names, galleries, strict=True):
            chosen = gallery.select(
                _chooser(gr, model.ways[name]),
                None,
                [picture, file, tabs],
                api_visibility="private",
                show_progress="hidden",
            )
            chosen.then(translate, given, results, **settings)
    page.queue(default_concurrency_limit=1, max_size=32)
    return page


def _sent(payload: Any) -> Path | None:
    """Return the uploaded file unchanged; gradio would open it, and cannot open all kinds.

    Raises:
      InputError: it is not a file that a page has uploaded.
    """
    if payload is None:
        return None
    path = Path(str(payload.get("path") or "")) if isinstance(payload, dict) else Path()
    if not (path.is_file() and path.resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve())):
        raise InputError("The picture was not received: upload it again.")
    return path


def _translator(model: Model) -> Callable[..., Shown]:
    def translate(direction: Any, picture: Any, file: Any, size: Any, seed: Any) -> Shown:
        if direction not in model.ways:
            raise InputError("This model does not have this direction.")
        source = _sent(picture if model.ways[direction].is_picture else file)
        if source is None:
            raise _NothingThereError("There is no picture yet: drop one, or choose an example.")
        return model.translate(direction, source, fitted=size == "training", seed=_whole(seed))

    return translate


def _drawer(model: Model, direction: str) -> Callable[..., Shown]:
    def draw(drawing: dict[str, Any] | None, seed: float | None) -> Shown:
        drawn, pad = drawing["composite"] if drawing else None, model.ways[direction].pad
        if drawn is None and pad is not None:
            drawn = pad.blank
        return model.draw(direction, np.asarray(drawn), seed=_whole(seed))

    return draw


def _whole(seed: Any) -> int | None:
    if seed is None:
        return None
    if not isinstance(seed, int | float) or not 0 <= seed < 2**32:
        raise InputError("The seed must be a whole number from 0 to 4,294,967,295.")
    return int(seed)


def _guarded(gr: Any, work: Callable[..., Shown], *, is_asked: bool = True) -> Callable[..., Any]:
    """Wrap a function so that it shows its result, or one sentence about its error.

    Args:
      gr: gradio.
      work: the function.
      is_asked: whether somebody has pressed a button; otherwise a missing picture is not an error.
    """

    def do(*given: Any) -> Any:
        try:
            shown = work(*given)
        except _NothingThereError as error:
            if is_asked:
                raise gr.Error(str(error), print_exception=False) from error
            return gr.skip()
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # full text here; the page shows nothing about this machine
            say(f"error: {type(error).__name__}: {error}")
            sentence = "This picture could not be translated; the log of the demo says why."
            raise gr.Error(sentence, print_exception=False) from error
        download = gr.DownloadButton(value=str(shown.file), interactive=True)
        return (str(shown.before), str(shown.after)), download, shown.told

    return do


def _gallery(gr: Any, name: str, way: Way, *, visible: bool) -> Any:
    return gr.Gallery(
        [example.picture.squeeze() for example in way.examples],
        label="Examples from the validation set",
        show_label=False,
        visible=visible and bool(way.examples),
        columns=8, height=150, object_fit="contain", allow_preview=False, interactive=False, format="png", buttons=[],
        elem_id=f"examples-{name}",
    )  # fmt: skip


def _chooser(gr: Any, way: Way) -> Callable[..., list[Any]]:
    """Return the function that puts a clicked example into the input."""

    def choose(event: Any) -> list[Any]:
        path = str(way.examples[event.index].file)
        return [path, None, gr.update(selected="picture")] if way.is_picture else [None, path, gr.update()]

    choose.__annotations__["event"] = gr.SelectData  # gradio reads the type of the argument from it
    return choose


def _drawn_in(gr: Any, name: str, way: Way, *, visible: bool) -> tuple[Any, Any, Any]:
    """Make the drawing tools of one direction; return the column, the editor and the button."""
    pad = way.pad
    with gr.Column(visible=visible, elem_id=f"draw-{name}") as column:
        if pad is None:
            return column, None, None
        colors, blank = [_hex(color) for color in pad.colors.values()], pad.blank
        editor = gr.ImageEditor(
            {"background": blank, "layers": [], "composite": blank},
            label="Drawing", type="pil", image_mode="RGBA", format="png", sources=(), transforms=(), layers=False,
            canvas_size=pad.size[::-1], fixed_canvas=True, height=_PAD_HEIGHT, buttons=[],
            brush=gr.Brush(pad.brush, colors, _first_color(pad), "fixed" if pad.exact else "defaults"),
            eraser=gr.Eraser(2 * pad.brush), elem_id=f"drawing-{name}",
        )  # fmt: skip
        gr.HTML(_swatches(pad), visible=pad.exact, elem_id=f"swatches-{name}")
        return column, editor, gr.Button("Translate the drawing", variant="primary", elem_id=f"translate-{name}")


def _first_color(pad: Pad) -> str:
    """Return the first colour that is visible on the background."""
    return next((_hex(color) for color in pad.colors.values() if color != pad.background), _hex(pad.background))


def _hex(color: tuple[int, int, int]) -> str:
    return f"#{bytes(color).hex()}"


def _swatches(pad: Pad) -> str:
    """Return the names of the colours, as HTML."""
    shown = "".join(
        f'<span><i style="background: {_hex(color)}"></i>{html.escape(name)}</span>'
        for name, color in pad.colors.items()
    )
    return f'<div class="swatches">{shown}</div>'


def _is_drawn_first(way: Way) -> bool:
    """Return whether a run is best used by drawing: its inputs are labels or lines."""
    return way.pad is not None and (way.pad.exact or "line" in way.pad.colors) and way.task is None
