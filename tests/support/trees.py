"""Folders as published data sets and people's machines have them, drawn small."""

import unicodedata
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from support.images import noise, save

SIZE = (32, 64)  # height and width of Cityscapes' images here


def with_text(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG with text chunks, as Cityscapes' photographs have them."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "left8bit")
    info.add_text("Comment", "x" * 300, zip=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, pnginfo=info)


def labels(height: int, width: int, classes: int, seed: int) -> np.ndarray:
    """Return blocks of class numbers."""
    blocks = noise(height // 8, width // 8, low=0, high=classes, seed=seed)
    return np.repeat(np.repeat(blocks, 8, axis=0), 8, axis=1)


def cityscapes(root: Path) -> None:
    """Draw photographs and label maps in folders of cities."""
    for split, cities in {"train": ("aachen", "bochum"), "val": ("frankfurt",)}.items():
        for city in cities:
            for i in range(4):
                stem, seed = f"{city}_{i:06d}_000019", i + 10 * len(city)
                with_text(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", noise(*SIZE, 3, seed=seed))
                classes, folder = labels(*SIZE, 6, seed), root / "gtFine" / split / city
                save(folder / f"{stem}_gtFine_labelIds.png", classes)
                save(folder / f"{stem}_gtFine_color.png", np.stack([classes * 40] * 3 + [classes * 0 + 255], axis=-1))
                save(folder / f"{stem}_gtFine_instanceIds.png", classes.astype(np.uint16) * 1000)
                (folder / f"{stem}_gtFine_polygons.json").write_text("{}")


def cmp_base(root: Path) -> None:
    """Draw the base of CMP's facades: photographs, label maps with palettes and XML of one stem in one folder."""
    root.mkdir(parents=True)
    for i in range(1, 13):
        height, width = 40 + 2 * i, 48 + i
        save(root / f"cmp_b{i:04d}.jpg", noise(height, width, 3, seed=i))
        classes = labels(height + 8, width + 8, 12, i)[:height, :width] + 1
        image = Image.fromarray(classes).convert("P")
        image.putpalette(np.random.RandomState(0).randint(0, 256, 39).tolist())
        image.save(root / f"cmp_b{i:04d}.png")
        (root / f"cmp_b{i:04d}.xml").write_text("<annotation/>")


def phone(root: Path) -> None:
    """Draw photographs as a phone makes them: HEIC and JPEG, held in several ways, with a folder that lies in it."""
    import pillow_heif

    (root / "2024" / "Ärger").mkdir(parents=True)
    for i in range(12):
        image, exif = Image.fromarray(noise(48, 64, 3, seed=i)), Image.Exif()
        exif[0x0112] = (1, 3, 6, 8)[i % 4]
        folder = root / "2024" / ("Ärger" if i % 2 else "")
        if i % 3:
            image.save(folder / f"IMG_{i:04d}.JPG", "JPEG", exif=exif)
        else:
            pillow_heif.from_pillow(image).save(folder / f"IMG_{i:04d}.HEIC", format="HEIF", exif=exif.tobytes())
    (root / "2024" / ".DS_Store").write_bytes(b"x")
    (root / "2024" / "IMG_0001.MOV").write_bytes(b"x")


def mac_zip(path: Path, folder: Path) -> None:
    """Pack a folder as a Mac does: with ``__MACOSX``, ``._`` files and letters in two parts."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            name = unicodedata.normalize("NFD", str(file.relative_to(folder.parent)))
            if file.is_dir():
                archive.writestr(name + "/", b"")
                continue
            archive.write(file, name)
            parent, _, own = name.rpartition("/")
            archive.writestr(f"__MACOSX/{parent}/._{own}", b"\x00\x05\x16\x07" + bytes(80))


def drive(root: Path) -> None:
    """Draw retinas, some of whose TIFFs have opacity, and masks of 0 and 255 under other names."""
    import tifffile

    for i in range(21, 33):
        rgb = noise(48, 48, 3, seed=i)
        opaque = np.concatenate([rgb, np.full((48, 48, 1), 255, np.uint8)], axis=-1)
        image = root / "images" / f"{i}_training.tif"
        image.parent.mkdir(parents=True, exist_ok=True)
        options = {} if i % 2 else {"extrasamples": ["unassalpha"]}
        tifffile.imwrite(image, rgb if i % 2 else opaque, photometric="rgb", **options)
        save(root / "1st_manual" / f"{i}_manual1.png", labels(48, 48, 2, i) * np.uint8(255))


def forty_sizes(root: Path) -> None:
    """Draw photographs of forty sizes in one folder."""
    for i in range(40):
        save(root / f"{i:02d}.jpg", noise(33 + 3 * i, 150 - 2 * i, 3, seed=i))
