"""Memory and time of translating one large image, whole and in tiles, and of images of many sizes.

    python -m benchmarks.large_images [--sides 4000x3000] [--width 64] [--tile 1024] [--overlap N] [--whole]
    python -m benchmarks.large_images --sizes 24 [--width 8]

The first form runs ``translate`` on a deflated TIFF of that width and height in processes of their own, once to compile
and then as often as ``--repeats`` says, and tells seconds of the clock and of the processor and the peak of the
resident memory, with Python and JAX, which take 0.4 GB, and the weights. With ``--whole`` the image is
translated whole beside. The second translates one image of each of that many sizes in one process, and tells memory and
its mappings (of which Linux allows 65,530) after every eighth. U-Net of 256 pixels, random weights, float32.
"""

import argparse
import gc
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import turns
from benchmarks.experiments import make_config
from benchmarks.translate import smooth_images, write_run

_BLOCK = 512


def write_image(path: Path, width: int, height: int) -> None:
    """Write a deflated TIFF of 8-bit RGB in tiles, which is never in memory whole."""
    import tifffile

    (block,) = smooth_images(1, _BLOCK)
    across, down = math.ceil(width / _BLOCK), math.ceil(height / _BLOCK)
    blocks: Iterator[np.ndarray] = (block for _ in range(across * down))
    options = {"photometric": "rgb", "compression": "zlib", "compressionargs": {"level": 1}}
    tifffile.imwrite(path, blocks, shape=(height, width, 3), dtype="uint8", tile=(_BLOCK, _BLOCK), **options)


def run_command(arguments: list[str]) -> dict[str, float]:
    """Run ``translate`` in a process of its own, and return what it took."""
    code = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "from p2p_jax.commands import translate\n"
        "translate.run(sys.argv[1:])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # Not ru_maxrss, in which a process starts with what the one that started it has.
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, int(peak)]))"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=turns.environment(), check=False)
    if result.returncode:
        raise SystemExit(result.stderr)
    seconds, peak = json.loads(result.stdout.splitlines()[-1])
    return {"seconds": time.perf_counter() - start, "cpu_seconds": seconds, "peak_gb": peak * 1024 / 1e9}


def measure_image(args: argparse.Namespace, root: Path) -> dict:
    """Translate one image in fresh processes."""
    width, height = map(int, args.sides.split("x"))
    write_image(root / "in.tif", width, height)
    tile = ["--tile", str(args.tile), *(["--overlap", str(args.overlap)] if args.overlap is not None else [])]
    ways = {"tiled": tile} | ({"whole": []} if args.whole else {})
    result: dict = {}
    for name, options in ways.items():
        command = [str(root / "run"), str(root / "in.tif"), "--output", str(root / "out.tif"), "--overwrite", *options]
        found = [run_command(command) for _ in range(args.repeats + 1)]
        result[name] = {"first": found[0]} | {
            key: statistics.median(one[key] for one in found[1:]) for key in ("seconds", "cpu_seconds", "peak_gb")
        }
        print(f"{name} {args.sides}: " + json.dumps(result[name]), flush=True)
    return result


def measure_sizes(args: argparse.Namespace, root: Path) -> list[dict]:
    """Translate an image of each of many sizes of up to 4 megapixels in this process."""
    from p2p_jax import Translator

    translator, found = Translator.from_workdir(root / "run"), []
    start, process_start = time.perf_counter(), time.process_time()
    sizes = sorted(((h, w) for h in range(1, 9) for w in range(1, 9)), key=lambda size: size[0] * size[1])
    for i, (height, width) in enumerate(sizes[: args.sizes], start=1):
        translator(np.zeros((256 * height, 256 * width, 3), np.uint8))
        if i % 8 == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found.append(
                {
                    "sizes": i,
                    "mb": pages * resource.getpagesize() / 1e6,
                    "mappings": Path("/proc/self/maps").read_text().count("\n"),
                    "seconds": time.perf_counter() - start,
                    "cpu_seconds": time.process_time() - process_start,
                }
            )
            print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="4000x3000", help="width and height of the image")
    parser.add_argument("--width", type=int, default=64, help="channels of the network's first layer")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--whole", action="store_true", help="translate it whole beside")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, help="translate images of that many sizes instead")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_run(make_config("pix2pix", 256, width=args.width), root / "run")
        found = measure_sizes(args, root) if args.sizes else measure_image(args, root)
    turns.report({"options": {k: v for k, v in vars(args).items() if k != "json"}, "found": found}, args.json)


if __name__ == "__main__":
    main()
