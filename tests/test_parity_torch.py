"""Networks and training steps against PyTorch: from recorded results, and live where PyTorch is installed."""

import functools
import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import make_fixtures
from make_fixtures import CASES, NUM_STEPS, TRAINING, digest
from p2p_jax import nets
from p2p_jax.config import complete, resolve
from p2p_jax.nets import convolution, maps
from p2p_jax.nets.convolution import conv, conv_transpose
from p2p_jax.objectives import DEVICE_AXIS
from support.precision import precision

pytestmark = pytest.mark.usefixtures("fast_convolutions")
DATA = Path(os.environ.get("P2P_JAX_TEST_DATA", make_fixtures.ROOT.parent / "shared" / "data"))


@functools.cache
def recorded(name):
    """Return a fixture's arrays."""
    with np.load(make_fixtures.FIXTURES / f"{name}.npz") as file:
        return dict(file)


@functools.cache
def run_jax(name, dtype="float32"):
    """Return what p2p_jax computes for a case with its recorded seed: {name: array}, as ``run_torch`` names them."""
    case, seed = CASES[name], int(recorded("networks")[f"{name}/seed"])
    train = case.get("train", True)
    options = {"dropout": False} if case["network"] != "PatchGAN" else {}
    network = getattr(nets, case["network"])(param_dtype=dtype, **make_fixtures.attributes(case))
    variables, x = jax.tree.map(lambda array: array.astype(dtype), make_fixtures.inputs(name, seed))
    stats = variables.get("batch_stats", {})

    @jax.jit
    def run(params, x):
        def forward(params, x):
            mutable = ["batch_stats"] if train else []
            return network.apply({"params": params, "batch_stats": stats}, x, train=train, mutable=mutable, **options)

        output, pullback, mutated = jax.vjp(forward, params, x, has_aux=True)
        grads = pullback(jnp.asarray(make_fixtures.cotangent(seed, output.shape), dtype))
        return output, grads, mutated.get("batch_stats", stats)

    with precision(dtype):
        output, (grads, grad_x), stats = jax.tree.map(np.asarray, run(variables["params"], x))
    assert output.dtype == grad_x.dtype == dtype
    results = {"output": output, "grad/input": grad_x}
    return results | make_fixtures.flatten(grads, "grad") | make_fixtures.flatten(stats, "stats")


def scale_of(results, key):
    """Return the magnitude by which errors in ``results[key]`` are judged: its largest value.

    A convolution's bias counts as part of its kernel, because in front of an instance norm its gradient is zero.
    """
    kernel = results.get(key.replace("/bias", "/kernel"), results[key])
    return max(np.abs(results[key]).max(), np.abs(kernel).max())


@pytest.mark.parametrize("name", CASES)
def test_network_equals_recorded_pytorch(name):
    results, expected = run_jax(name), recorded("networks")[f"{name}/digest"]
    offset = 0
    for key in sorted(results):
        actual = digest(results[key])
        wanted = expected[offset : offset + actual.size]
        offset += actual.size
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4 * scale_of(results, key), err_msg=key)
    assert offset == expected.size


