"""Terms and distances from outside, in both objectives, and the perceptual distance in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.config import complete, complete_experiment, from_json, load, override, resolve, to_json
from p2p_jax.config.stored import references
from p2p_jax.errors import InputError
from p2p_jax.objectives import losses
from p2p_jax.training import parallel
from support.configs import SGD, small_config, small_cyclegan_config
from support.images import random_batch
from support.networks import PIXEL_GAN, TINY
from support.terms import brightness, charbonnier, edges

tiny_config = partial(small_config, generator=TINY, discriminator=PIXEL_GAN, optimizer=SGD)
tiny_cyclegan_config = partial(small_cyclegan_config, generator=TINY, discriminator=PIXEL_GAN, optimizer=SGD)


def run_update(config, batch=None):
    """Return the state before and after one update, the metrics, and what the generators made before."""
    objective = resolve(config.objective)(config)
    batch = batch or random_batch(config)
    state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))
    new, metrics, _ = parallel.pmap_update(objective.update)(state, batch, jax.random.key(1))
    fakes = jax.jit(objective.translate)(state, batch, jax.random.key(2))
    return state, new, {name: float(value) for name, value in metrics.items()}, fakes


@pytest.mark.slow
def test_terms_are_called_with_fake_real_and_batch():
    batch = random_batch(tiny_config())
    terms = {"loss__terms": "support.terms:charbonnier=3, support.terms:brightness=0.5"}
    _, _, found, fakes = run_update(tiny_config(**terms), batch)
    fake, real = fakes["fake_b"], batch["real_b"]
    assert found["gen/charbonnier"] == pytest.approx(float(charbonnier(fake, real, batch)), rel=1e-4)
    assert found["gen/brightness"] == pytest.approx(float(brightness(fake, real, batch)), rel=1e-4)
    total = 100 * found["gen/l1"] + found["gen/gan"] + 3 * found["gen/charbonnier"] + 0.5 * found["gen/brightness"]
    assert found["gen/total"] == pytest.approx(total, rel=1e-5)


def test_a_term_may_have_a_parameter_and_another_value_of_it_a_name():
    batch = random_batch(tiny_config())
    terms = {"loss__terms": "support.terms:powered=1, support.terms:squared=1"}
    _, _, found, fakes = run_update(tiny_config(**terms), batch)
    error = np.abs(fakes["fake_b"] - batch["real_b"])
    assert found["gen/powered"] == pytest.approx(float(error.mean()), rel=1e-4) == found["gen/l1"]
    assert found["gen/squared"] == pytest.approx(float(np.square(error).mean()), rel=1e-4)


def test_a_term_takes_the_place_of_l1():
    """The same weight on the same function moves the generator as the built-in one does."""
    state, built_in, _, _ = run_update(tiny_config(loss__lambda_gan=0.0))
    _, own, found, _ = run_update(
        tiny_config(loss__lambda_gan=0.0, loss__lambda_l1=0.0, loss__terms="support.terms:mean_absolute=100")
    )
    for new, same in zip(*(jax.tree.leaves(x["params"]) for x in (built_in, own)), strict=True):
        np.testing.assert_allclose(same, new, atol=1e-6)
    assert max(map(np.max, map(np.abs, jax.tree.leaves(jax.tree.map(np.subtract, built_in, state)["params"])))) > 1e-5
    assert found["gen/total"] == pytest.approx(100 * found["gen/mean_absolute"], rel=1e-6)


@pytest.mark.slow
def test_another_distance():
    _, _, plain, _ = run_update(tiny_config())
    _, _, tenfold, _ = run_update(tiny_config(loss__distance="support.terms:tenfold"))
    assert tenfold["gen/distance"] == pytest.approx(10 * plain["gen/l1"], rel=1e-5)
    assert "gen/l1" not in tenfold
    _, _, squares, fakes = run_update(tiny_config(loss__distance="l2"))
    expected = np.square(fakes["fake_b"] - random_batch(tiny_config())["real_b"]).mean()
    assert squares["gen/distance"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_cyclegan_has_terms_for_each_translation_and_distances_for_each_cycle():
    batch = random_batch(tiny_cyclegan_config())
    given = {"loss__terms": "support.terms:brightness=2", "loss__distance": "support.terms:tenfold"}
    _, _, plain, _ = run_update(tiny_cyclegan_config(), batch)
    _, _, found, fakes = run_update(tiny_cyclegan_config(**given), batch)
    turned = {"real_a": batch["real_b"], "real_b": batch["real_a"]}
    for way, fake, its_batch in (("ab", "fake_b", batch), ("ba", "fake_a", turned)):
        expected = float(brightness(fakes[fake], its_batch["real_b"], its_batch))
        assert found[f"gen/brightness_{way}"] == pytest.approx(expected, rel=1e-3)
    for name in ("cycle_a", "cycle_b", "identity_a", "identity_b"):
        assert found[f"gen/{name}"] == pytest.approx(10 * plain[f"gen/{name}"], rel=1e-5)
    more = sum(2 * found[f"gen/brightness_{way}"] for way in ("ab", "ba"))
    weights = {"cycle_a": 10, "cycle_b": 10, "identity_a": 5, "identity_b": 5}
    total = found["gen/gan_ab"] + found["gen/gan_ba"] + sum(w * found[f"gen/{name}"] for name, w in weights.items())
    assert found["gen/total"] == pytest.approx(total + more, rel=1e-5)


@pytest.mark.slow
def test_perceptual_distance_in_closed_form():
    """Features of unit length at each pixel; squared differences summed over channels, averaged over pixels."""
    x, y = (jax.random.uniform(jax.random.key(i), (2, 5, 6, 3), minval=-1.0) for i in range(2))
    expected = 0.0
    for a, b in zip(edges(np.asarray(x, np.float64)), edges(np.asarray(y, np.float64)), strict=True):
        a, b = (z / np.sqrt(np.square(z).sum(-1, keepdims=True)) for z in (a, b))
        expected += np.square(a - b).sum(-1).mean()
    distance = losses.perceptual(edges)
    assert float(distance(x, y)) == pytest.approx(expected, rel=1e-4)
    assert float(distance(x, x, "a batch")) == 0
    slope = jax.grad(lambda z: distance(z, y))(jnp.zeros_like(x))  # where features are 0
    assert np.isfinite(slope).all()


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_config, tiny_cyclegan_config], ids=["pix2pix", "cyclegan"])
def test_perceptual_terms_count(make):
    given = {"loss__perceptual": "support.terms:edges", "loss__lambda_perceptual": 7.0}
    _, _, plain, _ = run_update(make())
    _, _, found, _ = run_update(make(**given))
    names = [name for name in found if "perceptual" in name]
    assert names == (["gen/perceptual"] if make is tiny_config else ["gen/perceptual_a", "gen/perceptual_b"])
    more = 7 * sum(found[name] for name in names)
    assert found["gen/total"] - plain["gen/total"] == pytest.approx(more, rel=1e-3)
    assert more > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss__terms": "support.terms:nothing=1"}, "config.loss.terms: .*has no 'nothing'"),
        ({"loss__terms": "support.terms:edges"}, "the weight of support.terms:edges is ''; write module:name=10"),
        ({"loss__terms": "support.terms:edges=much"}, "the weight of support.terms:edges is 'much'"),
        ({"loss__terms": "support.terms:edges=inf"}, "the weight of support.terms:edges is 'inf', not a finite"),
        ({"loss__terms": "l1=1"}, "config.loss.terms has 'l1'; choose 'module:name' of a function"),
        ({"loss__terms": 3}, "must map 'module:name' to weights"),
        (
            {"loss__terms": "support.terms:edges=1,support.networks:linear=1,support.terms:edges=2"},
            "names .*edges twice",
        ),
        ({"loss__distance": "l3"}, "config.loss.distance has 'l3'; choose one of l1, l2 or 'module:name'"),
        (
            {"loss__distance": "support.networks:TINY"},
            "support.networks:TINY is a .*, not a function",
        ),
        ({"loss__lambda_perceptual": 1.0}, "needs features: set config.loss.perceptual"),
    ],
)
def test_what_cannot_be_a_term_is_named(options, message):
    config = tiny_config(**options)
    with pytest.raises(InputError, match=message):
        resolve(config.objective)(config)


def test_one_map_of_features_is_no_list_of_images():
    """The mean over the batch, not the sum, where a function returns its map as it is."""
    x, y = (jnp.asarray(np.random.RandomState(i).normal(size=(3, 4, 4, 2))) for i in range(2))
    one, listed = losses.perceptual(lambda images: images), losses.perceptual(lambda images: [images])
    np.testing.assert_array_equal(one(x, y), listed(x, y))
    for found, shown in (([], "none"), (None, "none"), ([x[0]], r"\[4, 4, 2\]")):
        with pytest.raises(InputError, match=rf"needs one or more feature maps \[B, h, w, c\], not {shown}"):
            losses.perceptual(lambda images, found=found: found)(x, y)


def test_terms_alone_are_a_loss():
    for objective, off in (("cyclegan", "lambda_cycle"), ("cut", "lambda_nce")):
        given = {"objective": f"p2p_jax:{objective}", "loss": {"lambda_gan": 0.0, off: 0.0}}
        config = tiny_cyclegan_config(**given)
        with pytest.raises(InputError, match="so the generators? ha(s|ve) no loss"):
            resolve(config.objective)(config)
        _, _, found, _ = run_update(tiny_cyclegan_config(**given, loss__terms="support.terms:brightness=2,"))
        values = [value for name, value in found.items() if "brightness" in name]
        assert found["gen/total"] == pytest.approx(2 * sum(values), rel=1e-5)
        assert found["gen/total"] > 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("terms=support.terms:edges=1", r"config.loss.terms: support.terms:edges must take \(fake, real, batch\), but"),
        ("distance=support.terms:charbonnier", r"distance: support.terms:charbonnier must take \(x, y\), but missing"),
        ("perceptual=support.terms:charbonnier", r"perceptual: support.terms:charbonnier must take \(images\), but"),
    ],
)
def test_arguments_are_looked_at_before_anything_is_trained(option, message):
    name, _, value = option.partition("=")
    config = tiny_config(**{f"loss__{name}": value, "loss__lambda_perceptual": float(name == "perceptual")})
    with pytest.raises(InputError, match=message):
        resolve(config.objective)(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss__distance": "jax.numpy:subtract"}, "config.loss.distance=jax.numpy:subtract must return a scalar, not"),
        ({"loss__terms": "support.terms:gan=1"}, "config.loss.terms: the objective already has a metric gen/gan"),
        ({"loss__terms": "support.terms:total=1"}, "config.loss.terms: the objective already has a metric gen/total"),
    ],
)
def test_what_is_found_when_a_term_is_called(options, message):
    with pytest.raises(InputError, match=message):
        run_update(tiny_config(**options))


def test_a_term_must_be_one_number():
    config = tiny_config(loss__terms="support.terms:no_scalar=1")
    with pytest.raises(InputError, match=r"no_scalar must return a scalar, not \(2,\)"):
        run_update(config)


def test_own_terms_are_code_that_a_stored_config_names():
    """Written either way; a stranger's config must not run them unseen."""
    for terms in ({"my_lab:charbonnier": 10.0}, "my_lab:charbonnier=10", "p2p_jax.nets:UNet=1 ,my_lab:charbonnier=2"):
        found = references({"loss": {"terms": terms}})
        assert "my_lab:charbonnier" in {name for names in found.values() for name in names}


def test_terms_may_be_a_mapping_in_a_config_file():
    """Assigned to a config as one writes it; a stored config has it as text, in which modules may have dots."""
    config = load("quickstart")
    config.loss.terms = {"my_lab:charbonnier": 10.0, "my_lab:edges": 1}
    assert complete(config).loss.terms == "my_lab:charbonnier=10.0,my_lab:edges=1"
    given = complete_experiment({"loss": {"terms": {"support.terms:charbonnier": 2.5}}})
    assert given.loss.terms == "support.terms:charbonnier=2.5"
    assert from_json(to_json(given)) == given
    changed = override(given, ["--config.loss.terms=support.terms:brightness=3"])
    assert changed.loss.terms == "support.terms:brightness=3"
