"""Runs beside each other as they are: figures, pictures, what cannot be put side by side, and that nothing changes."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from p2p_jax import Translator, train
from p2p_jax.commands import compare as command
from p2p_jax.errors import InputError
from p2p_jax.evaluation import comparison_page, finished_runs, finished_table
from p2p_jax.evaluation.finished_runs import compare_runs, names_of
from p2p_jax.evaluation.gallery import data_uri
from p2p_jax.evaluation.predictions import predict
from p2p_jax.evaluation.scoring import shown
from p2p_jax.training.cost import measure
from support.configs import small_config
from support.images import write_pairs
from support.runs import rows_of, run_command


@pytest.fixture(scope="module")
def weak_run(tmp_path_factory):
    """As ``pix2pix_run``, with another weight of L1, stopped after two steps of four; read it only."""
    workdir = tmp_path_factory.mktemp("runs") / "weak"
    train(small_config(num_steps=2, loss__lambda_l1=10.0), workdir)
    return workdir


def edited(run: Path, place: Path, **sections) -> Path:
    """Copy a run and change options of its stored config."""
    shutil.copytree(run, place)
    values = json.loads((place / "config.json").read_text())
    for name, value in sections.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    (place / "config.json").write_text(json.dumps(values))
    return place


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_two_runs_are_put_side_by_side_and_not_changed(pix2pix_run, weak_run, tmp_path, capsys):
    before = contents(pix2pix_run), contents(weak_run)
    given = (pix2pix_run, weak_run, "--output", tmp_path / "out", "--num_images", "3")
    assert run_command(command, *given) == 0
    assert (contents(pix2pix_run), contents(weak_run)) == before
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "table.json").read_text())
    assert told["data"] == {"source": "toy_facades", "dir": "", "split": "val", "num_images": 100} | {
        "seen": "whole images, at the size that the network sees"
    }
    assert [row["name"] for row in told["runs"]] == ["pix2pix", "weak"]
    for row, run, steps in zip(told["runs"], (pix2pix_run, weak_run), (4, 2), strict=True):
        last = rows_of(run)[-1]
        assert int(last["step"]) == row["step"] == row["num_steps"] == steps
        for name in ("l1", "psnr", "ssim"):  # as validation found them during the training
            assert row["metrics"][name]["mean"] == pytest.approx(float(last[f"eval/{name}"]), rel=1e-3)
        values = {int(found["step"]): float(found["eval/l1"]) for found in rows_of(run) if found["eval/l1"]}
        best = min(values, key=values.__getitem__)
        assert row["best"] == {"step": best, "value": values[best]}
        cost = measure(small_config(num_steps=steps))
        assert row["multiply_adds"] == steps * cost.step and row["parameters"] == cost.translator
    assert told["runs"][1]["differs"] == {"num_steps": 2, "loss.lambda_l1": 10.0}
    assert told["runs"][1]["differs_from"] == {"num_steps": 4, "loss.lambda_l1": 100.0}
    table = (tmp_path / "out" / "table.md").read_text()
    assert "`num_steps=2` (pix2pix: `4`)" in table
    assert "<code>num_steps=2</code> (pix2pix: 4)" in (tmp_path / "out" / "comparison.html").read_text()
    assert "- GMAC: 1e9 multiply-adds" in table and "Parameters are those of the translator.\n" in table
    assert table in printed
    assert "| pix2pix | pix2pix | toy_facades | 4 of 4 |" in table and "| 2 of 2 |" in table
    page = (tmp_path / "out" / "comparison.html").read_text()
    translators = [Translator.from_workdir(run) for run in (pix2pix_run, weak_run)]
    for translator in translators:
        predictions = list(predict(translator, "val"))
        for i in (0, 49, 99):
            columns = {name: data_uri(image) for name, image in shown(translator, predictions[i]).items()}
            assert all(page.count(columns[name]) == 1 for name in ("input", "target"))  # given once for both
            assert f">{predictions[i].name}</th>" in page
    assert page.count("<small>l1 ") == 6


@pytest.mark.slow
def test_the_checkpoint_is_that_which_is_named(pix2pix_run, weak_run, tmp_path):
    told = compare_runs([pix2pix_run, weak_run], tmp_path / "out", checkpoint=2, num_images=1)
    assert [(row["step"], row["num_steps"]) for row in told["runs"]] == [(2, 4), (2, 2)]
    value = next(float(row["eval/l1"]) for row in rows_of(pix2pix_run) if row["step"] == "2")
    assert told["runs"][0]["metrics"]["l1"]["mean"] == pytest.approx(value, rel=1e-3)
    best = compare_runs([pix2pix_run, weak_run], tmp_path / "out", checkpoint="best", num_images=1)
    assert [row["step"] for row in best["runs"]] == [row["best"]["step"] for row in best["runs"]]
    with pytest.raises(InputError, match="weak has no checkpoint 4"):
        compare_runs([pix2pix_run, weak_run], tmp_path / "out", checkpoint=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("data", {"direction": "AtoB"}, "config.data.direction is 'BtoA' in pix2pix and 'AtoB' in other"),
        ("data", {"crop_size": 18}, "config.data.crop_size is 16 in pix2pix and 18 in other"),
        ("data", {"source": "side_by_side", "dir": "."}, "config.data.source is 'toy_facades' in pix2pix and 'side_by"),
        ("data", {"val_split": "test"}, "config.data.val_split is 'val' in pix2pix and 'test' in other"),
    ],
)
def test_what_cannot_be_put_side_by_side_is_named(pix2pix_run, tmp_path, section, options, message):
    other = edited(pix2pix_run, tmp_path / "other", **{section: options})
    with pytest.raises(InputError, match=message):
        compare_runs([pix2pix_run, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_same_images_in_another_folder_are_the_same(tmp_path, monkeypatch):
    """Two runs, each of a copy; and a third one, of images of the same names and sizes."""
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    for name, seed in (("one", 1), ("other", 1), ("third", 2)):
        write_pairs(tmp_path / name / "pairs" / "train", 5)
        write_pairs(tmp_path / name / "pairs" / "val", 3, seed=seed)
        monkeypatch.chdir(tmp_path / name)
        train(small_config(data__source="side_by_side", data__dir="pairs", seed=len(name), **linear), "run")
    monkeypatch.chdir(tmp_path)
    runs = ["one/run", "other/run"]
    told = compare_runs(runs, "out", num_images=2)
    assert [row["name"] for row in told["runs"]] == runs and told["data"]["num_images"] == 3
    assert told["runs"][1]["differs"] == {"seed": 5}
    with pytest.raises(
        InputError,
        match=r"one/run and third/run have different images of val and cannot be compared: .*third/pairs \(third/run\)",
    ):
        compare_runs(["one/run", "third/run"], "out")
    assert compare_runs(["one/run", "third/run"], "out", data_dir="one/pairs")["data"]["dir"] == "one/pairs"


@pytest.mark.slow
def test_runs_without_pairs_are_compared_by_their_own_metrics(cyclegan_run, tmp_path):
    other = edited(cyclegan_run, tmp_path / "again", log_every=2)
    told = compare_runs([cyclegan_run, other], tmp_path / "out", num_images=2)
    last = rows_of(cyclegan_run)[-1]
    for row in told["runs"]:
        assert row["metrics"]["cycle"]["mean"] == pytest.approx(float(last["eval/cycle"]), rel=1e-3)
        assert "l1" not in row["metrics"]
    head, *lines = finished_table.cells(told)
    assert "cycle \u2193" in head and lines[0][1:] == lines[1][1:]


@pytest.mark.slow
def test_code_of_others_is_not_executed_without_a_word(pix2pix_run, tmp_path):
    other = edited(pix2pix_run, tmp_path / "other", loss={"gan": "evil_losses:one"})
    ended = run_command(command, pix2pix_run, other, "--output", tmp_path / "out")
    assert f"{other / 'config.json'}: config.loss.gan names evil_losses:one: code outside the library" in ended
    assert "--trust evil_losses:one" in ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "error: name two runs or more"),
        (["{run}", "{run}"], "is given twice"),
        (["{run}", "facades"], "is a run, and facades is not: compare runs with runs, or configs with configs"),
        (["{run}", "{begun}"], "begun does not hold a trained run: it has no checkpoint"),
        (["{run}", "{other}", "--seeds", "0,1"], "error: --seeds is only for configs, which are trained"),
        (["{run}", "{other}", "--equal", "steps"], "error: --equal is only for configs, which are trained"),
        (["{run}", "{other}", "--config.seed=1"], "error: --config.seed=1 is only for configs, which are trained"),
        (["{run}", "{other}", "--num_images", "0"], "error: --num_images 0: must be at least 1"),
        (["{run}", "{other}", "--split", "nowhere"], "nowhere"),
        (["facades", "--split", "test"], "error: --split is only for existing runs"),
    ],
)
def test_errors_are_one_line_before_anything_is_written(pix2pix_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pix2pix_run, "other")
    Path("begun").mkdir()
    shutil.copy(pix2pix_run / "config.json", "begun")
    places = {"run": pix2pix_run, "other": "other", "begun": "begun"}
    given = [argument.format(**places) for argument in arguments]
    assert message in str(run_command(command, *given, "--output", "out"))
    assert not Path("out").exists()


def test_the_output_is_no_run_and_no_other_comparison(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="output=.* is inside the run .*: name another folder"):
        compare_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "b" / "compared")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs.csv").touch()
    with pytest.raises(InputError, match="holds a comparison of configs: name another folder"):
        compare_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_names_are_as_short_as_they_may_be(tmp_path):
    def names(*places):
        return names_of([tmp_path / place for place in places])

    assert names("x/a", "y/b") == ["a", "b"]
    assert names("x/seed_0", "y/seed_0") == ["x/seed_0", "y/seed_0"]
    assert names("x/seed_0", "y/seed_0", "z/own") == ["x/seed_0", "y/seed_0", "z/own"]
    with pytest.raises(InputError, match="is given twice"):
        names("x/a", "x/../x/a")


def row(name, **changes):
    """Return the row of a run as ``compare_runs`` makes it."""
    metrics = {"l1": {"mean": 0.04591, "std": 0.01, "count": 3}, "bias_units": {"mean": -1.25, "std": 1.0, "count": 3}}
    made = {
        "name": name,
        "objective": "pix2pix",
        "step": 60_000,
        "num_steps": 80_000,
        "multiply_adds": 2.5e15,
        "doubts": [],
        "parameters": 54_413_955,
        "init_from": "",
        "weights": "raw",
        "metrics": metrics,
        "described": {},
        "best_metric": "l1",
        "best_mode": "min",
        "best": {"step": 56_000, "value": 0.0441},
        "differs": {},
        "differs_from": {},
    }
    return made | changes


def told_of(*rows):
    data = {"source": "folders", "dir": "photos", "split": "test", "num_images": 3, "seen": "centre crops of 512x256"}
    return {"data": data, "size": [256, 512], "runs": list(rows)}


def test_the_table_says_what_a_run_is():
    told = told_of(
        row("a"),
        row(
            "b", metrics={}, best=None, multiply_adds=None, doubts=["not known"], init_from="runs/a", weights="average"
        ),
    )
    head, first, second = finished_table.cells(told)
    assert head == ["", "objective", "data", "step", "GMAC", "M parameters", "l1 \u2193", "bias_units", "best"]
    assert first[3:] == ["60,000 of 80,000", "2,500,000", "54.4", "0.0459", "-1.25", "l1 0.0441 at 56,000"]
    assert second[4] == second[6] == second[8] == "\u2013"
    notes = "\n".join(finished_table.notes(told))
    assert "folders photos at 512x256: the means over the 3 images of test, centre crops of 512x256, for the" in notes
    assert "The verb evaluate takes whole images unless it is asked for crops" in notes
    told["data"]["seen"] = "whole images, at the size that the network sees"
    assert "--crops" not in "\n".join(finished_table.notes(told))
    assert "bias_units: Mean of output minus target, with its sign" in notes
    assert "b: not known" in notes and "b began with the weights of runs/a" in notes and "b: the average of" in notes


def test_the_page_has_no_seeds_and_the_value_of_every_picture(tmp_path):
    def picture(value):
        return data_uri(np.full((16, 16, 3), value, np.uint8))

    hostile = "<b onclick=alert(1)>"
    pictures = {
        name: [
            {
                "name": hostile,
                "input": picture(1),
                "target": picture(2),
                "output": picture(10 * i),
                "value": f"l1 0.{i}",
            }
        ]
        for i, name in enumerate(("a", hostile), start=3)
    }
    comparison_page.write_runs(tmp_path / "page.html", told_of(row("a"), row(hostile)), pictures)
    page = (tmp_path / "page.html").read_text(encoding="ascii")
    assert page.count(picture(1)) == page.count(picture(2)) == page.count(picture(30)) == page.count(picture(40)) == 1
    assert "<small>l1 0.3</small>" in page and "<small>l1 0.4</small>" in page
    assert 'id="seed"' not in page and "data-seed=" not in page and "<b onclick" not in page


@pytest.mark.slow
def test_the_page_in_a_browser(pix2pix_run, tmp_path):
    from support.browser import chromium

    other = edited(pix2pix_run, tmp_path / "other", log_every=2)
    finished_runs.compare_runs([pix2pix_run, other], tmp_path / "out", num_images=2)
    with chromium(tmp_path) as driver:
        driver.get((tmp_path / "out" / "comparison.html").as_uri())
        images = driver.find_elements("css selector", "#pictures img")
        assert len([image for image in images if image.is_displayed()]) == 8
        driver.execute_script(
            "const s = document.getElementById('size'); s.value = 256; s.dispatchEvent(new Event('input'))"
        )
        assert images[0].size["width"] == 256
        assert driver.get_log("browser") == []
