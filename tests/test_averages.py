"""Averages of the generators: the sums in closed form, and that what is validated and used later takes them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import p2p_jax
from p2p_jax import InputError, Objective, Translator, train
from p2p_jax.commands import evaluate as evaluate_command
from p2p_jax.config import complete, load, resolve
from p2p_jax.config.options import is_unpaired
from p2p_jax.inference.run import open_run
from p2p_jax.interop.exporting import export
from p2p_jax.nets.weights import digest
from p2p_jax.objectives import averaged, averaging, make_objective
from p2p_jax.testing import check_objective
from p2p_jax.training import parallel
from p2p_jax.training.fine_tuning import find_source, take_weights
from support.comparers import assert_close_trees, assert_equal_trees
from support.configs import SGD, small_config, small_cyclegan_config
from support.images import random_batch
from support.networks import PIXEL_GAN, TINY, draw_state, linear
from support.runs import blank_state, memory_data, rows_of, run_command, translate_files, write_run

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALLEST = {"generator": TINY, "discriminator": PIXEL_GAN}


def linear_config(**changes):
    """Return the config of an objective that compiles at once."""
    return small_config(
        **{"objective": "support.networks:linear", "optimizer": SGD | {"learning_rate": 0.5}, **changes}
    )


def trained(objective, config, num_steps):
    """Return the states before and after each of some steps on all devices, on the host."""
    update = parallel.shard_map_update(objective.update)
    states = [jax.device_get(jax.jit(objective.init)(jax.random.key(0), random_batch(config)))]
    for step in range(num_steps):
        state, _, _ = update(states[-1], random_batch(config, seed=step), jax.random.key(0))
        states.append(jax.device_get(state))
    return states


def generator(state):
    return {key: state[key]["generator"] for key in ("params", "batch_stats")}


@pytest.mark.parametrize(
    ("options", "beta_of_step"),
    [
        ({"decay": 0.7}, lambda step: 0.7),
        ({"half_life": 10}, lambda step: 0.5 ** (4 / 10)),
        # StyleGAN2-ADA's lines: ema_nimg = min(ema_nimg, cur_nimg * ema_rampup), 0.5 ** (batch / max(ema_nimg, 1e-8))
        ({"half_life": 10, "ramp_up": 0.75}, lambda step: 0.5 ** (4 / max(min(10, 4 * step * 0.75), 1e-8))),
        ({"decay": 0.7, "ramp_up": 0.75}, lambda step: min(0.7, 0.5 ** (1 / max(step * 0.75, 1e-8)))),
    ],
)
def test_the_average_is_the_weighted_sum_of_all_steps(options, beta_of_step):
    config = linear_config(**{f"ema__{name}": value for name, value in options.items()})
    states = trained(make_objective(config), config, 6)
    betas = [beta_of_step(step) for step in range(6)]
    assert (len(set(betas)) > 3) == ("ramp_up" in options)
    shares = [np.prod(betas), *((1 - betas[i]) * np.prod(betas[i + 1 :]) for i in range(6))]  # of each state
    assert sum(shares) == pytest.approx(1)
    found, moved = states[-1]["ema"], 0.0
    for key in ("params", "batch_stats"):
        for name in found[key]["generator"]:
            values = [np.float64(state[key]["generator"][name]) for state in states]
            expected = sum(share * value for share, value in zip(shares, values, strict=True))
            np.testing.assert_allclose(found[key]["generator"][name], expected, rtol=1e-5, atol=1e-7)
            moved = max(moved, np.abs(expected - values[-1]).max())
    assert moved > 0.01  # the average is something else than the weights


def test_the_ramp_forgets_the_first_weights_at_once():
    config = linear_config(ema__half_life=1e6, ema__ramp_up=0.05)
    first, second = trained(make_objective(config), config, 1)
    assert_equal_trees(generator(second["ema"]), generator(second))
    assert not np.array_equal(first["params"]["generator"]["mix"], second["params"]["generator"]["mix"])


def test_a_long_average_does_not_lose_its_weight_in_rounding():
    """1 - beta has all its digits: 0.5 ** (4 / 1e9) is 1 in float32."""
    config = linear_config(ema__half_life=1e9)
    weight = averaging._weight_of_new(config, jnp.int32(0))
    assert float(jnp.float32(weight)) == pytest.approx(4e-9 * np.log(2), rel=1e-6)
    ramped = averaging._weight_of_new(linear_config(ema__half_life=1e9, ema__ramp_up=1e9), jnp.int32(5))
    assert float(ramped) == pytest.approx(4e-9 * np.log(2), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config])
def test_training_does_not_see_the_average(make):
    config = make(ema__decay=0.9, optimizer=SGD, **SMALLEST)
    base = resolve(config.objective)(config)
    objective = make_objective(config)
    states, alone = trained(objective, config, 2), trained(base, config, 2)
    players = {name for name in alone[-1]["params"] if name.startswith("gen")}
    for state, expected in zip(states, alone, strict=True):
        assert set(state["ema"]["params"]) == set(state["ema"]["batch_stats"]) == players
        assert_equal_trees(averaging.trained_alone(state), expected)
    assert averaging.trained_alone(expected) is expected is averaging.in_use(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "dtypes"), [(small_config, "bfloat16"), (small_cyclegan_config, "float32")])
def test_contract(make, dtypes):
    config = make(ema__half_life=20, ema__ramp_up=0.5, param_dtype=dtypes, dtype=dtypes, **SMALLEST)
    objective = make_objective(config)
    check_objective(objective, config)
    state = blank_state(objective, config)
    assert {str(x.dtype) for x in jax.tree.leaves(state["params"])} == {dtypes}
    assert {str(x.dtype) for x in jax.tree.leaves(state["ema"])} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(p.stem for p in EXAMPLES.glob("*.py")))
def test_objectives_from_outside_are_averaged(example, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    shown = load(str(EXAMPLES / f"{example}.py"))
    make_small = small_cyclegan_config if is_unpaired(shown.data.source) else small_config
    small = make_small(batch_size=2, objective=shown.objective, best_metric=shown.best_metric, ema__decay=0.99)
    with small.unlocked():
        small.discriminator.norm = shown.discriminator.norm
    config = complete({**small.to_dict(), "loss": shown.loss.to_dict()})
    objective = make_objective(config)
    check_objective(objective, config, run=False)
    state = blank_state(objective, config)
    assert [name[:3] for name in state["ema"]["params"]] == ["gen"]
    shapes = jax.tree.map(lambda x: x.shape, (state["ema"]["params"], state["params"]))
    assert all(shapes[0][name] == shapes[1][name] for name in shapes[0])


@pytest.mark.parametrize("norm", ["running", "batch"])
def test_translation_takes_averaged_weights_with_averaged_statistics(norm):
    config = small_config(ema__decay=0.9, generator=TINY | {"norm": "batch"}, inference__norm=norm)
    objective = make_objective(config)
    shapes, batch, key = blank_state(objective, config), random_batch(config), jax.random.key(0)
    state = draw_state(shapes, seed=1)
    state["ema"] = draw_state(shapes["ema"], seed=2)
    base = p2p_jax.pix2pix(config)

    def made_of(params, stats):
        alone = averaging.trained_alone(state)
        return base.translate(alone | {"params": params["params"], "batch_stats": stats["batch_stats"]}, batch, key)

    found = np.asarray(objective.translate(state, batch, key)["fake_b"])
    np.testing.assert_array_equal(found, made_of(state["ema"], state["ema"])["fake_b"])
    mixed = np.abs(found - made_of(state["ema"], state)["fake_b"]).max()
    assert mixed > 0.05 if norm == "running" else mixed == 0  # those of the image itself need no others
    raw = objective.translate(averaging.trained_alone(state), batch, key)["fake_b"]
    np.testing.assert_array_equal(raw, made_of(state, state)["fake_b"])
    assert np.abs(found - raw).max() > 0.05

    metrics, columns = objective.evaluate(state, batch, key)
    np.testing.assert_array_equal(columns["output"], found)
    assert not np.allclose(metrics["l1"], objective.evaluate(averaging.trained_alone(state), batch, key)[0]["l1"])


def test_directions_of_spectral_norms_stay_of_length_1():
    """The mean of unit vectors is shorter, and a norm that is measured along it too small."""
    config = linear_config(ema__decay=0.5)

    def init(rng, batch):
        stats = {"conv": {"kernel/u": jnp.array([[1.0, 0.0]]), "v": jnp.array([0.0, 1.0]), "sigma": jnp.array(2.0)}}
        stats["norm"] = {"v": jnp.array([3.0, 1.0])}  # variances, say
        params = {"generator": {"u": jnp.array([1.0, 0.0])}}  # a parameter of that name is one like others
        return {"step": jnp.int32(0), "params": params, "batch_stats": {"generator": stats}}

    def update(state, batch, rng):
        turned = jax.tree.map(lambda x: 3 * x if x.ndim == 0 else x[..., ::-1], state)
        return turned | {"step": state["step"] + 1}, {}

    objective = averaged(Objective(init, update, lambda *_: {}, lambda *_: ({}, {})), config)
    average = objective.update(objective.init(None, None), {}, None)[0]["ema"]
    conv, half = average["batch_stats"]["generator"]["conv"], np.sqrt(0.5)
    np.testing.assert_allclose(conv["kernel/u"], [[half, half]], rtol=1e-6)
    np.testing.assert_allclose(conv["v"], [half, half], rtol=1e-6)
    np.testing.assert_allclose(conv["sigma"], 4.0, rtol=1e-6)
    np.testing.assert_allclose(average["batch_stats"]["generator"]["norm"]["v"], [2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(average["params"]["generator"]["u"], [0.5, 0.5], rtol=1e-6)


@pytest.mark.slow
def test_two_devices_equal_one():
    config = small_config(ema__half_life=8, optimizer=SGD, **SMALLEST)
    assert jax.device_count() > 1
    objective, batch = make_objective(config), random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    found = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        new, update = state, parallel.shard_map_update(objective.update, devices)
        for _ in range(3):
            new = jax.device_get(update(new, batch, jax.random.key(1))[0])
        found.append(new["ema"])
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), found[0], state["ema"])
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert_close_trees(found[1], found[0], atol=1e-6)


@pytest.mark.slow
def test_a_run_is_resumed_to_the_bit_and_validated_by_its_average(tmp_path, capsys):
    config = linear_config(ema__half_life=12, ema__ramp_up=0.5, extra={"noise": 0.0})
    data = memory_data(config)
    whole = train(config, tmp_path / "whole", data=data)
    assert "generators are averaged (half-life 12 images, at most 0.5 of the images seen)" in capsys.readouterr().out
    half = complete({**config.to_dict(), "num_steps": 2})
    train(half, tmp_path / "halves", data=data)
    assert_equal_trees(train(config, tmp_path / "halves", data=data), whole)
    # An objective that is given is averaged too, and one that is averaged already not twice.
    for i, objective in enumerate((linear(config), make_objective(config))):
        assert_equal_trees(train(config, tmp_path / f"given_{i}", objective=objective, data=data), whole)

    state = jax.device_get(whole)
    (images,) = data.validation(3)
    expected = {
        name: np.asarray(linear(config).evaluate(shown, images, None)[0]["l1"]).mean()
        for name, shown in {"average": averaging.in_use(state), "raw": averaging.trained_alone(state)}.items()
    }
    assert float(rows_of(tmp_path / "whole")[-1]["eval/l1"]) == pytest.approx(expected["average"], rel=1e-6)
    assert abs(expected["average"] - expected["raw"]) > 1e-3

    without = complete({**config.to_dict(), "ema": {}})
    with pytest.raises(InputError, match=r"ema.half_life: stored 12.0, now 0.0\n  config.ema.ramp_up"):
        train(without, tmp_path / "whole", data=data)
    train(without, tmp_path / "without", data=data)
    with pytest.raises(InputError, match=r"config.ema.half_life: stored 0.0, now 12.0"):
        train(config, tmp_path / "without", data=data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A CycleGAN whose average has other weights than the run itself."""
    config = small_cyclegan_config(ema__decay=0.9, data__num_train=8, **SMALLEST)
    shapes = blank_state(make_objective(config), config)
    state = draw_state(shapes, seed=1)
    state["ema"] = draw_state(shapes["ema"], seed=2)
    return write_run(tmp_path_factory.mktemp("runs") / "run", config, state, 7), state


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "player"), [("AtoB", "gen_ab"), ("BtoA", "gen_ba")])
def test_a_translator_holds_the_average_and_nothing_else(run, direction, player):
    workdir, state = run
    averages, raw = (Translator.from_workdir(workdir, direction=direction, raw=raw) for raw in (False, True))
    assert (averages.weights, raw.weights) == ("average", "raw")
    for translator, held in ((averages, state["ema"]), (raw, state)):
        wanted = jax.tree.leaves(held["params"][player])
        assert translator.num_parameters == sum(x.size for x in wanted)
        assert translator.checkpoint_id == digest(wanted)
        assert_equal_trees(list(translator._kept), wanted)
    images = np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3), np.uint8)
    assert np.abs(averages(images).astype(int) - raw(images)).mean() > 5
    given = Translator.from_workdir(workdir, direction=direction, objective=p2p_jax.cyclegan(averages.config))
    np.testing.assert_array_equal(given(images), averages(images))


