"""The errors that are meant for the user."""


class InputError(ValueError):
    """A config, file or folder given by the user cannot be used; the message names it and the mend."""


class TrainingInterrupt(KeyboardInterrupt):  # noqa: N818 (as Python calls what it is)
    """Ctrl-C came, and the training was saved and ended in order; the message, which was told, names the step."""


class TrainingDivergedError(RuntimeError):
    """A loss or a parameter is no longer finite; the message names the step and the last good checkpoint."""
