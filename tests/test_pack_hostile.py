"""Model files of strangers: each fault is one sentence, found before anything is made of what the file claims."""

import json
import pickle
import resource
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from p2p_jax import Translator
from p2p_jax.commands import evaluate as evaluate_command
from p2p_jax.commands import export as export_command
from p2p_jax.commands import pack as pack_command
from p2p_jax.commands import push as push_command
from p2p_jax.commands import study as study_command
from p2p_jax.commands import train as train_command
from p2p_jax.commands import translate as translate_command
from p2p_jax.errors import InputError
from p2p_jax.interop import pack
from p2p_jax.objectives import make_objective
from p2p_jax.storage import tensor_file
from p2p_jax.training import model_file
from p2p_jax.training.fine_tuning import find_source
from support.configs import small_config
from support.model_files import changed, merged, raw, taken_apart
from support.named_code import EVIL, WAYS
from support.networks import draw_state
from support.runs import blank_state, run_command, write_run

KERNEL = "params/generator/down_1/kernel"
HUGE = 10**15


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a model file that opens; read it only."""
    folder, config = tmp_path_factory.mktemp("good"), small_config()
    run = write_run(folder / "run", config, draw_state(blank_state(make_objective(config), config)), 1)
    return pack(run, folder / "good.safetensors").path


def with_header(change):
    """Return a way to a file whose header a function has changed, or replaced."""

    def make(good, path):
        header, data = taken_apart(good)
        return raw(path, change(header) or header, data)

    return make


def shifted(**told):
    """Return a way to a file in which an array has another dtype, shape or place."""
    return with_header(lambda header: header[KERNEL].update(told))


def of_bytes(contents):
    return lambda good, path: path.write_bytes(contents(good) if callable(contents) else contents)


def of_arrays(change):
    return lambda good, path: changed(good, path, arrays=change)


def of_text(name, text):
    """Return a way to a file with a text in place of what a subject tells, and a digest that fits."""

    def make(good, path):
        arrays, texts = tensor_file.read(good)
        texts = {key: value for key, value in texts.items() if key != "sha256"}
        tensor_file.write(path, arrays, {key: x for key, x in (texts | {name: text}).items() if x is not None})

    return make


def overlapping(good, path):
    header, data = taken_apart(good)
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second] = header[second] | {"data_offsets": header[first]["data_offsets"], "shape": header[first]["shape"]}
    raw(path, header, data)


def a_zip_of_pytorch(good, path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch MARK'\ntR.")


class Evil:
    """A pickle that runs a command where it is loaded."""

    def __reduce__(self):
        import os

        return os.system, ("touch MARK",)


def flipped(good):
    contents = bytearray(good.read_bytes())
    contents[-100] ^= 1
    return bytes(contents)


BAD = "is not a safetensors file, or was cut off"
TOLD = "the description in .* cannot be read"
FAULTS = {
    "empty": (of_bytes(b""), BAD),
    "three bytes": (of_bytes(b"abc"), BAD),
    "a web page": (of_bytes(b"<!doctype html><html>not found</html>"), BAD),
    "a pointer of git": (of_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"), BAD),
    "a pickle": (of_bytes(pickle.dumps(Evil())), BAD),
    "a zip with a pickle": (a_zip_of_pytorch, BAD),
    "a header longer than the file": (lambda good, path: raw(path, b"{}", length=HUGE), BAD),
    "a header of 2^64 - 1 bytes": (lambda good, path: raw(path, b"{}", length=2**64 - 1), BAD),
    "a header of no bytes": (lambda good, path: raw(path, b"{}", length=0), BAD),
    "a header a byte too long": (
        lambda good, path: path.write_bytes((lambda x: bytes([x[0] ^ 1]) + x[1:])(good.read_bytes())),
        "is damaged",
    ),
    "a header that is no JSON": (lambda good, path: raw(path, b"{nonsense}"), "is damaged"),
    "a header that is a list": (lambda good, path: raw(path, b"[1, 2]"), BAD),
    "a header as deep as a well": (lambda good, path: raw(path, b'{"a":' + b"[" * 100_000), "is damaged"),
    "a number of a million digits": (lambda good, path: raw(path, b'{"a":' + b"9" * 10**6 + b"}"), "is damaged"),
    "cut off": (of_bytes(lambda good: good.read_bytes()[:-1000]), "was cut off or is damaged"),
    "cut off in the header": (of_bytes(lambda good: good.read_bytes()[:1000]), BAD),
    "longer than it says": (of_bytes(lambda good: good.read_bytes() + b"x"), "was cut off or is damaged"),
    "offsets of 10^15": (shifted(data_offsets=[0, HUGE]), "would take 1,000,000,000,000,000 bytes"),
    "negative offsets": (shifted(data_offsets=[-8, 0]), "is damaged"),
    "offsets the wrong way": (shifted(data_offsets=[100, 0]), "is damaged"),
    "offsets in text": (shifted(data_offsets=["0", "8"]), "is damaged"),
    "a shape of 10^15": (shifted(shape=[HUGE, HUGE]), "is damaged"),
    "a negative shape": (shifted(shape=[-1]), "is damaged"),
    "overlapping arrays": (overlapping, "is damaged"),
    "an unknown dtype": (shifted(dtype="COMPLEX512"), "is damaged"),
    "a dtype that is not read": (
        lambda good, path: raw(
            path,
            {
                **taken_apart(good)[0],
                "x": {
                    "dtype": "BF16",
                    "shape": [1],
                    "data_offsets": [len(taken_apart(good)[1]), len(taken_apart(good)[1]) + 2],
                },
            },
            taken_apart(good)[1] + b"ab",
        ),
        "the array x has the dtype BF16, which is not supported",
    ),
    "a changed bit": (of_bytes(flipped), "is damaged: its contents do not match"),
    "another digest": (with_header(lambda x: x["__metadata__"].update(sha256="0" * 64)), "do not match its digest"),
    "no digest": (with_header(lambda x: x["__metadata__"].pop("sha256") and None), "do not match its digest"),
    "a changed text": (with_header(lambda x: x["__metadata__"].update(licence='{"name": "cc0"}')), "its digest"),
    "no metadata": (with_header(lambda x: x.pop("__metadata__") and None), "safetensors file of another program"),
    "metadata of another program": (
        with_header(lambda x: x.update(__metadata__={"format": "pt"})),
        "safetensors file of another program",
    ),
    "metadata that is no text": (with_header(lambda x: x["__metadata__"].update(config={"a": 1})), "is damaged"),
    "a format of the future": (
        of_text("p2p_jax", '{"format": 99, "version": "9.1"}'),
        "format 99 .*pip install -U p2p_jax",
    ),
    "a format of no number": (of_text("p2p_jax", '{"format": "x"}'), TOLD),
    "no config": (of_text("config", None), f"{TOLD} .there is no 'config'"),
    "a config that is a list": (of_text("config", "[1]"), TOLD),
    "a config as deep as a well": (of_text("config", '{"a":' * 100_000), TOLD),
    "a config of another kind": (of_text("config", '{"data": 3}'), "config.data is 3; it must be a section"),
    "an unknown option": (of_text("config", '{"magic": 3}'), "unknown option config.magic"),
    "a network that cannot be": (
        lambda good, path: changed(good, path, {"config": {"generator": {"num_downs": -3}}}),
        "num_downs|not describe a valid network",
    ),
    "a palette in a file": (
        lambda good, path: changed(good, path, {"config": {"data": {"input": {"palette": "/etc/passwd"}}}}),
        "a stored palette must list its colours",
    ),
    "a step that is none": (lambda good, path: changed(good, path, {"model": {"step": -1}}), f"{TOLD} .the step is"),
    "directions that are none": (lambda good, path: changed(good, path, {"model": {"directions": ["up"]}}), TOLD),
    "weights of no kind": (lambda good, path: changed(good, path, {"model": {"weights": 7}}), TOLD),
    "a licence of many pages": (lambda good, path: changed(good, path, {"licence": {"name": "x" * 999}}), TOLD),
    "another shape": (
        of_arrays(lambda x: x.update({KERNEL: np.zeros((4, 4, 3, 5), np.float32)})),
        f"the array {KERNEL} has the shape .4, 4, 3, 5.; its config expects .4, 4, 3, 4.",
    ),
    "an array of another network": (
        of_arrays(lambda x: x.update({"params/generator/extra": np.zeros(3, np.float32)})),
        "the array params/generator/extra does not belong to the network of its config",
    ),
    "an array that is missing": (of_arrays(lambda x: x.pop(KERNEL)), f"does not hold {KERNEL}, which is"),
    "no array at all": (of_arrays(lambda x: x.clear()), r"does not hold .* and \d+ more"),
    "what is not a number": (
        of_arrays(lambda x: x.update({KERNEL: np.full_like(x[KERNEL], np.nan)})),
        f"the array {KERNEL} holds numbers that are not finite",
    ),
    "infinity in float16": (
        of_arrays(lambda x: x.update({KERNEL: np.full(x[KERNEL].shape, np.inf, np.float16)})),
        f"the array {KERNEL} holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hostile_file_is_one_sentence(fault, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, told = FAULTS[fault]
    path = tmp_path / "model.safetensors"
    make(good, path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=told) as caught:
            Translator.from_file(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert not (tmp_path / "MARK").exists()


def test_nothing_is_taken_of_what_a_header_claims(good, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, size in enumerate((10**9, 10**12, 10**15, 2**62)):
        header, data = taken_apart(good)
        header["params/x"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(data), len(data) + size]}
        with pytest.raises(InputError, match="was cut off or is damaged"):
            model_file.read(raw(tmp_path / f"{number}.safetensors", header, data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_file_of_holes_takes_no_memory(good, tmp_path):
    """A file may be as long as its header says, and hold nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size, told in (
        (4 * 10**9, "the array params/x does not belong"),
        (10**13, "at most 8,589,934,592 are read"),
    ):
        header, data = taken_apart(good)
        header["params/x"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(data), len(data) + size]}
        path = raw(tmp_path / "holes.safetensors", header, data)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + size)
        with pytest.raises(InputError, match=told):
            Translator.from_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_good_file_under_another_name_opens_and_others_are_told(good, tmp_path):
    other = tmp_path / "model.bin"
    other.write_bytes(good.read_bytes())
    assert model_file.read(other).step == 1
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"PK\3\4 and so on")
    with pytest.raises(
        InputError, match="model.pth is a file; name a directory, or a model file.*convert --input .*model.pth"
    ):
        Translator.from_workdir(weights)
    with pytest.raises(InputError, match="config.init_from=.*model.pth is a file, not the directory of a run"):
        find_source(str(weights), tmp_path)
    foreign = raw(tmp_path / "foreign.safetensors", {"__metadata__": {"format": "pt"}})
    with pytest.raises(InputError, match="safetensors file of another program"):
        find_source(str(foreign), tmp_path)


