"""Networks of CUT become runs; what the release of pix2pix and CycleGAN does not have is not written for it."""

import numpy as np
import pytest

from p2p_jax import Translator
from p2p_jax.commands import convert
from p2p_jax.errors import InputError
from p2p_jax.inference.run import open_run
from p2p_jax.interop import write_torch
from p2p_jax.training.checkpoint import read_config
from support.images import noise

torch = pytest.importorskip("torch")
from support import torch_release as release  # noqa: E402, it needs PyTorch


def test_a_folder_of_cut_becomes_a_run(tmp_path, capsys):
    generator = release.randomise(release.SmoothResNet(3, 3, 2, 4), 0)
    folder, run = tmp_path / "horse2zebra_cut_pretrained", tmp_path / "run"
    folder.mkdir()
    torch.save(generator.state_dict(), folder / "latest_net_G.pth")
    torch.save(release.randomise(release.SmoothPatchGAN(3, 1, 4), 1).state_dict(), folder / "latest_net_D.pth")
    torch.save({"mlp_0.0.weight": torch.ones(256, 3)}, folder / "latest_net_F.pth")  # of its loss: left alone
    convert.run(["--input", str(folder), "--workdir", str(run), "--crop_size", "32"])
    told = capsys.readouterr().out
    assert "downsampling=antialiased, upsampling=antialiased" in told
    assert "--discriminator_padding" not in told

    config = read_config(run)
    assert config.discriminator.downsampling == "antialiased" and config.discriminator.receptive_field == 16
    assert not config.loss.conditional
    images = noise(2, 32, 32, 3, dtype=np.float32, seed=1)
    with torch.no_grad():
        there = generator(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    here = Translator.from_workdir(run)(images)
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-4)

    opened = open_run(run)
    with pytest.raises(InputError, match="PyTorch release has no network with upsampling=antialiased"):
        write_torch(opened, tmp_path / "out.pth")
    for section, option, value, message in [
        ("generator", "upsampling", "antialiased", "with upsampling=antialiased"),
        ("discriminator", "downsampling", "antialiased", "with downsampling=antialiased"),
        ("discriminator", "spectral_norm", True, "with spectral_norm=True"),
        ("generator", "attention_mask", True, "with attention_mask=True"),
    ]:
        other = opened.config.copy_and_resolve_references()
        other.generator.downsampling, other.generator.upsampling = "strided", "transposed"
        other.discriminator.downsampling = "strided"
        with other.unlocked():
            other[section][option] = value
        with pytest.raises(InputError, match=message):
            write_torch(opened._replace(config=other), tmp_path / "files")
    assert not (tmp_path / "files").exists() and not (tmp_path / "out.pth").exists()
