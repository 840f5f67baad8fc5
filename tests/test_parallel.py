"""Devices: one step on 4 simulated devices equals the mean over shards; pmap, shard_map and two processes agree."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import p2p_jax
from p2p_jax.errors import InputError
from p2p_jax.testing import check_objective
from p2p_jax.training import dispatches, parallel
from support.configs import small_config
from support.images import random_batch
from support.processes import finish, processes, run_python
from support.runs import assert_rows_close, memory_data


@pytest.mark.slow
def test_sgd_step_is_the_mean_over_shards():
    """With SGD, because Adam hides a gradient that is four times too large."""
    printed = run_python(
        """
        import json
        from support.configs import small_config
        from support.images import random_batch
        from support.runs import memory_data
        import jax, jax.numpy as jnp, numpy as np, p2p_jax
        from p2p_jax.training import parallel
        from p2p_jax.nets import PatchGAN, UNet
        from p2p_jax.objectives.losses import bce, l1

        config = small_config(
            batch_size=8, generator__dropout_rate=0.0, optimizer__factory="optax:sgd", optimizer__learning_rate=0.1
        )
        objective = p2p_jax.pix2pix(config)
        batch = random_batch(config)
        state = jax.device_get(jax.jit(objective.init)(jax.random.key(0), batch))

        # The same update written out plainly, one shard after another on one device.
        gen, disc = UNet(num_downs=3, base_width=4, dropout_rate=0.0), PatchGAN(receptive_field=16, base_width=4)
        params, stats = state["params"], state["batch_stats"]
        shards = [(batch["real_a"][i : i + 2], batch["real_b"][i : i + 2]) for i in range(0, 8, 2)]

        def G(p, a):
            return gen.apply({"params": p, "batch_stats": stats["generator"]}, a, train=True)

        def D(p, a, b):
            variables = {"params": p, "batch_stats": stats["discriminator"]}
            return disc.apply(variables, jnp.concatenate([a, b], -1), train=True)

        def disc_loss(p, a, b):
            return (bce(D(p, a, G(params["generator"], a)), 0.0) + bce(D(p, a, b), 1.0)) / 2

        def gen_loss(p, disc_params, a, b):
            return bce(D(disc_params, a, G(p, a)), 1.0) + 100 * l1(G(p, a), b)

        def descend(p, loss, *rest):
            grads = [jax.jit(jax.grad(loss))(p, *rest, a, b) for a, b in shards]
            return jax.tree.map(lambda x, *g: x - 0.1 * sum(g) / 4, p, *grads)

        new_disc = descend(params["discriminator"], disc_loss)
        expected = {"discriminator": new_disc, "generator": descend(params["generator"], gen_loss, new_disc)}
        variables = {"params": params["generator"], "batch_stats": stats["generator"]}
        mutated = [gen.apply(variables, a, train=True, mutable=["batch_stats"])[1] for a, _ in shards]
        expected_mean = sum(m["batch_stats"]["up_3_norm"]["mean"] for m in mutated) / 4

        errors = {"devices": jax.device_count()}
        for name, compile_update in {"pmap": parallel.pmap_update, "shard_map": parallel.shard_map_update}.items():
            new = jax.device_get(compile_update(objective.update)(state, batch, jax.random.key(1))[0])
            for player in expected:
                moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected[player], params[player])
                error = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected[player], new["params"][player])
                errors[f"{name} {player}"] = [float(max(jax.tree.leaves(t))) for t in (moved, error)]
            mean = new["batch_stats"]["generator"]["up_3_norm"]["mean"]
            errors[f"{name} statistics"] = [float(np.abs(x).max()) for x in (expected_mean, mean - expected_mean)]
        print(json.dumps(errors))
        """,
        devices=4,
    )
    errors = json.loads(printed.splitlines()[-1])
    assert errors.pop("devices") == 4
    assert len(errors) == 6
    for name, (moved, error) in errors.items():
        assert moved > 1e-4, name
        assert error < 1e-4 * moved, name


TRAIN = """
    import os, sys
    from support.configs import small_config
    from support.images import random_batch
    from support.runs import memory_data
    import jax, numpy as np
    if "JAX_PROCESS_ID" in os.environ:
        jax.distributed.initialize(os.environ["JAX_COORDINATOR_ADDRESS"], 2, int(os.environ["JAX_PROCESS_ID"]))
    import p2p_jax
    several = {"log_every": 2, "steps_per_dispatch": jax.process_count()}
    config = small_config(seed=5, num_steps=int(sys.argv[2]), **several)
    data, share = memory_data(config), 4 // jax.process_count()
    first = jax.process_index() * share

    def batches(step):
        for batch in memory_data(config).train(step):
            yield {k: v[first : first + share] for k, v in batch.items()}

    def validation(batch_size):
        for batch in memory_data(config).validation(8):
            if jax.process_index() < 1 or jax.process_count() == 1:  # the second process has no image to evaluate
                yield batch

    state = p2p_jax.train(config, sys.argv[1], data=data._replace(train=batches, validation=validation))
    leaves = [np.asarray(x.addressable_data(0)).ravel() for x in jax.tree.leaves(state["params"])]
    np.save(f"{sys.argv[1]}/params{jax.process_index()}.npy", np.concatenate(leaves))
