"""Comparisons: budgets, what may not differ, spreads, the page, and a command that is stopped and goes on."""

import base64
import csv
import io
import json
import math
import os
import signal
import statistics
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator, train
from p2p_jax.commands import compare as command
from p2p_jax.config import complete_experiment
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.evaluation import budgets, comparison, comparison_page, comparison_table
from p2p_jax.evaluation.gallery import data_uri
from p2p_jax.evaluation.predictions import predict
from p2p_jax.images import formats
from p2p_jax.images.domains import of_config
from p2p_jax.training import monitoring
from p2p_jax.training.checkpoint import read_filled_in
from p2p_jax.training.cost import Cost, measure
from support.browser import chromium
from support.configs import SMALL, small_config, small_cyclegan_config
from support.images import write_pairs
from support.kinds import KINDS
from support.runs import rows_of, run_command


def experiment(**changes):
    """Return a linear map of each pixel, of which a step costs what its batch does."""
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    return complete_experiment(small_config(**{"num_steps": 100, "eval_every": 30, **linear, **changes}))


# Budgets


@pytest.mark.slow
def test_all_get_the_multiply_adds_of_the_first():
    configs = {"whole": experiment(), "half": experiment(batch_size=2), "odd": experiment(batch_size=6)}
    plans = budgets.plan(configs)
    cost = measure(configs["whole"]).step
    assert cost == 2 * 4 * 16**2 * 3 * 3  # forward, and the gradient of the map
    assert [one.config.num_steps for one in plans] == [100, 200, 67]
    assert plans[0].total == plans[1].total == 100 * cost and plans[2].total == 67 * 1.5 * cost
    assert [one.evaluations for one in plans] == [4, 4, 4]
    assert [one.config.eval_every for one in plans] == [30, 50, 17]
    assert plans[0].config == configs["whole"] and plans[0].differs == {}
    assert plans[1].differs == {"batch_size": 2} and plans[2].differs == {"batch_size": 6}
    assert [one.doubts for one in plans] == [[], [], []]
    (few,) = budgets.plan({"few": experiment()}, gmac=1.4 * cost / 1e9)
    assert few.config.num_steps == 1 and few.doubts == ["whole steps make 29% fewer multiply-adds than the budget"]
    assert few.doubts[0] in budgets.describe([few], 1)
    told = budgets.describe(plans, 2).splitlines()
    assert [line.split()[0] for line in told[1:]] == list(configs) and told[2].split()[2:4] == ["200", "4"]


def test_a_budget_may_be_given_and_steps_may_be_kept():
    configs = {"whole": experiment(), "half": experiment(batch_size=2)}
    assert [one.config.num_steps for one in budgets.plan(configs, "steps")] == [100, 100]
    given = budgets.plan(configs, gmac=50 * measure(configs["whole"]).step / 1e9)
    assert [one.config.num_steps for one in given] == [50, 100]


