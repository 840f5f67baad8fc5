"""What the site has beside its pages: tables of options for ``<!-- options: NAME -->``, a model that runs in a browser.

Zensical and MkDocs load ``docs.extras`` as an extension of Markdown. ``python -m docs.extras`` adds the model to a site
that is built, if ``npm install onnxruntime-web`` has put what it computes with into the checkout.
"""

import json
import re
from pathlib import Path

from markdown import Extension
from markdown.preprocessors import Preprocessor

from p2p_jax.config.options import OPTIONS
from p2p_jax.errors import InputError
from p2p_jax.interop.web import page, runtime
from p2p_jax.objectives.cut import LOSS as CUT
from p2p_jax.objectives.cyclegan import LOSS as CYCLEGAN
from p2p_jax.objectives.pix2pix import LOSS as PIX2PIX

DOCS = Path(__file__).parent
TABLES = {"experiment": OPTIONS, "pix2pix": PIX2PIX, "cyclegan": CYCLEGAN, "cut": CUT}
LIVE = "live"  # a folder here and in the site: a model, and what its page needs to know
LINK = '<a class="md-button" href="../live/index.html">Try one: draw a toy facade</a>'  # a page that Markdown lacks


class Extras(Preprocessor):
    """Puts in tables, and the link to the live page where there is one."""

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines of a page with what its marks stand for."""
        text = "\n".join(lines).replace("<!-- live page -->", LINK if _runtime() else "")
        return re.sub(r"<!-- options: (\w+) -->", lambda match: table(TABLES[match[1]]), text).split("\n")


class ExtrasExtension(Extension):
    """The extension that the settings of the site name."""

    def extendMarkdown(self, md) -> None:  # noqa: N802  (the name that Markdown calls)
        """Put the marks in before anything reads the page."""
        md.preprocessors.register(Extras(md), "extras", priority=100)


def makeExtension(**settings) -> Extension:  # noqa: N802
    """Return the extension; Markdown looks for this name."""
    return ExtrasExtension(**settings)


def table(options) -> str:
    """Return options as a Markdown table."""
    rows = ["| option | default | values | meaning |", "|---|---|---|---|"]
    for option in options:
        cells = f"`{option.name}`", f"`{option.default!r}`", option.wanted, option.meaning
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def live_page(docs: Path, site: Path, found: runtime.Runtime) -> None:
    """Write the files of the live page beside its model, which the build has copied."""
    page.write(site / LIVE, json.loads((docs / LIVE / page.MANIFEST).read_text(encoding="utf-8")), found)


def _runtime() -> runtime.Runtime | None:
    try:
        return runtime.find(DOCS.parent / "node_modules" / runtime.PACKAGE)
    except InputError:
        return None


if __name__ == "__main__":
    if found := _runtime():
        live_page(DOCS, DOCS.parent / "site", found)