@pytest.mark.slow
def test_a_run_without_an_average_has_raw_weights(cyclegan_run):
    ids = {Translator.from_workdir(cyclegan_run, raw=raw).checkpoint_id for raw in (False, True)}
    assert len(ids) == 1 and open_run(cyclegan_run).weights == "raw"


@pytest.mark.slow
def test_commands_say_which_weights(run, tmp_path, capsys):
    workdir, _ = run
    Path(tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "image.npy", np.random.RandomState(0).randint(0, 256, (16, 16, 3), np.uint8))
    pictures = {}
    for flags, told in (((), "step 7, average of the weights, AtoB"), (("--raw",), "step 7, raw weights, AtoB")):
        assert translate_files(workdir, tmp_path / "in", tmp_path / f"out{len(flags)}", *flags) == 0
        assert told in capsys.readouterr().out
        pictures[flags] = np.load(tmp_path / f"out{len(flags)}" / "image.npy")
        translator = Translator.from_workdir(workdir, raw=bool(flags))
        np.testing.assert_array_equal(pictures[flags], translator(np.load(tmp_path / "in" / "image.npy")))
    assert not np.array_equal(*pictures.values())


@pytest.mark.slow
def test_evaluations_say_which_weights(run):
    workdir, _ = run
    found = {}
    for flags, name in (((), "val_7"), (("--raw",), "val_7_raw")):
        assert run_command(evaluate_command, workdir, *flags) == 0
        found[name] = json.loads((workdir / "evaluation" / name / "results.json").read_text())
    assert [results["weights"] for results in found.values()] == ["average", "raw"]
    assert "<dt>Weights</dt><dd>average" in (workdir / "evaluation" / "val_7" / "report.html").read_text()
    means = [results["metrics"]["cycle"]["mean"] for results in found.values()]
    assert abs(means[0] - means[1]) > 1e-3 and found["val_7"]["num_parameters"] == found["val_7_raw"]["num_parameters"]


