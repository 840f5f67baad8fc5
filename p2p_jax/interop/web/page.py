"""The facts for the page: inputs, outputs and drawing tools of a network; and the page's files."""

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import drawings, palettes
from p2p_jax.images.domains import Domain
from p2p_jax.interop.web.runtime import PACKAGE, Runtime

MANIFEST = "manifest.json"
STATIC = ("app.js", "pictures.js", "translate.js")
_HEADERS = """/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
"""  # some hosts read them from a file of that name; without them there is one thread
_LAB = ("lab_l", "lab_ab")


def check_domain(domain: Domain, verb: str) -> None:
    """Refuse a domain that is not pictures.

    Args:
      domain: domain of the run's inputs or outputs.
      verb: "takes" or "makes".

    Raises:
      InputError: the domain is of another kind, or its range is not known.
    """
    is_picture = domain.is_labels or domain.kind in _LAB or (domain.kind == "uint8" and domain.channels in (1, 3))
    if not is_picture or domain.unknown:
        what = f"{domain.kind} of {domain.channels} channels" + " with unknown values" * domain.unknown
        raise InputError(f"format=web is for pictures, and this run {verb} {what}: use format=onnx")
    if not domain.is_measured:
        raise InputError(f"format=web: the range of the values that the run {verb} is not known; use format=onnx")


def describe(domain: Domain) -> dict[str, Any]:
    """Return a domain in the form of the page's script."""
    palette = domain.palette
    colors = palette.colors.tolist() if palette is not None else None
    if domain.kind == "labels" and palette is None:  # the grays of Domain.picture
        colors = [[value * 255 // max(domain.channels - 1, 1)] * 3 for value in range(domain.channels)]
    return {
        "kind": domain.kind,
        "channels": domain.channels,
        "low": list(domain.low),
        "high": list(domain.high),
        "colors": colors,
        "void": palette.void.tolist() if palette is not None else [],
    }


def drawn_with(
    domain: Domain, task: str, palette: palettes.Palette | None, examples: np.ndarray | None
) -> dict[str, Any]:
    """Return the drawing tools for inputs: the colours of labels, a black pen on white, or any colours.

    Args:
      domain: domain of the input.
      task: the task that makes inputs from photographs, ``config.task.input``; "" if inputs are files.
      palette: requested colours; None: the domain's own, or those of the examples.
      examples: pictures of inputs, [N, H, W, C] uint8; None if there are none.

    Returns:
      ``kind`` ("palette", "lines" or "colors"), ``colors`` ([name, "#rrggbb"], ...), and ``paper``, the initial colour.
    """
    chosen = domain.palette or palette
    if chosen is None and domain.kind == "labels":
        colors = np.array(describe(domain)["colors"], np.uint8)
        chosen = palettes.Palette(tuple(f"class {i}" for i in range(len(colors))), colors)
    if chosen is None and domain.kind == "uint8" and domain.channels == 3 and examples is not None:
        chosen = drawings.palette_of(list(examples))
    if chosen is not None:
        named = [[name, _hex(color)] for name, color in zip(chosen.names, chosen.colors, strict=True)]
        return {"kind": "palette", "colors": named, "paper": named[0][1]}
    is_drawn = domain.kind == "uint8" and examples is not None and drawings.paper_of(list(examples)) == 255
    if drawings.makes_lines(task) or is_drawn:
        return {"kind": "lines", "colors": [["pen", "#000000"], ["rubber", "#ffffff"]], "paper": "#ffffff"}
    return {"kind": "colors", "colors": [], "paper": "#ffffff"}


def _hex(color: np.ndarray | tuple[int, ...]) -> str:
    return "#" + bytes(int(x) for x in color).hex()


def write(folder: Path, manifest: Mapping[str, Any], runtime: Runtime) -> None:
    """Write all files of a page except its models.

    Args:
      folder: folder of the page, which exists.
      manifest: facts for its script; ``title``, and all others except the runtime.
      runtime: the runtime that computes.
    """
    package, own = files("p2p_jax"), files("p2p_jax.interop.web")
    for name in STATIC:
        (folder / name).write_bytes(own.joinpath(name).read_bytes())
    (folder / "drawing.js").write_bytes(package.joinpath("drawing.js").read_bytes())
    look = package.joinpath("look.css").read_text(encoding="utf-8")
    (folder / "app.css").write_text(look + own.joinpath("app.css").read_text(encoding="utf-8"), encoding="utf-8")
    html = Template(own.joinpath("index.html").read_text(encoding="utf-8"))
    (folder / "index.html").write_text(html.substitute(title=escape(manifest["title"])), encoding="utf-8")
    (folder / "_headers").write_text(_HEADERS, encoding="utf-8")
    (folder / "ort").mkdir(exist_ok=True)
    for name, content in runtime.files.items():
        (folder / "ort" / name).write_bytes(content)
    computes = {"package": PACKAGE, "version": runtime.version, "sha256": runtime.digests()}
    told = json.dumps({**manifest, "runtime": computes}, indent=1) + "\n"
    (folder / MANIFEST).write_text(told, encoding="utf-8")
