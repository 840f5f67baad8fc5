"""Many runs in one folder: done one after the other, stopped and resumed, each with its outcome.

The outcome of a run is a mapping with its ``"state"``: "to do"; "trained", or another one of the caller; "diverged";
"stopped", by SIGTERM or Ctrl-C; and the ``"reason"`` if there is one.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.config import complete_experiment, completed_like
from p2p_jax.errors import TrainingDivergedError
from p2p_jax.reporting import say
from p2p_jax.storage.lock import locked
from p2p_jax.training.checkpoint import read_config
from p2p_jax.training.resuming import refuse_other_config

Outcome = Mapping[str, Any]


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Return a complete config with options changed by name, such as "loss.lambda_l1"."""
    values = config.to_dict()
    for option, value in changes.items():
        *sections, key = option.split(".")
        section = values
        for name in sections:
            section[name] = section = dict(section[name])
        section[key] = value
    return complete_experiment(values)


def refuse_other_run(workdir: Path, config: ConfigDict) -> None:
    """Check that a folder holds no run, or one that can be resumed with this config.

    Raises:
      InputError: it holds a run of another config.
    """
    stored = read_config(workdir, None)
    if stored is not None:
        refuse_other_config(workdir, completed_like(stored, config), config)


def bring_to_its_end(train: Callable[..., Any], config: ConfigDict, workdir: Path, **trusting: Any) -> Outcome:
    """Train or resume a run until its last step: "trained", "diverged" or "stopped".

    Args:
      train: ``p2p_jax.train``.
      config: complete config.
      workdir: directory of the run.
      **trusting: `trust`, as ``p2p_jax.train`` takes it.
    """
    try:
        state = train(config, workdir, **trusting)
    except TrainingDivergedError as error:
        return {"state": "diverged", "reason": str(error)}
    step = int(state["step"])
    if step < config.num_steps:
        return {"state": "stopped", "reason": f"stopped at step {step:,}"}
    return {"state": "trained"}


def work_off(
    output: Path, names: Sequence[str], do: Callable[[str], Outcome], tell: Callable[[str, Outcome], None]
) -> None:
    """Do the runs of a folder in turn; after one is stopped, no other one starts.

    Args:
      output: the folder, which stays locked.
      names: names of the runs.
      do: finishes a run, regardless of what was done before, and returns its outcome.
      tell: gets the outcome of each run at once.

    Raises:
      KeyboardInterrupt: Ctrl-C came; it was printed.
      InputError: another process works in the folder.
    """
    with locked(output, "output"):
        for i, name in enumerate(names, start=1):
            say(f"\n{name}, {i} of {len(names)} runs")
            try:
                outcome = do(name)
            except KeyboardInterrupt as error:
                tell(name, {"state": "stopped", "reason": str(error) or "interrupted"})
                raise
            tell(name, outcome)
            if outcome["state"] == "stopped":
                break
