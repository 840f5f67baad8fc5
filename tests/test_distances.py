"""KID and FID: the formulas in closed form, features of every sort, and the figures of a training and afterwards."""

import csv
import json
import math
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax import train
from p2p_jax.config import complete
from p2p_jax.data import from_arrays, load, unpaired_from_arrays
from p2p_jax.distances import Collected, Features, Reals, find_features, kernel
from p2p_jax.distances.frechet import frechet, moments
from p2p_jax.distances.kernel import KernelDistance, kid
from p2p_jax.errors import InputError
from p2p_jax.evaluation import evaluate
from p2p_jax.images import palettes
from p2p_jax.nets.fcn import FCN, OwnSegmenter, init
from p2p_jax.objectives import Objective, averaged, blank_batch
from p2p_jax.training.checkpoint import find_step, read_filled_in, saved_steps
from p2p_jax.training.distances import Distances, open_features
from support.comparers import assert_equal_trees
from support.configs import SGD, small_config, small_cyclegan_config
from support.features import colours
from support.images import noise, save
from support.networks import linear
from support.runs import blank_state, memory_data, rows_of, stop_at

FIGURES = ("kid", "kid_std", "fid")
ALL = (*FIGURES, "copy_kid", "copy_fid")


def exact(count, mean, root, seed=0):
    """Return features whose mean is `mean` and whose covariance is ``root @ root.T``, to rounding."""
    drawn = np.random.RandomState(seed).normal(size=(count, len(root)))
    centred, _ = np.linalg.qr(np.concatenate([np.ones((count, 1)), drawn], axis=1))
    white = centred[:, 1:] * math.sqrt(count - 1)  # orthogonal to the ones
    return mean + white @ root.T


def test_the_frechet_distance_of_gaussians_with_one_basis():
    """Covariances that commute: the sum over axes of the squared differences of means and of deviations."""
    turned, _ = np.linalg.qr(np.random.RandomState(3).normal(size=(5, 5)))
    one, other = np.array([1.0, 2.0, 0.5, 3.0, 0.0]), np.array([2.0, 2.0, 1.5, 0.0, 0.25])
    means = np.arange(5.0), np.array([0.0, 3.0, 2.0, 3.0, 5.0])
    x, y = exact(40, means[0], turned * one), exact(23, means[1], turned * other, seed=1)
    expected = np.square(means[0] - means[1]).sum() + np.square(one - other).sum()
    assert frechet(moments(x), moments(y)) == pytest.approx(expected, rel=1e-12)
    assert frechet(moments(y), moments(x)) == pytest.approx(expected, rel=1e-12)


def test_the_frechet_distance_of_covariances_that_do_not_commute():
    """``tr sqrt(S1 S2)`` of 2 x 2 matrices: the root of ``tr(S1 S2) + 2 sqrt(det S1 S2)``, by Cayley and Hamilton."""
    a, b = np.array([[2.0, 0.3], [0.0, 0.7]]), np.array([[0.4, 0.0], [1.1, 1.9]])
    x, y = exact(12, np.zeros(2), a), exact(9, np.zeros(2), b, seed=1)
    s, t = a @ a.T, b @ b.T
    shared = math.sqrt(np.trace(s @ t) + 2 * math.sqrt(np.linalg.det(s @ t)))
    assert frechet(moments(x), moments(y)) == pytest.approx(np.trace(s) + np.trace(t) - 2 * shared, rel=1e-12)


@pytest.mark.parametrize("counts", [(12, 9), (12, 60), (60, 9)])
def test_the_frechet_distance_of_fewer_images_than_features(counts):
    """Features in a plane of a large space are at the distance that they have in the plane."""
    a, b = np.array([[2.0, 0.3], [0.0, 0.7]]), np.array([[0.4, 0.0], [1.1, 1.9]])
    small = exact(counts[0], np.ones(2), a), exact(counts[1], np.zeros(2), b, seed=1)
    into, _ = np.linalg.qr(np.random.RandomState(0).normal(size=(50, 2)))
    large = [moments(x @ into.T + 7) for x in small]
    assert frechet(*large) == pytest.approx(frechet(*map(moments, small)), rel=1e-11)


def test_equal_sets_are_at_no_frechet_distance():
    x = np.random.RandomState(0).normal(3, 1, (20, 64)).astype(np.float32)
    assert 0 <= frechet(moments(x), moments(x[::-1])) < 1e-10


