"""Checkpoints that a disk has damaged: every changed bit is noticed, and the older one is used; nothing is lost."""

import json
import os
import random
import shutil

import jax
import numpy as np
import pytest

from p2p_jax import train
from p2p_jax.commands import translate
from p2p_jax.config import to_json
from p2p_jax.errors import InputError
from p2p_jax.storage.refusals import StorageError
from p2p_jax.storage.unfinished import Unfinished
from p2p_jax.training import digests, soundness
from p2p_jax.training.checkpoint import (
    find_step,
    read_config,
    read_facts,
    restore_part,
    saved_config,
    saved_shapes,
    saved_steps,
)
from p2p_jax.training.saving import Checkpoints
from p2p_jax.training.soundness import settle
from support.comparers import assert_equal_trees
from support.configs import small_config
from support.images import write_images
from support.networks import linear
from support.runs import memory_data, rows_of, run_command

CONFIG = small_config(keep_checkpoints=3)
FACTS = {"num_train": 8, "fingerprint": "noise"}
STEPS = (1, 2, 3)


def state_of(step):
    rng = np.random.default_rng(step)
    kernel, scale = rng.normal(size=(40, 30)).astype(np.float32), rng.normal(size=7).astype(np.float32)
    return {"step": np.asarray(step, np.int32), "params": {"generator": {"kernel": kernel, "scale": scale}}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run's directory with three checkpoints, of which the second is the best; copy it to change it."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    checkpoints = Checkpoints(workdir, CONFIG, FACTS)
    for step, l1 in zip(STEPS, (0.5, 0.2, 0.3), strict=True):
        checkpoints.save(step, state_of(step), {"l1": l1})
    checkpoints.close()
    digests.write_recorded(workdir / "facts.json", json.dumps(FACTS))
    digests.write_recorded(workdir / "config.json", to_json(CONFIG))
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def restored(run, step):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state_of(step))
    return jax.device_get(restore_part(run, step, shapes))


def everything(run, step):
    """Return all that is read of a run to use a checkpoint of it."""
    config = read_config(run)
    assert find_step(run, config, step) == step and find_step(run, config, "best") == 2
    saved_shapes(run, step)
    return restored(run, step), config.to_dict(), read_facts(run), saved_config(run, step)


def turn_bit(path, place):
    """Turn a bit of a file, counted from its start."""
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def spread_over(files, count, seed):
    """Return (file, bit) at seeded places: as many in each file, small or large."""
    rng, files = random.Random(seed), list(files)
    return [(file, rng.randrange(8 * file.stat().st_size)) for file in (files * count)[:count]]


def test_what_is_whole_is_used(run):
    for step in STEPS:
        assert_equal_trees(restored(run, step), state_of(step))
    before = {path: path.read_bytes() for path in files_of(run)}
    settle(run)
    assert {path: path.read_bytes() for path in files_of(run)} == before
    assert everything(run, 3)[1:3] == (CONFIG.to_dict(), FACTS)
    names = set(digests.files_in(run / "checkpoints" / "3"))
    assert set(json.loads((run / "checkpoints" / "3" / digests.NAME).read_text())["files"]) == names
    assert {"config/metadata", "metrics/metrics", "state/manifest.ocdbt", "_CHECKPOINT_METADATA"} <= names


@pytest.mark.slow
def test_every_bit_of_a_checkpoint_counts(run):
    files = files_of(run / "checkpoints" / "3")
    for file, place in spread_over(files, 2 * len(files) + 40, seed=22):
        before = file.read_bytes()
        turn_bit(file, place)
        with pytest.raises(InputError, match=r"checkpoints/3 is damaged[: (].*good: 1, 2; .*such as checkpoint=2"):
            everything(run, 3)
        with pytest.raises(InputError, match=r"checkpoints/3 is damaged"):
            restored(run, 3)
        file.write_bytes(before)
    assert len(files) > 10
    everything(run, 3)


@pytest.mark.slow
def test_every_bit_of_a_runs_own_files_counts(run):
    told = everything(run, 3)
    damaged = [run / name for name in ("config.json", "facts.json")]
    for file, place in spread_over(damaged, 40, seed=23):
        before = file.read_bytes()
        turn_bit(file, place)
        with pytest.raises(
            InputError, match=rf"{file.name} is damaged: .*: cp .*checkpoints/3/.*/metadata .*{file.name}"
        ):
            everything(run, 3)
        file.write_bytes(before)
    for _, place in spread_over([run / digests.NAME], 10, seed=24):  # a checkpoint's copies bear the files out
        before = (run / digests.NAME).read_bytes()
        turn_bit(run / digests.NAME, place)
        found = everything(run, 3)
        assert_equal_trees(found[0], told[0])
        assert found[1:] == told[1:]
        (run / digests.NAME).write_bytes(before)


