"""Videos, through PyAV: every frame translated, in its time, with the sound as it was."""

import struct

import numpy as np
import pytest

from p2p_jax import Translator
from support.runs import translate_files
from support.videos import make_video, read_video

av = pytest.importorskip("av")


@pytest.fixture
def run(pix2pix_run):
    return pix2pix_run


@pytest.mark.slow
def test_frames_times_and_sound(run, tmp_path):
    make_video(tmp_path / "in.mp4", times=[2 * i for i in range(11)])
    assert translate_files(run, tmp_path / "in.mp4", tmp_path / "out.mp4", "--batch_size", "4") == 0
    given, times, rate, sound = read_video(tmp_path / "in.mp4")
    made, made_times, made_rate, made_sound = read_video(tmp_path / "out.mp4")
    assert len(made) == 11 and {frame.shape for frame in made} == {(34, 50, 3)}
    assert (made_rate, np.allclose(made_times, times)) == (rate, True)
    assert [data for data, _ in made_sound] == [data for data, _ in sound] and len(sound) > 5
    assert np.allclose([t for _, t in made_sound], [t for _, t in sound], atol=1e-3)
    expected = Translator.from_workdir(run)(given)
    for frame, wanted in zip(made, expected, strict=True):
        # H.264 halves the resolution of colour: brightness is what it keeps.
        brightness = [image.astype(float) @ [0.299, 0.587, 0.114] for image in (frame, wanted)]
        assert np.abs(brightness[0] - brightness[1]).mean() < 6


@pytest.mark.slow
def test_a_changing_rate_is_kept(run, tmp_path):
    times = [0, 2, 4, 9, 10, 20]
    make_video(tmp_path / "in.mkv", times=times)
    assert translate_files(run, tmp_path / "in.mkv", tmp_path / "to") == 0
    made = tmp_path / "to" / "in.mkv"
    assert (
        translate_files(run, tmp_path / "in.mkv", tmp_path / "to") == f"error: {made} exists; --overwrite replaces it"
    )
    _, found, _, _ = read_video(tmp_path / "to" / "in.mkv")
    assert np.allclose(np.array(found) - found[0], np.array(times) / 50, atol=2e-3)


@pytest.mark.slow
def test_the_size_of_training_keeps_proportions(run, tmp_path, capsys):
    make_video(tmp_path / "in.mp4", times=[0, 2])
    assert translate_files(run, tmp_path / "in.mp4", tmp_path / "out.mp4", "--size", "training") == 0
    assert "note: " not in capsys.readouterr().out
    frames, _, _, _ = read_video(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(16, 24, 3)] * 2  # of 34x50
    assert translate_files(run, tmp_path / "in.mp4", tmp_path / "own.mp4") == 0
    assert "these have up to 50x34" in capsys.readouterr().out


def test_a_broken_video_is_one_sentence_without_numbers_of_errors(run, tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"x" * 1000)
    error = translate_files(run, tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert error.endswith("as a video (Invalid data found when processing input)")


def test_odd_sides(run, tmp_path):
    make_video(tmp_path / "in.mp4", times=[0, 2, 4])
    assert translate_files(run, tmp_path / "in.mp4", tmp_path / "odd.mp4", "--size", "33x17") == 0
    frames, _, _, _ = read_video(tmp_path / "odd.mp4")
    assert [frame.shape for frame in frames] == [(17, 33, 3)] * 3


@pytest.mark.slow
def test_a_turned_video_is_translated_upright(run, tmp_path):
    make_video(tmp_path / "in.mp4", times=[0, 2, 4])
    stored = bytearray((tmp_path / "in.mp4").read_bytes())
    matrix = stored.index(b"tkhd") + 4 + 40  # of the first track: how players turn what is stored
    clockwise = [0, 1 << 16, 0, -(1 << 16), 0, 0, 34 << 16, 0, 1 << 30]
    stored[matrix : matrix + 36] = struct.pack(">9i", *clockwise)
    (tmp_path / "turned.mp4").write_bytes(stored)
    assert translate_files(run, tmp_path / "turned.mp4", tmp_path / "out.mp4") == 0
    frames, _, _, _ = read_video(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(50, 34, 3)] * 3
    lying, _, _, _ = read_video(tmp_path / "in.mp4")
    expected = Translator.from_workdir(run)(np.rot90(lying[0], -1))
    brightness = [image.astype(float) @ [0.299, 0.587, 0.114] for image in (frames[0], expected)]
    assert np.abs(brightness[0] - brightness[1]).mean() < 6


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "height"), [("mkv", 34), ("mp4", 720)])
def test_times_and_colours_by_container_and_size(run, tmp_path, ending, height):
    make_video(tmp_path / "in.mp4", times=[0, 2, 4, 6, 8, 10])
    assert translate_files(run, tmp_path / "in.mp4", tmp_path / f"out.{ending}", "--size", f"48x{height}") == 0
    _, times, rate, _ = read_video(tmp_path / f"out.{ending}")
    assert np.allclose(np.diff(times), 0.04, atol=1e-3) and rate == 25
    with av.open(str(tmp_path / f"out.{ending}")) as made:
        matrix = next(made.decode(video=0)).colorspace
    assert int(matrix) == (1 if height >= 720 else 5)  # BT.709 or BT.601


def test_sound_that_the_container_cannot_hold(run, tmp_path):
    make_video(tmp_path / "in.mp4", times=[0, 2])
    error = translate_files(run, tmp_path / "in.mp4", tmp_path / "out.webm")
    assert error.startswith("error: ") and "aac" in error and "try an --output ending in .mp4" in error
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.slow
def test_what_cannot_be_done(run, tmp_path):
    make_video(tmp_path / "in.mp4", times=[0, 2])
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "in.mp4").read_bytes()[:300])
    error = translate_files(run, tmp_path / "cut.mp4", tmp_path / "out.mp4")
    assert error.startswith(f"error: {tmp_path / 'cut.mp4'} cannot be translated")
    for ending in ("gif", "avi"):
        assert translate_files(run, tmp_path / "in.mp4", tmp_path / f"x.{ending}").startswith("error: --output")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.mp4", "in.mp4"]


@pytest.mark.slow
def test_a_video_is_not_replaced_by_its_own_translation(run, tmp_path):
    make_video(tmp_path / "in.mp4", times=[0, 2])
    before = (tmp_path / "in.mp4").read_bytes()
    error = translate_files(run, tmp_path / "in.mp4", tmp_path, "--overwrite")
    assert "would be overwritten by its translation" in error
    assert (tmp_path / "in.mp4").read_bytes() == before


def test_without_pyav_one_error_names_the_extra(run, tmp_path, monkeypatch):
    make_video(tmp_path / "in.mp4", times=[0, 2])
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    error = translate_files(run, tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert error == "error: videos need PyAV, which is not installed: pip install 'p2p_jax[video]'"
