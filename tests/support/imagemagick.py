"""ImageMagick, a program that many people make their files with."""

import functools
import shutil
import subprocess

MISSING = "ImageMagick is not installed"


@functools.cache
def program() -> str | None:
    """Return the path of ImageMagick's program, None where there is none; others are called "convert" too."""
    for name in ("magick", "convert", "/usr/bin/convert"):
        if (path := shutil.which(name)) and _version(path).startswith("Version: ImageMagick"):
            return path
    return None


def has_colour_management() -> bool:
    """Return whether it converts between profiles, which is Little CMS's work."""
    return "lcms" in _version(program())


def _version(path: str) -> str:
    return subprocess.run([path, "-version"], capture_output=True, text=True).stdout
