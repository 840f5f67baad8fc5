"""The list of runs: what each line says, what a damaged run does to it, and how wide and how slow it is."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from p2p_jax import __main__ as door
from p2p_jax.commands import runs
from p2p_jax.config import to_json
from support.configs import small_config
from support.processes import run_python
from support.runs import rows_of, run_command


def make(folder: Path, evaluated=((2, 0.3), (4, 0.1), (6, 0.2)), steps=(4, 6), **changes) -> Path:
    """Write what the list reads of a run."""
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(to_json(small_config(num_steps=8, **changes)))
    lines = ["step,train/x,eval/l1", *(f"{step},1.0,{value}" for step, value in evaluated)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def listed(folder, capsys) -> list[list[str]]:
    capsys.readouterr()
    door.run(["runs", str(folder)])
    return [[cell for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]


def test_a_line_says_what_a_run_is_and_how_far_it_is(tmp_path, capsys):
    run = make(tmp_path / "one" / "mine", data__source="folders", data__dir="/somewhere/photos")
    (run / "samples").mkdir()
    (run / "samples" / "grid.png").write_bytes(b"x" * 123_456)
    os.utime(run / "metrics.csv", (time.time() - 7300,) * 2)
    (found,) = runs.find_runs(tmp_path)
    assert found[:6] == ("one/mine", "pix2pix", "photos", 6, 8, "l1")
    assert (found.latest, found.best) == (0.2, (4, 0.1))
    files = [path for path in run.rglob("*") if path.is_file()]
    assert found.size == sum(path.stat().st_size for path in files) > 123_456
    assert [cell.strip() for cell in listed(tmp_path, capsys)[1]] == [
        "one/mine",
        "pix2pix",
        "photos",
        "6/8",
        "l1 0.2000",
        "0.1000 at 4",
        "2 h ago",
        f"{found.size / 1000:.3g} kB",
    ]


def test_the_best_is_that_of_the_config(tmp_path):
    make(tmp_path / "low", evaluated=[(2, 0.3), (4, float("nan")), (6, 0.2)])
    make(tmp_path / "high", evaluated=[(2, 0.3), (4, 0.7), (6, 0.2)], best_mode="max")
    make(tmp_path / "none", evaluated=[])
    make(tmp_path / "other", best_metric="ssim")
    make(tmp_path / "set", evaluated=[], data__source="pix2pix/maps")
    found = {run.name: run for run in runs.find_runs(tmp_path)}
    best = {name: run.best for name, run in found.items()}
    assert best == {"low": (6, 0.2), "high": (4, 0.7), "none": None, "other": None, "set": None}
    assert found["set"].data == "maps"


@pytest.mark.slow
def test_runs_are_listed_as_training_leaves_them(pix2pix_run, tmp_path, capsys):
    shutil.copytree(pix2pix_run, tmp_path / "one" / "done")
    shutil.copytree(pix2pix_run, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints")
    os.utime(tmp_path / "begun" / "metrics.csv", (0, 0))
    head, begun, done = listed(tmp_path, capsys)
    assert " ".join(head).split() == ["run", "objective", "data", "step", "latest", "best", "changed", "size"]
    assert (begun[0].strip(), begun[3].strip()) == ("begun", "0/4")
    values = [float(row["eval/l1"]) for row in rows_of(pix2pix_run) if row["eval/l1"]]
    assert done[4].strip() == f"l1 {values[-1]:.4f}"
    assert done[5].strip() == f"{min(values):.4f} at {2 + 2 * values.index(min(values))}"


def test_damaged_and_half_made_runs_do_not_break_the_list(tmp_path, capsys):
    make(tmp_path / "good")
    (make(tmp_path / "cut") / "config.json").write_text('{"objective": "p2p_jax:pix')
    (make(tmp_path / "binary") / "config.json").write_bytes(b"\xff\x00\x01")
    (make(tmp_path / "odd") / "config.json").write_text('{"objective": 3, "data": [], "num_steps": "x"}')
    shutil.rmtree(make(tmp_path / "begun") / "checkpoints")
    (tmp_path / "begun" / "metrics.csv").unlink()
    (make(tmp_path / "table") / "metrics.csv").write_bytes(b"\0\0")
    (make(tmp_path / "no_table") / "metrics.csv").unlink()
    (tmp_path / "no_table" / "metrics.csv").mkdir()
    (make(tmp_path / "odd_steps") / "checkpoints" / "damaged-6").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"of": "another program"}')
    lines = {line[0].strip(): [cell.strip() for cell in line[1:]] for line in listed(tmp_path, capsys)}
    assert lines["good"][2] == lines["odd_steps"][2] == "6/8" and lines["begun"][2] == "0/8"
    assert lines["table"][2] == "6/8" and "l1" not in " ".join(lines["table"])
    assert [name for name, cells in lines.items() if cells and cells[0] == "damaged"] == sorted(
        ["binary", "cut", "no_table", "odd"], key=list(lines).index
    )
    assert "cut: damaged: config.json is not a config" in lines and "other" not in lines
    assert f"no_table: {tmp_path / 'no_table' / 'metrics.csv'} cannot be read (Is a directory)" in lines


def test_a_folder_without_runs_and_one_that_is_none(tmp_path, capsys):
    assert run_command(door, "runs", tmp_path / "nowhere") == f"error: there is no folder {tmp_path / 'nowhere'}"
    door.run(["runs", str(tmp_path)])
    assert capsys.readouterr().out == f"there are no runs in {tmp_path}\n"
    make(tmp_path / "mine")
    assert [run.name for run in runs.find_runs(tmp_path / "mine")] == ["mine"]


ORDINARY = runs.Run("facades_modern", "pix2pix", "photos", 118_000, 160_000, "psnr", 21.43, (96_000, 21.52))
CYCLE = runs.Run("horse2zebra", "cyclegan", "horse2zebra", 60_500, 266_800, "cycle", 0.04592, (60_000, 0.0452))


def test_ordinary_names_fit_into_a_hundred_columns():
    rows = [run._replace(changed=1e9, size=1_234_567_890) for run in (ORDINARY, CYCLE)]
    lines = runs.table(rows, None, now=1e9 + 25 * 3600)
    assert max(map(len, lines)) <= 100 and "\u2026" not in "".join(lines)
    assert lines[1].split("  ")[0] == "facades_modern" and "118k/160k" in lines[1]
    assert "psnr 21.43" in lines[1] and "21.52 at 96k" in lines[1] and lines[1].endswith("1 d ago  1.2 GB")
    assert "60.5k/266.8k" in lines[2] and "cycle 0.0459" in lines[2]


def test_long_names_are_shortened_on_a_terminal_and_whole_elsewhere():
    name, code = "sweeps/of_the_learning_rate/" + "x" * 60, "my_lab.variants.of_pix2pix:make_with_critics"
    run = ORDINARY._replace(name=name, objective=code, data="folders " + "y" * 60)
    lines = runs.table([run], 100, now=0)
    assert len(lines[1]) <= 100 and "\u2026" in lines[1] and lines[1].startswith("sweeps/")
    assert "118k/160k" in lines[1] and "21.52 at 96k" in lines[1]
    assert name in (whole := runs.table([run], None, now=0)[1]) and code in whole
    only_data = ORDINARY._replace(data="folders " + "y" * 60)
    assert runs.table([only_data], 100, now=0)[1].startswith("facades_modern ")


@pytest.mark.parametrize(
    ("seconds", "told"), [(5, "just now"), (60, "1 min ago"), (7200, "2 h ago"), (29.5 * 86400, "29 d ago")]
)
def test_ages(seconds, told):
    assert runs._ago(seconds, 0) == told
    assert runs._ago(40 * 86400, 1e9) == time.strftime("%Y-%m-%d", time.localtime(1e9))


@pytest.mark.parametrize(
    ("size", "told"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_600, "1 MB"), (3e12, "3,000.0 GB")]
)
def test_sizes(size, told):
    assert runs._bytes(size) == told


def test_the_list_needs_no_jax(tmp_path):
    make(tmp_path / "mine")
    code = f"""
        import sys
        from p2p_jax import __main__
        __main__.run(["runs", {str(tmp_path)!r}])
        print([name for name in ("jax", "flax", "orbax", "tensorflow") if name in sys.modules])
    """
    head, line, modules = run_python(code).splitlines()
    assert line.startswith("mine") and modules == "[]"


def test_hundreds_of_runs_are_listed_at_once(tmp_path):
    """200 runs of 160 evaluations each, by the clock of the process."""
    first = make(tmp_path / "run_0", evaluated=[(step, 0.5) for step in range(100, 16_100, 100)])
    for i in range(1, 200):
        shutil.copytree(first, tmp_path / f"run_{i}")
    begun = time.process_time()
    assert len(runs.find_runs(tmp_path)) == 200
    assert time.process_time() - begun < 3


def test_links_are_not_followed(tmp_path):
    make(tmp_path / "mine")
    (tmp_path / "mine" / "samples").symlink_to("/")
    (tmp_path / "again").symlink_to(tmp_path / "mine")
    (found,) = runs.find_runs(tmp_path)
    assert found.name == "mine" and found.size < 100_000


def test_names_cannot_write_to_the_terminal(tmp_path, capsys):
    make(tmp_path / "red\x1b[31m")
    assert listed(tmp_path, capsys)[1][0].startswith("red\\x1b[31m")


def test_a_stored_config_is_only_read(tmp_path, capsys):
    run = make(tmp_path / "mine")
    values = json.loads((run / "config.json").read_text()) | {"objective": "os:system"}
    (run / "config.json").write_text(json.dumps(values))
    assert listed(tmp_path, capsys)[1][1].strip() == "os:system"
