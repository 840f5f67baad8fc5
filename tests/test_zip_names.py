"""Names in zip files as Macs, Windows and cameras write them: partners are found as in folders."""

import unicodedata
import zipfile

import pytest

from p2p_jax.data.containers.archive import Archive
from p2p_jax.data.stream.sources import loader, make_source
from p2p_jax.errors import InputError
from support.configs import small_config
from support.images import noise, save

NFC, NFD = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))


def packed(path, image, names, system=3):
    """Pack one image under names as they are given."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, system
            archive.writestr(info, image)
    return path


@pytest.fixture
def image(tmp_path):
    save(tmp_path / "x.png", noise(20, 24, 3))
    return (tmp_path / "x.png").read_bytes()


def names_of(path, layout=""):
    data = small_config(
        data__source=f"zip/{layout}" if layout else "zip", data__dir=str(path), data__direction="AtoB"
    ).data
    return [name.partition("!")[2] for name in make_source(data, "train").names]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((NFC, "x"), (NFD, "x")),
        (("IMG_1", "img_2"), ("img_1", "IMG_2")),
        ((NFD.upper(), "a", "Case", "case"), (NFC, "A", "Case", "case")),
    ],
)
def test_partners_are_found_as_in_folders(a, b, image, tmp_path):
    members = [f"trainA/{name}.png" for name in a] + [f"trainB/{name}.PNG" for name in reversed(b)]
    found = names_of(packed(tmp_path / "x.zip", image, members))
    assert sorted(found) == sorted(members[: len(a)])
    for path in members:
        save(tmp_path / "folder" / path, noise(20, 24, 3))
    data = small_config(data__source="folders", data__dir=str(tmp_path / "folder"), data__direction="AtoB").data
    in_folder = [str(name).rpartition("folder/")[2] for name in make_source(data, "train").names]
    assert sorted(in_folder) == sorted(found)


def test_each_is_paired_with_its_own_partner(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for side, names in (("A", ("b", "A", NFC)), ("B", (NFD, "B", "a"))):
            for name in names:
                save(tmp_path / "x.png", noise(20, 24, 3, seed=len(name.casefold()) + ord(name[0].lower())))
                archive.write(tmp_path / "x.png", f"train{side}/{name}.png")
    data = small_config(data__source="zip", data__dir=str(tmp_path / "x.zip"), data__direction="AtoB").data
    source = make_source(data, "train")
    assert len(source.names) == 3
    for i, name in enumerate(source.names):
        a, b = loader(source)(i)
        assert (a == noise(20, 24, 3, seed=seed_of(name))).all()
        assert (a == b).all() == (not name.endswith(f"{NFC}.png"))  # of which B has a letter more


def seed_of(name):
    stem = name.rpartition("/")[2].removesuffix(".png")
    return len(stem.casefold()) + ord(stem[0].lower())


def test_names_without_a_partner_are_named_as_they_are(image, tmp_path):
    path = packed(tmp_path / "x.zip", image, ["trainA/One.png", "trainA/two.png", "trainB/one.png"])
    with pytest.raises(InputError, match=r"1 of 2 \+ 1 images have no partner .*trainA/two\.png"):
        names_of(path)
    path = packed(tmp_path / "x.zip", image, ["trainA/a.png", "trainA/A.png", "trainB/a.png", "trainB/Á.png"])
    with pytest.raises(InputError, match=r"2 of 2 \+ 2 images have no partner"):
        names_of(path)


def test_suffixes_in_small_letters(image, tmp_path):
    path = packed(tmp_path / "x.zip", image, ["train/x_a.png", "train/X_b.png", "train/y_A.png", "train/y_B.JPG"])
    with pytest.raises(InputError, match="2 of 1 . 1 images have no partner"):
        names_of(packed(tmp_path / "y.zip", image, ["train/x_a.png", "train/y_B.png"]), "suffixes")
    assert sorted(names_of(path, "suffixes")) == ["train/x_a.png", "train/y_A.png"]


@pytest.mark.parametrize("system", [0, 3, 10])
def test_folders_as_windows_divides_them(system, image, tmp_path):
    members = [f"set\\train{side}\\{i}.png" for side in "AB" for i in range(3)]
    path = packed(tmp_path / "x.zip", image, members, system)
    assert Archive(path).names == [name.replace("\\", "/") for name in members]
    assert names_of(path) == [f"set/trainA/{i}.png" for i in range(3)]


def test_a_backslash_beside_slashes_is_a_letter(image, tmp_path):
    path = packed(tmp_path / "x.zip", image, ["trainA/a\\b.png", "trainB/a\\b.png"])
    assert names_of(path) == ["trainA/a\\b.png"]
