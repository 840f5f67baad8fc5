"""The receptive fields that the PatchGANs are named after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from p2p_jax.nets import RECEPTIVE_FIELDS, PatchGAN


@pytest.mark.parametrize("field", RECEPTIVE_FIELDS)
def test_one_logit_depends_on_exactly_its_receptive_field(field):
    # Positive weights and inputs and no norm: every pixel that can reach the logit does, and none cancels.
    network = PatchGAN(receptive_field=field, base_width=1, norm="none")
    size = 32 * (field // 32 + 3)
    x = jnp.ones((1, size, size + 32, 2))
    shapes = jax.eval_shape(lambda rng: network.init(rng, x, train=True), jax.random.key(0))
    params = jax.tree.map(lambda array: jnp.ones(array.shape), shapes)

    def logit(x):
        logits = network.apply(params, x, train=True)[0, :, :, 0]
        return logits[logits.shape[0] // 2, logits.shape[1] // 2]

    support = np.asarray(jax.jit(jax.grad(logit))(x))[0, :, :, 0] > 0
    rows, columns = np.flatnonzero(support.any(axis=1)), np.flatnonzero(support.any(axis=0))
    assert support.sum() == field**2
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == field
