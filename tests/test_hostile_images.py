"""Two hundred damaged images through the commands: no traceback, no hang, no more memory than a small machine has.

Each command sees the folder of all of them. Starting a training and evaluating stop at the first bad file, so every
image goes through them again in a set of its own, in one process.
"""

import faulthandler
import io
import json
import os
import re
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.images import formats, limits
from support.images import write_pairs
from support.mutations import mutants, whole_files
from support.processes import python, run, run_python

COUNT = int(os.environ.get("P2P_JAX_TEST_MUTANTS", "60"))
SEED = int(os.environ.get("P2P_JAX_TEST_SEED", "22"))
SECONDS, MEGABYTES = 30, 1_500  # that one image may take; that a process may
SMALL = [
    f"--config.{option}"
    for option in (
        "data.source=side_by_side", "data.direction=AtoB", "data.load_size=16", "data.crop_size=16",
        "data.load_width=0", "data.crop_width=0", "batch_size=2", "num_steps=3", "num_samples=1", "log_every=1",
        "checkpoint_every=3", "sample_every=3", "eval_every=3", "generator.base_width=4", "generator.num_downs=2",
        "discriminator.base_width=4", "discriminator.receptive_field=16",
    )
]  # fmt: skip
# Runs a command, and tells what memory it has taken; a command that takes minutes ends with the place it is at.
COMMAND = """
    import faulthandler, sys
    from pathlib import Path
    from p2p_jax.__main__ import run
    faulthandler.dump_traceback_later(240, exit=True)
    status = 0
    try:
        run(sys.argv[1:])
    except SystemExit as stopped:
        status = stopped.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    print("PEAK", int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1000)
    sys.exit(status)
"""
ONE_BY_ONE = """
    import faulthandler, json, shutil, sys, traceback
    from pathlib import Path
    from p2p_jax.errors import InputError
    from support.configs import small_config
    what, root, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

    def start(folder):
        from p2p_jax.data import load
        config = small_config(
            batch_size=2, data__source="side_by_side", data__dir=str(folder), data__direction="AtoB",
            data__load_size=16, data__crop_size=16,
        )
        data = load(config)
        batches = data.train(0)
        return [float(next(batches)["real_a"].mean()) for _ in range(2)]

    def evaluate(folder):
        from p2p_jax.evaluation import evaluate
        found = evaluate(root / "run", data_dir=str(folder))
        return [row["l1"] for row in found["images"]]

    found = {}
    for path in sorted((root / "all" / "train").iterdir()):
        folder = root / what / path.name
        for split in ("train", "val"):
            shutil.copytree(root / "good" / split, folder / split)
            shutil.copy(path, folder / split)
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            found[path.name] = {"start": start, "evaluate": evaluate}[what](folder)
        except InputError as error:
            found[path.name] = str(error)
        except BaseException:
            found[path.name] = {"traceback": traceback.format_exc()}
        shutil.rmtree(folder)
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(json.dumps([found, int(peak) // 1000]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with good pairs, the damaged images beside good ones, and a trained run."""
    root = tmp_path_factory.mktemp("hostile")
    for split in ("train", "val"):
        write_pairs(root / "good" / split, 2)
        write_pairs(root / "all" / split, 2)
        for name, data in mutants(COUNT, SEED):
            (root / "all" / split / name).write_bytes(data)
    status, _, errors, _ = command("train", *train_into(root / "run", root / "good"))
    assert status == 0, errors
    return root


def train_into(workdir, folder):
    return "--config=facades", f"--workdir={workdir}", *SMALL, f"--config.data.dir={folder}"


def command(*arguments):
    """Return status, output, errors and megabytes of a command."""
    done = run(python(COMMAND, *arguments))
    assert "Traceback" not in done.stderr and "Timeout" not in done.stderr, done.stderr[-3000:]
    found = re.search(r"^PEAK (\d+)$", done.stdout, re.MULTILINE)
    assert found, (done.returncode, done.stderr[-3000:])
    return done.returncode, done.stdout, done.stderr, int(found[1])


def names():
    return [name for name, _ in mutants(COUNT, SEED)]


# What the mutations found, and what they would seldom meet.


def npy(head, data=b"", version=1):
    """Return a .npy file with this head."""
    length = len(head).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + head + data


