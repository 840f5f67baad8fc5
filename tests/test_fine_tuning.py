"""Fine-tuning: what is taken of another run, what stays fresh, what is refused, and that it goes on from there."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import p2p_jax
from p2p_jax import train
from p2p_jax.config import complete
from p2p_jax.errors import InputError
from p2p_jax.training.checkpoint import CONVERTED, read_config, saved_shapes
from p2p_jax.training.fine_tuning import find_source, take_weights
from p2p_jax.training.saving import Checkpoints
from support.comparers import assert_equal_trees
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch
from support.processes import finish, processes
from support.runs import learnable_data, memory_data, rows_of, write_run


def fresh_state(config):
    make = {"p2p_jax:pix2pix": p2p_jax.pix2pix, "p2p_jax:cyclegan": p2p_jax.cyclegan}[config.objective]
    return jax.jit(make(config).init)(jax.random.key(config.seed), random_batch(config, size=1))


def state_of(run, step):
    """Return a saved state, by way of the objective that saved it."""
    config = read_config(run)
    make = {"p2p_jax:pix2pix": p2p_jax.pix2pix, "p2p_jax:cyclegan": p2p_jax.cyclegan}[config.objective]
    shapes = jax.eval_shape(make(config).init, jax.random.key(0), random_batch(config, size=1))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    checkpoints = Checkpoints(run, config)
    try:
        return jax.device_get(checkpoints.restore(step, shapes, sharding))
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def pix2pix_run(tmp_path_factory):
    """A run's directory with checkpoints at steps 2 and 4, none of them trained; read it only."""
    workdir, config = tmp_path_factory.mktemp("runs") / "pix2pix", small_config(data__num_train=8)
    for step in (2, 4):
        write_run(workdir, config, jax.device_get(fresh_state(small_config(seed=step))), step)
    return workdir


@pytest.fixture(scope="module")
def cyclegan_run(tmp_path_factory):
    """The same without pairs."""
    workdir, config = tmp_path_factory.mktemp("runs") / "cyclegan", small_cyclegan_config(data__num_train=8)
    write_run(workdir, config, jax.device_get(fresh_state(small_cyclegan_config(seed=4))), 4)
    return workdir


def weights(state, players=None):
    """Return parameters and statistics of players, without their names in the order given."""
    names = players or sorted(state["params"])
    return [{"params": state["params"][name], "batch_stats": state["batch_stats"][name]} for name in names]


@pytest.mark.slow
def test_everything_is_taken(pix2pix_run, capsys):
    config = small_config(seed=5)
    fresh = fresh_state(config)
    for init_from, step in ((pix2pix_run, 4), (pix2pix_run / "checkpoints" / "2", 2)):
        state = take_weights(find_source(str(init_from), pix2pix_run.parent / "new"), fresh, config)
        saved = state_of(pix2pix_run, step)
        assert_equal_trees(weights(state), weights(saved))
        assert_equal_trees(state["opt_state"], fresh["opt_state"])
        assert int(state["step"]) == 0
        lines = capsys.readouterr().out.splitlines()
        size = {name: sum(x.size for x in jax.tree.leaves(fresh["params"][name])) for name in fresh["params"]}
        start = f"init_from {init_from}, step {step}: "
        assert lines == [f"{start}{name}: {size[name]:,} of {size[name]:,} parameters" for name in sorted(size)]
    assert not np.array_equal(
        fresh["params"]["generator"]["up_1"]["kernel"], saved["params"]["generator"]["up_1"]["kernel"]
    )


def learns_nothing(config):
    """Return an objective that hands the weights on, to the bit."""

    def update(state, batch, rng):
        return {**state, "step": state["step"] + 1}, {"nothing": jnp.zeros(())}

    def evaluate(state, batch, rng):
        return {"l1": batch["real_b"].mean((1, 2, 3))}, {"target": batch["real_b"]}

    return p2p_jax.pix2pix(config)._replace(update=update, evaluate=evaluate)


@pytest.mark.slow
def test_a_run_starts_from_it_on_all_devices(pix2pix_run, tmp_path):
    config = small_config(num_steps=2, seed=5, init_from=str(pix2pix_run))
    state = train(config, tmp_path / "run", learns_nothing(config), memory_data(config))
    assert_equal_trees(weights(state), weights(state_of(pix2pix_run, 4)))
    assert int(state["step"]) == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["init_from"] == str(pix2pix_run)


