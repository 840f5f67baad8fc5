"""Multiply-adds: of single operations by hand, of whole experiments by the shapes of their networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from benchmarks import cost as by_shapes
from benchmarks.experiments import make_config
from p2p_jax.config import complete, load, resolve
from p2p_jax.errors import InputError
from p2p_jax.nets import convolution
from p2p_jax.nets.mobile_resnet import DepthwiseConv
from p2p_jax.training import arithmetic, cost
from support.configs import small_config


def shape(*sides, dtype="float32"):
    return jax.ShapeDtypeStruct(sides, dtype)


def count(function, *shapes, given=None):
    return arithmetic.count(arithmetic.traced(function, *shapes), given)


def multiply_adds(function, *shapes):
    work = count(function, *shapes)
    assert work.choices == () and work.doubts == frozenset()
    return work.fixed


def gradients(function):
    """Return the function, its input gradient and its kernel gradient, each alone."""

    def pulled_back(place):
        return lambda x, k: jax.vjp(function, x, k)[1](jnp.ones(jax.eval_shape(function, x, k).shape))[place]

    return function, pulled_back(0), pulled_back(1)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(16, 4, 2, 1), (16, 3, 1, 1), (16, 3, 2, 1), (15, 4, 1, 1), (22, 7, 1, 0), (16, 1, 1, 0)],
)
@pytest.mark.parametrize(("channels", "features"), [(5, 7), (7, 5)])
def test_a_convolution_and_its_gradients_cost_the_same(side, kernel, stride, padding, channels, features):
    """A kernel's worth of products at every output: written out by hand for each."""
    steps = (side + 2 * padding - kernel) // stride + 1
    by_hand = 3 * steps**2 * kernel**2 * channels * features
    x, k = shape(3, side, side, channels), shape(kernel, kernel, channels, features)
    for form in gradients(lambda x, k: convolution.conv(x, k, stride, padding)):
        assert multiply_adds(form, x, k) == by_hand

    def others(x, k):
        pads = [(padding, padding)] * 2
        return lax.conv_general_dilated(x, k, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    for form in gradients(others):
        assert multiply_adds(form, x, k) == by_hand


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (3, 1)])
def test_zeros_between_the_pixels_are_no_work(kernel, padding):
    """A transposed convolution lays a kernel on every pixel of its input."""
    by_hand = 2 * 8**2 * kernel**2 * 5 * 6
    x, k = shape(2, 8, 8, 5), shape(kernel, kernel, 6, 5)
    for form in gradients(lambda x, k: convolution.conv_transpose(x, k, 2, padding)):
        assert multiply_adds(form, x, k) == by_hand
    flax = nn.ConvTranspose(6, (4, 4), strides=(2, 2), transpose_kernel=True)
    variables = jax.eval_shape(flax.init, jax.random.key(0), x)
    assert multiply_adds(flax.apply, variables, x) == 2 * 8**2 * 16 * 5 * 6


