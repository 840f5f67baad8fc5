"""The loop: exact resume after every kind of stop, refusals, divergence, and what a run leaves behind."""

import collections
import gc
import json
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import p2p_jax
from p2p_jax import Translator, train
from p2p_jax.data import from_arrays, on_device
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.evaluation import evaluate
from p2p_jax.training import dispatches, loop, monitoring, parallel, start
from p2p_jax.training.checkpoint import read_config
from support.comparers import assert_equal_trees
from support.configs import SGD, small_config, small_cyclegan_config
from support.images import write_images, write_pairs
from support.networks import PIXEL_GAN, TINY, linear
from support.processes import python, run
from support.runs import memory_data, rows_of, sample_grid, stop_at


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "train", 5)
    write_pairs(folder / "val", 3, seed=1)
    return folder


def linear_config(**changes):
    """Return the config of an objective that compiles at once: for what the loop does, whatever it trains."""
    return small_config(**{"objective": "support.networks:linear", "optimizer": SGD, **changes})


def file_config(pairs, **changes):
    source = {"data__source": "side_by_side", "data__dir": str(pairs), "data__direction": "AtoB"}
    schedule = {"schedule__kind": "linear_decay", "schedule__unit": "epochs"}
    return small_config(**{"batch_size": 2, **schedule, **source, **changes})


@pytest.fixture(scope="module")
def uninterrupted(pairs, tmp_path_factory):
    """Four steps over image files: 5 pairs in batches of 2, so that steps 1 to 4 all end inside an epoch."""
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return train(file_config(pairs), workdir), workdir


@pytest.mark.slow
def test_what_a_run_leaves_behind(uninterrupted, pairs):
    state, workdir = uninterrupted
    assert int(state["step"]) == 4
    rows = rows_of(workdir)
    assert (workdir / "metrics.csv").read_text().startswith("step,run/seconds,run/epoch,")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["eval/l1"]) for row in rows] == [False, True, False, True]
    assert all(float(row["train/gen/l1"]) > 0 for row in rows)
    assert [float(row["run/epoch"]) for row in rows] == [0.4, 0.8, 1.2, 1.6]
    grids = [f"step_000000{step}.png" for step in (0, 2, 4)]
    assert sorted(p.name for p in (workdir / "samples").iterdir()) == ["index.html", *grids, "steps.js"]
    assert all(name in (workdir / "samples" / "steps.js").read_text() for name in grids)
    grid = Image.open(workdir / "samples" / "step_0000004.png")
    assert grid.size == (3 * 256 + 2 * 4, 32 + 2 * 256 + 4)
    assert {name: images.shape for name, images in sample_grid(workdir, 4, 16).items()} == dict.fromkeys(
        ["input", "output", "target"], (2, 16, 16, 3)
    )
    stored = json.loads((workdir / "config.json").read_text())
    facts = json.loads((workdir / "facts.json").read_text())
    assert (stored["data"]["num_train"], facts["num_train"]) == (0, 5)  # as it was asked for, and as it was found
    for name, value in {"config": stored, "facts": facts}.items():
        assert json.loads((workdir / "checkpoints" / "4" / name / "metadata").read_text()) == value
    summary = (workdir / "summary.txt").read_text()
    assert f"Validation over 3 images: l1 {float(rows[-1]['eval/l1']):.4g}" in summary
    assert any((workdir / "tensorboard").iterdir())


def test_learning_rate_follows_the_epochs(uninterrupted):
    config = small_config(batch_size=2, data__num_train=5, schedule__kind="linear_decay", schedule__unit="epochs")
    schedule = p2p_jax.objectives.make_schedule(config)
    assert [float(row["train/lr"]) for row in rows_of(uninterrupted[1])] == [float(schedule(i)) for i in range(4)]


@pytest.mark.slow
def test_evaluation_is_over_all_validation_images(pairs, tmp_path, monkeypatch):
    """In a batch of two images and one of the third, each image counts as much."""
    monkeypatch.setattr(start, "_EVALUATED_PER_DEVICE", 1)
    config = file_config(pairs, num_steps=1, objective="support.networks:linear", optimizer=SGD)
    state = train(config, tmp_path)
    assert [len(batch["real_a"]) for batch in p2p_jax.data.load(config).validation(jax.device_count())] == [2, 1]
    (batch,) = p2p_jax.data.load(config).validation(8)
    metrics, _ = linear(config).evaluate(state, batch, jax.random.key(config.seed))
    for name in ("l1", "psnr", "ssim"):
        assert float(rows_of(tmp_path)[-1][f"eval/{name}"]) == pytest.approx(float(metrics[name].mean()), rel=1e-4)


