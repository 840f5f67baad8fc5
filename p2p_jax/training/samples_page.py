"""``samples/index.html``: the sample grids of a run over time. The page opens from disk, and grows in training."""

import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from p2p_jax.storage.writing import write_text
from p2p_jax.training.grids import read_places


class SamplesPage:
    """The page of one run. It reads ``steps.js`` from the same folder repeatedly, so an open page grows, too.

    Args:
      folder: with the grids, ``step_STEP.png``; those of earlier starts are taken up.
      step: that training goes on from. Grids of later steps are about to be drawn again.
      title: of the page, plain text.
    """

    def __init__(self, folder: Path, step: int, title: str):
        self._folder = folder
        found = {path.name: places for path in sorted(folder.glob("step_*.png")) if (places := read_places(path))}
        self._grids = {name: places for name, places in found.items() if places["step"] <= step}
        write_text(folder / "index.html", _page(title))
        self._write()

    def add(self, path: Path) -> None:
        """Take up a grid that was written into the folder."""
        places = read_places(path)
        if places:
            self._grids[path.name] = places
            self._write()

    def _write(self) -> None:
        grids = sorted(({"file": name, **places} for name, places in self._grids.items()), key=_step)
        write_text(self._folder / "steps.js", f"show({json.dumps(grids)});\n")


def _step(grid: dict[str, Any]) -> int:
    return grid["step"]


def _page(title: str) -> str:
    folder = files("p2p_jax.training")
    html, css, js = (folder.joinpath(f"samples.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    look = files("p2p_jax").joinpath("look.css").read_text(encoding="utf-8")
    safe = title.replace("&", "&amp;").replace("<", "&lt;")
    text = Template(html).substitute(title=safe, css=look + css, js=js)
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")