def test_a_stride_over_zeros_between_the_pixels():
    """Of 4 taps every output meets 2 that do not lie on zeros, in each direction."""

    def both(x, k):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, k, (2, 2), [(1, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=layout)

    assert multiply_adds(both, shape(3, 8, 8, 5), shape(4, 4, 5, 6)) == 3 * 8**2 * 2**2 * 5 * 6


def test_groups_see_their_own_channels_alone():
    layer, x = DepthwiseConv(kernel_size=3), shape(2, 16, 16, 8)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    for form in gradients(lambda x, variables: layer.apply(variables, x)):
        assert multiply_adds(form, x, variables) == 2 * 16**2 * 9 * 8
    grouped = nn.Conv(12, (3, 3), feature_group_count=4)
    variables = jax.eval_shape(grouped.init, jax.random.key(0), x)
    assert multiply_adds(grouped.apply, variables, x) == 2 * 16**2 * 9 * (8 // 4) * 12


@pytest.mark.parametrize("pad_with", ["reflect", "zero"])
def test_plain_form_of_a_depthwise_convolution(pad_with):
    layer = DepthwiseConv(kernel_size=5, pad_with=pad_with, init_gain=1.0)
    x = np.random.RandomState(0).normal(size=(2, 9, 7, 4)).astype(np.float32)
    variables = layer.init(jax.random.key(1), x)
    with convolution.in_plain_form():
        plain = layer.apply(variables, x)
    np.testing.assert_allclose(plain, layer.apply(variables, x), rtol=1e-5, atol=1e-5)


def test_the_plain_form_ends_with_its_context(fast_convolutions):
    """Also in what is compiled: a program that was traced in it is used nowhere else."""
    x, k = shape(1, 4, 4, 64), shape(3, 3, 64, 64)
    compiled = jax.jit(lambda x, k: convolution.conv(x, k, 1, 1))

    with convolution.in_plain_form():
        assert convolution.is_plain()
        inside = str(jax.make_jaxpr(compiled)(x, k))
    assert not convolution.is_plain()
    assert "conv_general_dilated" in inside and "conv_general_dilated" not in str(jax.make_jaxpr(compiled)(x, k))


def test_products_of_matrices():
    a, b = shape(2, 3, 4, 5), shape(2, 5, 4, 6)
    assert multiply_adds(lambda a, b: jnp.einsum("bijk,bkjl->bil", a, b), a, b) == 2 * 3 * 4 * 5 * 6
    assert (
        multiply_adds(nn.Dense(7).apply, {"params": {"kernel": shape(5, 7), "bias": shape(7)}}, a) == 2 * 3 * 4 * 5 * 7
    )
    assert multiply_adds(lambda a: a + jnp.sin(a), a) == 0


@pytest.fixture
def square():
    """Return a product of 8^3 multiply-adds, and what it is made of."""
    return lambda x: x @ x, shape(8, 8)


def test_what_is_nested_is_found(square):
    product, x = square
    own = jax.custom_vjp(product)
    own.defvjp(lambda x: (product(x), x), lambda x, y: (y @ x.T,))
    loop = lambda x: lax.scan(lambda x, _: (product(x), None), x, length=5)[0]  # noqa: E731
    for function, times in [
        (jax.jit(product), 1),
        (own, 1),
        (lambda x: jax.vjp(own, x)[1](x)[0], 1),  # of the forward pass nobody reads the result
        (jax.checkpoint(product), 1),
        (loop, 5),
        (lambda x: lax.fori_loop(0, 6, lambda i, x: product(x), x), 6),
        (lambda x: lax.while_loop(lambda s: s[0] < 7, lambda s: (s[0] + 2, product(s[1])), (0, x))[1], 4),
        (lambda x: lax.map(product, jnp.stack([x, x, x])), 3),
        (lambda x: lax.cond(True, product, lambda x: x, x), 1),
        (lambda x: (x @ x, jnp.sin(x))[1], 0),  # as XLA leaves it out
        (lambda x: loop(x)[0, 0] > 0, 5),
    ]:
        assert multiply_adds(function, x) == times * 8**3


def test_what_is_computed_again_is_counted_again():
    def network(part):
        return lambda x, k: part(lambda x: jnp.sin(jnp.sin(x @ k) @ k))(x).sum()

    x, k = shape(4, 8), shape(8, 8)
    once, again = (multiply_adds(jax.value_and_grad(network(part), 1), x, k) for part in (lambda f: f, jax.checkpoint))
    assert once == (2 + 2 + 1) * 4 * 64  # forward, gradients of the kernel, gradient of the input of the second
    assert again == once + 2 * 4 * 64


@pytest.mark.slow
def test_a_unet_that_computes_again_costs_more():
    plain, again = (cost.measure(small_config(generator__remat=remat)).step for remat in (False, True))
    assert plain < again < 1.34 * plain  # at most the forward pass again


def test_branches_are_followed_where_they_can_be_known(square):
    product, x = square

    def update(x, step):
        return lax.switch(step % 3, [lambda x: x, product, lambda x: product(product(x))], x)

    for step, times in enumerate([0, 1, 2, 0]):
        work = count(update, x, shape(dtype="int32"), given=[None, arithmetic.known(jnp.int32(step))])
        assert (work.fixed, work.doubts) == (times * 8**3, frozenset())
    work = count(update, x, shape(dtype="int32"))
    assert work.fixed == 2 * 8**3 and "the most expensive one is counted" in "".join(work.doubts)
    alike = count(lambda x: lax.cond(x[0, 0] > 0, product, lambda x: x.T @ x, x), x)
    assert alike == arithmetic.Work(8**3)


def test_branches_of_the_turns_of_a_loop(square):
    """As where several steps of one player are followed by one of the other."""
    product, x = square

    def turn(x, i):
        return lax.cond(i == 4, product, lambda x: x, x), None

    assert multiply_adds(lambda x: lax.scan(turn, x, jnp.arange(5))[0], x) == 8**3
    counting = lambda s, _: ((s[0] + 1, turn(s[1], s[0])[0]), None)  # noqa: E731
    assert multiply_adds(lambda x: lax.scan(counting, (0, x), length=9, reverse=True)[0][1], x) == 8**3


def test_loops_without_a_known_end_are_refused_if_there_is_work_in_them(square):
    product, x = square
    with pytest.raises(InputError, match="a while loop contains .*, and its number of iterations is not known"):
        count(lambda x: lax.while_loop(lambda x: x[0, 0] > 0, product, x), x)
    assert multiply_adds(lambda x: lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x / 2, x), x) == 0


def test_what_jax_does_not_see_is_told():
    def called(x):
        return jax.pure_callback(lambda x: x, shape(8, 8), x) @ x

    assert count(called, shape(8, 8)) == arithmetic.Work(
        8**3, doubts=frozenset({"the work inside pure_callback is not counted"})
    )


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "identity"), [("pix2pix", True), ("cyclegan", False), ("cyclegan", True)])
def test_the_published_experiments_cost_what_their_shapes_say(objective, identity):
    config = make_config(objective, identity=identity)
    found = cost.measure(config)
    assert found.step == pytest.approx(by_shapes.multiply_adds(by_shapes.find_passes(config)), rel=1e-3)
    gmac, image, parameters = {
        "pix2pix": (43.5, 6.04, 54_413_955),
        "cyclegan": (939.6 if identity else 643.5, 49.55, 11_378_179),
    }[objective]
    assert (round(found.step / 1e9, 1), round(found.image / 1e9, 2), found.translator) == (gmac, image, parameters)
    assert found.trained == by_shapes.count_parameters(config) and found.doubts == ()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_a_step_costs_the_same_on_every_platform(backend, fast_convolutions, monkeypatch):
    """Where convolutions take other forms: of this width they do on CPUs, and the smallest maps on GPUs."""
    config = make_config("pix2pix", 32)
    found = [cost.measure(config)]
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert cost.measure(config) == found[0]
    assert found[0].step == pytest.approx(by_shapes.multiply_adds(by_shapes.find_passes(config)), rel=0.05)


