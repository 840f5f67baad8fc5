"""Two processes that write one output: each file is whole and the last one stays, or the second is told so."""

import json
import sys
import threading

import numpy as np
import pytest

from p2p_jax.data import spreadsheets
from p2p_jax.errors import InputError
from p2p_jax.evaluation import study
from p2p_jax.images import pictures
from p2p_jax.images.palettes import CMP_FACADES
from p2p_jax.interop import conversion, exporting, stablehlo
from p2p_jax.nets import fcn
from support.configs import small_config
from support.images import noise, save
from support.processes import environment, start


def commands(*lines):
    """Run commands at once to their ends; return their statuses and what they say on standard error."""
    started = [start([sys.executable, "-m", "p2p_jax", *map(str, line)], environment()) for line in lines]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert all("Traceback" not in error for error in errors), errors
    return [process.returncode for process in started], errors


def hidden(folder):
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
def test_translate(pix2pix_run, tmp_path):
    for i in range(12):
        save(tmp_path / "in" / f"{i}.png", noise(64, 64, 3, seed=i))
    of = {}
    for step in (2, 4):
        commands(["translate", pix2pix_run, tmp_path / "in", "--output", tmp_path / str(step), "--checkpoint", step])
        of[step] = {path.name: pictures.read(path).pixels for path in (tmp_path / str(step)).iterdir()}
    both = tmp_path / "both"
    line = ["translate", pix2pix_run, tmp_path / "in", "--output", both, "--overwrite", "--checkpoint"]
    statuses, errors = commands([*line, 2], [*line, 4])
    assert statuses == [0, 0], errors
    found = {path.name: pictures.read(path).pixels for path in both.iterdir()}
    assert found.keys() == of[2].keys() and hidden(tmp_path) == []
    assert all(any(np.array_equal(found[name], of[step][name]) for step in of) for name in found)


@pytest.mark.slow
def test_evaluate(pix2pix_run, tmp_path):
    out = tmp_path / "out"
    statuses, errors = commands(
        *(["evaluate", pix2pix_run, "--output", out, "--checkpoint", step] for step in (2, 4, 2))
    )
    assert statuses == [0, 0, 0], errors
    told = json.loads((out / "results.json").read_text())
    rows = spreadsheets.read(out / "images.csv")
    assert [(row["name"], float(row["l1"])) for row in rows] == [(row["name"], row["l1"]) for row in told["images"]]
    assert told["checkpoint_id"] in (out / "report.html").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["images.csv", "report.html", "results.json"]


def at_once(*works):
    """Run functions in threads; return what each raised."""
    together, raised = threading.Barrier(len(works)), [None] * len(works)

    def run(index, work):
        together.wait()
        try:
            work()
        except Exception as error:
            raised[index] = error

    threads = [threading.Thread(target=run, args=one) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_an_export_and_its_metadata_belong_together(tmp_path):
    output = tmp_path / "run.stablehlo"

    def write(text):
        for _ in range(30):
            with exporting._unfinished(output) as made:
                made.write_text(text)
                stablehlo.metadata_path(made).write_text(text)

    assert at_once(*(lambda text=text: write(text) for text in "123")) == [None] * 3
    assert output.read_text() == stablehlo.metadata_path(output).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, stablehlo.metadata_path(output).name]


def test_a_conversion_that_comes_second_is_refused(tmp_path):
    """Both have found the folder free; the one that is ready first has it."""
    config = small_config(objective="support.networks:linear")
    conversion._save(tmp_path / "run", config, {}, 3, {"step": 3})
    with pytest.raises(InputError, match="workdir=.*run cannot be written .*; choose another"):
        conversion._save(tmp_path / "run", config, {}, 5, {"step": 5})
    assert json.loads((tmp_path / "run" / conversion.CONVERTED).read_text()) == {"step": 3}
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["3"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_second_study_is_refused(tmp_path):
    images = [(kind, str(i), noise(16, 16, 3, seed=i)) for i in range(8) for kind in ("real", "fake")]
    names = [str(i) for i in range(8)]
    protocol = study.PRESETS["pix2pix"]._replace(practice=1, trials=2, size=16)

    def make():
        study.make(tmp_path / "study", {"ours": study.Algorithm({}, names, names, images)}, protocol)

    raised = at_once(make, make, make)
    assert sum(isinstance(one, InputError) and "study" in str(one) for one in raised) == 2
    design = study.design.load(tmp_path / "study")
    ids = {*design.algorithms["ours"]["real"], *design.algorithms["ours"]["fake"]}
    assert {path.stem for path in (tmp_path / "study" / "images").iterdir()} == ids
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.slow
def test_the_last_segmenter_stays_whole(tmp_path):
    made, palette = {}, CMP_FACADES.to_json()
    for seed in (1, 2):
        architecture = {"base_width": 1, "stride": 1}
        network = fcn.FCN(len(CMP_FACADES.names), **architecture)
        facts = {"architecture": architecture, "palette": palette, "seed": seed}
        made[seed] = fcn.OwnSegmenter(fcn.init(network, seed), facts)
    works = [lambda one=one: [one.save(tmp_path / "fcn", overwrite=True) for _ in range(5)] for one in made.values()]
    assert at_once(*works) == [None, None]
    found = fcn.load_fcn(tmp_path / "fcn")
    assert found.digest == made[found.facts["seed"]].digest
    assert [path.name for path in tmp_path.iterdir()] == ["fcn"]
