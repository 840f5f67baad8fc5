"""Files that were made to hurt: each reader of weights ends soon, in little memory, and with the user's error."""

import io
import json
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.images import hed
from p2p_jax.interop import tensorflow_index, tensorflow_release, tfjs_files
from p2p_jax.interop.file_kinds import check_file
from p2p_jax.interop.tensorflow_files import read_checkpoint, read_pict
from support.sorted_table import HEADER, entry, table, varint
from support.tensorflow_release import random_weights, unet_scopes, write_chunks, write_pict

FIXTURE = Path(__file__).parent / "fixtures" / "tfjs"
ROUNDS = 300
NAME = b"generator/encoder_1/conv2d/kernel"


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change a few places of a file: bytes, pieces that are cut out, put in, doubled or filled, and its end."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not content:
            break
        start, kind = rng.randrange(len(content)), rng.randrange(7)
        end = min(len(content), start + rng.choice((1, 2, 4, 8, 100)))
        if kind == 0:
            content[start] = rng.randrange(256)
        elif kind == 1:
            content[start] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del content[start:end]
        elif kind == 3:
            content[start:start] = rng.randbytes(end - start)
        elif kind == 4:
            content[start:end] = rng.choice((b"\xff", b"\0", b"\x7f", b"9")) * (end - start)
        elif kind == 5:
            content[start:start] = content[start:end]
        else:
            del content[start:]
    return bytes(content)


def survive(path, content, read, rng, rounds=ROUNDS):
    """Read many changed copies of a file; returns how many were refused. All else fails the test."""
    refused = 0
    for _ in range(rounds):
        path.write_bytes(mutate(content, rng))
        try:
            read(path)
        except InputError as error:
            assert str(path.parent) in str(error) and "\n" not in str(error)
            refused += 1
    return refused


def read_and_recognise(reader):
    return lambda path: tensorflow_release.recognise(reader(path), str(path))


@pytest.mark.slow
def test_changed_pict_files(tmp_path):
    write_pict(tmp_path / "cats.pict", random_weights(unet_scopes(2), "later"))
    content = (tmp_path / "cats.pict").read_bytes()
    assert survive(tmp_path / "cats.pict", content, read_and_recognise(read_pict), random.Random(0)) > ROUNDS / 4


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model.json", "group1-shard1of1.bin"])
def test_changed_models_of_tensorflow_js(tmp_path, part):
    for path in FIXTURE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content, read = (FIXTURE / part).read_bytes(), read_and_recognise(lambda _: tfjs_files.read(tmp_path))
    if part == "model.json":  # the manifest alone, which most changes then meet
        content = json.dumps({"weightsManifest": json.loads(content)["weightsManifest"]}).encode()
    assert survive(tmp_path / part, content, read, random.Random(1)) > ROUNDS / 4


VALUES = (
    None,
    True,
    -1,
    0,
    3,
    10**12,
    1e300,
    float("nan"),
    "",
    "float32",
    "uint8",
    [],
    [4],
    {},
    {"a": 1},
    [[1]],
    "../x",
)


def change_value(found, rng):
    """Put another value at one place of a tree."""
    keys = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
    if not keys:
        return rng.choice(VALUES)
    key = rng.choice(list(keys))
    if rng.random() < 0.2:
        found[key] = rng.choice(VALUES)
    elif rng.random() < 0.05:
        del found[key]
    else:
        found[key] = change_value(found[key], rng)
    return found


@pytest.mark.slow
def test_manifests_with_other_values(tmp_path):
    for path in FIXTURE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model, rng, refused = json.loads((FIXTURE / "model.json").read_text()), random.Random(2), 0
    for _ in range(ROUNDS):
        changed = json.loads(json.dumps({"format": "layers-model", "modelTopology": {"model_config": {"config": {}}}}))
        changed["weightsManifest"] = json.loads(json.dumps(model["weightsManifest"]))
        (tmp_path / "model.json").write_text(json.dumps(change_value(change_value(changed, rng), rng)))
        try:
            tensorflow_release.recognise(tfjs_files.read(tmp_path), "cats")
        except InputError:
            refused += 1
    assert refused > ROUNDS / 4


