"""Generators that keep their input where their mask says so: the mixture by closed form, in both objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from p2p_jax.config import resolve
from p2p_jax.errors import InputError
from p2p_jax.nets import MobileResNet, ResNet, UNet, UNetViT
from p2p_jax.nets.attention import finish
from p2p_jax.testing import check_objective
from support.configs import small_config, small_cyclegan_config

NETWORKS = {
    "output": [
        ResNet(base_width=4, num_blocks=1, attention_mask=True),
        MobileResNet(base_width=4, num_blocks=1, attention_mask=True),
        UNetViT(num_downs=1, base_width=4, num_blocks=1, width=4, num_heads=1, ffn_width=4, attention_mask=True),
    ],
    "up_1": [UNet(num_downs=2, base_width=4, attention_mask=True)],
}


@pytest.mark.slow
@pytest.mark.parametrize(("last", "network"), [(last, one) for last, each in NETWORKS.items() for one in each])
def test_the_output_is_the_input_where_the_mask_is_0(last, network):
    x = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 8, 8, 3)), jnp.float32)
    leaves = flatten_dict(network.init(jax.random.key(0), x, train=False))
    for (collection, *names), value in leaves.items():
        if collection == "params" and names[0] == last:
            # Only the bias is left, so that every pixel is of one colour, and the mask is the same everywhere.
            leaves[(collection, *names)] = jnp.array([0.5, -1.0, 2.0, 0.3]) if names[-1] == "bias" else 0 * value
    image = network.apply(unflatten_dict(leaves), x, train=False)
    colour, mask = np.tanh([0.5, -1.0, 2.0]), 1 / (1 + np.exp(-2 * 0.3))
    np.testing.assert_allclose(image, mask * colour + (1 - mask) * np.asarray(x), atol=1e-6)


def test_an_open_mask_paints_and_a_closed_one_keeps():
    features = jnp.concatenate(
        [jnp.full((1, 2, 2, 3), 0.7), jnp.array([40.0, -40.0, 0.0, 0.0]).reshape(1, 2, 2, 1)], -1
    )
    x = jnp.full((1, 2, 2, 3), -0.25)
    expected = [np.tanh(0.7), -0.25, (np.tanh(0.7) - 0.25) / 2, (np.tanh(0.7) - 0.25) / 2]
    np.testing.assert_allclose(finish(features, x, True)[..., 0].reshape(-1), expected, atol=1e-6)
    assert finish(features.astype(jnp.bfloat16), x.astype(jnp.bfloat16), True).dtype == jnp.float32


def test_images_that_cannot_be_mixed_are_refused():
    network = ResNet(out_channels=1, base_width=4, num_blocks=1, attention_mask=True)
    with pytest.raises(InputError, match=r"mixes the input \(3 channels\) with an image of 1"):
        jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_config, small_cyclegan_config])
def test_both_objectives_train_with_masks(make):
    config = make(generator__attention_mask=True)
    check_objective(resolve(config.objective)(config), config, run=False)