@pytest.fixture
def folder(good, tmp_path, monkeypatch):
    """The current folder, with modules that leave a mark where they are imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    np.save(tmp_path / "photos" / "a.npy", np.zeros((16, 16, 3), np.uint8))
    (tmp_path / "evil_here.py").write_text(EVIL.format(mark=tmp_path / "MARK"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evil_there.py").write_text(EVIL.format(mark=tmp_path / "MARK"))
    yield tmp_path
    assert not (tmp_path / "MARK").exists()
    assert not {"evil_here", "run.evil_there"} & sys.modules.keys()


@pytest.mark.parametrize("way", WAYS)
def test_a_config_that_names_code_is_refused_and_nothing_imported(way, good, folder):
    sections, names = WAYS[way]
    config = merged(model_file.read(good).about["config"], json.loads(json.dumps(sections)))
    path = changed(good, folder / "model.safetensors", {"config": config})
    for call in (lambda: Translator.from_file(path), lambda: pack(path, folder / "again.safetensors")):
        with pytest.raises(InputError, match="Nothing was executed") as caught:
            call()
        assert all(name in str(caught.value) for name in names) and str(path) in str(caught.value)
    if {"generator", "discriminator"} & sections.keys():  # of which the networks alone are used
        with pytest.raises(InputError, match=f"{names[-1]}.*Nothing was executed"):
            find_source(str(path), folder)


def test_no_command_executes_what_a_file_names(good, folder):
    config = merged(model_file.read(good).about["config"], {"generator": {"network": "evil_here:make"}})
    path = changed(good, folder / "model.safetensors", {"config": config})
    commands = {
        "translate": (translate_command, path, "photos", "--output", "out"),
        "evaluate": (evaluate_command, path, "--output", "out"),
        "export": (export_command, path, "--format", "stablehlo", "--output", "out.stablehlo"),
        "to PyTorch": (export_command, path, "--format", "torch", "--output", "out.pth"),
        "pack": (pack_command, path, "out.safetensors"),
        "push": (push_command, path, "user/name", "--licence", "mit"),
        "study": (study_command, "make", "--output", "study", "--runs", path),
        "train": (
            train_command, "quickstart", "--workdir", "other", f"--config.init_from={path}",
            "--config.data.source=toy_facades",
        ),
    }  # fmt: skip
    for name, command in commands.items():
        told = run_command(*command)
        assert "evil_here:make" in str(told) and "Nothing was executed" in str(told), (name, told)
    assert not (folder / "out").exists() and not (folder / "out.safetensors").exists()


def test_trusted_code_is_used(good, folder):
    config = merged(model_file.read(good).about["config"], {"objective": "support.networks:linear"})
    path = changed(good, folder / "model.safetensors", {"config": config})
    with pytest.raises(InputError, match=r'trust=\["support.networks:linear"\]'):
        Translator.from_file(path)
    with pytest.raises(InputError, match="does not belong to the network of its config"):  # it was made, and has others
        Translator.from_file(path, trust="support.networks:linear")
