"""The errors that users see."""


class InputError(ValueError):
    """A config, file or folder given by the user cannot be used; the message names it and the fix."""


class TrainingInterrupt(KeyboardInterrupt):  # noqa: N818 (as Python calls what it is)
    """Training was stopped with Ctrl-C and saved. The message names the step and has already been printed."""


class TrainingDivergedError(RuntimeError):
    """A loss or a parameter is no longer finite. The message names the step and the last good checkpoint."""
