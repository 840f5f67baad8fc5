"""Ablation tables: rows, shared runs, going on after stops, rows that cannot run, and the paper's numbers."""

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from p2p_jax.commands import ablate as command
from p2p_jax.config import complete, load_with_overrides, resolve
from p2p_jax.data import Split
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.evaluation import ablation, series
from p2p_jax.evaluation.ablation import ablate
from p2p_jax.evaluation.ablation_table import TABLES, markdown, rows
from p2p_jax.images.palettes import CMP_FACADES
from p2p_jax.training.loop import train
from support.configs import SMALL, small_config, small_cyclegan_config
from support.images import write_pairs
from support.processes import run_python
from support.runs import memory_data, run_command

ROOT = Path(__file__).parent.parent


def config_16(**changes):
    """Return an experiment whose programs compile quickly."""
    return small_config(**{"num_steps": 2, "generator__num_downs": 2, "sample_every": 100, **changes})


def parameters(row, side=96):
    """Return the shapes of the networks that a row trains, by name."""
    config = small_config(data__crop_size=side, data__load_size=side, generator__num_downs=3)
    changed = series.changed(config, row.changes)
    blank = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    state = jax.eval_shape(
        resolve(changed.objective)(changed).init, jax.random.key(0), {"real_a": blank, "real_b": blank}
    )
    return changed, jax.tree.map(lambda x: x.shape, state["params"], is_leaf=lambda x: hasattr(x, "shape"))


def test_losses_take_terms_away():
    own = small_config()
    found = {row.label: parameters(row) for row in rows("losses", own)}
    assert list(found) == ["L1", "GAN", "cGAN", "L1+GAN", "L1+cGAN"]
    weights = {name: (config.loss.get("lambda_gan", 1.0), config.loss.lambda_l1) for name, (config, _) in found.items()}
    assert weights == {"L1": (0, 100), "GAN": (1, 0), "cGAN": (1, 0), "L1+GAN": (1, 100), "L1+cGAN": (1, 100)}
    channels = {
        name: params["discriminator"]["conv_1"]["kernel"][2] if "discriminator" in params else 0
        for name, (_, params) in found.items()
    }
    assert channels == {"L1": 0, "GAN": 3, "cGAN": 6, "L1+GAN": 3, "L1+cGAN": 6}


def test_generators_lose_their_skips():
    found = {row.label: parameters(row)[1] for row in rows("generators", small_config())}
    into_the_last = {name: params["generator"]["up_1"]["kernel"][-1] for name, params in found.items()}
    assert into_the_last == {
        "encoder-decoder (L1)": 4,
        "encoder-decoder (L1+cGAN)": 4,
        "U-Net (L1)": 8,
        "U-Net (L1+cGAN)": 8,
    }
    assert ["discriminator" in params for params in found.values()] == [False, True, False, True]


def test_patches_change_the_discriminator_alone():
    found = {row.label: parameters(row)[1] for row in rows("patches", small_config())}
    depth = {name: sum(layer.startswith("conv") for layer in p["discriminator"]) for name, p in found.items()}
    assert depth == {"1x1": 3, "16x16": 3, "70x70": 7, "286x286": 11}
    assert all(params["generator"] == found["1x1"]["generator"] for params in found.values())


def test_equal_experiments_share_a_run():
    for own, patch_runs in (
        (70, ["L1+cGAN-patch1", "L1+cGAN-patch16", "L1+cGAN", "L1+cGAN-patch286"]),
        (34, ["L1+cGAN-patch1", "L1+cGAN-patch16", "L1+cGAN-patch70", "L1+cGAN-patch286"]),
    ):
        config = small_config(discriminator__receptive_field=own)
        assert [row.run for row in rows("patches", config)] == patch_runs
        runs = {}
        for table in TABLES:
            for row in rows(table, config):
                runs.setdefault(row.run, []).append(json.dumps(series.changed(config, row.changes).to_dict()))
        assert all(len(set(same)) == 1 for same in runs.values())  # one folder, one experiment
        assert len({same[0] for same in runs.values()}) == len(runs) == (10 if own == 70 else 11)


PAPER = {
    "losses": {
        "L1": (0.42, 0.15, 0.11),
        "GAN": (0.22, 0.05, 0.01),
        "cGAN": (0.57, 0.22, 0.16),
        "L1+GAN": (0.64, 0.20, 0.15),
        "L1+cGAN": (0.66, 0.23, 0.17),
    },
    "generators": {
        "encoder-decoder (L1)": (0.35, 0.12, 0.08),
        "encoder-decoder (L1+cGAN)": (0.29, 0.09, 0.05),
        "U-Net (L1)": (0.48, 0.18, 0.13),
        "U-Net (L1+cGAN)": (0.55, 0.20, 0.14),
    },
    "patches": {
        "1x1": (0.39, 0.15, 0.10),
        "16x16": (0.65, 0.21, 0.17),
        "70x70": (0.66, 0.23, 0.17),
        "286x286": (0.42, 0.16, 0.11),
    },
}


