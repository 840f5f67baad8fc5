"""The tables of options, put where a page has ``<!-- options: NAME -->``, by MkDocs."""

import re

from p2p_jax.config.options import OPTIONS
from p2p_jax.objectives.cut import LOSS as CUT
from p2p_jax.objectives.cyclegan import LOSS as CYCLEGAN
from p2p_jax.objectives.pix2pix import LOSS as PIX2PIX

TABLES = {"experiment": OPTIONS, "pix2pix": PIX2PIX, "cyclegan": CYCLEGAN, "cut": CUT}


def on_page_markdown(markdown: str, **_) -> str:
    """Return a page with its tables."""
    return re.sub(r"<!-- options: (\w+) -->", lambda match: table(TABLES[match[1]]), markdown)


def table(options) -> str:
    """Return options as a Markdown table."""
    rows = ["| option | default | values | meaning |", "|---|---|---|---|"]
    for option in options:
        cells = f"`{option.name}`", f"`{option.default!r}`", option.wanted, option.meaning
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
