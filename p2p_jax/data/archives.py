"""The pix2pix archives of the paper (Isola et al., 2017): downloaded once, checked, unpacked.

A cache directory looks like this afterwards; only the set itself is needed from then on::

    facades/          train/ val/ test/: renamed into place when it is whole, so its presence says it is
    facades.json      size and SHA-256 of the archive as first seen
    facades.tar.gz    the archive; it may be deleted, or put there by hand

Neither TensorFlow nor TFDS is needed.
"""

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator

from p2p_jax.data.unpacking import HostileError, files_of_tar
from p2p_jax.errors import InputError
from p2p_jax.process import cache_folder
from p2p_jax.reporting import say
from p2p_jax.storage.writing import unfinished_folder, write_text

BASE_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
NAMES = ("edges2handbags", "edges2shoes", "facades", "maps", "night2day")

_OWN_COPY = "To use a copy that you already have, give --config.data.dir=FOLDER, the folder that holds train/."
_CITYSCAPES = (
    "cityscapes is no longer on the pix2pix server. "
    "Get the two official archives from cityscapes-dataset.com and run\n"
    "  python -m p2p_jax cityscapes --gtfine gtFine_trainvaltest.zip"
    " --photos leftImg8bit_trainvaltest.zip --output data/cityscapes\n"
    "then train with --config.data.dir=data/cityscapes."
)
_CHUNK = 1 << 20  # bytes
_TIMEOUT = 20  # seconds of silence
_LARGEST = 20 * 10**9  # bytes of an archive; the largest has 9e9


def fetch(name: str, cache_dir: str | os.PathLike[str] | None = None, *, base_url: str = BASE_URL) -> pathlib.Path:
    """Return the folder of a pix2pix set, downloading and unpacking its archive if needed.

    A set that is there already is returned at once, without network. Otherwise work resumes by whole steps:
    a finished download is never repeated, a partial one starts again from its first byte, and an unpacking that was
    cut short starts again from the archive on disk. To resume a large download by the byte, place `NAME.tar.gz` in
    the cache directory with another tool (`wget --continue`); it is checked and unpacked like any other.

    The server publishes no checksums and speaks plain http. So the SHA-256 of the first archive that reads
    through to its end is recorded next to it, and every later archive of that name must match.

    Args:
        name: one of `NAMES`.
        cache_dir: where sets are kept; by default `p2p_jax.process.cache_folder.directory()`.
        base_url: folder on a server that holds `NAME.tar.gz`, for mirrors.

    Returns:
        The folder that holds `train/`, `val/` and, for some sets, `test/`.

    Raises:
        InputError: the name is unknown, the cache directory cannot be made or everybody may write into it, or the
            archive cannot be downloaded, is damaged, differs from its record or has members other than plain files.
    """
    if name == "cityscapes":
        raise InputError(_CITYSCAPES)
    if name not in NAMES:
        raise InputError(f"there is no pix2pix archive {name!r}; choose {', '.join(NAMES)}. {_OWN_COPY}")
    root = pathlib.Path(cache_dir or cache_folder.directory()).expanduser()
    folder, archive, record = root / name, root / f"{name}.tar.gz", root / f"{name}.json"
    if reason := cache_folder.distrusted(root, group=False):
        if "belongs to" not in reason:
            raise InputError(f"{root} is not used: {reason}, or set $P2P_JAX_CACHE to another folder. {_OWN_COPY}")
        say(f"note: {reason}; they can put other images there")
    if folder.is_dir():
        return folder

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot keep data sets in {root} ({error}): set $P2P_JAX_CACHE to another folder.") from error
    url = f"{base_url.rstrip('/')}/{archive.name}"
    with unfinished_folder(folder) as scratch:  # it goes on success and failure alike; a kill leaves it, as litter
        if archive.exists():
            _verify(archive, record, source=str(archive))
        else:
            download = scratch / archive.name
            _download(url, download)
            _verify(download, record, source=url)
            os.replace(download, archive)
        _unpack(archive, scratch)
        if hasattr(os, "sync"):
            os.sync()  # or a power cut may leave the folder's name, and not all that is in it
        try:
            os.rename(scratch / name, folder)
        except OSError as error:
            if not folder.is_dir():  # else another process has finished the same set meanwhile
                raise InputError(f"{folder} cannot be made ({error.strerror or error})") from error
    return folder