class Bench:
    """Stands in for training on data sets of files and for scoring, and takes down what was asked of it."""

    def __init__(self, monkeypatch, stop=None, diverge=()):
        self.trained, self.scored, self.stop, self.diverge = [], [], stop, diverge
        self.set_metrics = {}
        monkeypatch.setattr(ablation, "train", self.train)
        monkeypatch.setattr(ablation, "evaluate", self.evaluate)
        monkeypatch.setattr(ablation, "load_split", self.load_split)

    def train(self, config, workdir):
        if workdir.name in self.diverge:
            raise TrainingDivergedError("a loss is not finite at step 1")
        data = memory_data(config)

        def train_batches(first_step):
            for step, batch in enumerate(data.train(first_step), start=first_step + 1):
                self.trained.append((workdir.name, step))
                if (workdir.name, step) == self.stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        return train(config, workdir, data=data._replace(train=train_batches))

    def load_split(self, config, split):
        """Return two label maps of one CMP colour, on both sides."""
        if split not in ("val", "test"):
            raise InputError(f"there is no {split}")
        images = (np.full((4, 4, 3), CMP_FACADES.colors[0], np.uint8),) * 2
        return Split(names=(["0", "1"],) * 2, paired=True, batches=None, original=lambda side, index: images[side])

    def evaluate(self, workdir, *, output, **asked):
        self.scored.append((workdir.name, asked))
        metrics = {name: {"mean": mean, "count": 3} for name, mean in (("l1", 0.125), ("psnr", None), ("ssim", 0.5))}
        step = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
        return {"step": step, "num_images": 3, "metrics": metrics, "set_metrics": self.set_metrics, "images": [{}]}


class FakeTraining(Bench):
    """Stands in for training altogether."""

    def train(self, config, workdir):
        if workdir.name in self.diverge:
            raise TrainingDivergedError("a loss is not finite at step 1")
        self.trained.append(workdir.name)
        (workdir / "checkpoints" / str(config.num_steps) / "config").mkdir(parents=True, exist_ok=True)
        (workdir / "checkpoints" / str(config.num_steps) / "config" / "metadata").touch()
        (workdir / "config.json").write_text(json.dumps(config.to_dict()))
        return {"step": config.num_steps}


def states(told):
    return {row["run"]: row["state"] for table in told["tables"] for row in table["rows"]}


def test_the_whole_grid_stands_beside_the_papers_numbers(tmp_path, monkeypatch):
    """At 48 pixels everything fits but the patch of 286, which takes 96."""
    bench = FakeTraining(monkeypatch)
    score = {"pixel_accuracy": 0.512, "class_accuracy": 0.25, "class_iou": 0.125}
    real = {"pixel_accuracy": 0.9, "class_accuracy": 0.8, "class_iou": 0.7}
    bench.set_metrics = {
        "histogram intersection": {"L": 0.75, "a": 0.5, "b": 0.25},
        "FCN score [own]": score | {"real photographs": real},
    }
    config = config_16(data__crop_size=48, data__load_size=48, discriminator__receptive_field=70)
    told = ablate(config, tmp_path, split="test", metrics=["histogram"])
    assert len(bench.trained) == len(set(bench.trained)) == 9
    assert bench.scored == [(name, {"split": "test", "metrics": ["histogram"]}) for name in bench.trained]
    assert json.loads((tmp_path / "table.json").read_text()) == told
    paper = {
        table["name"]: {row["label"]: tuple(row["paper"]["labels to photographs"].values()) for row in table["rows"]}
        for table in told["tables"]
    }
    assert paper == PAPER
    text = (tmp_path / "table.md").read_text()
    ours = "| 3 | 2 | 0.1250 | – | 0.500 | 0.75 / 0.50 / 0.25 | 0.51 / 0.25 / 0.12 |"
    for table in PAPER.values():
        for label, (a, b, c) in table.items():
            cells = "| left out | – | – | – | – | – | – |" if label == "286x286" else ours
            assert f"| {label} {cells} {a:.2f} / {b:.2f} / {c:.2f} |" in text
    assert text.count("| – | 0.90 / 0.80 / 0.70 | 0.80 / 0.26 / 0.21 |") == 3
    assert "needs images of at least 96x96 pixels, not 48x48" in text
    assert "other segmenter: not comparable in absolute terms, compare the order" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_photographs_to_labels_have_their_own_numbers(tmp_path, monkeypatch):
    bench = FakeTraining(monkeypatch)
    score = {"pixel_accuracy": 0.5, "class_accuracy": 0.4, "class_iou": 0.3}
    bench.set_metrics = {"labels, nearest palette colour": score}
    ablate(config_16(), tmp_path, tables=["losses"], metrics=["labels"], palette="cmp_facades")
    text = (tmp_path / "table.md").read_text()
    for paper in ("0.86 / 0.42 / 0.35", "0.74 / 0.28 / 0.22", "0.83 / 0.36 / 0.29"):
        assert f"| 0.50 / 0.40 / 0.30 | {paper} |" in text
    assert "Cityscapes, photographs to labels, not comparable" in text


