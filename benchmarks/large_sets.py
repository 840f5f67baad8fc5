"""How long a set of millions of small examples takes to its first batch, at step 0 and at a later one, and its memory.

    python -m benchmarks.large_sets --container zip [--count 5000000] [--folder DIR] [--step 1000000] [--json FILE]

Makes the set in a folder that is deleted afterwards (with ``--folder`` it stays, and is taken again): pairs side by
side, two small squares in one PNG of a few hundred bytes, of which there are 256 different ones. Then processes of
their own open it, by turns for step 0 and for the later step, and report the seconds from their start to the opened set
and from there to the first batch, and their peak of memory. On a busy machine the time of the
processor, of all threads, is the steadier figure. Of the peak a part may be pages of files that the system
shows a process without a copy; where it tells (Linux), memory of only the process, at the end, stands beside it.
"folder" is one of single files, for comparison.
"""

import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import turns

_KINDS = 256
_SHARDS = 8
_BLOCK = 8  # pixels of one colour, on a side


def images(size: int) -> list[bytes]:
    """Return PNGs of blocks, twice as wide as high."""
    found = []
    for number in range(_KINDS):
        blocks = np.random.default_rng(number).integers(0, 256, (size // _BLOCK, 2 * size // _BLOCK, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def make_folder(root: Path, count: int, contents: list[bytes]) -> Path:
    """Write single files."""
    folder = root / "train"
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:07d}.png").write_bytes(contents[number % _KINDS])
    return root


def make_zip(root: Path, count: int, contents: list[bytes]) -> Path:
    """Write a zip file (Zip64, nothing packed) without the objects that Python's zipfile makes of every member."""
    root.mkdir(parents=True)
    kinds = [(zlib.crc32(x), len(x), x) for x in contents]
    entries, at = [], 0
    with (root / "train.zip").open("wb") as file:
        for number in range(count):
            name = b"train/%07d.png" % number
            crc, size, x = kinds[number % _KINDS]
            common = struct.pack("<5H3L", 20, 0, 0, 0, 33, crc, size, size)
            # The place of a member stands in 64 bits in a field of its own.
            entries.append(
                b"PK\1\2\x14\3" + common + struct.pack("<5HLL", len(name), 12, 0, 0, 0, 0, 0xFFFFFFFF) + name
            )
            entries.append(struct.pack("<2HQ", 1, 8, at))
            at += file.write(b"PK\3\4" + common + struct.pack("<2H", len(name), 0) + name + x)
        length = sum(map(file.write, entries))
        end64 = struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, length, at)
        file.write(b"PK\6\6" + end64 + b"PK\6\7" + struct.pack("<LQL", 0, at + length, 1))
        file.write(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return root / "train.zip"


def make_array_record(root: Path, count: int, contents: list[bytes]) -> Path:
    """Write ArrayRecord files of records that are image files."""
    from array_record.python import array_record_module

    root.mkdir(parents=True)
    number = 0
    for shard in range(_SHARDS):
        path = root / f"train-{shard:05d}-of-{_SHARDS:05d}.array_record"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        while number < count * (shard + 1) // _SHARDS:
            writer.write(contents[number % _KINDS])
            number += 1
        writer.close()
    return root


def make_hugging_face(root: Path, count: int, contents: list[bytes]) -> Path:
    """Save a set of Hugging Face ``datasets`` of one column of images."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"bytes": contents[i % _KINDS], "path": None} for i in range(_KINDS * 64)]}
    part = datasets.Dataset.from_dict(rows, features)
    whole = datasets.concatenate_datasets([part] * -(-count // len(part))).select(range(count))
    datasets.DatasetDict({"train": whole}).save_to_disk(str(root), num_shards={"train": _SHARDS})
    return root


MAKERS: dict[str, Callable[[Path, int, list[bytes]], Path]] = {
    "zip": make_zip,
    "array_record": make_array_record,
    "hugging_face": make_hugging_face,
    "folder": make_folder,
}

_OPEN = """
import json, resource, sys, time
began = time.time()
from p2p_jax.config import complete
from p2p_jax.data import load
data, step = json.loads(sys.argv[1]), int(sys.argv[2])
opened = load(complete({"batch_size": 16, "data": data}))
loaded, cpu = time.time(), time.process_time()
batches = opened.train(step)
shape = next(batches)["real_a"].shape
first = time.time()
for _ in range(100):
    next(batches)
later = time.time()
batches.close()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
own = None
if sys.platform == "linux":
    status = open("/proc/self/status").read()
    own = int(status.partition("RssAnon:")[2].split()[0]) / 2**20
print("#" + json.dumps({"seconds_to_open": loaded - began, "seconds_to_first_batch": first - loaded, "peak_gib": peak,
    "cpu_seconds_to_open": cpu, "own_gib": own, "images_per_s": 1600 / (later - first), "count": opened.num_train,
    "shape": shape}))
"""


def measure(data: dict, step: int) -> dict:
    """Open a set in a process of its own and take the batches from a step on."""
    command = [sys.executable, "-c", _OPEN, json.dumps(data), str(step)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(next(line for line in printed.splitlines() if line.startswith("#"))[1:])


def run(args: argparse.Namespace, root: Path) -> dict:
    """Make the set where it is not there yet, and open it by turns."""
    folder = root / f"{args.container}_{args.count}_{args.size}"
    began = time.perf_counter()
    if folder.exists():
        path = folder / "train.zip" if args.container == "zip" else folder
    else:
        path = MAKERS[args.container](folder, args.count, images(args.size))
        print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
    layout = "side_by_side/AB"
    source = layout if args.container == "folder" else f"{args.container}/{layout}"
    size = {"load_size": args.size + args.size // 8, "crop_size": args.size}
    data = {"source": source, "dir": str(path), "val_split": "", **size}
    result: dict[str, list[dict]] = {"0": [], str(args.step): []}
    for _ in range(args.repeats):
        for step, found in result.items():
            found.append(measure(data, int(step)))
            print(f"step {int(step):,}: {_told(found[-1])}", flush=True)
    return result


def _told(one: dict) -> str:
    own = f" ({one['own_gib']:.2f} of its own)" if one["own_gib"] is not None else ""
    return (
        f"{one['count']:,} examples open after {one['seconds_to_open']:.1f} s "
        f"({one['cpu_seconds_to_open']:.1f} s of processor), the first batch "
        f"{one['seconds_to_first_batch']:.1f} s later; peak {one['peak_gib']:.2f} GiB{own}; "
        f"{one['images_per_s']:,.0f} examples/s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--container", choices=tuple(MAKERS), default="zip")
    parser.add_argument("--count", type=int, default=5_000_000)
    parser.add_argument("--size", type=int, default=64, help="of a square, in pixels, a multiple of 8")
    parser.add_argument("--step", type=int, default=1_000_000, help="of a resumed run")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the set here")
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    args = parser.parse_args()
    if args.folder:
        result = run(args, args.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = run(args, Path(folder))
    turns.report({"container": args.container, "count": args.count, "size": args.size, "steps": result}, args.json)


if __name__ == "__main__":
    main()
