"""The true labels for label metrics, at the resolution of the label maps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from p2p_jax.data import Split
from p2p_jax.errors import InputError
from p2p_jax.images import palettes, pictures
from p2p_jax.images.domains import Domain

_LOOKED_AT = 12  # label maps that are checked to detect their palette


class GroundTruth:
    """The class of every pixel of one side of a split.

    Args:
      split: the split of the data set.
      side: side of the label maps: 0 for ``real_a``, 1 for ``real_b``.
      palette: their colours; None: those of the domain, or detected among ``palettes.BUILT_IN``.
      ids: a folder of single-channel PNGs of class numbers, one with the stem of each image, used instead of the
        colours.
      domain: domain of that side. Labels are used as class numbers; `palette` is then by default theirs.

    Raises:
      InputError: the palette is unknown or another one, a file is missing in the folder, or the side has no labels.
    """

    def __init__(
        self,
        split: Split,
        side: int,
        palette: palettes.Palette | None,
        ids: Path | None = None,
        domain: Domain | None = None,
    ):
        self._split, self._side = split, side
        self._classes = domain if domain is not None and domain.kind == "labels" else None
        if domain is not None and domain.kind not in ("uint8", "labels", "label_colors") and ids is None:
            raise InputError(f"label metrics need label maps; these images are {domain.kind}")
        self._files = None if ids is None else [ids / f"{Path(name).stem}.png" for name in split.names[side]]
        missing = [path for path in self._files or [] if not path.is_file()]
        if missing:
            raise InputError(f"`label_ids`: there is no file {missing[0]}; every image of the split needs one")
        if self._classes is not None:
            self.palette = _palette_of(self._classes, palette)
            return
        palette = palette or (domain.palette if domain is not None else None)
        some = [] if ids else [self._map(i) for i in range(min(_LOOKED_AT, len(split.names[side])))]
        if palette is None:
            name = palettes.recognise(some) if some else None
            if name is None:
                raise InputError("the colours of the label maps are not known: name them with `palette`")
            palette = palettes.BUILT_IN[name]
        elif some:
            palettes.check_palette(some, palette)
        self.palette = palette

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield [H, W] int32 of every example, in order."""
        for i in range(len(self._split.names[self._side])):
            yield self[i]

    def __getitem__(self, index: int) -> np.ndarray:
        """Read [H, W] int32 of one example."""
        if self._files:
            return _read_ids(self._files[index])
        if self._classes is not None:
            return self._classes.raw(self._split.original(self._side, index))[..., 0].astype(np.int32)
        return palettes.true_labels(self._map(index), self.palette)

    def _map(self, index: int) -> np.ndarray:
        return pictures.with_channels(self._split.original(self._side, index), 3)


def _palette_of(domain: Domain, palette: palettes.Palette | None) -> palettes.Palette:
    """Return the palette with the names and colours of the classes."""
    own = domain.palette
    if own is None:
        raise InputError(
            "the colours of the classes are not known: the run needs config.data.input.palette or output.palette"
        )
    if palette is not None and not np.array_equal(palette.colors, own.colors):
        raise InputError("the palette, or the segmenter's, differs from that of the run's labels")
    return palette or own


def _read_ids(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            ids = np.asarray(image)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"{path} must have one channel of class numbers; it is {ids.dtype} {ids.shape}")
    return ids.astype(np.int32)