def test_a_term_that_comes_rarely_makes_room_for_more_steps(monkeypatch):
    """The mean over a run may depend on how long it is: WGAN-GP's generator learns in the last of five steps."""

    def lazy(config):
        steps = config.num_steps
        return Cost(
            step=10.0 if "first" in config.init_from else 4.0 + 10.0 * (steps // 5) / steps,
            image=1,
            trained=1,
            translator=1,
        )

    monkeypatch.setattr(budgets, "measure", lazy)
    plans = budgets.plan({"first": small_config(init_from="first", num_steps=60), "lazy": small_config(num_steps=60)})
    assert plans[1].total == pytest.approx(600, rel=0.02) and plans[1].config.num_steps == 100


@pytest.mark.parametrize(
    ("others", "settings", "message"),
    [
        ({"x": {"data__crop_size": 18}}, {}, "config.data.crop_size is 16 in first and 18 in x: data, split and size"),
        ({"x": {"data__val_split": "test"}}, {}, "config.data.val_split is 'val' in first and 'test' in x"),
        ({"x": {"data__direction": "AtoB"}}, {}, "config.data.direction is 'BtoA' in first and 'AtoB' in x"),
        (
            {"x": {"distances__features": "lab:one"}, "y": {"distances__features": "inception"}},
            {},
            "config.distances.features is lab:one in x, inception in y: KID and FID can be compared only",
        ),
        ({"a/b": {}}, {}, "'a/b' cannot be the name of a folder"),
        ({"x": {"batch_size": 3}}, {}, "x: config.batch_size=3 cannot be split over 2 devices"),
        ({"table.md": {}}, {}, "'table.md' cannot be the name of a folder: .*not a file that is written there"),
        ({"..": {}}, {}, r"'\.\.' cannot be the name of a folder"),
        ({}, {"equal": "time"}, "equal=time: choose gmac"),
        ({}, {"gmac": 0.0}, "gmac=0.0: must be above 0"),
        ({}, {"gmac": math.inf}, "gmac=inf: must be above 0"),
        (
            {},
            {"gmac": 1e9},
            "first: 1,000,000,000 GMAC are 54,253,472,222,222 steps, more than 2,147,483,647",
        ),
        ({}, {"gmac": 1.0, "equal": "steps"}, "not with equal=steps"),
        ({}, {"gmac": 1e-9}, "first: a step has 1.843e-05 GMAC, more than the 1e-09 of a run: give a larger `gmac`"),
        (
            {"x": {"batch_size": 2, "schedule__kind": "linear_decay", "schedule__unit": "steps"}},
            {},
            "x: config.schedule.unit=steps keeps the learning rate of 100 steps, but this run gets 200: set",
        ),
    ],
)
def test_what_may_not_differ(others, settings, message):
    configs = {"first": experiment()} | {name: experiment(**changes) for name, changes in others.items()}
    with pytest.raises(InputError, match=message):
        budgets.plan(configs, **settings)


def test_what_changes_training_images_alone_may_differ():
    other = experiment(data__load_size=30, data__flip=False, augment__vflip=True, schedule__kind="linear_decay")
    plans = budgets.plan({"first": experiment(), "other": other})
    assert plans[1].config.num_steps == 100
    assert set(plans[1].differs) == {"data.load_size", "data.flip", "augment.vflip", "schedule.kind"}
    cropped = {"data__preprocess": "scale_width_and_crop"}
    with pytest.raises(InputError, match=r"config.data.load_size is 18 in first and 30 in other"):
        budgets.plan({"first": experiment(**cropped), "other": experiment(**cropped, data__load_size=30)})


# The command's words


def test_a_variant_is_a_name_and_options():
    assert command.read_variant("weak: --config.loss.lambda_l1=10", "facades") == (
        "weak",
        "facades",
        ["--config.loss.lambda_l1=10"],
    )
    assert command.read_variant("other: maps --config.a.b 'x y'", "facades") == (
        "other",
        "maps",
        ["--config.a.b", "x y"],
    )
    assert command.read_variant("other: maps", "facades") == ("other", "maps", [])
    for wrong in ("weak --config.loss.lambda_l1=10", ": --config.a=1", "same:", "same: facades", "x: 'open"):
        with pytest.raises(InputError, match="variant="):
            command.read_variant(wrong, "facades")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tiny", "tiny.py"],
            "error: two configs are named tiny; rename one with --variant, 'NAME: tiny.py'",
        ),
        (["tiny", "--variant", "tiny: --config.batch_size=2"], "two configs are named tiny"),
        (["tiny", "--variant", "x:"], "error: --variant 'x:': write a name"),
        (["tiny", "--seeds", "0,one"], "error: --seeds 0,one: give whole numbers separated by commas"),
        (["tiny", "--seeds", "1,1"], "error: --seeds 1,1: give different whole numbers from 0 on"),
        (["tiny", "--config.seed=3"], "error: config.seed is for one run; give --seeds for all"),
        (["tiny", "--num_images", "0"], "error: --num_images 0: must be at least 1"),
        (["tiny", "--config.data.val_split="], "error: config.data.val_split is empty"),
        (["tiny", "--variant", "x: --config.data.crop_size=18"], "config.data.crop_size is 16 in tiny and 18 in x"),
        (
            ["tiny", "--variant", "x: --config.batch_sice=2"],
            "no option config.batch_sice; did you mean config.batch_size?",
        ),
        (
            ["tiny", "--variant", "x: --config.best_metric=kid"],
            "error: x: config.best_metric is 'kid'; the objective has",
        ),
        (
            ["tiny", "--variant", "x: --config.distances.features=nope:x"],
            "error: x: config.distances.features: 'nope:x'",
        ),
        (["nowhere"], "no config file nowhere"),
        ([], "config is missing"),
    ],
)
def test_errors_are_one_line_before_anything_is_trained(tiny, arguments, message, capsys):
    ended = run_command(command, *arguments, "--output", "out")
    assert message in f"{ended}{capsys.readouterr().err}"
    assert not Path("out").exists()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Write pairs and a config file for them, and make their folder the current one."""
    write_pairs(tmp_path / "pairs" / "train", 5)
    write_pairs(tmp_path / "pairs" / "val", 3, seed=1)
    changes = {"num_steps": 4, "seed": 0, "sample_every": 100, "objective": "support.networks:linear"}
    changes |= {"data": SMALL["data"] | {"source": "side_by_side", "dir": "pairs"}}
    networks = ("generator", "discriminator", "loss")
    small = {key: value for key, value in SMALL.items() if key not in networks} | changes
    text = f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({small!r})\n"
    (tmp_path / "tiny.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The table


def plans_of(**configs):
    cost = Cost(step=2e9, image=5e6, trained=3_000_000, translator=1_500_000, doubts=())
    return [budgets.Plan(name, config, cost, 2, {"loss.lambda_l1": 1.0}) for name, config in configs.items()]


def done(evaluations, seconds=10.0, milliseconds=2.0):
    results = {"evaluations": evaluations, "seconds": seconds, "milliseconds": milliseconds, "device": "cpu"}
    return {"state": "done", "results": results | {"pictures": []}}


def test_means_and_spreads_are_those_of_the_seeds():
    values = {0: [0.5, 0.3], 1: [0.25, 0.4], 2: [0.6, 0.2]}
    outcomes = {
        f"a/seed_{seed}": done(
            {"l1": [(2, first), (4, last)], "psnr": [(2, 10.0), (4, 9.0)], "strange": [(4, 7.0)]},
            seconds=10.0 * (seed + 1),
        )
        for seed, (first, last) in values.items()
    }
    told = comparison_table.report(plans_of(a=small_config()), [0, 1, 2], outcomes, equal="gmac", num_images=3)
    (row,) = told["configs"]
    assert row["metrics"]["l1"]["last"] == {
        "mean": pytest.approx(0.3),
        "std": pytest.approx(statistics.stdev([0.3, 0.4, 0.2])),
        "count": 3,
    }
    assert row["metrics"]["l1"]["best"]["mean"] == pytest.approx((0.3 + 0.25 + 0.2) / 3)
    assert row["runs"]["1"]["metrics"]["l1"] == {"last": 0.4, "best": 0.25, "best_step": 2}
    assert row["metrics"]["psnr"]["best"]["mean"] == 10.0  # the higher, the better
    assert row["metrics"]["strange"]["better"] is None and row["metrics"]["strange"]["best"]["mean"] is None
    assert row["seconds"] == {"mean": 20.0, "std": 10.0, "count": 3} and row["done"] == 3
    head, line = comparison_table.cells(told)
    assert head[:7] == [
        "",
        "seeds",
        "l1 \u2193 last",
        "l1 \u2193 best",
        "psnr \u2191 last",
        "psnr \u2191 best",
        "strange last",
    ]
    cells = dict(zip(head, line, strict=True))
    assert cells["l1 \u2193 last"] == "0.3000 \u00b1 0.1000" and cells["GMAC a run"] == "8" and cells["steps"] == "4"
    assert (cells["M parameters"], cells["GMAC an image"], cells["ms an image"]) == ("1.5", "0.005", "2 \u00b1 0")


def test_what_is_no_figure_of_a_run_has_no_best():
    """The copies' distance is the same at every step, and less of a spread is not better."""
    found = {"kid": [(2, 0.1), (4, 0.2)], "kid_std": [(2, 0.3), (4, 0.4)], "copy_kid": [(2, 0.5), (4, 0.5)]}
    told = comparison_table.report(
        plans_of(a=small_config()), [0], {"a/seed_0": done(found)}, equal="steps", num_images=3
    )
    metrics = told["configs"][0]["metrics"]
    assert [metrics[name]["best"]["mean"] for name in found] == [0.1, None, None]
    assert [metrics[name]["last"]["mean"] for name in found] == [0.2, 0.4, 0.5]