def write_index(folder, entries, size=64):
    (folder / "model-1.index").write_bytes(table([HEADER, *entries]))
    (folder / "model-1.data-00000-of-00001").write_bytes(bytes(size))


HOSTILE_ENTRIES = {
    "huge": (entry([10**6, 10**6], 64), "lists variables of 4,000,000,000,000 bytes, but there are 64"),
    "negative": (entry([-1, 4], 64), "it is cut off or damaged"),
    "beyond 64 bits": (entry([2**62, 2, 2], 64), "it is cut off or damaged"),
    "deep": (entry([1] * 300, 64), "it is cut off or damaged"),
    "no type": (entry([4], 16, dtype=99), "it is cut off or damaged"),
    "in pieces": (entry([4, 4], 64) + b"\x3a\x00", "it is cut off or damaged"),
    "an endless number": (b"\x08" + b"\xff" * 1000, "it is cut off or damaged"),
}


@pytest.mark.parametrize("case", HOSTILE_ENTRIES)
def test_indexes_that_end_the_process_in_tensorflow(tmp_path, case):
    content, message = HOSTILE_ENTRIES[case]
    write_index(tmp_path, [(NAME, content)])
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "model-1")


def test_an_index_as_tensorflow_takes_it(tmp_path):
    """The tables of these tests are right: TensorFlow reads one, as far as the checksum of the numbers."""
    pytest.importorskip("tensorflow")
    write_index(tmp_path, [(NAME, entry([4, 4], 64))])
    tensorflow_index.check(tmp_path / "model-1.index", [tmp_path / "model-1.data-00000-of-00001"])
    with pytest.raises(InputError, match=f"damaged at {NAME.decode()} .*Checksum does not match"):
        read_checkpoint(tmp_path / "model-1")


def test_changed_indexes(tmp_path):
    """With checksums that are right again, so that TensorFlow's own do not hide what it makes of the content."""
    pytest.importorskip("tensorflow")
    rng, refused = random.Random(3), 0
    for i in range(ROUNDS):
        changed = mutate(entry([4, 4], 64), rng)
        name = mutate(NAME, rng) if i % 3 == 0 else NAME
        write_index(tmp_path, [(name or b"x", changed)])
        if i % 5 == 0:
            path = tmp_path / "model-1.index"
            path.write_bytes(mutate(path.read_bytes(), rng))
        try:
            read_checkpoint(tmp_path / "model-1")
        except InputError:
            refused += 1
    assert refused > ROUNDS / 2


LEVELS = np.zeros(256, "<f4").tobytes()


def test_pict_files_with_shapes_beyond_all(tmp_path):
    for shape in ([9999] * 60_000, [10**4000], [2**62] * 4, [1] * 9, [True], [10**9] * 4):
        write_chunks(tmp_path / "x.pict", json.dumps([{"name": "a", "shape": shape}]).encode(), LEVELS, bytes(6))
        with pytest.raises(InputError, match="x.pict (does not begin with|has codes for 6 weights)"):
            read_pict(tmp_path / "x.pict")


def test_files_longer_than_any_network(tmp_path):
    """They are sparse: to read them would take their whole length."""
    with (tmp_path / "x.pict").open("wb") as file:
        file.write(b"\0\0\0\x20")
        file.truncate(2**36)
    with pytest.raises(InputError, match="has more than 1,073,741,824 bytes: it is not a .pict file"):
        read_pict(tmp_path / "x.pict")
    with (tmp_path / "x.caffemodel").open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(InputError, match="it is longer than any Protocol Buffers message"):
        hed.read_caffemodel(str(tmp_path / "x.caffemodel"))
    with (tmp_path / "model.json").open("wb") as file:
        file.write(b'{"weightsManifest": [')
        file.truncate(2**36)
    with pytest.raises(InputError, match="model.json"):
        tfjs_files.read(tmp_path / "model.json")
    (tmp_path / "model.json").write_text('{"a": "' + " " * 2**25 + '"}')
    with pytest.raises(InputError, match="has more than 16,777,216 bytes"):
        tfjs_files.read(tmp_path / "model.json")


