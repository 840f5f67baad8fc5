"""Objectives: what is trained. All of them, ours and yours, are ``objectives.base.Objective`` tuples."""

from p2p_jax.objectives import losses, pool
from p2p_jax.objectives.averaging import averaged
from p2p_jax.objectives.base import (
    DEVICE_AXIS,
    Objective,
    average_over_devices,
    blank_batch,
    init_network,
    make_network,
    make_networks,
    new_state,
    run_training,
    statistics,
    translate_each,
)
from p2p_jax.objectives.cut import cut
from p2p_jax.objectives.cyclegan import cyclegan
from p2p_jax.objectives.making import make_objective
from p2p_jax.objectives.optim import descend, make_learning_rates, make_optimizer, make_schedule
from p2p_jax.objectives.pix2pix import pix2pix

__all__ = [
    "DEVICE_AXIS",
    "Objective",
    "average_over_devices",
    "averaged",
    "blank_batch",
    "cut",
    "cyclegan",
    "descend",
    "init_network",
    "losses",
    "make_learning_rates",
    "make_network",
    "make_networks",
    "make_objective",
    "make_optimizer",
    "make_schedule",
    "new_state",
    "pix2pix",
    "pool",
    "run_training",
    "statistics",
    "translate_each",
]
