"""Where images come from. A source is a function ``(data section of the config, split) -> Source or Unpaired``.

Images are [H, W, C] as they are stored (``p2p_jax.images.domains`` calls what becomes of them raw); A stands left in a
side-by-side file, before ``direction`` is applied. Sources are made without TensorFlow, which ``Source.read`` needs.
"""

import functools
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from p2p_jax.config import resolve
from p2p_jax.data import checks, cycle_gan_sets, identity, layouts
from p2p_jax.data.containers import contents
from p2p_jax.data.containers.opening import open_container
from p2p_jax.data.layouts import Layout
from p2p_jax.data.stream import contained, reading
from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.data.stream.source import Source, Unpaired, loader, reader
from p2p_jax.data.toy import facades, night
from p2p_jax.errors import InputError
from p2p_jax.images import domains, formats
from p2p_jax.images.domains import Domain


def make_source(data: ConfigDict, split: str) -> Source | Unpaired:
    """Build the source that ``data.source`` names.

    Raises:
      InputError: unknown source, or its files cannot be used.
    """
    kind, _, name = data.source.partition("/")
    if kind == "cycle_gan" and name and not data.dir:
        return _cycle_gan(name, split)
    if contents.parse(data.source):
        return _from_container(data, split)
    if layouts.is_file_source(data.source):
        if Path(data.dir).suffix.lower() == ".zip" and Path(data.dir).is_file():
            raise InputError(f"config.data.dir={data.dir} is a zip file: set config.data.source=zip/{data.source}")
        return of_layout(layouts.find(data, split), data)
    if data.source == "given":
        raise InputError(
            "the run was trained on data given to train(data=...), which its config cannot open: give the data "
            "again, evaluate(workdir, data=...), or a source, load_split(config, split, source)"
        )
    if ":" in data.source:
        make = resolve(data.source, "config.data.source")
        source = make(data, split) if callable(make) else None
        if not isinstance(source, Source | Unpaired):
            raise InputError(
                f"config.data.source={data.source} is not a function from config.data and a split to a Source"
            )
        return source
    if data.source not in _DRAWN:
        raise InputError(
            f"config.data.source is {data.source!r}; choose {', '.join([*_DRAWN, *layouts.SOURCES, *contents.KINDS])}, "
            "pix2pix/NAME, cycle_gan/NAME or 'module:name'"
        )
    return _DRAWN[data.source](data, split)


def from_arrays(a: np.ndarray, b: np.ndarray, names: Sequence[str] | None = None) -> Source:
    """Make a source of pairs of images in memory; ``load`` takes it as ``train`` or ``val``.

    Args:
      a: [N, H, W, C] in the units and of the dtype of ``config.data.input.kind`` (float32 for "float"; class numbers
        with C = 1 for "labels"). Under the direction BtoA it becomes the output, which ``config.data.output``
        describes.
      b: the same of the other side, of the same N, H and W.
      names: one per example; numbers if omitted.

    Raises:
      InputError: an array does not hold such images, or they do not fit together.
    """
    if a.shape[:3] != b.shape[:3]:
        raise InputError(f"arrays of pairs must have the same N, H, W; they are {a.shape} and {b.shape}")
    if names is not None and len(names) != len(a):
        raise InputError(f"there are {len(names)} names for {len(a)} pairs of images")
    return _in_memory(names or [str(i) for i in range(len(a))], a, b)._replace(mark=_mark(a, b))


def unpaired_from_arrays(a: np.ndarray, b: np.ndarray) -> Unpaired:
    """Make an unpaired source of images in memory; see ``from_arrays``.

    Args:
      a: [N, H, W, C].
      b: the same; its N, H, W and C may be others.
    """
    sides = (("A", a), ("B", b))
    return Unpaired(*(_in_memory([f"{s}{i}" for i in range(len(x))], x)._replace(mark=_mark(x)) for s, x in sides))


def _in_memory(names: Sequence[str], *arrays: np.ndarray) -> Source:
    for x in arrays:
        if x.dtype.name not in ("uint8", "uint16", "int16", "float32") or x.ndim != 4 or not x.size:
            raise InputError(
                "arrays must be uint8, uint16, int16 or float32 [N, H, W, C] with at least one image; "
                f"one is {x.dtype} {x.shape}"
            )
        if x.dtype.kind == "f" and np.isinf(x).any():
            raise InputError("an array holds infinite numbers; use NaN for unknown values")
    tensors = reading.once(lambda tf: [tf.constant(x) for x in arrays])
    return Source(
        names,
        lambda index: tuple(tensorflow().gather(tensor, index) for tensor in tensors()),
        load=lambda index: tuple(x[index] for x in arrays),
    )


def _mark(*arrays: np.ndarray) -> str:
    """Return eight digits that differ between arrays."""
    checksum = 0
    for x in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(x).data, checksum)
    return f"{checksum:08x}"