@pytest.mark.slow
def test_four_steps_equal_one_after_the_other(uninterrupted, pairs, tmp_path, capsys):
    """Stops inside an epoch, at a checkpoint's interval and between two."""
    train(file_config(pairs, num_steps=1), tmp_path / "run")
    for done in (1, 2, 3):
        state = train(file_config(pairs, num_steps=done + 1), tmp_path / "run")
        assert f"found a checkpoint of step {done}" in capsys.readouterr().out
    assert_equal_trees(state, uninterrupted[0])
    found = [{k: v for k, v in row.items() if k.startswith(("step", "train/"))} for row in rows_of(tmp_path / "run")]
    expected = [{k: row[k] for k in found[0]} for row in rows_of(uninterrupted[1])]
    assert found == expected


@pytest.mark.slow
def test_cyclegan_resumes_to_the_bit_with_its_pool(tmp_path):
    """Folders of 5 and 3 images in batches of 2: the pools are full and swapping by the time of the interruption."""
    for split in ("train", "test"):
        for side, count in (("A", 5), ("B", 3)):
            write_images(tmp_path / f"{split}{side}", count)

    def config(**changes):
        folder = {"data__source": "unpaired", "data__dir": str(tmp_path), "data__val_split": "test"}
        length = {"batch_size": 2, "num_samples": 3, "num_steps": 8, "loss__pool_size": 4}
        networks = {"generator": TINY, "discriminator": PIXEL_GAN}
        return small_cyclegan_config(**{**folder, **length, **networks, **changes})

    whole = train(config(), tmp_path / "whole")
    assert whole["pool"]["a"]["filled"].all()
    for first_part in (1, 5):  # before the pools are full, and after
        stopped = train(config(num_steps=first_part), tmp_path / "parts")
        assert stopped["pool"]["b"]["filled"].sum() == min(2 * first_part, 4)
    assert_equal_trees(train(config(), tmp_path / "parts"), whole)
    rows = rows_of(tmp_path / "whole")
    assert float(rows[-1]["eval/cycle"]) > 0
    assert [images.shape for images in sample_grid(tmp_path / "whole", 8, 16).values()] == [(3, 16, 16, 3)] * 6
    assert f"on 5 training examples from unpaired {tmp_path};" in (tmp_path / "whole" / "summary.txt").read_text()


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(uninterrupted, pairs, tmp_path, capsys):
    config = file_config(pairs)
    before = signal.getsignal(signal.SIGTERM)
    stopped = train(config, tmp_path / "run", data=stop_at(3, p2p_jax.data.load(config)))
    assert int(stopped["step"]) == 3
    assert signal.getsignal(signal.SIGTERM) == before
    assert "stopped at step 3" in capsys.readouterr().out
    assert not (tmp_path / "run" / "summary.txt").exists()
    assert_equal_trees(train(config, tmp_path / "run"), uninterrupted[0])
    assert rows_of(tmp_path / "run") == rows_of(uninterrupted[1])


def test_stop_on_the_last_step_is_a_finished_run(tmp_path):
    config = linear_config(num_steps=2)
    data = memory_data(config)

    def validation(batch_size):
        if (tmp_path / "metrics.csv").exists():  # not for the grid's images, at the start
            os.kill(os.getpid(), signal.SIGTERM)
        yield from data.validation(batch_size)

    train(config, tmp_path, data=data._replace(validation=validation))
    assert "Finished: 2 steps" in (tmp_path / "summary.txt").read_text()


def test_a_second_sigterm_does_not_cost_the_save(tmp_path, monkeypatch):
    save_under_way = p2p_jax.training.saving.Checkpoints.wait

    def wait(self):
        os.kill(os.getpid(), signal.SIGTERM)
        save_under_way(self)

    monkeypatch.setattr(p2p_jax.training.saving.Checkpoints, "wait", wait)
    config = linear_config(checkpoint_every=100, eval_every=100)
    state = train(config, tmp_path, data=stop_at(3, memory_data(config)))
    assert int(state["step"]) == 3
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"3"}


