"""Losses and penalties with their gradients against PyTorch, in float64, by the authors' formulas written anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from p2p_jax.nets import PatchGAN
from p2p_jax.objectives import adversary
from support.networks import draw_state

torch = pytest.importorskip("torch")
twin = pytest.importorskip("torch_twin")
functional = torch.nn.functional

GAMES = {
    "hinge": {"gan": "hinge"},
    "lsgan, R1": {"gan": "lsgan", "r1_gamma": 10.0},
    "vanilla, R2": {"gan": "vanilla", "r2_gamma": 3.0},
    "R3GAN": {"gan": "relativistic", "r1_gamma": 2.0, "r2_gamma": 2.0},
    "lazy R1": {"gan": "vanilla", "r1_gamma": 10.0, "penalty_every": 16},
    "hinge, zero-centred": {"gan": "hinge", "lambda_gp": 1.0},
}


def torch_discriminator_loss(judge, real, fake, share, gan, r1_gamma=0.0, r2_gamma=0.0, lambda_gp=0.0, penalty_every=1):
    """Return the loss of a discriminator at a step that has penalties."""
    on_real, on_fake = judge(real), judge(fake)
    loss = {
        "vanilla": lambda: 0.5 * (functional.softplus(-on_real).mean() + functional.softplus(on_fake).mean()),
        "lsgan": lambda: 0.5 * ((on_real - 1).square().mean() + on_fake.square().mean()),
        "hinge": lambda: 0.5 * (functional.relu(1 - on_real).mean() + functional.relu(1 + on_fake).mean()),
        "relativistic": lambda: functional.softplus(-(on_real - on_fake)).mean(),
    }[gan]()

    def penalty(image):
        image = image.detach().clone().requires_grad_(True)
        score = judge(image).mean((1, 2, 3)).sum()
        (slope,) = torch.autograd.grad(score, image, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean()

    for weight, image in (
        (r1_gamma / 2, real),
        (r2_gamma / 2, fake),
        (lambda_gp, share * real + (1 - share) * fake),
    ):
        if weight:
            loss = loss + penalty_every * weight * penalty(image)
    return loss


def torch_generator_loss(judge, real, fake, gan):
    on_fake = judge(fake)
    if gan == "relativistic":
        return functional.softplus(-(on_fake - judge(real))).mean()
    return {
        "vanilla": lambda: functional.softplus(-on_fake).mean(),
        "lsgan": lambda: (on_fake - 1).square().mean(),
        "hinge": lambda: -on_fake.mean(),
    }[gan]()


def to_torch(image):
    return torch.from_numpy(np.asarray(image, np.float64).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("name", GAMES)
def test_loss_and_gradients_equal_pytorch(name, monkeypatch):
    options, share = GAMES[name], 0.3
    monkeypatch.setattr(adversary.jax.random, "uniform", lambda *args, **kwargs: jnp.float64(share))
    with jax.enable_x64(True):
        net = PatchGAN(receptive_field=16, base_width=4, norm="instance", param_dtype=jnp.float64)
        rng = np.random.RandomState(0)
        condition, real, fake = (jnp.asarray(rng.uniform(-1, 1, (2, 16, 16, c))) for c in (2, 3, 3))
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 16, 16, 5)), train=False))
        params = draw_state(shapes)["params"]
        loss = ConfigDict({**{option.name: option.default for option in adversary.OPTIONS}, **options})
        game = adversary.make_adversary(net, loss, real_first=False)
        key = jax.random.key(1)

        def disc_loss(params):
            return game.discriminator_loss(params, {}, real, fake, condition, key, jnp.int32(32))[0]

        def gen_loss(fake):
            return game.generator_loss(params, {}, fake, real, condition, key)[0]

        found, grads = jax.jit(jax.value_and_grad(disc_loss))(params)
        gen_found, gen_grad = jax.jit(jax.value_and_grad(gen_loss))(fake)
        monkeypatch.undo()

    disc = twin.PatchGAN(5, 16, 4, "instance").double()
    twin.load_variables(disc, {"params": params})
    a, real, fake = to_torch(condition), to_torch(real), to_torch(fake).requires_grad_(True)

    def judge(image):
        return disc(torch.cat([a, image], 1))

    expected = torch_discriminator_loss(judge, real, fake.detach(), share, **options)
    expected.backward()
    assert float(found) == pytest.approx(expected.item(), rel=1e-9)
    theirs = flatten_dict(twin.to_flax(disc, lambda tensor: tensor.grad), sep="/")
    ours = flatten_dict({"params": grads}, sep="/")
    assert theirs.keys() == ours.keys()
    for layer, grad in ours.items():
        np.testing.assert_allclose(grad, theirs[layer], rtol=1e-9, atol=1e-12 * np.abs(theirs[layer]).max() + 1e-15)
    expected = torch_generator_loss(judge, real, fake, options["gan"])
    (slope,) = torch.autograd.grad(expected, fake)
    assert float(gen_found) == pytest.approx(expected.item(), rel=1e-9)
    np.testing.assert_allclose(gen_grad, slope.numpy().transpose(0, 2, 3, 1), rtol=1e-9, atol=1e-14)
