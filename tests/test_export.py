"""Exports: what other programs load computes what the run does, at any size, and says what it is."""

import json
import os
import shutil
import sys
from functools import partial
from importlib.util import find_spec

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from jax import lax

import support.images
from p2p_jax import InputError, Translator
from p2p_jax.commands.export import run as command
from p2p_jax.config import complete, resolve
from p2p_jax.interop import exporting, onnx_format
from p2p_jax.interop.exporting import export
from p2p_jax.interop.flattening import flatten
from support.configs import SMALL, SMALL_CYCLEGAN, merged
from support.networks import POINTWISE, Pointwise, draw_state
from support.runs import blank_state, write_run

pytestmark = pytest.mark.usefixtures("fast_convolutions")  # as a run translates; what is exported has plain ones
missing = [name for name in ("jax2onnx", "onnx", "onnxruntime") if find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
FORMATS = [pytest.param("onnx", marks=needs_onnx), "stablehlo"]
UNET = {"num_downs": 8, "base_width": 2}
SMOOTH = {"downsampling": "antialiased", "upsampling": "antialiased"}
VIT = {"network": "p2p_jax.nets:UNetViT", "num_downs": 2, "base_width": 4, "num_blocks": 1, "width": 12, "num_heads": 3}
VIT |= {"ffn_width": 16, "embed_width": 6}


noise = partial(support.images.noise, dtype=np.float32)


def save_run(workdir, changes=None, base=SMALL | {"generator": POINTWISE}, gain=8.0):
    """Make a run's directory with random weights, large enough for images with contrast, and running statistics."""
    config = complete(merged(base, {"loss": {"lambda_gan": 0.0}} | (changes or {})))
    shapes = blank_state(resolve(config.objective)(config), config)
    return write_run(workdir, config, draw_state(shapes, gain), 7)


class Files:
    """Runs and their exports, made once."""

    def __init__(self, folder):
        self.folder, self.made = folder, {}
        data, unet = {"crop_size": 256, "load_size": 286}, {"num_downs": 4, "base_width": 4}
        resnet = {"num_blocks": 1, "base_width": 4}
        self.runs = {
            "unet256": save_run(folder / "unet256", {"data": data, "generator": UNET}, SMALL),
            "unet": save_run(folder / "unet", {"generator": unet}, SMALL),
            "resnet9": save_run(
                folder / "resnet9", {"generator": resnet | {"num_blocks": 9}}, SMALL_CYCLEGAN, gain=5.0
            ),
            "resnet": save_run(folder / "resnet", {"generator": resnet}, SMALL_CYCLEGAN),
            "mobile": save_run(
                folder / "mobile",
                {"generator": {"network": "p2p_jax.nets:MobileResNet", "num_blocks": 1, "channels": "4_3_4_2_4_4"}},
                SMALL_CYCLEGAN,
            ),
            "smooth": save_run(folder / "smooth", {"generator": resnet | SMOOTH}, SMALL_CYCLEGAN),
            "vit": save_run(folder / "vit", {"generator": VIT}, SMALL_CYCLEGAN),
        }

    def get(self, which, norm, format):
        """Return an export from B to A, and a function that computes what the file says."""
        key = which, norm, format
        if key not in self.made:
            path = self.folder / "files" / "-".join(key)
            self.made[key] = export(self.runs[which], format, path, direction="BtoA", norm=norm)
        return self.made[key], load(self.made[key].path, format)


def load(path, format):
    """Load a file without this library."""
    if format == "stablehlo":
        return jax_export.deserialize(bytearray(path.read_bytes())).call
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("exports"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "norm", "format", "sizes"),
    [
        pytest.param("unet256", "batch", "onnx", ((256, 256), (512, 256), (256, 512)), marks=needs_onnx),
        pytest.param("unet", "running", "onnx", ((16, 16), (32, 16), (16, 32)), marks=needs_onnx),
        ("unet", "batch", "stablehlo", ((16, 16), (32, 16), (16, 32))),
        pytest.param("resnet9", "batch", "onnx", ((16, 16), (20, 16), (8, 12)), marks=needs_onnx),
        ("resnet", "batch", "stablehlo", ((16, 16), (20, 16), (8, 12))),
        pytest.param("mobile", "batch", "onnx", ((16, 16), (20, 16), (8, 12)), marks=needs_onnx),
        ("mobile", "batch", "stablehlo", ((16, 16), (20, 16), (8, 12))),
        pytest.param("smooth", "batch", "onnx", ((16, 16), (20, 16), (8, 12)), marks=needs_onnx),
        ("smooth", "batch", "stablehlo", ((16, 16), (20, 16), (8, 12))),
        pytest.param("vit", "batch", "onnx", ((16, 16), (20, 16), (4, 8)), marks=needs_onnx),
        ("vit", "batch", "stablehlo", ((16, 16), (20, 16), (4, 8))),
    ],
)
def test_exports_are_the_run(files, which, norm, format, sizes):
    found, call = files.get(which, norm, format)
    assert found.sizes == sizes
    assert 0 < found.difference.largest < 1e-4 and found.difference.share == 0
    assert found.megabytes == found.path.stat().st_size / 1e6 > 0
    assert found.seconds > 0 and found.jax_seconds > 0
    images = noise(2, *sizes[0], 3)
    translator = Translator.from_workdir(files.runs[which], norm=norm, direction="BtoA", dropout=False)
    expected = translator(images[1], normalized=True)  # alone
    assert expected.std() > 0.1  # not a gray image
    assert np.abs(np.asarray(call(images))[1] - expected).max() < 1e-4
    assert not list(found.path.parent.glob(".*"))