@pytest.mark.slow
def test_an_export_has_the_average(run, tmp_path):
    workdir, _ = run
    told = {raw: export(workdir, "stablehlo", tmp_path / f"{raw}", raw=raw).metadata for raw in (False, True)}
    assert [told[raw]["weights"] for raw in (False, True)] == ["average", "raw"]
    ids = [Translator.from_workdir(workdir, raw=raw).checkpoint_id for raw in (False, True)]
    assert [told[raw]["checkpoint_id"] for raw in (False, True)] == ids and len(set(ids)) == 2


def test_a_file_of_pytorch_has_the_average(tmp_path):
    torch = pytest.importorskip("torch")
    from p2p_jax.interop import write_torch

    config = small_config(ema__decay=0.9)
    shapes = blank_state(make_objective(config), config)
    state = draw_state(shapes, seed=1)
    state["ema"] = draw_state(shapes["ema"], seed=2)
    workdir = write_run(tmp_path / "run", config, state, 7)
    for raw, held in ((False, state["ema"]), (True, state)):
        generator, judge = (torch.load(x.path) for x in write_torch(open_run(workdir, raw=raw), tmp_path / f"{raw}"))
        first = next(x for name, x in generator.items() if name.endswith("weight"))
        kernel = held["params"]["generator"]["down_1"]["kernel"]
        np.testing.assert_array_equal(first.numpy(), kernel.transpose(3, 2, 0, 1))
        means = [x.numpy() for name, x in generator.items() if name.endswith("running_mean")]
        mean = held["batch_stats"]["generator"]["down_2_norm"]["mean"]
        assert any(x.shape == mean.shape and np.array_equal(x, mean) for x in means)
        kernel = state["params"]["discriminator"]["conv_1"]["kernel"]
        np.testing.assert_array_equal(next(iter(judge.values())).numpy(), kernel.transpose(3, 2, 0, 1))


