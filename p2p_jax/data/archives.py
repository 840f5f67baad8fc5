"""The pix2pix archives of the paper (Isola et al., 2017): downloaded once, checked, unpacked.

A cache directory looks like this afterwards; only the set itself is needed from then on::

    facades/          train/ val/ test/: renamed into place when it is whole, so its presence says it is
    facades.json      size and SHA-256 of the archive as first seen
    facades.tar.gz    the archive; it may be deleted, or put there by hand

Neither TensorFlow nor TFDS is needed.
"""

import gzip
import hashlib
import http.client
import json
import os
import pathlib
import posixpath
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib

from p2p_jax.errors import InputError
from p2p_jax.images.writing import write_text
from p2p_jax.process import cache_folder
from p2p_jax.reporting import say

BASE_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
NAMES = ("edges2handbags", "edges2shoes", "facades", "maps", "night2day")

_OWN_COPY = "A copy that you already have is taken with --config.data.dir=FOLDER, which holds train/."
_CITYSCAPES = (
    "cityscapes is no longer on the pix2pix server. "
    "Get the two official archives from cityscapes-dataset.com and run\n"
    "  python -m p2p_jax cityscapes --gtfine gtFine_trainvaltest.zip"
    " --photos leftImg8bit_trainvaltest.zip --output data/cityscapes\n"
    "then train with --config.data.dir=data/cityscapes."
)
_CHUNK = 1 << 20  # bytes
_TIMEOUT = 20  # seconds of silence


def fetch(name: str, cache_dir: str | os.PathLike[str] | None = None, *, base_url: str = BASE_URL) -> pathlib.Path:
    """Return the folder of a pix2pix set, downloading and unpacking its archive where that is still to do.

    A set that is there already is returned at once, without network. Otherwise work resumes by whole steps:
    a finished download is never repeated, a partial one starts again from its first byte, and an unpacking that was
    cut short starts again from the archive on disk. To resume a large download by the byte, place `NAME.tar.gz` in
    the cache directory with another tool (`wget --continue`); it is checked and unpacked like any other.

    The server publishes no checksums and speaks plain http. So the SHA-256 of the first archive that reads
    through to its end is recorded beside it, and every later archive of that name must match.

    Args:
        name: one of `NAMES`.
        cache_dir: where sets are kept; by default `p2p_jax.process.cache_folder.directory()`.
        base_url: folder on a server that holds `NAME.tar.gz`, for mirrors.

    Returns:
        The folder that holds `train/`, `val/` and, for some sets, `test/`.

    Raises:
        InputError: the name is unknown, the cache directory cannot be made, or the archive cannot be had, is
            damaged, differs from its record or has members that point outside.
    """
    if name == "cityscapes":
        raise InputError(_CITYSCAPES)
    if name not in NAMES:
        raise InputError(f"no pix2pix archive is called {name!r}; there are {', '.join(NAMES)}. {_OWN_COPY}")
    root = pathlib.Path(cache_dir or cache_folder.directory()).expanduser()
    folder, archive, record = root / name, root / f"{name}.tar.gz", root / f"{name}.json"
    if folder.is_dir():
        return folder

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot keep data sets in {root} ({error}): name another folder in $P2P_JAX_CACHE."
        ) from error
    url = f"{base_url.rstrip('/')}/{archive.name}"
    # What is unfinished lies in here and goes on success and failure alike; only a kill leaves it, as litter.
    with tempfile.TemporaryDirectory(prefix=f"{name}.tmp-", dir=root) as scratch:
        if archive.exists():
            _verify(archive, record, source=str(archive))
        else:
            download = pathlib.Path(scratch, archive.name)
            _download(url, download)
            _verify(download, record, source=url)
            os.replace(download, archive)
        _unpack(archive, pathlib.Path(scratch))
        try:
            os.rename(pathlib.Path(scratch, name), folder)
        except OSError:
            if not folder.is_dir():  # else another process has finished the same set meanwhile
                raise
    return folder


def _download(url: str, target: pathlib.Path) -> None:
    """Download `url` into a file that is not there yet."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, target.open("wb") as file:
            length = int(response.headers.get("Content-Length", 0))
            say(f"downloading {url} ({length / 1e6:,.0f} MB) ...")
            shutil.copyfileobj(response, file, _CHUNK)
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
    known = json.loads(record.read_text())
    if (known["sha256"], known["size"]) != (found["sha256"], found["size"]):
        raise InputError(
            f"{source} is not the archive that was first downloaded:\n"
            f"  recorded in {record}: SHA-256 {known['sha256']}, {known['size']} bytes\n"
            f"  found: SHA-256 {found['sha256']}, {found['size']} bytes\n"
            f"Delete {record.with_suffix('.tar.gz')} if it is there and run again to download it anew; "
            f"if the server's archive has really changed and you trust it, delete {record} as well."
        )


def _read_through(archive: pathlib.Path, name: str, *, source: str) -> None:
    """Refuse an archive that is damaged, not the set `name`, or points outside of itself."""
    splits = set()
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as members:
                for member in members:
                    if _escapes(member):
                        raise InputError(f"{source} is refused: {member.name!r} in it points outside of it.")
                    top, _, rest = posixpath.normpath(member.name).partition("/")
                    if top == name and member.isfile():
                        splits.add(rest.partition("/")[0])
            while stream.read(_CHUNK):  # gzip compares its checksum at the very end
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            f"{source} is damaged or cut short ({error}). "
            f"Delete {name}.tar.gz in the cache directory if it is there and run again. {_OWN_COPY}"
        ) from error
    if not splits >= {"train", "val"}:
        raise InputError(f"{source} is not a pix2pix archive: it lacks {name}/train/ or {name}/val/.")


def _escapes(member: tarfile.TarInfo) -> bool:
    targets = [member.name]
    if member.issym():
        targets.append(posixpath.join(posixpath.dirname(member.name), member.linkname))
    elif member.islnk():
        targets.append(member.linkname)
    return any(posixpath.isabs(t) or posixpath.normpath(t).split("/")[0] == ".." for t in targets)


def _unpack(archive: pathlib.Path, scratch: pathlib.Path) -> None:
    """Write the members of a verified archive under `scratch`."""
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile() and (source := members.extractfile(member)):
                target = scratch / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