@pytest.mark.parametrize(
    ("which", "format", "size"),
    [pytest.param("resnet9", "onnx", (20, 28), marks=needs_onnx), ("resnet", "stablehlo", (8, 12))],
)
def test_any_multiple_of_the_network(files, which, format, size):
    """Sides that are no multiples of what Translator pads to, down to the smallest that reflection allows."""
    run, call = Translator.from_workdir(files.runs[which], dropout=False).run, files.get(which, "batch", format)[1]

    def translate(state, images, rng):
        return run.objective.translate(state, {"real_b": images}, rng)["fake_a"]

    kept, rebuild = run.restore(translate, batch=run.batch["real_b"])
    network = jax.jit(lambda images: translate(rebuild(kept), images, run.rng))
    images = noise(3, *size, 3)
    assert np.abs(call(images) - network(images)).max() < 1e-4
    if format == "stablehlo":
        with pytest.raises(ValueError, match="remainder 2 when computing"):
            call(noise(1, 10, 12, 3))


@needs_onnx
def test_what_a_file_says_of_itself(files):
    import onnx

    told = {
        format: files.get("unet", norm, format)[0] for format, norm in (("onnx", "running"), ("stablehlo", "batch"))
    }
    path = told["stablehlo"].path
    beside = json.loads(path.with_name(path.name + ".json").read_text())
    assert beside == told["stablehlo"].metadata
    model = onnx.load(told["onnx"].path)
    inside = {entry.key: entry.value for entry in model.metadata_props}
    for key, value in told["onnx"].metadata.items():
        assert (inside[key] if isinstance(value, str) else json.loads(inside[key])) == value
        assert beside[key] == value or key in ("norm", "checkpoint_id", "config")
    assert (inside["norm"], json.loads(inside["config"])["inference"]) == (
        "running",
        {"norm": "running", "dropout": False},
    )
    translator = Translator.from_workdir(files.runs["unet"], norm="batch", dropout=False)
    assert beside["checkpoint_id"] == translator.checkpoint_id
    expected = {"direction": "BtoA", "step": 7, "layout": "NHWC", "multiple": 16, "norm": "batch", "dropout": False}
    assert {key: beside[key] for key in expected} == expected
    assert beside["shape"] == ["batch", "16*h", "16*w", 3]
    assert (beside["range"], beside["pixels"], beside["objective"]) == ([-1, 1], False, "p2p_jax:pix2pix")
    domain = {"kind": "uint8", "dtype": "uint8", "channels": 3, "range": [[0, 255]] * 3, "nodata": None}
    domain |= {"palette": None}
    assert beside["input"] == beside["output"] == domain
    assert beside["config"]["generator"]["base_width"] == 4
    assert (model.opset_import[0].version, model.ir_version) == (onnx_format.OPSET, onnx_format.IR_VERSION) == (17, 8)
    assert {entry.domain for entry in model.opset_import} == {""}  # no operators but the standard's
    ends = [*model.graph.input, *model.graph.output]
    shapes = {x.name: [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] for x in ends}
    assert shapes == {"images": beside["shape"], "translated": beside["shape"]}
    assert "noise z (dropout)" in told["onnx"].notes[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "dtypes"),
    [
        ({}, (np.uint8, np.uint8)),
        ({"input": {"kind": "uint16"}, "output": {"kind": "int16", "range": "-1000:3000"}}, (np.uint16, np.int16)),
        ({"input": {"kind": "float", "range": "0:2"}, "output": {"kind": "float", "range": "-5:5", "channels": 1}},
         (np.float32, np.float32)),
        ({"input": {"kind": "uint8", "range": "0:100"}, "output": {"kind": "uint8", "range": "0:10"}},
         (np.uint8, np.uint8)),
    ],
)  # fmt: skip
def test_values_in_and_out(tmp_path, data, dtypes):
    workdir = save_run(tmp_path / "run", {"data": data})
    translator = Translator.from_workdir(workdir, dropout=False)
    images = translator.domain_in.decode(noise(2, 16, 32, translator.channels_in))
    found = export(workdir, "stablehlo", tmp_path / "f", pixels=True)
    translated, expected = np.asarray(load(tmp_path / "f", "stablehlo")(images)), translator(images)
    assert (images.dtype, translated.dtype, expected.dtype) == (*dtypes, dtypes[1])
    assert found.metadata["pixels"] and found.metadata["range"] == "values"
    half = translator.domain_out.line[1].max()
    assert np.abs(translated.astype(float) - expected).max() <= (1e-4 * half if dtypes[1] == np.float32 else 1)
    assert np.ptp(expected) > 0.5 * half


