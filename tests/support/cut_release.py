"""CUT's and FastCUT's training in PyTorch, after the facts about the authors' release, and what it is compared on.

Networks are the release's (``torch_release``), a list of modules each, and features are taken behind the modules of the
published numbers: the padded image, the first convolution of either downsampling, the first and the fifth block.
"""

import functools

import jax
import numpy as np

import make_fixtures
from p2p_jax import nets
from p2p_jax.interop.torch_state_dicts import write_network
from p2p_jax.objectives.patch_nce import Head
from support.precision import precision

NUMBERS = (0, 4, 8, 12, 16)
NUM_STEPS, NUM_PLACES = 5, 40
SGD_RATE, ADAM_RATE = 1e-4, 2e-4  # a faster descent multiplies rounding errors
_SMOOTH = {"downsampling": "antialiased"}
GENERATOR = {"num_blocks": 5, "base_width": 4, "upsampling": "antialiased", **_SMOOTH}
DISCRIMINATOR = {"receptive_field": 34, "base_width": 4, "norm": "instance", **_SMOOTH}
VARIANTS = {
    "cut": {"lambda_nce": 1.0, "identity": True, "flip_equivariance": False},
    "fast_cut": {"lambda_nce": 10.0, "identity": False, "flip_equivariance": True},
}
HEAD_WIDTH, SIDE, SEED = 8, 16, 3


def config(variant, optimizer):
    """Return the experiment as a config of ours, in float64."""
    optimizers = {
        "sgd": {"factory": "optax:sgd", "learning_rate": SGD_RATE},
        "adam": {"learning_rate": ADAM_RATE},
    }
    return {
        "objective": "p2p_jax:cut",
        "generator": {"network": "p2p_jax.nets:ResNet", **GENERATOR},
        "discriminator": {"network": "p2p_jax.nets:PatchGAN", **DISCRIMINATOR},
        "loss": {"num_patches": NUM_PLACES, "head_width": HEAD_WIDTH, **VARIANTS[variant]},
        "data": {"crop_size": SIDE, "load_size": SIDE},
        "optimizer": optimizers[optimizer],
        "dtype": "float64",
        "param_dtype": "float64",
    }


@functools.cache
def weights():
    """Return the parameters of gen_ab, head and disc_b as Flax has them."""
    random, width = np.random.RandomState(0), GENERATOR["base_width"]
    generator, discriminator = nets.ResNet(**GENERATOR), nets.PatchGAN(**DISCRIMINATOR)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    channels = (3, 2 * width, 4 * width, 4 * width, 4 * width)
    features = [jax.ShapeDtypeStruct((1, 1, count), "float32") for count in channels]
    shapes = {
        name: jax.eval_shape(functools.partial(network.init, **kwargs), jax.random.key(0), x)
        for name, network, x, kwargs in (
            ("gen_ab", generator, image, {"train": False}),
            ("head", Head(HEAD_WIDTH), features, {}),
            ("disc_b", discriminator, image, {"train": False}),
        )
    }
    return {name: make_fixtures.draw(tree, random)["params"] for name, tree in shapes.items()}


def images():
    """Return images of A and of B, [N, H, W, 3] each, sets of different sizes; steps take two of either in turn."""
    random = np.random.RandomState(7)
    return [make_fixtures.draw_images(random, (count, SIDE, SIDE, 3)) for count in (6, 4)]


def batch_of_step(step):
    """Return the images of A and of B of a step, [2, H, W, 3] each."""
    return [np.stack([domain[(2 * step + i) % len(domain)] for i in range(2)]) for domain in images()]


def places(sizes):
    """Return the places of each map: numbers without return, in no order."""
    return [np.random.RandomState(i).permutation(size)[:NUM_PLACES] for i, size in enumerate(sizes)]


def key_of_step(step):
    """Return the key of a step's update."""
    return jax.random.key(SEED + step)


def flips(num_steps):
    """Tell of each step whether our FastCUT mirrors its images: the coin is thrown with one of the keys of the step."""
    with precision("float64"):
        return [bool(jax.random.bernoulli(jax.random.split(key_of_step(i), 8)[3])) for i in range(num_steps)]


