"""Files of the PyTorch release become runs, runs become files of the PyTorch release, and nothing is lost between."""

import io
import json
import os
import pickle
import shutil
import tarfile
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.commands import convert, evaluate, translate
from p2p_jax.errors import InputError
from p2p_jax.inference.run import open_run
from p2p_jax.interop import Options, write_torch
from p2p_jax.interop import convert as convert_in_python
from p2p_jax.training.checkpoint import read_config
from support.configs import small_config, small_cyclegan_config
from support.images import to_uint8
from support.runs import learnable_data, rows_of, run_command

torch = pytest.importorskip("torch")
from support import torch_release as release  # noqa: E402, it needs PyTorch
from support.comparers import assert_close_trees
from support.images import noise

SIDE = 32


def save(folder, name, network, seed=0, **container):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(release.randomise(network, seed).state_dict(), folder / name, **container)
    return network


def run_convert(*arguments, size=SIDE):
    convert.run([*map(str, arguments), "--crop_size", str(size)])


def apply(network, images):
    """Return what a network of PyTorch makes of [B, H, W, C], in training mode as the release translates."""
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        outputs = [network(torch.from_numpy(image[None]).permute(0, 3, 1, 2)) for image in images]
    return torch.cat(outputs).permute(0, 2, 3, 1).numpy()


def inputs(channels=3, side=SIDE, count=2):
    return noise(count, side, side, channels, dtype=np.float32, seed=1)


assert_close = partial(assert_close_trees, rtol=1e-4, of_largest=1e-4)