UNKNOWN = {
    "a number of uint16": ({"kind": "uint16", "range": "0:50", "nodata": "0"}, {"kind": "float", "range": "-5:5"}),
    "NaN": ({"kind": "float", "range": "0:2"}, {"kind": "uint16", "range": "0:20", "nodata": "7"}),
    "a number of floats": ({"kind": "float", "range": "0:2", "nodata": "1"}, {"kind": "int16", "range": "-9:9"}),
    "a number of bytes": ({"kind": "uint8", "nodata": "9"}, {"kind": "uint8", "range": "0:20", "nodata": "-1"}),
}


@pytest.mark.parametrize("which", UNKNOWN)
@pytest.mark.parametrize("format", FORMATS)
def test_unknown_pixels_are_those_of_the_translator(tmp_path, which, format):
    side_in, side_out = UNKNOWN[which]
    data = {"input": side_in, "output": side_out, "direction": "AtoB"}
    workdir = save_run(tmp_path / "run", {"data": data})
    translator = Translator.from_workdir(workdir, dropout=False)
    images = translator.domain_in.decode(noise(2, 16, 32, 3))
    number = float(side_in.get("nodata", "nan"))
    images[0, :4, :4], images[0, 8, 8, 1] = number, number
    images[1][images[1] == number] += 1
    lost = (np.isnan(images) | (images == number)).any(-1)
    found = export(workdir, format, tmp_path / "f", pixels=True)
    made, expected = np.asarray(load(tmp_path / "f", format)(images)), translator(images)
    if expected.dtype == np.float32:
        np.testing.assert_array_equal(np.isnan(made), lost[..., None] & np.ones(3, bool))
        np.testing.assert_array_equal(np.isnan(expected), np.isnan(made))
    else:
        mark = 7 if which == "NaN" else 0
        assert (made[lost] == mark).all() and (expected[lost] == mark).all()
        assert which != "NaN" or ((made[0] == 7).all(-1) == lost[0]).all()  # a known 7 becomes a 6
    error = np.abs(made.astype(float) - expected)[~lost]
    assert (error > 1e-4 * translator.domain_out.line[1].max()).mean() < 0.01 and error.max() <= 1
    assert lost.sum() >= 17 and not lost[1].any()
    assert found.metadata["input"]["nodata"] == ("nan" if np.isnan(number) else number)