TWO_PROCESSES = """
    import os, sys
    from test_fine_tuning import learns_nothing, memory_data, small_config
    import jax, numpy as np
    jax.distributed.initialize(os.environ["JAX_COORDINATOR_ADDRESS"], 2, int(os.environ["JAX_PROCESS_ID"]))
    import p2p_jax
    config = small_config(num_steps=1, seed=5, init_from=sys.argv[1])

    def batches(step):
        for batch in memory_data(config).train(step):
            yield {k: v[:2] for k, v in batch.items()}

    data = memory_data(config)._replace(train=batches)
    state = p2p_jax.train(config, sys.argv[2], learns_nothing(config), data)
    leaves = [np.asarray(x.addressable_data(0)) for x in jax.tree.leaves((state["params"], state["batch_stats"]))]
    np.savez(f"{sys.argv[2]}/weights{jax.process_index()}.npz", *leaves)
"""


@pytest.mark.slow
def test_two_processes_start_from_it(pix2pix_run, tmp_path):
    run, saved = tmp_path / "run", state_of(pix2pix_run, 4)
    with processes(2, 1, pix2pix_run, run, code=TWO_PROCESSES) as pair:
        finish(pair)
    for i in range(2):
        found = np.load(run / f"weights{i}.npz")
        assert_equal_trees([found[name] for name in found], jax.tree.leaves((saved["params"], saved["batch_stats"])))


@pytest.mark.slow
def test_pix2pix_takes_of_a_cyclegan_what_maps_a_to_b(cyclegan_run, capsys):
    resnet = {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4}
    config = small_config(generator=resnet, discriminator__norm="instance", data__direction="AtoB")
    fresh, saved = fresh_state(config), state_of(cyclegan_run, 4)
    state = take_weights(find_source(str(cyclegan_run), cyclegan_run / "new"), fresh, config)
    assert_equal_trees(weights(state, ["generator"]), weights(saved, ["gen_ab"]))
    ours, theirs = state["params"]["discriminator"], saved["params"]["disc_b"]
    assert_equal_trees(ours["conv_1"], fresh["params"]["discriminator"]["conv_1"])  # it sees both images here
    assert_equal_trees({**ours, "conv_1": None}, {**theirs, "conv_1": None})
    start = f"init_from {cyclegan_run}, step 4"
    discriminator, fresh_layer, generator, rest = capsys.readouterr().out.splitlines()
    assert discriminator == f"{start}: discriminator: 649 of 1,037 parameters, from disc_b"
    assert fresh_layer == "  starts fresh: conv_1 (kernel 4x4x3x4 -> 4x4x6x4)"
    assert generator.startswith(f"{start}: generator: ")
    assert generator.endswith(" parameters, from gen_ab")
    assert rest == f"{start}: not used: disc_a, gen_ba"


@pytest.mark.slow
def test_cyclegan_takes_a_pix2pix_generator_for_one_direction(pix2pix_run, capsys):
    unet = {"num_downs": 3, "base_width": 4}
    config = small_cyclegan_config(generator=unet, discriminator__norm="batch", data__direction="BtoA")
    fresh, saved = fresh_state(config), state_of(pix2pix_run, 4)
    state = take_weights(find_source(str(pix2pix_run), pix2pix_run / "new"), fresh, config)
    assert_equal_trees(weights(state, ["gen_ab"]), weights(saved, ["generator"]))
    assert_equal_trees(weights(state, ["gen_ba", "disc_a"]), weights(fresh, ["gen_ba", "disc_a"]))
    assert_equal_trees(state["params"]["disc_b"]["conv_2"], saved["params"]["discriminator"]["conv_2"])
    assert "gen_ba: none of 6,251 parameters; there is no gen_ba there" in capsys.readouterr().out


