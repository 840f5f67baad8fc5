"""Configs in a training: every option is read, nothing is changed, and an objective of one's own has options too."""

import sys
import textwrap

import jax
import pytest
from ml_collections import ConfigDict

from p2p_jax.cluster.distributed import joined
from p2p_jax.config import completing, to_json
from p2p_jax.config.options import FREE_SECTIONS, OPTIONS
from p2p_jax.data.stream.sources import make_source
from p2p_jax.training.loop import train
from support.configs import small_config, small_cut_config, small_cyclegan_config
from support.images import noise, random_batch, save
from support.runs import memory_data

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make_config", [small_config, small_cyclegan_config, small_cut_config])
def test_every_option_is_read(make_config, tmp_path, monkeypatch):
    """An option that nothing reads is a lie to the user. Checking and copying a config do not count as reading."""
    read, sections = set(), {}
    original_get = ConfigDict.__getitem__

    def recording_get(self, key):
        value = original_get(self, key)
        path = sections[id(self)][1] + key if id(self) in sections else key
        read.add(path)
        if isinstance(value, ConfigDict):
            sections[id(value)] = (value, path + ".")  # the value is held, so that its id stays its own
        return value

    def without_record(function):
        def run(*args, **kwargs):
            before = set(read)
            result = function(*args, **kwargs)
            read.intersection_update(before)
            return result

        return run

    config = make_config(schedule__kind="linear_decay", num_steps=2)
    monkeypatch.setattr(ConfigDict, "__getitem__", recording_get)
    monkeypatch.setattr(ConfigDict, "to_dict", without_record(ConfigDict.to_dict))
    complete_unrecorded = without_record(completing.complete)
    for module in (
        "config.completing",
        "training.loop",
        "config.facts",
        "objectives.pix2pix",
        "objectives.cyclegan",
        "objectives.cut",
    ):
        module = f"p2p_jax.{module}"
        monkeypatch.setattr(sys.modules[module], "complete", complete_unrecorded)
    with joined(config, tmp_path):
        train(config, tmp_path)
        train(config, tmp_path)  # finished: compares the stored facts
    for side in "AB":
        save(tmp_path / "images" / f"train{side}" / "x.png", noise(20, 20, 3))
    make_source(small_config(data__source="folders", data__dir=str(tmp_path / "images")).data, "train")
    assert {option.name for option in OPTIONS} | set(FREE_SECTIONS) <= read | {"extra"}
    assert "extra" not in read


def test_config_is_not_changed(tmp_path):
    config = small_config(num_steps=1)
    before = to_json(config)
    train(config, tmp_path, data=memory_data(config))
    assert to_json(config) == before


def test_own_objective_from_a_file_outside_the_library(tmp_path, monkeypatch):
    """The README's ten lines: one more loss term, without an edit of the library."""
    (tmp_path / "my_variant.py").write_text(
        textwrap.dedent(
            """
            import p2p_jax

            def make(config):
                base = p2p_jax.pix2pix(config)

                def update(state, batch, rng):
                    state, metrics = base.update(state, batch, rng)
                    return state, metrics | {"mine/strength": config.extra.strength * metrics["gen/l1"]}

                return base._replace(update=update)
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    config = small_config(objective="my_variant:make", extra={"strength": 2.0}, num_steps=2)
    state = train(config, tmp_path / "run", data=memory_data(config))
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column, l1 = (header.split(",").index(f"train/{name}") for name in ("mine/strength", "gen/l1"))
    assert len(rows) == 2
    for row in rows:
        cells = row.split(",")
        assert float(cells[column]) == pytest.approx(2 * float(cells[l1]))
    assert int(jax.device_get(state["step"])) == 2
    assert random_batch(config)["real_a"].shape == (4, 16, 16, 3)