@pytest.mark.slow
def test_the_middle_of_the_range_is_what_networks_see_of_unknown_pixels(tmp_path):
    """So a file without `pixels`, which knows only [-1, 1], gets 0 there."""
    sides = {"input": {"kind": "float", "range": "0:2"}, "output": {"kind": "float", "range": "-5:5"}}
    workdir = save_run(tmp_path / "run", {"data": sides})
    export(workdir, "stablehlo", tmp_path / "f")
    images = noise(1, 16, 16, 3)
    given = np.where(np.arange(16)[:, None] < 5, np.float32("nan"), images)
    expected = Translator.from_workdir(workdir, dropout=False)(given, normalized=True)
    made = np.asarray(load(tmp_path / "f", "stablehlo")(np.nan_to_num(given)))
    np.testing.assert_allclose(made[:, :, 5:], expected[:, :, 5:], atol=1e-5)
    assert np.isnan(expected).sum() == np.isnan(given).sum() > 0


def test_a_run_that_diverged_is_named(tmp_path, monkeypatch):
    workdir = save_run(tmp_path / "run")
    monkeypatch.setattr(Translator, "__call__", lambda self, images, **others: np.full(images.shape, np.float32("nan")))
    with pytest.raises(InputError, match="translation of noise is not finite, so its training diverged"):
        export(workdir, "stablehlo", tmp_path / "f")


@pytest.mark.parametrize("format", FORMATS)
def test_places_of_the_machine_are_left_out(tmp_path, format):
    data = {"dir": str(tmp_path / "images"), "dir_a": "/home/me/{split}/A", "dir_b": "B"}
    workdir = save_run(tmp_path / "run", {"data": data, "init_from": "runs/first"})
    config = export(workdir, format, tmp_path / "f").metadata["config"]
    assert [config["data"][name] for name in ("dir", "dir_a", "dir_b")] == ["", "", "B"]
    assert config["init_from"] == "" and config["seed"] == 0
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"checkpoint_id" in written and b"/home/me" not in written and str(tmp_path).encode() not in written


@needs_onnx
def test_bytes_in_and_out_in_onnx(small_run, tmp_path):
    found = export(small_run, "onnx", tmp_path / "f.onnx", pixels=True)
    images = np.random.RandomState(0).randint(0, 256, (2, 32, 16, 3)).astype(np.uint8)
    translated, expected = (
        load(tmp_path / "f.onnx", "onnx")(images),
        Translator.from_workdir(small_run, dropout=False)(images),
    )
    error = np.abs(translated.astype(int) - expected)
    assert translated.dtype == np.uint8 and error.max() <= 1 and (error > 0).mean() < 0.01
    assert found.difference.values in (0, 1)


@pytest.mark.slow
def test_labels_are_no_numbers(tmp_path):
    data = {"input": {"kind": "labels", "channels": 5}, "direction": "AtoB"}
    workdir = save_run(tmp_path / "run", {"data": data})
    with pytest.raises(InputError, match="`pixels`: the run takes labels.*leave `pixels` out"):
        export(workdir, "stablehlo", tmp_path / "f", pixels=True)
    assert export(workdir, "stablehlo", tmp_path / "f").metadata["input"]["channels"] == 5


@pytest.mark.slow
def test_low_precision_is_left_behind(tmp_path):
    workdir = save_run(tmp_path / "run", {"dtype": "bfloat16", "param_dtype": "bfloat16"})
    assert export(workdir, "stablehlo", tmp_path / "f").difference.largest < 1e-5
    images = noise(1, 16, 16, 3)
    exported = jax_export.deserialize(bytearray((tmp_path / "f").read_bytes())).call(images)
    low = Translator.from_workdir(workdir, dropout=False)(images, normalized=True)
    assert exported.dtype == jnp.float32
    assert 1e-4 < np.abs(low - exported).max() < 0.5


class OneSize(Pointwise):
    @nn.compact
    def __call__(self, x, *, train, dropout=None):
        if x.shape[1:3] != (16, 16):
            raise ValueError("images must be 16x16")
        return jnp.tanh(nn.Dense(x[0].size, name="mix")(x.reshape(len(x), -1)).reshape(x.shape))


@pytest.mark.parametrize("format", FORMATS)
def test_a_network_of_one_size(tmp_path, format):
    workdir = save_run(tmp_path / "run", {"generator": {"network": "test_export:OneSize"}})
    found = export(workdir, format, tmp_path / "f")
    assert (found.images, found.sizes) == (("batch", 16, 16, 3), ((16, 16),))
    assert len(found.notes) == 1


class Undecided(Pointwise):
    @nn.compact
    def __call__(self, x, *, train, dropout=None):
        if min(x.shape[1:3]) < 4:  # which of two sizes without numbers is smaller, nobody can tell
            raise ValueError("images are too small")
        return super().__call__(x, train=train)


