"""The sessions of a study from its journal, unfinished and finished."""

import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.evaluation.study import journal
from p2p_jax.evaluation.study.design import Trial

_IMAGE = re.compile(r"\w+")  # the name of an image of a study


class Session(NamedTuple):
    """One participant's session.

    Attributes:
      participant: name or code.
      algorithm: the algorithm that this session tests.
      trials: all of them, the practice first.
      answers: the records of the answers given so far, in the order of the trials.
    """

    participant: str
    algorithm: str
    trials: list[Trial]
    answers: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether every trial is answered."""
        return len(self.answers) == len(self.trials)


def read_sessions(study: Path) -> tuple[dict[str, Session], int]:
    """Read all sessions from the journal: participant's key -> session, and the number of cut-off lines.

    Raises:
      InputError: there is no journal, or a line in its middle is missing.
    """
    sessions, _, broken = read(study)
    return sessions, broken


def read(study: Path) -> tuple[dict[str, Session], "Kept", int]:
    """Return the sessions, other data that a server needs, and the number of cut-off lines."""
    records, broken = journal.read(study)
    sessions: dict[str, Session] = {}
    kept = Kept({}, {}, {}, defaultdict(list))
    for record in records:
        kind, key = record.get("kind"), key_of(str(record["participant"]))
        session = sessions.get(key)
        trial: Any = record.get("trial")
        if kind == "session" and session is None:
            made = _session(record)
            if made is None:
                broken += 1
                continue
            sessions[key] = made
            kept.secrets[key], kept.started[key] = record.get("secret"), record.get("time")
        elif kind == "secret" and session:
            kept.secrets[key] = record.get("secret")
        elif kind == "shown" and session and _is_number_of(trial, session):
            kept.shown[key, trial] = record.get("time")
        elif session and (kind != "answer" or not _is_number_of(trial, session) or trial < len(session.answers)):
            kept.refused[key].append(record)  # a second one, or one that no server wrote
        elif session and trial == len(session.answers):
            session.answers.append(record)
        else:
            raise InputError(
                f"{study / journal.NAME} was altered: what came before answer {trial} of "
                f"{record['participant']} is missing; restore the file"
            )
    return sessions, kept, broken


class Kept(NamedTuple):
    """Data about sessions in the journal, in addition to their answers, by the participant's key.

    Attributes:
      secrets: digest of the session's secret; None: from an older version, without one.
      started: start time.
      shown: for (key, trial): time when both images had first been sent, in seconds since 1970.
      refused: records in addition to the answers: second answers to a trial, and refused requests.
    """

    secrets: dict[str, Any]
    started: dict[str, Any]
    shown: dict[tuple[str, Any], Any]
    refused: dict[str, list[dict[str, Any]]]


def _session(record: dict[str, Any]) -> Session | None:
    """Return the session that a record begins, None if it does not begin one."""
    try:
        trials = [Trial(**trial) for trial in record["trials"]]
        if not all(isinstance(part, str) for trial in trials for part in trial):
            return None
        if not all(_IMAGE.fullmatch(name) for trial in trials for name in (trial.left, trial.right)):
            return None  # it would lead outside the study's folder
        return Session(str(record["participant"]), str(record["algorithm"]), trials, [])
    except (KeyError, TypeError):
        return None


def _is_number_of(trial: Any, session: Session) -> bool:
    return type(trial) is int and 0 <= trial < len(session.trials)


def key_of(name: str) -> str:
    """Return a key that is equal for different spellings of the same name."""
    return " ".join(unicodedata.normalize("NFC", name).split()).casefold()


def is_duration(value: Any) -> bool:
    """Return whether a value is a number of milliseconds."""
    return type(value) in (int, float) and 0 <= value < 1e9  # false for NaN
