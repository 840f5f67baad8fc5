"""Metrics of one's own, of images and of sets: in validation, for the best checkpoint, in results and report."""

import json

import numpy as np
import pytest

from p2p_jax.commands import evaluate as command
from p2p_jax.commands import train as training
from p2p_jax.config import complete
from p2p_jax.errors import InputError
from p2p_jax.evaluation import ablation_table, set_metrics
from p2p_jax.objectives.metrics import find_metrics
from support.runs import rows_of, run_command

MODULE = """
import numpy as np
from p2p_jax.evaluation.set_metrics import SetMetric
from p2p_jax.objectives.metrics import Metric

brightness = Metric("brightness", "Brightness", "Difference of mean brightness; 0 is equal.", True,
                    lambda output, target: abs(output.mean((1, 2, 3)) - target.mean((1, 2, 3))))
variety = SetMetric("variety", "variety", "Deviation between the outputs; 0: all alike.",
                    lambda sets: {"deviation": float(np.std([image.mean() for image in sets.outputs]))})
not_one = 3
"""
SMALL = [
    *("--config", "quickstart", "--workdir", "run", "--config.num_steps=2", "--config.eval_every=1"),
    *("--config.batch_size=2", "--config.data.load_size=36", "--config.data.crop_size=32"),
    *("--config.generator.num_downs=2", "--config.generator.base_width=4", "--config.discriminator.base_width=4"),
    *("--config.discriminator.receptive_field=16", "--config.num_samples=1"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_metrics.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    import sys

    sys.modules.pop("my_metrics", None)


@pytest.mark.slow
def test_of_images_in_training_and_in_the_report(folder, capsys):
    own = ["--config.metrics=ssim,my_metrics:brightness", "--config.best_metric=brightness"]
    assert run_command(training, *SMALL, *own) == 0
    rows = rows_of(folder / "run")
    assert {name for name in rows[0] if name.startswith("eval/")} == {"eval/ssim", "eval/brightness"}
    assert 0 < float(rows[-1]["eval/brightness"]) < 1
    best = min(rows, key=lambda row: float(row["eval/brightness"]))
    assert f"Best brightness: {float(best['eval/brightness']):.4g} at step {best['step']}" in capsys.readouterr().out

    trust = ("--trust", "my_metrics:brightness")
    assert run_command(command, "run", *trust, "--metrics", "my_metrics:variety", "--output", "found") == 0
    results = json.loads((folder / "found" / "results.json").read_text())
    assert results["metrics"].keys() == {"ssim", "brightness"}
    assert results["metrics"]["brightness"]["mean"] == pytest.approx(float(rows[-1]["eval/brightness"]), rel=1e-4)
    assert results["set_metrics"]["variety"]["count"] == results["num_images"]
    assert results["set_metrics"]["variety"]["deviation"] > 0
    assert results["described"]["brightness"] == {
        "meaning": "Difference of mean brightness; 0 is equal.",
        "lower_is_better": True,
    }
    page = (folder / "found" / "report.html").read_text()
    assert (
        "Difference of mean brightness; 0 is equal." in page and "Deviation between the outputs; 0: all alike." in page
    )


def test_what_is_no_metric_is_refused(folder):
    for names, message in [
        ("l1,nothing", "config.metrics: 'nothing' is not a metric of pairs; choose from l1, psnr, ssim"),
        ("cycle", "'cycle' is not a metric of pairs"),
        ("my_metrics:not_one", "'my_metrics:not_one' is not a metric of pairs"),
        ("my_metrics:absent", "config.metrics: .* has no 'absent'"),
        ("l1,l1", "config.metrics names l1 twice"),
        ("", "config.metrics: '' is not a metric of pairs"),
    ]:
        with pytest.raises(InputError, match=message):
            find_metrics(names)
    with pytest.raises(InputError, match="metrics=my_metrics:brightness: choose from histogram, .*, distances, or"):
        set_metrics.find("my_metrics:brightness")
    assert "config.metrics: 'nothing' is not" in run_command(training, *SMALL, "--config.metrics=nothing")
    assert not (folder / "run" / "checkpoints").exists()


def test_every_metric_of_the_tables_is_described():
    assert [metric.key for metric in set_metrics.SET_METRICS] == ["histogram", "fcn", "labels", "fid", "distances"]
    for metric in set_metrics.SET_METRICS:
        assert set_metrics.find(metric.key) is metric is set_metrics.of_title(f"{metric.title} [by something]")
        assert metric.meaning or metric.parts
    assert ablation_table.cell_text("FID and KID", {"fid": 12.34, "kid_mean": 0.5, "count": 3}) == "12.3, 0.5000"
    assert ablation_table.cell_text("distances [own]", {"fid": 12.34, "kid": 0.5, "kid_std": 0.1}) == "12.34, 0.5000"
    assert ablation_table.cell_text("histogram intersection", {"L": 0.5, "count": 3}) == "0.50"  # of gray images
    assert ablation_table.cell_text("of one's own", {"deviation": 0.123456, "colours": 7, "count": 3}) == "0.1235 / 7"
    assert complete({}).metrics == "l1,psnr,ssim"
    images = np.zeros((2, 16, 16, 3), np.float32)
    values = {metric.key: metric.compare(images, images + 0.5) for metric in find_metrics("ssim,l1")}
    assert list(values) == ["ssim", "l1"] and values["l1"].tolist() == [0.5, 0.5]
