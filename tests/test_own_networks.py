"""Mistakes in a network of one's own are one sentence that names it, before anything is trained."""

import jax
import numpy as np
import pytest

from p2p_jax import nets
from p2p_jax.config import complete_experiment
from p2p_jax.config.readers import OURS
from p2p_jax.errors import InputError
from p2p_jax.objectives import make_networks, make_objective
from p2p_jax.testing import check_objective
from p2p_jax.training.loop import train
from support.comparers import assert_equal_trees
from support.configs import small_config, small_cut_config, small_cyclegan_config
from support.runs import memory_data

GENERATORS = {
    "Halved": "must return [4, 16, 16, 3] for images [4, 16, 16, 3], not [4, 8, 8, 3]",
    "Gray": "must return [4, 16, 16, 3] for images [4, 16, 16, 3], not [4, 16, 16, 1]; "
    "an attribute out_channels is given 3",
    "Untrained": "must take (x, *, train, dropout=None), but got an unexpected keyword argument 'train'",
    "Constant": "must have parameters",
}
DISCRIMINATORS = {
    "OneScore": "must return one or several maps of logits [4, h, w, 1] for images [4, 16, 16, {}], not [4, 1]",
    "Halved": "must return one or several maps of logits [4, h, w, 1] for images [4, 16, 16, {}], not [4, 8, 8, 3]",
    "Untrained": "must take (x, *, train), but got an unexpected keyword argument 'train'",
}


def plain_cut(**changes):
    """Return CUT without the contrast, which asks more of a network."""
    return small_cut_config(loss__lambda_nce=0.0, loss__identity=False, **changes)


MAKERS = {"pix2pix": (small_config, 6), "cyclegan": (small_cyclegan_config, 3), "cut": (plain_cut, 3)}


def refusal(make, section, name, run):
    config = make(**{section: {"network": f"support.networks:{name}"}})
    with pytest.raises(InputError) as caught:
        run(config)
    before = f"config.{section}.network: support.networks:{name} "
    assert str(caught.value).startswith(before)
    return str(caught.value).removeprefix(before)


def only_traced(config):
    check_objective(make_objective(config), config, run=False)


@pytest.mark.parametrize("objective", MAKERS)
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_that_does_not_fit_is_named(objective, name):
    assert refusal(MAKERS[objective][0], "generator", name, only_traced) == GENERATORS[name]


@pytest.mark.parametrize("objective", MAKERS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_that_does_not_fit_is_named(objective, name):
    make, seen = MAKERS[objective]
    assert refusal(make, "discriminator", name, only_traced) == DISCRIMINATORS[name].format(seen)


def test_training_says_the_same_before_it_writes_anything(tmp_path):
    def start(config):
        train(config, tmp_path / "run", data=memory_data(config))

    assert refusal(small_config, "generator", "Gray", start).endswith(
        "not [1, 16, 16, 1]; an attribute out_channels is given 3"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("section", ["generator", "discriminator"])
def test_a_network_that_cannot_be_called_is_refused_with_the_config(section):
    message = {"generator": GENERATORS, "discriminator": DISCRIMINATORS}[section]["Untrained"]
    assert refusal(small_config, section, "Untrained", complete_experiment) == message


def test_a_look_at_the_output_changes_no_weight():
    config = small_config()
    batch = {name: np.zeros((1, 16, 16, 3), np.float32) for name in ("real_a", "real_b")}
    state = make_objective(config).init(jax.random.key(3), batch)
    rngs = jax.random.split(jax.random.key(3))
    own = make_networks(config)("generator", out_channels=3).init(rngs[0], batch["real_a"], train=False)["params"]
    assert_equal_trees(state["params"]["generator"], own)


def test_options_of_every_network_of_the_library_are_known_by_their_owner():
    """Else a config that names another network would be refused for what it inherited."""
    ready = {"EncoderDecoder", "ResNet6", "ResNet9", "UNet128", "UNet256"}  # these make one of the others
    listed = {
        name.removeprefix("p2p_jax.nets:") for section in ("generator", "discriminator") for name in OURS[section]
    }
    assert listed == set(nets.__all__) - ready - {"RECEPTIVE_FIELDS"}
