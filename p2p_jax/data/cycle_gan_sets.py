"""The unpaired sets of the CycleGAN paper (Zhu et al., 2017), downloaded and checked by TensorFlow Datasets.

TFDS is imported by the function that needs it, so importing this module does not import it; TensorFlow is not needed.
"""

import contextlib
import difflib
import hashlib
import json
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

from p2p_jax.data.unpacking import files_of_zip
from p2p_jax.errors import InputError
from p2p_jax.process import cache_folder
from p2p_jax.storage.writing import write_text

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

NAMES = (
    "apple2orange",
    "cezanne2photo",
    "facades",
    "horse2zebra",
    "iphone2dslr_flower",
    "maps",
    "monet2photo",
    "summer2winter_yosemite",
    "ukiyoe2photo",
    "vangogh2photo",
)
SPLITS = ("train", "test")
_TIMEOUT = 20  # seconds of silence
_OWN_COPY = "give your own copy, a folder with trainA, trainB, testA and testB, with --config.data.dir=FOLDER"


def fetch(name: str, split: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the encoded images of one split, downloading the set where that is still to do.

    The archive is kept in ``$TFDS_DATA_DIR``, else in ``~/tensorflow_datasets``, in ``downloads``. It must be the
    published one, whose SHA-256 TFDS knows, when it comes and whenever it has changed since.

    Args:
      name: one of ``NAMES``.
      split: one of ``SPLITS``.

    Returns:
      The images of side A and those of side B, by their names in the archive and in the order of these.

    Raises:
      InputError: the name or the split is unknown, TFDS is missing, or the set cannot be had.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {close[0]}?" if close else _OWN_COPY
        raise InputError(f"there is no CycleGAN set {name!r}, only {', '.join(NAMES)}; {hint}")
    if split not in SPLITS:
        raise InputError(
            f"cycle_gan/{name} has the splits train and test, not {split!r}: "
            "set --config.data.train_split=train and --config.data.val_split=test"
        )
    tfds = import_tfds()
    builder = tfds.builder(f"cycle_gan/{name}", try_gcs=False)
    downloads = builder.data_dir_root / "downloads"
    by_hand = downloads / "manual" / f"{name}.zip"
    try:
        archive, published = _download(tfds, builder, f"{name}.zip")
        _verify(archive, published)
        side_a, side_b = _read(archive, name, split)
    except InputError:
        raise
    except Exception as error:  # TFDS raises what its libraries raise, and bare Exceptions of its own
        raise InputError(
            f"cycle_gan/{name} cannot be downloaded ({type(error).__name__}: {error}). "
            f"Either put {name}.zip there by hand, as {by_hand}, and run again, or {_OWN_COPY}"
        ) from error
    return side_a, side_b


def import_tfds() -> ModuleType:
    """Return the tensorflow_datasets module.

    Raises:
      InputError: TFDS cannot be imported.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"this data set is fetched by TensorFlow Datasets ({error}): pip install tensorflow-datasets, "
            "or give a copy that you already have with --config.data.dir=FOLDER"
        ) from error
    return tensorflow_datasets


def _download(tfds: ModuleType, builder: "tfds.core.DatasetBuilder", file_name: str) -> tuple[Path, str]:
    """Return the archive and the SHA-256 of the published one, both as TFDS knows them."""
    downloads = builder.data_dir_root / "downloads"
    (url, info), *_ = [(url, info) for url, info in builder.url_infos.items() if info.filename == file_name]
    kept = (downloads / builder.name).glob("*.zip")  # as TFDS names them; only the size is known
    if not (downloads / "manual" / file_name).exists() and not any(x.stat().length == info.size for x in kept):
        _probe(url)  # fails now: TFDS would retry for minutes first
    manager = tfds.download.DownloadManager(
        download_dir=downloads,
        manual_dir=downloads / "manual",
        url_infos=builder.url_infos,
        dataset_name=builder.name,
        register_checksums=False,
    )
    return Path(manager.download(url)), info.checksum


def _verify(archive: Path, published: str) -> None:
    """Refuse an archive that is not the published one any more; one that is as it was is not read through again."""
    record, stat = archive.with_name(f"{archive.name}.p2p_jax.json"), archive.stat()
    good = {"sha256": published, "size": stat.st_size, "modified": stat.st_mtime_ns}
    with contextlib.suppress(OSError, ValueError, RecursionError):  # there is none, or no whole one
        if json.loads(record.read_text()) == good and not cache_folder.distrusted(archive.parent, group=False):
            return
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != published:
        raise InputError(
            f"{archive} is not the published archive:\n"
            f"  published: SHA-256 {published}\n"
            f"  found: SHA-256 {found}\n"
            f"Delete it and run again to download it again; or, if you trust it, unpack it and {_OWN_COPY}"
        )
    with contextlib.suppress(OSError, InputError):  # others' folder, say: then it is read through each time
        write_text(record, json.dumps(good) + "\n")


def _read(archive: Path, name: str, split: str) -> list[dict[str, bytes]]:
    with zipfile.ZipFile(archive) as file:
        paths = sorted(PurePosixPath(member.filename) for member in files_of_zip(file, archive))
        return [
            {path.name: file.read(str(path)) for path in paths if path.parent == PurePosixPath(name, f"{split}{side}")}
            for side in "AB"
        ]


def _probe(url: str) -> None:
    """Ask for `url` once; an unreachable one raises OSError or HTTPException within seconds."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()  # it is the open response, too
        raise
