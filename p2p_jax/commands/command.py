"""The base of every command: reads the command line, prints errors and warnings."""

import argparse
import contextlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from p2p_jax.commands.interrupts import in_one_line
from p2p_jax.config.paths import expanded
from p2p_jax.config.reference import is_reference, searching_here
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.reporting import reworded

_BY_NAME = "by name: "


def told_weights(weights: str, raw: bool) -> str:
    """Return the words that name the weights in use, to follow the step: "average", or "raw" if asked for."""
    return ", average of the weights" if weights == "average" else ", raw weights" if raw else ""


class Parser(argparse.ArgumentParser):
    """The argument parser of a verb, with overrides of a config (``--config.OPTION=VALUE``) if it takes them.

    Args:
      verb: the verb of ``python -m p2p_jax VERB``.
      text: the help text, printed as it is.
      takes_overrides: whether the verb takes overrides of a config.
      computes: whether the work needs JAX; the process is then prepared for it.
      opens_run: whether a run's directory is opened, perhaps a stranger's. Modules are then searched in the current
        directory only if an argument names some.
      **settings: arguments of ``argparse.ArgumentParser``.
    """

    def __init__(
        self,
        verb: str,
        text: str | None,
        *,
        takes_overrides: bool = False,
        computes: bool = True,
        opens_run: bool = False,
        **settings: Any,
    ):
        raw = argparse.RawDescriptionHelpFormatter
        prog = f"python -m p2p_jax {verb}"
        super().__init__(prog=prog, description=text, formatter_class=raw, allow_abbrev=False, **settings)
        self._takes_overrides = takes_overrides
        self._computes = computes
        self._opens_run = opens_run
        self._places: dict[str, bool] = {}
        self._warned: set[str] = set()
        self._by_place: dict[str, str] = {}  # arguments without a flag, and what the help calls them

    def add_place(self, name: str, *others: str, required: bool = True, nargs: str = "?", **settings: Any) -> None:
        """Add an argument that may be given by position or by name: ``RUN``, or ``--workdir RUN``.

        Args:
          name: name of the argument.
          *others: further names, such as ``model`` for ``--model FILE``.
          required: whether it must be given.
          nargs: see ``argparse``.
          **settings: arguments of ``add_argument``.
        """
        self.add_argument(name, nargs=nargs, **settings)
        if nargs == "*":
            settings["nargs"] = "+"
        settings["help"] = argparse.SUPPRESS
        flags = [f"--{word}" for word in (name, *others)]
        self.add_argument(*flags, dest=_BY_NAME + name, default=argparse.SUPPRESS, **settings)
        self._places[name] = required
        self._by_place[name] = settings.get("metavar", name.upper())

    def add_trust(self, parser: argparse.ArgumentParser | None = None) -> None:
        """Add the flag that names the code stored configs may execute.

        Args:
          parser: parser of a subcommand; this one by default.
        """
        (parser or self).add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="MODULE:NAME",
            help="code outside the library that a run's stored config may execute; may be repeated",
        )

    def add_raw(self) -> None:
        """Add the flag that selects the weights of the step instead of their average."""
        self.add_argument("--raw", action="store_true", help="use the weights of the step itself, not their average")

    def read(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Read a command line; ``overrides`` holds the overrides of the config, in order."""
        given, overrides = list(sys.argv[1:] if argv is None else argv), list[str]()
        if self._takes_overrides:
            given, overrides = _split(given)
        args = self.parse_intermixed_args(given) if self._places else self.parse_args(given)
        for name, required in self._places.items():
            given_ways = [vars(args).pop(way, None) for way in (name, _BY_NAME + name)]
            values = [value for value in given_ways if value]
            if required and not values:
                self.error(f"{name} is missing: write it after the verb, or as --{name}")
            if given_ways[1]:
                self._by_place.pop(name)
            if len(values) > 1:
                self.error(f"{name} is given twice, as {values[0]} and as --{name} {values[1]}")
            setattr(args, name, values[0] if values else None)
        for name, value in vars(args).items():
            if isinstance(value, str | Path) and str(value).startswith("~"):
                setattr(args, name, type(value)(expanded(value)))
        if self._takes_overrides:
            args.overrides = overrides
        return args

    def do(self, work: Callable[[argparse.Namespace], int | None], argv: Sequence[str] | None = None) -> None:
        """Read a command line and do the work; errors of input and warnings are printed as one line on standard error.

        The process exits with status 1 after an error, 130 after Ctrl-C, or the value that `work` returns if it is not
        0. Otherwise it continues.
        """
        args = self.read(argv)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # file names may not be valid text
        from absl import logging

        from p2p_jax.process import settings
        from p2p_jax.storage.refusals import sentence_of

        own_code = not self._opens_run or _names_own_code(args)
        if self._computes:
            settings.prepare_process()
        logging.set_verbosity(logging.FATAL)  # otherwise Orbax logs every step, and errors twice
        here = searching_here() if own_code else contextlib.nullcontext()
        with here, warnings.catch_warnings(), reworded(self.with_flags):
            warnings.showwarning = lambda message, *_, **__: self._warn(message)
            try:
                with in_one_line(InputError, TrainingDivergedError):
                    status = work(args)
            except (InputError, TrainingDivergedError) as error:
                sys.exit(f"error: {self.with_flags(str(error))}")
            except (OSError, ValueError, RuntimeError) as error:
                places = [getattr(args, name, None) for name in ("output", "study")]
                if (told := sentence_of(error, next(filter(None, places), None))) is None:
                    raise
                sys.exit(f"error: {told}")
        if status:
            sys.exit(status)

    def _warn(self, message: Warning | str) -> None:
        text = self.with_flags(str(message))
        if text not in self._warned:  # what a command opens twice it says once
            print(f"warning: {text}", file=sys.stderr)
        self._warned.add(text)

    def with_flags(self, message: str) -> str:
        """Rewrite arguments in a message of the library as flags.

        tile=512 becomes --tile 512, `tile` becomes --tile, and trust=["a:b", "c:d"] becomes --trust a:b --trust c:d. An
        argument that is given by its place is named as it was typed: workdir=runs/mine becomes runs/mine, and
        `workdir` RUN.
        """
        known = "|".join(sorted(_names(self)))
        placed = self._by_place
        message = re.sub(rf'(?<![\w.\-])({known})=\[("[^\]]*")\]', _each_as_flag, message)
        message = re.sub(
            rf"(?<![\w.\-])({known})=(?=\S)", lambda found: "" if found[1] in placed else f"--{found[1]} ", message
        )
        return re.sub(rf"`({known})`", lambda found: placed.get(found[1], f"--{found[1]}"), message)

    def error(self, message: str) -> NoReturn:
        """End with a message about the command line, and what to do about a name with blanks."""
        too_many = message.startswith("unrecognized arguments: ") or "is given twice" in message
        hint = "; put names with blanks in quotes" if too_many else ""
        super().error(message + hint)


def _each_as_flag(found: re.Match[str]) -> str:
    """Return the texts of a list as one flag each."""
    return " ".join(f"--{found[1]} {text}" for text in re.findall(r'"([^"]*)"', found[2]))


def _names_own_code(args: argparse.Namespace) -> bool:
    """Return whether an argument is a config file of your own, or names code, "module:name"."""
    given = vars(args)
    texts = [text for value in given.values() for text in (value if isinstance(value, list) else [value])]
    parts = [part.strip() for text in texts if isinstance(text, str) for part in _value(text).split(",")]
    configs = given.get("config") or []
    own = [config for config in ([configs] if isinstance(configs, str) else configs) if not _is_stored(config)]
    return bool(own) or any(map(is_reference, parts))


def _value(text: str) -> str:
    """Return the value of ``--config.OPTION=VALUE``; other texts unchanged."""
    return text.partition("=")[2] if text.startswith("--config.") else text


def _is_stored(config: str) -> bool:
    """Return whether a config belongs to a run, perhaps a stranger's: a JSON file, or the run's directory."""
    return config.endswith(".json") or (Path(config) / "config.json").exists()


def _names(parser: argparse.ArgumentParser) -> set[str]:
    """Return the names of a parser's arguments, including those of its subcommands."""
    names = set()
    for action in parser._actions:
        names.add(action.dest)
        if isinstance(action, argparse._SubParsersAction):
            names.update(*map(_names, action.choices.values()))
    return names


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Remove overrides of the config, and the values after them, from a command line."""
    given: list[str] = []
    overrides: list[str] = []
    expects_value = False
    for argument in argv:
        if argument.startswith("--config."):
            overrides.append(argument)
            expects_value = "=" not in argument
        elif expects_value and not argument.startswith("--"):
            overrides.append(argument)
            expects_value = False
        else:
            given.append(argument)
            expects_value = False
    return given, overrides
