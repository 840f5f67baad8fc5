"""The networks of the TensorFlow release in TensorFlow's own operations, and the files that it writes."""

import json
import struct

import jax
import numpy as np

from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.objectives import make_network
from support.comparers import assert_close_trees

WIDTH = 4
NAMES = {  # of the kernels of convolutions and of transposed ones, of the scale and the offset of a norm
    "later": ("conv2d/kernel", "conv2d_transpose/kernel", "batch_normalization/gamma", "batch_normalization/beta"),
    "earlier": ("conv/filter", "deconv/filter", "batchnorm/scale", "batchnorm/offset"),
}
BIASES = {"conv2d/kernel": "conv2d/bias", "conv2d_transpose/kernel": "conv2d_transpose/bias"}


def unet_scopes(depth, channels=(3, 3), width=WIDTH):
    """Return {scope: (is transposed, channels in, channels out, has a norm)} of the release's U-Net."""
    widths = [width * min(2**i, 8) for i in range(depth)]
    scopes = {}
    for i in range(1, depth + 1):
        scopes[f"generator/encoder_{i}"] = (False, channels[0] if i == 1 else widths[i - 2], widths[i - 1], i > 1)
    for i in range(depth, 0, -1):
        inputs = widths[i - 1] * (1 if i == depth else 2)
        scopes[f"generator/decoder_{i}"] = (True, inputs, channels[1] if i == 1 else widths[i - 2], i > 1)
    return scopes


def discriminator_scopes(channels=6, width=WIDTH):
    widths = [channels, width, 2 * width, 4 * width, 8 * width, 1]
    return {f"discriminator/layer_{i}": (False, widths[i - 1], widths[i], 1 < i < 5) for i in range(1, 6)}


def random_weights(scopes, generation, seed=0):
    """Return {name: float32 array} of layers, as a generation of the release has them."""
    random = np.random.RandomState(seed)
    conv, transposed, scale, offset = NAMES[generation]
    weights = {}
    for scope, (is_transposed, inputs, outputs, has_norm) in scopes.items():
        kernel = transposed if is_transposed else conv
        shape = (outputs, inputs) if is_transposed else (inputs, outputs)
        weights[f"{scope}/{kernel}"] = random.standard_normal((4, 4, *shape)) / np.sqrt(4 * inputs)
        if kernel in BIASES:
            weights[f"{scope}/{BIASES[kernel]}"] = random.standard_normal(outputs)
        if has_norm:
            weights[f"{scope}/{scale}"] = 1 + 0.5 * random.standard_normal(outputs)
            weights[f"{scope}/{offset}"] = 0.5 * random.standard_normal(outputs)
            if generation == "later":
                weights[f"{scope}/batch_normalization/moving_mean"] = np.zeros(outputs)
                weights[f"{scope}/batch_normalization/moving_variance"] = np.ones(outputs)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def layer(tf, weights, scope, x, generation, stride=2):
    """Apply a layer of the release, without its activation."""
    conv, transposed, scale, offset = NAMES[generation]
    if (kernel := weights.get(f"{scope}/{conv}")) is not None:
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x, bias = tf.nn.conv2d(padded, kernel, stride, "VALID"), BIASES.get(conv)
    else:
        kernel = weights[f"{scope}/{transposed}"]
        shape = [x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[2]]
        x, bias = tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME"), BIASES.get(transposed)
    if bias:
        x = x + weights[f"{scope}/{bias}"]
    if f"{scope}/{scale}" in weights:
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        x = tf.nn.batch_normalization(
            x, mean, variance, weights[f"{scope}/{offset}"], weights[f"{scope}/{scale}"], 1e-5
        )
    return x


def run_unet(weights, images, generation):
    tf = tensorflow()
    depth = len({name.split("/")[1] for name in weights if "encoder" in name})
    skips = [layer(tf, weights, "generator/encoder_1", tf.constant(images), generation)]
    for i in range(2, depth + 1):
        skips.append(layer(tf, weights, f"generator/encoder_{i}", tf.nn.leaky_relu(skips[-1], 0.2), generation))
    x = skips.pop()
    for i in range(depth, 0, -1):
        x = layer(tf, weights, f"generator/decoder_{i}", tf.nn.relu(x), generation)
        if i > 1:
            x = tf.concat([x, skips.pop()], 3)
    return tf.tanh(x).numpy()


def run_discriminator(weights, inputs, targets, generation):
    """Return logits; the release takes their sigmoid."""
    tf = tensorflow()
    x = tf.concat([inputs, targets], 3)
    for i in range(1, 6):
        x = layer(tf, weights, f"discriminator/layer_{i}", x, generation, stride=2 if i < 4 else 1)
        x = x if i == 5 else tf.nn.leaky_relu(x, 0.2)
    return x.numpy()


def write_checkpoint(folder, weights, step=200):
    """Save weights as the release does: with Adam's slots, the averages of losses, and a file that names the latest."""
    tf1 = tensorflow().compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        variables = {name: tf1.get_variable(name, initializer=value) for name, value in weights.items()}
        loss = tf1.add_n([tf1.reduce_sum(variable**2) for variable in variables.values()], name="generator_loss/add")
        trained = [variable for name, variable in variables.items() if "moving" not in name]
        with tf1.name_scope("generator_train"):
            tf1.train.AdamOptimizer(2e-4, 0.5).minimize(loss, var_list=trained)
        tf1.train.ExponentialMovingAverage(0.99).apply([loss])
        number = tf1.train.get_or_create_global_step()
        session.run(tf1.global_variables_initializer())
        session.run(number.assign(step))
        folder.mkdir(exist_ok=True)
        tf1.train.Saver(max_to_keep=1).save(session, str(folder / "model"), global_step=number)
    return folder / f"model-{step}"


def write_pict(path, weights):
    """Write weights, rounded to 256 values, by the release's rules; returns what they were rounded to."""
    levels = np.linspace(-3, 3, 256).astype("<f4")
    names = sorted(weights)
    codes = {name: np.abs(weights[name][..., None] - levels).argmin(-1).astype(np.uint8) for name in names}
    shapes = json.dumps([{"name": name, "shape": weights[name].shape} for name in names]).encode()
    write_chunks(path, shapes, levels.tobytes(), b"".join(codes[name].tobytes() for name in names))
    return {name: levels[codes[name]] for name in names}


def write_chunks(path, *chunks):
    path.write_bytes(b"".join(struct.pack(">I", len(chunk)) + chunk for chunk in chunks))


def apply(network, *inputs):
    """Run a network that was read, with the batch's statistics and without dropout."""
    module = make_network(network.section, out_channels=network.out_channels)
    dropout = {} if network.is_discriminator else {"dropout": False}
    x = np.concatenate(inputs, -1)
    return np.asarray(
        jax.jit(lambda variables, x: module.apply(variables, x, train=True, **dropout))(network.variables, x)
    )


def random_images(size, seed, channels=3):
    return np.random.RandomState(seed).uniform(-1, 1, (2, size, size, channels)).astype(np.float32)


def assert_close(actual, expected):
    assert expected.std() > 0.05  # neither saturated nor flat
    assert_close_trees(actual, expected, of_largest=1e-4)