def test_a_row_that_diverges_does_not_cost_the_others(tmp_path, monkeypatch):
    bench = FakeTraining(monkeypatch, diverge=["GAN"])
    told = ablate(config_16(), tmp_path, tables=["losses"])
    assert states(told) == {name: "scored" for name in PAPER["losses"]} | {"GAN": "diverged"}
    assert "- GAN: diverged; a loss is not finite at step 1" in markdown(told)
    assert bench.trained == ["L1", "cGAN", "L1+GAN", "L1+cGAN"]


@pytest.mark.slow
def test_scores_are_kept_until_something_changes(tmp_path, monkeypatch):
    bench = FakeTraining(monkeypatch)

    def scored(config=None, **asked):
        bench.scored.clear()
        told = ablate(config or config_16(), tmp_path, tables=["generators"], **asked)
        assert set(states(told).values()) == {"scored"}
        return len(bench.scored)

    assert [scored(), scored(), scored(split="test"), scored(split="test"), scored(metrics=["histogram"])] == [
        4,
        0,
        4,
        0,
        4,
    ]
    assert scored(config_16(num_steps=3), metrics=["histogram"]) == 4  # another checkpoint
    path = tmp_path / "L1" / "results.json"
    for damaged in ("{", "5", "{}", "[" * 100_000):
        path.write_text(damaged)
        assert scored(config_16(num_steps=3), metrics=["histogram"]) == 1
        assert json.loads(path.read_text())["step"] == 3


@pytest.mark.slow
def test_interrupted_and_resumed(tmp_path, monkeypatch):
    """SIGTERM in the first of two runs stops the command; the same one goes on with the step after."""
    bench = Bench(monkeypatch, stop=("L1+cGAN-patch1", 1))
    config = config_16()
    told = ablate(config, tmp_path, tables=["patches"])
    assert states(told) == {
        "L1+cGAN-patch1": "stopped",
        "L1+cGAN": "to do",
        "L1+cGAN-patch70": "left out",
        "L1+cGAN-patch286": "left out",
    }
    # The batch of the second step was fetched while the first one ran.
    assert bench.trained == [("L1+cGAN-patch1", 1), ("L1+cGAN-patch1", 2)] and bench.scored == []
    assert "| 1x1 | stopped |" in (tmp_path / "table.md").read_text()
    bench.stop = None
    told = ablate(config, tmp_path, tables=["patches"])
    assert [states(told)[name] for name in ("L1+cGAN-patch1", "L1+cGAN")] == ["scored", "scored"]
    assert sorted(set(bench.trained)) == [(f"L1+cGAN{patch}", step) for patch in ("", "-patch1") for step in (1, 2)]
    assert bench.trained.count(("L1+cGAN-patch1", 1)) == 1
    del bench.trained[:], bench.scored[:]
    assert ablate(config, tmp_path, tables=["patches"]) == told
    assert bench.trained == bench.scored == []


@pytest.mark.slow
def test_runs_of_another_config_are_refused_before_training(tmp_path, monkeypatch):
    bench = Bench(monkeypatch)
    other = series.changed(config_16(seed=5, num_steps=1), {})
    train(other, tmp_path / "L1+cGAN", data=memory_data(other))
    with pytest.raises(InputError, match=r"L1\+cGAN holds a run with another config:\n  config.seed: stored 5, now 0"):
        ablate(config_16(), tmp_path, tables=["patches"])
    assert bench.trained == []