"""


@pytest.mark.slow
def test_two_processes_train_save_and_resume_like_one(tmp_path):
    """The two do two steps in a dispatch, the one does one."""
    run_python(TRAIN, tmp_path / "one", 4, devices=4)
    expected = np.load(tmp_path / "one" / "params0.npy")
    for steps in (2, 4):
        with processes(2, 2, tmp_path / "two", steps, code=TRAIN) as pair:
            finish(pair)
    found = [np.load(tmp_path / "two" / f"params{i}.npy") for i in range(2)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    assert len(expected) > 1000
    assert_rows_close(tmp_path / "one", tmp_path / "two", 2)


def test_batch_that_does_not_divide():
    with pytest.raises(InputError, match="batch_size=3 cannot be split over 2 devices"):
        parallel.check_batch_size(3)


def test_evaluation_pads_and_cuts():
    config = small_config()
    calls = []

    def evaluate(state, batch, rng):
        calls.append(batch["real_a"].shape)
        return {"mean": batch["real_a"].mean((1, 2, 3)) * state["factor"]}, {"image": batch["real_a"]}

    run = parallel.Evaluation(evaluate, 2)
    for size in (4, 3, 1, 9):
        batch = random_batch(config, size=size)
        metrics, images = run({"factor": np.float32(2)}, batch, jax.random.key(0))
        np.testing.assert_allclose(metrics["mean"], 2 * batch["real_a"].mean((1, 2, 3)), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(images["image"], batch["real_a"])
    assert calls == [(2, 16, 16, 3)]  # two devices, one compilation


@pytest.mark.slow
def test_accelerators_step_trains_alike(tmp_path, monkeypatch):
    """What GPUs and TPUs run, pmap, here on CPUs: train, resume, contract."""
    sgd = {"factory": "optax:sgd", "learning_rate": 0.01}
    config = small_config(num_steps=3, optimizer=sgd)
    expected = p2p_jax.train(config, tmp_path / "cpu", data=memory_data(config))
    monkeypatch.setattr(parallel, "compile_update", lambda update, *_: parallel.pmap_update(update))
    for steps in (2, 3):
        config = small_config(num_steps=steps, optimizer=sgd)
        state = p2p_jax.train(config, tmp_path / "accelerator", data=memory_data(config))
    assert int(state["step"]) == 3
    for a, b in zip(*map(jax.tree.leaves, (expected["params"], state["params"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    check_objective(p2p_jax.pix2pix(config), config)


def test_columns_keep_the_order_of_the_objective():
    def evaluate(state, batch, rng):
        return {"mean": batch["real_a"].mean((1, 2, 3))}, {name: batch["real_a"] for name in ("real", "fake", "again")}

    config = small_config()
    run = parallel.Evaluation(evaluate, 2)
    for _ in range(2):
        _, images = run({}, random_batch(config), jax.random.key(0))
        assert list(images) == ["real", "fake", "again"]


@pytest.mark.parametrize("compile_update", [parallel.pmap_update, parallel.shard_map_update])
def test_the_new_state_takes_the_memory_of_the_old(compile_update):
    """But for what somebody looks at on the host, such as a save that still goes on: it keeps its numbers."""

    def update(state, batch, rng):
        return {name: value + 1 for name, value in state.items()}, {"total": batch["real_a"].sum()}

    step, batch, rng = compile_update(update), random_batch(small_config()), jax.random.key(0)
    seen = {"step": np.int32(0), "free": np.zeros(1000, np.float32), "looked_at": np.zeros(1000, np.float32)}
    old, _, _ = step(parallel.replicate(seen), batch, rng)
    view = np.asarray(parallel.for_saving(old)["looked_at"])
    new, _, _ = jax.block_until_ready(step(old, batch, rng))
    assert old["free"].is_deleted()
    np.testing.assert_array_equal(view, 1)
    np.testing.assert_array_equal(new["looked_at"], 2)
    np.testing.assert_array_equal(new["free"], 2)


@pytest.mark.parametrize("compile_update", [parallel.pmap_update, parallel.shard_map_update])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_step_compiles_once(compile_update, ahead):
    """If it is compiled before there is a state, the first run compiles nothing."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )

    def update(state, batch, rng):
        total = jax.lax.psum(batch["real_a"].sum(), parallel.DEVICE_AXIS)
        return {"step": state["step"] + 1, "total": state["total"] + total}, {"total": total}

    shapes = {"step": jax.ShapeDtypeStruct((), np.int32), "total": jax.ShapeDtypeStruct((), np.float32)}
    state = parallel.replicate(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    step, batch, rng = compile_update(update), random_batch(small_config()), jax.random.key(0)
    placed = step.place(batch)
    if ahead:
        assert step.metrics(shapes, placed, rng) == ["total"]
        step.compile(shapes, placed, rng)
    else:
        state, _, _ = jax.block_until_ready(step(state, batch, rng))
    before = len(compiled)
    for _ in range(3):
        state, _, _ = step(state, batch, rng)
    assert before > 0
    if not (ahead and compile_update is parallel.pmap_update):  # old versions of JAX compile a pmap again
        assert len(compiled) == before
    assert int(state["step"]) == 3 + (not ahead)
    assert float(state["total"]) == pytest.approx(int(state["step"]) * float(batch["real_a"].sum()), rel=1e-4)


def test_every_step_and_device_has_noise_of_its_own():
    def update(state, batch, rng):
        drawn = jax.lax.all_gather(jax.random.normal(rng, (3,)), parallel.DEVICE_AXIS)
        return {"step": state["step"] + 1, "drawn": drawn}, {"number": drawn.sum()}

    state, rng = {"step": np.int32(0), "drawn": np.zeros((2, 3), np.float32)}, jax.random.key(0)
    batch, seen = random_batch(small_config()), set()
    for compile_update in (parallel.pmap_update, parallel.shard_map_update):
        new, found = parallel.replicate(state), []
        step = compile_update(update)
        for _ in range(3):
            new, _, _ = step(new, batch, rng)
            found.append(np.asarray(new["drawn"]))
        seen.add(np.stack(found).tobytes())
        assert len({row.tobytes() for row in np.concatenate(found)}) == 6
    assert len(seen) == 1  # a function of the rng, the step and the device


def counting_update(state, batch, rng):
    """Keep the last numbers that all devices saw; not finite where one of them is 13."""
    seen = jax.lax.all_gather(batch["number"], parallel.DEVICE_AXIS).reshape(-1)
    state = {"step": state["step"] + 1, "seen": seen, "total": state["total"] + (1 + state["step"]) * seen.sum()}
    return state, {"sum": jnp.where((seen == 13).any(), jnp.nan, seen.sum())}


@pytest.mark.parametrize(
    ("compile_update", "resident"),
    [(parallel.pmap_update, False), (parallel.shard_map_update, False), (parallel.shard_map_update, True)],
)
def test_steps_of_one_dispatch_see_their_own_batches(compile_update, resident):
    """Twelve numbers in three steps of two devices, in order; the thirteenth's step is not finite."""
    numbers = np.arange(24, dtype=np.float32).reshape(6, 4)
    options = {"num_steps": 3}
    if resident:
        options |= {"draw": lambda arrays, at: {"number": arrays["all"][at] + 0.0}, "batch_size": 4}
    step = compile_update(counting_update, **options)
    state = {"step": np.int32(0), "seen": np.zeros(4, np.float32), "total": np.float32(0)}
    state, rng = parallel.replicate(state), jax.random.key(0)
    for first in (0, 3):
        batch = {"all": numbers.ravel()} if resident else {"number": numbers[first : first + 3]}
        state, metrics, finite = step.run(state, step.place(batch), rng)
        np.testing.assert_array_equal(state["seen"], numbers[first + 2])
        assert float(metrics["sum"]) == numbers[first + 2].sum()
        assert np.asarray(finite).tolist() == [first + i != 3 for i in range(3)]
    assert int(state["step"]) == 6
    assert float(state["total"]) == sum((i + 1) * row.sum() for i, row in enumerate(numbers))


def test_positions_start_where_the_step_is():
    """Far on, where numbers of 32 bits with a sign would not do."""
    update = parallel.compile_update(counting_update, lambda arrays, at: {"number": at % 1000 * arrays["one"]}, 4)
    state = {"step": np.int32(2**30 - 1), "seen": np.zeros(4, np.float32), "total": np.float32(0)}
    state, _, finite = update(parallel.replicate(state), {"one": np.float32(1)}, jax.random.key(0))
    assert np.asarray(state["seen"]).tolist() == [(4 * (2**30 - 1) + i) % 1000 for i in range(4)]
    assert np.asarray(finite).tolist() == [True]


def test_how_many_steps_suit_the_devices(monkeypatch):
    def chosen(**changes):
        published = {"log_every": 100, "sample_every": 2_000, "eval_every": 4_000, "checkpoint_every": 4_000}
        config = small_config(**{**published, "data__load_size": 286, "data__crop_size": 256, **changes})
        return dispatches.num_steps(config)

    assert chosen() == 1
    assert chosen(steps_per_dispatch=7) == 7
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chosen(batch_size=2) == 50  # on two devices
    assert chosen(batch_size=32) == 4
    assert chosen(batch_size=200) == 1
    assert chosen(batch_size=2, log_every=30) == 10
    assert chosen(batch_size=2, data__load_size=1024, data__crop_size=1024) == 4
    assert chosen(batch_size=2, data__load_size=64, data__crop_size=64) == 100
    assert chosen(batch_size=32, steps_per_dispatch=7) == 7


def test_finiteness():
    state = {"a": np.ones(3, np.float32), "step": np.int32(1)}
    assert parallel.all_finite(state)
    assert not parallel.all_finite({**state, "b": np.array([1, np.nan], np.float32)})
