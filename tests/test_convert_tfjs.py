"""Models of TensorFlow.js: what its converter writes is read, what is damaged or another network is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from p2p_jax import Translator
from p2p_jax.commands import convert
from p2p_jax.errors import InputError
from p2p_jax.inference.run import open_run
from p2p_jax.interop.tensorflow_release import recognise
from p2p_jax.interop.tfjs_files import is_tfjs, read
from support.tensorflow_release import (
    apply,
    assert_close,
    random_images,
    random_weights,
    run_unet,
    unet_scopes,
    write_checkpoint,
)

pytest.importorskip("tensorflow")
FIXTURE = Path(__file__).parent / "fixtures" / "tfjs"
"""A graph model as tensorflowjs 4.22.0 writes it of the release's network, quantized to 8 bits."""
CODES = {"uint8": (np.uint8, 255), "uint16": (np.dtype("<u2"), 65535)}


def quantize(value, coding):
    """Return bytes, what the manifest says about them, and what they mean."""
    if coding == "float16":
        half = value.astype("<f2")
        return (
            half.tobytes(),
            {"quantization": {"dtype": "float16", "original_dtype": "float32"}},
            half.astype(np.float32),
        )
    if coding not in CODES:
        return value.astype("<f4").tobytes(), {}, value
    dtype, most = CODES[coding]
    low, scale = float(value.min()), float(np.ptp(value)) / most or 1.0
    codes = np.rint((value - low) / scale).astype(dtype)
    meaning = {"dtype": coding, "min": low, "scale": scale, "original_dtype": "float32"}
    return codes.tobytes(), {"quantization": meaning}, (codes * scale + low).astype(np.float32)


