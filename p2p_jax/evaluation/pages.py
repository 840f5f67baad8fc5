"""Pages of one HTML file that hold all they show and ask nothing of the network."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from string import Template


def fill(html: str, css: Sequence[str], js: Sequence[str], **parts: str) -> str:
    """Return a page as ASCII, which reads the same whatever encoding a viewer or the writing system supposes.

    Its policy lets through pictures that stand in it and this very style and script, and nothing else.

    Args:
      html: name of the template beside this file, with places for ``policy``, ``css`` and ``js``.
      css: names of the files that make its style, in order, behind the look that all pages of the library have.
      js: those of its script.
      **parts: what goes into the template's other places, HTML already.
    """
    folder = files("p2p_jax.evaluation")

    def read(names: Sequence[str]) -> str:
        return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)

    look = files("p2p_jax").joinpath("look.css").read_text(encoding="utf-8")
    style, script = look + read(css), read(js)
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    text = Template(read([html])).substitute(policy=policy, css=style, js=script, **parts)
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _hash(text: str) -> str:
    """Return what lets one inline style or script through the page's content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