@pytest.mark.parametrize("averages", [True, False])
def test_fine_tuning_takes_the_average_and_begins_its_own_there(run, averages, tmp_path, capsys):
    workdir, source = run
    ema = {"ema__decay": 0.99} if averages else {}
    config = small_cyclegan_config(seed=5, init_from=str(workdir), **ema, **SMALLEST)
    fresh = jax.jit(make_objective(config).init)(jax.random.key(5), random_batch(config, size=1))
    state = take_weights(find_source(str(workdir), tmp_path / "new"), fresh, config)
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    for player in ("gen_ab", "gen_ba"):
        assert_equal_trees(state["params"][player], source["ema"]["params"][player])
    assert_equal_trees(state["params"]["disc_a"], source["params"]["disc_a"])
    assert "generators as averaged there: gen_ab" in capsys.readouterr().out
    assert ("ema" in state) == averages
    if averages:
        assert_equal_trees(state["ema"]["params"], {name: state["params"][name] for name in ("gen_ab", "gen_ba")})


@pytest.mark.slow
def test_fine_tuning_from_a_run_without_an_average(cyclegan_run, tmp_path, capsys):
    config = small_cyclegan_config(seed=5, init_from=str(cyclegan_run), ema__decay=0.99)
    fresh = jax.jit(make_objective(config).init)(jax.random.key(5), random_batch(config, size=1))
    state = take_weights(find_source(str(cyclegan_run), tmp_path / "new"), fresh, config)
    assert_equal_trees(state["ema"]["params"]["gen_ab"], state["params"]["gen_ab"])
    assert not np.array_equal(*(x["ema"]["params"]["gen_ab"]["stem"]["kernel"] for x in (state, fresh)))
    assert "as averaged" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ema__decay": 0.9, "ema__half_life": 10}, "ema.decay=0.9 and config.ema.half_life=10 both say"),
        (
            {"ema__ramp_up": 0.05},
            "ema.ramp_up=0.05 needs a moving average: set config.ema.half_life or config.ema.decay",
        ),
        ({"ema__decay": 1.0}, r"config.ema.decay is 1.0; it must be a number in \[0, 1\)"),
        ({"ema__half_life": -1}, "config.ema.half_life is -1; it must be a number of at least 0"),
        ({"ema__halflife": 1}, "unknown option config.ema.halflife; did you mean ema.half_life"),
    ],
)
def test_senseless_averages_are_refused(changes, told):
    with pytest.raises(InputError, match=told):
        small_config(**changes)


