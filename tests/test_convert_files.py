"""What people's files truly are: networks behind wrappers are taken, and all else is refused by its name."""

import gzip
import json
import os
import re
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from p2p_jax import Translator
from p2p_jax.commands import convert
from p2p_jax.errors import InputError
from p2p_jax.inference.run import open_run
from p2p_jax.interop import convert as convert_in_python
from p2p_jax.interop import write_torch
from p2p_jax.objectives import cyclegan
from p2p_jax.training.checkpoint import read_config
from support.configs import small_cyclegan_config
from support.images import noise
from support.runs import blank_state, write_run

torch = pytest.importorskip("torch")
from support import torch_release as release  # noqa: E402, it needs PyTorch
from support.comparers import assert_close_trees  # noqa: E402
from support.networks import draw_state  # noqa: E402

SIDE = 32


def run_convert(*arguments):
    convert.run([*map(str, arguments), "--crop_size", str(SIDE)])


def refusal(*arguments):
    """Return what the command says against a file."""
    with pytest.raises(SystemExit) as error:
        run_convert(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def inputs(height=SIDE, width=SIDE, channels=3):
    return noise(2, height, width, channels, dtype=np.float32, seed=1)


def there(network, images, *, train):
    """Return what a network of PyTorch makes of each image alone."""
    network.train(train)
    with torch.no_grad():
        found = [network(torch.from_numpy(image[None]).permute(0, 3, 1, 2)) for image in images]
    return torch.cat(found).permute(0, 2, 3, 1).numpy()


def assert_close(here, there):
    assert there.std() > 0.05
    assert_close_trees(here, there, rtol=1e-4, of_largest=1e-4)


def compile_all(network):
    return torch.compile(network)


def compile_inside(network):
    network.model = torch.compile(network.model)
    return network


def compile_parallel(network):
    return torch.compile(torch.nn.DataParallel(network))


def parallel_compiled(network):
    return torch.nn.DataParallel(torch.compile(network))


CONTAINERS = {
    "state dict": lambda found: found,
    "state_dict": lambda found: {"state_dict": found, "epoch": 3},
    "netG": lambda found: {"netG": found, "optimizer": {"state": {0: {"step": 3}}, "param_groups": []}},
}


@pytest.mark.parametrize(
    ("wrap", "container"),
    [
        (compile_all, "state dict"),
        (compile_inside, "state_dict"),
        (compile_parallel, "netG"),
        (parallel_compiled, "state dict"),
    ],
)
def test_networks_behind_wrappers(tmp_path, wrap, container):
    """As ``torch.compile`` and ``DataParallel`` name them, generator and discriminator, in one container or another."""
    networks = {"G": release.UNet(3, 3, 5, 4), "D": release.PatchGAN(6, 3, 4)}
    plain = {name: dict(release.randomise(network, 1).state_dict()) for name, network in networks.items()}
    for name, network in networks.items():
        wrapped = wrap(network).state_dict()
        assert any("_orig_mod." in key for key in wrapped)
        torch.save(CONTAINERS[container](wrapped), tmp_path / f"latest_net_{name}.pth")
    run_convert(tmp_path, "--workdir", tmp_path / "run")
    written = {w.path.stem[-1]: w.path for w in write_torch(open_run(tmp_path / "run"), tmp_path / "back")}
    for name, path in written.items():
        back = torch.load(path, weights_only=True)
        assert back.keys() == plain[name].keys()
        assert all(torch.equal(back[key], value) for key, value in plain[name].items())


def test_checkpoints_that_leave_the_network_open(tmp_path):
    state_dict = release.UNet(3, 3, 5, 4).state_dict()
    torch.save({"netG": state_dict, "netD": release.PatchGAN(6, 3, 4).state_dict()}, tmp_path / "both.pth")
    told = refusal(tmp_path / "both.pth", "--workdir", tmp_path / "run")
    assert "both.pth holds several state dicts: netG, netD. torch.save(torch.load(FILE" in told
    double = dict(state_dict) | {f"module.{key}": value for key, value in state_dict.items()}
    torch.save(double, tmp_path / "double.pth")
    told = refusal(tmp_path / "double.pth", "--workdir", tmp_path / "run")
    assert "has model.model.0.weight twice, with and without a wrapper's name" in told


@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_instance_norm_with_running_statistics(tmp_path, capsys, name):
    """Files of 2018-06 to 2019-01, with and without --eval, against PyTorch's own ``track_running_stats``."""
    made = {
        "unet": lambda: release.UNet(3, 3, 5, 4, "instance_tracked"),
        "resnet": lambda: release.ResNet(3, 3, 2, 4, "instance_tracked"),
    }
    network = release.randomise(made[name](), 3)
    torch.save(network.state_dict(), tmp_path / "G.pth")
    run_convert(tmp_path / "G.pth", "--workdir", tmp_path / "run")
    assert "instance norm has running statistics, as in the release from 2018-06" in capsys.readouterr().out
    run_convert(tmp_path / "G.pth", "--workdir", tmp_path / "eval", "--eval")
    run_convert(tmp_path / "G.pth", "--workdir", tmp_path / "dropped", "--norm", "instance", "--eval")
    evaluated = there(network, inputs(), train=False)
    assert_close(Translator.from_workdir(tmp_path / "eval")(inputs()), evaluated)
    assert_close(Translator.from_workdir(tmp_path / "run", dropout=False, norm="running")(inputs()), evaluated)
    own = there(network, inputs(), train=True)  # moves the statistics of the twin, which are not read here
    assert np.abs(own - evaluated).max() > 0.1
    assert_close(Translator.from_workdir(tmp_path / "run", dropout=False)(inputs()), own)
    assert_close(Translator.from_workdir(tmp_path / "eval", norm="batch")(inputs()), own)
    assert_close(Translator.from_workdir(tmp_path / "dropped")(inputs()), own)  # as today's release
    (written,) = write_torch(open_run(tmp_path / "eval"), tmp_path / "back.pth")
    assert "--norm instance" in written.options and written.options.endswith("--eval")
    assert "uses with --eval, and others drop" in written.notes[-1]


@pytest.mark.parametrize("judged", [True, False])
def test_cyclegan_with_batch_norm_counts_batches(tmp_path, capsys, judged):
    """Of one step a generator sees three batches, and so does a discriminator; files without counters are of step 0."""
    for i, name in enumerate(["G_A", "G_B"] + ["D_A", "D_B"] * judged):
        network = release.ResNet(3, 3, 2, 4, "batch") if name[0] == "G" else release.PatchGAN(3, 2, 4)
        tensors = release.randomise(network, i).state_dict()
        for key, value in tensors.items():
            if key.endswith("num_batches_tracked"):
                value.fill_(3 * 70)
        torch.save(tensors, tmp_path / f"latest_net_{name}.pth")
        bare = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
        (tmp_path / "bare").mkdir(exist_ok=True)
        torch.save(bare, tmp_path / "bare" / f"latest_net_{name}.pth")
    run_convert(tmp_path, "--workdir", tmp_path / "run")
    assert ("norms have counted three batches per step" in capsys.readouterr().out) is not judged
    run_convert(tmp_path / "bare", "--workdir", tmp_path / "bare_run")
    assert (open_run(tmp_path / "run").step, open_run(tmp_path / "bare_run").step) == (70, 0)
    found, bare = (Translator.from_workdir(tmp_path / name)(inputs()) for name in ("run", "bare_run"))
    network = release.ResNet(3, 3, 2, 4, "batch")
    network.load_state_dict(torch.load(tmp_path / "latest_net_G_A.pth", weights_only=True))
    assert_close(found, there(network, inputs(), train=True))
    np.testing.assert_array_equal(found, bare)


@pytest.mark.parametrize(("identity", "counted"), [(0.0, 2), (0.5, 3)])
def test_written_counters_are_those_of_the_release(tmp_path, identity, counted):
    config = small_cyclegan_config(generator__norm="batch", discriminator__norm="batch", loss__lambda_identity=identity)

    state = draw_state(blank_state(cyclegan(config), config))
    state["step"] = np.int32(5)
    run = write_run(tmp_path / "run", config, state, step=5)
    counters = {
        w.path.stem: {int(v) for k, v in torch.load(w.path, weights_only=True).items() if k.endswith("batches_tracked")}
        for w in write_torch(open_run(run), tmp_path / "files")
    }
    assert counters["latest_net_G_A"] == counters["latest_net_G_B"] == {5 * counted}
    assert counters["latest_net_D_A"] == {15}


def test_a_number_of_batches_that_is_none(tmp_path):
    for value in (torch.tensor(float("inf")), torch.tensor(-1), torch.tensor(2**40), torch.tensor([1, 2])):
        tensors = release.UNet(3, 3, 5, 4).state_dict() | {"model.model.1.model.2.num_batches_tracked": value}
        torch.save(tensors, tmp_path / "G.pth")
        assert "_tracked is not a number of batches" in refusal(tmp_path / "G.pth", "--workdir", tmp_path / "r")


WIDTHS = [3, 2, 4, 2, 2, 2, 4, 4, 4, 8, 8, 8, 2, 3]


def test_generators_of_gan_compression(tmp_path, capsys):
    network = release.randomise(release.MobileResNet(3, 3, WIDTHS), 5)
    torch.save(network.state_dict(), tmp_path / "latest_net_G.pth")
    run_convert(tmp_path / "latest_net_G.pth", "--workdir", tmp_path / "run")
    told = capsys.readouterr().out
    assert "MobileResNet(num_blocks=9" in told and "no dropout; its files do not say" in told
    assert "channels=3_2_4_2_4_8_2_3" in told
    translator = Translator.from_workdir(tmp_path / "run")
    assert_close(translator(inputs()), there(network, inputs(), train=True))
    image = inputs(36, 52)
    assert_close(translator(image), there(network, image, train=True))
    assert read_config(tmp_path / "run").generator.channels == "3_2_4_2_4_8_2_3"
    with pytest.raises(InputError, match="no network like MobileResNet; export it as ONNX or StableHLO"):
        write_torch(open_run(tmp_path / "run"), tmp_path / "back.pth")


def test_widths_of_no_generator_of_gan_compression(tmp_path):
    tensors = release.MobileResNet(3, 3, [4] * 14).state_dict()
    odd = tensors | {"model.4.weight": torch.zeros(7, 4, 3, 3)}
    incomplete = {key: value for key, value in tensors.items() if not key.startswith("model.14.")}
    for changed, message in [
        (odd, "model.4.weight has 7 channels, which is not a multiple of 2 as in GAN-Compression"),
        (incomplete, "those of GAN-Compression are 1 and 6 in blocks from model.10 on; is the file complete"),
        (
            {key: value for key, value in tensors.items() if not key.startswith("model.12.conv_block.6.conv.0")},
            r"model.12.conv_block.6.conv.0.\w+ is missing; a MobileResNet",
        ),
    ]:
        torch.save(changed, tmp_path / "G.pth")
        assert re.search(message, refusal(tmp_path / "G.pth", "--workdir", tmp_path / "run"))


def write_zip(path, names, **settings):
    with zipfile.ZipFile(path, "w", **settings) as container:
        for name in names:
            container.writestr(name, b"content")


def write_jit(path):
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 3, 3)), path)