def test_one_seed_has_no_spread_and_the_table_says_so():
    outcomes = {"a/seed_7": done({"l1": [(4, 0.25)]})}
    told = comparison_table.report(plans_of(a=small_config()), [7], outcomes, equal="steps", num_images=3)
    text = comparison_table.markdown(told)
    assert "validated on 3 images of val, whole images, at the size that the network sees." in text
    cropped = comparison_table.report(
        plans_of(a=small_config(data__preprocess="crop")), [7], outcomes, equal="steps", num_images=3
    )
    assert "validated on 3 images of val, centre crops of 16x16. All keep" in comparison_table.markdown(cropped)
    assert "| a | 1 | 0.2500 | 0.2500 |" in text and "\u00b1" not in text
    assert "One seed has no spread: a difference between two single runs may be chance." in text
    assert "All keep the steps of their configs" in text and "3 images of val" in text


def test_the_direction_of_the_best_metric_is_the_configs():
    config = small_config(best_metric="strange", best_mode="max")
    outcomes = {"a/seed_0": done({"strange": [(2, 5.0), (4, 3.0)], "l1": [(2, float("nan")), (4, 0.5)]})}
    (row,) = comparison_table.report(plans_of(a=config), [0], outcomes, equal="gmac", num_images=1)["configs"]
    assert row["metrics"]["strange"]["best"]["mean"] == 5.0 and row["metrics"]["l1"]["best"]["mean"] == 0.5
    cycles = comparison_table._better("cycle_a", small_cyclegan_config())
    assert cycles == "lower" and comparison_table._better("nobody_knows", config) is None


