"""Videos, by PyAV itself."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from support.images import noise

av = pytest.importorskip("av")


def make_video(path, *, times, size=(50, 34)):
    """Write frames of smooth colour at given times in 1/50 s, with a tone beside them; returns the frames."""
    frames = [
        np.asarray(Image.fromarray(noise(3, 4, 3, seed=i)).resize(size, Image.Resampling.BICUBIC))
        for i in range(len(times))
    ]
    with av.open(str(path), "w") as made:
        video = made.add_stream("libx264", rate=25, options={"crf": "1"})
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 50)
        sound = made.add_stream("aac", rate=16000)
        tone = (np.sin(np.arange(8000) * 0.2) * 10_000).astype(np.int16)
        heard = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        heard.sample_rate = 16000
        made.mux(sound.encode(heard))
        for time, frame in zip(times, frames, strict=True):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = time, Fraction(1, 50)
            made.mux(video.encode(image))
        made.mux(video.encode())
        made.mux(sound.encode())
    return frames


def read_video(path):
    """Return the frames, their times in seconds, the rate, and the packets of sound."""
    with av.open(str(path)) as given:
        decoded = list(given.decode(video=0))
        rate = given.streams.video[0].average_rate
    with av.open(str(path)) as given:
        sound = [(bytes(p), float(p.pts * p.time_base)) for p in given.demux(audio=0) if p.dts is not None]
    return [f.to_ndarray(format="rgb24") for f in decoded], [f.time for f in decoded], rate, sound
