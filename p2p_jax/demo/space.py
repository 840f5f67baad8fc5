"""A demo as a folder with the model, the library's source and requirements; runs as a Space or by itself."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import p2p_jax
from p2p_jax.demo import page as pages
from p2p_jax.demo import serving
from p2p_jax.demo.model import Model
from p2p_jax.demo.settings import Settings
from p2p_jax.errors import InputError
from p2p_jax.images.palettes import BUILT_IN, Palette
from p2p_jax.interop.packing import pack
from p2p_jax.reporting import say
from p2p_jax.storage.writing import unfinished_folder

_NEEDED = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "dm-pix", "numpy", "ml_collections", "absl-py", "pillow",
    "tqdm", "flatbuffers", "safetensors", "gradio",
)  # fmt: skip
_IF_INSTALLED = ("tifffile", "imagecodecs", "pillow-heif", "scikit-image")
_MODEL, _EXAMPLES = "model.safetensors", "examples"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_APP = '''"""The demo of a model that was trained with p2p_jax; README.md says how to start it."""

from pathlib import Path

from p2p_jax.demo.settings import Settings
from p2p_jax.demo.space import start

if __name__ == "__main__":
    start(Path(__file__).parent, {settings})
'''
_README = """---
title: {title}
emoji: 🖼️
colorFrom: indigo
colorTo: green
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
pinned: false
license: {license}
---

# {heading}

{about}.

Made with [p2p_jax](https://github.com/p2p-jax/p2p-jax) {version}; its source is in `p2p_jax/` (MIT). The model is
`model.safetensors`.

To run it here, with Python {python}:

```bash
python -m venv .venv
.venv/bin/pip install -r requirements.txt
.venv/bin/python app.py
```

As a Space: create one with the SDK Gradio and upload all of these files except `.venv`.
"""


def write(
    run: str | Path,
    target: Path,
    settings: Settings,
    licence: str,
    num_examples: int = 0,
    data_dir: str | None = None,
) -> int:
    """Write a folder that runs as a Space.

    Args:
      run: directory of the run, or its model file.
      target: the folder; new or empty.
      settings: settings of the demo; missing settings of drawings are taken from the validation set, if available.
      licence: licence of the model.
      num_examples: number of validation images to include, in each direction.
      data_dir: the folder of the data set, if it is no longer where the run's config says.

    Returns:
      The number of files.

    Raises:
      InputError: the folder holds files, the run cannot be opened, no licence is given, or a package is not installed.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"space={target} is not empty: name a new folder")
    if not _LICENCE.fullmatch(licence):
        raise InputError(
            f"licence={licence!r}: give the licence of the model as Spaces write it, such as mit, cc-by-4.0 or "
            "other; it depends on the licence of the images as well"
        )
    if settings.trust:
        raise InputError("a Space can only run code of the library, and `trust` names other code")
    pages.import_gradio()
    requirements = _requirements()
    with tempfile.TemporaryDirectory() as scratch, unfinished_folder(target) as folder:
        model = Model(run, Path(scratch), settings, num_examples=max(num_examples, 8), data_dir=data_dir)
        pack(run, folder / _MODEL, settings.checkpoint, licence=licence, raw=settings.raw)
        for name, way in model.ways.items():
            for example in way.examples[:num_examples]:
                (folder / _EXAMPLES / name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(example.file, folder / _EXAMPLES / name / example.file.name)
        _copy_library(folder / "p2p_jax")
        shown = settings._replace(
            checkpoint="latest",
            raw=False,  # the file holds one kind of weights
            palette=settings.palette or _palette_of(model),
            title=settings.title or model.title,
        )
        (folder / "app.py").write_text(_APP.format(settings=_written(shown)), encoding="utf-8")
        (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(
            _README.format(
                title=json.dumps(shown.title),
                heading=shown.title,
                about=model.about[0].upper() + model.about[1:],
                gradio=importlib.metadata.version("gradio"),
                python=".".join(platform.python_version_tuple()[:2]),
                license=licence,
                version=p2p_jax.__version__,
            ),
            encoding="utf-8",
        )
        files = sum(path.is_file() for path in folder.rglob("*"))
        os.replace(folder, target)
    if not num_examples and any(way.examples for way in model.ways.values()):
        say("no validation images were put into the folder; `examples` adds them, if you may publish them")
    return files


def start(folder: Path, settings: Settings) -> None:
    """Serve the demo in a folder made by ``write``, on this machine or where gradio's variables say."""
    with serving.environment() as scratch:
        model = Model(folder / _MODEL, scratch, settings, examples_folder=folder / _EXAMPLES)
        page = pages.make(model)
        serving.launch(page)
        say(f"The demo is at {page.local_url}")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.close(verbose=False)


def _copy_library(target: Path) -> None:
    """Copy the library's source: a Space installs packages before it sees the folder, and there is no release yet."""
    source = Path(p2p_jax.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(source, target, ignore=ignored)
    for place in (source.parent / "LICENSE", *_files_of_distribution("LICENSE")):
        if place.is_file():
            shutil.copyfile(place, target / "LICENSE")
            break


def _files_of_distribution(name: str) -> Sequence[Path]:
    try:
        found = importlib.metadata.files("p2p_jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in found if file.name == name]


def _requirements() -> list[str]:
    """Return pinned requirements: the installed versions of the demo's packages."""
    lines = []
    for name in (*_NEEDED, *_IF_INSTALLED):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in _NEEDED:
                raise InputError(f"{name} is not installed: pip install 'p2p_jax[demo]'") from None
            continue
        lines.append(f"{name}=={version.partition('+')[0]}")
    return lines


def _palette_of(model: Model) -> str:
    """Return the settings of drawings that were found, if the run does not store them."""
    pad = next(iter(model.ways.values())).pad
    if pad is None or pad.domain.is_labels:
        return ""
    if pad.exact:
        found = Palette(tuple(pad.colors), np.array(list(pad.colors.values()), np.uint8)).to_json()
        known = {name: palette._replace(void=palette.void[:0]).to_json() for name, palette in BUILT_IN.items()}
        return next((name for name, palette in known.items() if palette == found), json.dumps(found))
    return "lines" if "line" in pad.colors else ""


def _written(settings: Settings) -> str:
    """Return settings as Python source, without default values."""
    default: dict[str, Any] = Settings()._asdict()
    given = [f"{name}={value!r}" for name, value in settings._asdict().items() if value != default[name]]
    return f"Settings({', '.join(given)})"