def test_what_is_not_done_is_not_in_the_mean():
    outcomes = {
        "a/seed_0": done({"l1": [(4, 0.25)], "psnr": [(4, float("inf"))]}),
        "a/seed_1": {"state": "diverged", "reason": "a loss is not finite"},
        "b/seed_0": {"state": "stopped", "reason": "stopped at step 2"},
        "b/seed_1": {"state": "to do"},
    }
    told = comparison_table.report(
        plans_of(a=small_config(), b=small_config()), [0, 1], outcomes, equal="gmac", num_images=3
    )
    text = comparison_table.markdown(told)
    assert "| a | 1 of 2 | 0.2500 | 0.2500 | \u2013 | \u2013 |" in text and "| b | 0 of 2 | \u2013 |" in text
    assert (
        "- a, seed 1: diverged; a loss is not finite\n- b, seed 0: stopped; stopped at step 2\n- b, seed 1: to do"
        in text
    )
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {14}
    rows = list(csv.DictReader(comparison_table.csv_table(told).splitlines()))
    assert [(row["config"], row["seed"], row["state"], row["l1_last"]) for row in rows] == [
        ("a", "0", "done", "0.25"),
        ("a", "1", "diverged", ""),
        ("b", "0", "stopped", ""),
        ("b", "1", "to do", ""),
    ]