@pytest.mark.slow
def test_a_batch_costs_what_its_images_do():
    one, four = (cost.measure(small_config(batch_size=size, discriminator__norm="instance")) for size in (1, 4))
    assert (four.step, four.image) == (4 * one.step, one.image)


@pytest.mark.slow
def test_lazy_players_cost_the_mean_over_the_run(monkeypatch):
    """WGAN-GP's generator learns in every fifth step alone: its pullback is in one of five."""
    example = load("examples/wgan_gp.py")

    def step_of(**changes):
        changes = {"discriminator__norm": "instance", "num_steps": 10} | changes
        config = small_config(objective=example.objective, **changes)
        return cost.measure(
            complete({**config.to_dict(), "loss": {**example.loss.to_dict(), **changes.get("loss", {})}})
        )

    always = step_of(loss={"critic_steps": 1})
    never = step_of(loss={"critic_steps": 11})
    fifth = step_of(loss={"critic_steps": 5})
    assert fifth.doubts == () and 0 < never.step < always.step
    assert fifth.step == pytest.approx(never.step + (always.step - never.step) / 5)
    # Of 12 steps, the fifth and the tenth.
    twelve = step_of(loss={"critic_steps": 5}, num_steps=12)
    assert twelve.step == pytest.approx(never.step + (always.step - never.step) * 2 / 12)
    generator = by_shapes.find_layers(
        resolve("p2p_jax.nets:UNet")(num_downs=3, base_width=4, out_channels=3), (4, 16, 16, 3)
    )
    forward = by_shapes.multiply_adds(generator)
    pull_back = by_shapes.multiply_adds(by_shapes.passes(generator, kernel=True, image=False)) - forward
    assert always.step - never.step == pytest.approx(pull_back, rel=0.01)


def test_chance_is_followed_as_the_loop_draws_it():
    def make(config):
        base = resolve("support.networks:linear")(config)

        def update(state, batch, rng):
            takes = jax.random.bernoulli(jax.random.fold_in(rng, 5), 0.25)
            image = batch["real_a"][0, :, :, 0]
            extra = lax.cond(takes, lambda x: (x @ x).mean(), lambda x: 0.0, image)
            state, metrics = base.update(state, batch, rng)
            return state, metrics | {"extra": extra}

        return base._replace(update=update)

    config = small_config(num_steps=400, batch_size=1, generator=None, discriminator=None, loss=None)
    without = cost.measure(config, resolve("support.networks:linear")(config)).step
    found = cost.measure(config, make(config))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), i), 0))(
        jnp.arange(400)
    )
    share = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 5), 0.25))(keys).mean()
    assert found.step == pytest.approx(without + float(share) * 16**3) and 0.1 < share < 0.4


@pytest.mark.slow
def test_counting_computes_nothing(monkeypatch):
    done = []
    for primitive in (lax.conv_general_dilated_p, lax.dot_general_p):
        monkeypatch.setattr(primitive, "impl", lambda *args, **_: done.append(args))
    assert cost.measure(make_config("pix2pix", 64, width=8)).step > 0 and done == []


def test_optimizers_with_matrix_products_are_counted():
    """Muon turns every gradient by products of matrices."""
    x = shape(8, 8)
    tx = optax.contrib.muon(0.1)
    state = jax.eval_shape(tx.init, x)
    assert multiply_adds(lambda g, s, p: tx.update(g, s, p)[0], x, state, x) >= 5 * 2 * 8**3
