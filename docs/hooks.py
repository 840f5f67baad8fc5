"""The tables of options, put where a page has ``<!-- options: NAME -->``, by MkDocs."""

import re

from p2p_jax.config.option import as_options
from p2p_jax.config.options import OPTIONS
from p2p_jax.objectives import cyclegan, pix2pix  # noqa: F401 - their modules are looked up by name

TABLES = {"experiment": lambda: OPTIONS, "pix2pix": lambda: _loss("pix2pix"), "cyclegan": lambda: _loss("cyclegan")}


def on_page_markdown(markdown: str, **_) -> str:
    """Return a page with its tables."""
    return re.sub(r"<!-- options: (\w+) -->", lambda match: table(TABLES[match[1]]()), markdown)


def table(options) -> str:
    """Return options as a Markdown table."""
    rows = ["| option | default | values | meaning |", "|---|---|---|---|"]
    for option in as_options(options).values():
        cells = f"`{option.name}`", f"`{option.default!r}`", option.wanted, option.meaning
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _loss(name):
    import importlib

    return importlib.import_module(f"p2p_jax.objectives.{name}").LOSS
