"""By what a run recognises its images and the machine, when it goes on."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import from_arrays, identity, load
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.training import computed_on
from p2p_jax.training.loop import train
from p2p_jax.training.resuming import read_names
from support.configs import data_config, small_config
from support.containers import pack
from support.runs import memory_data


def noise(seed, size=(16, 32)):
    return np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)


def write(folder, count, ending=".bmp", split="train"):
    (folder / split).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(noise(i)).save(folder / split / f"{i:03d}{ending}")
    return folder


def tiny(folder, **options):
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    data = {"source": "side_by_side", "dir": str(folder), "val_split": "", "resident": True}
    data |= {"direction": "AtoB", "load_size": 16, "crop_size": 16}
    return small_config(num_steps=2, batch_size=2, **linear, **{f"data__{k}": v for k, v in (data | options).items()})


def longer(folder, **options):
    config = tiny(folder, **options)
    with config.unlocked():
        config.num_steps = 4
    return config


def refusal(folder, workdir, **options):
    with pytest.raises(InputError) as refused:
        train(longer(folder, **options), workdir)
    message = str(refused.value)
    assert "num_train" not in message and f"{workdir} holds a run on other images:\n  " in message
    return message.split("\n  ")[1].split("\n")[0]


@pytest.mark.slow
def test_more_and_fewer_images_are_named(tmp_path):
    folder, workdir = write(write(tmp_path / "images", 6), 2, split="val"), tmp_path / "run"
    train(tiny(folder, val_split="val"), workdir)
    (folder / "train" / "002.bmp").rename(tmp_path / "002.bmp")
    told = refusal(folder, workdir, val_split="val")
    assert told == "train: 6 images at the first start, 5 now; missing: 002.bmp"
    (tmp_path / "002.bmp").rename(folder / "train" / "002.bmp")
    for i in range(7):
        shutil.copy(folder / "val" / "000.bmp", folder / "val" / f"new{i}.bmp")
    told = refusal(folder, workdir, val_split="val")
    assert told == "val: 2 images at the first start, 9 now; new: new0.bmp, new1.bmp, new2.bmp and 4 more"
    for i in range(7):
        (folder / "val" / f"new{i}.bmp").unlink()
    (folder / "val" / "001.bmp").rename(folder / "val" / "other.bmp")
    told = refusal(folder, workdir, val_split="val")
    assert told == "val: images with other names, 2 as at the first start; missing: 001.bmp; new: other.bmp"
    (folder / "val" / "other.bmp").rename(folder / "val" / "001.bmp")
    (workdir / "images.json").unlink()
    shutil.move(folder, tmp_path / "moved")  # elsewhere they are the same
    assert int(train(longer(tmp_path / "moved", val_split="val"), workdir)["step"]) == 4


def test_a_number_in_the_config_that_is_not_that_of_the_images(tmp_path):
    with pytest.raises(InputError, match="there are 3 training images, but config.data.num_train=5 expects another"):
        train(tiny(write(tmp_path / "images", 3), num_train=5), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("which", [range(6), [3]])
def test_other_contents_of_the_same_names_and_sizes_are_seen(which, tmp_path):
    folder, workdir = write(tmp_path / "images", 6), tmp_path / "run"
    train(tiny(folder), workdir)
    before = {path: path.read_bytes() for path in folder.rglob("*.bmp")}
    for i in which:
        path = folder / "train" / f"{i:03d}.bmp"
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        assert path.stat().st_size == len(before[path])
    assert refusal(folder, workdir) == (
        "train: the contents of images have changed since the first start; their names are the same"
    )
    for path, contents in before.items():
        path.write_bytes(contents)
    assert int(train(longer(folder), workdir)["step"]) == 4


def test_partners_and_both_sides_are_looked_at(tmp_path):
    for side in "AB":
        write(tmp_path, 3, split=f"train{side}")
    found = {source: load(config_of(tmp_path, source)).identities for source in ("folders", "unpaired")}
    (tmp_path / "trainB" / "001.bmp").write_bytes((tmp_path / "trainB" / "002.bmp").read_bytes())
    for source, before in found.items():
        now = load(config_of(tmp_path, source)).identities
        assert list(now) == (["train"] if source == "folders" else ["train A", "train B"])
        changed = [name for name in now if now[name].contents != before[name].contents]
        assert changed == (["train"] if source == "folders" else ["train B"])
        assert {found.total for found in now.values()} == {3}


def config_of(folder, source):
    return data_config(source=source, dir=str(folder), val_split="", resident=True, load_size=16)


@pytest.mark.parametrize("container", ["zip", "array_record", "hugging_face"])
def test_containers_see_every_image(container, tmp_path):
    """One of many that the identity does not look at, of the same size."""
    pytest.importorskip({"array_record": "array_record", "hugging_face": "datasets"}.get(container, "zipfile"))
    prints = []
    for changed in (None, 30):
        folder = tmp_path / f"{changed}"
        write(write(folder, 67), 1, split="val")
        if changed:
            path = folder / "train" / f"{changed:03d}.bmp"
            Image.fromarray(255 - noise(changed)).save(path)
        packed = pack(container, folder, tmp_path / f"packed{changed}")
        source = container + "/side_by_side" * (container != "zip")
        data = load(data_config(source=source, dir=str(packed), val_split="", resident=True))
        prints.append((data.fingerprint, data.identities["train"].contents))
        assert data.identities["train"].total == 67
    assert prints[0] != prints[1]


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".webp", ".jpg"])
def test_pieces_of_large_files_tell(ending, tmp_path, monkeypatch):
    """Of sets that are not read whole, 4 pieces of each file are, and every image of another picture is seen."""
    paths = [tmp_path / f"{i}{ending}" for i in range(5)]
    for i, path in enumerate(paths):
        if ending == ".npy":
            np.save(path, noise(i, (64, 64)))
        else:
            Image.fromarray(noise(i, (64, 64))).save(path)
    monkeypatch.setattr(identity, "_BYTES", 5 * 400)
    before = identity.of_files(paths)
    assert identity.of_files(paths) == before and before.startswith("1:") and len(before) == 18
    assert formats.read_header(paths[2]).width == 64
    if ending == ".npy":
        np.save(paths[2], 255 - noise(2, (64, 64)))
    else:
        Image.fromarray(255 - noise(2, (64, 64))).save(paths[2])
    assert identity.of_files(paths) != before


def test_what_is_read_is_bounded(tmp_path, monkeypatch):
    read, paths = [], [tmp_path / str(i) for i in range(100)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 1_000)
    monkeypatch.setattr(identity, "_BYTES", 2_000)
    monkeypatch.setattr(identity, "_FILES", 50)
    digest = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda *args: read.append(args) or digest(*args))
    identity.of_files(paths)
    assert len(read) == 50 and {at_most for *_, at_most in read} == {40}
    assert {path.name for path, *_ in read} >= {"0", "99"}
    looked_up = []
    monkeypatch.setattr(identity, "_EXAMPLES", 64)
    identity.of_examples(10**6, lambda i: looked_up.append(i) or [b"x" * 100])
    assert len(looked_up) == 20 and max(looked_up) > 9e5 and min(looked_up) == 0
    assert max(np.diff(sorted(looked_up))) < 10**6 / 16 * 1.1  # the first ones are spread evenly already


@pytest.mark.slow
def test_a_run_of_before_is_not_refused_and_learns_them(tmp_path):
    folder, workdir = write(tmp_path / "images", 4), tmp_path / "run"
    train(tiny(folder), workdir)
    for file in (workdir / "facts.json", *workdir.glob("checkpoints/*/facts/metadata")):
        facts = json.loads(file.read_text())
        del facts["images"], facts["computed_on"]
        file.write_text(json.dumps(facts))
    (workdir / "images.json").unlink()
    Image.fromarray(noise(9)).save(folder / "train" / "extra.bmp")
    assert refusal(folder, workdir) == "4 training images at the first start, 5 now"
    (folder / "train" / "extra.bmp").unlink()
    assert int(train(longer(folder), workdir)["step"]) == 4
    assert json.loads((workdir / "facts.json").read_text())["images"]["train"]["count"] == 4
    assert identity.same_contents("1:a", "2:b") and not identity.same_contents("1:a", "1:b")


def test_arrays_and_files_know_how_many_they_are():
    a = noise(0)[None, :, :16].repeat(3, 0)
    config = data_config(resident=True)
    assert load(config, train=from_arrays(a, a)).identities == {"train": (3, "", ())}


@pytest.mark.slow
def test_a_start_on_something_else_names_it(tmp_path, capsys, monkeypatch):
    folder, workdir = write(tmp_path / "images", 4), tmp_path / "run"
    train(tiny(folder), workdir)
    stored = json.loads((workdir / "facts.json").read_text())["computed_on"]
    assert stored["devices"] == 2 and stored["device_kind"] == "cpu" and stored["cores"] >= 1
    capsys.readouterr()
    now = stored | {"cores": stored["cores"] + 7, "jaxlib": "0.0.1"}
    monkeypatch.setattr(computed_on, "found", lambda precision: now)
    assert int(train(longer(folder), workdir)["step"]) == 4
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "bit-for-bit" in line]
    assert line.endswith(f": usable cores {stored['cores']} before, {now['cores']} now, jaxlib "
                         f"{stored['jaxlib']} before, 0.0.1 now")  # fmt: skip
    assert computed_on.difference(now, now) == "" == computed_on.difference({}, now)


def test_data_of_ones_own_are_compared_as_before(tmp_path):
    config = small_config(
        objective="support.networks:linear", generator=None, discriminator=None, loss=None, num_steps=1
    )
    train(config, tmp_path, data=memory_data(config))
    with config.unlocked():
        config.num_steps = 2
    with pytest.raises(InputError, match=r"other images:\n  num_train: stored 8, now 7\nGive it"):
        train(config, tmp_path, data=memory_data(config, num_train=7))


@pytest.mark.parametrize("text", ["[" * 100_000, "5", '{"train": 5}', '{"train": [["a"]]}', '{"train": [null]}'])
def test_names_that_are_none_are_as_good_as_missing(tmp_path, text):
    (tmp_path / "images.json").write_text(text)
    assert read_names(tmp_path) == {}
