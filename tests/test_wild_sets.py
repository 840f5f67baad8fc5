"""Sets as they are published and as people have them: looked at, trained, gone on with, translated and scored.

Nothing is renamed by hand: the options are those that inspect proposes.
"""

import json
import shlex

import numpy as np
import pytest

from p2p_jax import main
from p2p_jax.commands import evaluate, inspect, resume, translate
from p2p_jax.images import formats
from support import trees
from support.runs import run_command

SMALL = shlex.split(
    "--config.num_steps=20 --config.batch_size=2 --config.num_samples=1 --config.data.load_size=18 "
    "--config.data.crop_size=16 --config.data.load_width=0 --config.data.crop_width=0 --config.generator.base_width=4 "
    "--config.generator.num_downs=2 --config.discriminator.base_width=4 --config.discriminator.receptive_field=16 "
    "--config.log_every=10 --config.checkpoint_every=10 --config.sample_every=20 --config.eval_every=20"
)


def is_image(path):
    return path.suffix.lower() in formats.EXTENSIONS and not path.name.startswith(".")


def proposed(config, options, tmp_path):
    """Look at a set with some options; returns the status and the options that are proposed besides, but for sizes."""
    output = tmp_path / "inspected"
    status = run_command(inspect, config, *options, f"--output={output}")
    report = json.loads((output / "inspection.json").read_text())
    found = [
        word for sentence in report["suggestions"] for word in shlex.split(sentence) if word.startswith("--config.")
    ]
    return status, [option for option in found if "width" not in option and "preprocess" not in option]


SETS = {
    "cityscapes": (trees.cityscapes, "facades", "leftImg8bit/val"),
    "cmp_base": (trees.cmp_base, "facades", "*.jpg"),
    "phone": (trees.phone, "inpainting", "2024"),
    "forty_sizes": (trees.forty_sizes, "denoising", ""),
    "drive": (trees.drive, "facades", "images"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_set_goes_all_the_way(name, tmp_path, capsys):
    draw, config, given = SETS[name]
    draw(tmp_path / name)
    options = [f"--config.data.dir={tmp_path / name}", "--config.data.load_size=18", "--config.data.crop_size=16"]
    options += [] if config != "facades" else ["--config.data.direction=AtoB", "--config.data.source=side_by_side"]
    for _ in range(2):  # the layout first, then what its images are
        status, more = proposed(config, options, tmp_path)
        options += more
    status, more = proposed(config, options, tmp_path)
    assert (status, more) == (0, []), capsys.readouterr().out
    assert any("val_fraction" in option or "dir_a" in option for option in options)
    if name in ("cityscapes", "cmp_base", "drive"):
        assert any("kind=labels" in option for option in options)

    run = tmp_path / "run"
    main.run([f"--config={config}", f"--workdir={run}", *options, *SMALL])
    assert "Finished: 20 steps" in (run / "summary.txt").read_text()
    run_command(resume, str(run), "--config.num_steps=24")
    assert "Finished: 24 steps" in (run / "summary.txt").read_text()

    source = tmp_path / name / given
    status = run_command(translate, str(run), str(source), f"--output={tmp_path / 'out'}")
    assert status in (0, None), capsys.readouterr()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) >= 4
    sizes = {path.stem: formats.read_header(path)[:2] for path in source.parent.rglob("*") if is_image(path)}
    for path in written:
        assert formats.read(path).pixels.shape[1::-1] == sizes[path.stem]
    assert run_command(evaluate, str(run), f"--output={tmp_path / 'scores'}") in (0, None)
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["num_images"] >= 1 and np.isfinite(results["metrics"]["l1"]["mean"])