def train_torch(variant, optimizer, num_steps=NUM_STEPS):
    """Train in PyTorch, in float64.

    Returns:
      ``{loss by our name: [num_steps]}``, and the parameters of our names afterwards, ``{player: {name: array}}``.
    """
    import torch

    from support import torch_release

    torch.set_num_threads(1)
    settings = VARIANTS[variant]
    gen = torch_release.SmoothResNet(3, 3, GENERATOR["num_blocks"], GENERATOR["base_width"]).double()
    disc = torch_release.SmoothPatchGAN(3, 2, DISCRIMINATOR["base_width"]).double()
    sections = {
        "gen_ab": {"network": ":ResNet", "padding": "reflect", "dropout_rate": 0.0, "norm": "instance", **GENERATOR},
        "disc_b": {"network": ":PatchGAN", **DISCRIMINATOR},
    }
    for name, network in (("gen_ab", gen), ("disc_b", disc)):
        found = write_network(sections[name], make_fixtures.flatten(weights()[name], "params"), 0)
        network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in found.items()})
    heads = torch.nn.ModuleList()
    for i in range(len(NUMBERS)):
        layers = [weights()["head"][f"{i}_{place}"] for place in ("in", "out")]
        linear = [torch.nn.Linear(*layer["kernel"].shape).double() for layer in layers]
        for module, layer in zip(linear, layers, strict=True):
            module.load_state_dict({"weight": torch.tensor(layer["kernel"].T), "bias": torch.tensor(layer["bias"])})
        heads.append(torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1]))
    if optimizer == "sgd":
        optimizers = [torch.optim.SGD(x.parameters(), lr=SGD_RATE) for x in (disc, gen, heads)]
    else:
        optimizers = [torch.optim.Adam(x.parameters(), lr=ADAM_RATE, betas=(0.5, 0.999)) for x in (disc, gen, heads)]

    def encode(x):
        found = []
        for number, module in enumerate(gen.model):
            x = module(x)
            if number in NUMBERS:
                found.append(x)
            if number == NUMBERS[-1]:
                return found

    def project(maps, chosen):
        found = []
        for x, head, where in zip(maps, heads, chosen, strict=True):
            rows = head(x.flatten(2)[:, :, torch.from_numpy(where)].permute(0, 2, 1))  # [B, N, C]
            found.append(rows / (rows.pow(2).sum(2, keepdim=True).sqrt() + 1e-7))
        return found

    def contrast(source, translation, mirrored):
        queries, keys = encode(translation), encode(source)
        if mirrored:
            queries = [x.flip(3) for x in queries]
        chosen = places([x.shape[2] * x.shape[3] for x in keys])
        losses = []
        for query, key in zip(project(queries, chosen), project(keys, chosen), strict=True):
            key = key.detach()
            positive = (query * key).sum(2, keepdim=True)
            negative = query @ key.transpose(1, 2)
            negative = negative.masked_fill(torch.eye(query.shape[1], dtype=torch.bool), -10.0)
            logits = torch.cat([positive, negative], dim=2).flatten(0, 1) / 0.07
            losses.append(torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)))
        return sum(losses) / len(losses)

    def squared(logits, label):
        return (logits - label).pow(2).mean()

    history = []
    for step, mirrored in enumerate(flips(num_steps)):
        real_a, real_b = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in batch_of_step(step))
        mirrored = mirrored and settings["flip_equivariance"]
        seen = torch.cat([real_a, real_b]) if settings["identity"] else real_a
        translated = gen(seen.flip(3) if mirrored else seen)
        fake, same = translated[:2], translated[2:]
        losses = {"disc/fake": squared(disc(fake.detach()), 0), "disc/real": squared(disc(real_b), 1)}
        optimizers[0].zero_grad()
        (0.5 * (losses["disc/fake"] + losses["disc/real"])).backward()
        optimizers[0].step()
        losses["gen/gan"] = squared(disc(fake), 1)
        losses["gen/nce"] = both = contrast(real_a, fake, mirrored)
        if settings["identity"]:
            losses["gen/nce_identity"] = contrast(real_b, same, mirrored)
            both = 0.5 * (both + losses["gen/nce_identity"])
        losses["gen/total"] = losses["gen/gan"] + settings["lambda_nce"] * both
        for one in optimizers[1:]:
            one.zero_grad()
        losses["gen/total"].backward()
        for one in optimizers[1:]:
            one.step()
        history.append({name: value.item() for name, value in losses.items()})
    params = {"head": {}}
    for i, head in enumerate(heads):
        for place, module in (("in", head[0]), ("out", head[2])):
            params["head"][f"{i}_{place}/kernel"] = module.weight.detach().numpy().T
            params["head"][f"{i}_{place}/bias"] = module.bias.detach().numpy()
    params |= {name: _named(net, sections[name]) for name, net in (("gen_ab", gen), ("disc_b", disc))}
    return {name: np.array([losses[name] for losses in history]) for name in history[0]}, params


def _named(network, section):
    """Return a release's network's parameters by our names, in our order of axes."""
    from p2p_jax.interop.torch_names import modules_of
    from p2p_jax.interop.torch_state_dicts import from_torch

    tensors, found = dict(network.named_parameters()), {}
    for module in modules_of(section):
        for leaf, ours in (("weight", "kernel"), ("bias", "bias")):
            if (tensor := tensors.get(f"{module.name}.{leaf}")) is not None:
                value = tensor.detach().numpy()
                found[f"{module.layer}/{ours}"] = from_torch(value) if value.ndim == 4 else value
    return found


def record():
    """Return what the fixture holds: ``{"VARIANT/OPTIMIZER/LOSS": [num_steps]}``."""
    found = {}
    for variant in VARIANTS:
        for optimizer in ("sgd", "adam"):
            losses, _ = train_torch(variant, optimizer)
            found |= {f"{variant}/{optimizer}/{name}": values for name, values in losses.items()}
    return found
