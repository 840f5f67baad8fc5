"""Pictures on the disk: a list like any other, in a folder that goes whatever happens."""

import errno
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from p2p_jax.evaluation.kept_pictures import Pictures, Scratch
from p2p_jax.evaluation.set_metrics import SetMetric
from p2p_jax.storage import unfinished
from support.images import noise
from support.processes import environment


def keep(scratch, images):
    pictures = Pictures(scratch)
    for image in images:
        pictures.append(image)
    return pictures


def test_a_list_of_pictures(tmp_path):
    images = [noise(4 + i, 6, 1 + 2 * (i % 2), seed=i) for i in range(7)]
    with Scratch(tmp_path) as scratch:
        kept = keep(scratch, images)
        assert len(kept) == 7 and bool(kept) and not Pictures(scratch)
        for one, other in (
            (kept, images),
            (kept[2:5], images[2:5]),
            (kept[::-2], images[::-2]),
            (kept[1:][2:], images[3:]),
            (kept + kept[:1], images + images[:1]),
            (kept + [images[3]], [*images, images[3]]),
            ([images[3]] + kept, [images[3], *images]),
            (list(reversed(kept)), images[::-1]),
            (random.Random(0).sample(kept, 3), random.Random(0).sample(images, 3)),
        ):
            assert [image.tolist() for image in one] == [image.tolist() for image in other]
        np.testing.assert_array_equal(kept[-1], images[-1])
        np.testing.assert_array_equal(kept[np.int64(2)], images[2])
        kept[0][:] = 0  # another array each time
        np.testing.assert_array_equal(kept[0], images[0])
        kept.append(images[0])
        np.testing.assert_array_equal(kept[7], images[0])
        same = keep(scratch, [noise(4, 4, 3, seed=i) for i in range(3)])
        assert np.stack(same).shape == np.array(same).shape == (3, 4, 4, 3)
        for index in (8, -9):
            with pytest.raises(IndexError):
                kept[index]
        with pytest.raises(ValueError, match="uint8, not float32"):
            kept.append(np.zeros((2, 2, 3), np.float32))
    assert not list(tmp_path.iterdir())


def test_nothing_stays_when_something_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), Scratch(tmp_path / "new" / "folder") as scratch:
        keep(scratch, [noise(4, 4, 3)])
        (scratch.folder / "file").write_text("x")
        assert scratch.folder.parent == tmp_path / "new" / "folder"
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with Scratch(None) as scratch:
        keep(scratch, [noise(4, 4, 3)])
        assert str(scratch.folder.parent) == tempfile.gettempdir()
    assert not scratch.folder.exists()
    running = unfinished.Unfinished(tmp_path / "p2p_jax", is_folder=True)
    abandoned = running.path.with_name(f".p2p_jax.{unfinished._HERE}{0:016}.part")
    elsewhere = running.path.with_name(f".p2p_jax.another_{0:016}.part")
    for folder in (abandoned, running.path, elsewhere):
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text("x")
        os.utime(folder, (0, 0))
    unfinished._looked_at.clear()  # as in another process
    with Scratch(tmp_path) as scratch:
        assert sorted(tmp_path.iterdir()) == sorted([running.path, elsewhere, scratch.folder])
    running.close()


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    class Full:
        def seek(self, place):
            return place

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    told = r"\(No space left on device\); free some space \(.* are free\), or name"
    with Scratch(tmp_path) as scratch, pytest.raises(InputError, match=told):
        keep(scratch, [noise(4, 4, 3)])
    assert not list(tmp_path.iterdir())


means = SetMetric(
    "means",
    "means",
    "Of outputs and targets.",
    lambda sets: {
        "outputs": float(np.mean([image.mean() for image in sets.outputs])),
        "targets": float(np.mean(np.stack(sets.targets[:])[..., 0])),
        "both": len(sets.outputs + sets.targets),
        "folder": sum(len(files) for _, _, files in os.walk("out")),
    },
)


@pytest.mark.slow
def test_a_metric_of_ones_own_reads_pictures_from_the_disk(pix2pix_run, tmp_path, monkeypatch):
    from p2p_jax import Translator
    from p2p_jax.evaluation import predict
    from support.images import to_uint8

    monkeypatch.chdir(tmp_path)
    found = evaluate(pix2pix_run, metrics=["test_kept_pictures:means"], output="out")["set_metrics"]["means"]
    predictions = list(predict(Translator.from_workdir(pix2pix_run), "val"))
    assert found["outputs"] == pytest.approx(np.mean([to_uint8(p.output).mean() for p in predictions]), rel=1e-6)
    assert found["targets"] == pytest.approx(
        np.mean([to_uint8(p.target)[..., 0].mean() for p in predictions]), rel=1e-6
    )
    assert found["both"] == 2 * len(predictions) and found["folder"] == 0  # the file has no name
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.csv", "report.html", "results.json"]


TERMINATED = """
import os, signal, sys
import numpy as np
from p2p_jax.evaluation import fid_kid
from p2p_jax.commands import evaluate

def stop(fakes, reals, *, weights=None):
    print(len(list(fakes.iterdir())), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

fid_kid.check, fid_kid.fid_kid = lambda weights: None, stop
evaluate.run([sys.argv[1], "--metrics", "fid", "--output", sys.argv[2]])
"""


@pytest.mark.slow
def test_a_job_that_is_ended_leaves_nothing(pix2pix_run, tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(pix2pix_run), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 143, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 1
    assert not list(tmp_path.iterdir())