@pytest.mark.slow
def test_with_the_other_direction_the_other_generator_is_taken(cyclegan_run, pix2pix_run, capsys):
    """The run without pairs goes from A to B, that with pairs from B to A: its input is the other's output."""
    config = small_cyclegan_config(data__direction="BtoA")
    fresh, saved = fresh_state(config), state_of(cyclegan_run, 4)
    state = take_weights(find_source(str(cyclegan_run), cyclegan_run / "new"), fresh, config)
    assert_equal_trees(
        weights(state, ["gen_ab", "gen_ba", "disc_a", "disc_b"]),
        weights(saved, ["gen_ba", "gen_ab", "disc_b", "disc_a"]),
    )
    assert "  note: config.data.direction was AtoB there and is BtoA here" in capsys.readouterr().out

    resnet = {"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4}
    config = small_config(generator=resnet, discriminator__norm="instance")
    state = take_weights(find_source(str(cyclegan_run), cyclegan_run / "new"), fresh_state(config), config)
    assert_equal_trees(weights(state, ["generator"]), weights(saved, ["gen_ba"]))
    assert_equal_trees(state["params"]["discriminator"]["conv_2"], saved["params"]["disc_a"]["conv_2"])

    config = small_cyclegan_config(generator={"num_downs": 3, "base_width": 4}, discriminator__norm="batch")
    fresh, saved = fresh_state(config), state_of(pix2pix_run, 4)
    state = take_weights(find_source(str(pix2pix_run), pix2pix_run / "new"), fresh, config)
    assert_equal_trees(weights(state, ["gen_ba"]), weights(saved, ["generator"]))
    assert_equal_trees(weights(state, ["gen_ab"]), weights(fresh, ["gen_ab"]))
    assert_equal_trees(state["params"]["disc_a"]["conv_2"], saved["params"]["discriminator"]["conv_2"])

    capsys.readouterr()
    config = small_config(data__direction="AtoB", generator__dropout_layout="pytorch", discriminator__padding=2)
    state = take_weights(find_source(str(pix2pix_run), pix2pix_run / "new"), fresh_state(config), config)
    assert_equal_trees(weights(state, ["generator"]), weights(saved, ["generator"]))
    assert [line for line in capsys.readouterr().out.splitlines() if "note" in line] == [
        "  note: config.data.direction was BtoA there and is AtoB here",
        "  note: discriminator.padding was 1 there and is 2 here; --config.discriminator.padding=1 keeps it",
        "  note: generator.dropout_layout was 'paper' there and is 'pytorch' here; "
        "--config.generator.dropout_layout=paper keeps it",
    ]


def test_other_channels_start_their_layers_afresh(pix2pix_run, capsys):
    config = small_config(data__input__channels=1, param_dtype="bfloat16")
    fresh, saved = fresh_state(config), state_of(pix2pix_run, 4)
    state = take_weights(find_source(str(pix2pix_run), pix2pix_run / "new"), fresh, config)
    for player, first in (("generator", "down_1"), ("discriminator", "conv_1")):
        ours, theirs = state["params"][player], saved["params"][player]
        assert_equal_trees(ours[first], fresh["params"][player][first])
        assert_equal_trees(
            {k: v for k, v in ours.items() if k != first},
            jax.tree.map(lambda x: x.astype(jnp.bfloat16), {k: v for k, v in theirs.items() if k != first}),
        )
        assert_equal_trees(state["batch_stats"][player], saved["batch_stats"][player])
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, fresh)
    out = capsys.readouterr().out
    assert "  starts fresh: down_1 (kernel 4x4x3x4 -> 4x4x1x4)" in out
    assert "  starts fresh: conv_1 (kernel 4x4x6x4 -> 4x4x4x4)" in out


