"""Checkpoints and .pict files of the TensorFlow release, against its networks in TensorFlow's own operations."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from p2p_jax import Translator
from p2p_jax.commands import convert
from p2p_jax.errors import InputError
from p2p_jax.inference.run import open_run
from p2p_jax.interop.tensorflow_files import is_checkpoint, read_checkpoint, read_pict
from p2p_jax.interop.tensorflow_release import recognise
from support.tensorflow_release import (
    NAMES,
    WIDTH,
    apply,
    assert_close,
    discriminator_scopes,
    random_images,
    random_weights,
    run_discriminator,
    run_unet,
    unet_scopes,
    write_checkpoint,
    write_chunks,
    write_pict,
)

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module", params=NAMES)
def generation(request):
    return request.param


@pytest.fixture(scope="module")
def weights(generation):
    return random_weights(unet_scopes(8) | discriminator_scopes(), generation)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, generation, weights):
    """A folder as the release leaves it; read it only."""
    folder = tmp_path_factory.mktemp(generation)
    write_checkpoint(folder, weights)
    return folder


@pytest.mark.slow
def test_a_checkpoint_gives_what_the_release_gives(checkpoint, weights, generation):
    networks = recognise(read_checkpoint(checkpoint), "facades")
    bias = {"biases": "all"} if generation == "later" else {}
    network, discriminator = networks["generator"], networks["discriminator"]
    assert network.section == bias | {
        "network": "p2p_jax.nets:UNet",
        "num_downs": 8,
        "base_width": WIDTH,
        "norm": "batch",
        "bottleneck_norm": True,
        "dropout_layout": "paper",
    }
    assert discriminator.section == bias | {
        "network": "p2p_jax.nets:PatchGAN",
        "receptive_field": 70,
        "base_width": WIDTH,
        "norm": "batch",
    }
    assert [(n.in_channels, n.out_channels, n.step) for n in networks.values()] == [(3, 3, 200), (6, 1, 200)]
    images, targets = random_images(256, 1), random_images(256, 2)
    assert_close(apply(network, images), run_unet(weights, images, generation))
    logits = run_discriminator(weights, images, targets, generation)
    assert logits.shape == (2, 30, 30, 1)
    assert_close(apply(discriminator, images, targets), logits)


def test_weights_of_a_checkpoint_are_taken_bit_by_bit(checkpoint, weights, generation):
    tensors = read_checkpoint(checkpoint)
    assert {name for name in tensors if name.startswith(("generator/", "discriminator/"))} == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)
    networks = recognise(tensors, "facades")
    conv, transposed, scale, offset = NAMES[generation]
    params = networks["generator"].variables["params"]
    np.testing.assert_array_equal(params["down_8"]["kernel"], weights[f"generator/encoder_8/{conv}"], strict=True)
    np.testing.assert_array_equal(params["down_8_norm"]["scale"], weights[f"generator/encoder_8/{scale}"], strict=True)
    np.testing.assert_array_equal(params["up_8"]["kernel"], weights[f"generator/decoder_8/{transposed}"], strict=True)
    np.testing.assert_array_equal(params["up_2_norm"]["bias"], weights[f"generator/decoder_2/{offset}"], strict=True)
    theirs = weights[f"generator/decoder_2/{transposed}"]
    skip, up = np.split(params["up_2"]["kernel"], 2, axis=3)
    np.testing.assert_array_equal(np.concatenate([up, skip], 3), theirs, strict=True)
    bias = weights.get("generator/decoder_1/conv2d_transpose/bias", np.zeros(3, np.float32))
    np.testing.assert_array_equal(params["up_1"]["bias"], bias, strict=True)
    assert ("bias" in params["down_1"]) is (generation == "later")
    for network in networks.values():
        taken = sum(v.size for n, v in weights.items() if "moving" not in n and n.startswith(network_scope(network)))
        added = {"later": 0, "earlier": WIDTH + 1 if network.is_discriminator else 3}[generation]
        assert network.num_parameters == taken + added
        stats = network.variables["batch_stats"]
        assert all((norm["mean"] == 0).all() and (norm["var"] == 1).all() for norm in stats.values())
        assert len(stats) == (3 if network.is_discriminator else 14)


def network_scope(network):
    return "discriminator/" if network.is_discriminator else "generator/"


def test_every_way_to_name_a_checkpoint_leads_to_it(checkpoint, tmp_path):
    files = sorted(path.name for path in checkpoint.iterdir())
    assert files == ["checkpoint", *(f"model-200.{e}" for e in ("data-00000-of-00001", "index", "meta"))]
    expected = read_checkpoint(checkpoint)
    for name in ("model-200", *files):
        assert is_checkpoint(checkpoint / name)
        assert read_checkpoint(checkpoint / name).keys() == expected.keys()
    copy = shutil.copytree(checkpoint, tmp_path / "a copy")
    for latest in ("/elsewhere/facades/model-200", r"C:\\facades\\model-200"):
        all_paths = f'model_checkpoint_path: "{latest}"\nall_model_checkpoint_paths: "/elsewhere/model-100"\n'
        (copy / "checkpoint").write_text(all_paths)
        assert is_checkpoint(copy) and read_checkpoint(copy).keys() == expected.keys()
    (copy / "checkpoint").unlink()
    (copy / "model-200.meta").unlink()
    assert is_checkpoint(copy) and read_checkpoint(copy).keys() == expected.keys()


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoints" / "4000").mkdir(parents=True)  # as in a run of this library
    for name in ("config.json", "latest_net_G.pth", "facades.pict", "checkpoints/4000/_CHECKPOINT_METADATA"):
        (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "checkpoint", *tmp_path.rglob("*")):
        assert not is_checkpoint(path)


def test_depth_width_and_channels_are_inferred_and_the_outermost_scope_may_be_left_out(tmp_path, generation):
    weights = random_weights(unet_scopes(4, channels=(1, 2), width=6), generation)
    rounded = write_pict(tmp_path / "colour.pict", weights)
    tensors = read_pict(tmp_path / "colour.pict")
    assert tensors.keys() == weights.keys()
    for name in tensors:
        np.testing.assert_array_equal(tensors[name], rounded[name], strict=True)
    networks = recognise(tensors, "colour.pict")
    assert networks.keys() == {"generator"}
    network = networks["generator"]
    assert (network.in_channels, network.out_channels, network.step) == (1, 2, 0)
    assert (network.section["num_downs"], network.section["base_width"]) == (4, 6)
    images = random_images(32, 3, channels=1)
    assert_close(apply(network, images), run_unet(rounded, images, generation))
    bare = recognise({name.removeprefix("generator/"): value for name, value in tensors.items()}, "bare.pict")
    jax.tree.map(np.testing.assert_array_equal, bare["generator"].variables, network.variables)


def small_tensors(generation="later"):
    return random_weights(unet_scopes(3) | discriminator_scopes(), generation)


def test_a_bottleneck_without_norm_is_seen():
    tensors = {name: v for name, v in small_tensors("earlier").items() if "encoder_3/batchnorm" not in name}
    network = recognise(tensors, "no_norm")["generator"]
    assert network.section["bottleneck_norm"] is False
    images = random_images(16, 4)
    assert_close(apply(network, images), run_unet(tensors, images, "earlier"))


def without(*patterns):
    return lambda tensors: {n: v for n, v in tensors.items() if not any(re.search(p, n) for p in patterns)}


def reshaped(name, shape):
    return lambda tensors: tensors | {name: np.zeros(shape, np.float32)}


WRONG = {
    "a layer is missing": (
        without("encoder_2/"),
        r"bad lacks generator/encoder_2/batch_normalization/beta, .*complete",
    ),
    "a bias is missing": (without("decoder_1/.*bias"), "bad lacks generator/decoder_1/conv2d_transpose/bias; is it"),
    "the innermost layers are missing": (
        without("coder_3/"),
        r"bad: generator/decoder_2/conv2d_transpose/kernel .*\(4, 4, 4, 16\).*\(4, 4, 4, 8\)",
    ),
    "a layer of the discriminator is missing": (
        without("layer_3/"),
        "bad lacks discriminator/layer_3/.*, and has discriminator/layer_4/.*: another architecture",
    ),
    "no generator": (without("generator"), "bad has no generator of the TensorFlow release .* but discriminator/"),
    "nothing": (lambda tensors: {}, "bad has no generator .* but nothing"),
    "another program's": (
        lambda tensors: {"layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3)},
        "no generator of the TensorFlow release .* but layer_with_weights-0/kernel",
    ),
    "wrong channels": (
        reshaped("generator/encoder_2/conv2d/kernel", (4, 4, 5, 8)),
        r"bad: generator/encoder_2/conv2d/kernel .*\(4, 4, 5, 8\).*\(4, 4, 4, 8\)",
    ),
    "no kernel": (
        reshaped("generator/encoder_1/conv2d/kernel", (3, 4)),
        r"encoder_1/conv2d/kernel .*\(3, 4\).* kernel",
    ),
    "something more": (
        reshaped("generator/encoder_2/dense/kernel", (8, 8)),
        "bad has generator/encoder_2/dense/kernel, but the release's network does not",
    ),
    "separable convolutions": (
        reshaped("generator/encoder_2/separable_conv2d/depthwise_kernel", (4, 4, 4, 1)),
        "bad was trained with --separable_conv",
    ),
    "a number that is no layer": (
        reshaped("generator/encoder_999999999999/conv2d/kernel", (4, 4, 4, 8)),
        "lacks generator/.*, and has generator/encoder_999999999999/",
    ),
    "several discriminators' logits": (
        reshaped("discriminator/layer_5/conv2d/kernel", (4, 4, 32, 2)),
        r"discriminator/layer_5/conv2d/kernel .*\(4, 4, 32, 2\).*\(4, 4, 32, 1\)",
    ),
    "one layer": (without("coder_[23]/"), "a generator with 1 encoder layers; the release's U-Net has 8"),
    "two layers of a discriminator": (without("layer_[345]/"), "a discriminator with 2 layers; the release's has 5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_architecture_is_named(case):
    change, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        recognise(change(small_tensors()), "bad")


@pytest.fixture
def damaged(tmp_path):
    """A small checkpoint to be damaged."""
    write_checkpoint(tmp_path / "run", random_weights(unet_scopes(2), "earlier"), step=7)
    return tmp_path / "run"


def test_a_damaged_checkpoint_is_named(damaged):
    data, index = damaged / "model-7.data-00000-of-00001", damaged / "model-7.index"
    contents = {path: path.read_bytes() for path in (data, index)}
    for path, content in contents.items():
        for size in (0, 100, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:size])
            with pytest.raises(InputError, match=re.escape(str(path))):
                read_checkpoint(damaged)
        flipped = bytearray(content)
        flipped[len(content) // 3] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=re.escape(str(path))):
            read_checkpoint(damaged)
        path.unlink()
        assert is_checkpoint(damaged) and is_checkpoint(damaged / "model-7")
        with pytest.raises(InputError, match=re.escape(f"{path} is missing")):
            read_checkpoint(damaged / "model-7")
        path.write_bytes(content)
    assert recognise(read_checkpoint(damaged), "whole")["generator"].step == 7


def test_a_missing_shard_is_named(damaged):
    data = damaged / "model-7.data-00000-of-00001"
    data.rename(damaged / "model-7.data-00000-of-00003")
    with pytest.raises(InputError, match="model-7.data-00001-of-00003 is missing"):
        read_checkpoint(damaged)


def test_a_folder_that_leaves_the_checkpoint_open(damaged, tmp_path):
    (damaged / "checkpoint").write_text('model_checkpoint_path: "model-8"\n')
    with pytest.raises(InputError, match="model-8.index is missing"):
        read_checkpoint(damaged)
    (damaged / "checkpoint").write_bytes(bytes(range(256)))
    shutil.copy(damaged / "model-7.index", damaged / "model-9.index")
    with pytest.raises(InputError, match="run has no file named checkpoint .* several checkpoints: model-7, model-9"):
        read_checkpoint(damaged)
    with pytest.raises(InputError, match="no checkpoint; name one"):
        read_checkpoint(tmp_path)
    renamed = damaged.rename(tmp_path / "run [1]")
    with pytest.raises(InputError, match=r"move it to a path without"):
        read_checkpoint(renamed / "model-7")


LEVELS = np.zeros(256, "<f4").tobytes()
ENTRY = {"name": "a", "shape": [2, 3]}
BAD_PICTS = {
    "no JSON": ([b"\xff\x00", LEVELS, bytes(6)], "JSON"),
    "no list": ([b'{"name": "a"}', LEVELS, bytes(6)], "names and shapes"),
    "an empty list": ([b"[]", LEVELS, b""], "names and shapes"),
    "deep": ([b"[" * 100_000, LEVELS, bytes(6)], "JSON"),
    "no name": ([json.dumps([{"shape": [2]}]).encode(), LEVELS, bytes(2)], "names and shapes"),
    "a negative size": (
        [json.dumps([{"name": "a", "shape": [-2, -3]}]).encode(), LEVELS, bytes(6)],
        "names and shapes",
    ),
    "a wrong size": ([json.dumps([{"name": "a", "shape": "23"}]).encode(), LEVELS, bytes(6)], "names and shapes"),
    "a name twice": ([json.dumps([ENTRY, ENTRY]).encode(), LEVELS, bytes(12)], "several weights"),
    "too few values": ([json.dumps([ENTRY]).encode(), LEVELS[4:], bytes(6)], "1020 bytes of values"),
    "too few codes": ([json.dumps([ENTRY]).encode(), LEVELS, bytes(5)], "codes for 5 weights, but shapes for 6"),
    "a size beyond all": (
        [json.dumps([{"name": "a", "shape": [10**9] * 4}]).encode(), LEVELS, bytes(6)],
        "codes for 6 weights",
    ),
    "a chunk more": ([json.dumps([ENTRY]).encode(), LEVELS, bytes(6), b"more"], "has 8 more bytes"),
}


@pytest.mark.parametrize("case", BAD_PICTS)
def test_a_wrong_pict_file_is_named(case, tmp_path):
    chunks, message = BAD_PICTS[case]
    write_chunks(tmp_path / "bad.pict", *chunks)
    with pytest.raises(InputError, match=f"bad.pict .*{message}"):
        read_pict(tmp_path / "bad.pict")


def test_a_pict_file_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "cut.pict"
    write_chunks(path, json.dumps([ENTRY]).encode(), LEVELS, bytes(range(6)))
    content = path.read_bytes()
    np.testing.assert_array_equal(read_pict(path)["a"], np.zeros((2, 3), np.float32), strict=True)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cut.pict is empty: fetch or copy it again"):
        read_pict(path)
    for size in (3, 4, 20, 40, 800, len(content) - 7, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="cut.pict ends within its (names|values|codes)"):
            read_pict(path)
    with pytest.raises(InputError, match="missing.pict is not a file"):
        read_pict(tmp_path / "missing.pict")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["checkpoint", "pict"])
def test_a_run_is_made_of_it(checkpoint, weights, generation, tmp_path, capsys, kind):
    given = checkpoint
    if kind == "pict":
        given = tmp_path / "facades.pict"
        weights = write_pict(given, {name: value for name, value in weights.items() if name.startswith("generator/")})
    convert.run(["--input", str(given), "--workdir", str(tmp_path / "run")])
    told = capsys.readouterr().out
    assert "generator UNet(num_downs=8" in told and "--dropout off removes it" in told and "--concat" not in told
    run = open_run(tmp_path / "run")
    assert run.step == (200 if kind == "checkpoint" else 0) and run.config.inference.dropout
    assert ("discriminator" in run.shapes["params"]) == (kind == "checkpoint")
    images = random_images(256, 1)
    there = np.concatenate([run_unet(weights, image[None], generation) for image in images])
    assert_close(Translator.from_workdir(tmp_path / "run", dropout=False)(images), there)
    with pytest.raises(InputError, match="converted from a release without running statistics: leave norm=running out"):
        Translator.from_workdir(tmp_path / "run", norm="running")
    before = sorted(tmp_path.iterdir())
    for options in (["--concat", "up_skip"], ["--eval"]):
        with pytest.raises(SystemExit, match="where --concat, --norm"):
            convert.run(["--input", str(given), "--workdir", str(tmp_path / "other"), *options])
    assert sorted(tmp_path.iterdir()) == before