def test_seconds_are_those_of_all_sessions(tmp_path):
    """A session that was killed ends with the last row of its metrics."""
    (tmp_path / "metrics.csv").touch()
    os.utime(tmp_path / "metrics.csv", (1025, 1025))
    for sessions, seconds in (
        ([[1000, 1010.5]], 10.5),
        ([[900, 910], [1000, None]], 35),
        ([[1000, None]], 25),
        ([[2000, None]], None),
        ("damaged", None),
    ):
        (tmp_path / "sessions.json").write_text(json.dumps(sessions))
        assert comparison._seconds(tmp_path) == seconds
    with pytest.raises(KeyboardInterrupt), comparison._timed(tmp_path):
        assert json.loads((tmp_path / "sessions.json").read_text())[-1][1] is None
        raise KeyboardInterrupt
    begun, ended = json.loads((tmp_path / "sessions.json").read_text())[-1]
    assert 0 <= ended - begun < 60


# The page


HOSTILE = "<b onclick=alert(1)>&\"'.png"


def page(path, seeds=(0, 1)):
    """Write a page of two configs, whose pictures tell where they belong."""

    def picture(value):
        return data_uri(np.full((16, 16, 3), value, np.uint8))

    pictures = {
        f"{name}/seed_{seed}": [
            {
                "name": image,
                "input": picture(10 + i),
                "target": picture(20 + i),
                "output": picture(100 * k + 50 + 10 * seed + i),
            }
            for i, image in enumerate(("1.png", HOSTILE))
        ]
        for k, name in enumerate("ab")
        for seed in seeds
    }
    outcomes = {name: done({"l1": [(4, 0.25)]}) for name in pictures}
    told = comparison_table.report(
        plans_of(a=small_config(), b=small_config()), list(seeds), outcomes, equal="gmac", num_images=3
    )
    comparison_page.write(path, told, pictures)
    return pictures


def test_the_page_holds_all_pictures_and_no_code_of_others(tmp_path):
    pictures = page(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="ascii")
    for images in pictures.values():
        for image in images:
            assert text.count(image["output"].replace("+", "+")) == 1
    assert "<b onclick" not in text and "&lt;b onclick=alert(1)&gt;" in text
    assert text.count(pictures["a/seed_0"][0]["input"]) == 1
    assert "2 of the 3 images of val, evenly spread" in text and "Inputs differ between runs" not in text
    assert "default-src 'none'; img-src data:" in text and "http" not in text.replace("http-equiv", "")
    pictures["b/seed_1"][0]["input"] = pictures["b/seed_1"][0]["output"]
    told = json.loads(
        json.dumps(
            comparison_table.report(
                plans_of(a=small_config(), b=small_config()),
                [0, 1],
                {name: done({"l1": [(4, 0.25)]}) for name in pictures},
                equal="gmac",
                num_images=3,
            )
        )
    )
    comparison_page.write(tmp_path / "page.html", told, pictures)
    assert "Inputs differ between runs" in (tmp_path / "page.html").read_text()
    comparison_page.write(tmp_path / "page.html", told, {})
    assert "No run is done yet." in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path):
    from selenium.webdriver.support.select import Select

    pictures = page(tmp_path / "page.html")
    with chromium(tmp_path) as driver:
        driver.get((tmp_path / "page.html").as_uri())

        def find(selector):
            return driver.find_elements("css selector", selector)

        def seen():
            return [image.get_attribute("src") for image in find("#pictures img") if image.is_displayed()]

        for seed in ("0", "1"):
            Select(find("#seed")[0]).select_by_visible_text(seed)
            assert seen() == [
                uri
                for i in range(2)
                for uri in (
                    pictures["a/seed_0"][i]["input"],
                    pictures["a/seed_0"][i]["target"],
                    pictures[f"a/seed_{seed}"][i]["output"],
                    pictures[f"b/seed_{seed}"][i]["output"],
                )
            ]
        assert [image.size["width"] for image in find("#pictures img")][:1] == [128]
        driver.execute_script(
            "const s = document.getElementById('size'); s.value = 256; s.dispatchEvent(new Event('input'))"
        )
        assert find("#pictures img")[0].size["width"] == 256
        assert [cell.text for cell in find("#table tbody th")] == ["a", "b"]
        assert find("#pictures tbody th")[1].text == HOSTILE
        assert driver.get_log("browser") == []
        assert driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


