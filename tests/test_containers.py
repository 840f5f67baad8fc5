"""Images in zip files, ArrayRecord and Hugging Face datasets: the same batches as from folders, and clear errors."""

import io
import os
import struct
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from p2p_jax.commands import inspect as command
from p2p_jax.data import load, load_split
from p2p_jax.data.containers.archive import Archive
from p2p_jax.data.containers.array_records import _example
from p2p_jax.errors import InputError
from support.comparers import assert_equal_batches, assert_equal_streams
from support.configs import data_config, small_config, small_cyclegan_config
from support.containers import CONTAINERS, encoded, pack, save_dataset, write_raw_records, write_records, write_zip
from support.images import noise, save, write_pairs
from support.processes import run_python
from support.runs import run_command
from support.streams import assert_same_in_every_way, take

COUNTS = {"train": 7, "val": 3}
COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)


def png(pixels, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def write_sides(folder, make_a, make_b, size=20):
    """Write SPLIT/A and SPLIT/B, of which the functions give the ending and the pixels or the image."""
    for split, count in COUNTS.items():
        for side, make in (("A", make_a), ("B", make_b)):
            (folder / split / side).mkdir(parents=True)
            for i in range(count):
                ending, image = make(noise(size, size, 3, seed=1000 * i + 10 * len(split) + (side == "B")), i)
                file = folder / split / side / f"{i:02d}{ending}"
                if isinstance(image, np.ndarray):
                    save(file, image)
                else:
                    image.save(file)
    return folder


def photo(pixels, i):
    """Return colours and grays, PNG and JPEG."""
    return ".jpg" if i % 2 else ".png", pixels[..., 0] if i % 3 == 1 else pixels


def deep(pixels, i):
    return ".tif", pixels[..., :1].astype(np.uint16) * 16


def classes(pixels, i):
    image = Image.fromarray(pixels[..., 0] % 3, "P")
    image.putpalette(COLORS.tobytes())
    return ".png", image


def masks(pixels, i):
    return ".png", np.where(pixels[..., 0] > 127, np.uint8(255), np.uint8(0))


KINDS = {
    "photographs": (photo, photo, {}),
    "uint16 to labels": (deep, classes, {"input__kind": "uint16", "input__channels": 1, "output__kind": "labels"}),
    "masks to lab": (masks, photo, {"input__kind": "labels", "input__channels": 2, "output__kind": "uint8"}),
    "BtoA": (masks, photo, {"direction": "BtoA", "output__kind": "labels", "output__channels": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
def test_same_batches_to_the_bit_as_from_a_folder(kind, container, tmp_path):
    make_a, make_b, options = KINDS[kind]
    folder = write_sides(tmp_path / "folder", make_a, make_b)
    known = load(data_config(source="folders", dir=str(folder), load_size=18, flip=True, **options))
    config = data_config(
        source=container, dir=str(pack(container, folder, tmp_path / "packed")), load_size=18, flip=True, **options
    )
    data = load(config)
    assert (data.num_train, data.num_val, data.facts) == (known.num_train, known.num_val, known.facts)
    assert_equal_streams(take(data.train(0), 5), take(known.train(0), 5))
    assert_equal_streams(take(data.train(1000), 2), take(known.train(1000), 2))
    assert_equal_streams(data.validation(2), list(known.validation(2)))
    if kind == "uint16 to labels":  # of the others, the same is read
        assert_same_in_every_way(config, split="val")


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("halves", ["side_by_side", "side_by_side/BA"])
def test_same_batches_of_halves(container, halves, tmp_path):
    for split, count in COUNTS.items():
        write_pairs(tmp_path / "folder" / split, count, size=(16, 20), seed=count)
    folder = tmp_path / "folder"
    known = load(data_config(source=halves.replace("side", "side", 1), dir=str(folder)))
    where = str(pack(container, folder, tmp_path / "packed", ["image"]))
    data = load(data_config(source=f"{container}/{halves}", dir=where))
    assert_equal_streams(take(data.train(0), 4), take(known.train(0), 4))
    assert_equal_streams(data.validation(2), list(known.validation(2)))


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_same_batches_of_photographs_and_a_task(container, tmp_path):
    for split, count in COUNTS.items():
        for i in range(count):
            save(tmp_path / "folder" / split / f"{i}.png", noise(20, 20, 3, seed=i + count))
    task = {"task__input": "p2p_jax.images.tasks:gaussian_noise"}
    known = load(data_config(source="photos", dir=str(tmp_path / "folder"), **task))
    where = str(pack(container, tmp_path / "folder", tmp_path / "packed", ["image"]))
    layouts = [f"{container}/photos", *([container] if container != "zip" else [])]
    for source in layouts:
        data = load(data_config(source=source, dir=where, **task))
        assert_equal_streams(take(data.train(0), 4), take(known.train(0), 4))
        assert_equal_streams(data.validation(2), list(known.validation(2)))
    if container != "zip":
        with pytest.raises(InputError, match=r"holds one image: set config\.task\.input"):
            load(data_config(source=container, dir=where))
        with pytest.raises(InputError, match=r"holds one image: set config\.task\.input"):
            load_split(data_config(source=container, dir=where), "val")


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_same_batches_without_pairs(container, tmp_path):
    folder = tmp_path / "folder"
    sides = {}
    for split, counts in (("train", (5, 8)), ("test", (2, 3))):
        for side, count in zip("AB", counts, strict=True):
            for i in range(count):
                save(folder / f"{split}{side}" / f"{side}{i}.png", noise(20, 18 + i, 3, seed=100 * count + i))
            sides[split, side] = encoded(sorted((folder / f"{split}{side}").iterdir()))
    where = tmp_path / "packed"
    if container == "zip":
        where = write_zip(where / "x.zip", folder, top="horses/")
    elif container == "array_record":
        for (split, side), images in sides.items():
            write_raw_records(where / f"{split}{side}-00000-of-00001.array_record", images)
    else:
        save_dataset(where, {split + side: {"image": images} for (split, side), images in sides.items()})
    options = {"load_size": 18, "crop_size": 16, "val_split": "test"}
    config = small_cyclegan_config(**{f"data__{k}": v for k, v in options.items()}, data__source="toy_unpaired")

    def opened(source, path):
        section = config.data.to_dict() | {"source": source, "dir": str(path)}
        return load(small_cyclegan_config(data=section))

    known, data = opened("unpaired", folder), opened(f"{container}/unpaired", where)
    assert (data.num_train, data.num_val) == (known.num_train, known.num_val) == (8, 3)
    assert_equal_streams(take(data.train(0), 4), take(known.train(0), 4))
    assert_equal_streams(data.validation(2), list(known.validation(2)))


def test_a_shorter_side_may_be_empty_in_rows_of_a_set_without_pairs(tmp_path):
    images = [png(noise(16, 16, 3, seed=i)) for i in range(7)]
    columns = {"imageA": [*images[:2], None, None], "imageB": [None, *images[2:5]]}
    where = save_dataset(tmp_path / "saved", {"train": columns}, number=range(4))
    config = data_config(source="hugging_face/unpaired", dir=str(where), val_split="", batch_size=1)
    source = load_split(config, "train")
    assert [list(map(lambda x: x.rpartition("/")[2], names)) for names in source.names] == [
        ["train#0", "train#1"],
        ["train#1", "train#2", "train#3"],
    ]
    with pytest.raises(InputError, match=r"train#1 \(imageA\)|train#0 \(imageB\) is empty; leave the row out"):
        load(data_config(source="hugging_face", dir=str(where), val_split=""))


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_processes_read_only_their_own_share(container, tmp_path, monkeypatch):
    folder = write_sides(tmp_path / "folder", photo, photo)
    config = data_config(source=container, dir=str(pack(container, folder, tmp_path / "packed")), load_size=18)
    whole = load(config)
    shares = [load(config, process_index=i, process_count=2) for i in range(2)]
    for step in (0, 9):
        parts = [next(share.train(step)) for share in shares]
        assert_equal_batches({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, next(whole.train(step)))
    validated = [[batch["real_a"] for batch in share.validation(1)] for share in shares]
    together = np.concatenate([batch["real_a"] for batch in whole.validation(3)])
    np.testing.assert_array_equal(np.concatenate(validated[0]), together[0::2])
    np.testing.assert_array_equal(np.concatenate(validated[1]), together[1::2])
    with pytest.raises(InputError, match="batch_size=4 is not a multiple of 3 processes"):
        load(config, process_count=3)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_set_is_recognised_wherever_it_lies_and_others_are_not(container, tmp_path):
    def fingerprint(name, make=photo):
        folder = write_sides(tmp_path / name / "folder", make, photo)
        return load(data_config(source=container, dir=str(pack(container, folder, tmp_path / name)))).fingerprint

    first = fingerprint("first")
    assert fingerprint("moved") == first
    assert fingerprint("other", lambda pixels, i: (".png", pixels[::-1])) != first


def test_names_of_images_are_those_of_messages(tmp_path):
    folder = write_sides(tmp_path / "folder", photo, photo)
    names = {}
    for container in CONTAINERS:
        where = pack(container, folder, tmp_path / container)
        split = load_split(data_config(source=container, dir=str(where)), "val")
        names[container] = split.names[0][1].removeprefix(str(tmp_path))
        assert split.original(0, 1).shape == (20, 20, 3)
    assert names == {
        "zip": "/zip/images.zip!val/A/01.jpg",
        "array_record": "/array_record/val.array_record#1",
        "hugging_face": "/hugging_face/saved/val#1",
    }


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_runs_are_resumed_and_evaluated_as_those_of_folders(container, tmp_path):
    from p2p_jax import train
    from p2p_jax.evaluation import evaluate
    from p2p_jax.training.checkpoint import saved_steps

    folder = write_sides(tmp_path / "folder", photo, photo)
    where = pack(container, folder, tmp_path / "packed")
    results = {}
    for source, path in (("folders", folder), (container, where)):
        workdir = tmp_path / source
        for num_steps in (2, 4):
            train(
                small_config(num_steps=num_steps, data__source=source, data__dir=str(path), data__load_size=18), workdir
            )
        moved = path.rename(path.with_name(f"moved_{path.name}"))
        with pytest.raises(InputError):
            evaluate(workdir)
        results[source] = evaluate(workdir, data_dir=str(moved))
        assert saved_steps(workdir)[-1] == 4
    found, known = results[container], results["folders"]
    assert found["num_images"] == 3 and found["metrics"] == known["metrics"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_inspect_knows_containers(container, tmp_path, capsys):
    folder = write_sides(tmp_path / "folder", photo, photo)
    where = pack(container, folder, tmp_path / "packed")
    argv = ["--config=facades", f"--config.data.source={container}", f"--config.data.dir={where}"]
    sizes = ["--config.data.load_size=18", "--config.data.crop_size=16"]
    assert run_command(command, *argv, *sizes, f"--output={tmp_path / 'out'}") == 0
    told = capsys.readouterr().out
    assert "train: 7 pairs" in told and "0 errors" in told
    assert (tmp_path / "out" / "sheet.png").is_file()


FAULTS = {
    "cut short": (lambda x: x[: len(x) // 2], "cannot be read as an image"),
    "no image": (lambda x: b"nothing of the sort", "cannot be read as an image"),
    "another size": (lambda x: png(noise(30, 16, 3)), "is 16x30 pixels but its partner"),
    "another depth": (lambda x: png(noise(16, 16, dtype=np.uint16)), "has 16 bits"),
    "too many channels": (lambda x: png(noise(16, 16, 4)), r"has transparent parts"),
}


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault, container, at_start, tmp_path, monkeypatch):
    """At the start among few images; among many when it is met."""
    spoil, message = FAULTS[fault]
    folder = tmp_path / "folder"
    for i in range(5):
        for side in "AB":
            save(folder / "train" / side / f"{i}.png", noise(16, 16, 3, seed=i + 10 * (side == "B")))
    spoilt = folder / "train" / "A" / "3.png"
    spoilt.write_bytes(spoil(spoilt.read_bytes()))
    if container == "array_record" and fault == "no image":
        message = r"cannot be read as an image \(it begins with b'nothing "
    (folder / "val").mkdir()
    (folder / "val" / "0.png").write_bytes(b"")
    where = pack(container, folder, tmp_path / "packed", ["A", "B"])
    if not at_start:
        monkeypatch.setattr("p2p_jax.data.containers.opening._WHOLE", 4)
        monkeypatch.setattr("p2p_jax.data.containers.opening._SOME", 2)
    config = data_config(source=container, dir=str(where), val_split="", batch_size=2, cache_mb=0)
    name = {"zip": "train/A/3.png", "array_record": r"train.array_record#3 \(A\)", "hugging_face": r"train#3 \(A\)"}
    with pytest.raises(InputError, match=f"{name[container]}.*{message}"):
        for _ in zip(range(6), load(config).train(0), strict=False):
            pass


@pytest.mark.slow
def test_unknown_values_of_rasters_are_left_out_as_from_a_folder(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    folder = tmp_path / "folder"
    for split, count in COUNTS.items():
        for side in "AB":
            (folder / split / side).mkdir(parents=True)
            for i in range(count):
                values = noise(16, 16, low=0, high=4000, dtype=np.int16, seed=i)
                values[i] = -9999
                extra = [(42113, "s", 0, "-9999", True)] if side == "B" else []
                tifffile.imwrite(folder / split / side / f"{i}.tif", values, extratags=extra)
    options = {"input__kind": "int16", "input__channels": 1, "output__kind": "int16", "output__channels": 1}
    known = load(data_config(source="folders", dir=str(folder), **options))
    assert known.facts["output"]["nodata"] == "-9999"
    for container in CONTAINERS:
        where = pack(container, folder, tmp_path / container)
        data = load(data_config(source=container, dir=str(where), **options))
        assert data.facts == known.facts
        assert_equal_streams(take(data.train(0), 3), take(known.train(0), 3))


def test_columns_are_chosen_or_asked_for(tmp_path, capsys):
    images = [png(noise(16, 16, 3, seed=i)) for i in range(6)]
    three = {"sketch": images[:2], "photo": images[2:4], "mask": images[4:]}
    save_dataset(tmp_path / "three", {"train": three}, number=[1, 2])
    write_records(tmp_path / "records" / "train.array_record", three)
    for source, folder, columns in (
        ("hugging_face", "three", "sketch, photo, mask, number"),
        ("array_record", "records", "file_name, mask, photo, sketch"),
    ):
        options = {"source": source, "dir": str(tmp_path / folder), "val_split": "", "batch_size": 2}
        with pytest.raises(
            InputError, match=rf"has the columns {columns}; 3 of them hold images .*config\.data\.columns"
        ):
            load(data_config(**options))
        with pytest.raises(InputError, match=r"columns=sketch,foto: there is no column 'foto'; .* has the columns"):
            load(data_config(**options, columns="sketch,foto"))
        with pytest.raises(InputError, match=r"columns=sketch names 1 columns; name two, A and B"):
            load(data_config(**options | {"source": f"{source}/unpaired"}, columns="sketch"))
        data = load(data_config(**options, columns="mask,photo"))
        assert "A is mask and B is photo" in capsys.readouterr().out
        batch = next(data.train(0))
        expected = {x.tobytes() for x in (np.asarray(Image.open(io.BytesIO(i))) for i in images[4:])}
        assert {x.tobytes() for x in np.rint((batch["real_a"] + 1) * 127.5).astype(np.uint8)} == expected
    save_dataset(tmp_path / "named", {"train": {"imageB": images[:2], "imageA": images[2:4]}})
    load(data_config(source="hugging_face", dir=str(tmp_path / "named"), val_split="", batch_size=2))
    assert "A is imageA and B is imageB" in capsys.readouterr().out


@pytest.mark.parametrize("container", CONTAINERS)
def test_single_images_are_not_halved(container, tmp_path):
    for split, count in COUNTS.items():
        for i in range(count):
            smooth = Image.fromarray(noise(6, 12, 3, seed=i)).resize((40, 20), Image.Resampling.BICUBIC)
            save(tmp_path / "folder" / split / f"{i}.png", np.asarray(smooth))
    with pytest.raises(InputError, match="look like single images"):
        load(data_config(source="side_by_side", dir=str(tmp_path / "folder")))
    where = str(pack(container, tmp_path / "folder", tmp_path / "packed", ["image"]))
    with pytest.raises(InputError, match=rf"look like single images.*if they are pairs, {container}/side_by_side/AB"):
        load(data_config(source=f"{container}/side_by_side", dir=where))
    assert load(data_config(source=f"{container}/side_by_side/AB", dir=where)).num_train == 7


# Zip files


@pytest.mark.slow
def test_archives_are_read_as_zipfile_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    contents = {f"folder/{i}/file {i} é.bin": rng.integers(0, 9, i * 997, np.uint8).tobytes() for i in range(12)}
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    path = tmp_path / "mixed.zip"
    with path.open("wb") as file:
        file.write(b"#!/bin/sh\nthis unpacks itself\n")
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = b"PK\5\6 in a comment"
            archive.mkdir("folder")
            for i, (name, data) in enumerate(contents.items()):
                info = zipfile.ZipInfo(name)
                info.compress_type = methods[i % 4]
                with archive.open(info, "w", force_zip64=i % 3 == 0) as member:
                    member.write(data)
    ours = Archive(path)
    assert ours.names == list(contents)
    with ThreadPoolExecutor(8) as pool:
        numbers = [i % 12 for i in range(400)]
        assert list(pool.map(ours.read, numbers)) == [contents[ours.names[i]] for i in numbers]
    if hasattr(os, "fork"):  # in a process without threads
        code = (
            "import os, sys, pathlib; from p2p_jax.data.containers.archive import Archive\n"
            "archive = Archive(pathlib.Path(sys.argv[1])); first = [archive.read(i) for i in range(12)]\n"
            "children = [os.fork() for _ in range(2)]\n"  # of which there are three, and the parent
            "same = all([archive.read(i) for i in range(12)] == first for _ in range(50))\n"
            "if not all(children): os._exit(not same)\n"
            "print(same, [os.waitpid(child, 0)[1] for child in children])"
        )
        assert run_python(code, str(path)).strip() == "True [0, 0]"


def test_archives_are_read_where_there_is_no_pread(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread", raising=False)  # on Windows
    for i in range(40):
        save(tmp_path / "folder" / f"{i}.png", noise(30, 30, 3, seed=i))
    archive = Archive(write_zip(tmp_path / "x.zip", tmp_path / "folder"))
    known = [(tmp_path / "folder" / name).read_bytes() for name in archive.names]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(archive.read, [i % 40 for i in range(400)])) == known * 10


class _OfMac(zipfile.ZipInfo):
    def _encodeFilenameFlags(self):
        return self.filename.encode(), self.flag_bits & ~0x800


@pytest.mark.slow
def test_a_zip_file_of_a_mac(tmp_path):
    """Resource forks, Finder's index, names in UTF-8 that are not marked so, folders as members, one around all."""
    folder = tmp_path / "folder"
    for split, count in COUNTS.items():
        write_pairs(folder / split, count)
    (folder / "train" / "000.png").rename(folder / "train" / "Größe.png")
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            inner = file.relative_to(folder).as_posix()
            archive.writestr(_OfMac(f"Meine Fotos/{inner}"), file.read_bytes())
            archive.writestr(f"__MACOSX/Meine Fotos/{file.parent.name}/._{file.name}", b"\0\5\26\7")
        archive.mkdir("Meine Fotos/train")
        archive.writestr("Meine Fotos/train/.DS_Store", b"\0")
        archive.writestr("Meine Fotos/train/._x.png", b"\0")
    assert b"Gr\xc3\xb6\xc3\x9fe" in path.read_bytes()
    known = load(data_config(source="side_by_side", dir=str(folder)))
    data = load(data_config(source="zip", dir=str(path)))
    assert_equal_streams(take(data.train(0), 4), take(known.train(0), 4))
    assert load_split(data_config(source="zip", dir=str(path)), "train").names[0][-1].endswith("train/Größe.png")


def test_names_of_dos(tmp_path):
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/xx.png", "train/yy.png"):
            info = zipfile.ZipInfo(name)
            info.create_system = 0
            archive.writestr(info, png(noise(16, 32, 3)))
    path.write_bytes(path.read_bytes().replace(b"train/xx", b"train\\\x84x"))
    config = data_config(source="zip/side_by_side/AB", dir=str(path), val_split="", batch_size=1)
    assert [name.partition("!")[2] for name in load_split(config, "train").names[0]] == ["train/yy.png", "train/äx.png"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["A/train", "trainA", "train.zip", "trainA.zip", "suffixes"])
def test_other_layouts_in_zip_files(layout, tmp_path):
    folder = write_sides(tmp_path / "folder", photo, photo)
    known = load(data_config(source="folders", dir=str(folder)))
    source, where = "zip", tmp_path / "packed"
    if layout.endswith(".zip"):
        for split in COUNTS:
            if layout == "train.zip":
                write_zip(where / f"{split}.zip", folder / split)
            else:
                for side in "AB":
                    write_zip(where / f"{split}{side}.zip", folder / split / side, top="inner/")
    else:
        moved = tmp_path / "moved"
        for file in folder.rglob("*.*"):
            split, side = file.parts[-3:-1]
            names = {
                "A/train": f"{side}/{split}/{file.name}",
                "trainA": f"{split}{side}/{file.name}",
                "suffixes": f"{split}/{file.stem}_{side}{file.suffix}",
            }
            target = moved / names[layout]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        source = "zip/suffixes" if layout == "suffixes" else "zip"
        where = write_zip(where / "x.zip", moved)
    data = load(data_config(source=source, dir=str(where)))
    assert_equal_streams(take(data.train(0), 4), take(known.train(0), 4))
    assert_equal_streams(data.validation(2), list(known.validation(2)))


def test_the_later_of_two_members_of_a_name_counts(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("train/a.png", b"an image once")
        archive.writestr("train/a.png", png(noise(16, 32, 3)))
    assert load(data_config(source="zip/side_by_side/AB", dir=str(path), val_split="", batch_size=1)).num_train == 1


def patched(path, before: bytes, after: bytes, at: int, size: int = 2):
    """Change a field of the directory's entry of a member, counted from its start."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    assert data[entry + at : entry + at + size] == before
    data[entry + at : entry + at + size] = after
    path.write_bytes(data)


@pytest.mark.slow
def test_zip_files_that_are_refused(tmp_path):
    def config(path, **more):
        return data_config(**{"source": "zip", "dir": str(path), "val_split": ""} | more)

    def fresh(name, members=None):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in (members or {"train/a.png": png(noise(16, 32, 3))}).items():
                archive.writestr(member, data)
        return path

    path = fresh("encrypted.zip")
    patched(path, struct.pack("<H", 0), struct.pack("<H", 1), 8)
    with pytest.raises(InputError, match=r"encrypted\.zip!train/a\.png is encrypted; unpack it with its password"):
        load(config(path))
    path = fresh("deflate64.zip")
    patched(path, struct.pack("<H", 8), struct.pack("<H", 9), 10)
    with pytest.raises(InputError, match=r"deflate64\.zip!train/a\.png is packed by Deflate64, which is not supported"):
        load(config(path))
    path = fresh("bomb.zip", {"train/a.npy": bytes(300_000_000)})
    with pytest.raises(InputError, match=r"bomb\.zip!train/a\.npy would become 300,000,000 bytes from 29"):
        load(config(path))
    path = fresh("lies.zip", {"train/a.png": png(noise(16, 32, 3)) + bytes(1000)})
    size = zipfile.ZipFile(path).infolist()[0].file_size
    patched(path, struct.pack("<L", size), struct.pack("<L", size - 1000), 24, 4)
    with pytest.raises(InputError, match=r"lies\.zip!train/a\.png cannot be unpacked \(it does not have the"):
        load(config(path))
    path = fresh("overlapping.zip", {f"train/{i}.png": noise(1000).tobytes() for i in range(3)})
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"PK\1\2") - 1100 :])
    with pytest.raises(InputError, match=r"overlapping\.zip is refused: its members are 3,\d+ bytes packed, more than"):
        load(config(path))
    path = fresh("flipped.zip", {"train/a.npy": noise(1000).tobytes()})
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"flipped\.zip!train/a\.npy cannot be unpacked"):
        load(config(path))
    path = fresh("cut.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cut\.zip cannot be read as a zip file \(there is no directory at its end"):
        load(config(path))
    with pytest.raises(InputError, match=r"has no images in train.*images are in photos/fit"):
        load(
            config(fresh("other.zip", {"photos/fit/a.png": png(noise(16, 32, 3)), "photos/test/a.png": b"", "x": b""}))
        )
    with pytest.raises(InputError, match=r"it holds no image"):
        load(config(fresh("empty.zip", {"a.txt": b""})))
    with pytest.raises(InputError, match=r"there is no zip file and no folder .*nowhere\.zip"):
        load(config(tmp_path / "nowhere.zip"))
    with pytest.raises(InputError, match=r"there is no .*train\.zip; .* holds bomb\.zip, cut\.zip"):
        load(config(tmp_path))
    with pytest.raises(InputError, match=r"is a zip file: set config\.data\.source=zip/folders"):
        load(config(path, source="folders"))
    with pytest.raises(InputError, match=r"config\.data\.source is 'zip/rows'; choose zip, zip/side_by_side"):
        load(config(path, source="zip/rows"))
    lonely = fresh("lonely.zip", {f"train/{x}.png": png(noise(16, 16, 3)) for x in ("A/1", "A/2", "B/1")})
    message = r"1 of 2 \+ 1 .*lonely\.zip!train/A/2\.png; add the missing ones or remove these, and pack it again$"
    with pytest.raises(InputError, match=message):
        load(config(lonely))


# ArrayRecord


def test_examples_are_read_as_tensorflow_reads_them():
    tf = pytest.importorskip("tensorflow")
    values = {"a": [b"\0\1PNG"], "ü/nested": [b"x", b"y"], "": [b""]}
    feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)) for k, v in values.items()}
    feature["n"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[1, -2]))
    message = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    found = _example().FromString(message).features.feature
    assert {k: list(v.bytes_list.value) for k, v in found.items()} == values | {"n": []}


def test_shards_as_tfds_names_them(tmp_path, capsys):
    pairs = {name: [png(noise(16, 16, 3, seed=i + 10 * (name > "j"))) for i in range(7)] for name in ("input", "real")}
    for split, bounds in (("train", (0, 3, 7)), ("validation", (0, 2, 2))):
        for i in range(2):
            part = {name: images[bounds[i] : bounds[i + 1]] for name, images in pairs.items()}
            write_records(tmp_path / f"facades-{split}.array_record-{i:05d}-of-00002", part)
    options = {"source": "array_record", "dir": str(tmp_path), "val_split": "validation"}
    data = load(data_config(**options))
    assert (data.num_train, data.num_val) == (7, 2)
    assert "A is input and B is real" in capsys.readouterr().out
    names = load_split(data_config(**options), "train").names[0]
    assert [name.rpartition("_record-")[2] for name in names[2:4]] == ["00000-of-00002#2", "00001-of-00002#0"]
    write_records(tmp_path / "one" / "train-00001-of-00003.array_record", pairs)
    with pytest.raises(InputError, match=r"has 3 parts, but 2 of them are missing, such as number 0"):
        load(data_config(**options | {"dir": str(tmp_path / "one"), "val_split": ""}))


def test_a_set_that_tfds_wrote(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    images = noise(5, 16, 16, 3)
    encodings = {"input_image": "png", "real_image": "jpeg"}
    features = {name: tfds.features.Image(shape=(None, None, 3), encoding_format=x) for name, x in encodings.items()}

    class Facades(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            info = tfds.features.FeaturesDict(features | {"id": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=info)

        def _split_generators(self, manager):
            rows = [{"input_image": x, "real_image": 255 - x, "id": str(i)} for i, x in enumerate(images)]
            return {"train": iter(enumerate(rows)), "validation": iter(enumerate(rows[:2]))}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Facades(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    known = builder.as_data_source("train")
    config = data_config(source="array_record", dir=str(builder.data_dir), val_split="validation")
    split = load_split(config, "train")
    assert len(split.names[0]) == 5 and len(load_split(config, "validation").names[0]) == 2
    for i in range(5):
        np.testing.assert_array_equal(split.original(0, i), known[i]["input_image"])
        np.testing.assert_array_equal(split.original(1, i), known[i]["real_image"])


def test_array_record_files_that_are_refused(tmp_path, capsys):
    def config(folder, **more):
        return data_config(**{"source": "array_record", "dir": str(folder), "val_split": "", "batch_size": 1} | more)

    good = write_raw_records(tmp_path / "train.array_record", [png(noise(16, 32, 3))] * 3)
    with pytest.raises(
        InputError, match=r"no file val\*\.array_record in .*; it holds train\.array_record: name the split"
    ):
        load(config(tmp_path, val_split="val", source="array_record/side_by_side/AB"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train.array_record").write_bytes(good.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"x/train\.array_record cannot be read as ArrayRecord"):
        load(config(tmp_path / "x"))
    write_raw_records(tmp_path / "texts" / "train.array_record", [b"\xff a text that is no message"])
    with pytest.raises(InputError, match=r"train\.array_record#0 is neither a tf\.train\.Example nor an image file"):
        load(config(tmp_path / "texts"))
    write_raw_records(tmp_path / "grouped" / "train.array_record", [png(noise(16, 32, 3))] * 40, "group_size:40")
    load(config(tmp_path / "grouped", source="array_record/side_by_side/AB"))
    assert "keeps its records in groups of 40" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"there is no folder '.*nowhere'"):
        load(config(tmp_path / "nowhere"))


def test_an_entry_that_some_records_lack_is_named(tmp_path):
    image = png(noise(16, 16, 3))
    path = write_records(tmp_path / "one.array_record", {"a": [image], "b": [image]})
    del path
    module = pytest.importorskip("array_record.python.array_record_module")
    write_records(tmp_path / "two.array_record", {"a": [image]})
    records = [module.ArrayRecordReader(str(tmp_path / f"{name}.array_record")).read([0])[0] for name in ("one", "two")]
    write_raw_records(tmp_path / "train.array_record", records)
    with pytest.raises(InputError, match=r"train\.array_record#1 has no bytes feature b; it has"):
        load(data_config(source="array_record", dir=str(tmp_path), val_split=""))


# Hugging Face


def test_arrays_bytes_and_files_in_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    deep = noise(4, 16, 16, 2, dtype=np.uint16)
    files = [save_image(tmp_path / f"{i}.png", noise(16, 16, 3, seed=i)) for i in range(4)]
    features = datasets.Features({"depth": datasets.Array3D((16, 16, 2), "uint16"), "photo": datasets.Image()})
    rows = {"depth": list(deep), "photo": [str(file) for file in files]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(str(tmp_path / "set"))
    config = data_config(
        source="hugging_face",
        dir=str(tmp_path / "set"),
        val_split="",
        columns="depth,photo",
        input__kind="uint16",
        input__channels=2,
    )
    split = load_split(config, "train")
    for i in range(4):
        np.testing.assert_array_equal(split.original(0, i), deep[i])
        np.testing.assert_array_equal(split.original(1, i), np.asarray(Image.open(files[i])))
    rows = {"a": [file.read_bytes() for file in files], "b": [file.read_bytes() for file in files[::-1]]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "bytes"))
    split = load_split(data_config(source="hugging_face", dir=str(tmp_path / "bytes"), val_split=""), "train")
    np.testing.assert_array_equal(split.original(0, 1), split.original(1, 2))


def save_image(path, pixels):
    save(path, pixels)
    return path


def test_a_folder_of_parquet_files_as_the_hub_has_them(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = write_sides(tmp_path / "folder", photo, photo)
    saved = pack("hugging_face", folder, tmp_path / "packed")
    (tmp_path / "hub").mkdir()
    for split in COUNTS:
        datasets.load_from_disk(str(saved / split)).to_parquet(
            str(tmp_path / "hub" / f"{split}-00000-of-00001.parquet")
        )
    known = load(data_config(source="folders", dir=str(folder)))
    data = load(data_config(source="hugging_face", dir=str(tmp_path / "hub"), val_split="validation"))
    assert_equal_streams(take(data.train(0), 3), take(known.train(0), 3))
    assert_equal_streams(data.validation(2), list(known.validation(2)))


def test_sets_of_hugging_face_that_are_refused(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    images = [png(noise(16, 16, 3, seed=i)) for i in range(2)]
    where = save_dataset(tmp_path / "set", {"train": {"a": images, "b": images}, "validation": {"a": images}}, n=[1, 2])
    config = data_config(source="hugging_face", dir=str(where))
    with pytest.raises(InputError, match=r"has no split val; it holds train, validation: name the split"):
        load(config)
    with pytest.raises(InputError, match=r"nothing is not a folder, and not a data set on the hub"):
        load(data_config(source="hugging_face", dir="nobody/nothing"))
    with pytest.raises(
        InputError, match=r"the column n holds Value\('int64'\); images are Image, bytes of image files"
    ):
        load(data_config(source="hugging_face", dir=str(where), val_split="", columns="a,n"))
    with pytest.raises(InputError, match=r"give it with --config\.data\.dir=FOLDER"):
        load(data_config(source="hugging_face"))
    with pytest.raises(InputError, match=r"there is no folder .*/nowhere; names on the hub are"):
        load(data_config(source="hugging_face", dir=str(tmp_path / "nowhere")))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none has no split train; it holds no splits"):
        load(data_config(source="hugging_face", dir=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("source", "module", "extra"),
    [("array_record", "array_record.python", "array_record"), ("hugging_face", "datasets", "huggingface")],
)
def test_a_library_that_is_missing_is_named(source, module, extra, tmp_path, monkeypatch):
    write_path = tmp_path / "train.array_record"
    write_path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'p2p_jax\[{extra}\]'"):
        load(data_config(source=source, dir=str(tmp_path)))
