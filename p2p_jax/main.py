"""Train from the command line.

    python -m p2p_jax.main --config configs/facades.py [--workdir runs/facades] [--config.OPTION=VALUE ...]

Running the same command again goes on from the last checkpoint.
"""

import sys
import traceback
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from p2p_jax.config import find
from p2p_jax.errors import InputError, TrainingDivergedError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, by path or by name (facades).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; runs/<config name> by default.")


def _with_found_config(argv: list[str]) -> list[str]:
    """Replace the value of --config by the path of the file that it names."""
    argv = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            argv[i] = f"{flag}={find(value)}"
        elif i + 1 < len(argv):
            argv[i + 1] = str(find(argv[i + 1]))
    return argv


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]}")
    if _CONFIG.value is None:
        raise app.UsageError("--config is missing: python -m p2p_jax.main --config configs/quickstart.py")
    logging.set_verbosity(logging.ERROR)  # JAX and Orbax otherwise tell every step that they take
    from p2p_jax.train import train  # after the flags are read, so that --help is quick

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    try:
        train(_CONFIG.value, _WORKDIR.value or Path("runs") / name)
    except (InputError, TrainingDivergedError) as error:
        sys.exit(f"error: {error}")


def _parse(argv: list[str]) -> list[str]:
    """Parse the flags; a wrong override is one line that names the nearest option, not a traceback."""
    try:
        return flags.FLAGS(_with_found_config(argv))
    except (AttributeError, KeyError) as error:
        if "ml_collections" not in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise  # not an option, but a mistake in the config file
        cause: Exception = error
        while cause.args and isinstance(cause.args[0], Exception):  # ml_collections wraps one in the other
            cause = cause.args[0]
        sys.exit("error: the config file has no option " + str(cause.args[0]).replace("\n", ". "))
    except (InputError, flags.Error, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")


def run() -> None:
    """Run the command."""
    app.run(_main, flags_parser=_parse)


if __name__ == "__main__":
    run()
