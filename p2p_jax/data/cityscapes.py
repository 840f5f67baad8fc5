"""Side-by-side pairs of the official Cityscapes archives, which only their owner may hand out."""

import contextlib
import io
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from p2p_jax.data.unpacking import HostileError, Names, files_of_zip
from p2p_jax.errors import InputError
from p2p_jax.images import limits
from p2p_jax.reporting import say
from p2p_jax.storage.writing import unfinished

OFFICIAL = {"train": 2975, "val": 500}
PHOTOS, LABELS = "leftImg8bit", "gtFine_color"

Key = tuple[str, str]  # split and stem, as in ("train", "aachen_000000_000019")


class Source(NamedTuple):
    """The images of one kind in one official archive.

    Attributes:
        path: the zip file or the folder.
        members: where in it each image lies.
        read: returns a member's bytes.
    """

    path: pathlib.Path
    members: dict[Key, str]
    read: Callable[[str], bytes]


def prepare(
    gtfine: str | os.PathLike[str],
    photos: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    size: int = 256,
) -> dict[str, int]:
    """Write `[photo | labels]` pairs as `output/SPLIT/STEM.png`, keeping those that are there already.

    Photos are resized with a bicubic filter; labels take the nearest pixel, so no colour is invented.

    Args:
        gtfine: `gtFine_trainvaltest.zip`, or the folder that it unpacks to.
        photos: `leftImg8bit_trainvaltest.zip`, or the folder that it unpacks to.
        output: folder that receives `train/` and `val/`.
        size: side of each half, in pixels.

    Returns:
        The number of pairs in each split.

    Raises:
        InputError: an archive is missing, damaged or the wrong one, or an image lacks its partner.
    """
    if size < 1:
        raise InputError(f"`size` must be at least 1 pixel, not {size}")
    output = pathlib.Path(output)
    counts = {}
    with _open(photos, PHOTOS, "photos") as photo_source, _open(gtfine, LABELS, "gtfine") as label_source:
        _check_partners(photo_source, label_source)
        _check_partners(label_source, photo_source)

        def write(key: Key) -> None:
            split, stem = key
            target = output / split / f"{stem}.png"
            if not _is_done(target, size):
                photo = _resized(photo_source, key, size, Image.Resampling.BICUBIC)
                label = _resized(label_source, key, size, Image.Resampling.NEAREST)
                _write_pair(photo, label, target)

        for split, official in OFFICIAL.items():
            keys = sorted(key for key in photo_source.members if key[0] == split)
            (output / split).mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for done, _ in enumerate(pool.map(write, keys), start=1):
                    if done % 500 == 0 and done < len(keys):
                        say(f"{split}: {done} of {len(keys)}")
            say(f"{split}: {len(keys)} pairs (the official set has {official})")
            counts[split] = len(keys)
    return counts


@contextlib.contextmanager
def _open(path: str | os.PathLike[str], kind: str, argument: str) -> Iterator[Source]:
    """Find the images called `SPLIT/CITY/STEM_kind.png` in a zip file or a folder."""
    path = pathlib.Path(path)
    with contextlib.ExitStack() as stack:
        read: Callable[[str], bytes]
        if path.is_dir():
            names = [file.relative_to(path).as_posix() for file in path.rglob("*.png")]
            read = lambda name: (path / name).read_bytes()  # noqa: E731
        else:
            try:
                archive = stack.enter_context(zipfile.ZipFile(path))
                names, read = [member.filename for member in files_of_zip(archive, path)], archive.read
            except FileNotFoundError:
                raise InputError(f"{argument}={path} is missing; get it from cityscapes-dataset.com.") from None
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
                raise InputError(
                    f"{argument}={path} is not a complete zip file ({error}): download it again."
                ) from error
        members = _members(names, kind)
        _check_stems(path, members)
        if not members:
            message = f"{argument}={path} holds no train/CITY/*_{kind}.png nor val/CITY/*_{kind}.png"
            other = LABELS if kind == PHOTOS else PHOTOS
            if _members(names, other):
                message += f" but *_{other}.png: are `gtfine` and `photos` swapped?"
            raise InputError(message)
        yield Source(path, members, read)


def _members(names: Sequence[str], kind: str) -> dict[Key, str]:
    # A stem never starts with a dot: macOS adds ._* files to archives that it packs.
    pattern = re.compile(rf"(?:^|/)(train|val)/[^/]+/([^/.][^/]*)_{kind}\.png$")
    return {(found[1], found[2]): name for name in names if (found := pattern.search(name))}


def _check_stems(path: pathlib.Path, members: dict[Key, str]) -> None:
    """Refuse images that would be written elsewhere than in the folder of their split, or onto each other."""
    names = Names()
    for (split, stem), member in members.items():
        try:
            if len(names.add(f"{split}/{stem}.png")) != 2:
                raise HostileError(f"{member!r} in it has the name of a folder")
        except HostileError as error:
            raise InputError(f"{path} is refused: {error}.") from error


def _check_partners(source: Source, other: Source) -> None:
    alone = sorted(source.members.keys() - other.members.keys())
    if alone:
        raise InputError(
            f"{len(alone)} images of {source.path} have no partner in {other.path}, "
            f"the first being {source.members[alone[0]]}."
        )


def _is_done(target: pathlib.Path, size: int) -> bool:
    try:
        with Image.open(target) as image:  # the header suffices: what is in place was whole when it got there
            return image.size == (2 * size, size)
    except OSError:
        return False


def _resized(source: Source, key: Key, size: int, resample: Image.Resampling) -> Image.Image:
    member = source.members[key]
    try:
        with Image.open(io.BytesIO(source.read(member)), formats=["PNG"]) as image:
            limits.check(source.path / member, *image.size, len(image.getbands()))
            return image.convert("RGB").resize((size, size), resample)
    except InputError:
        raise
    except Exception as error:  # libraries raise many kinds of errors for damaged or locked files
        raise InputError(f"{member} in {source.path} is damaged ({error}): download it again.") from error


def _write_pair(photo: Image.Image, label: Image.Image, target: pathlib.Path) -> None:
    pair = Image.new("RGB", (photo.width + label.width, photo.height))
    pair.paste(photo, (0, 0))
    pair.paste(label, (photo.width, 0))
    with unfinished(target) as partial:
        pair.save(partial, format="PNG")
