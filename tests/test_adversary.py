"""The game of a discriminator: losses, penalties and their schedule in closed form, and in both objectives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from p2p_jax.config import complete_section, resolve
from p2p_jax.errors import InputError
from p2p_jax.nets import PatchGAN
from p2p_jax.objectives import adversary, losses
from p2p_jax.testing import check_objective
from support.comparers import assert_close_trees
from support.configs import SGD, small_config, small_cyclegan_config
from support.devices import assert_two_devices_equal_one
from support.networks import PIXEL_GAN, TINY
from support.terms import Linear, OfSquares

tiny_config = partial(small_config, generator=TINY, discriminator=PIXEL_GAN)
tiny_cyclegan_config = partial(small_cyclegan_config, generator=TINY, discriminator=PIXEL_GAN)
MAKERS = {"pix2pix": tiny_config, "cyclegan": tiny_cyclegan_config}
ALL = {  # every term at once
    "loss__gan": "relativistic",
    "loss__r1_gamma": 0.5,
    "loss__r2_gamma": 0.25,
    "loss__lambda_gp": 0.125,
    "loss__diff_augment": "color,translation,cutout",
    "loss__terms": "support.terms:charbonnier=2",
}


def softplus(x):
    return np.log1p(np.exp(np.asarray(x, np.float64)))


def make_game(network, real_first=True, **options):
    options = {"gan": "lsgan", **{option.name: option.default for option in adversary.OPTIONS}, **options}
    return adversary.make_adversary(network, ConfigDict(options), real_first=real_first)


def play(network, real, fake, condition=None, step=0, **options):
    """Return a discriminator's loss, the terms, its parameters and their gradients."""
    game = make_game(network, **options)
    seen = real if condition is None else jnp.concatenate([condition, real], -1)
    params = network.init(jax.random.key(3), seen, train=True)["params"]

    def loss_of(params):
        return game.discriminator_loss(params, {}, real, fake, condition, jax.random.key(0), jnp.int32(step))

    (total, (_, terms)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return float(total), {name: float(value) for name, value in terms.items()}, params, grads


def images(seed, shape=(2, 4, 4, 3)):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, ALL | {"loss__terms": ""}], ids=["published", "every term"])
def test_a_network_that_sees_images_alone_is_called_once(options, monkeypatch):
    """Of a discriminator's loss: with the same terms and gradients as where real and generated images are two calls.

    A class that is derived from it may mix images, and does not say.
    """

    class Derived(PatchGAN):
        pass

    options = {key.removeprefix("loss__"): value for key, value in options.items() if key != "loss__terms"}
    own = {"receptive_field": 16, "base_width": 4, "norm": "instance", "init_gain": 0.2}
    given = images(1, (2, 16, 16, 3)), images(2, (2, 16, 16, 3)), images(3, (2, 16, 16, 3))
    calls = []
    run = adversary.run_training
    monkeypatch.setattr(
        adversary, "run_training", lambda network, *given, **more: calls.append(network) or run(network, *given, **more)
    )
    found, expected = (play(network(**own), *given, **options) for network in (PatchGAN, Derived))
    assert_close_trees(found, expected, of_largest=1e-5, least=0.1)  # a bias before a norm has no gradient
    once, twice = (sum(isinstance(network, Derived) == is_twice for network in calls) for is_twice in (False, True))
    assert once == twice - 1


def test_hinge_in_closed_form():
    hinge, logits = losses.find("hinge"), jnp.array([-2.0, 0.5, 3.0])
    assert float(hinge.real(logits)) == pytest.approx((3 + 0.5 + 0) / 3)
    assert float(hinge.fake(logits)) == pytest.approx((0 + 1.5 + 4) / 3)
    assert float(hinge.generator(logits)) == pytest.approx(-0.5)


def test_relativistic_pairs_in_closed_form():
    """R3GAN: the discriminator minimises softplus(D(fake) - D(real)), the generator softplus(D(real) - D(fake))."""
    real, fake, condition = images(1), images(2), images(3, (2, 4, 4, 1))
    total, terms, params, _ = play(Linear(), real, fake, condition, gan="relativistic")
    weights = np.asarray(params["pixel"]["kernel"], np.float64)[:, 0]
    on_real, on_fake = (np.concatenate([condition, x], -1) @ weights for x in (real, fake))
    assert total == pytest.approx(softplus(on_fake - on_real).mean(), rel=1e-5)
    assert terms["real"] == pytest.approx(terms["fake"], rel=1e-5)
    game = make_game(Linear(), gan="relativistic")
    value, _ = game.generator_loss(params, {}, fake, real, condition, jax.random.key(0))
    assert float(value) == pytest.approx(softplus(on_real - on_fake).mean(), rel=1e-5)


@pytest.mark.parametrize(("option", "weight"), [("r1_gamma", 0.5), ("r2_gamma", 0.5), ("lambda_gp", 1.0)])
def test_slopes_of_a_linear_discriminator(option, weight):
    """The mean logit of HxW pixels has the slope w / HW; its square, summed over the picture, is |w|^2 / HW."""
    real, fake, condition = images(1), images(2), images(3, (2, 4, 4, 2))
    without = play(Linear(), real, fake, condition)
    total, terms, params, grads = play(Linear(), real, fake, condition, **{option: 3.0})
    of_picture = np.asarray(params["pixel"]["kernel"])[2:, 0]  # the condition comes first, and has no part in it
    slope = np.square(of_picture).sum() / 16
    name = option.removesuffix("_gamma").removeprefix("lambda_")
    assert terms[name] == pytest.approx(slope, rel=1e-5)
    assert total - without[0] == pytest.approx(3 * weight * slope, rel=1e-4)
    more = np.asarray(grads["pixel"]["kernel"] - without[3]["pixel"]["kernel"])[:, 0]
    np.testing.assert_allclose(more[2:], 3 * weight * 2 * of_picture / 16, atol=1e-6)
    np.testing.assert_allclose(more[:2], 0, atol=1e-6)


