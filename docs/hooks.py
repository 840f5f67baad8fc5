"""What MkDocs adds to the pages: tables of options for ``<!-- options: NAME -->``, a model that runs in the browser."""

import json
import re
from pathlib import Path

from p2p_jax.config.options import OPTIONS
from p2p_jax.errors import InputError
from p2p_jax.interop.web import page, runtime
from p2p_jax.objectives.cut import LOSS as CUT
from p2p_jax.objectives.cyclegan import LOSS as CYCLEGAN
from p2p_jax.objectives.pix2pix import LOSS as PIX2PIX

TABLES = {"experiment": OPTIONS, "pix2pix": PIX2PIX, "cyclegan": CYCLEGAN, "cut": CUT}
LIVE = "live"  # a folder here and in the site: a model, and what its page is told
LINK = '<a class="md-button" href="../live/index.html">Try one: draw a toy facade</a>'  # which MkDocs does not know of


def on_page_markdown(markdown: str, **_) -> str:
    """Return a page with its tables, and the link to the live page where there is one."""
    markdown = markdown.replace("<!-- live page -->", LINK if _runtime() else "")
    return re.sub(r"<!-- options: (\w+) -->", lambda match: table(TABLES[match[1]]), markdown)


def on_post_build(config, **_) -> None:
    """Write the live page, if ``npm install onnxruntime-web`` has put what it computes with into the checkout."""
    if found := _runtime():
        live_page(Path(config["docs_dir"]), Path(config["site_dir"]), found)


def live_page(docs: Path, site: Path, found: runtime.Runtime) -> None:
    """Write the files of the live page beside its model, which MkDocs has copied."""
    page.write(site / LIVE, json.loads((docs / LIVE / page.MANIFEST).read_text(encoding="utf-8")), found)


def _runtime() -> runtime.Runtime | None:
    try:
        return runtime.find(Path(__file__).parents[1] / "node_modules" / runtime.PACKAGE)
    except InputError:
        return None


def table(options) -> str:
    """Return options as a Markdown table."""
    rows = ["| option | default | values | meaning |", "|---|---|---|---|"]
    for option in options:
        cells = f"`{option.name}`", f"`{option.default!r}`", option.wanted, option.meaning
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
