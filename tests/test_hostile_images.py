"""Two hundred damaged images through the commands: no traceback, no hang, no more memory than a small machine has.

Each command sees the folder of all of them. Starting a training and evaluating stop at the first bad file, so every
image goes through them again in a set of its own, in one process.
"""

import json
import os
import re

import numpy as np
import pytest

from support.images import write_pairs
from support.mutations import mutants
from support.processes import python, run, run_python

COUNT = int(os.environ.get("P2P_JAX_TEST_MUTANTS", "200"))
SEED = int(os.environ.get("P2P_JAX_TEST_SEED", "22"))
SECONDS, MEGABYTES = 30, 1_500  # that one image may take; that a process may
SMALL = [
    f"--config.{option}"
    for option in (
        "data.source=side_by_side", "data.direction=AtoB", "data.load_size=16", "data.crop_size=16",
        "data.load_width=0", "data.crop_width=0", "batch_size=2", "num_steps=3", "num_samples=1", "log_every=1",
        "checkpoint_every=3", "sample_every=3", "eval_every=3", "generator.base_width=4", "generator.num_downs=2",
        "discriminator.base_width=4", "discriminator.receptive_field=16",
    )
]  # fmt: skip
# Runs a command, and tells what memory it has taken; a command that takes minutes ends with the place it is at.
COMMAND = """
    import faulthandler, resource, sys
    from p2p_jax.__main__ import run
    faulthandler.dump_traceback_later(240, exit=True)
    status = 0
    try:
        run(sys.argv[1:])
    except SystemExit as stopped:
        status = stopped.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
    sys.exit(status)
"""
ONE_BY_ONE = """
    import faulthandler, json, resource, shutil, sys, traceback
    from pathlib import Path
    from p2p_jax.errors import InputError
    from support.configs import small_config
    what, root, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

    def start(folder):
        from p2p_jax.data import load
        config = small_config(
            batch_size=2, data__source="side_by_side", data__dir=str(folder), data__direction="AtoB",
            data__load_size=16, data__crop_size=16,
        )
        data = load(config)
        batches = data.train(0)
        return [float(next(batches)["real_a"].mean()) for _ in range(2)]

    def evaluate(folder):
        from p2p_jax.evaluation import evaluate
        found = evaluate(root / "run", data_dir=str(folder))
        return [row["l1"] for row in found["images"]]

    found = {}
    for path in sorted((root / "all" / "train").iterdir()):
        folder = root / what / path.name
        for split in ("train", "val"):
            shutil.copytree(root / "good" / split, folder / split)
            shutil.copy(path, folder / split)
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            found[path.name] = {"start": start, "evaluate": evaluate}[what](folder)
        except InputError as error:
            found[path.name] = str(error)
        except BaseException:
            found[path.name] = {"traceback": traceback.format_exc()}
        shutil.rmtree(folder)
    print(json.dumps([found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with good pairs, the damaged images beside good ones, and a trained run."""
    root = tmp_path_factory.mktemp("hostile")
    for split in ("train", "val"):
        write_pairs(root / "good" / split, 2)
        write_pairs(root / "all" / split, 2)
        for name, data in mutants(COUNT, SEED):
            (root / "all" / split / name).write_bytes(data)
    status, _, errors, _ = command("train", *train_into(root / "run", root / "good"))
    assert status == 0, errors
    return root


def train_into(workdir, folder):
    return "--config=facades", f"--workdir={workdir}", *SMALL, f"--config.data.dir={folder}"


def command(*arguments):
    """Return status, output, errors and megabytes of a command."""
    done = run(python(COMMAND, *arguments))
    assert "Traceback" not in done.stderr and "Timeout" not in done.stderr, done.stderr[-3000:]
    found = re.search(r"^PEAK (\d+)$", done.stdout, re.MULTILINE)
    assert found, (done.returncode, done.stderr[-3000:])
    return done.returncode, done.stdout, done.stderr, int(found[1])


def names():
    return [name for name, _ in mutants(COUNT, SEED)]


@pytest.mark.slow
def test_inspect(root, tmp_path):
    status, _, errors, peak = command(
        "inspect", "facades", *SMALL, f"--config.data.dir={root / 'all'}", "--output", tmp_path / "out"
    )
    report = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert status == 1 and peak < MEGABYTES, errors
    told = " ".join(report["errors"])
    assert sum(name in told for name in names()) > COUNT / 3


@pytest.mark.slow
def test_translate(root, tmp_path):
    status, _, errors, peak = command("translate", root / "run", root / "all" / "train", "--output", tmp_path / "out")
    assert status == 1 and peak < MEGABYTES
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    written = {path.stem for path in (tmp_path / "out").rglob("*.*")}
    for name in names():  # each is translated or told in one line
        assert (name.rpartition(".")[0] in written) != any(name in line for line in lines), name
    assert len(written) > COUNT / 10 and len(lines) > COUNT / 3
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_folder_of_all_is_refused_in_a_sentence(root, tmp_path, verb):
    arguments = {
        "train": train_into(tmp_path / "run", root / "all"),
        "evaluate": (root / "run", "--data_dir", root / "all", "--output", tmp_path / "out"),
    }[verb]
    status, _, errors, peak = command(verb, *arguments)
    assert status == 1 and peak < MEGABYTES
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert any(name in line for name in names())


@pytest.mark.slow
@pytest.mark.parametrize("what", ["start", "evaluate"])
def test_each_in_a_set_of_its_own(root, what):
    found, peak = json.loads(run_python(ONE_BY_ONE, what, root, SECONDS).splitlines()[-1])
    assert {name: of["traceback"] for name, of in found.items() if isinstance(of, dict)} == {}
    refused = {name: of for name, of in found.items() if isinstance(of, str)}
    assert all(name in sentence and "\n" not in sentence for name, sentence in refused.items())
    assert peak < MEGABYTES and COUNT / 3 < len(refused) < COUNT
    assert all(np.isfinite(of).all() for of in found.values() if isinstance(of, list))