# The whole


class Bench:
    """Stands in for training and for translating, and takes down what was asked of it."""

    def __init__(self, monkeypatch, diverge=()):
        self.trained, self.measured, self.diverge = [], [], diverge
        monkeypatch.setattr(comparison, "train", self.train)
        monkeypatch.setattr(comparison, "_measured", self.measure)
        monkeypatch.setattr(comparison, "find_step", lambda workdir, *_: comparison.saved_steps(workdir)[-1])

    def train(self, config, workdir, **_):
        if any(part in str(workdir) for part in self.diverge):
            raise TrainingDivergedError("a loss is not finite at step 1")
        self.trained.append((workdir.parent.name, config.seed, config.num_steps))
        (workdir / "checkpoints" / str(config.num_steps) / "config").mkdir(parents=True, exist_ok=True)
        (workdir / "checkpoints" / str(config.num_steps) / "config" / "metadata").touch()
        (workdir / "config.json").write_text(json.dumps(config.to_dict()))
        return {"step": config.num_steps}

    def measure(self, workdir, chosen, trusting):
        self.measured.append((workdir.parent.name, workdir.name, chosen))
        seed = int(workdir.name[-1])
        results = done({"l1": [(json.loads((workdir / "config.json").read_text())["num_steps"], 0.25 + seed)]})[
            "results"
        ]
        return results | {"pictures": [{"name": str(i), "input": "data:,", "output": "data:,"} for i in chosen]}


@pytest.mark.slow
def test_seeds_come_in_turn_and_nothing_is_done_twice(tmp_path, monkeypatch):
    bench = Bench(monkeypatch)
    configs = {"whole": experiment(), "narrow": experiment(batch_size=2)}
    told = comparison.compare(configs, tmp_path, seeds=[3, 4], num_images=2)
    in_turn = [("whole", 3, 100), ("narrow", 3, 200), ("whole", 4, 100), ("narrow", 4, 200)]
    assert bench.trained == in_turn and len(bench.measured) == 4
    assert all(len(chosen) == 2 for *_, chosen in bench.measured)
    assert told == json.loads((tmp_path / "table.json").read_text())
    assert told["configs"][1]["metrics"]["l1"]["last"]["mean"] == pytest.approx(3.75)
    assert comparison.compare(configs, tmp_path, seeds=[3, 4], num_images=2) == told
    assert bench.trained == in_turn and len(bench.measured) == 4
    comparison.compare(configs, tmp_path, seeds=[3, 4], num_images=3)  # other images: translated anew
    assert bench.trained == in_turn and len(bench.measured) == 8
    (tmp_path / "whole" / "seed_3" / "compare.json").write_text("{")
    comparison.compare(configs, tmp_path, seeds=[3, 4, 5], num_images=3)
    assert bench.trained == [*in_turn, ("whole", 5, 100), ("narrow", 5, 200)] and len(bench.measured) == 11