@pytest.mark.slow
def test_bits_that_change_before_the_digests_are_complete(run):
    """A kill right after a checkpoint got its name: the files that Orbax writes with it have no digests yet."""
    folder = run / "checkpoints" / "3"
    digests.write(folder)
    told = json.loads((folder / digests.NAME).read_text())["files"]
    assert not set(digests.LATE) & set(told) and len(told) > 8
    expected, noticed, harmless = everything(run, 3), 0, 0
    files = [path for path in files_of(folder) if path.name != digests.NAME]
    for file, place in spread_over(files, 60, seed=25):
        before = file.read_bytes()
        turn_bit(file, place)
        try:
            found = everything(run, 3)
        except InputError:
            noticed += 1
        else:
            assert file.name in digests.LATE
            assert_equal_trees(found[0], expected[0])
            assert found[1:] == expected[1:]
            Checkpoints(run, CONFIG, FACTS).close()
            harmless += 1
        file.write_bytes(before)
    assert noticed + harmless == 60 and harmless <= 8


def test_edits_by_hand_are_no_damage(run, capsys):
    changed = CONFIG.to_dict() | {"num_steps": 77_777}
    (run / "config.json").write_text(json.dumps(changed))
    (run / "checkpoints" / "3" / "config" / "metadata").write_text(json.dumps(changed))
    assert read_config(run).num_steps == saved_config(run, 3)["num_steps"] == 77_777
    restored(run, 3)
    assert f"{run / 'config.json'} has been edited since it was written\n" in capsys.readouterr().out


def test_a_mark_that_an_editor_of_windows_puts_before_a_text_is_no_damage(run):
    for name in ("config.json", "facts.json"):
        (run / name).write_text((run / name).read_text(), encoding="utf-8-sig")
    assert read_config(run) == CONFIG and read_facts(run) == FACTS


def test_damaged_digests_name_no_file_that_is_missing(run):
    (run / digests.NAME).write_text("garbage")
    digests.require_recorded(run / "converted_from.json")
    with pytest.raises(InputError, match=r"config.json is damaged: .*digests.json cannot be read"):
        digests.require_recorded(run / "config.json")


def test_a_file_and_its_digest_are_written_so_that_a_kill_between_does_no_harm(run, monkeypatch):
    def killed(path, text):
        if path.name == "config.json":
            raise KeyboardInterrupt
        write_text(path, text)

    write_text = digests.write_text
    for num_steps in (10, 20):
        monkeypatch.setattr(digests, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            digests.write_recorded(run / "config.json", to_json(small_config(num_steps=num_steps)))
        assert read_config(run).num_steps == CONFIG.num_steps
    monkeypatch.setattr(digests, "write_text", write_text)
    digests.write_recorded(run / "config.json", to_json(small_config(num_steps=30)))
    assert read_config(run).num_steps == 30
    place = (run / "config.json").read_bytes().index(b'"num_steps": 30') + 13
    turn_bit(run / "config.json", 8 * place)
    with pytest.raises(InputError, match=rf"is damaged: a bit of config.json has changed, in byte {place:,};"):
        read_config(run)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def data_file(folder):
    return max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def as_file(folder):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "data cut short": lambda f: cut(data_file(f)),
    "data missing": lambda f: data_file(f).unlink(),
    "a bit of data": lambda f: turn_bit(data_file(f), 1000),
    "state missing": lambda f: shutil.rmtree(f / "state"),
    "empty": emptied,
    "a file": as_file,
    "a link that leads nowhere": lambda f: (shutil.rmtree(f), f.symlink_to("/no/such/folder")),
    "structure cut short": lambda f: cut(f / "state" / "_METADATA"),
    "garbage in the config": lambda f: (f / "config" / "metadata").write_text("{garbage"),
    "a config that is too deep": lambda f: (f / "config" / "metadata").write_text("[" * 100_000),
    "config missing": lambda f: shutil.rmtree(f / "config"),
    "garbage in the metrics": lambda f: (f / "metrics" / "metrics").write_text("\0" * 20),
    "metrics of another": lambda f: (f / "metrics" / "metrics").write_text('{"l1": 0.1}'),
    "garbage in the digests": lambda f: (f / digests.NAME).write_bytes(b"\xff\xfe{"),
    "a folder in place of a file": lambda f: (data_file(f).unlink(), data_file_again(f)),
    "zeros": lambda f: [p.write_bytes(bytes(p.stat().st_size)) for p in files_of(f)],
}


