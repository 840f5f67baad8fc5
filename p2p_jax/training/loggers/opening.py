"""Opening the loggers of a run other than metrics.csv."""

from p2p_jax.reporting import say
from p2p_jax.training.events import Events
from p2p_jax.training.loggers import Logger, Run, find
from p2p_jax.training.loggers.outside import Outside


def open_others(run: Run) -> list[Logger]:
    """Open TensorBoard, where tensorboardX is installed, and what ``config.loggers`` names.

    Raises:
      InputError: a name is unknown, or a package is not installed.
    """
    outside = [Outside(name, make, run) for name, make in find(run.config.loggers).items()]
    try:
        return [Events(run.workdir / "tensorboard", run.step, run.rows), *outside]
    except ImportError:
        say("TensorBoard logs are off; pip install 'p2p_jax[tb]' turns them on (metrics.csv is always written)")
        return list(outside)