def write_tar(path, *names):
    with tarfile.open(path, "w") as container:
        for name in names:
            container.addfile(tarfile.TarInfo(name))


def write_packed_again(path):
    torch.save(release.UNet(3, 3, 5, 4).state_dict(), path)
    with zipfile.ZipFile(path) as container:
        parts = {part.filename: container.read(part) for part in container.infolist()}
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as container:
        for name, content in parts.items():
            container.writestr(name, content)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 217715123\n"
HEADER = json.dumps({"model.0.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
KINDS = {
    "git lfs": (
        lambda p: p.write_bytes(POINTER),
        "is a Git LFS pointer, in place of a file of 217,715,123 bytes: run",
    ),
    "page": (lambda p: p.write_text("\n\n<!doctype HTML>\n<title>404</title>"), "is a web page: fetch the file"),
    "page after a comment": (lambda p: p.write_text("<!-- x -->\n<html lang=en>"), "is a web page"),
    "xml": (lambda p: p.write_text("<?xml version='1.0'?><Error>AccessDenied</Error>"), "is an XML text"),
    "json": (
        lambda p: p.write_text('{"message": "Not Found"}'),
        "is a JSON text: perhaps an error message",
    ),
    "text": (lambda p: p.write_text("see the other folder\n"), "is a text: fetch the file itself"),
    "empty": (lambda p: p.write_bytes(b""), "is empty: fetch or copy it again"),
    "dead link": (lambda p: p.symlink_to("../blobs/abc"), r"is a link to \.\./blobs/abc, which does not exist"),
    "folder as a file": (lambda p: p.mkdir(), "is an empty folder"),
    "zip": (
        lambda p: write_zip(p, ["x/latest_net_G.pth", "x/opt.txt"]),
        "is a zip archive of x/latest_net_G.pth, x/opt",
    ),
    "empty zip": (lambda p: write_zip(p, []), "is a zip archive of nothing"),
    "packed again": (write_packed_again, "was repacked with compression, .*zip -0 -r"),
    "tar": (
        lambda p: write_tar(p, "latest_net_G.pth"),
        "is a tar archive that begins with latest_net_G.pth: unpack it",
    ),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x")), "is packed with gzip: unpack it"),
    "safetensors": (
        lambda p: p.write_bytes(struct.pack("<Q", len(HEADER)) + HEADER + bytes(4)),
        "is a safetensors file: torch.save",
    ),
    "TorchScript": (write_jit, r"is a TorchScript archive \(torch.jit.save\): torch.save\(torch.jit.load"),
    "torch.export": (
        lambda p: write_zip(p, ["archive/archive_format", "archive/models/model.json"]),
        "is a program of torch.export",
    ),
    "ONNX": (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x032.1:\x05\n\x03\n\x01x"), "is an ONNX model"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "is an HDF5 file, as written by Keras"),
    "Keras 3": (lambda p: write_zip(p, ["config.json", "model.weights.h5"]), "is a model of Keras 3"),
    "npz": (lambda p: np.savez(p.open("wb"), kernel=np.zeros(3)), "is a NumPy archive of kernel.npy"),
    "npy": (lambda p: np.save(p.open("wb"), np.zeros(3)), "is a NumPy array"),
    "TFLite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64)), "is a TensorFlow Lite model"),
    "Torch 7": (
        lambda p: p.write_bytes(b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1\x0a\0\0\0nn.gModule" + bytes(64)),
        "is a file of Torch 7, as written by the Lua release of pix2pix",
    ),
    "PNG": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)), "is a PNG image: give a file of weights"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_weights_is_refused_by_its_name(tmp_path, kind):
    make, message = KINDS[kind]
    path = tmp_path / "G.pth"
    make(path)
    told = refusal(path, "--workdir", tmp_path / "run")
    assert told.startswith(f"error: {path}") and re.search(message, told), told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["git lfs", "page", "empty", "dead link"])
def test_other_files_of_weights_are_looked_at_too(tmp_path, name):
    """The discriminator, a .pict file, a part of a checkpoint."""
    make, message = KINDS[name]
    torch.save(release.UNet(3, 3, 5, 4).state_dict(), tmp_path / "G.pth")
    make(tmp_path / "D.pth")
    told = refusal(tmp_path / "G.pth", "--discriminator", tmp_path / "D.pth", "--workdir", tmp_path / "run")
    assert re.search(f"D.pth {message}", told)
    make(tmp_path / "cats.pict")
    assert re.search(f"cats.pict {message}", refusal(tmp_path / "cats.pict", "--workdir", tmp_path / "run"))
    if name in ("git lfs", "page"):
        (tmp_path / "model-1.index").write_bytes(b"x")
        make(tmp_path / "model-1.data-00000-of-00001")
        make(tmp_path / "model-2.index")
        (tmp_path / "model-2.data-00000-of-00001").write_bytes(b"x")
        for prefix in ("model-1", "model-2"):
            told = refusal(tmp_path / prefix, "--workdir", tmp_path / "run")
            assert re.search(rf"{prefix}\.(data|index)\S* {message.partition(':')[0]}", told)


FOLDERS = {
    "run": (["config.json", "checkpoints/4000/x"], "is a run of this library already: give it to `translate`"),
    "SavedModel": (["saved_model.pb", "variables/variables.index"], "is a SavedModel of TensorFlow"),
    "unpacked": (
        ["archive/data.pkl", "archive/version"],
        "is the unpacked content of a file of PyTorch: pack it again",
    ),
    "distributed": ([".metadata", "__0_0.distcp"], "is a distributed checkpoint of PyTorch: python -m torch.dist"),
    "older epochs": (
        ["200_net_G.pth", "200_net_D.pth"],
        "holds no latest_net_G.pth.* but 200_net_D.pth, 200_net_G.pth",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_are_refused_by_their_names(tmp_path, kind):
    names, message = FOLDERS[kind]
    for name in names:
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).write_bytes(b"x")
    told = refusal(tmp_path / "given", "--workdir", tmp_path / "run")
    assert re.search(f"given {message}", told), told


def test_a_folder_is_no_discriminator(tmp_path):
    torch.save(release.UNet(3, 3, 5, 4).state_dict(), tmp_path / "G.pth")
    (tmp_path / "D").mkdir()
    with pytest.raises(InputError, match="D is a folder; name the file in it"):
        convert_in_python(tmp_path / "G.pth", tmp_path / "run", tmp_path / "D")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    torch.save(release.UNet(3, 3, 5, 4).state_dict(), tmp_path / "G.pth")
    (tmp_path / "G.pth").chmod(0)
    assert "its permissions forbid it" in refusal(tmp_path / "G.pth", "--workdir", tmp_path / "run")