@pytest.mark.parametrize(
    ("config", "asked", "message"),
    [
        (config_16(loss__lambda_l1=0.0), {}, "config.loss.lambda_l1 is 0.0; each row removes a part"),
        (config_16(generator__skips=False), {}, "config.generator.skips is False"),
        (config_16(discriminator__receptive_field=70), {}, "needs images of at least 24x24 pixels, not 16x16"),
        (small_cyclegan_config(), {}, "config.loss.conditional; the options are gan, .*objective has no such"),
        (config_16(data__val_split=""), {}, "name the split to score on"),
        (config_16(), {"metrics": ["imagination"]}, "metrics=imagination: choose from histogram"),
        (config_16(), {"metrics": ["fcn"]}, "fcn needs `segmenter`"),
        (config_16(), {"segmenter": "nowhere"}, "there is no segmenter nowhere"),
        (config_16(), {"tables": ["losses", "looses"]}, "no table looses; choose from losses, generators, patches"),
        (config_16(), {"split": "tset"}, "there is no tset"),
        (config_16(), {"metrics": ["labels"], "palette": "nowhere.json"}, "nowhere.json"),
        (config_16(), {"metrics": ["labels"], "label_ids": "nowhere"}, "`label_ids`: there is no file nowhere/0.png"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, monkeypatch, config, asked, message):
    bench = Bench(monkeypatch)
    with pytest.raises(InputError, match=message):
        ablate(config, tmp_path / "out", **asked)
    assert bench.trained == [] and not (tmp_path / "out").exists()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Write pairs and a config file for them, and make their folder the current one."""
    write_pairs(tmp_path / "pairs" / "train", 5)
    write_pairs(tmp_path / "pairs" / "val", 3, seed=1)
    changes = {"num_steps": 7, "seed": 0, "sample_every": 100, "generator": {"num_downs": 2, "base_width": 4}}
    small = SMALL | changes | {"data": SMALL["data"] | {"source": "side_by_side", "dir": "pairs"}}
    text = f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({small!r})\n"
    (tmp_path / "tiny.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_command_trains_and_scores(tiny, capsys):
    """The whole way, with nothing replaced; the second time there is nothing to do."""
    arguments = [
        "--config",
        "tiny",
        "--output",
        "out",
        "--table",
        "patches",
        "--num_steps",
        "2",
        "--metrics",
        "histogram",
    ]
    for _ in range(2):
        assert run_command(command, *arguments, "--config.seed=3") == 0
    printed = capsys.readouterr().out
    assert printed.count("device(s) of kind") == 2
    assert printed.count("already at step 2, and config.num_steps is 2; nothing to do") == 2
    told = json.loads(Path("out/table.json").read_text())
    assert told["config"]["seed"] == 3 and told["asked"]["split"] == "val"
    first, second, *rest = told["tables"][0]["rows"]
    assert [row["state"] for row in rest] == ["left out", "left out"]
    for row in (first, second):
        assert row["state"] == "scored" and row["step"] == 2
        last = Path("out", row["run"], "metrics.csv").read_text().splitlines()
        trained = dict(zip(last[0].split(","), last[-1].split(","), strict=True))
        for name, of_images in row["metrics"].items():
            assert of_images["mean"] == pytest.approx(float(trained[f"eval/{name}"]), rel=1e-5)
            assert of_images["count"] == row["num_images"] == 3
        assert Path("out", row["run"], "evaluation", "val_2", "report.html").exists()
    assert Path("out/table.md").read_text() in printed


@pytest.mark.parametrize(("diverge", "status"), [([], 0), (["GAN"], 1)])
def test_the_status_tells_of_a_row_that_diverged(tiny, monkeypatch, diverge, status):
    FakeTraining(monkeypatch, diverge=diverge)
    assert run_command(command, "--config=tiny.py", "--output=out", "--table=losses") == status
    assert ("diverged" in Path("out/table.md").read_text()) == bool(status)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=nowhere.py"], "error: no config file nowhere.py; p2p_jax has apple2orange"),
        (["--config.sed=3"], "error: the config has no option config.sed; did you mean config.seed?"),
        (["--config.data.load_sise=x"], "no option config.data.load_sise; did you mean config.data.load_size?"),
        (["--config.seed=many"], "error: flag --config.seed=many: "),
        (["--outptu=x"], "unrecognized arguments: --outptu=x"),
        (["extra"], "config is given twice, as extra and as --config tiny.py"),
        (["--config.data.direction=up"], "error: config.data.direction is 'up'; choose AtoB or BtoA"),
    ],
)
def test_errors_are_one_line(tiny, arguments, message, capsys):
    ended = run_command(command, "--config=tiny.py", "--output=out", "--table=all", *arguments)
    assert message in f"{ended}{capsys.readouterr().err}"
    assert not Path("out").exists()


def test_overrides_reach_the_config(tiny):
    config = complete(load_with_overrides("tiny.py", ["--config.seed=5", "--config.data.load_size", "20"]))
    assert (config.seed, config.data.load_size, config.data.crop_size, config.num_steps) == (5, 20, 16, 7)
    assert load_with_overrides("tiny", []).seed == 0


def test_help_is_quick():
    code = """
        import sys
        from p2p_jax.commands import ablate
        try: ablate.run(["--help"])
        except SystemExit: print("tensorflow" in sys.modules)
    """
    printed = run_python(code)
    assert printed.strip().endswith("False") and "--segmenter" in printed
