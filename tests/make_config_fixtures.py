"""Write what every shipped config resolves to into ``fixtures/configs``, so that a review shows what a change moves.

python tests/make_config_fixtures.py
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from p2p_jax.config import complete_experiment, load, to_json
from p2p_jax.config.options import FREE_SECTIONS

CONFIGS = Path(__file__).parent.parent / "configs"
FIXTURES = Path(__file__).parent / "fixtures" / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")


def resolved(name):
    """Return a config as JSON, without those arguments of Adam that come and go with Optax's versions."""
    config = complete_experiment(load(name)).to_dict()
    config["optimizer"] = {key: config["optimizer"][key] for key in FREE_SECTIONS["optimizer"]}
    return to_json(ConfigDict(config))


def main():
    """Write the fixtures."""
    os.chdir(CONFIGS.parent)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (FIXTURES / f"{name}.json").write_text(resolved(name))


if __name__ == "__main__":
    main()
