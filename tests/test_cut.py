"""CUT and FastCUT: the contract, the contrast in closed form, features, mirrored steps, and what runs are used for."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import p2p_jax
from p2p_jax import Translator, nets, published
from p2p_jax.config import complete, complete_experiment
from p2p_jax.errors import InputError
from p2p_jax.objectives import blank_batch, patch_nce
from p2p_jax.testing import check_objective
from p2p_jax.training import parallel
from p2p_jax.training.fine_tuning import find_source, take_weights
from support.comparers import assert_close_trees, assert_equal_trees
from support.configs import SGD, small_cut_config
from support.images import random_batch
from support.networks import PIXEL_GAN, POINTWISE, TINY, Pointwise
from support.runs import memory_data
from support.tracing import equations

FAST = {"loss__identity": False, "loss__flip_equivariance": True, "loss__lambda_nce": 10.0}
ALL = {"loss__num_patches": 1000}  # places: what is drawn does not matter then
TINY_LAYERS = {"generator": TINY, "discriminator": PIXEL_GAN, "loss__layers": "input,first,norm"}
tiny_config = partial(small_cut_config, **TINY_LAYERS)  # losses know no layers
VARIANTS = {
    "as published": ({"generator__downsampling": "antialiased", "generator__upsampling": "antialiased"}, True),
    "FastCUT, synchronised batch norm": (
        {**TINY_LAYERS, "generator__norm": "batch", "discriminator__norm": "batch", "sync_batch_norm": True, **FAST},
        True,
    ),
    "U-Net with dropout, vanilla, R1, bfloat16": (
        {
            "generator": {"network": "p2p_jax.nets:UNet", "num_downs": 2, "base_width": 4},
            "inference__dropout": True,
            "loss__gan": "vanilla",
            "loss__r1_gamma": 1.0,
            "dtype": "bfloat16",
        },
        True,
    ),
    "gray, resized, zeros, remat, batch norm": (
        {
            "data__input__channels": 1,
            "data__output__channels": 1,
            "generator__upsampling": "resize",
            "generator__padding": "zero",
            "generator__norm": "batch",
            "generator__remat": True,
        },
        False,
    ),
    "contrast alone, on pairs": ({"loss__lambda_gan": 0.0, "data__source": "toy_facades"}, False),
    "game alone, gray to colour": (
        {"data__input__channels": 1, "loss__lambda_nce": 0.0, "loss__layers": "none", "best_metric": "none"},
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_contract(variant):
    changes, run = VARIANTS[variant]
    config = small_cut_config(**changes)
    check_objective(p2p_jax.cut(config), config, run=run)


def run_update(config, batch=None, seed=1, devices=None):
    """Return the state before, the state after, and the metrics of one update."""
    objective = p2p_jax.cut(config)
    batch = batch or random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    return state, *parallel.pmap_update(objective.update, devices)(state, batch, jax.random.key(seed))[:2]


@pytest.mark.parametrize("make", [published.cut, published.fast_cut])
def test_published_parameter_counts(make):
    config = make()
    init = p2p_jax.cut(config).init
    params = jax.eval_shape(init, jax.random.key(0), blank_batch(complete(config)))["params"]
    counts = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}
    assert counts == {"gen_ab": 11_378_179, "head": 560_384, "disc_b": 2_764_737}


def test_fast_cut_is_what_a_mirrored_cut_is_compared_with():
    for make, flips in ((published.cut, False), (published.fast_cut, True)):
        config = complete_experiment(make())
        assert config.loss.flip_equivariance == flips
        assert published.base_of(config) == make()
        assert published.describe(config, changed_only=True) == []
    assert published.base_of({"objective": "p2p_jax:cut"}) == published.cut()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "terms", "players"),
    [
        ({}, {"disc/fake", "disc/real", "gen/gan", "gen/nce", "gen/nce_identity"}, {"gen_ab", "head", "disc_b"}),
        ({"loss__lambda_gan": 0.0, **FAST}, {"gen/nce"}, {"gen_ab", "head"}),
        ({"loss__lambda_nce": 0.0}, {"disc/fake", "disc/real", "gen/gan"}, {"gen_ab", "disc_b"}),
    ],
)
def test_terms_make_the_total_and_all_players_move(changes, terms, players):
    config = tiny_config(**changes)
    state, new, metrics = run_update(config)
    assert metrics.keys() == terms | {"gen/total", "lr"}
    contrasts = [float(metrics[name]) for name in terms if "nce" in name]
    total = config.loss.get("lambda_nce", 1.0) * np.mean(contrasts) if contrasts else 0
    assert float(metrics["gen/total"]) == pytest.approx(total + float(metrics.get("gen/gan", 0)), rel=1e-5)
    assert state["params"].keys() == state["opt_state"].keys() == players
    for name in players:
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), state["params"][name], jax.device_get(new)["params"][name]
        )
        assert max(jax.tree.leaves(moved)) > 1e-5, f"{name} did not move"


def unit_vectors(*shape, seed=0):
    vectors = np.random.RandomState(seed).standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_contrast_is_a_cross_entropy_over_the_places_of_an_image():
    queries, keys, temperature = unit_vectors(2, 7, 5), unit_vectors(2, 7, 5, seed=1), 0.07
    expected = []
    for query, key in zip(queries, keys, strict=True):
        likeness = query @ key.T / temperature
        expected.append(np.mean(logsumexp(likeness, axis=1) - np.diag(likeness)))
    found = patch_nce.contrast([queries], [keys], temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    twice = patch_nce.contrast([queries, queries], [keys, queries], temperature)
    own = patch_nce.contrast([queries], [queries], temperature)
    np.testing.assert_allclose(twice, (found + own) / 2, rtol=1e-5)


@pytest.mark.slow
def test_contrast_in_closed_form():
    """All patches alike: log N. Each like its own alone: log(1 + (N - 1) exp(-1 / T)). Turned away: 1 / T more."""
    same = np.broadcast_to(unit_vectors(1, 1, 6), (3, 10, 6))
    np.testing.assert_allclose(patch_nce.contrast([same], [same], 0.07), np.log(10), rtol=1e-5)
    own = np.eye(10, dtype=np.float32)[None]
    for temperature in (0.07, 1.0):
        found = patch_nce.contrast([own], [own], temperature)
        np.testing.assert_allclose(found, np.log1p(9 * np.exp(-1 / temperature)), atol=1e-6)
    shifted = np.roll(own, 1, axis=1)
    np.testing.assert_allclose(
        patch_nce.contrast([shifted], [own], 0.07), 1 / 0.07 + np.log1p(9 * np.exp(-1 / 0.07)), rtol=1e-5
    )


@pytest.mark.slow
def test_keys_stand_still_and_unknown_places_do_not_count():
    queries, keys = (jnp.asarray(unit_vectors(2, 6, 4, seed=seed), jnp.float32) for seed in (0, 1))
    for_queries, for_keys = jax.grad(lambda q, k: patch_nce.contrast([q], [k], 0.5).sum(), (0, 1))(queries, keys)
    assert np.abs(for_queries).max() > 0.01 and np.abs(for_keys).max() == 0
    known = jnp.asarray([[1, 0, 1, 1, 0, 1], [1] * 6], jnp.float32)[..., None]
    found, grads = jax.value_and_grad(lambda q: patch_nce.contrast([q], [keys], 0.5, [known]).sum(), has_aux=False)(
        queries
    )
    kept = [known[i, :, 0] > 0 for i in range(2)]
    alone = [patch_nce.contrast([queries[i : i + 1, k]], [keys[i : i + 1, k]], 0.5)[0] for i, k in enumerate(kept)]
    assert float(found) == pytest.approx(float(sum(alone)), rel=1e-5)
    assert np.abs(grads[0][~kept[0]]).max() == 0 and np.isfinite(grads).all()
    nothing = patch_nce.contrast([queries], [keys], 0.5, [0 * known])
    np.testing.assert_array_equal(nothing, 0)


def test_vectors_of_length_1_and_zeros_without_nan():
    vectors = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]])
    found, pull_back = jax.vjp(patch_nce.unit, vectors)
    np.testing.assert_allclose(found, [[3 / (5 + 1e-7), 4 / (5 + 1e-7)], [0, 0], [1e-3 / (1e-3 + 1e-7), 0]], rtol=1e-6)
    (grads,) = pull_back(jnp.ones_like(found))
    assert np.isfinite(grads).all() and np.abs(grads[1]).max() == 0
    half = patch_nce.unit(vectors.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32


def test_places_are_drawn_without_return_for_all_images_alike():
    maps = [jnp.arange(2 * 5 * 6 * 1.0).reshape(2, 5, 6, 1), jnp.zeros((2, 2, 3, 4))]
    places = patch_nce.draw_places(jax.random.key(0), maps, 20)
    assert [len(set(np.asarray(x).tolist())) for x in places] == [20, 6]
    assert np.asarray(places[0]).max() >= 20  # of the whole map
    other = patch_nce.draw_places(jax.random.key(1), maps, 20)
    assert set(np.asarray(other[0]).tolist()) != set(np.asarray(places[0]).tolist())
    taken = patch_nce.take(maps, places)[0]
    np.testing.assert_array_equal(taken[0, :, 0], places[0])  # rows of the map one after the other
    np.testing.assert_array_equal(taken[1, :, 0], 30 + places[0])


def features_of(network, layers, images):
    encoder = patch_nce.Encoder(network, layers)
    variables = network.init(jax.random.key(0), images, train=False)
    whole = jax.jit(lambda v, x: encoder.translate(v, x, update_stats=False, train=True))(variables, images)
    return variables, whole, jax.jit(lambda v, x: encoder.encode(v, x, train=True))(variables, images)


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_features_are_those_of_the_published_places(remat):
    """The padded image; convolutions without norm and activation, the first at the full side; sums of blocks."""
    network = nets.ResNet(num_blocks=6, base_width=2, downsampling="antialiased", remat=remat)
    assert network.feature_layers == ("padded", "down_1", "down_2", "block_1", "block_5")
    assert nets.ResNet().feature_layers == network.feature_layers
    assert nets.ResNet(num_blocks=3, padding="zero").feature_layers == (
        "input",
        "down_1",
        "down_2",
        "block_1",
        "block_3",
    )
    images = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 16, 24, 3)), jnp.float32)
    variables, (_, maps, _), encoded = features_of(network, network.feature_layers, images)
    assert [x.shape[1:] for x in maps] == [(22, 30, 3), (16, 24, 4), (8, 12, 8), (4, 6, 8), (4, 6, 8)]
    np.testing.assert_array_equal(maps[0][:, 3:-3, 3:-3], images)
    np.testing.assert_array_equal(maps[0][0, :, 0], maps[0][0, :, 6])
    params = variables["params"]
    alone = nets.layers.Conv(8, 3, 1, 1).apply({"params": params["down_2"]}, halved(maps[1]))
    np.testing.assert_allclose(maps[2], alone, atol=1e-5)
    for a, b in zip(maps, encoded, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def halved(x):
    """Return what follows the first downsampling convolution: instance norm, ReLU and the filter."""
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return nets.resampling.blur_downsample(jax.nn.relu((x - mean) / jnp.sqrt(var + 1e-5)))


@pytest.mark.parametrize(
    ("network", "layers", "count"),
    [
        (nets.ResNet(num_blocks=6, base_width=2), None, 3 + 2 * 5),
        (nets.MobileResNet(num_blocks=3, base_width=2, remat=True), ("input", "stem", "block_2"), None),
        (nets.ResNet(num_blocks=2, base_width=2), ("down_1",), 3),
        (nets.UNet(num_downs=4, base_width=2), None, 3),
        (nets.UNet(num_downs=4, base_width=2, remat=True), ("down_2",), 2),
        (nets.UNetViT(num_downs=2, base_width=2, width=4, num_heads=2, embed_width=4), None, 1 + 2 * 3),
        (nets.UNetViT(num_downs=2, base_width=2, width=4, num_heads=2), ("input", "transformer"), 1 + 2 * 3),
    ],
)
def test_nothing_behind_the_last_layer_is_computed(network, layers, count):
    layers = layers or network.feature_layers
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(partial(network.init, train=False), jax.random.key(0), images)
    encoder = patch_nce.Encoder(network, layers)

    def convolutions(function):
        traced = jax.make_jaxpr(function)(variables, images).jaxpr
        return sum(equation.primitive.name == "conv_general_dilated" for equation in equations(traced))

    encoding = convolutions(lambda v, x: encoder.encode(v, x, train=True, dropout=False))
    whole = convolutions(lambda v, x: encoder.translate(v, x, update_stats=False, train=True, dropout=False))
    assert encoding < whole
    assert count is None or encoding == count


def mirrored_metrics(config, batch):
    """Return the metrics of two updates, of which one mirrors its images, by whether it does."""
    found = {}
    for seed in range(20):
        flipped = bool(jax.random.bernoulli(jax.random.split(jax.random.fold_in(jax.random.key(seed), 0), 8)[3]))
        if flipped not in found:
            found[flipped] = run_update(config, batch, seed, jax.devices()[:1])[2]
    return found


def likeness_of_input(fake, real, batch):
    """A loss term, named by a config below."""
    return jnp.square(fake - batch["real_a"]).mean()


@pytest.mark.slow
def test_mirrored_steps_are_those_of_mirrored_images():
    """A generator that sees one pixel makes the mirror image of what it made, and all is compared in its place."""
    config = small_cut_config(
        generator=POINTWISE,
        discriminator=PIXEL_GAN,
        loss__layers="input,mix",
        loss__terms="test_cut:likeness_of_input=1",
        **ALL,
        **FAST,
    )
    batch = random_batch(config)
    found = mirrored_metrics(config, batch)
    assert found.keys() == {True, False}
    for name, value in found[False].items():
        assert float(found[True][name]) == pytest.approx(float(value), rel=1e-4), name
    other = dict(config.loss) | {"flip_equivariance": False}
    plain = run_update(complete({**config.to_dict(), "loss": other}), batch, 0, jax.devices()[:1])[2]
    assert float(plain["gen/nce"]) == pytest.approx(float(found[False]["gen/nce"]), rel=1e-4)


@pytest.mark.slow
def test_generators_that_see_left_and_right_tell_the_difference():
    config = tiny_config(**ALL, **FAST)
    found = mirrored_metrics(config, random_batch(config))
    assert abs(float(found[True]["gen/nce"]) - float(found[False]["gen/nce"])) > 1e-4


@pytest.mark.slow
def test_two_devices_do_what_one_does_with_the_whole_batch():
    """With all places nothing is left to chance; SGD, as Adam hides scales."""
    config = tiny_config(optimizer=SGD, **ALL)
    state, one, metrics = run_update(config, devices=jax.devices()[:1])
    _, two, other = run_update(config, devices=jax.devices()[:2])
    for name, value in metrics.items():
        assert float(other[name]) == pytest.approx(float(value), rel=1e-4), name
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), jax.device_get(one)["params"], state["params"])
    assert max(jax.tree.leaves(moved)) > 1e-3
    assert_close_trees(two["params"], one["params"], atol=1e-3 * max(jax.tree.leaves(moved)))


@pytest.mark.slow
def test_running_statistics_are_those_of_translations_of_a():
    """Neither B nor what the encoder sees besides moves them; mean of a convolution's bias and of its input's mean."""
    config = tiny_config(generator__norm="batch")
    batch = random_batch(config)
    _, usual, _ = run_update(config, batch)
    _, other, _ = run_update(config, batch | {"real_b": -batch["real_b"]})
    assert_equal_trees(other["batch_stats"]["gen_ab"], usual["batch_stats"]["gen_ab"])
    _, moved, _ = run_update(config, batch | {"real_a": -batch["real_a"]})
    means = [np.asarray(x["batch_stats"]["gen_ab"]["norm"]["mean"]) for x in (usual, moved)]
    assert np.abs(means[0] - means[1]).max() > 1e-3


UNKNOWN = {
    "data__input__kind": "float", "data__input__range": "-1:1", "data__input__nodata": "nan",
    "data__output__kind": "float", "data__output__range": "-1:1", "data__output__nodata": "nan",
}  # fmt: skip


@pytest.mark.slow
def test_what_is_unknown_does_not_count():
    """Images of which half is unknown are contrasted as their other halves alone would be."""
    config = small_cut_config(generator=POINTWISE, discriminator=PIXEL_GAN, loss__layers="input,mix", **ALL, **UNKNOWN)
    batch = random_batch(config)
    lost = {name: x.copy() for name, x in batch.items()}
    for x in lost.values():
        x[:, :, 8:, 0] = np.nan
    state, new, metrics = run_update(config, lost)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(new)))
    halves = run_update(config, {name: x[:, :, :8] for name, x in batch.items()})[2]
    for name in ("gen/nce", "gen/nce_identity"):
        assert float(metrics[name]) == pytest.approx(float(halves[name]), rel=1e-4), name
    found, columns = p2p_jax.cut(config).evaluate(state, lost, jax.random.key(0))
    assert np.isfinite(found["nce"]).all() and np.isfinite(found["identity_b"]).all()
    assert np.isnan(columns["fake B"][:, :, 8:]).all() and np.isfinite(columns["fake B"][:, :, :8]).all()


@pytest.mark.slow
def test_validation_in_closed_form():
    config = tiny_config(optimizer=SGD, **ALL)
    batch = random_batch(config)
    state, _, metrics = run_update(config, batch)
    evaluation = parallel.Evaluation(p2p_jax.cut(config).evaluate, 2)
    found, columns = evaluation(state, batch, jax.random.key(0))
    assert found["nce"].shape == (4,)
    assert float(found["nce"].mean()) == pytest.approx(float(metrics["gen/nce"]), rel=1e-4)
    assert list(columns) == ["real A", "fake B", "real B", "identity B"]
    difference = np.abs(columns["identity B"] - batch["real_b"]).mean((1, 2, 3)) / 2
    np.testing.assert_allclose(found["identity_b"], difference, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__input__channels": 1}, "make them equal"),
        ({"loss__lambda_gan": 0.0, "loss__lambda_nce": 0.0}, "no loss"),
        ({"loss__lambda_cycle": 1.0}, r"unknown option config.loss.lambda_cycle"),
        ({"loss__lambda_l1": 1.0}, r"unknown option config.loss.lambda_l1"),
        ({"loss__num_patches": 1}, "config.loss.num_patches is 1; it must be a whole number"),
        ({"loss__temperature": 0.0}, "config.loss.temperature is 0.0"),
        ({"loss__layers": ""}, "Tiny does not say which features"),
        ({"loss__layers": "first,,norm"}, "must be different layer names"),
        ({"loss__layers": "first,first"}, "must be different layer names"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        p2p_jax.cut(tiny_config(**changes))


class Larger(Pointwise):
    """A generator that doubles the sides; named by a config below."""

    def __call__(self, x, *, train, dropout=None):
        return super().__call__(x, train=train, dropout=dropout).repeat(2, 1).repeat(2, 2)


def test_images_of_another_size_are_not_compared():
    config = tiny_config(generator={"network": "test_cut:Larger"}, loss__layers="input,mix", loss__lambda_gan=0.0)
    with pytest.raises(InputError, match=r"Larger must return \[4, 16, 16, 3\] for .*, not \[4, 32, 32, 3\]"):
        run_update(config)


@pytest.mark.parametrize(
    ("generator", "layers", "message"),
    [
        (TINY, "input,second", "Tiny computes no second.*it has first, norm, Dropout_0, last"),
        ({"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4}, "block_1,down_1", "in the order"),
        ({"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4}, "down_1,block_2", "has stem, .*block_1"),
    ],
)
def test_layers_that_are_not_there_are_named_before_training(generator, layers, message):
    config = tiny_config(generator=generator, loss__layers=layers)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(p2p_jax.cut(config).init, jax.random.key(0), random_batch(config))


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory):
    """A run's directory; read it only."""
    workdir = tmp_path_factory.mktemp("runs") / "cut"
    config = small_cut_config(batch_size=2, **FAST)
    p2p_jax.train(config, workdir, data=memory_data(config))
    return workdir


