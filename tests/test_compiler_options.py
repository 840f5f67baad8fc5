"""XLA's options on CPUs: only what it knows, and what the user has set stays."""

import pytest

from p2p_jax.process import compiler_options
from p2p_jax.process.compiler_options import QUICK, on_cpu

LEVEL = "xla_backend_optimization_level"


@pytest.mark.parametrize(
    ("flags", "level"), [("", 1), ("--xla_cpu_enable_fast_math=false", 1), (f"--{LEVEL}=2 --xla_dump_to=x", None)]
)
def test_what_xla_flags_sets_stays(flags, level, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    scheduler = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    found = on_cpu(**scheduler, **QUICK)
    assert found.get(LEVEL) == level and found.items() >= scheduler.items()


def test_unknown_options_are_left_out(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert on_cpu(xla_of_another_release=True, **{LEVEL: 0}) == {LEVEL: 0}


def test_other_devices_get_none(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(compiler_options.jax, "default_backend", lambda: "gpu")
    assert on_cpu(**QUICK) == {}