def _download(url: str, target: pathlib.Path) -> None:
    """Download `url` into a file that is not there yet."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, target.open("wb") as file:
            length = int(response.headers.get("Content-Length", 0))
            free = shutil.disk_usage(target.parent).free
            if not 0 <= length <= min(_LARGEST, free):
                raise OSError(
                    f"it has {length / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are free in {target.parent}"
                )
            say(f"downloading {url} ({length / 1e6:,.0f} MB) ...")
            while piece := response.read(_CHUNK):
                if file.tell() + len(piece) > (length or _LARGEST):
                    raise OSError(f"it is longer than {length or _LARGEST:,} bytes")
                file.write(piece)
        found = target.stat().st_size
        if found < length:
            raise OSError(f"the connection ended after {found:,} of {length:,} bytes")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"cannot download {url}: {error}. {_OWN_COPY}") from error


def _verify(archive: pathlib.Path, record: pathlib.Path, *, source: str) -> None:
    """Check `archive` against its record, or, where there is none, read it through and write one."""
    with archive.open("rb") as file:
        found = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": archive.stat().st_size}
    if not record.exists():
        _read_through(archive, record.stem, source=source)
        write_text(record, json.dumps(found) + "\n")
        return
    try:
        known = json.loads(record.read_text())
        known = {"sha256": str(known["sha256"]), "size": int(known["size"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{record} is damaged ({error!r}): delete it and run again to make a new one") from error
    if known != found:
        raise InputError(
            f"{source} is not the archive that was first downloaded:\n"
            f"  recorded in {record}: SHA-256 {known['sha256']}, {known['size']} bytes\n"
            f"  found: SHA-256 {found['sha256']}, {found['size']} bytes\n"
            f"Delete {record.with_suffix('.tar.gz')} if it is there and run again to download it again; "
            f"if the server's archive has really changed and you trust it, delete {record} as well."
        )


def _read_through(archive: pathlib.Path, name: str, *, source: str) -> None:
    """Refuse an archive that is damaged, not the set `name`, or holds members that must not be unpacked."""
    splits = set()
    with _refusing(source, name), gzip.open(archive) as stream:
        for _, _, parts in files_of_tar(stream, archive):
            if parts[0] == name and len(parts) > 2:
                splits.add(parts[1])
        while stream.read(_CHUNK):  # gzip compares its checksum at the very end
            pass
    if not splits >= {"train", "val"}:
        raise InputError(f"{source} is not a pix2pix archive: it lacks {name}/train/ or {name}/val/.")


@contextlib.contextmanager
def _refusing(source: str, name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except HostileError as error:
        raise InputError(f"{source} is refused: {error}. {_OWN_COPY}") from error
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the archive's
            raise InputError(f"{source} cannot be unpacked ({error.strerror})") from error
        raise InputError(
            f"{source} is damaged or cut short ({error}). "
            f"Delete {name}.tar.gz in the cache directory if it is there and run again. {_OWN_COPY}"
        ) from error


def _unpack(archive: pathlib.Path, scratch: pathlib.Path) -> None:
    """Write the files of the set under `scratch`, a new folder; each is checked again, whoever checked it before."""
    name = archive.name.removesuffix(".tar.gz")
    with _refusing(str(archive), name), gzip.open(archive) as stream:
        for members, member, parts in files_of_tar(stream, archive):
            source = members.extractfile(member)
            if parts[0] != name or source is None:
                continue
            target = scratch.joinpath(*parts)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                file = target.open("xb")  # a new one, never an existing file
            except OSError as error:
                raise InputError(f"{target} cannot be written ({error.strerror or error})") from error
            with file:
                shutil.copyfileobj(source, file, _CHUNK)