def data_file_again(folder):
    manifest = folder / "state" / "manifest.ocdbt"
    manifest.unlink()
    manifest.mkdir()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_training_goes_on_from_the_one_before(run, damage, capsys):
    DAMAGE[damage](run / "checkpoints" / "3")
    left = {path.name: path.read_bytes() for path in files_of(run / "checkpoints" / "3")}
    with pytest.raises(
        InputError, match=r"checkpoints/3 is damaged: .*; good: 1, 2; choose one, such as checkpoint=2$"
    ):
        restored(run, 3)
    with pytest.raises(InputError, match=r"checkpoints/3 is damaged.*good: 1, 2; choose one, such as checkpoint=2$"):
        find_step(run, CONFIG, "latest")
    assert_equal_trees(restored(run, 2), state_of(2))
    capsys.readouterr()
    settle(run)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: the checkpoint {run / 'checkpoints' / '3'} is damaged: ")
    assert line.endswith("It is kept as damaged-3; the run resumes from step 2 and repeats the steps after it")
    assert {path.name: path.read_bytes() for path in files_of(run / "checkpoints" / "damaged-3")} == left
    assert saved_steps(run) == [1, 2] and os.path.lexists(run / "checkpoints" / "damaged-3")
    checkpoints = Checkpoints(run, CONFIG, FACTS)
    assert checkpoints.latest_step() == 2 and checkpoints.best() == (2, 0.2)
    checkpoints.save(3, state_of(3), {"l1": 0.1})
    checkpoints.close()
    assert_equal_trees(restored(run, 3), state_of(3))
    assert find_step(run, CONFIG, "best") == 3


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a bit of data", "empty", "a file"])
def test_a_training_with_a_damaged_checkpoint_ends_as_if_it_had_none(tmp_path, damage, capsys):
    config = small_config(num_steps=8, checkpoint_every=2, eval_every=4, sample_every=8)
    longer = small_config(num_steps=12, checkpoint_every=2, eval_every=4, sample_every=8)
    objective, data = linear(config), memory_data(config)
    whole = train(longer, tmp_path / "whole", objective, data)
    train(config, tmp_path / "run", objective, data)
    DAMAGE[damage](tmp_path / "run" / "checkpoints" / "8")
    capsys.readouterr()
    again = train(longer, tmp_path / "run", objective, data)
    told = capsys.readouterr().out
    assert "It is kept as damaged-8; the run resumes from step 6" in told and "found a checkpoint of step 6\n" in told
    assert_equal_trees(jax.device_get(again), jax.device_get(whole))
    assert rows_of(tmp_path / "run") == rows_of(tmp_path / "whole")
    assert saved_steps(tmp_path / "run") == saved_steps(tmp_path / "whole")
    assert os.path.lexists(tmp_path / "run" / "checkpoints" / "damaged-8")