@pytest.mark.parametrize("content", [b"\xff" * 300_000, b"\x12" + b"\xff" * 300_000, b"\x08" + b"\x80" * 300_000])
def test_caffemodels_with_endless_numbers(tmp_path, content):
    """A number that goes on through the file took time with the square of its length."""
    (tmp_path / "x.caffemodel").write_bytes(content)
    with pytest.raises(InputError, match="it is not a Protocol Buffers message"):
        hed.read_caffemodel(str(tmp_path / "x.caffemodel"))


def layer(name, blobs):
    """Write a layer of Caffe: its name, and blobs of float32 numbers."""

    def field(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    return field(100, field(1, name.encode()) + b"".join(field(7, field(5, blob.tobytes())) for blob in blobs))


def test_caffemodels_with_more_channels_than_hed(tmp_path):
    """What a layer takes would grow with channels times pixels."""
    bias = np.zeros(200_000, "<f4")
    (tmp_path / "x.caffemodel").write_bytes(layer("conv1_1", [np.zeros(9 * 3 * 200_000, "<f4"), bias]))
    with pytest.raises(InputError, match="are not the weights of HED .*200,000 channels"):
        hed.probability(np.zeros((64, 64, 3), np.uint8), str(tmp_path / "x.caffemodel"))


def test_changed_caffemodels(tmp_path):
    rng, refused, content = random.Random(4), 0, layer("conv1_1", [np.ones(27, "<f4"), np.ones(1, "<f4")]) * 3
    for i in range(ROUNDS):
        path = tmp_path / f"{i}.caffemodel"
        path.write_bytes(mutate(content, rng))
        try:
            hed.read_caffemodel(str(path))
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > ROUNDS / 4


def test_any_bytes_are_named_or_nothing(tmp_path):
    """What a file is is asked of any file."""
    rng, path = random.Random(5), tmp_path / "G.pth"
    for head in (
        b"",
        b"PK\x03\x04",
        b"\x08\x08\x12",
        b"\x80\x02",
        b"{",
        b"<",
        b"4\n1\n",
        b"\x04\0\0\0",
        bytes(257) + b"ustar",
    ):
        for length in (0, 1, 3, 7, 30, 600, 5000):
            path.write_bytes(head + rng.randbytes(length))
            try:
                check_file(path)
            except InputError as error:
                assert str(path) in str(error)


class TestTorch:
    """Files of PyTorch."""

    torch = None

    @pytest.fixture(autouse=True)
    def _torch(self):
        type(self).torch = pytest.importorskip("torch")

    def read(self, path):
        from p2p_jax.interop.torch_files import read
        from p2p_jax.interop.torch_state_dicts import read_network

        return read_network(read(path), str(path))

    def saved(self, legacy):
        release = __import__("support.torch_release", fromlist=["ResNet"])
        buffer = io.BytesIO()
        network = release.ResNet(3, 3, 1, 2, "batch")
        self.torch.save(network.state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
        return buffer.getvalue()

    @pytest.mark.parametrize("legacy", [False, True])
    def test_changed_files(self, tmp_path, legacy):
        content, rng = self.saved(legacy), random.Random(6)
        (tmp_path / "G.pth").write_bytes(content)
        assert self.read(tmp_path / "G.pth").section["norm"] == "batch"
        assert survive(tmp_path / "G.pth", content, self.read, rng) > ROUNDS / 4

    def test_changed_pickles_with_right_checksums(self, tmp_path):
        with zipfile.ZipFile(io.BytesIO(self.saved(False))) as container:
            parts = {part.filename: container.read(part) for part in container.infolist()}
        rng, refused, path = random.Random(7), 0, tmp_path / "G.pth"
        name = next(name for name in parts if name.endswith("data.pkl"))
        for _ in range(ROUNDS):
            self.write_zip(path, parts | {name: mutate(parts[name], rng)})
            try:
                self.read(path)
            except InputError as error:
                assert str(path) in str(error)
                refused += 1
        assert refused > ROUNDS / 4

    def write_zip(self, path, parts, **settings):
        with zipfile.ZipFile(path, "w", **settings) as container:
            for name, content in parts.items():
                container.writestr(name, content)

    def container(self, path, pickled, legacy, storage=b""):
        """Put a pickle where PyTorch expects that of a state dict."""
        if legacy:
            prefix = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
            path.write_bytes(b"".join(prefix) + pickled + pickle.dumps([], 2) + storage)
        else:
            self.write_zip(
                path, {"G/data.pkl": pickled, "G/version": b"3\n", "G/data/0": storage, "G/byteorder": b"little"}
            )

    PICKLES = {
        # Tuples inside each other, which are hashed as a key: with a call for each, or with 2 ** 60 of them.
        "deep": (b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.", "tuples of more than"),
        "doubling": (
            b"\x80\x02})" + b"".join(b"q%c h%ch%c\x86".replace(b" ", b"") % (i, i, i) for i in range(60)) + b"K\x01s.",
            "tuples of more than",
        ),
        # A text of 1 MB that is encoded a thousand times.
        "copies": (
            b"\x80\x02]X" + struct.pack("<I", 2**20) + b"x" * 2**20 + b"q\x01" + b"c_codecs\nencode\nq\x02"
            + b"h\x02h\x01\x85Ra" * 1000 + b".",
            "more than 64 copies",
        ),
        "dicts": (
            b"\x80\x02]" + b"(" + b"K\x01K\x02\x86" * 1000 + b"lq\x01" + b"ccollections\nOrderedDict\nq\x02"
            + b"h\x02h\x01\x85Ra" * 1000 + b".",
            "more than 64 copies",
        ),
        "long": (b"\x80\x02(" + b"N" * 20_000_000 + b"l.", "a pickle of more than 4,194,304 bytes, or 500,000 instr"),
        "cut": (b"\x80\x02}q\x00(X\x05\x00\x00\x00", "is damaged, or not a file of weights"),
        "no stack": (b"\x80\x02\x85\x85s.", "is damaged, or not a file of weights"),
    }  # fmt: skip

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("name", PICKLES)
    def test_pickles_that_grow(self, tmp_path, name, legacy):
        content, message = self.PICKLES[name]
        self.container(tmp_path / "G.pth", content, legacy)
        with pytest.raises(InputError, match=f"G.pth .*{message}"):
            self.read(tmp_path / "G.pth")

    @pytest.mark.parametrize("legacy", [False, True])
    def test_one_number_that_stands_for_many(self, tmp_path, legacy):
        """A view with strides of 0, and a storage that a thousand names share."""
        torch, path = self.torch, tmp_path / "G.pth"
        wide = torch.zeros(1).expand(10**6, 10**6)
        torch.save({"model.0.weight": wide}, path, _use_new_zipfile_serialization=not legacy)
        assert path.stat().st_size < 10_000
        with pytest.raises(InputError, match="model.0.weight is larger than the file"):
            self.read(path)
        shared = torch.zeros(10**5)
        torch.save({f"w{i}": shared for i in range(1000)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(InputError, match="is larger than the file"):
            self.read(path)

    def test_containers_that_grow(self, tmp_path):
        path = tmp_path / "G.pth"
        self.write_zip(path, {"G/data.pkl": bytes(2**26)}, compression=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 100_000
        with pytest.raises(InputError, match="was repacked with compression"):
            self.read(path)
        self.write_zip(path, {f"G/data/{i}": bytes(10_000) for i in range(3)} | {"G/data.pkl": b"."})
        content = bytearray(path.read_bytes())
        place = content.rindex(b"PK\x01\x02")  # the last entry of the list: give it the size of all
        for offset in (20, 24):
            content[place + offset : place + offset + 4] = struct.pack("<I", 10**6)
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged, or not a file of weights"):
            self.read(path)

    def test_networks_beyond_all(self, tmp_path):
        """Their size is that of the names alone."""
        torch, small = self.torch, self.torch.zeros(1, 1, 1, 1)
        blocks = {f"model.{i}.conv_block.{j}.weight": small for i in range(10, 2000) for j in (1, 5)}
        downs = {"model.model.1.model." + "3.model." * i + "1.weight": small for i in range(100)}
        for tensors, message in [
            (blocks | {"model.1.weight": small}, "a ResNet with blocks"),
            (downs | {"model.model.0.weight": small}, "a U-Net of 101 layers; at most 16"),
        ]:
            torch.save({key: value.clone() for key, value in tensors.items()}, tmp_path / "G.pth")
            with pytest.raises(InputError, match=message):
                self.read(tmp_path / "G.pth")
