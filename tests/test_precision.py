"""``config.precision``: how exact products of float32 numbers are, in every function of an objective."""

import re
from types import SimpleNamespace

import jax
import pytest

import p2p_jax
from p2p_jax.objectives import make_objective, precision
from p2p_jax.training import parallel
from p2p_jax.training.checkpoint import read_facts
from support.configs import small_config
from support.images import random_batch

STATED = re.compile(r"(?:dot_general|convolution\().*precision(?:_config)? = \[(?:#stablehlo<precision )?(\w+)")


def stated(config, objective=None):
    """Return the precisions of the products in a step, a translation and an evaluation, as their programs have them."""
    made, rng, batch = make_objective(config, objective), jax.random.key(0), random_batch(config)
    state = jax.eval_shape(made.init, rng, batch)
    programs = [
        parallel.shard_map_update(made.update).run.lower(state, batch, rng),
        jax.jit(made.translate).lower(state, batch, rng),
        jax.jit(made.evaluate).lower(state, batch, rng),
    ]
    return [set(STATED.findall(program.as_text())) for program in programs]


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", "DEFAULT"), ("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")]
)
def test_every_product_is_as_exact_as_asked(asked, expected):
    config = small_config(precision=asked)
    as_asked = [{expected}, {expected}, {expected, "HIGHEST"}]  # SSIM says itself how exact it is
    assert stated(config) == as_asked
    assert stated(config, p2p_jax.pix2pix(config)) == as_asked


def test_the_library_wins_over_what_the_caller_has_set():
    with jax.default_matmul_precision("highest"):
        assert stated(small_config(precision="tf32"))[:2] == [{"HIGH"}] * 2
        assert stated(small_config())[:2] == [{"HIGHEST"}] * 2


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, ["float32", "float32", "float32", "float32"]),
        ("gpu", "7.5", ["float32", "float32", "float32", "float32"]),
        ("gpu", "9.0", ["tf32", "float32", "tf32", "tf32"]),
        ("gpu", "12.1", ["tf32", "float32", "tf32", "tf32"]),
        ("gpu", "gfx942", ["float32", "float32", "float32", "float32"]),
        ("tpu", None, ["bfloat16", "float32", "tf32", "bfloat16"]),
    ],
)
def test_what_a_device_makes_of_it(platform, capability, expected, monkeypatch):
    device = SimpleNamespace(platform=platform, **({} if capability is None else {"compute_capability": capability}))
    monkeypatch.setattr(precision.jax, "devices", lambda: [device])
    names = ["auto", "float32", "tf32", "bfloat16"]
    assert [precision.in_force(small_config(precision=name)) for name in names] == expected
    assert {precision.in_force(small_config(precision=name, dtype="bfloat16")) for name in names} == {"bfloat16"}
    with jax.default_matmul_precision("highest"):  # as by JAX_DEFAULT_MATMUL_PRECISION
        assert [precision.in_force(small_config(precision=name)) for name in names] == ["float32", *expected[1:]]


def test_a_training_says_and_stores_it(tmp_path, monkeypatch, capsys):
    linear = {"objective": "support.networks:linear", "generator": None, "discriminator": None, "loss": None}
    config = small_config(**linear, num_steps=1, precision="tf32")
    p2p_jax.train(config, tmp_path / "run")
    assert "of kind cpu, products in float32 ..." in capsys.readouterr().out
    assert read_facts(tmp_path / "run")["computed_on"]["precision"] == "float32"
    monkeypatch.setattr(precision, "in_force", lambda config: "tf32")
    p2p_jax.train(small_config(**linear, num_steps=2, precision="tf32"), tmp_path / "run")
    told = capsys.readouterr().out
    assert "precision of products float32 before, tf32 now" in told
