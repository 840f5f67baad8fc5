"""What a look at a data set costs: before a training starts, and by ``p2p_jax inspect``.

    python -m benchmarks.first_look --folder FOLDER [--json FILE]

Makes two sets in FOLDER, where they are not there already: 24 photographs of 12 megapixels (JPEG), and 5,000 pairs
of 2048x1024 (PNG; photographs of noise and label maps of blocks, twenty of each, told apart by a text in every file;
19 GB). Each figure is of a process of its own, which opens the set and takes one batch, or inspects it: seconds of the
clock and of the processor, the start of Python and its imports included, and the most memory.
"""

import argparse
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

_CODE = """
import json, resource, sys, time
from p2p_jax.config import complete, load_with_overrides
from p2p_jax.reporting import quiet

start = time.time()
config = complete(load_with_overrides("facades", sys.argv[2:]))
with quiet():
    if sys.argv[1] == "inspect":
        from p2p_jax.data.inspect.inspection import inspect
        found = inspect(config)
        assert not found.errors, found.errors
    else:
        from p2p_jax.data import load
        next(load(config).train(0))
used = resource.getrusage(resource.RUSAGE_SELF)
seconds = {"clock": time.time() - start, "processor": used.ru_utime + used.ru_stime}
print("figures", json.dumps(seconds | {"gigabytes": used.ru_maxrss / 1e6}))
"""
_SETS = {
    "24 photographs of 12 megapixels": ("photographs", ["source=photos"]),
    "5,000 pairs of 2048x1024": ("streets", ["source=folders", "output.kind=labels", "output.channels=19"]),
}


def _smooth(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    blocks = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    enlarged = np.asarray(blocks.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(enlarged + rng.integers(-3, 4, (height, width, 1)), 0, 255).astype(np.uint8))


def _with_text(png: bytes, text: str) -> bytes:
    """Return a PNG with a text at its end."""
    contents = b"tEXtComment\0" + text.encode()
    chunk = struct.pack(">I", len(contents) - 4) + contents + struct.pack(">I", zlib.crc32(contents))
    return png[:-12] + chunk + png[-12:]


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def make(folder: Path) -> None:
    """Make the sets."""
    rng = np.random.default_rng(0)
    photographs, streets = folder / "photographs" / "train", folder / "streets"
    if not photographs.is_dir():
        photographs.mkdir(parents=True)
        for i in range(24):
            _smooth(rng, 3008, 4000).save(photographs / f"{i:02d}.jpg", quality=90)
    if streets.is_dir():
        return
    for side in "AB":
        (streets / f"train{side}").mkdir(parents=True)
    for i in range(20):
        labels = np.repeat(np.repeat(rng.integers(0, 19, (32, 64), np.uint8), 32, axis=0), 32, axis=1)
        images = {"A": _encoded(_smooth(rng, 1024, 2048)), "B": _encoded(Image.fromarray(labels))}
        for side, png in images.items():
            for number in range(250 * i, 250 * (i + 1)):
                (streets / f"train{side}" / f"{number:05d}.png").write_bytes(_with_text(png, str(number)))


def main() -> None:
    """Make the sets, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    make(args.folder)
    figures = []
    for name, (place, options) in _SETS.items():
        given = [*options, f"dir={args.folder / place}", "direction=AtoB", "val_split="]
        for what in ("start", "inspect"):
            command = [sys.executable, "-c", _CODE, what, *(f"--config.data.{option}" for option in given)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            (line,) = (line for line in out.splitlines() if line.startswith("figures "))
            figures.append({"set": name, "what": what} | json.loads(line.removeprefix("figures ")))
            told = "{clock:.1f} s, processor {processor:.1f} s, {gigabytes:.2f} GB".format(**figures[-1])
            print(f"{name}, {what}: {told}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"command": sys.argv, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