def test_damage_of_another_than_the_newest(run, capsys):
    (run / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")
    assert find_step(run, CONFIG, "latest") == 3
    with pytest.raises(
        InputError, match=r"checkpoints/2 is damaged \(metrics.*\), so the best one is not known; good: 1, 3"
    ):
        find_step(run, CONFIG, "best")
    (run / "checkpoints" / "damaged-2").mkdir()  # of an earlier time
    settle(run)
    assert capsys.readouterr().out.endswith("It is kept as damaged-2-2\n")
    assert saved_steps(run) == [1, 3] and find_step(run, CONFIG, "best") == 3


def test_a_damaged_best_is_one_sentence(run):
    turn_bit(data_file(run / "checkpoints" / "2"), 77)
    with pytest.raises(InputError, match=r"checkpoints/2 is damaged: bits of state/.* have changed; good: 1, 3; .*=3$"):
        find_step(run, CONFIG, "best")


@pytest.mark.parametrize("text", ["null", "5", "NaN", "[" * 100_000, '{"l1": "x"}', '{"l1": [1]}', "{"])
def test_metrics_of_an_earlier_version_that_are_none(run, text):
    """Without digests nothing else tells."""
    (run / "checkpoints" / "3" / digests.NAME).unlink()
    (run / "checkpoints" / "3" / "metrics" / "metrics").write_text(text)
    with pytest.raises(InputError, match=r"checkpoints/3( is damaged|/metrics/metrics cannot be read) "):
        find_step(run, CONFIG, "best")


def test_a_metric_that_is_not_a_number_is_not_the_best(run):
    for step in STEPS:
        (run / "checkpoints" / str(step) / digests.NAME).unlink()
    (run / "checkpoints" / "1" / "metrics" / "metrics").write_text('{"l1": NaN}')
    assert find_step(run, CONFIG, "best") == 2


def test_a_checkpoint_that_a_training_has_removed_meanwhile(run):
    step = find_step(run, CONFIG, "latest")
    shutil.rmtree(run / "checkpoints" / str(step))
    with pytest.raises(
        InputError, match=r"checkpoints/3 is gone: the run .* newest ones; good: 1, 2; choose one, such"
    ):
        restored(run, step)


def test_a_state_of_other_networks_is_one_line(run):
    shapes = {"params": {f"layer {i}": jax.ShapeDtypeStruct((1,), np.float32) for i in range(200)}}
    with pytest.raises(InputError, match="does not fit the config of its run") as caught:
        restore_part(run, 3, shapes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_where_none_is_good_nothing_is_touched(run):
    for step in STEPS:
        emptied(run / "checkpoints" / str(step))
    before = sorted(run.rglob("*"))
    with pytest.raises(
        InputError, match=r"no checkpoint of .*run is good \(3: it is empty; 2: .*; nothing was changed"
    ):
        settle(run)
    assert sorted(run.rglob("*")) == before
    assert read_config(run) is not None  # so that no training begins anew in its place
    with pytest.raises(InputError, match=r"checkpoints/3 is damaged: it is empty; .*run holds no other good one"):
        find_step(run, CONFIG, "latest")


@pytest.mark.parametrize(
    "damage", [None, "data cut short", "config missing", "empty", "garbage in the metrics", "a config that is too deep"]
)
def test_checkpoints_of_earlier_versions_have_no_digests(run, damage, capsys):
    for step in STEPS:
        (run / "checkpoints" / str(step) / digests.NAME).unlink()
    (run / digests.NAME).unlink()
    if damage is None:
        assert_equal_trees(restored(run, 3), state_of(3))
        assert "checkpoints/3 has no digests.json: an earlier version saved it" in capsys.readouterr().out
        settle(run)
        assert saved_steps(run) == [1, 2, 3]
        return
    DAMAGE[damage](run / "checkpoints" / "3")
    settle(run)
    assert saved_steps(run) == [1, 2] and "It is kept as damaged-3; the run resumes" in capsys.readouterr().out


def test_what_killed_saves_left_is_removed(run):
    litter = ["4.orbax-checkpoint-tmp", "4.orbax-checkpoint-tmp-1700000000"]
    for name in litter:
        (run / "checkpoints" / name / "state").mkdir(parents=True)
    (run / "samples").mkdir()
    parts = [Unfinished(run / name) for name in ("config.json", "samples/4.png", "checkpoints/3/digests.json")]
    for part in parts:
        os.utime(part.path, (0, 0))
    for part in parts[:2]:
        os.close(part._lock)  # as a kill does
    kept = [run / name for name in ("samples/step_0000002.png", ".mine", "notes.part.txt")]
    for path in kept:
        path.write_text("x")
    settle(run)
    assert not list(run.rglob("*tmp*"))
    assert [path.exists() for path in (*[part.path for part in parts], *kept)] == [False] * 2 + [True] * 4
    parts[2].close()
    assert saved_steps(run) == [1, 2, 3]


def test_a_checkpoint_under_the_name_of_another_step_is_not_that_one(run, capsys):
    shutil.copytree(run / "checkpoints" / "2", run / "checkpoints" / "4")
    with pytest.raises(InputError, match="checkpoints/4 is damaged: it is a renamed checkpoint of step 2"):
        find_step(run, CONFIG, "latest")
    settle(run)
    assert saved_steps(run) == [1, 2, 3] and "It is kept as damaged-4" in capsys.readouterr().out


def test_what_may_not_be_read_is_not_set_aside(run, monkeypatch):
    """Root may read everything, so that the refusal is made."""

    def refuse(path):
        if path.parts[-1] == "manifest.ocdbt" and "3" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return digest(path)

    digest = digests._digest
    monkeypatch.setattr(digests, "_digest", refuse)
    with pytest.raises(StorageError, match=r"checkpoints/3 cannot be read \(Permission denied: .*manifest.ocdbt\)"):
        settle(run)
    assert saved_steps(run) == [1, 2, 3]


def test_a_command_says_it_in_one_line(run, tmp_path):
    write_images(tmp_path / "images", 1)
    turn_bit(data_file(run / "checkpoints" / "3"), 5)
    told = run_command(translate, run, tmp_path / "images", "--output", tmp_path / "out")
    assert told.startswith(f"error: the checkpoint {run / 'checkpoints' / '3'} is damaged: bits of state/")
    assert told.endswith("; good: 1, 2; choose one, such as --checkpoint 2") and "\n" not in told


def test_names_in_digests_stay_in_the_folder(run):
    folder = run / "checkpoints" / "3"
    told = {"../2/config/metadata": [5, "0" * 64]}
    (folder / digests.NAME).write_text(json.dumps({"files": told, "sha256": digests._of_all(told)}))
    assert "names files of other folders" in soundness.fault(run, 3)