def test_runs_of_another_config_are_refused_before_training(tmp_path, monkeypatch):
    bench = Bench(monkeypatch)
    comparison.compare({"whole": experiment()}, tmp_path)
    bench.trained.clear()
    with pytest.raises(
        InputError, match=r"seed_0 holds a run with another config:\n  config.batch_size: stored 4, now 2"
    ):
        comparison.compare({"new": experiment(), "whole": experiment(batch_size=2)}, tmp_path)
    with pytest.raises(InputError, match="seed_0 has trained for 100 steps, but is now to train for 50: give the same"):
        comparison.compare({"whole": experiment(num_steps=50)}, tmp_path)
    assert bench.trained == []
    comparison.compare({"whole": experiment(num_steps=150)}, tmp_path)  # more goes on
    assert bench.trained == [("whole", 0, 150)]


@pytest.mark.parametrize(("diverge", "status"), [([], 0), (["weak"], 1)])
def test_the_status_tells_of_a_run_that_diverged(tiny, monkeypatch, capsys, diverge, status):
    bench = Bench(monkeypatch, diverge)
    monkeypatch.setattr(budgets, "measure", lambda config: Cost(2e9, 5e6, 1, 1))
    variant = ["--variant", "weak: --config.batch_size=2"]
    assert run_command(command, "tiny", "--output=out", "--equal=steps", "--config.num_steps=5", *variant) == status
    assert bench.trained == [("tiny", 0, 5), ("weak", 0, 5)][: 2 - status]
    assert ("diverged" in Path("out/table.md").read_text()) == bool(status)
    assert "| weak |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_is_stopped_twice_and_goes_on(tiny, monkeypatch, capsys):
    """SIGTERM in the first run, Ctrl-C in the third; then nothing is left to do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a shell's background
    progress, rows = monitoring.Log.progress, []
    stops = {("tiny/seed_0", 2): signal.SIGTERM, ("tiny/seed_1", 1): signal.SIGINT}

    def stopping(self, step, row):
        run = str(self._workdir.relative_to("out"))
        rows.append((run, step))
        progress(self, step, row)
        if (run, step) in stops:
            os.kill(os.getpid(), stops.pop((run, step)))

    monkeypatch.setattr(monitoring.Log, "progress", stopping)
    arguments = ["tiny", "--output", "out", "--seeds", "0,1", "--variant", "narrow: --config.batch_size=2"]
    arguments += ["--num_images", "2"]
    assert run_command(command, *arguments) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("stopped; run the same command to resume\n")
    assert "tiny, seed 0: stopped; stopped at step" in printed and "narrow, seed 1: to do" in printed
    assert not Path("out/narrow").exists()
    assert run_command(command, *arguments) == 130
    assert capsys.readouterr().err == "interrupted; run the same command to resume\n"
    states = [
        run["state"]
        for row in json.loads(Path("out/table.json").read_text())["configs"]
        for run in row["runs"].values()
    ]
    assert states == ["done", "stopped", "done", "to do"]
    assert run_command(command, *arguments) == 0
    told = json.loads(Path("out/table.json").read_text())
    assert len(rows) == len(set(rows))  # no step was trained twice
    signal.signal(signal.SIGINT, before)

    for row in told["configs"]:
        own = [rows_of(Path("out", row["name"], f"seed_{seed}")) for seed in (0, 1)]
        assert all(int(found[-1]["step"]) == row["num_steps"] for found in own)
        for name in ("l1", "psnr", "ssim"):
            values = [[float(line[f"eval/{name}"]) for line in found if line[f"eval/{name}"]] for found in own]
            best = [(min if name == "l1" else max)(one) for one in values]
            for which, numbers in (("last", [one[-1] for one in values]), ("best", best)):
                found = row["metrics"][name][which]
                assert (found["mean"], found["std"]) == (statistics.fmean(numbers), statistics.stdev(numbers))
        assert row["seconds"]["count"] == row["milliseconds"]["count"] == 2
    whole, narrow = told["configs"]
    assert (whole["num_steps"], narrow["num_steps"], narrow["differs"]) == (4, 8, {"batch_size": 2})
    assert narrow["multiply_adds"] == whole["multiply_adds"] and narrow["parameters"] == whole["parameters"] == 12

    page = Path("out/comparison.html").read_text()
    for name in ("tiny", "narrow"):
        for seed in (0, 1):
            pictures = json.loads(Path("out", name, f"seed_{seed}", "compare.json").read_text())["pictures"]
            assert [picture["name"] for picture in pictures] == ["000.png", "002.png"]
            assert all(page.count(picture["output"]) == 1 for picture in pictures)
    written = {path: path.stat().st_mtime_ns for path in Path("out").rglob("compare.json")}
    done = len(rows)
    capsys.readouterr()
    assert run_command(command, *arguments) == 0
    assert "compiling" not in capsys.readouterr().out and len(rows) == done
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("compare.json")} == written


@pytest.mark.slow
def test_pictures_are_those_of_the_last_checkpoint(pix2pix_run, tmp_path):
    """As the library translates the same images by itself."""
    found = comparison._measured(pix2pix_run, [1, 2], {})
    translator = Translator.from_workdir(pix2pix_run)
    predictions = list(predict(translator, "val"))
    assert [picture["name"] for picture in found["pictures"]] == [predictions[i].name for i in (1, 2)]
    for i, picture in zip((1, 2), found["pictures"], strict=True):
        for name in ("input", "output", "target"):
            assert picture[name].startswith("data:image/png;")  # tiny: without loss
            image = pixels(picture[name]).astype(float)
            expected = (np.asarray(getattr(predictions[i], name)) + 1) * 127.5
            assert np.abs(image - expected).max() <= 1.01
    assert found["milliseconds"] > 0 and found["device"] == jax.devices()[0].device_kind
    assert set(found["evaluations"]) == {"l1", "psnr", "ssim"} and [s for s, _ in found["evaluations"]["l1"]] == [2, 4]


@pytest.mark.slow
def test_without_pairs_there_is_no_target(cyclegan_run):
    found = comparison._measured(cyclegan_run, [0, 2], {})
    assert [set(picture) for picture in found["pictures"]] == [{"name", "input", "output"}] * 2
    config = comparison.read_config(cyclegan_run)
    metrics = comparison_table._metrics(config, found["evaluations"])
    values = [float(row["eval/cycle"]) for row in rows_of(cyclegan_run) if row["eval/cycle"]]
    assert metrics["cycle"]["last"] == values[-1] and metrics["cycle"]["best"] == min(values)


@pytest.mark.slow
def test_other_kinds_are_shown_as_pictures(tmp_path):
    """Labels that become five bands of floats: the page has grays and the first three bands."""
    labels, bands = KINDS["labels"], KINDS["float"]
    for split in ("train", "val"):
        for i in range(4):
            formats.write(tmp_path / split / "A" / f"{i}.png", labels.raw[i])
            np.save(made(tmp_path / split / "B") / f"{i}.npy", bands.raw[i])
    options = {"data__source": "folders", "data__dir": str(tmp_path), "data__direction": "AtoB", "data__flip": False}
    sides = {"data__input__kind": "labels", "data__input__channels": 7, "data__output__kind": "float"}
    config = experiment(num_steps=1, **options, **sides, data__output__channels=5)
    train(config, tmp_path / "run")
    found = comparison._measured(tmp_path / "run", [1, 3], {})
    assert [picture["name"] for picture in found["pictures"]] == ["1.png", "3.png"]
    shown = [{name: pixels(picture[name]) for name in ("input", "output", "target")} for picture in found["pictures"]]
    domains = of_config(read_filled_in(tmp_path / "run").data)
    predictions = list(predict(Translator.from_workdir(tmp_path / "run"), "val"))
    for images, prediction in zip(shown, (predictions[1], predictions[3]), strict=True):
        assert images["output"].shape == images["target"].shape == (16, 16, 3)
        for name, domain in zip(("input", "target"), domains, strict=True):
            np.testing.assert_array_equal(images[name], domain.picture(getattr(prediction, name)).squeeze())


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(";base64,")[2]))))