def test_first_start_that_never_saved_does_not_bind(tmp_path):
    """An out-of-memory error at the first step must not forbid a smaller batch in the same directory."""
    config = linear_config(num_steps=1)
    base = linear(config)

    def update(state, batch, rng):
        raise MemoryError

    def train_with(config, objective):
        return train(config, tmp_path, objective, memory_data(config))

    with pytest.raises(MemoryError):
        train_with(config, base._replace(update=update))
    smaller = linear_config(num_steps=1, batch_size=2)
    assert int(train_with(smaller, linear(smaller))["step"]) == 1
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 2


def test_workdir_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    config = linear_config(num_steps=1)
    for workdir in ("file", "file/run"):
        with pytest.raises(InputError, match=r"workdir=.*file"):
            train(config, tmp_path / workdir, data=memory_data(config))
    assert (tmp_path / "file").read_text() == "x"


def test_grid_without_validation_shows_different_training_images(tmp_path):
    config = small_config(num_steps=1, batch_size=2, num_samples=4)
    data = memory_data(config, num_val=0)
    seen = loop._first_images(data, 4)
    assert len({image.tobytes() for image in seen["real_a"]}) == 4


@pytest.mark.slow
def test_kill_during_a_save_costs_that_save_alone(uninterrupted, pairs, tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from test_train import file_config
        import p2p_jax
        from p2p_jax.training.saving import Checkpoints

        save = Checkpoints.save
        def save_and_die(self, step, state, metrics):
            save(self, step, state, metrics)
            if step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        Checkpoints.save = save_and_die
        p2p_jax.train(file_config(Path(sys.argv[1]), checkpoint_every=1), sys.argv[2])
    """
    workdir = tmp_path / "run"
    result = run(python(code, pairs, workdir))
    assert result.returncode == -signal.SIGKILL, result.stderr[-2000:]
    complete = {p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()}
    assert complete == {"1", "2"}  # the third was being written
    assert len(list((workdir / "checkpoints").glob("3.*tmp*"))) == 1
    assert rows_of(workdir)[-1]["step"] == "3"  # a row that the resumed run writes again
    assert_equal_trees(train(file_config(pairs, checkpoint_every=1), workdir), uninterrupted[0])
    assert rows_of(workdir) == rows_of(uninterrupted[1])


def test_finished_run_says_so_and_does_nothing(uninterrupted, pairs, capsys):
    state, workdir = uninterrupted
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    again = train(file_config(pairs), workdir)
    assert "already at step 4, and config.num_steps is 4; nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()} == before
    assert_equal_trees(again, state)


def test_another_config_is_refused_by_name(uninterrupted, pairs):
    _, workdir = uninterrupted
    before = (workdir / "config.json").read_text()
    changed = file_config(pairs, seed=1, loss__lambda_l1=10.0, num_steps=8)
    with pytest.raises(
        InputError, match=r"another config:\n  config.loss.lambda_l1: stored 100.0, now 10.0\n  config.seed"
    ):
        train(changed, workdir)
    assert (workdir / "config.json").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "norm", "said"), [(2, "batch", "the image's own statistics"), (4, "running", "running statistics")]
)
def test_statistics_of_translation_are_those_that_training_had(pairs, tmp_path, capsys, batch_size, norm, said):
    """Of the image itself where each of the two devices trains on one; and a run keeps what it began with."""
    config = file_config(pairs, batch_size=batch_size, num_steps=1)
    state = train(config, tmp_path)
    assert f"validation and translation use {said}" in capsys.readouterr().out
    stored = p2p_jax.training.checkpoint.read_filled_in(tmp_path)
    assert (read_config(tmp_path).inference.norm, stored.inference.norm) == ("auto", norm)
    assert p2p_jax.Translator.from_workdir(tmp_path).config.inference.norm == norm
    by_hand = p2p_jax.pix2pix(small_config(**stored.to_dict() | {"inference": {"norm": norm, "dropout": True}}))
    batch = next(p2p_jax.data.load(stored).validation(3))
    expected = by_hand.evaluate(state, batch, jax.random.key(config.seed))[0]["l1"].mean()
    assert float(rows_of(tmp_path)[-1]["eval/l1"]) == pytest.approx(float(expected), rel=1e-4)
    facts, other = json.loads((tmp_path / "facts.json").read_text()), {"batch": "running", "running": "batch"}[norm]
    (tmp_path / "facts.json").write_text(json.dumps(facts | {"inference": {"norm": other}}))
    train(file_config(pairs, batch_size=batch_size, num_steps=2), tmp_path)
    assert json.loads((tmp_path / "facts.json").read_text())["inference"] == {"norm": other}


@pytest.mark.slow
def test_a_start_says_when_the_rate_falls_and_more_steps_do_not_stretch_it(tmp_path, capsys):
    def config(**changes):
        return linear_config(**{"schedule__kind": "linear_decay", "num_steps": 6, **changes})

    def trained(config):
        return train(config, tmp_path, data=memory_data(config))

    trained(config())
    said = "learning rate: 0.01, falling from step 4, 0 from step 6; 6 steps in all"
    assert said in capsys.readouterr().out
    rates = [float(row["train/lr"]) for row in rows_of(tmp_path)]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.01 * 2 / 3, 0.01 / 3])  # of the steps 0 to 5
    stored = {"unit": "steps", "constant_for": 3, "decay_over": 3}
    assert json.loads((tmp_path / "facts.json").read_text())["schedule"] == stored
    with pytest.raises(InputError, match=rf"4 of the 10 steps would change no weight: .*init_from={tmp_path}"):
        trained(config(num_steps=10))
    state = trained(config(num_steps=10, schedule__beyond_zero=True))
    rates = [float(row["train/lr"]) for row in rows_of(tmp_path)][6:]
    assert int(state["step"]) == 10 and rates == pytest.approx([0] * 4, abs=1e-8)
    short = config(schedule__unit="steps", schedule__constant_for=1, schedule__decay_over=2)
    with pytest.raises(InputError, match=r"0 from step 3 on, so 3 of the 6 .*schedule.unit=auto"):
        train(short, tmp_path / "short", data=memory_data(short))
    assert not (tmp_path / "short" / "config.json").exists()


def test_facts_of_a_start_that_saved_nothing_do_not_count(tmp_path):
    config = linear_config(num_steps=2, schedule__kind="linear_decay")
    stale = {
        "schedule": {"unit": "steps", "constant_for": 40_000, "decay_over": 40_000},
        "inference": {"norm": "batch"},
    }
    (tmp_path / "facts.json").write_text(json.dumps(stale))
    train(config, tmp_path, data=memory_data(config))
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["schedule"] == {"unit": "steps", "constant_for": 1, "decay_over": 1}
    assert facts["inference"] == {"norm": "running"}


def test_other_data_are_refused(tmp_path):
    config = linear_config(num_steps=1)
    train(config, tmp_path, data=memory_data(config))
    more = linear_config(num_steps=2)
    with pytest.raises(InputError, match=r"other images:\n  fingerprint: stored 'noise', now 'other'\n"):
        train(more, tmp_path, data=memory_data(more)._replace(fingerprint="other"))
    with pytest.raises(InputError, match="num_train: stored 8, now 9"):
        train(more, tmp_path, data=memory_data(more, num_train=9))


@pytest.mark.slow
def test_best_checkpoint_is_kept_besides_the_latest(tmp_path):
    """The evaluation is best at step 1 by construction; it must outlive the latest ones."""
    config = linear_config(eval_every=1, checkpoint_every=1, keep_checkpoints=1, num_steps=4)
    base = linear(config)

    def evaluate(state, batch, rng):
        metrics, images = base.evaluate(state, batch, rng)
        return metrics | {"l1": 0 * metrics["l1"] + state["step"]}, images

    train(config, tmp_path, base._replace(evaluate=evaluate), memory_data(config))
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"1", "4"}
    assert "Best l1: 1 at step 1" in (tmp_path / "summary.txt").read_text()


def test_improvement_is_saved_between_checkpoints(tmp_path):
    config = linear_config(eval_every=1, checkpoint_every=100, keep_checkpoints=1, num_steps=3, best_mode="max")
    base = linear(config)

    def evaluate(state, batch, rng):
        metrics, images = base.evaluate(state, batch, rng)
        return metrics | {"l1": 0 * metrics["l1"] + (state["step"] == 2)}, images

    train(config, tmp_path, base._replace(evaluate=evaluate), memory_data(config))
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "3"}


def diverging(config):
    """Make an objective whose loss is not finite where all images are white."""
    base = linear(config)

    def update(state, batch, rng):
        state, metrics = base.update(state, batch, rng)
        return state, metrics | {"gen/l2": jnp.where(batch["real_a"].min() == 1, jnp.nan, metrics["gen/l2"])}

    return base._replace(update=update)


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = linear_config(log_every=100, num_steps=8)
    data = memory_data(config)

    def train_batches(first_step):
        for step, batch in enumerate(data.train(first_step), start=first_step):
            yield {k: np.ones_like(v) if step == 2 else v for k, v in batch.items()}

    with pytest.raises(
        TrainingDivergedError, match=r"loss is not finite .* at step 3\. The last good .*checkpoints.2\."
    ):
        train(config, tmp_path, diverging(config), data._replace(train=train_batches))
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2"}


SEVERAL = {"num_steps": 7, "log_every": 2, "sample_every": 4, "eval_every": 4, "checkpoint_every": 4}


def test_dispatches_end_where_something_is_due_and_start_at_their_multiples():
    def sizes(step, at_once, **changes):
        return list(dispatches.sizes_of(small_config(**{**SEVERAL, **changes}), step, at_once))

    assert sizes(0, 1) == [1] * 7
    assert sizes(0, 2) == [2, 2, 2, 1]
    assert sizes(3, 2) == [1, 2, 1]
    assert sizes(0, 2, log_every=7) == [2, 2, 2, 1]
    assert sizes(0, 3) == [1] * 7  # a row of step 2 is within the first three, one of step 4 within the next
    assert sizes(0, 3, log_every=5, num_steps=10, sample_every=9, eval_every=9, checkpoint_every=9) == [
        3,
        1,
        1,
        1,
        3,
        1,
    ]
    assert sizes(7, 2) == []


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "one_by_one"
    config = linear_config(**SEVERAL)
    return train(config, workdir, data=memory_data(config)), workdir


def assert_same_run(run, other):
    """Two runs come to the same but for last bits, and report the same at the same steps."""
    (state, workdir), (other_state, other_workdir) = run, other
    for a, b in zip(*map(jax.tree.leaves, (state["params"], other_state["params"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert int(state["step"]) == int(other_state["step"])
    for row, other_row in zip(rows_of(workdir), rows_of(other_workdir), strict=True):
        assert [bool(cell) for cell in row.values()] == [bool(cell) for cell in other_row.values()]
        numbers = [[float(cell or 0) for cell in x.values()] for x in (row, other_row)]
        np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-5)
    for folder in ("samples", "checkpoints"):
        assert {p.name for p in (workdir / folder).iterdir()} == {p.name for p in (other_workdir / folder).iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("compile_update", [parallel.pmap_update, parallel.shard_map_update])
def test_several_steps_a_dispatch_train_alike(one_by_one, compile_update, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "compile_update", lambda update, _, __, n: compile_update(update, None, n))
    sizes = []

    def in_flight(step, finite, logged, kind=loop._InFlight):
        sizes.append(len(finite))
        return kind(step, finite, logged)

    monkeypatch.setattr(loop, "_InFlight", in_flight)
    config = linear_config(**SEVERAL, steps_per_dispatch=2)
    whole = train(config, tmp_path / "whole", data=memory_data(config)), tmp_path / "whole"
    assert sizes == [2, 2, 2, 1]
    assert_same_run(whole, one_by_one)
    assert [row["step"] for row in rows_of(tmp_path / "whole")] == ["2", "4", "6", "7"]

    stopped = train(config, tmp_path / "parts", data=stop_at(3, memory_data(config)))
    assert int(stopped["step"]) == 2  # the batches of steps 3 and 4 are put on the devices during the first dispatch
    assert_equal_trees(train(config, tmp_path / "parts", data=memory_data(config)), whole[0])
    shorter = linear_config(**{**SEVERAL, "num_steps": 3}, steps_per_dispatch=2)
    train(shorter, tmp_path / "inside", data=memory_data(config))
    sizes.clear()
    state = train(config, tmp_path / "inside", data=memory_data(config))
    assert sizes == [1, 2, 1]
    for a, b in zip(*map(jax.tree.leaves, (state["params"], whole[0]["params"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def resident_data(config, data):
    """Return data whose first 16 batches lie on the devices, with nothing to stream."""
    stream = data.train(0)
    batches = [next(stream) for _ in range(16)]
    arrays = {k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]}

    def draw(arrays, positions):
        return {k: v[positions % len(v)] for k, v in arrays.items()}

    return data._replace(train=None, resident=on_device.Resident(arrays, draw))


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_resident_data_train_alike(one_by_one, at_once, tmp_path):
    config = linear_config(**SEVERAL, steps_per_dispatch=at_once)
    data = resident_data(config, memory_data(config))
    stopped = linear_config(**{**SEVERAL, "num_steps": 5}, steps_per_dispatch=at_once)
    train(stopped, tmp_path / "run", data=data)
    state = train(config, tmp_path / "run", data=data)
    for a, b in zip(*map(jax.tree.leaves, (state["params"], one_by_one[0]["params"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_what_is_drawn_on_the_devices_trains_like_a_stream_of_it(at_once, tmp_path):
    """Two devices and several steps a dispatch, with a stop in between, against the batches that the host draws."""
    config = linear_config(**SEVERAL, steps_per_dispatch=at_once, data__resident=True)
    images = np.random.RandomState(0).randint(0, 256, (2, 7, 20, 24, 3), np.uint8)
    data = on_device.load(config, train=from_arrays(*images))
    streamed = train(config, tmp_path / "stream", data=data._replace(resident=None))
    train(linear_config(**config.to_dict() | {"num_steps": 3}), tmp_path / "run", data=data)
    state = train(config, tmp_path / "run", data=data)
    for a, b in zip(*map(jax.tree.leaves, (state["params"], streamed["params"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    other = on_device.load(linear_config(**config.to_dict() | {"seed": 1}), train=from_arrays(*images))
    assert not np.array_equal(next(other.train(0))["real_a"], next(data.train(0))["real_a"])


def test_resident_data_are_loaded_where_the_config_asks(tmp_path, monkeypatch):
    config = linear_config(num_steps=1, data__resident=True)
    asked = []

    def load(config, *, process_index, process_count, **images):
        asked.append((config.data.resident, process_index, process_count))
        assert images == {"train": None, "val": None}
        return resident_data(config, memory_data(config))

    monkeypatch.setattr(on_device, "load", load)
    assert int(train(config, tmp_path)["step"]) == 1
    assert asked == [(True, 0, 1)]


@pytest.mark.parametrize("bad", [4, 5, 6])
def test_the_first_bad_step_of_a_dispatch_is_named(tmp_path, bad):
    every = {"log_every": 3, "eval_every": 3, "sample_every": 3, "checkpoint_every": 3}
    config = linear_config(**every, num_steps=12, steps_per_dispatch=3)
    data = memory_data(config)

    def train_batches(first_step):
        for step, batch in enumerate(data.train(first_step), start=first_step + 1):
            yield {k: np.ones_like(v) if step >= bad else v for k, v in batch.items()}

    with pytest.raises(
        TrainingDivergedError, match=rf"loss is not finite .* at step {bad}\. The last .*checkpoints.3\."
    ):
        train(config, tmp_path, diverging(config), data._replace(train=train_batches))
    assert [row["step"] for row in rows_of(tmp_path)] == ["3"]


def test_the_devices_do_not_wait_for_the_host(tmp_path, monkeypatch):
    """The next batch is put on them, and later steps begun, before what a step logged is looked at."""
    events, saved = [], {}
    compile_update = parallel.compile_update

    def compiled(*args):
        step = compile_update(*args)
        return step._replace(place=lambda batch: [events.append("place"), step.place(batch)][1])

    def in_flight(step, *args, kind=loop._InFlight):
        events.append(f"run {step}")
        return kind(step, *args)

    def progress(self, step, row):
        events.append(f"log {step}")
        self.metrics(step, row)

    def save(self, step, state, metrics):
        events.append(f"save {step}")
        saved[step] = [int(row["step"]) for row in rows_of(tmp_path)]

    monkeypatch.setattr(parallel, "compile_update", compiled)
    monkeypatch.setattr(loop, "_InFlight", in_flight)
    monkeypatch.setattr(monitoring.Log, "progress", progress)
    monkeypatch.setattr(p2p_jax.training.saving.Checkpoints, "save", save)
    config = linear_config(num_steps=6, eval_every=100, sample_every=100, checkpoint_every=5)
    train(config, tmp_path, data=memory_data(config, num_val=0))
    assert events == [
        *["place", "place", "run 1", "place", "run 2", "place", "run 3", "log 1", "place", "run 4", "log 2"],
        *["place", "run 5", "log 3", "log 4", "log 5", "save 5", "run 6", "log 6", "save 6"],
    ]
    assert saved == {5: [1, 2, 3, 4, 5], 6: [1, 2, 3, 4, 5, 6]}


def test_the_step_is_compiled_before_there_is_a_state(tmp_path, monkeypatch):
    """So the memory of compiling does not come on top of the state's."""
    events, compile_step, replicate = [], parallel.Step.compile, parallel.replicate
    monkeypatch.setattr(parallel.Step, "compile", lambda *given: [events.append("compile"), compile_step(*given)][1])
    monkeypatch.setattr(parallel, "replicate", lambda state: [events.append("state"), replicate(state)][1])
    config = linear_config(num_steps=2)
    train(config, tmp_path, data=memory_data(config))
    assert events == ["compile", "state"]
    assert [row["step"] for row in rows_of(tmp_path)][-1] == "2"


def test_parameter_that_is_not_finite_is_never_saved(tmp_path):
    config = linear_config()
    base = linear(config)

    def update(state, batch, rng):
        state, metrics = base.update(state, batch, rng)
        return state | {"batch_stats": jax.tree.map(lambda x: x / 0, state["batch_stats"])}, metrics

    with pytest.raises(TrainingDivergedError, match=r"a parameter is not finite .* at step 2\. There is no checkpoint"):
        train(config, tmp_path, base._replace(update=update), memory_data(config))


def test_no_validation(tmp_path):
    config = linear_config(num_steps=2)
    data = memory_data(config, num_val=0)._replace(validation=lambda batch_size: iter(()))
    train(config, tmp_path, data=data)
    assert [row["eval/l1"] for row in rows_of(tmp_path)] == ["", ""]
    assert (tmp_path / "samples" / "step_0000002.png").exists()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2"}


@pytest.mark.slow
def test_checkpoints_without_their_config_are_not_overwritten(uninterrupted, pairs, tmp_path):
    config = file_config(pairs, num_steps=2)
    train(config, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"has checkpoints but no config.json"):
        train(config, tmp_path)


@pytest.mark.slow
def test_training_in_memory_works_without_tensorflow(tmp_path):
    code = """
        import sys
        sys.modules["tensorflow"] = None  # importing it raises ImportError
        from support.configs import small_config, small_cyclegan_config
        from support.runs import memory_data
        import p2p_jax
        config = small_config(num_steps=1)
        state = p2p_jax.train(config, sys.argv[1], data=memory_data(config))
        print("step", int(state["step"]), [m for m in sys.modules if m.startswith("tensorflow.")])
        try:
            p2p_jax.train(config, sys.argv[1] + "_other")
        except p2p_jax.InputError as error:
            print(error)
    """
    result = run(python(code, tmp_path / "run"))
    assert "step 1 []" in result.stdout, result.stderr[-2000:]
    assert "pip install 'p2p_jax[data]'" in result.stdout


def test_each_function_of_an_objective_is_traced_once(tmp_path):
    """Tracing is a large part of a warm start, and names of metrics and shapes need no trace of their own."""
    calls, config = collections.Counter(), linear_config(num_steps=2)

    def counted(name, function):
        def run(*arguments):
            calls[name] += 1
            return function(*arguments)

        return run

    objective = linear(config)
    functions = {name: counted(name, getattr(objective, name)) for name in ("init", "update", "evaluate")}
    train(config, tmp_path / "run", objective._replace(**functions))
    assert calls == {"init": 1, "update": 1, "evaluate": 1}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("resident", [False, True])
def test_a_process_may_train_as_often_as_it_likes(resident, tmp_path):
    """What train, Translator and evaluate compile goes with them, and what somebody else has compiled stays."""
    traced, config = [], linear_config(num_steps=2, data__resident=resident)

    @jax.jit
    def of_a_researcher(x):
        traced.append(x.shape)
        return jnp.sin(x) + 1

    def held(calls):
        for i in range(calls):
            workdir = tmp_path / f"{held.count}_{i}"
            train(config, workdir)
            Translator.from_workdir(workdir)(np.zeros((3, 20, 24, 3), np.uint8))
            evaluate(workdir, metrics=[])
            assert float(of_a_researcher(np.float32(0))) == 1
        held.count += 1
        gc.collect()
        programs = len(jax.devices()[0].client.live_executables())
        return Path("/proc/self/maps").read_text().count("\n"), programs

    held.count = 0
    maps, programs = held(1)
    more_maps, more_programs = held(2)
    assert more_programs <= programs  # three a round were kept
    assert more_maps < maps + 20  # each with ten maps at least
    assert traced == [()]