@pytest.mark.slow
def test_where_slopes_are_taken():
    """Half the sum of squares has the image itself as its slope: so a penalty tells at which image it was taken."""
    real, fake = images(1), images(2)
    _, terms, _, _ = play(OfSquares(), real, fake, r1_gamma=1.0, r2_gamma=1.0, lambda_gp=1.0)

    def at(image):
        return float(jnp.square(image / 16).sum((1, 2, 3)).mean())

    assert terms["r1"] == pytest.approx(at(real), rel=1e-5)
    assert terms["r2"] == pytest.approx(at(fake), rel=1e-5)
    mixtures = [at(share * real + (1 - share) * fake) for share in np.linspace(0, 1, 5001)]
    assert min(abs(terms["gp"] - found) for found in mixtures) < 1e-5  # one share for the whole batch
    assert terms["gp"] not in (terms["r1"], terms["r2"])


def test_lazy_penalties_count_as_many_times():
    """Over the steps of a period the mean is that of a penalty at every step; the steps between have none."""
    real, fake = images(1), images(2)
    without = play(Linear(), real, fake)[0]
    every = play(Linear(), real, fake, r1_gamma=3.0)[0] - without
    lazy = [play(Linear(), real, fake, step=step, r1_gamma=3.0, penalty_every=4) for step in range(4, 8)]
    assert [total - without for total, *_ in lazy] == pytest.approx([4 * every, 0, 0, 0], abs=1e-6)
    assert all(terms.keys() == {"real", "fake"} for _, terms, _, _ in lazy)  # a 0 that means "not now" would mislead


def test_several_maps_of_logits_count_as_their_mean():
    real, fake = images(1), images(2)
    for options in ({"gan": "hinge"}, {"gan": "relativistic", "r1_gamma": 1.0}):
        one, three = (play(Linear(scales=scales), real, fake, **options) for scales in (1, 3))
        assert three[0] == pytest.approx(one[0], rel=1e-6)
        assert three[1] == pytest.approx(one[1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_all_terms_at_once_keep_the_contract(kind):
    config = MAKERS[kind](**ALL)
    check_objective(resolve(config.objective)(config), config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"gan": "hinge", "penalty_every": 2, "r1_gamma": 1.0}, {"lambda_gp": 1.0, "diff_augment": "color"}],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("kind", MAKERS)
def test_bfloat16_and_lazy_penalties_trace(kind, options):
    config = MAKERS[kind](dtype="bfloat16", **{f"loss__{name}": value for name, value in options.items()})
    check_objective(resolve(config.objective)(config), config, run=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_two_devices_do_what_one_does_with_the_whole_batch(kind):
    """Without what is drawn device by device; SGD, as Adam hides scales."""
    terms = {"loss__r1_gamma": 30.0, "loss__r2_gamma": 20.0, "loss__gan": "relativistic"}
    config = MAKERS[kind](optimizer=SGD, **terms, **({"loss__pool_size": 0} if kind == "cyclegan" else {}))
    moved = assert_two_devices_equal_one(config)
    assert min(max(jax.tree.leaves(player)) for player in moved.values()) > 1e-5


def test_the_discriminator_sees_condition_and_picture_shifted_alike():
    """Where the condition is the picture, the discriminator that sees their difference sees nothing but zeros."""
    seen = []

    class Recorder(Linear):
        def __call__(self, x, *, train):
            seen.append(x)
            return x[..., :1]

    picture = images(1, (3, 8, 8, 3))
    game = make_game(Recorder(), diff_augment="translation,cutout")
    game.judge({}, {}, picture, picture, jax.random.key(5))
    (found,) = seen
    np.testing.assert_array_equal(found[..., :3], found[..., 3:])
    assert not np.array_equal(found[..., :3], picture)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gan": "wgan"}, "choose one of vanilla, lsgan, hinge, relativistic or 'module:name'"),
        ({"diff_augment": "colour"}, "'colour' is not one of color, translation, cutout"),
    ],
)
def test_what_there_is_not_is_named(options, message):
    with pytest.raises(InputError, match=message):
        make_game(Linear(), **options)


@pytest.mark.parametrize("option", [{"loss__gan": "hing"}, {"loss__diff_augment": "colour"}], ids=str)
@pytest.mark.parametrize("kind", MAKERS)
def test_names_are_checked_where_no_discriminator_reads_them_too(kind, option):
    config = MAKERS[kind](loss__lambda_gan=0.0, **option)
    with pytest.raises(InputError, match="choose one of|is not one of"):
        resolve(config.objective)(config)


def test_who_compares_no_pairs_gets_no_loss_of_pairs():
    assert losses.find("relativistic", relative=True).relative
    with pytest.raises(InputError, match="config.loss.gan=relativistic compares pairs, which this objective does not"):
        losses.find("relativistic")


@pytest.mark.parametrize("option", [option.name for option in adversary.OPTIONS])
def test_both_objectives_have_all_options(option):
    for kind in MAKERS:
        table = resolve(f"p2p_jax.objectives.{kind}:LOSS")
        section = complete_section({}, table, "loss")
        assert option in section
