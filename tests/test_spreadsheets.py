"""Tables that a spreadsheet shows and does not run, and names that are read back as they were."""

import csv
import io

import pytest

from p2p_jax.commands import evaluate
from p2p_jax.data import pair_tables, spreadsheets
from support.images import noise, save
from support.runs import run_command

RUN_BY_SPREADSHEETS = [
    "=HYPERLINK(\"http://x\",\"y\").png", "=1+1", "+1.png", "-1.png", "-1.5", "@SUM(A1).png", "\t=1.png", "\r=1.png",
    "\n=1.png", "\uff1d1+1.png", "\uff0b1.png", "\uff0d1.png", "\uff201.png", "=cmd|' /C calc'!A0", "-", "=",
]  # fmt: skip
HARMLESS = [
    "a.png", "a=b.png", "1-2.png", "'a.png", "''", "'", "", "größe.png", " =1.png", "a;=1.png", 'a"b,c.png', "a\tb",
]  # fmt: skip
APOSTROPHES = ["'=1", "''-1", "'@x.png"]


@pytest.mark.parametrize("name", RUN_BY_SPREADSHEETS + HARMLESS + APOSTROPHES)
def test_a_cell_is_text_and_is_read_back(name, tmp_path):
    cell = spreadsheets.escape(name)
    assert cell == (name if name in HARMLESS else f"'{name}")
    assert spreadsheets.unescape(cell) == name
    path = tmp_path / "x.csv"
    path.write_text(spreadsheets.table([name or "x", "n"], [{name or "x": name, "n": -1.5}]), newline="")
    assert spreadsheets.read(path) == [{name or "x": name, "n": "-1.5"}]


@pytest.mark.parametrize("divider", [",", ";", "\t"])
@pytest.mark.parametrize("name", RUN_BY_SPREADSHEETS + [f"x{mark}=1" for mark in ";\t,"])
def test_no_cell_begins_as_a_formula_whatever_divides_cells(name, divider):
    """Spreadsheets of other countries divide cells at semicolons; a name cannot leave its cell there either."""
    text = spreadsheets.table(["name", "psnr"], [{"name": name, "psnr": 20.25}])
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=divider):
        assert not any(cell.startswith(tuple("=+-@\t\r\n")) for cell in row), row


def test_numbers_stay_numbers_and_nothing_stays_empty():
    rows = [{"name": "a", "x": -1.5, "y": None, "z": True}, {"name": "-2", "x": float("-inf"), "y": -0.0, "z": 3}]
    assert spreadsheets.table(["name", "x", "y", "z"], rows) == 'name,x,y,z\na,-1.5,,True\n"\'-2",-inf,-0.0,3\n'


def test_a_pair_table_takes_escaped_names_and_names_with_an_apostrophe(tmp_path):
    names = ["=1.png", "'=2.png", "-3.png", "@4.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    rows = [{"a": name, "b": name} for name in names]
    (tmp_path / "train.csv").write_text(spreadsheets.table(["a", "b"], rows))
    assert [[path.name for path in side] for side in pair_tables.read(tmp_path / "train.csv")] == [names] * 2
    (tmp_path / "plain.csv").write_text("a,b\n" + "".join(f"{name},{name}\n" for name in names))  # by another program
    assert [path.name for path in pair_tables.read(tmp_path / "plain.csv")[0]] == names


@pytest.mark.slow
def test_images_csv_of_an_evaluation(pix2pix_run, tmp_path):
    """A run on toy facades, evaluated on files whose names are formulas."""
    from p2p_jax.config import to_json
    from p2p_jax.training.checkpoint import read_config

    names = ["=HYPERLINK(1).png", "+1.png", "-1.png", "@x;=1.png", "plain.png"]
    for i, name in enumerate(names):
        save(tmp_path / "set" / "val" / name, noise(16, 32, 3, seed=i))
    run = tmp_path / "run"
    run.mkdir()
    config = read_config(pix2pix_run).copy_and_resolve_references()
    with config.unlocked():
        config.data.source = "side_by_side"
    (run / "checkpoints").symlink_to(pix2pix_run / "checkpoints")
    (run / "facts.json").write_text((pix2pix_run / "facts.json").read_text())
    (run / "config.json").write_text(to_json(config))
    status = run_command(evaluate, run, "--data_dir", tmp_path / "set", "--output", tmp_path / "out")
    assert status == 0
    rows = spreadsheets.read(tmp_path / "out" / "images.csv")
    assert sorted(row["name"] for row in rows) == sorted(names)
    with open(tmp_path / "out" / "images.csv", newline="") as file:
        cells = [row["name"] for row in csv.DictReader(file)]
    assert sorted(cells) == sorted(name if name == "plain.png" else f"'{name}" for name in names)
    assert all(float(row["psnr"]) > 0 for row in rows)