def test_a_layer_is_taken_as_a_whole(tmp_path, capsys):
    """Of a norm, parameters and statistics; of a convolution, kernel and bias. What has no place is named."""

    def state(params, stats, value):
        def fill(layers):
            return {
                "generator": {k: {n: np.full(s, value, np.float32) for n, s in v.items()} for k, v in layers.items()}
            }

        return {"step": np.array(value, np.int32), "params": fill(params), "batch_stats": fill(stats)}

    norm, statistics = {"scale": 3, "bias": 3}, {"mean": 3, "var": 3}
    theirs = {"same": norm, "no_stats": norm, "other": {"kernel": (2, 3)}, "no_bias": {"kernel": (2, 3)}}
    theirs |= {"more": {"kernel": (2, 3), "bias": 3}, "gone": {"kernel": 3}} | {f"old_{i}": {"w": 1} for i in range(7)}
    write_run(tmp_path / "old", small_config(), state(theirs, {"same": statistics, "no_scale": statistics}, 1.0), 7)
    ours = {"same": norm, "no_stats": norm, "no_scale": norm, "other": {"kernel": (4, 3)}, "new": {"kernel": 3}}
    ours |= {"no_bias": {"kernel": (2, 3), "bias": 3}, "more": {"kernel": (2, 3)}}
    fresh = state(ours, {"same": statistics, "no_stats": statistics, "no_scale": statistics}, 0.0)
    source = find_source(str(tmp_path / "old"), tmp_path / "new")
    result = take_weights(source, fresh, small_config())
    found = {
        name: {float(x) for leaf in jax.tree.leaves(v) for x in leaf.flat}
        for name, v in result["params"]["generator"].items()
    }
    assert found == {name: {float(name in ("same", "more"))} for name in ours}
    stats = {name: float(v["mean"][0]) for name, v in result["batch_stats"]["generator"].items()}
    assert stats == {"same": 1.0, "no_stats": 0.0, "no_scale": 0.0}
    assert capsys.readouterr().out.splitlines() == [
        f"init_from {tmp_path / 'old'}, step 7: generator: 12 of 48 parameters",
        "  starts fresh: new (absent), no_bias (bias is absent), no_scale (bias is absent, scale is absent), "
        "no_stats (mean is absent, var is absent), other (kernel 2x3 -> 4x3)",
        "  not used from the source: gone, old_0, old_1, old_2, old_3, old_4, and 3 more",
    ]


@pytest.mark.slow
def test_another_network_is_refused(pix2pix_run, tmp_path):
    config = small_config(generator__base_width=8, init_from=str(pix2pix_run))
    with pytest.raises(
        InputError, match=r"p2p_jax.nets:UNet with .*base_width=4 .*p2p_jax.nets:UNet with .*base_width=8"
    ):
        train(config, tmp_path / "run", data=memory_data(config))
    resnet = small_config(
        generator={"network": "p2p_jax.nets:ResNet", "num_blocks": 1, "base_width": 4}, init_from=str(pix2pix_run)
    )
    with pytest.raises(
        InputError, match=r"It has p2p_jax.nets:UNet .*\(discriminator, generator\), .*nets:ResNet with"
    ):
        train(resnet, tmp_path / "run", data=memory_data(resnet))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_refused_before_data_are_read(pix2pix_run, tmp_path):
    (tmp_path / "latest_net_G.pth").write_bytes(b"PK")
    (tmp_path / "model-200.index").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "latest_net_G.pth": r"is a file, .*python -m p2p_jax convert --input .*latest_net_G.pth --workdir RUN makes",
        "model-200": r"python -m p2p_jax convert --input .*model-200 --workdir RUN",
        "nowhere": r"there is no directory .*nowhere",
        "empty": r"empty holds no checkpoint of a run; .*python -m p2p_jax convert",
        "run": r"is the `workdir` itself",
        pix2pix_run / "checkpoints" / "3": r"has only the checkpoints \[2, 4\]",
    }.items():
        config = small_config(init_from=str(tmp_path / name), data__source="side_by_side", data__dir="/no/such/data")
        with pytest.raises(InputError, match=message):
            train(config, tmp_path / "run")
    config = small_config(init_from=str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"is the `workdir` itself"):
        train(config, tmp_path / "empty")
    with pytest.raises(InputError, match=r"config.init_from is None; it must be text"):
        small_config(init_from=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "latest_net_G.pth", "model-200.index"]
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("damage", ["weights cut short", "weights missing", "structure cut short"])
def test_a_damaged_source_is_refused(pix2pix_run, tmp_path, damage):
    source = tmp_path / "source"
    shutil.copytree(pix2pix_run, source)
    state = source / "checkpoints" / "4" / "state"
    for file in [state / "_METADATA"] if "structure" in damage else state.rglob("d/*"):
        file.unlink() if "missing" in damage else file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    config = small_config(init_from=str(source))
    what = {
        "weights cut short": r"state/.*d/\w+ has [\d,]+ bytes; [\d,]+ were written",
        "weights missing": r"state/.*d/\w+ cannot be read",
    }
    with pytest.raises(
        InputError,
        match=rf"the checkpoint .*source/checkpoints/4 is damaged: {what.get(damage, 'state/_METADATA has')}.*; "
        r"good: 2; choose one, such as config.init_from=.*source/checkpoints/2$",
    ):
        train(config, tmp_path / "run", data=memory_data(config))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_converted_weights_start_a_run_and_are_none(tmp_path, capsys):
    """A conversion has a generator alone, no training behind it and, often, step 0."""
    config = small_config()
    state = jax.device_get(fresh_state(small_config(seed=3)))
    generator = {name: {"generator": state[name]["generator"]} for name in ("params", "batch_stats")}
    write_run(tmp_path / "converted", config, {"step": np.array(0, np.int32), **generator})
    (tmp_path / "converted" / CONVERTED).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        InputError, match=r"converted holds converted weights, not a training run; .*--config.init_from=.*converted"
    ):
        train(config, tmp_path / "converted", data=memory_data(config))
    assert sorted(tmp_path.rglob("*")) == before
    fresh = fresh_state(config)
    result = take_weights(find_source(str(tmp_path / "converted"), tmp_path / "new"), fresh, config)
    assert_equal_trees(weights(result, ["generator"]), weights(state, ["generator"]))
    assert_equal_trees(weights(result, ["discriminator"]), weights(fresh, ["discriminator"]))
    out = capsys.readouterr().out
    assert "step 0: discriminator: none of 1,045 parameters; there is no discriminator there" in out


