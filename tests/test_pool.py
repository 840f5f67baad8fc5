"""The history pool: it fills, then swaps half the time; on devices each has a share of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from p2p_jax.errors import InputError
from p2p_jax.objectives import DEVICE_AXIS, pool

query = jax.jit(pool.query)


def items(*values):
    """Return a batch whose i-th item is full of the i-th value, as a tree of two leaves."""
    values = np.array(values, np.float32)
    return {"image": np.broadcast_to(values[:, None, None, None], (len(values), 2, 2, 1)), "number": values}


def new_pool(size):
    return pool.init(size, {"image": jnp.zeros((2, 2, 1)), "number": jnp.zeros(())})


def numbers(batch):
    """Return the value of every item, and check that its leaves went together."""
    values = np.asarray(batch["number"])
    assert np.array_equal(np.asarray(batch["image"]).mean((1, 2, 3)), values)
    return values.tolist()


def stored(state):
    return [value for value, filled in zip(numbers(state["items"]), state["filled"], strict=True) if filled]


def test_fills_first_and_returns_what_it_stores():
    state = new_pool(5)
    for i, batch in enumerate([items(1, 2), items(3, 4)]):
        state, out = query(state, batch, jax.random.key(i))
        assert numbers(out) == numbers(batch)
    assert stored(state) == [1, 2, 3, 4]


def test_a_batch_that_fills_it_half_way_is_worked_off_in_order():
    """With one slot, the second item of a batch meets the first."""
    seen = set()
    for seed in range(20):
        state, out = query(new_pool(1), items(1, 2), jax.random.key(seed))
        assert numbers(out)[0] == 1
        seen.add((numbers(out)[1], *stored(state)))
    assert seen == {(2, 1), (1, 2)}  # untouched, or swapped


def test_swaps_half_the_time_and_loses_nothing():
    size, count = 50, 2_000
    state, out = query(new_pool(size), items(*range(1, size + 1)), jax.random.key(0))
    state, out = query(state, items(*range(size + 1, size + 1 + count)), jax.random.key(1))
    returned, given = np.array(numbers(out)), np.arange(size + 1, size + 1 + count)
    swapped = returned != given
    # 2,000 draws with p = 1/2 have a standard deviation of 22.
    assert abs(swapped.sum() - count / 2) < 100
    assert (returned[swapped] < given[swapped]).all()  # from the past
    assert sorted([*returned, *stored(state)]) == list(range(1, size + 1 + count))
    # An item that was stored waits 50 swaps on average, 100 draws.
    waited = given[swapped] - returned[swapped]
    assert 80 < waited.mean() < 120


def test_slots_are_drawn_uniformly():
    size = 4
    state, _ = query(new_pool(size), items(0, 1, 2, 3), jax.random.key(0))
    out = jax.vmap(lambda key: pool.query(state, items(9), key)[1]["number"][0])(
        jax.random.split(jax.random.key(1), 4000)
    )
    counts = np.bincount(np.asarray(out, int), minlength=10)
    assert counts[:4].sum() + counts[9] == 4000
    assert np.abs(counts[:4] - 500).max() < 100  # standard deviation 21


def test_size_zero_is_the_identity():
    state, out = query(new_pool(0), items(1, 2), jax.random.key(0))
    assert numbers(out) == [1, 2]
    assert state["filled"].shape == (0,)


@pytest.mark.slow
def test_jit_equals_eager():
    state = new_pool(3)
    with jax.disable_jit():
        eager = pool.query(*pool.query(state, items(1, 2), jax.random.key(0))[:1], items(3, 4, 5, 6), jax.random.key(1))
    compiled = query(query(state, items(1, 2), jax.random.key(0))[0], items(3, 4, 5, 6), jax.random.key(1))
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_array_equal(a, b)


def on_devices(size, batches):
    """Query on all devices, as the training step does: returns the pool and each step's items, in order of device."""
    mesh = Mesh(np.array(jax.devices()), (DEVICE_AXIS,))
    split = PartitionSpec(DEVICE_AXIS)

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), split, split), out_specs=(split, split), check_vma=False
    )
    def step(state, batch, rng):
        state, out = pool.query_on_devices(state, batch, rng[0], DEVICE_AXIS)
        return jax.tree.map(lambda x: x[None], state), out  # every device's copy, so that they can be compared

    state, outs = new_pool(size), []
    for i, batch in enumerate(batches):
        copies, out = step(state, batch, jax.random.split(jax.random.key(i), jax.device_count()))
        for leaf in jax.tree.leaves(copies):
            assert all(np.array_equal(leaf[0], other) for other in leaf[1:])
        state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[0]), copies)
        outs.append(numbers(out))
    return state, outs


@pytest.mark.slow
def test_every_device_has_a_share_and_a_history_of_its_own():
    """Device d sees the items 100 d + step; whatever it is handed must be its own."""
    devices, size, steps = jax.device_count(), 7, 40
    batches = [items(*(100 * d + step for d in range(devices))) for step in range(steps)]
    state, outs = on_devices(size, batches)
    share = size // devices
    assert int(state["filled"].sum()) == share * devices
    owners = np.asarray(state["items"]["number"])[: share * devices] // 100
    assert owners.tolist() == np.repeat(np.arange(devices), share).tolist()
    for out in outs:
        assert [value // 100 for value in out] == list(range(devices))
    swapped = [[value % 100 != step for value in out] for step, out in enumerate(outs)]
    assert any(a != b for a, b in swapped[share:])  # the devices draw by themselves


def test_fewer_slots_than_devices_is_an_error():
    with pytest.raises(InputError, match="pool of 1 cannot be shared by 2 devices: set config.loss.pool_size to 0"):
        on_devices(jax.device_count() - 1, [items(*range(jax.device_count()))])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_items_keep_their_dtype(dtype):
    state, out = pool.query(pool.init(1, jnp.zeros((), dtype)), jnp.ones(2, dtype), jax.random.key(0))
    assert out.dtype == state["items"].dtype == dtype