@pytest.mark.slow
def test_runs_are_resumed_exactly(cut_run, tmp_path):
    config = small_cut_config(batch_size=2, **FAST)
    shutil.copytree(cut_run, tmp_path / "run")
    whole = p2p_jax.train(config, tmp_path / "run", data=memory_data(config))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")  # as if it had been killed before
    resumed = p2p_jax.train(config, tmp_path / "run", data=memory_data(config))
    assert int(resumed["step"]) == 4
    assert_equal_trees(resumed, whole)


@pytest.mark.slow
def test_runs_translate_one_way(cut_run, tmp_path):
    translator = Translator.from_workdir(cut_run)
    assert translator.directions == ("AtoB",)
    image = np.random.RandomState(0).randint(0, 256, (16, 20, 3), np.uint8)
    assert translator(image).shape == (16, 20, 3)
    with pytest.raises(InputError, match="direction=BtoA: this run was trained for only AtoB"):
        Translator.from_workdir(cut_run, direction="BtoA")
    # Head and discriminator are not among what is read.
    assert translator.num_parameters == sum(x.size for x in jax.tree.leaves(translator.run.shapes["params"]["gen_ab"]))


@pytest.mark.slow
def test_weights_go_from_objective_to_objective(cut_run, capsys):
    for make, player in ((p2p_jax.cyclegan, "gen_ab"), (p2p_jax.pix2pix, "generator")):
        config = small_cut_config(loss={}, objective=f"p2p_jax:{make.__name__}", data__source="toy_facades")
        state = jax.jit(make(config).init)(jax.random.key(5), random_batch(config))
        taken = take_weights(find_source(str(cut_run), cut_run / "new"), state, config)
        assert "not used: head" in capsys.readouterr().out
        source = Translator.from_workdir(cut_run).run
        kept, rebuild = source.restore(lambda s, *_: s["params"]["gen_ab"])
        assert_equal_trees(taken["params"][player], rebuild(kept)["params"]["gen_ab"])
    other = small_cut_config(generator__base_width=6)
    state = jax.jit(p2p_jax.cut(other).init)(jax.random.key(5), random_batch(other))
    with pytest.raises(InputError, match="none of its generator layers fit"):
        take_weights(find_source(str(cut_run), cut_run / "new"), state, other)
