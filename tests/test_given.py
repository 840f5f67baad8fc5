"""Data that a caller gives: what is wrong is said at the door, and what can be taken is taken."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import p2p_jax
from p2p_jax import train
from p2p_jax.data import Data, Source, from_arrays, load, unpaired_from_arrays
from p2p_jax.data.given import check_given
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from support.comparers import assert_equal_trees
from support.configs import data_config, small_config
from support.images import noise, random_batch
from support.runs import memory_data, rows_of, run_command
from support.streams import take


def linear_config(**changes):
    return small_config(**{"objective": "support.networks:linear", "num_steps": 4, **changes})


def given(batch, **changes):
    """Return data that give one batch over and over."""
    data = Data(8, 3, "own", lambda first_step: iter([batch] * 100), lambda batch_size: iter([batch]))
    return data._replace(**changes)


def first_batch(batch):
    config = linear_config()
    return next(check_given(given(batch), config).train(0))


def images(**changes):
    return random_batch(linear_config(), 0) | changes


REFUSED = {
    "bytes": (images(real_a=noise(4, 16, 16, 3)), r"real_a in the batch of step 0 .* is uint8; .* x / 127.5 - 1"),
    "floats of bytes": (
        images(real_b=noise(4, 16, 16, 3).astype(np.float32)),
        r"real_b .* from 0 to 25\d; .*127",
    ),
    "beyond": (
        images(real_b=np.full((4, 16, 16, 3), -1.2)),
        r"values from -1.2 to -1.2; networks take \[-1, 1\]: ",
    ),
    "not a number": (images(real_a=np.full((4, 16, 16, 3), np.nan)), "values from nan to nan"),
    "channels first": (
        images(real_a=np.zeros((4, 3, 16, 16))),
        r"\(4, 3, 16, 16\); .*3\]: put the channels last",
    ),
    "another size": (
        images(real_a=np.zeros((4, 16, 12, 3))),
        r"\(4, 16, 12, 3\); .*: config.data has crop_size",
    ),
    "too few": (
        images(real_a=np.zeros((3, 16, 16, 3))),
        "has 3 images; it must have 4: leave out the last",
    ),
    "too many": (images(real_a=np.zeros((5, 16, 16, 3))), "has 5 images; it must have 4: see config.batch_size"),
    "no axis": (images(real_a=np.zeros((16, 16, 3))), r"is \(16, 16, 3\); it must be \[B, 16, 16, 3\]"),
    "other names": (
        {"a": np.zeros(1), "b": np.zeros(1)},
        "is the keys a, b; it must be a mapping with real_a",
    ),
    "a pair": ((np.zeros(1), np.zeros(1)), "is a tuple; it must be a mapping with real_a and real_b"),
    "nothing": (images(real_a=np.zeros((0, 16, 16, 3))), "is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_batch_is_refused_with_what_to_do(name):
    batch, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        first_batch(batch)


def test_every_batch_is_looked_at(tmp_path):
    """The third one is in the units of bytes; what was saved before stays."""
    config = linear_config(checkpoint_every=1)
    right, wrong = images(), {name: (x + 1) * 127.5 for name, x in images().items()}
    data = given(right, train=lambda first_step: iter([right, right, right, wrong]))
    with pytest.raises(InputError, match=r"real_a in the batch of step 3 of data.train has values from .* to 25"):
        train(config, tmp_path, data=data)
    assert rows_of(tmp_path)
    late = given(right, validation=lambda batch_size: iter([right, wrong]))
    with pytest.raises(InputError, match=r"real_a in batch 1 of data.validation\(\d+\)"):
        list(check_given(late, config).validation(8))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16, np.float32])
def test_floats_of_any_width_are_taken(dtype):
    batch = {name: np.asarray(x).astype(dtype) for name, x in images().items()}
    found = first_batch(batch)
    for name, x in batch.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], x.astype(np.float32))


def test_tensors_are_taken():
    batch, makers = images(), [jnp.asarray]
    makers.append(pytest.importorskip("tensorflow").constant)
    for make in makers:
        found = first_batch({name: make(x) for name, x in batch.items()})
        np.testing.assert_array_equal(found["real_b"], batch["real_b"])


def test_tensors_of_pytorch_are_taken():
    torch = pytest.importorskip("torch")
    batch = images()
    found = first_batch(
        {
            "real_a": torch.tensor(batch["real_a"], requires_grad=True),
            "real_b": torch.tensor(batch["real_b"]).bfloat16(),
        }
    )
    np.testing.assert_array_equal(found["real_a"], batch["real_a"])
    np.testing.assert_allclose(found["real_b"], batch["real_b"], atol=1 / 128)


@pytest.mark.slow
def test_a_loader_that_ends_after_an_epoch_begins_again(tmp_path):
    config, asked = linear_config(num_steps=7), []

    def epoch(first_step):
        asked.append(first_step)
        return iter([random_batch(config, seed) for seed in range(first_step, first_step + 3)])

    ending = train(config, tmp_path / "ending", data=memory_data(config)._replace(train=epoch))
    assert asked == [0, 3, 6]
    whole = train(config, tmp_path / "whole", data=memory_data(config))
    assert_equal_trees(ending["params"], whole["params"])
    with pytest.raises(InputError, match=r"data.train\(0\) gave no batch"):
        train(config, tmp_path / "empty", data=memory_data(config)._replace(train=lambda first_step: iter([])))


def test_images_in_0_to_1_are_wondered_at(capsys):
    first_batch({name: (x + 1) / 2 for name, x in images().items()})
    assert "all values of real_b in the first batch are in [0, 1]" in capsys.readouterr().out
    first_batch(images())
    assert capsys.readouterr().out == ""


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="p2p_jax.data.Data: num_train.* list has no num_train, num_val, fingerprint"):
        train(linear_config(), tmp_path, data=[images()])
    with pytest.raises(InputError, match="data.num_train is 0; it must be the number of examples"):
        train(linear_config(), tmp_path, data=given(images())._replace(num_train=0))
    assert not list(tmp_path.iterdir())


PAIRS = noise(6, 16, 16, 3), noise(6, 16, 16, 3, seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("given") / "run"
    config = small_config(num_steps=1, data__direction="AtoB")
    train(config, workdir, data=load(config, train=from_arrays(*PAIRS), val=from_arrays(*PAIRS)))
    return workdir


@pytest.mark.slow
def test_a_run_on_given_data_is_not_evaluated_on_another_set(run):
    from p2p_jax.commands import evaluate as command

    assert json.loads((run / "facts.json").read_text())["source"] == "given"
    for split in ("val", "test"):
        message = run_command(command, run, "--split", split)
        assert "was trained on data given to train(data=...)" in message
        assert "evaluate(workdir, data=...)" in message
    trained = float(rows_of(run)[-1]["eval/l1"])
    config = p2p_jax.training.checkpoint.read_config(run)
    for data in (from_arrays(*PAIRS), load(config, train=from_arrays(*PAIRS), val=from_arrays(*PAIRS))):
        found = evaluate(run, data=data)
        assert (found["split"], found["num_images"]) == ("given", 6)
        assert found["metrics"]["l1"]["mean"] == pytest.approx(trained, rel=1e-4)
    other = evaluate(run, data=from_arrays(PAIRS[0], 0 * PAIRS[1]))["metrics"]["l1"]["mean"]
    assert abs(other - trained) > 0.01


@pytest.mark.slow
def test_other_images_of_a_split_are_noted(tmp_path, capsys):
    from support.images import save

    for split in ("train", "val"):
        for i in range(4):
            save(tmp_path / "images" / split / f"{i}.png", noise(16, 32, 3, seed=i))
    options = {"source": "side_by_side", "dir": str(tmp_path / "images"), "load_size": 16, "direction": "AtoB"}
    train(small_config(num_steps=1, **{f"data__{k}": v for k, v in options.items()}), tmp_path / "run")
    capsys.readouterr()
    evaluate(tmp_path / "run")
    assert "others" not in capsys.readouterr().out
    (tmp_path / "images" / "val" / "3.png").unlink()
    evaluate(tmp_path / "run")
    assert "note: the images of val have changed since the run was trained" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("resident", [False, True])
def test_a_source_of_numpy_alone_is_what_arrays_are(resident):
    a, b = PAIRS
    config = data_config(flip=True, load_size=18, resident=resident)
    arrays = from_arrays(a, b)
    lazy = Source([f"{i}" for i in range(6)], load=lambda i: (a[i], b[i]), mark=arrays.mark)
    found, expected = (load(config, train=source, val=source) for source in (lazy, arrays))
    assert found.fingerprint == expected.fingerprint
    for one, other in zip(take(found.train(0), 3), take(expected.train(0), 3), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    for name, x in next(found.validation(6)).items():
        np.testing.assert_array_equal(x, next(expected.validation(6))[name])


def test_sides_of_numpy_alone(tmp_path):
    a, b = PAIRS[0], PAIRS[1][:4]
    whole = unpaired_from_arrays(a, b)
    lazy = type(whole)(
        *(Source(s.names, load=lambda i, x=x: (x[i],), mark=s.mark) for s, x in zip(whole, (a, b), strict=True))
    )
    config = data_config(load_size=18)
    one, other = (take(load(config, train=source).train(0), 1)[0] for source in (lazy, whole))
    np.testing.assert_array_equal(one["real_b"], other["real_b"])


def test_an_example_that_cannot_be_loaded_is_named():
    a, b = PAIRS
    names = [f"scan {i}" for i in range(6)]

    def broken(i):
        if i == 4:
            raise OSError("no such scan")
        return a[i], b[i]

    config = data_config(batch_size=6)
    with pytest.raises(InputError, match=r"scan 4 cannot be read \(.*no such scan"):
        next(load(config, train=Source(names, load=broken)).train(0))
    other = Source(names, load=lambda i: (a[i].astype(np.float32 if i == 2 else np.uint8), b[i]))
    with pytest.raises(InputError, match=r"scan 2 cannot be read \(.*it is float32, uint8, and the first"):
        next(load(config, train=other).train(0))
    with pytest.raises(InputError, match=r"scan 0 cannot be loaded \(integer division"):
        load(config, train=Source(names, load=lambda i: (a[1 // i], b[i])))
    with pytest.raises(InputError, match="has neither read nor load"):
        load(config, train=Source(names))
