"""Uploads a trained run, or its model file, to the Hugging Face hub, with a model card."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from p2p_jax.config.paths import expanded
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.interop.packing import Packed, pack
from p2p_jax.sharing import hub
from p2p_jax.sharing.card import write_card
from p2p_jax.training import model_file

_MOST_PICTURES = 20


class Pushed(NamedTuple):
    """An upload on the hub.

    Attributes:
      address: address of the repository.
      packed: the model file; its path is the name in the repository.
      card: text of the README.
      files: names of all uploaded files.
    """

    address: str
    packed: Packed
    card: str
    files: tuple[str, ...]


def push_to_hub(
    workdir: str | Path,
    name: str,
    *,
    licence: str = "",
    private: bool = False,
    pictures: Sequence[str | Path] = (),
    checkpoint: str | int = "latest",
    direction: str | None = None,
    dtype: str | None = None,
    trust: Trust = (),
    raw: bool = False,
    token: str | None = None,
) -> Pushed:
    """Upload a run's model file to the hub, with a card written from the run's metadata; existing ones are replaced.

    Images are uploaded only if you name them: you may not have the right to publish those of a data set.

    Args:
      workdir: directory of the run, or its model file.
      name: name of the repository, "user/name"; made if missing.
      licence: licence for other users, such as "cc-by-4.0"; required, unless a model file has one.
      private: whether a new repository is private.
      pictures: files of samples for the card; they are saved again as PNG, without metadata.
      checkpoint: see ``pack``, also for direction, dtype, trust and raw.
      direction: "AtoB" or "BtoA": pack only the generator of this direction.
      dtype: dtype of the weights.
      trust: code outside the library that the run's config may name.
      raw: use the generators as they were after the step, if the run has an average of them.
      token: token of the hub; by default that of the login on this machine, if there is one.

    Raises:
      InputError: the licence is missing, the run does not exist, a picture cannot be read, the hub cannot be reached or
        refuses the upload, or ``huggingface_hub`` is not installed.
    """
    hub.check_name(name)
    hub.import_hub()
    source = expanded(workdir)
    if not licence and source.is_file():
        licence = model_file.read(source).about["licence"].get("name", "")
    if not licence.strip():
        raise InputError(
            "`licence` is missing: give the licence for other users, such as cc-by-4.0, mit or other; it depends on "
            "the training images, so only you can choose it"
        )
    samples = {f"samples/{number}.png": _as_png(Path(x)) for number, x in enumerate(_few(pictures), 1)}
    with tempfile.TemporaryDirectory(prefix="p2p_jax_push_") as folder:
        path = Path(folder) / hub.FILENAME
        packed = pack(source, path, checkpoint, direction, dtype=dtype, licence=licence, trust=trust, raw=raw)
        card = write_card(packed.about, name, hub.FILENAME, packed.digest, packed.megabytes, list(samples))
        files: dict[str, Path | bytes] = {hub.FILENAME: path, "README.md": card.encode(), **samples}
        message = f"Step {packed.about['model']['step']}, packed by p2p_jax"
        address = hub.upload(name, files, message, private=private, token=token)
    return Pushed(address, packed._replace(path=Path(hub.FILENAME)), card, tuple(files))


def _few(pictures: Sequence[str | Path]) -> Sequence[str | Path]:
    if len(pictures) > _MOST_PICTURES:
        raise InputError(f"`pictures`: {len(pictures)} samples are too many for a card; give at most {_MOST_PICTURES}")
    return pictures


def _as_png(path: Path) -> bytes:
    """Return a picture as PNG, rotated upright and without metadata.

    Raises:
      InputError: the picture cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            plain = ImageOps.exif_transpose(picture).convert("RGB")
            found = io.BytesIO()
            Image.frombytes("RGB", plain.size, plain.tobytes()).save(found, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"`pictures`: {path} cannot be read as a picture ({error})") from error
    return found.getvalue()