def write_model(folder, weights, coding="", layout="graph-model", shard=4_000, consts=True):
    """Write weights by the rules of TensorFlow.js; returns what they mean."""
    folder.mkdir(exist_ok=True)
    entries, content, meaning = [], b"", {}
    if consts:
        entries += [{"name": "generator/Pad/paddings", "shape": [4, 2], "dtype": "int32"}]
        entries += [{"name": "generator/mul/y", "shape": [], "dtype": "float32"}]
        content += bytes(4 * 8 + 4)
    for name, value in weights.items():
        stored, told, meaning[name] = quantize(value, coding)
        entries.append({"name": name, "shape": list(value.shape), "dtype": "float32"} | told)
        content += stored
    parts = [content[i : i + shard] for i in range(0, len(content), shard)]
    paths = [f"group1-shard{i}of{len(parts)}.bin" for i in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        (folder / path).write_bytes(part)
    manifest = [{"paths": paths, "weights": entries}]
    model = {"format": layout, "generatedBy": "2.21.0", "modelTopology": {"node": []}, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    return meaning


def test_what_the_converter_writes_is_read():
    """Constants of the graph are left out; names and values are those of the network that was converted."""
    tensors, weights = read(FIXTURE / "model.json"), random_weights(unet_scopes(2), "later")
    assert tensors.keys() == {name for name in weights if "moving" not in name}
    for name, value in tensors.items():
        assert value.dtype == np.float32 and value.shape == weights[name].shape
        assert (
            np.abs(value - weights[name]).max()
            <= 0.51 * np.ptp(weights[name]) / 255 + np.abs(weights[name]).max() / 255
        )
    network = recognise(tensors, "cats")["generator"]
    images = random_images(32, 1)
    assert_close(apply(network, images), run_unet(tensors, images, "later"))


@pytest.mark.parametrize("coding", ["", "uint8", "uint16", "float16"])
@pytest.mark.parametrize("generation", ["later", "earlier"])
def test_weights_are_what_the_manifest_says(tmp_path, coding, generation):
    weights = random_weights(unet_scopes(3), generation)
    meaning = write_model(tmp_path / "cats", weights, coding)
    assert len(list((tmp_path / "cats").iterdir())) > 2
    tensors = read(tmp_path / "cats")
    assert tensors.keys() == weights.keys()
    for name, value in meaning.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)
    images = random_images(32, 2)
    assert_close(apply(recognise(tensors, "cats")["generator"], images), run_unet(meaning, images, generation))


def test_every_layout_leads_to_the_weights(tmp_path):
    """The folder, the manifest, a shard, the manifest of before 2019, a layers model, names behind scopes."""
    weights = random_weights(unet_scopes(2), "later")
    write_model(tmp_path / "cats", weights)
    for path in (tmp_path / "cats", tmp_path / "cats" / "model.json", *(tmp_path / "cats").glob("*.bin")):
        assert is_tfjs(path) and read(path).keys() == weights.keys()
    model = json.loads((tmp_path / "cats" / "model.json").read_text())
    (tmp_path / "cats" / "model.json").unlink()
    (tmp_path / "cats" / "weights_manifest.json").write_text(json.dumps(model["weightsManifest"]))
    assert read(tmp_path / "cats").keys() == weights.keys()
    scoped = {f"StatefulPartitionedCall/pix2pix/{name}": value for name, value in weights.items()}
    for layout in ("graph-model", "layers-model"):
        write_model(tmp_path / layout, scoped, layout=layout, consts=False)
        assert read(tmp_path / layout).keys() == weights.keys()
    operations = {
        name.replace("conv2d/kernel", "conv2d/Conv2D/ReadVariableOp")
        .replace("conv2d_transpose/kernel", "conv2d_transpose/conv2d_transpose/ReadVariableOp")
        .replace("/bias", "/BiasAdd/ReadVariableOp")
        .replace("/gamma", "/ReadVariableOp")
        .replace("/beta", "/ReadVariableOp_1"): value
        for name, value in weights.items()
    }
    write_model(tmp_path / "operations", operations)
    assert recognise(read(tmp_path / "operations"), "cats").keys() == {"generator"}


@pytest.mark.slow
def test_a_folder_with_what_it_was_made_of(tmp_path):
    """The checkpoint, or the files of the PyTorch release, say more than what was exported of them."""
    write_model(tmp_path / "cats", random_weights(unet_scopes(2), "later"))
    write_checkpoint(tmp_path / "cats", random_weights(unet_scopes(2), "later", seed=1), step=7)
    convert.run([str(tmp_path / "cats"), "--workdir", str(tmp_path / "run")])
    assert open_run(tmp_path / "run").step == 7
    for path in (tmp_path / "cats").iterdir():
        if path.suffix not in (".json", ".bin"):
            path.unlink()
    (tmp_path / "cats" / "latest_net_G.pth").write_text("<html>")
    with pytest.raises(SystemExit, match="latest_net_G.pth is a web page"):
        convert.run([str(tmp_path / "cats"), "--workdir", str(tmp_path / "other")])


@pytest.mark.slow
def test_a_run_is_made_of_it(tmp_path, capsys):
    weights = random_weights(unet_scopes(8), "later")
    meaning = write_model(tmp_path / "cats", weights, "uint8", shard=4 * 2**20)
    convert.run([str(tmp_path / "cats" / "model.json"), "--workdir", str(tmp_path / "run")])
    assert "generator UNet(num_downs=8" in capsys.readouterr().out
    images = random_images(256, 1)[:1]
    here = Translator.from_workdir(tmp_path / "run", dropout=False)(images)
    assert_close(here, run_unet(meaning, images, "later"))
    facts = json.loads((tmp_path / "run" / "converted_from.json").read_text())
    digest = facts["files"]["generator"]["sha256"]
    shard = next((tmp_path / "cats").glob("*.bin"))
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    convert.run([str(tmp_path / "cats"), "--workdir", str(tmp_path / "other")])
    other = json.loads((tmp_path / "other" / "converted_from.json").read_text())
    assert other["files"]["generator"]["sha256"] != digest  # which is of the shards too
    with pytest.raises(InputError, match="converted from a release without running statistics"):
        open_run(tmp_path / "run", norm="running")


@pytest.fixture
def model(tmp_path):
    """A model of one small array to be damaged, and a function that writes it."""
    shutil.rmtree(tmp_path / "m", ignore_errors=True)
    write_model(tmp_path / "m", {"generator/encoder_1/conv2d/kernel": np.ones((4, 4, 3, 4), np.float32)}, consts=False)
    return tmp_path / "m"


def change_entry(**changes):
    def change(content):
        content["weightsManifest"][0]["weights"][0] |= changes

    return change


def change_paths(*paths):
    def change(content):
        content["weightsManifest"][0]["paths"] = list(paths)

    return change


def quantized(**coding):
    return change_entry(quantization=coding, shape=[768])


SHARD = "group1-shard1of1.bin"
WRONG = {
    "up": (change_paths("../secret.bin"), "names the shard '../secret.bin', which is not a file next to it; not read"),
    "up within": (change_paths("a/../../secret.bin"), "not a file next to it"),
    "absolute": (change_paths("/etc/passwd"), "names the shard '/etc/passwd', which is not a file next to it"),
    "of Windows": (change_paths("..\\secret.bin"), "not a file next to it"),
    "a drive": (change_paths("C:secret.bin"), "not a file next to it"),
    "an address": (change_paths("https://example.org/x.bin"), "not a file next to it"),
    "no text": (change_paths(3), "names the shard '3', which is not a file next to it"),
    "nothing": (change_paths(""), "not a file next to it"),
    "twice": (change_paths(SHARD, SHARD), f"names the shard {SHARD} twice"),
    "missing": (
        change_paths("group1-shard2of2.bin"),
        "group1-shard2of2.bin is missing; it holds weights of model.json",
    ),
    "short": (change_entry(shape=[4, 4, 3, 5]), "have 768 bytes, but its weights need 960: a shard is cut off"),
    "long": (change_entry(shape=[4, 4, 3, 3]), "have 768 bytes, but its weights need 576"),
    "huge": (change_entry(shape=[10**4, 10**4, 10**4]), "has shapes for more than 1,073,741,824 numbers"),
    "beyond": (change_entry(shape=[10**12]), "has no name and shape"),
    "negative": (change_entry(shape=[-4, -4, 3, 4]), "has no name and shape"),
    "deep": (change_entry(shape=[1] * 1000), "has no name and shape"),
    "half": (change_entry(shape=[1.5]), "has no name and shape"),
    "no shape": (change_entry(shape="44"), "has no name and shape"),
    "text for numbers": (change_entry(dtype="string"), "is of string, but networks"),
    "4 bits": (quantized(dtype="uint4", scale=1, min=0), "is of quantized uint4, but networks"),
    "no scale": (quantized(dtype="uint8", min=0), "is quantized without a scale and a minimum"),
    "endless scale": (quantized(dtype="uint8", min=0, scale=float("inf")), "is quantized without a scale"),
    "no groups": (lambda content: content.update(weightsManifest=[3]), "a group of its weightsManifest has no paths"),
    "no manifest": (
        lambda content: content.pop("weightsManifest"),
        "is a JSON text of format, generatedBy, modelTopology",
    ),
    "the same name": (
        lambda content: content["weightsManifest"][0]["weights"].append(content["weightsManifest"][0]["weights"][0]),
        "several weights of the same name",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_manifest_is_named(model, case):
    change, message = WRONG[case]
    (model.parent / "secret.bin").write_bytes(bytes(768))
    content = json.loads((model / "model.json").read_text())
    change(content)
    (model / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        read(model)
    assert message in str(error.value) and str(model) in str(error.value)


def test_damaged_files_are_named(model):
    text, shard = (model / "model.json").read_text(), model / SHARD
    for content, message in [
        (text[:-20], "is cut off or damaged: it is not valid JSON"),
        ("[" * 100_000, "is cut off or damaged"),
        ('{"a": ' * 100_000, "is cut off or damaged"),
        ("<html>", "is a web page"),
        ('{"batch_size": 1}', "is a JSON text of batch_size, not a model of TensorFlow.js"),
    ]:
        (model / "model.json").write_text(content)
        with pytest.raises(InputError, match=f"model.json {message}"):
            read(model)
    (model / "model.json").write_text(text)
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 768\n")
    with pytest.raises(InputError, match=f"{SHARD} is a Git LFS pointer"):
        read(model)
    (model / "model.json").unlink()
    with pytest.raises(InputError, match=f"{SHARD} is a shard of a model of TensorFlow.js; its model.json"):
        read(shard)


def keras(folder, class_names, slope):
    layers = [{"class_name": name, "config": {"name": name, "alpha": slope}} for name in class_names]
    weights = {"conv2d/kernel": np.ones((4, 4, 3, 4), np.float32), "conv2d_transpose/kernel": np.ones(8, np.float32)}
    write_model(folder, weights, layout="layers-model", consts=False)
    content = json.loads((folder / "model.json").read_text())
    config = {"class_name": "Functional", "config": {"name": "generator", "layers": layers}}
    content["modelTopology"] = {"keras_version": "2.4.0", "backend": "tensorflow", "model_config": config}
    (folder / "model.json").write_text(json.dumps(content))


def test_another_network_of_keras_is_refused_by_what_it_is(tmp_path):
    keras(tmp_path / "keras", ["Conv2D", "Conv2DTranspose", "LeakyReLU"], 0.3)
    with pytest.raises(InputError) as error:
        read(tmp_path / "keras")
    assert (
        "model.json is a model of Keras with Conv2D, Conv2DTranspose, LeakyReLU, slopes of 0.3, not the U-Net of the "
        "TensorFlow release (generator/encoder_1, ...): it has conv2d/kernel, conv2d_transpose/kernel"
    ) in str(error.value)