@pytest.mark.parametrize("name", CASES)
def test_network_equals_live_pytorch(name):
    pytest.importorskip("torch")
    expected, _ = make_fixtures.run_torch(name, int(recorded("networks")[f"{name}/seed"]), "float32")
    results = run_jax(name)
    assert results.keys() == expected.keys()
    for key in results:
        atol = 1e-4 * scale_of(expected, key)
        np.testing.assert_allclose(results[key], expected[key], rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", ["unet_batch", "unet_resize", "resnet_instance", "resnet_resize", "patchgan_70"])
def test_network_equals_live_pytorch_exactly_in_float64(name):
    pytest.importorskip("torch")
    expected, _ = make_fixtures.run_torch(name, int(recorded("networks")[f"{name}/seed"]))
    results = run_jax(name, "float64")
    for key in results:
        atol = 1e-11 * scale_of(expected, key)
        np.testing.assert_allclose(results[key], expected[key], rtol=0, atol=atol, err_msg=key)


def test_digest_notices_a_flipped_kernel_and_one_wrong_border():
    kernel = np.random.RandomState(0).standard_normal((4, 4, 16, 32))
    border = kernel.copy()
    border[:, 0] = 0
    for wrong in (kernel[::-1], kernel.transpose(1, 0, 2, 3), border, 1.001 * kernel):
        assert np.abs(digest(wrong) - digest(kernel)).max() > 5e-4 * np.abs(kernel).max()


@pytest.mark.parametrize(
    ("num_downs", "layout", "levels"),
    [(8, "paper", [8, 7, 6]), (7, "paper", [7, 6, 5]), (8, "pytorch", [7, 6, 5]), (7, "pytorch", [6, 5])],
)
def test_dropout_sits_where_pytorch_has_it(num_downs, layout, levels):
    network = nets.UNet(num_downs=num_downs, dropout_layout=layout)
    assert [i for i in range(num_downs, 0, -1) if network.has_dropout(i)] == levels
    torch = pytest.importorskip("torch")
    twin = pytest.importorskip("torch_twin").UNet(num_downs=num_downs, base_width=1, dropout_layout=layout)
    names = [name for name, layer in twin.layers.items() if isinstance(layer, torch.nn.Dropout)]
    assert names == [f"up_{level}_dropout" for level in levels]


def make_config(objective, optimizer, dtype):
    sgd = {"factory": "optax:sgd", "learning_rate": make_fixtures.SGD_RATE[objective]}
    return complete(
        {
            **TRAINING[objective],
            "dtype": dtype,
            "param_dtype": dtype,
            "optimizer": sgd if optimizer == "sgd" else {},
        }
    )


@functools.cache
def train_step(name, optimizer, dtype):
    """Return (initial state, compiled update on one device) of a training run."""
    with precision(dtype):
        config = make_config(name, optimizer, dtype)
        objective = resolve(config.objective)(config)
        images = make_fixtures.batch_of_step(make_fixtures.training_images(name), 0)
        real_a, real_b = (jax.ShapeDtypeStruct(x.shape, dtype) for x in images)
        shapes = jax.eval_shape(objective.init, jax.random.key(0), {"real_a": real_a, "real_b": real_b})
        state = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), shapes)  # as optimizers begin
        for player, variables in make_fixtures.training_weights(name).items():
            for collection, tree in variables.items():
                state[collection][player] = jax.tree.map(lambda array: jnp.asarray(array, dtype), tree)
        assert jax.tree.structure(state) == jax.tree.structure(shapes)
        mesh = Mesh(np.array(jax.devices()[:1]), (DEVICE_AXIS,))
        replicated, split = PartitionSpec(), PartitionSpec(DEVICE_AXIS)
        update = jax.shard_map(
            objective.update,
            mesh=mesh,
            in_specs=(replicated, split, replicated),
            out_specs=replicated,
            check_vma=False,
        )
        # The tests have XLA optimise nothing; forty steps in float64 are worth a little.
        options = {"xla_backend_optimization_level": 1} if (name, optimizer) == ("pix2pix", "adam") else {}
        # Placed as the update returns it, or the second step would be compiled again.
        return jax.device_put(state, NamedSharding(mesh, replicated)), jax.jit(update, compiler_options=options)


def train_jax(objective, images, optimizer, num_steps, dtype):
    """Train as ``train_torch`` does, with the library's objective; returns {loss name: [num_steps]}."""
    state, update = train_step(objective, optimizer, dtype)
    history = []
    with precision(dtype):
        for i in range(num_steps):
            real_a, real_b = (jnp.asarray(x, dtype) for x in make_fixtures.batch_of_step(images, i))
            state, metrics = update(state, {"real_a": real_a, "real_b": real_b}, jax.random.key(i))
            history.append(metrics)
        assert metrics["gen/total"].dtype == dtype
    return {name: np.array([float(metrics[name]) for metrics in history]) for name in metrics}


def assert_same_losses(actual, expected, rtol):
    """Compare {loss name: [num_steps]} with what ``train_torch`` gave, at every step."""
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=rtol, err_msg=name)