@pytest.mark.parametrize("container", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_generator_becomes_a_run(tmp_path, capsys, container):
    network = save(tmp_path, "latest_net_G.pth", release.UNet(3, 3, 5, 4), **container)
    run_convert("--input", tmp_path / "latest_net_G.pth", "--workdir", tmp_path / "run")
    told = capsys.readouterr().out
    assert "UNet(num_downs=5, dropout_layout=pytorch, base_width=4, norm=batch), 3 to 3 channels" in told
    assert "--concat up_skip" in told and "--discriminator_padding" not in told
    assert "--dropout off removes it" in told and "set --direction BtoA if it is B" in told

    config = read_config(tmp_path / "run")
    assert config.loss.to_dict() == {"lambda_gan": 0.0} and config.data.crop_size == SIDE
    assert config.inference.to_dict() == {"norm": "batch", "dropout": True}
    assert_close(Translator.from_workdir(tmp_path / "run", dropout=False)(inputs()), apply(network, inputs()))
    running = Translator.from_workdir(tmp_path / "run", dropout=False, norm="running")(inputs())
    with torch.no_grad():
        there = network.eval()(torch.from_numpy(inputs()).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert np.abs(running - there).max() > 0.01  # `apply` has moved the twin's statistics since it was saved
    save(tmp_path, "same.pth", network)
    with torch.no_grad():
        there = network.eval()(torch.from_numpy(inputs()).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert_close(running, there)
    facts = json.loads((tmp_path / "run" / "converted_from.json").read_text())
    assert facts["files"]["generator"]["path"] == "latest_net_G.pth" and facts["options"]["concat"] == "skip_up"


def test_translate_and_evaluate_take_a_converted_run(tmp_path):
    network = save(tmp_path, "latest_net_G.pth", release.ResNet(3, 3, 6, 4))
    save(tmp_path, "latest_net_D.pth", release.PatchGAN(6, 1, 4))
    run_convert("--input", tmp_path, "--workdir", tmp_path / "run")  # the folder: both networks
    pixels = to_uint8(inputs(count=3))
    (tmp_path / "photos" / "val").mkdir(parents=True)
    for i, image in enumerate(pixels):
        whole = np.concatenate([image, 255 - image], axis=1)
        Image.fromarray(whole).save(tmp_path / "photos" / "val" / f"{i}.png")
        Image.fromarray(image).save(tmp_path / f"{i}.png")

    assert run_command(translate, tmp_path / "run", tmp_path / "?.png", "--output", tmp_path / "out") == 0
    expected = to_uint8(apply(network, pixels.astype(np.float32) / 127.5 - 1))
    translated = np.stack([np.asarray(Image.open(tmp_path / "out" / f"{i}.png")) for i in range(3)])
    assert np.abs(translated.astype(int) - expected).max() <= 1

    evaluate.run(["--workdir", str(tmp_path / "run"), "--data_dir", str(tmp_path / "photos"), "--metrics", "histogram"])
    results = json.loads((tmp_path / "run" / "evaluation" / "val_0" / "results.json").read_text())
    l1 = np.abs(translated / 255 - (255 - pixels) / 255).mean()
    assert results["num_images"] == 3 and results["metrics"]["l1"]["mean"] == pytest.approx(l1, rel=0.02)


def test_a_pair_becomes_a_cyclegan_and_comes_back(tmp_path, capsys):
    folder, networks = tmp_path / "horse2zebra", {}
    for i, (name, channels) in enumerate([("A", (3, 1)), ("B", (1, 3))]):
        networks[f"G_{name}"] = save(folder, f"latest_net_G_{name}.pth", release.ResNet(*channels, 6, 4), seed=i)
        judge = release.PatchGAN(channels[1], 2, 4, "instance")  # D_A judges what G_A makes
        networks[f"D_{name}"] = save(folder, f"latest_net_D_{name}.pth", judge, seed=10 + i)
    run_convert("--input", folder, "--workdir", tmp_path / "run")
    assert "gen_ab ResNet(num_blocks=6" in capsys.readouterr().out
    config = read_config(tmp_path / "run")
    assert config.objective == "p2p_jax:cyclegan" and config.inference.dropout is False
    assert (config.data.input.channels, config.data.output.channels, config.data.source) == (3, 1, "unpaired")
    there = Translator.from_workdir(tmp_path / "run")(inputs(3))
    assert_close(there, apply(networks["G_A"], inputs(3)))
    back = Translator.from_workdir(tmp_path / "run", direction="BtoA")(inputs(1))
    assert_close(back, apply(networks["G_B"], inputs(1)))

    written = write_torch(open_run(tmp_path / "run"), tmp_path / "back")
    assert sorted(w.path.name for w in written) == sorted(p.name for p in folder.iterdir())
    options = {w.path.name: w.options for w in written}
    assert options["latest_net_G_A.pth"] == "--netG resnet_6blocks --norm instance --ngf 4 --no_dropout --output_nc 1"
    assert options["latest_net_D_B.pth"] == "--netD n_layers --n_layers_D 2 --norm instance --ndf 4 --output_nc 1"
    for name, network in networks.items():
        before = torch.load(folder / f"latest_net_{name}.pth", weights_only=True)
        after = torch.load(tmp_path / "back" / f"latest_net_{name}.pth", weights_only=True)
        assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
        network.load_state_dict(after)  # strict
    (one,) = write_torch(open_run(tmp_path / "run"), tmp_path / "one.pth", "BtoA")
    assert one.path.name == "one.pth" and one.notes == ()
    loaded = torch.load(one.path, weights_only=True)
    assert all(torch.equal(loaded[key], value) for key, value in networks["G_B"].state_dict().items())


def test_a_trained_run_leaves_for_the_release(pix2pix_run, cyclegan_run, tmp_path):
    """What the release's networks make of the files equals what the run makes."""
    config = small_config()
    generator, judge = write_torch(open_run(pix2pix_run), tmp_path / "files")
    assert (
        generator.options == "--netG unet_8 --norm batch --ngf 4 --direction BtoA --eval"  # trained on two a device
        and "U-Nets with 7 and 8 downs" in generator.notes[0]
    )
    network = release.UNet(3, 3, config.generator.num_downs, config.generator.base_width)
    network.load_state_dict(torch.load(generator.path, weights_only=True))
    assert int(network.state_dict()["model.model.1.model.2.num_batches_tracked"]) == 4
    images = inputs(side=16)
    with torch.no_grad():
        there = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert_close(Translator.from_workdir(pix2pix_run, dropout=False)(images), there)
    assert_close(Translator.from_workdir(pix2pix_run, norm="batch", dropout=False)(images), apply(network, images))
    discriminator = release.PatchGAN(6, 1, 4)
    discriminator.load_state_dict(torch.load(judge.path, weights_only=True))
    assert int(discriminator.state_dict()["model.3.num_batches_tracked"]) == 12  # three batches a step

    (path,) = [w.path for w in write_torch(open_run(cyclegan_run), tmp_path / "ab.pth")]
    network = release.ResNet(3, 3, 1, small_cyclegan_config().generator.base_width)
    network.load_state_dict(torch.load(path, weights_only=True))
    assert_close(Translator.from_workdir(cyclegan_run)(images), apply(network, images))


def test_what_the_release_does_not_have_is_not_written(tmp_path, pix2pix_run):
    run = open_run(pix2pix_run)
    for option, value, message in [
        ("skips", False, "without skips"),
        ("bottleneck_norm", True, "norm in the bottleneck"),
        ("upsampling", "resize", "upsampling=resize"),
    ]:
        other = run._replace(config=small_config(**{f"generator__{option}": value}))
        with pytest.raises(InputError, match=message):
            write_torch(other, tmp_path / "files")
    with pytest.raises(InputError, match="choose AtoB or BtoA"):
        write_torch(run, tmp_path / "G.pth", "atob")
    with pytest.raises(InputError, match="`direction` selects the generator for a FILE.pth"):
        write_torch(run, tmp_path / "files", "BtoA")
    other = run._replace(config=small_config(generator__base_width=8))
    with pytest.raises(InputError, match="weights are not those of the p2p_jax.nets:UNet that the config describes"):
        write_torch(other, tmp_path / "files")
    with pytest.raises(InputError, match="trained for only BtoA"):
        write_torch(run, tmp_path / "G.pth", "AtoB")
    assert not (tmp_path / "files").exists() and not (tmp_path / "G.pth").exists()


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def make_bomb(folder, legacy):
    torch.save({"weight": Bomb(folder / "exploded")}, folder / "G.pth", _use_new_zipfile_serialization=not legacy)


def flip(folder):
    """Change a byte of a weight."""
    save(folder, "G.pth", release.UNet(3, 3, 5, 4))
    content = bytearray((folder / "G.pth").read_bytes())
    content[len(content) // 2] ^= 0x40
    (folder / "G.pth").write_bytes(content)


def make_tar(folder):
    """Write the container of PyTorch's first months, as far as it is looked at."""
    with tarfile.open(folder / "G.pth", "w") as container:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            container.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def cut(folder, share, **container):
    save(folder, "G.pth", release.UNet(3, 3, 5, 4), **container)
    content = (folder / "G.pth").read_bytes()
    (folder / "G.pth").write_bytes(content[: int(len(content) * share)])


LEGACY = {"_use_new_zipfile_serialization": False}
DAMAGED = "is damaged, or not a file of weights"
FAULTS = {
    "cut": (lambda d: cut(d, 0.5), DAMAGED),
    "nearly whole": (lambda d: cut(d, 0.999), DAMAGED),
    "empty": (lambda d: cut(d, 0.0), "is empty: fetch or copy it again"),
    "legacy cut": (lambda d: cut(d, 0.5, **LEGACY), DAMAGED),
    "legacy nearly whole": (lambda d: cut(d, 0.9999, **LEGACY), DAMAGED),
    "a page": (lambda d: (d / "G.pth").write_text("<!DOCTYPE html><html>not found</html>"), "is a web page: fetch"),
    "a changed byte": (flip, DAMAGED),
    "tar": (make_tar, "tar container of PyTorch's first releases"),
    "bomb": (lambda d: make_bomb(d, legacy=False), r"holds more than weights \(it asks for posix.system\)"),
    "legacy bomb": (lambda d: make_bomb(d, legacy=True), r"holds more than weights \(it asks for posix.system\)"),
    "plain bomb": (
        lambda d: (d / "G.pth").write_bytes(pickle.dumps(Bomb(d / "exploded"), protocol=2)),
        "more than weights",
    ),
    "whole module": (lambda d: torch.save(release.UNet(3, 3, 5, 4), d / "G.pth"), "support.torch_release.UNet"),
    "no weights": (lambda d: torch.save({"epoch": 3}, d / "G.pth"), "holds a dict of epoch, not a state dict"),
    "a list": (lambda d: torch.save([torch.zeros(3)], d / "G.pth"), "holds a list, not a state dict"),
    "other architecture": (
        lambda d: torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)).state_dict(), d / "G.pth"),
        "not a network of the PyTorch release",
    ),
    "discriminator": (
        lambda d: save(d, "G.pth", release.PatchGAN(6, 3, 4)),
        "is a discriminator; give it with --disc",
    ),
    "other blocks": (
        lambda d: torch.save({"DownBlock.4.conv_block.1.weight": torch.zeros(4, 4, 3, 3)}, d / "G.pth"),
        "not a network of the PyTorch release",
    ),
    "sparse": (
        lambda d: torch.save({"model.model.0.weight": torch.eye(4).to_sparse()}, d / "G.pth"),
        "model.model.0.weight is not a named array of real numbers",
    ),
    "numbers for names": (
        lambda d: torch.save({1: torch.zeros(3)}, d / "G.pth"),
        "1 is not a named array",
    ),
    "missing": (lambda d: None, "G.pth is not a file"),
    "too shallow": (
        lambda d: torch.save({"model.model.0.weight": torch.zeros(4, 3, 4, 4)}, d / "G.pth"),
        "a U-Net without inner layers",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_used_leaves_nothing_behind(tmp_path, name):
    make, message = FAULTS[name]
    make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=message) as error:
        run_convert("--input", tmp_path / "G.pth", "--workdir", tmp_path / "run")
    assert str(error.value).startswith("error: ") and str(tmp_path / "G.pth") in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_files_that_do_not_fit_together_leave_nothing_behind(tmp_path):
    save(tmp_path, "G.pth", release.UNet(3, 3, 5, 4))
    save(tmp_path, "G1.pth", release.UNet(1, 3, 5, 4))
    save(tmp_path, "R.pth", release.ResNet(3, 3, 6, 4))
    save(tmp_path, "D4.pth", release.PatchGAN(4, 3, 4))
    save(tmp_path, "D3.pth", release.PatchGAN(3, 3, 4))
    save(tmp_path, "D3n2.pth", release.PatchGAN(3, 2, 4))
    files = {path.stem: path for path in tmp_path.iterdir()}
    before = sorted(tmp_path.iterdir())
    for inputs, judges, message in [
        (["G"], ["D4"], "D4.pth: the discriminator takes 4 channels, but with generators of 3 to 3 .* 3 or 6"),
        (["G"], ["G"], "G.pth is a generator; give it with --input"),
        (["G", "R"], [], "are not a pair"),
        (["G", "G1"], [], "are not a pair"),
        (["G", "G"], ["D3"], "2 generators and 1 discriminators"),
        (["G", "G"], ["D3", "D3n2"], "another architecture than the other discriminator"),
    ]:
        arguments = ["--input", *(files[name] for name in inputs), "--workdir", tmp_path / "run"]
        if judges:
            arguments += ["--discriminator", *(files[name] for name in judges)]
        with pytest.raises(SystemExit, match=message):
            run_convert(*arguments)
        assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="exists and is not empty"):
        run_convert("--input", files["G"], "--workdir", tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(SystemExit, match="holds no latest_net_G.pth"):
        run_convert("--input", tmp_path, "--workdir", tmp_path / "run")


def test_options_that_would_do_nothing_are_refused(tmp_path):
    save(tmp_path, "G.pth", release.ResNet(3, 3, 6, 4))
    before = sorted(tmp_path.iterdir())
    for options, message in [
        (["--concat", "up_skip"], "--concat up_skip is only for U-Nets"),
        (["--discriminator_padding", "2"], "no discriminator was given"),
        (["--source", "nonsense"], "--source nonsense: choose one of side_by_side"),
        (["--source", "unpaired"], "--source unpaired has no pairs, and a single generator"),
        (["--eval", "--dropout", "on"], "--eval turns dropout off; it cannot be combined with --dropout on"),
    ]:
        with pytest.raises(SystemExit, match=message):
            run_convert("--input", tmp_path / "G.pth", "--workdir", tmp_path / "run", *options)
    with pytest.raises(InputError, match="concat=both; choose one of skip_up, up_skip"):
        convert_in_python(tmp_path / "G.pth", tmp_path / "run", options=Options(concat="both"))
    assert sorted(tmp_path.iterdir()) == before


def test_as_the_release_translates_with_eval(tmp_path):
    network = save(tmp_path, "G.pth", release.UNet(3, 3, 5, 4))
    run_convert("--input", tmp_path / "G.pth", "--workdir", tmp_path / "run", "--eval", "--direction", "BtoA")
    with torch.no_grad():
        there = network.eval()(torch.from_numpy(inputs()).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    translator = Translator.from_workdir(tmp_path / "run")
    assert translator.direction == "BtoA"
    assert_close(translator(inputs()), there)


@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_photographs_of_any_size_as_pytorch_translates_them(tmp_path, name):
    """In values of 0 to 255 on the image padded by reflection to the network's own multiple, no further."""
    made, multiple = {"unet": (release.UNet(3, 3, 5, 4), 32), "resnet": (release.ResNet(3, 3, 4, 2), 4)}[name]
    run_convert("--input", save(tmp_path, "G.pth", made) and tmp_path / "G.pth", "--workdir", tmp_path / "run")
    translator = Translator.from_workdir(tmp_path / "run", dropout=False)
    for height, width in [(33, 50), (100, 75), (61, 90), (47, 35)]:
        image = np.asarray(Image.fromarray(noise(8, 8, 3)).resize((width, height), Image.Resampling.BICUBIC))
        padded = np.pad(image, [(0, -height % multiple), (0, -width % multiple), (0, 0)], mode="reflect")
        there = apply(made, padded[None].astype(np.float32) / 127.5 - 1)[0, :height, :width]
        here = translator(image.astype(np.float32) / 127.5 - 1)
        assert np.ptp(there) > 0.2
        assert np.abs(here - there).max() * 127.5 <= 0.5


def test_a_link_to_an_empty_folder_takes_a_run(tmp_path):
    save(tmp_path, "G.pth", release.UNet(3, 3, 5, 4))
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    made = convert_in_python(str(tmp_path / "G.pth"), tmp_path / "run", options=Options(crop_size=SIDE))
    assert open_run(tmp_path / "run").step == made.step == 0 and (tmp_path / "run").is_symlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        convert_in_python(tmp_path / "G.pth", tmp_path / "file" / "run", options=Options(crop_size=SIDE))


def test_an_unconditional_discriminator_is_told_by_its_channels(tmp_path):
    save(tmp_path, "latest_net_G.pth", release.UNet(3, 3, 5, 4))
    save(tmp_path, "latest_net_D.pth", release.PatchGAN(3, 1, 4))
    run_convert("--input", tmp_path, "--workdir", tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.config.loss.to_dict() == {"conditional": False}
    assert run.shapes["params"]["discriminator"]["conv_1"]["kernel"].shape == (4, 4, 3, 4)


def test_options_for_what_cannot_be_seen(tmp_path):
    network = save(tmp_path, "G.pth", release.UNet(3, 3, 5, 4, order="up_skip", bias=True))
    judge = save(tmp_path, "D.pth", release.PatchGAN(6, 2, 4, padding=2))
    arguments = ["--input", tmp_path / "G.pth", "--discriminator", tmp_path / "D.pth", "--workdir", tmp_path / "run"]
    run_convert(*arguments, "--concat", "up_skip", "--discriminator_padding", "2", "--dropout", "off")
    config = read_config(tmp_path / "run")
    assert config.discriminator.padding == 2 and config.generator.biases == "all" and not config.inference.dropout
    assert_close(Translator.from_workdir(tmp_path / "run")(inputs()), apply(network, inputs()))
    written = write_torch(open_run(tmp_path / "run"), tmp_path / "back", concat="up_skip")
    for path, twin in zip([w.path for w in written], (network, judge), strict=True):
        tensors = torch.load(path, weights_only=True)
        original = torch.load(tmp_path / f"{path.stem[-1]}.pth", weights_only=True)
        assert list(tensors) == list(original) and all(torch.equal(tensors[key], original[key]) for key in tensors)
        twin.load_state_dict(tensors)


def test_half_precision_is_read(tmp_path):
    network = release.randomise(release.ResNet(3, 3, 6, 4), 0)
    for i, dtype in enumerate([torch.float16, torch.bfloat16, torch.float64]):
        tensors = {name: value.to(dtype) for name, value in network.state_dict().items()}
        torch.save(tensors, tmp_path / "G.pth")
        run_convert("--input", tmp_path / "G.pth", "--workdir", tmp_path / f"run{i}")
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
        assert_close(Translator.from_workdir(tmp_path / f"run{i}")(inputs()), apply(network, inputs()))
        assert open_run(tmp_path / f"run{i}").shapes["params"]["generator"]["stem"]["kernel"].dtype == jnp.float32


def test_colorization_takes_photographs(tmp_path, capsys):
    pytest.importorskip("skimage")
    save(tmp_path, "G.pth", release.UNet(1, 2, 5, 4))
    run_convert("--input", tmp_path / "G.pth", "--workdir", tmp_path / "run")
    assert "colorization in CIE Lab" in capsys.readouterr().out
    translator = Translator.from_workdir(tmp_path / "run")
    assert (translator.domain_in.kind, translator.domain_out.kind) == ("lab_l", "lab_ab")
    assert translator(to_uint8(inputs())).shape == (2, SIDE, SIDE, 2)


def test_fine_tuning_goes_on_from_the_quality_of_a_converted_generator(tmp_path):
    """Trained here, written for the release, converted back, fine-tuned with a fresh discriminator."""
    pace = {"num_steps": 30, "eval_every": 30, "sample_every": 30, "checkpoint_every": 30}
    pace |= {"optimizer__learning_rate": 0.003, "generator__dropout_rate": 0.0}
    first = small_config(**pace, loss__lambda_gan=0.0)
    train(first, tmp_path / "first", data=learnable_data(first))
    write_torch(open_run(tmp_path / "first"), tmp_path / "G.pth")
    run_convert("--input", tmp_path / "G.pth", "--workdir", tmp_path / "theirs", size=16)
    for name, init_from in (("tuned", str(tmp_path / "theirs")), ("scratch", "")):
        config = small_config(**pace, seed=1, init_from=init_from)
        train(config, tmp_path / name, data=learnable_data(config))

    def losses(run):
        return [float(row["train/gen/l1"]) for row in rows_of(tmp_path / run)]

    first, tuned, scratch = map(losses, ("first", "tuned", "scratch"))
    assert max(tuned[:5]) < 1.3 * first[-1] < 0.5 * scratch[0]  # it starts at the quality that came from the file ...
    assert max(tuned[-5:]) < 0.7 * first[-1] < min(scratch[-5:])  # ... and falls from there