def of_layout(layout: Layout, data: ConfigDict) -> Source | Unpaired:
    """Make a source of the files of a split, after a look at every one of them.

    Raises:
      InputError: one cannot be used.
    """
    kinds = domains.of_files(data)
    headers = checks.require(layout, kinds, data)
    a, b = (_files(paths, [kind], headers) for paths, kind in zip((layout.a, layout.b), kinds, strict=True))
    if not layout.paired:
        return Unpaired(a._replace(layout=layout), b._replace(layout=layout))
    if data.source == "photos":
        return b._replace(layout=layout)
    if layout.halves:
        return _files(layout.a, kinds, headers, layout.halves)._replace(layout=layout)
    both = [path for pair in zip(layout.a, layout.b, strict=True) for path in pair]
    load_a, load_b, read_a, read_b = loader(a), loader(b), reader(a), reader(b)
    return Source(
        a.names,
        lambda index: (*read_a(index), *read_b(index)),
        # In folders, names identify partners; where a CSV or options name the files, they need not.
        mark=f"|{b.fingerprint}" if data.source == "csv" or data.dir_b or data.suffix_b else "",
        layout=layout,
        load=lambda index: (*load_a(index), *load_b(index)),
        digest=lambda: identity.of_files(both),
    )


def _files(
    paths: Sequence[Path], kinds: Sequence[Domain], headers: Mapping[Path, formats.Header], halves: str = ""
) -> Source:
    read, load = reading.of_files(paths, kinds, headers, halves)
    return Source([str(path) for path in paths], read, load=load, digest=lambda: identity.of_files(paths))


def _from_container(data: ConfigDict, split: str) -> Source | Unpaired:
    """Make a source of images in a container."""
    opened, recognised = open_container(data, split, domains.of_files(data))
    sides = []
    for side in opened:
        read, load = contained.of_stored(side.read, side.kinds, side.numbered.names)
        source = Source(side.numbered.names, read, load=load, identity=recognised, told=side.told)
        if not data.source.startswith("zip"):  # which lists a checksum of every file
            source = source._replace(digest=functools.partial(_digest, side.numbered))
        sides.append(source)
    return sides[0] if len(sides) == 1 else Unpaired(*sides)


def _digest(numbered: contents.Numbered) -> str:
    """Return a digest of the contents of a container's images."""

    def read(index: int) -> list[bytes]:
        found = [image.contents for image in numbered.read(index)]
        return [one if isinstance(one, bytes) else np.ascontiguousarray(one).tobytes() for one in found]

    return identity.of_examples(len(numbered.names), read)


def _cycle_gan(name: str, split: str) -> Unpaired:
    """Hold one of the published sets in memory as it is encoded."""

    def source(side: str, encoded: Mapping[str, bytes]) -> Source:
        files, checksum = list(encoded.values()), 0
        for one in files:
            checksum = zlib.crc32(one, checksum)
        tensor = reading.once(lambda tf: tf.constant(files))

        def load(index):
            with Image.open(io.BytesIO(files[index])) as image:
                return (np.asarray(image.convert("RGB")),)

        return Source(
            names=[f"cycle_gan/{name}/{split}{side}/{file}" for file in encoded],
            # Always three channels: some files are grayscale.
            read=lambda index: (reading.decode(tensor()[index], channels=3),),
            mark=f"{checksum:08x}",
            load=load,
        )

    return Unpaired(*map(source, "AB", cycle_gan_sets.fetch(name, split)))


def toy(data: ConfigDict, split: str) -> Source:
    """Draw the built-in toy facades, photograph left (A) and label map right (B), at the size they are used at."""
    images = _toy_facades(data, split)
    photos, labels = np.stack([image.photo for image in images]), np.stack([image.labels for image in images])
    return _in_memory([f"{split}-{i}" for i in range(len(images))], photos, labels)


def toy_unpaired(data: ConfigDict, split: str) -> Unpaired:
    """Draw one half of the toy facades by day (A) and the other half, other houses, at night (B)."""
    images = _toy_facades(data, split)
    half = len(images) // 2
    days = np.stack([image.photo for image in images[:half]])
    nights = np.stack([night.at_night(image) for image in images[half:]])
    return Unpaired(*(_in_memory([f"{s}{i}" for i in range(len(x))], x) for s, x in (("A", days), ("B", nights))))


def _toy_facades(data: ConfigDict, split: str) -> list[facades.ToyFacade]:
    size = data.load_size if split == data.train_split and "crop" in data.preprocess else data.crop_size
    if split not in facades.SPLIT_SIZES:
        raise InputError(f"toy_facades has the splits {', '.join(facades.SPLIT_SIZES)}, not {split!r}")
    return [facades.render(i, split, size) for i in range(facades.SPLIT_SIZES[split])]


_DRAWN: "dict[str, Callable[[ConfigDict, str], Source | Unpaired]]" = {
    "toy_facades": toy,
    "toy_unpaired": toy_unpaired,
}
