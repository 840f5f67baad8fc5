"""What the library tells can be silenced, caught and redirected by whoever calls it."""

import contextlib
import io
import logging
import re
from pathlib import Path

import pytest

import p2p_jax
from p2p_jax import reporting
from p2p_jax.training.loop import train
from support.configs import small_config
from support.runs import memory_data


def test_it_is_printed_where_standard_output_is_at_that_moment(capsys):
    reporting.say("100% of it")
    assert capsys.readouterr().out == "100% of it\n"
    with contextlib.redirect_stdout(io.StringIO()) as caught, reporting.quiet():
        reporting.say("not this")
    with contextlib.redirect_stdout(caught):
        reporting.say("but this")
    assert caught.getvalue() == "but this\n" and capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_training_can_be_silenced_and_caught(tmp_path, capsys, monkeypatch):
    logger, config = logging.getLogger("p2p_jax"), small_config(num_steps=1)
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.manager._clear_cache()
    train(config, tmp_path / "silent", data=memory_data(config))
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    logger.manager._clear_cache()

    class Keeping(logging.Handler):
        def emit(self, record):
            kept.append((record.levelname, record.getMessage()))

    kept: list[tuple[str, str]] = []
    monkeypatch.setattr(logger, "handlers", [Keeping()])
    train(config, tmp_path / "caught", data=memory_data(config))
    assert capsys.readouterr().out == ""
    assert any(level == "INFO" and line.startswith("step 1/1 ") for level, line in kept)


def test_only_commands_print():
    package = Path(p2p_jax.__file__).parent
    others = {"__main__.py", "reporting.py", "process/compiled_programs.py"}  # the last speaks on standard error
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\bprint\(", path.read_text()) and path.parent.name != "commands"
    ]
    assert set(found) == others
