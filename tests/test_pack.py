"""Model files: a run's generators in one file that translates as it does, and tells nothing of where it is from."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax import Translator
from p2p_jax.commands import evaluate as evaluate_command
from p2p_jax.commands import export as export_command
from p2p_jax.commands import pack as pack_command
from p2p_jax.commands import resume as resume_command
from p2p_jax.commands import segmenter as segmenter_command
from p2p_jax.commands import translate as translate_command
from p2p_jax.config import to_json
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from p2p_jax.evaluation.study import from_runs
from p2p_jax.inference.run import open_run
from p2p_jax.interop import pack, write_torch
from p2p_jax.interop.places import without_places
from p2p_jax.objectives import make_objective
from p2p_jax.training import model_file
from p2p_jax.training.checkpoint import CONVERTED
from p2p_jax.training.fine_tuning import find_source, take_weights
from p2p_jax.training.saving import Checkpoints
from support.configs import small_config, small_cut_config, small_cyclegan_config
from support.images import random_batch, write_pairs
from support.networks import draw_state, linear
from support.processes import run_python
from support.runs import blank_state, run_command, translate_files, write_run

IMAGES = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def make_run(folder, config, step=3, seed=1, metrics=None):
    """Make a run with weights of chance, of which an average differs from what is trained."""
    state = draw_state(blank_state(make_objective(config), config), seed=seed)
    if metrics is None:
        return write_run(folder, config, state, step)
    checkpoints = Checkpoints(folder, config)
    checkpoints.save(step, state, metrics)
    checkpoints.close()
    (folder / "config.json").write_text(to_json(config))
    return folder


@pytest.fixture(scope="module")
def pix2pix(tmp_path_factory):
    """A pix2pix with batch norm from B to A, of pairs that lie in a folder; read it only."""
    folder = tmp_path_factory.mktemp("pix2pix")
    for split in ("train", "val"):
        (folder / "secret_place" / split).mkdir(parents=True)
        write_pairs(folder / "secret_place" / split, 3)
    places = {"data__source": "side_by_side", "data__dir": str(folder / "secret_place")}
    config = small_config(**places, inference__dropout=False, inference__norm="batch")
    return make_run(folder / "run", config)


@pytest.fixture(scope="module")
def cyclegan(tmp_path_factory):
    """A CycleGAN whose generators are averaged; read it only."""
    return make_run(tmp_path_factory.mktemp("cyclegan") / "run", small_cyclegan_config(ema__decay=0.9))


@pytest.fixture(scope="module")
def packed(pix2pix, cyclegan, tmp_path_factory):
    """Model files in float32 of both, by name."""
    folder = tmp_path_factory.mktemp("packed")
    runs = {"pix2pix": pix2pix, "cyclegan": cyclegan}
    return {name: pack(run, folder / f"{name}.safetensors").path for name, run in runs.items()}


@pytest.mark.slow
def test_a_file_may_be_read_by_whom_other_files_may(packed, tmp_path):
    (tmp_path / "other").touch()
    assert packed["pix2pix"].stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.slow
def test_a_file_translates_as_its_run_does(pix2pix, cyclegan, packed):
    for name, run, direction in (
        ("pix2pix", pix2pix, "BtoA"),
        ("cyclegan", cyclegan, "AtoB"),
        ("cyclegan", cyclegan, "BtoA"),
    ):
        ours = Translator.from_workdir(run, direction=direction)
        theirs = Translator.from_file(packed[name], direction)
        floats = IMAGES.astype(np.float32) / 127.5 - 1
        np.testing.assert_array_equal(theirs(floats), ours(floats))
        assert (theirs.checkpoint_id, theirs.num_parameters) == (ours.checkpoint_id, ours.num_parameters)
        assert (theirs.step, theirs.weights, theirs.directions) == (ours.step, ours.weights, ours.directions)
        assert (theirs.domain_in.kind, theirs.multiple) == (ours.domain_in.kind, ours.multiple)


@pytest.mark.slow
def test_other_kinds_of_runs_too(tmp_path):
    configs = {
        "cut": small_cut_config(),
        "half": small_config(param_dtype="bfloat16", ema__decay=0.9),
        "spectral": small_config(discriminator__spectral_norm=True, generator__norm="instance_affine"),
    }
    for name, config in configs.items():
        run = make_run(tmp_path / name, config)
        found = pack(run, tmp_path / f"{name}.safetensors")
        floats = IMAGES.astype(np.float32) / 127.5 - 1
        ours, theirs = Translator.from_workdir(run), Translator.from_file(found.path)
        np.testing.assert_array_equal(theirs(floats), ours(floats))
        assert theirs.checkpoint_id == ours.checkpoint_id
        assert not any("disc" in array for array in model_file.read(found.path).arrays)


@pytest.mark.slow
def test_float16_is_half_as_long_and_its_difference_is_told(cyclegan, packed, tmp_path):
    found = pack(cyclegan, tmp_path / "half.safetensors", dtype="float16")
    arrays, exact = (model_file.read(path).arrays for path in (found.path, packed["cyclegan"]))
    assert {name: array.dtype.name for name, array in arrays.items()} == dict.fromkeys(exact, "float16")
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, exact[name].astype(np.float16))
    bytes_of = [sum(array.nbytes for array in x.values()) for x in (arrays, exact)]
    assert bytes_of[0] * 2 == bytes_of[1]
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    there, here = (Translator.from_workdir(x)(noise) for x in (cyclegan, found.path))
    assert 0 < found.difference < 0.05
    assert np.abs(there - here).max() == pytest.approx(found.difference, rel=0.1)
    again = pack(packed["cyclegan"], tmp_path / "again.safetensors", dtype="float16")
    np.testing.assert_equal(model_file.read(again.path).arrays, arrays)
    assert again.about["model"] == found.about["model"]
    assert pack(again.path, tmp_path / "more.safetensors").about["model"]["dtype"] == "float16"  # as it was


@pytest.mark.slow
def test_statistics_of_norms_go_along_in_float32(pix2pix, packed, tmp_path):
    found = pack(pix2pix, tmp_path / "half.safetensors", dtype="float16")
    arrays = model_file.read(found.path).arrays
    statistics = {name: array for name, array in arrays.items() if name.startswith("batch_stats/")}
    assert len(statistics) > 4 and {array.dtype.name for array in statistics.values()} == {"float32"}
    ours = Translator.from_workdir(pix2pix, norm="running")
    np.testing.assert_array_equal(Translator.from_file(packed["pix2pix"], norm="running")(IMAGES), ours(IMAGES))
    assert (ours(IMAGES) != Translator.from_workdir(pix2pix)(IMAGES)).any()


@pytest.mark.slow
def test_statistics_that_a_release_has_not_kept_are_not_made_up(tmp_path):
    run = make_run(tmp_path / "run", small_config(inference__norm="batch"))
    (run / CONVERTED).write_text(json.dumps({"running_statistics": False}))
    found = pack(run, tmp_path / "model.safetensors")
    assert not any(name.startswith("batch_stats") for name in model_file.read(found.path).arrays)
    np.testing.assert_array_equal(Translator.from_file(found.path)(IMAGES), Translator.from_workdir(run)(IMAGES))
    with pytest.raises(InputError, match=r"model.safetensors does not hold batch_stats/generator/.* and \d+ more"):
        Translator.from_file(found.path, norm="running")


@pytest.mark.slow
def test_one_direction_or_all(cyclegan, packed, tmp_path):
    found = pack(cyclegan, tmp_path / "back.safetensors", direction="BtoA")
    names = model_file.read(found.path).arrays
    assert {name.split("/")[1] for name in names} == {"gen_ba"}
    assert {name.split("/")[1] for name in model_file.read(packed["cyclegan"]).arrays} == {"gen_ab", "gen_ba"}
    opened = Translator.from_file(found.path)
    assert (opened.direction, opened.directions) == ("BtoA", ("BtoA",))
    np.testing.assert_array_equal(opened(IMAGES), Translator.from_workdir(cyclegan, direction="BtoA")(IMAGES))
    with pytest.raises(InputError, match="direction=AtoB: this file holds only BtoA"):
        Translator.from_file(found.path, "AtoB")
    with pytest.raises(InputError, match=r"does not hold params/gen_ab/.*holds only the weights that translate BtoA"):
        evaluate(found.path, split="val")
    with pytest.raises(InputError, match="direction=AtoB: this file holds only BtoA"):
        pack(found.path, tmp_path / "other.safetensors", direction="AtoB")


@pytest.mark.slow
def test_the_average_is_packed_or_what_is_trained(cyclegan, packed, tmp_path):
    raw = pack(cyclegan, tmp_path / "raw.safetensors", raw=True)
    assert raw.about["model"]["weights"] == "raw"
    assert Translator.from_file(packed["cyclegan"]).weights == "average"
    for path, asked in ((raw.path, True), (packed["cyclegan"], False)):
        ours, theirs = Translator.from_workdir(cyclegan, raw=asked), Translator.from_file(path)
        np.testing.assert_array_equal(theirs(IMAGES), ours(IMAGES))
        assert theirs.checkpoint_id == ours.checkpoint_id
    assert Translator.from_file(raw.path, raw=True).weights == "raw"
    with pytest.raises(InputError, match="holds only the average of the weights: leave `raw` out"):
        Translator.from_file(packed["cyclegan"], raw=True)


def test_a_file_holds_one_step(packed):
    assert open_run(packed["pix2pix"], 3).step == open_run(packed["pix2pix"], "best").step == 3
    with pytest.raises(InputError, match="checkpoint=4: .* holds only the weights of step 3"):
        open_run(packed["pix2pix"], 4)


def test_nothing_of_the_machine_goes_along(pix2pix, packed):
    contents = packed["pix2pix"].read_bytes()
    assert b"secret_place" not in contents and str(pix2pix.parent).encode() not in contents
    about = model_file.read_about(packed["pix2pix"])
    assert about["config"]["data"]["dir"] == "" and about["data"]["left_out"] == ["data.dir"]
    config = {
        "init_from": "runs/other",
        "data": {"dir": "photos", "dir_a": "{split}/A", "dir_b": "../B", "source": "side_by_side/AB"},
        "distances": {"features": "segmenter:runs/fcn", "weights": "inception.pth"},
        "task": {"input": "hed_edges", "weights": "hed.caffemodel"},
        "loss": {"terms": "my_losses:lpips=0.5"},
        "extra": {"teacher": ["/home/me/t.pth", "C:\\models", 3], "note": "see https://example.org/a", "at": "x=~/t"},
    }
    clean, left_out = without_places(config)
    assert clean == {
        "init_from": "",
        "data": {"dir": "", "dir_a": "{split}/A", "dir_b": "", "source": "side_by_side/AB"},
        "distances": {"features": "", "weights": ""},
        "task": {"input": "hed_edges", "weights": ""},
        "loss": {"terms": "my_losses:lpips=0.5"},
        "extra": {"teacher": ["", "", 3], "note": "see https://example.org/a", "at": ""},
    }
    assert "extra.teacher[0]" in left_out and "extra.note" not in left_out


@pytest.mark.slow
def test_what_is_known_goes_along(tmp_path):
    config = small_config(inference__dropout=False, inference__norm="batch")
    run = make_run(tmp_path / "run", config, metrics={"l1": 0.25, "psnr": 12.5, "ssim": float("nan")})
    facts = {"num_train": 8, "fingerprint": "abc-def", "images": {"val": {"count": 5, "contents": "x"}}}
    (run / "facts.json").write_text(json.dumps(facts))
    own = Translator.from_workdir(run).checkpoint_id
    results = {
        "step": 3,
        "checkpoint_id": own,
        "split": "test",
        "num_images": 40,
        "seen": "whole images",
        "norm": "batch",
    }
    results |= {"direction": "BtoA", "paired": True, "dropout": False, "created": "2026-01-01"}
    results |= {"metrics": {"l1": {"mean": 0.5, "std": 0.1, "count": 40}}, "set_metrics": {"FID": {"fid": 80.5}}}
    others = {"of_other_weights": results | {"checkpoint_id": "0" * 12}, "of_another_step": results | {"step": 2}}
    for name, told in {"test_3": results, "broken": [1], **others}.items():
        (run / "evaluation" / name).mkdir(parents=True)
        (run / "evaluation" / name / "results.json").write_text(json.dumps(told))
    found = pack(run, tmp_path / "model.safetensors", licence=" cc-by-4.0 ")
    about = model_file.read_about(found.path)
    validation, evaluation = about["metrics"]["found"]
    assert (validation["by"], validation["split"], validation["num_images"]) == ("validation", "val", 5)
    assert validation["metrics"] == {"l1": {"mean": 0.25}, "psnr": {"mean": 12.5}}
    assert (evaluation["by"], evaluation["num_images"], evaluation["split"]) == ("evaluate", 40, "test")
    assert evaluation["metrics"] == {"l1": {"mean": 0.5, "std": 0.1}}
    assert evaluation["set_metrics"] == {"FID": {"fid": 80.5}}
    assert about["licence"] == {"name": "cc-by-4.0"}
    assert about["data"]["images"] == {"val": 5} and about["data"]["num_train"] == 8
    assert about["domains"]["output"]["range"] == [[0, 255]] * 3
    assert (about["model"]["step"], about["model"]["objective"]) == (3, "p2p_jax:pix2pix")
    again = pack(found.path, tmp_path / "again.safetensors", dtype="float16")
    kept = model_file.read_about(again.path)
    assert {name: kept[name] for name in ("metrics", "licence", "data", "config")} == {
        name: about[name] for name in ("metrics", "licence", "data", "config")
    }


@pytest.mark.slow
def test_what_cannot_be_packed_is_one_sentence(pix2pix, packed, tmp_path):
    config = small_config()
    state = draw_state(blank_state(make_objective(config), config))
    layer = state["params"]["generator"]["down_1"]
    layer["kernel"][0, 0, 0, 0] = 1e5
    large = write_run(tmp_path / "large", config, state)
    layer["kernel"][0, 0, 0, 0] = np.nan
    diverged = write_run(tmp_path / "diverged", config, state)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"somebody's")
    target = tmp_path / "x.safetensors"
    cases = [
        (
            lambda: pack(large, target, dtype="float16"),
            "is too small for the numbers of params/generator/down_1/k",
        ),
        (lambda: pack(diverged, target), "params/generator/down_1/kernel holds numbers that are not finite"),
        (
            lambda: pack(pix2pix, tmp_path / "x.bin"),
            "must end with .safetensors, such as x.safetensors",
        ),
        (lambda: pack(pix2pix, other), "would replace a file that is not a model file"),
        (lambda: pack(pix2pix, tmp_path), "the name of a model file must end with .safetensors"),
        (lambda: pack(pix2pix, target, dtype="int8"), "dtype=int8: choose one of float32, float16"),
        (lambda: pack(pix2pix, target, direction="AtoB"), "direction=AtoB: this run was trained for only BtoA"),
        (lambda: pack(pix2pix, target, "99"), "has no checkpoint 99"),
        (lambda: pack(pix2pix, target, licence="a\nb"), "licence='a.nb': give the name of a licence"),
        (lambda: pack(tmp_path / "absent", target), "does not hold a trained run"),
        (lambda: Translator.from_file(tmp_path / "absent.safetensors"), "no such file"),
        (lambda: Translator.from_file(pix2pix), "no such file"),
    ]
    for call, told in cases:
        with pytest.raises(InputError, match=told):
            call()
    assert not target.exists() and other.read_bytes() == b"somebody's"
    pack(large, target)
    pack(pix2pix, target)  # a model file is replaced
    assert model_file.read_about(target) == model_file.read_about(packed["pix2pix"])


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_others_start_from_a_file(name, packed, pix2pix, cyclegan, capsys, tmp_path):
    run = {"pix2pix": pix2pix, "cyclegan": cyclegan}[name]
    config = {"pix2pix": small_config, "cyclegan": small_cyclegan_config}[name]()
    fresh = jax.jit(make_objective(config).init)(jax.random.key(0), random_batch(config, size=1))
    of_file = take_weights(find_source(str(packed[name]), tmp_path), fresh, config)
    out = capsys.readouterr().out
    of_run = take_weights(find_source(str(run), tmp_path), fresh, config)
    for player in fresh["params"]:
        wanted = fresh if player.startswith("disc") else of_run
        jax.tree.map(np.testing.assert_array_equal, of_file["params"][player], wanted["params"][player])
    assert "a model file, without discriminators: parts that it does not hold start fresh" in out
    assert ("generators as averaged there" in out) == (name == "cyclegan")
    fresh_ones = ["discriminator"] if name == "pix2pix" else ["disc_a", "disc_b"]
    assert all(f"{player}: none of " in out for player in fresh_ones)


@pytest.mark.slow
def test_commands_take_a_file_as_a_run(pix2pix, packed, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    np.save(photos / "a.npy", IMAGES[0])
    assert translate_files(packed["pix2pix"], photos, tmp_path / "out") == 0
    assert f"{packed['pix2pix']}: step 3, BtoA" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a.npy"), Translator.from_workdir(pix2pix)(IMAGES[0]))
    named = run_command(
        translate_command, "--model", packed["pix2pix"], "--input", photos, "--output", tmp_path / "named"
    )
    assert named == 0 and (tmp_path / "named" / "a.npy").is_file()
    export = run_command(
        export_command, packed["pix2pix"], "--format", "stablehlo", "--output", tmp_path / "out.stablehlo"
    )
    assert export == 0
    told = json.loads((tmp_path / "out.stablehlo.json").read_text())
    assert told["run"] == "pix2pix" and told["checkpoint_id"] == Translator.from_workdir(pix2pix).checkpoint_id
    target = tmp_path / "half.safetensors"
    assert run_command(pack_command, packed["pix2pix"], target, "--dtype", "float16", "--licence", "mit") == 0
    out = capsys.readouterr().out
    assert f"{target}: step 3, BtoA, float16, 0.0 MB, licence: mit" in out and "grey levels" in out


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({"kind": "uint8", "range": [[0, 255]] * 3}, ", 1.3 grey levels"),
        ({"kind": "float", "range": [[-570, 1190], [0, 1]]}, ", 8.8 in the units of the output"),
        ({"kind": "labels", "range": []}, ""),
    ],
)
def test_a_difference_is_printed_in_the_units_of_the_output(packed, tmp_path, capsys, output, told):
    found = pack(packed["pix2pix"], tmp_path / "half.safetensors", dtype="float16")
    about = found.about | {"domains": {"output": output, "input": {"kind": "labels", "range": []}}}
    pack_command.tell(found._replace(difference=0.01, about=about), raw=False)
    assert f"at most 1.0e-02 on the scale of [-1, 1]{told}\n" in capsys.readouterr().out


def test_files_of_pytorch_are_those_of_the_run(cyclegan, packed, tmp_path):
    torch = pytest.importorskip("torch")
    for source, name in ((cyclegan, "run"), (packed["cyclegan"], "file")):
        written = write_torch(open_run(source), tmp_path / name)
        generators = [x.path.name for x in written if "_G_" in x.path.name]
        assert generators == ["latest_net_G_A.pth", "latest_net_G_B.pth"]
        assert (len(written) == 2) == (name == "file")  # of which it has no discriminators
    for name in generators:
        ours, theirs = (torch.load(tmp_path / folder / name, weights_only=True) for folder in ("run", "file"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    back = pack(cyclegan, tmp_path / "back.safetensors", direction="BtoA").path
    assert [x.path.name for x in write_torch(open_run(back), tmp_path / "net.pth", "BtoA")] == ["net.pth"]
    with pytest.raises(InputError, match="this run was trained for only BtoA"):
        write_torch(open_run(back), tmp_path / "net.pth")


@pytest.mark.slow
def test_evaluation_of_a_file_is_that_of_the_run(pix2pix, packed, tmp_path, capsys):
    ours = evaluate(pix2pix, split="val", metrics=[])
    photos = pix2pix.parent / "secret_place"
    arguments = ("--split", "val", "--metrics", "histogram", "--data_dir", photos)
    status = run_command(evaluate_command, packed["pix2pix"], *arguments, "--output", tmp_path / "results")
    theirs = json.loads((tmp_path / "results" / "results.json").read_text())
    assert status == 0 and theirs["run"] == "pix2pix"
    assert theirs["images"] == ours["images"] and theirs["checkpoint_id"] == ours["checkpoint_id"]
    told = run_command(evaluate_command, packed["pix2pix"], *arguments)
    assert told.endswith("is a file, not a directory: name a folder for the results with --output")
    with pytest.raises(InputError, match="data_dir"):
        evaluate(packed["pix2pix"], split="val")
    study = from_runs([f"one={packed['pix2pix']}"], "val", data_dir=str(photos))
    assert study["one"].source["checkpoint_id"] == ours["checkpoint_id"]


@pytest.mark.parametrize("command", [resume_command, segmenter_command])
def test_what_a_file_cannot_do_is_one_sentence(command, packed, tmp_path):
    more = ("--output", tmp_path / "fcn") if command is segmenter_command else ()
    told = run_command(command, "--workdir", packed["pix2pix"], *more)
    path = packed["pix2pix"]
    mend = f"name a directory; to start from a model file, use --config.init_from={path}"
    assert told == f"error: --workdir {path} is a file; {mend}"


@pytest.mark.slow
def test_a_file_needs_neither_the_run_nor_tensorflow(pix2pix, packed, tmp_path):
    expected = Translator.from_workdir(pix2pix)(IMAGES)
    code = """
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("tensorflow", "tensorflow_datasets", "torch", "huggingface_hub"):
                    raise ImportError(f"{name} is not here")

        sys.meta_path.insert(0, Refuse())
        import numpy as np
        from p2p_jax import Translator

        images = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
        np.save("found.npy", Translator.from_file("model.safetensors")(images))
    """
    (tmp_path / "model.safetensors").write_bytes(packed["pix2pix"].read_bytes())
    run_python(code, folder=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)


def test_whole_numbers_of_a_state_stay_as_they_are(tmp_path):
    config = small_config(extra__noise=0.0, inference__dropout=False)

    def counting(config):
        base = linear(config)

        def translate(state, batch, rng):
            return {"fake_b": base.translate(state, batch, rng)["fake_b"] * (state["step"] % 2).astype(jnp.float32)}

        return base._replace(translate=translate)

    state = jax.device_get(linear(config).init(jax.random.key(0), random_batch(config, size=1)))
    state["step"] = np.int32(7)
    run = write_run(tmp_path / "run", config, state, 7)
    found = pack(run, tmp_path / "model.safetensors", objective=counting(config), dtype="float16")
    assert model_file.read(found.path).arrays["step"] == np.int32(7)
    opened = Translator.from_file(found.path, objective=counting(config))
    there = Translator.from_workdir(run, objective=counting(config))
    assert np.abs(opened(IMAGES).astype(int) - there(IMAGES)).max() <= 1
    assert np.ptp(opened(IMAGES)) > 50