@pytest.mark.parametrize("state", [{"step": 0, "params": {"net": {}}}, {"step": 0}, (0,)])
def test_an_objective_without_generators_cannot_be_averaged(state):
    objective = Objective(lambda rng, batch: state, *3 * [lambda state, batch, rng: ({}, {})])
    config = linear_config(ema__decay=0.9)
    with pytest.raises(InputError, match='players whose names begin with "gen"'):
        averaged(objective, config).init(None, None)
    assert averaged(objective, linear_config()) is objective


def test_two_averages_do_not_mix():
    config = linear_config(ema__decay=0.9)
    given = make_objective(config)
    assert averaged(given, config) is given
    assert {function.__module__ for function in given} == {"support.networks"}  # whose source a run keeps
    for other in (linear_config(ema__decay=0.99), linear_config()):
        with pytest.raises(InputError, match="the objective averages its generators by .*'decay': 0.9"):
            averaged(given, other)
    base = linear(config)
    own = base._replace(init=lambda rng, batch: base.init(rng, batch) | {"ema": jnp.zeros(3)})
    with pytest.raises(InputError, match='has its own entry "ema"'):
        averaged(own, config).init(jax.random.key(0), random_batch(config))


@pytest.mark.parametrize(
    ("changes", "share"),
    [({"half_life": 8_000}, "50%"), ({"half_life": 8_000, "ramp_up": 0.05}, None), ({"half_life": 800}, None)],
)
def test_first_weights_that_would_last_are_told(changes, share):
    config = linear_config(num_steps=2_000, **{f"ema__{name}": value for name, value in changes.items()})
    notes = averaging.notes(config)
    assert len(notes) == 1 + bool(share)
    assert share is None or f"at the end {share} of the average would still be the initial" in notes[1]
    assert averaging.notes(linear_config()) == []
