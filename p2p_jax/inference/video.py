"""Videos, translated frame by frame through PyAV; the sound is copied as it is."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import pictures
from p2p_jax.images.resize import resize
from p2p_jax.inference import scale, values
from p2p_jax.inference.translator import Translator
from p2p_jax.storage.writing import check_target, unfinished

EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
_WRITTEN = EXTENSIONS[1:]  # AVI stores no times


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV, which is not installed: pip install 'p2p_jax[video]'") from error
    return av


def translate_video(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    size: scale.Wanted = None,
    task: values.Task | None = None,
    overwrite: bool = False,
    on_done: Callable[[], Any] = lambda: None,
) -> int:
    """Translate a video; every frame keeps its time, so the rate stays, even a changing one.

    Encoded as H.264, in ``.webm`` as VP9. Every frame meets the same noise, which so does not flicker.

    Args:
      translator: the trained run.
      source: a file that FFmpeg reads.
      target: a file that ends in .m4v, .mkv, .mov, .mp4 or .webm, or a folder, which receives the source's name.
      size: (height, width) of the frames, a factor, or "training"; None keeps theirs. See ``scale``.
      task: makes the run's inputs from the frames, which are then photographs.
      overwrite: replace the target if it exists.
      on_done: called after every frame.

    Returns:
      The number of frames.

    Raises:
      InputError: the run is not of pictures of 8 bits, PyAV is missing, the file cannot be read or written, or the
        target exists or is the file itself.
    """
    _check_pictures(translator, task)
    av = _pyav()
    if target.is_dir() or not target.suffix:
        target = target / source.name
    if target.suffix.lower() not in _WRITTEN:
        raise InputError(f"output={target} has no video file ending that can be written ({', '.join(_WRITTEN)})")
    check_target(source, target, overwrite=overwrite)
    try:
        # The file's head, written before any sound, holds the size of the frames.
        with av.open(str(source)) as given:
            first = next(given.decode(video=0), None) if given.streams.video else None
        if first is None:
            raise InputError(f"{source} has no frame that can be decoded")
        sides = scale.sides(_upright(first).shape, scale.found(size, translator.config.data))
        if not translator.tile:
            scale.tell([sides], translator.domain_in, translator.config.data)
        with unfinished(target) as temporary, av.open(str(source)) as given, av.open(str(temporary), "w") as made:
            count = _translate(av, translator, task, given, made, sides, on_done)
    except (av.FFmpegError, ValueError) as error:  # ValueError: a container that cannot hold the sound
        if isinstance(error, InputError):
            raise
        hint = "" if source.suffix == target.suffix else f"; try an `output` ending in {source.suffix}"
        raise InputError(f"{source} cannot be translated to {target} as a video ({_reason(error)}){hint}") from error
    return count


def _reason(error: Exception) -> str:
    """Return why a video cannot be read or written, without FFmpeg's number of the error."""
    return getattr(error, "strerror", None) or str(error)


def _check_pictures(translator: Translator, task: values.Task | None) -> None:
    """Refuse a run that does not make pictures of pictures: frames are nothing else."""
    domains = translator.domain_in, translator.domain_out
    written = values.stored_form(*domains)
    if (
        not values.is_picture(task.photographs if task else domains[0])
        or written not in ((np.uint8, 1), (np.uint8, 3))
        or domains[1].is_labels
    ):
        told = " to ".join(f"{domain.kind} of {domain.channels} channels" for domain in domains)
        raise InputError(f"videos are pictures of 8 bits, gray or RGB; this run translates {told}")


def _translate(av, translator, task, given, made, sides, on_done) -> int:
    pictured, count = given.streams.video[0], 0
    drawn = _add_video_stream(made, pictured, sides)
    sounds = {stream: made.add_stream_from_template(stream) for stream in given.streams.audio}
    domains = translator.domain_in, translator.domain_out
    for (time, frame), output in translator.stream(_frames(given, made, pictured, sounds, sides, domains[0], task)):
        output = values.recombined(output, frame, *domains)
        image = np.repeat(output, 3, axis=-1) if output.shape[-1] == 1 else output
        shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        shown = shown.reformat(format=drawn.pix_fmt, dst_colorspace=_matrix(sides))
        shown.pts, shown.time_base = time, pictured.time_base
        made.mux(drawn.encode(shown))
        count += 1
        on_done()
    made.mux(drawn.encode())
    return count


def _upright(frame) -> np.ndarray:
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _frames(given, made, pictured, sounds, sides, domain, task) -> Iterator[tuple[tuple[int, np.ndarray], np.ndarray]]:
    """Yield upright frames as values of a domain, named by time and values; pass sound on as it comes between them."""
    for packet in given.demux([pictured, *sounds]):
        if packet.stream in sounds:
            if packet.dts is not None:  # not the empty one that ends a stream
                packet.stream = sounds[packet.stream]
                made.mux(packet)
            continue
        for frame in packet.decode():
            raw = pictures.with_channels(_upright(frame), (task.photographs if task else domain).raw_channels)
            raw = resize(raw, sides)
            image = task.values(raw, domain) if task else domain.values(raw)
            yield (frame.pts, image), image


def _matrix(sides: tuple[int, int]) -> int:
    """Return the code of the matrix that players expect at a size: BT.709 for high definition, else BT.601."""
    return 1 if sides[0] >= 720 else 5


def _add_video_stream(made, pictured, sides):
    codec = "libvpx-vp9" if made.format.name == "webm" else "libx264"
    rate = pictured.average_rate or pictured.guessed_rate or Fraction(25)
    stream = made.add_stream(codec, rate=rate, options={"crf": "18"} if codec == "libx264" else {"crf": "24", "b": "0"})
    stream.height, stream.width = sides
    # Colour at half the resolution is what every player shows, but it needs even sides.
    stream.pix_fmt = "yuv420p" if sides[0] % 2 == 0 and sides[1] % 2 == 0 else "yuv444p"
    stream.codec_context.time_base = pictured.time_base
    stream.codec_context.colorspace, stream.codec_context.color_range = _matrix(sides), 1
    return stream
