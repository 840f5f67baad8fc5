"""Experiments, one complete config a file; installed as ``p2p_jax.configs``. The library imports none of them."""