def npz(contents):
    """Return a .npz file of one member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", contents)
    return file.getvalue()


def with_tag(data, code, value):
    """Return a TIFF of which a tag says another number."""
    found, start = bytearray(data), int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if int.from_bytes(found[entry : entry + 2], "little") == code:
            found[entry + 2 : entry + 4] = (4).to_bytes(2, "little")
            found[entry + 8 : entry + 12] = value.to_bytes(4, "little")
    return bytes(found)


def in_a_circle(data, back):
    """Return a TIFF whose page is followed by itself, or by what is none before it and leads back there."""
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    found = bytearray(data + b"\0" * 18)
    other = len(data)
    found[end : end + 4] = (start if back else other).to_bytes(4, "little")
    found[other : other + 2] = (1).to_bytes(2, "little")
    found[other + 14 : other + 18] = start.to_bytes(4, "little")
    return bytes(found)


def of_another_size(data, height, width):
    """Return a JPEG whose head says another size."""
    start = re.search(rb"\xff[\xc0\xc2]..\x08", data, re.DOTALL).end()
    return data[:start] + height.to_bytes(2) + width.to_bytes(2) + data[start + 4 :]


def bomb_of_16_bits():
    data, zeros = whole_files()["deep.png"], zlib.compress(bytes(200_000_000))
    chunk = len(zeros).to_bytes(4) + b"IDAT" + zeros + zlib.crc32(b"IDAT" + zeros).to_bytes(4)
    return data[:33] + chunk + data[-12:]


SHAPE = b"{'descr':'|u1','fortran_order':False,'shape':(%s)}"
BOMBS = {
    "negative.npy": (lambda: npy(SHAPE % b"-16,-32,3", bytes(1536)), "of shape"),
    "nothing.npy": (lambda: npy(SHAPE % b"0,32,3"), "of shape"),
    "deep.npy": (lambda: npy(SHAPE % (b"(" * 4_000 + b")" * 4_000)), "cannot be read as an image"),
    "endless.npy": (lambda: npy(SHAPE % (b"9" * 30 + b",32")), "bytes are missing"),
    "long.npy": (lambda: npy(SHAPE % b"16,32,3", version=2)[:8] + b"\xff" * 4 + bytes(100), "its header is too long"),
    "head.npz": (lambda: npz(npy(b"", bytes(50_000_000), 2)[:8] + b"\x7f" * 4 + bytes(50_000_000)), "is too long"),
    "lies.npz": (lambda: npz(npy(SHAPE % b"9000,9000,3")), "cannot be read as an image"),
    "itself.tif": (lambda: in_a_circle(whole_files()["plain.tif"], True), "form an endless loop"),
    "circle.tif": (lambda: in_a_circle(whole_files()["plain.tif"], False), "form an endless loop"),
    "narrow.tif": (lambda: with_tag(whole_files()["plain.tif"], 256, 0), "cannot be read as an image"),
    "low.tif": (lambda: with_tag(whole_files()["plain.tif"], 257, 0), "cannot be read as an image"),
    "tile.tif": (lambda: with_tag(with_tag(whole_files()["tiled.tiff"], 322, 2**16), 323, 2**16), "cannot be read"),
    "wide.jpg": (lambda: of_another_size(whole_files()["gray.jpeg"], 255, 65_312), "cannot hold 65312x255"),
    "wide.jpeg": (lambda: of_another_size(whole_files()["progressive.jpg"], 9_000, 9_000), "cannot hold 9000x9000"),
    "deep.png": (bomb_of_16_bits, "it holds more data than its pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_take_all_time_or_memory_is_refused(tmp_path, name, capfd):
    make, fault = BOMBS[name]
    (tmp_path / name).write_bytes(make())
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        with pytest.raises(InputError, match=f"{name} .*{fault}") as error:
            formats.read_header(tmp_path / name)
            formats.read(tmp_path / name)
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert "".join(capfd.readouterr()) == ""  # tifffile would log what it finds odd


def test_large_images_are_decoded_in_turn():
    """As many as fit at once, one of any size alone; and the turn is given back by what fails."""
    inside, most, odd = 0, 0, []
    lock = threading.Lock()

    def decode(megapixels):
        nonlocal inside, most
        try:
            with limits.turn(1_000, 1_000 * megapixels, 3):
                with lock:
                    inside += megapixels
                    most = max(most, inside if inside > megapixels else 0)
                time.sleep(0.01)
                with lock:
                    inside -= megapixels
                if megapixels == 50:
                    raise ValueError
        except ValueError:
            odd.append(megapixels)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, [10, 50, 90, 30, 500, 1, 60, 50] * 6))
    assert 60 < most <= 120 and odd == [50] * 12 and limits._in_decoders == 0


@pytest.mark.slow
def test_inspect(root, tmp_path):
    status, _, errors, peak = command(
        "inspect", "facades", *SMALL, f"--config.data.dir={root / 'all'}", "--output", tmp_path / "out"
    )
    report = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert status == 1 and peak < MEGABYTES, errors
    told = " ".join(report["errors"])
    assert sum(name in told for name in names()) > COUNT / 3


@pytest.mark.slow
def test_translate(root, tmp_path):
    status, _, errors, peak = command("translate", root / "run", root / "all" / "train", "--output", tmp_path / "out")
    assert status == 1 and peak < MEGABYTES
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    written = {path.stem for path in (tmp_path / "out").rglob("*.*")}
    for name in names():  # each is translated or told in one line
        assert (name.rpartition(".")[0] in written) != any(name in line for line in lines), name
    assert len(written) > COUNT / 10 and len(lines) > COUNT / 3
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_folder_of_all_is_refused_in_a_sentence(root, tmp_path, verb):
    arguments = {
        "train": train_into(tmp_path / "run", root / "all"),
        "evaluate": (root / "run", "--data_dir", root / "all", "--output", tmp_path / "out"),
    }[verb]
    status, _, errors, peak = command(verb, *arguments)
    assert status == 1 and peak < MEGABYTES
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert any(name in line for name in names())


@pytest.mark.slow
@pytest.mark.parametrize("what", ["start", "evaluate"])
def test_each_in_a_set_of_its_own(root, what):
    found, peak = json.loads(run_python(ONE_BY_ONE, what, root, SECONDS).splitlines()[-1])
    assert {name: of["traceback"] for name, of in found.items() if isinstance(of, dict)} == {}
    refused = {name: of for name, of in found.items() if isinstance(of, str)}
    assert all(name in sentence and "\n" not in sentence for name, sentence in refused.items())
    assert peak < MEGABYTES and COUNT / 3 < len(refused) < COUNT
    assert all(np.isfinite(of).all() for of in found.values() if isinstance(of, list))
