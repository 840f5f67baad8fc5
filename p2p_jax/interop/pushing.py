"""A trained run, or its model file, on the Hugging Face hub, with a card that says what it is."""

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
    """What lies on the hub now.

    Attributes:
      address: of the repository.
      packed: the model file; its path is the name in the repository.
      card: the text of its README.
      files: names of all files that were put there.
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
    """Put a run's model file on the hub, with a card written from what the run knows; both are replaced if there.

    Images are put there only if they are named, since those of a data set may not be yours to publish.

    Args:
      workdir: the run's directory, or a model file of it.
      name: of the repository, "user/name"; made if missing.
      licence: under which others may use the model, such as "cc-by-4.0"; it has no default, but that of a model file.
      private: only for those who may read it, if the repository is made now.
      pictures: files of samples to be shown on the card; they are written anew as PNG, without what else is in them.
      checkpoint: see ``pack``, as are direction, dtype, trust and raw.
      direction: "AtoB" or "BtoA": only the generator of this way.
      dtype: of the weights.
      trust: code outside the library that the run's config may name.
      raw: take the generators as they were after the step, where the run has an average of them.
      token: of the hub; by default the one with which this machine is logged in, if it is.

    Raises:
      InputError: there is no licence, no such run, a picture cannot be read, the hub cannot be reached or does not let
        you write, or ``huggingface_hub`` is not installed.
    """
    hub.check_name(name)
    hub.import_hub()
    source = expanded(workdir)
    if not licence and source.is_file():
        licence = model_file.read(source).about["licence"].get("name", "")
    if not licence.strip():
        raise InputError(
            "`licence` is missing: say under which one others may use the model, such as cc-by-4.0, mit or other; it "
            "depends on the images that it was trained on, and so it is yours to say"
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
        raise InputError(f"`pictures`: {len(pictures)} samples are too many for a card; choose up to {_MOST_PICTURES}")
    return pictures


def _as_png(path: Path) -> bytes:
    """Return a picture as PNG, turned as it is to be seen; places and other words in it do not go along.

    Raises:
      InputError: it cannot be read.
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
