"""History pool: fakes of earlier steps for the discriminators (Shrivastava et al. 2017; CycleGAN, section 4).

A pool is ``{"items": a pytree of [size, ...], "filled": [size] bool}``. It is part of an objective's state, so it
is saved and restored with it. Every slice of a pool along its first axis is a pool.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from p2p_jax.errors import InputError

PyTree = Any


def init(size: int, item: PyTree) -> PyTree:
    """Return an empty pool.

    Args:
      size: how many items it holds, 50 in the paper.
      item: shapes and dtypes of one item, without a batch axis.
    """
    items = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), item)
    return {"items": items, "filled": jnp.zeros(size, bool)}


def query(pool: PyTree, batch: PyTree, rng: jax.Array) -> tuple[PyTree, PyTree]:
    """Exchange some items of a batch for stored ones, one after the other.

    An item that meets an empty slot is stored, and returned too. Once the pool is full, an item is returned untouched
    with probability 1/2; otherwise a stored one, drawn uniformly, is returned and the new one takes its place.

    Args:
      pool: as ``init`` or an earlier ``query`` returned it; one of size 0 returns the batch untouched.
      batch: pytree of [B, ...], of the pool's item shapes and dtypes.
      rng: key of all draws.

    Returns:
      The new pool, and the batch for the discriminator.
    """
    size = pool["filled"].shape[0]
    if size == 0:
        return pool, batch

    def exchange(pool, entry):
        item, rng = entry
        swap_rng, slot_rng = jax.random.split(rng)
        full = pool["filled"].all()
        swap = full & jax.random.bernoulli(swap_rng)
        slot = jnp.where(full, jax.random.randint(slot_rng, (), 0, size), pool["filled"].argmin())
        stored = jax.tree.map(lambda x: x[slot], pool["items"])
        kept = jax.tree.map(lambda new, old: jnp.where(swap | ~full, new, old), item, stored)
        returned = jax.tree.map(lambda new, old: jnp.where(swap, old, new), item, stored)
        pool = {
            "items": jax.tree.map(lambda x, new: x.at[slot].set(new), pool["items"], kept),
            "filled": pool["filled"].at[slot].set(True),
        }
        return pool, returned

    keys = jax.random.split(rng, jax.tree.leaves(batch)[0].shape[0])
    return lax.scan(exchange, pool, (batch, keys))


def query_on_devices(pool: PyTree, batch: PyTree, rng: jax.Array, axis_name: str) -> tuple[PyTree, PyTree]:
    """Do what ``query`` does on every device of a mapped axis, each with its own share of the pool.

    The slots are divided evenly (a remainder stays empty), so a state looks the same on any number of devices and
    a run may resume on another number.

    Args:
      pool: the whole pool, the same on all devices.
      batch: this device's items.
      rng: differs by device.
      axis_name: the mapped axis.

    Returns:
      The new pool, the same on all devices, and this device's batch for the discriminator.

    Raises:
      InputError: there are more devices than slots.
    """
    devices = lax.psum(1, axis_name)
    if devices == 1:
        return query(pool, batch, rng)
    share = pool["filled"].shape[0] // devices
    if share == 0:
        raise InputError(
            f"a history pool of {pool['filled'].shape[0]} cannot be shared by {devices} devices: set "
            f"config.loss.pool_size to 0 (none) or to at least {devices}"
        )
    first = lax.axis_index(axis_name) * share
    own = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, share), pool)
    own, batch = query(own, batch, rng)
    merged = jax.tree.map(
        lambda x, part: lax.dynamic_update_slice_in_dim(x, lax.all_gather(part, axis_name, tiled=True), 0, axis=0),
        pool,
        own,
    )
    return merged, batch