def recorded_losses(objective, optimizer):
    """Return the recorded {loss name: [num_steps]} of a training run."""
    prefix = f"{optimizer}/"
    record = recorded(objective)
    losses = {key.removeprefix(prefix): record[key] for key in record if key.startswith(prefix)}
    assert all(values.std() > 1e-3 for values in losses.values())  # the players move
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "optimizer"), NUM_STEPS)
def test_training_follows_recorded_pytorch(objective, optimizer):
    images, num_steps = make_fixtures.training_images(objective), NUM_STEPS[objective, optimizer]
    losses = train_jax(objective, images, optimizer, num_steps, "float64")
    assert_same_losses(losses, recorded_losses(objective, optimizer), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("objective", TRAINING)
def test_training_in_forms_for_gpus_follows_recorded_pytorch(objective, monkeypatch):
    """In those of small maps too, which are for larger ones."""
    for module in (convolution, maps):
        monkeypatch.setattr(module, "backend", lambda: "gpu")
    monkeypatch.setattr(maps, "_LEAST", 4)
    losses = train_jax(objective, make_fixtures.training_images(objective), "sgd", 10, "float64")
    expected = {name: values[:10] for name, values in recorded_losses(objective, "sgd").items()}
    assert_same_losses(losses, expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("objective", TRAINING)
def test_training_in_float32_follows_recorded_pytorch(objective):
    losses = train_jax(objective, make_fixtures.training_images(objective), "adam", 5, "float32")
    expected = {name: values[:5] for name, values in recorded_losses(objective, "adam").items()}
    assert_same_losses(losses, expected, rtol=1e-4)


def load_images(folder, size):
    """Return the first four photographs of a folder of real data, in [-1, 1]."""
    image = pytest.importorskip("PIL.Image")
    paths = sorted((DATA / folder).glob("*.jpg"))[:4]
    if not paths:
        pytest.skip(f"no {folder} in {DATA}; set P2P_JAX_TEST_DATA")
    return np.stack([np.asarray(image.open(path).convert("RGB").resize(size)) for path in paths]) / 127.5 - 1


def assert_follows_live_pytorch(objective, images):
    num_steps = NUM_STEPS[objective, "adam"]
    losses = train_jax(objective, images, "adam", num_steps, "float64")
    assert_same_losses(losses, make_fixtures.train_torch(objective, images, "adam", num_steps), rtol=1e-9)


@pytest.mark.slow
def test_pix2pix_on_facades_follows_live_pytorch():
    pytest.importorskip("torch")
    photo, label = np.split(load_images("facades/train", (128, 64)), 2, axis=2)
    assert_follows_live_pytorch("pix2pix", (label, photo))


@pytest.mark.slow
def test_cyclegan_on_horses_and_zebras_follows_live_pytorch():
    pytest.importorskip("torch")
    images = tuple(load_images(f"horse2zebra/train{domain}", (32, 32)) for domain in "AB")
    assert_follows_live_pytorch("cyclegan", images)


def autodiff_conv(x, kernel, stride, padding):
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def autodiff_conv_transpose(x, kernel, stride, padding):
    _, transpose = jax.vjp(
        lambda y: autodiff_conv(y, kernel, stride, padding),
        jnp.zeros((x.shape[0], stride * x.shape[1], stride * x.shape[2], kernel.shape[2]), x.dtype),
    )
    return transpose(x)[0]


def torch_conv(x, kernel, stride, padding, transposed):
    """Return what ``with_gradients`` does, from PyTorch."""
    torch = pytest.importorskip("torch")
    x, kernel = torch.from_numpy(x).requires_grad_(), torch.from_numpy(kernel).requires_grad_()
    images, weight = x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    if transposed:
        extra = (2 * padding - kernel.shape[0]) % stride
        y = torch.nn.functional.conv_transpose2d(images, weight, None, stride, padding, extra)
    else:
        y = torch.nn.functional.conv2d(images, weight, None, stride, padding)
    y = y.permute(0, 2, 3, 1)
    y.backward(torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape))
    return y.detach().numpy(), x.grad.numpy(), kernel.grad.numpy()


def random_operands(size, channels, transposed, kernel_size):
    """Return images and a kernel that takes channels[0] to channels[1]."""
    random = np.random.RandomState(0)
    x = random.standard_normal((2, *size, channels[0])).astype(np.float32)
    kernel_shape = (kernel_size, kernel_size, *(channels[::-1] if transposed else channels))
    return x, random.standard_normal(kernel_shape).astype(np.float32)


def with_gradients(function, stride, padding, x, kernel):
    """Return the output and both gradients, for a cotangent of ``cos(0), cos(1), ...``."""
    y, pullback = jax.vjp(lambda x, k: function(x, k, stride, padding), x, kernel)
    return y, *pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def autodiff(stride, padding, x, kernel, transposed):
    """Return what ``with_gradients`` does, by JAX's own rules."""
    function = autodiff_conv_transpose if transposed else autodiff_conv
    return with_gradients(function, stride, padding, x, kernel)


CONVOLUTIONS = [  # transposed, kernel size, stride, padding
    (True, 4, 2, 1),
    (True, 3, 2, 1),
    (False, 4, 2, 1),
    (False, 4, 1, 1),
    (False, 3, 2, 1),
    (False, 1, 1, 0),
]


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    """Trace as on that back end; what is traced runs anywhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


@pytest.mark.parametrize(
    ("channels", "size"), [*itertools.product([(5, 7), (9, 2)], [(3, 5), (16, 14)]), ((64, 65), (9, 8))]
)
@pytest.mark.parametrize(("transposed", "kernel_size", "stride", "padding"), CONVOLUTIONS)
def test_convolution_and_its_gradients_equal_autodiff(
    transposed, kernel_size, stride, padding, size, channels, backend
):
    x, kernel = random_operands(size, channels, transposed, kernel_size)
    function = functools.partial(with_gradients, conv_transpose if transposed else conv, stride, padding)
    actual = jax.jit(function)(x, kernel)
    expected = autodiff(stride, padding, x, kernel, transposed)
    if transposed:
        assert actual[0].shape == (2, stride * size[0], stride * size[1], channels[1])
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * np.abs(e).max())


@pytest.mark.parametrize("size", [(2, 2), (8, 6)])
@pytest.mark.parametrize(("transposed", "kernel_size", "stride", "padding"), CONVOLUTIONS)
def test_convolution_and_its_gradients_equal_pytorch(transposed, kernel_size, stride, padding, size):
    if transposed and size == (2, 2):
        size = (1, 1)  # the bottleneck; a 4x4 convolution has no output there
    x, kernel = random_operands(size, (5, 7), transposed, kernel_size)
    expected = torch_conv(x, kernel, stride, padding, transposed)
    function = functools.partial(with_gradients, conv_transpose if transposed else conv, stride, padding)
    actual = jax.jit(function)(x, kernel)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * np.abs(e).max())


@pytest.mark.parametrize(("transposed", "kernel_size", "stride", "padding"), CONVOLUTIONS)
def test_gradients_of_gradients_of_a_convolution(transposed, kernel_size, stride, padding):
    random = np.random.RandomState(0)
    x = random.standard_normal((1, 6, 6, 3)).astype(np.float32)
    channels = (4, 3) if transposed else (3, 4)
    kernel = random.standard_normal((kernel_size, kernel_size, *channels)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def penalty_grads(function, x, kernel):
        def penalty(x, kernel):
            grads = jax.grad(lambda x, k: (function(x, k, stride, padding) ** 3).sum(), (0, 1))(x, kernel)
            return sum((grad**2).sum() for grad in grads)

        return jax.grad(penalty, (0, 1))(x, kernel)

    actual = penalty_grads(conv_transpose if transposed else conv, x, kernel)
    expected = penalty_grads(autodiff_conv_transpose if transposed else autodiff_conv, x, kernel)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * np.abs(e).max())


@pytest.mark.parametrize(("side", "platforms"), [(4, {"cpu", "gpu"}), (32, {"cpu"})])
def test_where_convolutions_are_products(backend, side, platforms):
    def loss(x, kernel):
        return (conv_transpose(conv(x, kernel, 2, 1), kernel, 2, 1) ** 2).sum()

    x, kernel = jnp.ones((1, side, side, 8)), jnp.ones((4, 4, 8, 1024))
    operations = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, kernel))
    assert ("dot_general" in operations, "conv_general_dilated" in operations) == (
        (True, False) if backend in platforms else (False, True)
    )
