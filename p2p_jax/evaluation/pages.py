"""Pages of one HTML file that contain everything they show and need no network."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from string import Template


def fill(html: str, css: Sequence[str], js: Sequence[str], **parts: str) -> str:
    """Return a page as ASCII, which reads the same in every encoding.

    Its policy allows embedded pictures and exactly this style and script, and nothing else.

    Args:
      html: name of the template next to this file, with places for ``policy``, ``css`` and ``js``.
      css: names of the files for its style, in order, after the style that all pages of the library share.
      js: names of the files for its script.
      **parts: HTML for the other places of the template.
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
    """Return the source that allows one inline style or script in the page's content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