def double_sum(x, y):
    """Return the unbiased squared maximum mean discrepancy, written out."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    within = [sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) for z in (x, y)]
    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return sum(part / (len(z) * (len(z) - 1)) for part, z in zip(within, (x, y), strict=True)) - 2 * between


def test_kid_is_the_double_sum():
    rng = np.random.RandomState(0)
    x, y = rng.uniform(0, 2, (9, 4)), rng.uniform(0, 1, (9, 4))
    found = kid(x, y)
    assert found.mean == pytest.approx(double_sum(x, y), rel=1e-12)
    rng = np.random.RandomState(2020)
    halves = [[rng.choice(9, 4, replace=False) for _ in range(2)] for _ in range(100)]
    assert found.std == pytest.approx(np.std([double_sum(x[a], y[b]) for a, b in halves]), rel=1e-10)


def test_kid_of_sets_of_other_sizes_is_the_mean_over_subsets():
    rng = np.random.RandomState(0)
    x, y = rng.uniform(0, 2, (5, 3)), rng.uniform(0, 1, (7, 3))
    drawn = np.random.RandomState(2020)
    subsets = [[drawn.choice(count, 5, replace=False) for count in (5, 7)] for _ in range(100)]
    assert kid(x, y).mean == pytest.approx(np.mean([double_sum(x[a], y[b]) for a, b in subsets]), rel=1e-10)


def test_kid_of_a_set_and_itself_is_not_above_0():
    x = np.random.RandomState(0).normal(size=(12, 5))
    found = kid(x, x)
    alone = np.square(0).sum() + np.mean([(v @ v / 5 + 1) ** 3 for v in x])
    between = np.mean([(a @ b / 5 + 1) ** 3 for a in x for b in x])
    assert found.mean == pytest.approx(2 * (between - alone) / 11, rel=1e-10)  # what the diagonals take away
    assert found.mean < 0 < found.std


def test_kid_is_the_same_at_each_call_whatever_was_drawn_before():
    rng = np.random.RandomState(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    distance = KernelDistance(y, 30)
    first = distance(x)
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    assert distance(x) == first == kid(x, y)
    assert np.random.get_state()[1].tolist() == before
    assert kid(x, y, seed=1) != first


def test_kernels_of_all_images_and_of_subsets_agree(monkeypatch):
    """The cheaper way is taken: by rows of the kernel of all images, or subset by subset."""
    rng = np.random.RandomState(0)
    x, y = rng.normal(size=(90, 6)), rng.normal(size=(80, 6))
    whole = kid(x, y, size=40, subsets=20)
    few = kid(x, y, size=40, subsets=3)
    monkeypatch.setattr(kernel, "_ROWS", 7)
    assert kid(x, y, size=40, subsets=20) == pytest.approx(whole, rel=1e-10)
    drawn = np.random.RandomState(2020)
    found = [double_sum(x[drawn.choice(90, 40, replace=False)], y[drawn.choice(80, 40, replace=False)]) for _ in "abc"]
    assert few == pytest.approx((np.mean(found), np.std(found)), rel=1e-10)


def test_what_is_not_finite_gives_no_figure():
    x = np.random.RandomState(0).normal(size=(4, 3))
    assert all(math.isnan(value) for value in Reals(x).distances(np.where(x > 0, x, np.inf)).values())
    with pytest.raises(ValueError, match="1 and 4 images; a distance needs 2"):
        Reals(x).distances(x[:1])


# Features.


def module(monkeypatch, function):
    """Make a function what "my_features:own" names."""
    made = types.ModuleType("my_features")
    made.own = function
    monkeypatch.setitem(sys.modules, "my_features", made)
    return "my_features:own"


WRONG = {
    "another number": (lambda x: np.zeros((3, 4)), r"gives \[3, 4\] for 8 pictures \[8, 8, 8, 3\].*\[8, D\]"),
    "maps": (lambda x: x.astype(np.float32), r"gives \[8, 8, 8, 3\] for 8"),
    "one number each": (lambda x: x.mean((1, 2, 3)), r"gives \[8\] for 8"),
    "no number": (lambda x: np.zeros((8, 0)), r"gives \[8, 0\] for 8"),
    "nothing": (lambda x: None, r"must return features, numbers of shape \[N, D\] \(a NoneType\)"),
    "texts": (lambda x: np.full((8, 2), "a"), r"must return features.*\(an array of <U1\)"),
    "complex numbers": (lambda x: np.zeros((8, 2), complex), r"must return features.*\(an array of complex128\)"),
    "rows of several lengths": (lambda x: [[1.0]] * 7 + [[1.0, 2.0]], r"must return features.* \(setting"),
    "an error": (lambda x: x @ x[:, :2], r"fails on pictures of uint8 \[8, 8, 8, 3\] \(ValueError: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_functions_that_give_no_features_are_refused(case, monkeypatch):
    function, message = WRONG[case]
    features = find_features(module(monkeypatch, function))
    with pytest.raises(InputError, match=f"features=my_features:own {message}"):
        features.try_on(8, 8)


def test_a_function_must_give_as_many_features_as_before():
    features = Features("own", lambda x: np.ones((len(x), x.shape[1])))
    features.try_on(8, 8)
    with pytest.raises(InputError, match="features=own gives 16 features now, but gave 8 before"):
        features(noise(2, 16, 16, 3))


@pytest.mark.parametrize(
    "cast, dtype",
    [
        (np.float64, np.float64),
        (np.float16, np.float32),
        (np.int32, np.float64),
        (jnp.bfloat16, np.float32),
    ],
)
def test_numbers_of_any_precision_are_taken(cast, dtype):
    given = np.arange(16.0).reshape(8, 2)
    features = Features("own", lambda x: jnp.asarray(given, cast) if cast is jnp.bfloat16 else given.astype(cast))
    found = features(np.zeros((8, 8, 8, 3), np.uint8))
    assert found.dtype == dtype and np.array_equal(found, given) and features.width == 2


def test_functions_get_full_batches_of_one_shape():
    """So that one that is compiled is compiled once."""
    shapes = []

    def own(pictures):
        shapes.append(pictures.shape)
        return pictures.reshape(len(pictures), -1)[:, :5].astype(np.float32)

    pictures = noise(19, 8, 8, 3)
    found = Features("own", own)(pictures)
    np.testing.assert_array_equal(found, pictures.reshape(19, -1)[:, :5])
    assert shapes == [(8, 8, 8, 3)] * 3
    shapes.clear()
    Features("own", own)(noise(2, 1024, 1024, 3))
    assert shapes == [(1, 1024, 1024, 3)] * 2  # large ones one by one


def test_features_keep_their_places_and_gray_is_repeated():
    collected = Collected(Features("own", lambda x: x.mean((1, 2)).astype(np.float64)))
    gray, small = noise(3, 8, 8, 1), noise(2, 4, 4, 3, seed=1)
    for place, picture in ((4, gray[0]), (1, small[0]), (0, gray[1]), (3, small[1]), (2, gray[2])):
        collected.add(place, picture)
    places, found = collected.in_order()
    assert places.tolist() == [0, 1, 2, 3, 4]
    repeated = [np.repeat(gray[i].mean(), 3) for i in (1, 2, 0)]
    expected = [repeated[0], small[0].mean((0, 1)), repeated[1], small[1].mean((0, 1)), repeated[2]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    architecture = {"base_width": 2, "stride": 1}
    facts = {"architecture": architecture, "seed": 0, "palette": palettes.CMP_FACADES.to_json()}
    made = OwnSegmenter(init(FCN(len(palettes.CMP_FACADES.names), **architecture), 0), facts)
    made.save(tmp_path_factory.mktemp("segmenter") / "seg")
    return tmp_path_factory.getbasetemp() / "segmenter0" / "seg", made


@pytest.mark.slow
def test_a_segmenters_deepest_features_are_averaged_over_space(segmenter):
    folder, made = segmenter
    features = find_features(f"segmenter:{folder}")
    pictures = noise(3, 8, 12, 3)
    network = FCN(len(palettes.CMP_FACADES.names), base_width=2, stride=1)
    x = pictures / np.float32(127.5) - 1
    _, kept = network.apply(made.variables, x, train=False, capture_intermediates=True, mutable=["intermediates"])
    norms = {k: v["__call__"][0] for k, v in kept["intermediates"].items() if k.startswith("BatchNorm")}
    last = norms[max(norms, key=lambda name: int(name.rpartition("_")[2]))]  # of the fifth stage
    expected = np.maximum(last, 0).mean((1, 2))
    np.testing.assert_allclose(features(pictures), expected, rtol=1e-4, atol=1e-6)
    assert features.width == 16 and features.digest == made.digest and np.ptp(expected) > 0


def test_what_cannot_be_had_is_named(tmp_path, monkeypatch):
    for name, message in {
        "incepton": "features=incepton: choose inception, segmenter:FOLDER, or 'module:name'",
        "no_such_module_here:f": "features: 'no_such_module_here:f': there is no module",
        "support.features:colour": "has no 'colour'; did you mean 'colours'",
        "math:pi": "features=math:pi is not a function",
        f"segmenter:{tmp_path}": "features=segmenter:.* is not a segmenter",
    }.items():
        with pytest.raises(InputError, match=message):
            find_features(name)
    with pytest.raises(InputError, match="inception=w.pth is for features=inception, not for features=math:sqrt"):
        find_features("math:sqrt", "w.pth")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InputError, match=r"pip install 'p2p_jax\[fid\]'"):
        find_features("inception")


# In training.


def config_of(**changes):
    section = {"distances__features": "support.features:colours"}
    return small_config(**{"objective": "support.networks:linear", "optimizer": SGD, **section, **changes})


def by_hand(fakes, reals):
    x, y = (colours(np.rint((np.asarray(images) + 1) * 127.5).astype(np.uint8)) for images in (fakes, reals))
    return dict(kid=kid(x, y).mean, kid_std=kid(x, y).std, fid=frechet(moments(x), moments(y)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six steps; images are compared every second step, sets every third, and the best KID decides."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = config_of(num_steps=6, distances__every=3, best_metric="kid")
    state = train(config, workdir, data=memory_data(config, num_val=11))
    return config, workdir, state


@pytest.mark.slow
def test_figures_of_a_training_are_those_of_its_pictures(trained):
    config, workdir, state = trained
    (batch,) = memory_data(config, num_val=11).validation(11)
    fakes = linear(config).translate(state, batch, jax.random.key(config.seed))["fake_b"]
    row = {name: float(rows_of(workdir)[-1][f"eval/{name}"]) for name in ALL}
    found = by_hand(fakes, batch["real_b"])
    copied = by_hand(batch["real_a"], batch["real_b"])
    expected = found | {"copy_kid": copied["kid"], "copy_fid": copied["fid"]}
    assert row == pytest.approx(expected, rel=1e-6) and row["kid_std"] > 0


def test_rows_of_either_interval(trained):
    rows = rows_of(trained[1])
    assert [bool(row["eval/l1"]) for row in rows] == [False, True, False, True, False, True]
    for name in ALL:
        assert [bool(row[f"eval/{name}"]) for row in rows] == [False, False, True, False, False, True]
    assert len({row["eval/copy_kid"] for row in rows}) == 2


def test_the_best_kid_is_kept_and_both_are_told_with_the_number_of_images(trained):
    config, workdir, _ = trained
    values = {int(row["step"]): float(row["eval/kid"]) for row in rows_of(workdir) if row["eval/kid"]}
    best = min(values, key=values.get)
    assert find_step(workdir, config, "best") == best
    summary = (workdir / "summary.txt").read_text()
    assert f"Distances over 11 images, features support.features:colours: kid {values[6]:.4g} " in summary
    assert f"(best {values[best]:.4g} at step {best})" in summary and "copy_fid" in summary
    assert f"Best kid: {values[best]:.4g} at step {best}." in summary


@pytest.mark.slow
def test_an_evaluation_afterwards_finds_the_same(trained, tmp_path):
    config, workdir, _ = trained
    given = {"data": memory_data(config, num_val=11), "trust": ["support.networks:linear", "support.features:colours"]}
    found = evaluate(workdir, metrics=["distances"], checkpoint="latest", **given)
    (title,) = found["set_metrics"]
    assert title == "distances [support.features:colours]"
    row = {name: float(rows_of(workdir)[-1][f"eval/{name}"]) for name in ALL}
    told = found["set_metrics"][title]
    assert {name: told[name] for name in ALL} == pytest.approx(row, rel=1e-6)
    assert (told["count_fake"], told["count_real"]) == (11, 11)
    output = {"metrics": ["distances"], "output": tmp_path / "out"}
    for part in ("2/3", "1/3", "3/3"):
        evaluate(workdir, shard=part, **output, **given)
    assert evaluate(workdir, merge=True, **output, **given)["set_metrics"] == found["set_metrics"]
    other = "support.features:means"
    with pytest.raises(InputError, match="has features support.features:colours, but you asked for feat"):
        evaluate(workdir, merge=True, features=other, **output, **given)
    means = evaluate(workdir, metrics=["distances"], features=other, **given)["set_metrics"]
    assert means["distances [support.features:means]"]["fid"] != told["fid"]


@pytest.mark.slow
def test_distances_change_nothing_that_is_trained(trained, tmp_path):
    config, workdir, state = trained
    without = complete(config.to_dict() | {"distances": {}, "best_metric": "l1"})
    assert_equal_trees(train(without, tmp_path / "run", data=memory_data(config, num_val=11)), state)


@pytest.mark.slow
def test_an_interrupted_run_ends_alike(trained, tmp_path):
    config, workdir, state = trained
    data = memory_data(config, num_val=11)
    train(config, tmp_path / "run", data=stop_at(4, data))
    assert len(rows_of(tmp_path / "run")) < 6
    assert_equal_trees(train(config, tmp_path / "run", data=data), state)
    assert rows_of(tmp_path / "run") == rows_of(workdir)
    found, expected = ((folder / "summary.txt").read_text() for folder in (tmp_path / "run", workdir))
    start = expected.index("Distances over")
    assert expected[start : expected.index("Look at")] in found


def test_several_steps_at_once_stop_for_distances(tmp_path):
    long = dict.fromkeys(("log_every", "sample_every", "eval_every", "checkpoint_every"), 8)
    config = config_of(num_steps=8, steps_per_dispatch=4, distances__every=3, **long)
    train(config, tmp_path / "run", data=memory_data(config, num_val=2))
    assert [row["step"] for row in rows_of(tmp_path / "run") if row["eval/kid"]] == ["3", "6", "8"]


def test_what_is_not_judged_by_the_best_metric_is_not_the_best(tmp_path):
    """Images are compared at every step, sets at the last one: no other checkpoint is saved."""
    config = config_of(num_steps=4, eval_every=1, checkpoint_every=4, distances__every=4, best_metric="kid")
    train(config, tmp_path / "run", data=memory_data(config, num_val=2))
    assert saved_steps(tmp_path / "run") == [4] and find_step(tmp_path / "run", config, "best") == 4
    assert [bool(row["eval/l1"]) for row in rows_of(tmp_path / "run")] == [True] * 4


def copying(config):
    """Make an objective that gives the input back."""
    base = linear(config)

    def translate(state, batch, rng):
        return {"fake_b": batch["real_a"]}

    return base._replace(translate=translate)


def test_a_run_that_copies_stands_on_the_copy_line(tmp_path, capsys):
    config = config_of(num_steps=1)
    train(config, tmp_path / "run", data=memory_data(config, num_val=5), objective=copying(config))
    (row,) = rows_of(tmp_path / "run")
    assert row["eval/kid"] == row["eval/copy_kid"] and row["eval/fid"] == row["eval/copy_fid"]
    assert float(row["eval/fid"]) > 0
    told = f"kid {float(row['eval/kid']):.4g}  kid_std"
    assert f"step 1  distances over 5 images, features support.features:colours:  {told}" in capsys.readouterr().out


def test_averages_are_measured_beside_the_raw_generator(tmp_path):
    config = config_of(num_steps=2, ema__decay=0.5)
    data, objective = memory_data(config, num_val=5), averaged(linear(config), config)
    state = train(config, tmp_path / "run", data=data, objective=objective)
    row = rows_of(tmp_path / "run")[-1]
    (batch,) = data.validation(5)
    for name, kept in {"": state, "raw_": {k: v for k, v in state.items() if k != "ema"}}.items():
        expected = by_hand(objective.translate(kept, batch, None)["fake_b"], batch["real_b"])
        assert float(row[f"eval/{name}kid"]) == pytest.approx(expected["kid"], rel=1e-6)
        assert float(row[f"eval/{name}fid"]) == pytest.approx(expected["fid"], rel=1e-6)
    assert row["eval/raw_kid"] != row["eval/kid"] and "eval/raw_kid_std" not in row and "eval/kid_std" in row


def test_what_an_objective_calls_ema_itself_is_its_own():
    """Without ``config.ema`` nothing is taken out of its state, which its `translate` reads."""
    config, base = config_of(), linear(config_of())
    own = Objective(
        lambda rng, batch: base.init(rng, batch) | {"ema": {"scale": jnp.ones(())}},
        base.update,
        lambda state, batch, rng: {"fake_b": state["ema"]["scale"] * base.translate(state, batch, rng)["fake_b"]},
        base.evaluate,
    )
    data, state = memory_data(config, num_val=3), own.init(jax.random.key(0), blank_batch(config))
    distances = Distances(config, own, state, data, open_features(config))
    distances.look()
    assert list(distances(state)) == list(ALL)


def both_ways(config) -> Objective:
    base = linear(config)

    def translate(state, batch, rng):
        swapped = {"real_a": batch["real_b"]} if "real_b" in batch else {}
        fakes = base.translate(state, batch, rng) if "real_a" in batch else {}
        return fakes | {f"fake_{'a'}": -base.translate(state, swapped, rng)["fake_b"] for _ in swapped}

    return base._replace(translate=translate)


def unpaired_sides():
    return noise(7, 16, 16, 3), noise(4, 16, 16, 3, low=40, high=200, seed=1)


@pytest.mark.slow
def test_both_ways_and_sides_of_two_lengths(tmp_path):
    """The shorter side is repeated in validation; no image counts twice. Without an ending: the mean of both ways."""
    a, b = unpaired_sides()
    config = config_of(num_steps=1, data__direction="AtoB", data__load_size=16, data__flip=False)
    source = unpaired_from_arrays(a, b)
    state = train(config, tmp_path / "run", data=load(config, train=source, val=source), objective=both_ways(config))
    (row,) = rows_of(tmp_path / "run")
    real_a, real_b = (x / np.float32(127.5) - 1 for x in (a, b))
    fakes = both_ways(config).translate(state, {"real_a": real_a, "real_b": real_b}, None)
    ways = {"_b": by_hand(fakes["fake_b"], real_b), "_a": by_hand(fakes["fake_a"], real_a)}
    copies = {"_b": by_hand(real_a, real_b), "_a": by_hand(real_b, real_a)}
    for name in FIGURES:
        for ending, expected in ways.items():
            assert float(row[f"eval/{name}{ending}"]) == pytest.approx(expected[name], rel=1e-6)
        mean = (ways["_a"][name] + ways["_b"][name]) / 2
        assert float(row[f"eval/{name}"]) == pytest.approx(mean, rel=1e-6)
    for name in ("kid", "fid"):
        assert float(row[f"eval/copy_{name}_a"]) == pytest.approx(copies["_a"][name], rel=1e-6)
    assert "Distances over 7 and 4 images" in (tmp_path / "run" / "summary.txt").read_text()


@pytest.mark.slow
def test_pictures_of_other_kinds_are_compared(tmp_path):
    """Numbers of 16 bits in one channel: their gray, repeated. Classes without colours cannot be copied."""
    x, y = noise(5, 16, 16, 1, dtype=np.uint16), noise(5, 16, 16, 3)
    options = {"data__direction": "AtoB", "data__load_size": 16, "data__input__channels": 1}
    config = config_of(num_steps=1, data__input__kind="uint16", **options)
    source = from_arrays(x, y)
    train(config, tmp_path / "run", data=load(config, train=source, val=source))
    gray = np.repeat(x / 32767.5 - 1, 3, axis=-1)
    (row,) = rows_of(tmp_path / "run")
    assert float(row["eval/copy_fid"]) == pytest.approx(by_hand(gray, y / 127.5 - 1)["fid"], rel=1e-6)
    for palette, has_copies in (("", False), ("#000000,#ff0000,#00ff00,#0000ff", True)):
        config = config_of(data__input__kind="labels", data__input__channels=4, data__input__palette=palette)
        features = open_features(config)
        found = Distances(config, linear(config), blank_state(linear(config), config), memory_data(config), features)
        assert ("copy_kid" in found.names) is has_copies


@pytest.mark.slow
def test_unknown_values_are_black_on_either_side_as_afterwards(tmp_path):
    a, b = noise(6, 16, 16, 1, dtype=np.float32), noise(6, 16, 16, 3, dtype=np.float32, seed=1)
    a[:, 3:7, 2:9], b[0, :4] = np.nan, np.nan
    sides = {"data__input__kind": "float", "data__input__channels": 1, "data__output__kind": "float"}
    sides |= {"data__input__range": "-1:1", "data__output__range": "-1:1"}
    config = config_of(num_steps=1, data__direction="AtoB", data__load_size=16, data__flip=False, **sides)
    source = from_arrays(a, b)

    def careful(config):
        """Make the linear objective one that takes unknown values for 0, and judges nothing."""
        base, fill = linear(config), lambda batch: {name: jnp.nan_to_num(x) for name, x in batch.items()}
        return Objective(
            base.init,
            lambda state, batch, rng: base.update(state, fill(batch), rng),
            lambda state, batch, rng: base.translate(state, fill(batch), rng),
            lambda state, batch, rng: base.evaluate(state, fill(batch), rng),
        )

    objective = careful(config)
    state = train(config, tmp_path / "run", data=load(config, train=source, val=source), objective=objective)
    fakes = np.array(objective.translate(state, {"real_a": a}, None)["fake_b"])
    fakes[:, 3:7, 2:9] = -1
    (row,) = rows_of(tmp_path / "run")
    expected = by_hand(fakes, np.nan_to_num(b, nan=-1.0))
    copied = by_hand(np.repeat(np.nan_to_num(a, nan=-1.0), 3, axis=-1), np.nan_to_num(b, nan=-1.0))
    assert float(row["eval/fid"]) == pytest.approx(expected["fid"], rel=1e-6)
    assert float(row["eval/kid"]) == pytest.approx(expected["kid"], rel=1e-6)
    assert float(row["eval/copy_fid"]) == pytest.approx(copied["fid"], rel=1e-6)


@pytest.mark.slow
def test_what_is_wrong_is_said_before_training(tmp_path, monkeypatch):
    def refused(match, num_val=5, objective=None, **changes):
        config = config_of(**changes)
        with pytest.raises(InputError, match=match):
            train(config, tmp_path / "run", data=memory_data(config, num_val=num_val), objective=objective)
        assert not (tmp_path / "run" / "metrics.csv").exists()

    refused("needs at least 2 validation images, better thousands, but there are 0", num_val=0)
    refused("needs at least 2 validation images, better thousands, but there are 1", num_val=1)
    refused("config.distances.features=incepton: choose inception, segmenter:FOLDER", distances__features="incepton")
    flat = module(monkeypatch, lambda x: x.mean((1, 2, 3)))
    refused(r"config.distances.features=my_features:own gives \[8\]", distances__features=flat)
    bad = module(monkeypatch, lambda x: np.full((8, 2), np.where(x.any(), np.nan, 0.0)))
    refused("gives NaN or infinite numbers for real images of validation", distances__features=bad)
    refused("config.best_metric is 'kidd'; the objective has l1, psnr, ssim, kid, kid_std, fid", best_metric="kidd")
    refused("config.best_mode=max would keep the worst kid", best_metric="kid", best_mode="max")
    refused(
        "config.best_metric=copy_kid does not say how good a checkpoint is: choose kid or fid", best_metric="copy_kid"
    )
    refused("config.best_metric=kid_std does not say how good a checkpoint is", best_metric="kid_std")
    refused("; kid and fid come with config.distances.features", best_metric="kid", distances__features="")

    def named_alike(config):
        base = linear(config)

        def evaluate(state, batch, rng):
            metrics, columns = base.evaluate(state, batch, rng)
            return metrics | {"fid": metrics["l1"]}, columns

        return base._replace(evaluate=evaluate)

    refused("the objective and config.distances.features both have a metric fid", objective=named_alike(config_of()))
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    refused(r"FID and KID need torch-fidelity.*p2p_jax\[fid\]", distances__features="inception")
    for changes, message in {
        ("every",): "config.distances.every needs config.distances.features",
        ("weights",): "config.distances.weights needs config.distances.features",
    }.items():
        with pytest.raises(InputError, match=message):
            small_config(**{f"distances__{changes[0]}": {"every": 5, "weights": "w.pth"}[changes[0]]})
    with pytest.raises(InputError, match="config.distances.weights is of inception"):
        config_of(distances__weights="w.pth")


@pytest.mark.slow
def test_a_run_goes_on_with_the_weights_of_its_features_alone(segmenter, tmp_path):
    folder, made = segmenter
    config = config_of(num_steps=1, distances__features=f"segmenter:{folder}")
    data = memory_data(config, num_val=3)
    train(config, tmp_path / "run", data=data)
    facts = json.loads((tmp_path / "run" / "facts.json").read_text())
    assert facts["distances"] == {"weights": made.digest}
    more = complete(config.to_dict() | {"num_steps": 2})
    OwnSegmenter(jax.tree.map(lambda x: x + 1, made.variables), made.facts).save(folder, overwrite=True)
    try:
        with pytest.raises(InputError, match=f"the weights have changed .*before {made.digest}"):
            train(more, tmp_path / "run", data=data)
    finally:
        made.save(folder, overwrite=True)
    train(more, tmp_path / "run", data=data)
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["eval/fid"]] == ["1", "2"]
    assert read_filled_in(tmp_path / "run", trust="support.networks:linear").distances.features.startswith("segmenter:")


@pytest.mark.slow
def test_an_evaluation_without_features_says_what_is_missing(tmp_path):
    config = config_of(num_steps=1, distances__features="")
    data = memory_data(config)
    train(config, tmp_path / "run", data=data)
    given = {"data": data, "trust": "support.networks:linear", "metrics": ["distances"]}
    with pytest.raises(InputError, match=r"needs `features`: inception, segmenter:FOLDER.*config.distances.features"):
        evaluate(tmp_path / "run", **given)
    found = evaluate(tmp_path / "run", features="support.features:colours", **given)
    assert found["set_metrics"]["distances [support.features:colours]"]["count"] == 3
    with pytest.raises(InputError, match="needs at least 2 images of each kind"):
        evaluate(tmp_path / "run", features="support.features:colours", **given | {"data": memory_data(config, 8, 1)})


@pytest.mark.slow
def test_files_and_the_stream_give_the_same_afterwards(tmp_path):
    for split, count in (("train", 4), ("val", 3)):
        for i in range(count):
            save(tmp_path / "pairs" / split / f"{i}.png", noise(16, 32, 3, seed=i))
    source = {"data__source": "side_by_side", "data__dir": str(tmp_path / "pairs"), "data__load_size": 16}
    config = config_of(num_steps=1, **source)
    train(config, tmp_path / "run")
    trust = ["support.networks:linear", "support.features:colours"]
    found = evaluate(tmp_path / "run", metrics=["distances"], trust=trust)["set_metrics"]
    (row,) = rows_of(tmp_path / "run")
    for name in ALL:
        told = found["distances [support.features:colours]"][name]
        assert told == pytest.approx(float(row[f"eval/{name}"]), rel=1e-6)


@pytest.mark.slow
def test_either_direction_of_cyclegan_is_found_again_afterwards(tmp_path):
    a, b = unpaired_sides()
    for side, images in (("A", a), ("B", b)):
        for split in ("train", "val"):
            for i, image in enumerate(images):
                save(tmp_path / "photos" / f"{split}{side}" / f"{i}.png", image)
    features = {"distances__features": "support.features:colours", "best_metric": "fid"}
    source = {"data__source": "unpaired", "data__dir": str(tmp_path / "photos"), "data__load_size": 16}
    config = small_cyclegan_config(num_steps=1, batch_size=2, data__flip=False, **features, **source)
    train(config, tmp_path / "run")
    (row,) = rows_of(tmp_path / "run")
    for direction, ending, counts in (("AtoB", "_b", (7, 4)), ("BtoA", "_a", (4, 7))):
        given = {"direction": direction, "trust": "support.features:colours"}
        (found,) = evaluate(tmp_path / "run", metrics=["distances"], **given)["set_metrics"].values()
        assert (found["count_fake"], found["count_real"]) == counts
        for name in ALL:
            assert found[name] == pytest.approx(float(row[f"eval/{name}{ending}"]), rel=1e-6)
    assert float(row["eval/kid"]) == (float(row["eval/kid_a"]) + float(row["eval/kid_b"])) / 2


_LAB = {"data__input__kind": "lab_l", "data__input__channels": 1}
_LAB |= {"data__output__kind": "lab_ab", "data__output__channels": 2}
_COLOURS = {"data__input__palette": "#000000,#ff0000,#00ff00,#0000ff"}
KINDS = {  # the input, options, and whether there is a copy line
    "ab with the L of the input": (noise(6, 20, 20, 3), _LAB, True),
    "classes": (noise(6, 20, 20, 1, low=0, high=4), {"data__input__kind": "labels", "data__input__channels": 4}, False),
    "classes with colours": (
        noise(6, 20, 20, 1, low=0, high=4),
        {"data__input__kind": "labels", "data__input__channels": 4, **_COLOURS},
        True,
    ),
    "crops": (noise(6, 20, 20, 3, seed=2), {"data__preprocess": "crop"}, True),
    "the other direction": (noise(6, 20, 20, 3, seed=2), {"data__direction": "BtoA"}, True),
    "on the device": (noise(6, 20, 20, 3, seed=2), {"data__resident": True}, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_kind_have_the_same_figures_afterwards(kind, tmp_path):
    images, options, has_copies = KINDS[kind]
    if options is _LAB:
        pytest.importorskip("skimage")
    config = config_of(**{"num_steps": 1, "data__direction": "AtoB", "data__load_size": 16, **options})
    source = from_arrays(images, images if options is _LAB else noise(6, 20, 20, 3, seed=1))
    train(config, tmp_path / "run", data=load(config, train=source, val=source))
    trust = ["support.networks:linear", "support.features:colours"]
    found = evaluate(tmp_path / "run", metrics=["distances"], data=source, trust=trust, whole=False)["set_metrics"]
    (found,), (row,) = found.values(), rows_of(tmp_path / "run")
    names = ALL if has_copies else FIGURES
    assert {name for name in found if not name.startswith("count")} == set(names)
    assert {name for name in ALL if f"eval/{name}" in row} == set(names)
    for name in names:
        assert found[name] == pytest.approx(float(row[f"eval/{name}"]), rel=1e-6)