@pytest.mark.parametrize("factory", ["optax.contrib:schedule_free_adamw", "optax:adagrad", "optax:sgd"])
def test_optimizers_that_copy_the_parameters_are_refused(pix2pix_run, factory):
    optimizer = {"factory": factory, "learning_rate": 1e-3}
    config = small_config(optimizer=optimizer)
    source, state = find_source(str(pix2pix_run), pix2pix_run / "new"), fresh_state(config)
    if "schedule_free" in factory:
        with pytest.raises(InputError, match=r"is a copy of its random params/.*choose another config.optimizer"):
            take_weights(source, state, config)
    else:
        result = take_weights(source, state, config)
        assert_equal_trees(weights(result), weights(state_of(pix2pix_run, 4)))


@pytest.mark.slow
def test_it_goes_on_from_the_quality_reached_and_resumes_without_the_source(tmp_path):
    def config(**changes):
        pace = {"num_steps": 30, "eval_every": 30, "sample_every": 30, "checkpoint_every": 30}
        rate = {"optimizer__learning_rate": 0.003, "loss__lambda_gan": 0.0}
        return small_config(**{**pace, **rate, "generator__dropout_rate": 0.0, **changes})

    def losses(run):
        return [float(row["train/gen/l1"]) for row in rows_of(tmp_path / run)]

    train(config(), tmp_path / "first", data=learnable_data(config()))
    # Who made the source need not be there: only its structure is read.
    for file in (tmp_path / "first" / "config.json", tmp_path / "first" / "checkpoints" / "30" / "config" / "metadata"):
        file.write_text(file.read_text().replace("p2p_jax:pix2pix", "a_lab_that_is_gone:make"))
    tuned = config(seed=1, init_from=str(tmp_path / "first"))
    train(config(seed=1), tmp_path / "fresh", data=learnable_data(config()))
    whole = train(tuned, tmp_path / "tuned", data=learnable_data(tuned))
    train(config(seed=1, init_from=tuned.init_from, num_steps=2), tmp_path / "parts", data=learnable_data(tuned))
    reached = losses("first")[-1]
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(InputError, match=r"config.init_from: stored '.*first', now ''"):
        train(config(seed=1), tmp_path / "parts", data=learnable_data(tuned))
    assert_equal_trees(train(tuned, tmp_path / "parts", data=learnable_data(tuned)), whole)
    fresh, tuned = losses("fresh"), losses("tuned")
    assert max(tuned[:5]) < 1.2 * reached < 0.4 * fresh[0]  # it starts where the first run ended ...
    assert max(tuned[-5:]) < 0.5 * reached < 0.6 * min(fresh[-5:])  # ... and goes on falling


def test_the_structure_of_a_saved_state_is_read_without_its_objective(cyclegan_run):
    found = saved_shapes(cyclegan_run, 4)
    expected = state_of(cyclegan_run, 4)
    for name in ("params", "batch_stats", "pool"):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), found[name]) == jax.tree.map(
            lambda x: (x.shape, x.dtype), expected[name]
        )
    assert found["step"].shape == ()
    assert complete({}).init_from == ""
    assert complete({"init_from": "runs/x/"}).init_from == "runs/x"
    assert find_source(str(cyclegan_run / "checkpoints"), cyclegan_run / "new").step == 4