def test_a_network_that_compares_sizes_is_written_for_one(tmp_path):
    workdir = save_run(tmp_path / "run", {"generator": {"network": "test_export:Undecided"}})
    found = export(workdir, "stablehlo", tmp_path / "f")
    assert found.images == ("batch", 16, 16, 3)
    assert found.notes[1].startswith("images must be 16x16, because the network cannot be traced for any size")


@pytest.mark.slow
def test_a_file_that_differs_is_not_kept(small_run, tmp_path, monkeypatch):
    output = tmp_path / "f"
    output.write_text("the last good one")
    loaded = exporting.stablehlo.load

    def load_changed(path):
        call = loaded(path)
        return lambda images: change(call(images))

    monkeypatch.setattr(exporting.stablehlo, "load", load_changed)
    changes = {
        r"by 0\.0002 .*tolerance 0\.0001.*nothing was written": (False, lambda x: x + np.float32(2e-4)),
        "not finite .*in other pixels than the run; nothing was written. Try the other format": (
            False,
            lambda x: np.where(x == x.max(), np.float32("nan"), x),
        ),
        r"by 0\.0078": (True, lambda x: np.where(x > 128, x - 1, x)),  # one level, but everywhere
        r"by 0\.016": (True, lambda x: np.where(x == x.max(), x - 2, x)),  # in few places, but two levels
        "float64": (False, lambda x: x.astype(np.float64)),
    }
    for message, (pixels, change) in changes.items():  # noqa: B007, load_changed reads it
        with pytest.raises(InputError, match=message):
            export(small_run, "stablehlo", output, pixels=pixels)
    if not missing:
        monkeypatch.setattr(exporting.onnx_format, "write", lambda exportable, path: path.write_bytes(b"cut short"))
        with pytest.raises(InputError, match="made an invalid model"):
            export(small_run, "onnx", output)
    assert output.read_text() == "the last good one"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "pdf"}, "format=pdf: choose one of onnx, stablehlo"),
        ({"output": "."}, "is a folder; name a file"),
        ({"workdir": "nothing"}, "nothing does not hold a trained run"),
        ({"checkpoint": "3"}, "no checkpoint 3"),
        ({"direction": "AtoB"}, "trained for only BtoA"),
        ({"output": "file/f"}, "cannot be written: .*file is not a folder"),
    ],
)
def test_refused(small_run, tmp_path, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message):
        export(**{"workdir": small_run, "format": "stablehlo", "output": "f"} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_only_exports_are_replaced(small_run, tmp_path):
    """Not the run's own config, nor somebody's JSON beside the file, nor what is no file."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (tmp_path / "mine.json").write_text('{"notes": 1}')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "linked")
    before = (run / "config.json").read_text()
    for output, message in {
        run / "config": "would replace .*config.json",
        run / "config.json": "would replace .*config.json",
        tmp_path / "mine": "would replace .*mine.json",
        tmp_path / "pipe": "not a plain file",
        tmp_path / ("x" * 250): "cannot be written",
    }.items():
        with pytest.raises(InputError, match=message):
            export(run, "stablehlo", output)
    assert (run / "config.json").read_text() == before and (tmp_path / "mine.json").read_text() == '{"notes": 1}'
    export(run, "stablehlo", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "linked").is_file()
    export(run, "stablehlo", tmp_path / "link")  # its own file and metadata are replaced
    for file in (run / "checkpoints").glob("*/state/**/d/*"):
        file.unlink()
    with pytest.raises(InputError, match="/7 is damaged: .*d/.* cannot be read .*; .*run holds no other good one"):
        export(run, "stablehlo", tmp_path / "f")


@pytest.mark.parametrize(
    ("format", "module", "install"),
    [("onnx", "jax2onnx", r"'p2p_jax\[export\]'"), ("stablehlo", "flatbuffers", "flatbuffers")],
)
def test_a_missing_extra_is_named(small_run, tmp_path, monkeypatch, format, module, install):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"format={format} needs .*pip install {install}"):
        export(small_run, format, tmp_path / "f")


@needs_onnx
def test_what_cannot_be_converted_is_named(small_run, tmp_path, monkeypatch):
    import jax2onnx

    def fail(*args, **kwargs):
        raise NotImplementedError("no plugin for primitive x")

    monkeypatch.setattr(jax2onnx, "to_onnx", fail)
    with pytest.raises(
        InputError, match=r"cannot convert this network \(no plugin for primitive x\); format=stablehlo"
    ):
        export(small_run, "onnx", tmp_path / "f")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_command(small_run, tmp_path, capsys):
    output = tmp_path / "a/f"
    command(["--workdir", str(small_run), "--format", "stablehlo", "--output", str(output), "--pixels"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("note: the noise z (dropout)")
    assert lines[2].startswith(f"{output}: step 7, BtoA, norm running, 0.")
    assert lines[3] == "images [batch, h, w, 3], uint8 to uint8"
    assert lines[4].startswith("checked at 16x16, 17x16, 1x2, batches of 1 and 2: largest difference")
    assert lines[5].startswith("16x16 on the CPU: ") and " ms an image, in JAX " in lines[5]
    with pytest.raises(SystemExit, match="error: .* does not hold a trained run"):
        command(["--workdir", str(tmp_path / "b"), "--format", "stablehlo", "--output", str(output)])
    with pytest.raises(SystemExit, match="error: --pixels and --norm are only for onnx and stablehlo"):
        command(["--workdir", str(small_run), "--format", "torch", "--output", str(output), "--pixels"])
    with pytest.raises(SystemExit) as unknown:
        command(["--workdir", str(small_run), "--format", "pdf", "--output", str(output)])
    assert unknown.value.code == 2 and "invalid choice: 'pdf'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_of_pytorch(files, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    command(["--workdir", str(files.runs["resnet9"]), "--format", "torch", "--output", str(tmp_path / "f.pth")])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'f.pth'}: --netG resnet_9blocks")
    assert len(torch.load(tmp_path / "f.pth", weights_only=True)) > 10


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, y: (2 * y,))


def primitives(jaxpr):
    return [equation.primitive.name for equation in jaxpr.eqns]


@pytest.mark.slow
def test_flattened_functions_are_the_same():
    table = jnp.arange(12.0).reshape(3, 4)

    @partial(jax.jit, static_argnums=1)
    def inner(x, shift):
        return doubled(nn.relu(x)) + table.sum() * shift + jax.random.normal(jax.random.key(0), (1, 1, 1, 4))

    def function(images):
        shown = jax.checkpoint(lambda x: inner(x, 2))(images)
        return (
            jnp.cos(shown)[:, 1].sum((0, 1))
            + images.mean((0, 2)).sum(0)
            + jax.vmap(lambda x: x[None][0])(images)[0, 0, 0]
        )

    given = jax.ShapeDtypeStruct(jax_export.symbolic_shape("b, 2*h, 4, 4"), jnp.float32)
    flat, images = flatten(function, given), noise(3, 6, 4, 4)
    found = jax.make_jaxpr(flat)(given).jaxpr
    assert {"jit", "pjit", "custom_vjp_call", "custom_jvp_call", "checkpoint", "gather"}.isdisjoint(primitives(found))
    assert not any("random" in name for name in primitives(found))
    sums = [equation.params["axes"] for equation in found.eqns if equation.primitive is lax.reduce_sum_p]
    assert sums and all(len(axes) == 1 for axes in sums)
    concrete = flatten(function, jax.ShapeDtypeStruct(images.shape, jnp.float32))
    assert np.allclose(concrete(images), function(images), rtol=1e-5)
    assert np.allclose(jax_export.export(jax.jit(flat))(given).call(images), function(images), rtol=1e-5)


@pytest.mark.slow
def test_every_channel_is_held_to_its_own_range(tmp_path, monkeypatch):
    """300 of 4,000 are too much in one channel, whatever one of 10 is in another."""
    data = {"output": {"kind": "int16", "range": "0:10,0:10,-1000:3000"}}
    workdir, loaded = save_run(tmp_path / "run", {"data": data}), exporting.stablehlo.load

    def load_changed(path):
        call = loaded(path)

        def changed(images):
            values = np.array(call(images))
            values[0, 0, 0, 2] += 300
            return values

        return changed

    assert export(workdir, "stablehlo", tmp_path / "f", pixels=True).difference.values <= 1
    monkeypatch.setattr(exporting.stablehlo, "load", load_changed)
    with pytest.raises(InputError, match="differs from the run by 0.15"):
        export(workdir, "stablehlo", tmp_path / "f", pixels=True)
