"""Translation at an image's own size is the network's: padded to what it takes, no further, whatever its norm."""

import jax
import numpy as np
import pytest

from p2p_jax import Translator, nets
from p2p_jax.objectives import blank_batch, pix2pix
from support.configs import small_config
from support.images import noise
from support.runs import write_run

SIZES = [
    (17, 31),
    (100, 100),
    (9, 64),
    (33, 20),
    (61, 47),
    (75, 50),
    (24, 90),
    (41, 41),
    (18, 37),
    (66, 70),
    (16, 29),
    (50, 23),
]
NETWORKS = {
    "unet": (8, {"network": "p2p_jax.nets:UNet", "num_downs": 3, "base_width": 4, "dropout_rate": 0.0}),
    "resnet": (4, {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4}),
    "mobile_resnet": (4, {"network": "p2p_jax.nets:MobileResNet", "num_blocks": 1, "channels": "3_4_2_4_3_4"}),
}
MODES = {
    "batch, of the image": ("batch", "batch"),
    "batch, running": ("batch", "running"),
    "instance": ("instance", "batch"),
    "instance_affine": ("instance_affine", "batch"),
    "instance_tracked, of the image": ("instance_tracked", "batch"),
    "instance_tracked, running": ("instance_tracked", "running"),
    "none": ("none", "batch"),
}


def assert_as_the_network(tmp_path, name, mode, sizes):
    """Compare with the bare network on the image padded by reflection to the network's own multiple."""
    multiple, generator = NETWORKS[name]
    norm, inference = MODES[mode]
    config = small_config(generator={**generator, "norm": norm, "init_gain": 0.5}, inference__norm=inference)
    objective = pix2pix(config)
    state = jax.device_get(objective.init(jax.random.key(0), blank_batch(config)))
    rng = np.random.RandomState(0)  # running statistics that are not 0 and 1
    state["batch_stats"] = jax.tree.map(lambda x: rng.uniform(0.5, 2, x.shape).astype(x.dtype), state["batch_stats"])
    translator = Translator.from_workdir(write_run(tmp_path / "run", config, state))
    kind = {"unet": nets.UNet, "resnet": nets.ResNet, "mobile_resnet": nets.MobileResNet}[name]
    network = kind(3, norm=norm, **{key: value for key, value in generator.items() if key != "network"})
    variables = {key: state[key]["generator"] for key in ("params", "batch_stats")}
    apply = jax.jit(lambda image: network.apply(variables, image, train=inference == "batch", mutable=["batch_stats"]))
    for height, width in sizes:
        image = noise(height, width, 3)
        padding = [(0, -height % multiple), (0, -width % multiple), (0, 0)]
        padded = np.pad(image, padding, mode="reflect").astype(np.float32) / 127.5 - 1
        expected = apply(padded[None])[0]
        expected = np.rint((np.asarray(expected[0, :height, :width], np.float64) + 1) * 127.5)
        difference = np.abs(translator(image) - expected)
        assert np.ptp(expected) > 20
        assert difference.max() <= 1 and (difference > 0).mean() <= 0.002  # between two levels


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_some_sizes(tmp_path, name, mode):
    place = list(MODES).index(mode)
    assert_as_the_network(tmp_path, name, mode, SIZES[place :: len(MODES)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", ["batch, of the image", "instance"])
def test_all_sizes(tmp_path, name, mode):
    assert_as_the_network(tmp_path, name, mode, SIZES)
