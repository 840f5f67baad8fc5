"""The sessions of a study, under way and finished: who sees what next, and what they answered."""

import math
import secrets
import threading
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.evaluation.study import journal
from p2p_jax.evaluation.study.design import SIDES, Design, Trial, load

_CODE_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that is taken for another
_LONGEST_NAME = 64


class Session(NamedTuple):
    """One participant's session.

    Attributes:
      participant: name or code.
      algorithm: the one that this session tests.
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


class RefusedError(Exception):
    """A request that the study does not grant; `status` is HTTP's word for the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def read_sessions(study: Path) -> tuple[dict[str, Session], int]:
    """Read all sessions from the journal: participant's key -> session, and the number of broken lines.

    Raises:
      InputError: there is no journal, or a line in its middle is lost.
    """
    records, broken = journal.read(study)
    sessions: dict[str, Session] = {}
    for record in records:
        key = _key(record["participant"])
        if record["kind"] == "session":
            trials = [Trial(**trial) for trial in record["trials"]]
            sessions[key] = Session(record["participant"], record["algorithm"], trials, [])
        elif key in sessions and record["trial"] == len(sessions[key].answers):
            sessions[key].answers.append(record)
        else:
            raise InputError(
                f"{study / journal.NAME} was altered: what came before answer {record['trial']} of "
                f"{record['participant']} is missing; restore the file"
            )
    return sessions, broken


class Sessions:
    """A study while it is served. Every method may be called from any thread.

    Nothing that a method returns tells, or lets anybody find out, which image is the fake one before the answer, nor
    which algorithm it is: ids of images stay inside, and images are asked for by trial and side.
    """

    def __init__(self, study: Path):
        self._study = study
        self._design: Design = load(study)
        self._lock = threading.Lock()
        self._journal_lock = journal.lock(study)
        self._sessions, _ = read_sessions(study)
        self._views: Counter[tuple[str, int]] = Counter()

    def close(self) -> None:
        """Let other servers have the study; from now on nobody enters or answers here."""
        with self._lock:
            self._journal_lock.close()

    def describe(self) -> dict[str, Any]:
        """Return what a participant may know of the protocol."""
        shown = ("question", "practice", "trials", "seconds", "pause", "size")
        return {name: getattr(self._design.protocol, name) for name in shown}

    def enter(self, name: Any) -> dict[str, Any]:
        """Start a participant's session, or go on with it; returns what ``state`` does.

        Args:
          name: of the participant; an empty one is given a code.

        Raises:
          RefusedError: 400, the name cannot be used; 503, the study was closed.
        """
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not name.isprintable():
            raise RefusedError(400, f"A name has at most {_LONGEST_NAME} letters.")
        name = " ".join(unicodedata.normalize("NFC", name).split())
        with self._lock:
            while not name:
                code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(5))
                name = code if _key(code) not in self._sessions else ""
            self._check_open()
            if _key(name) not in self._sessions:
                self._start(name)
            return self._state(self._sessions[_key(name)])

    def state(self, name: Any) -> dict[str, Any]:
        """Return where a participant is: the trial that comes next, or that all are answered.

        Raises:
          RefusedError: 404, nobody of this name has entered.
        """
        with self._lock:
            return self._state(self._find(name))

    def image(self, name: Any, trial: int, side: str) -> bytes:
        """Return a PNG file of the trial that the participant is at.

        Raises:
          RefusedError: 404, there is no such participant or side; 409, it is another trial's.
        """
        with self._lock:
            session = self._find(name)
            if side not in SIDES:
                raise RefusedError(404, "There is no such side.")
            if trial != len(session.answers) or session.finished:
                raise RefusedError(409, "This is not the trial that comes next.")
            self._views[_key(session.participant), trial] += side == "left"
            image_id = getattr(session.trials[trial], side)
        return (self._study / "images" / f"{image_id}.png").read_bytes()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Record an answer; one that is there already stands, and is replied to as the first time.

        Recorded with it, as "views", is how often this server has sent the left image: a reload shows the trial again.

        Args:
          request: participant; trial, from 0; choice, "left" or "right"; shown_ms, how long the left and the right
            image were on the screen; response_ms, from the question to the answer.

        Returns:
          As ``state``; for a practice trial also "feedback", which side was fake and whether the answer is right.

        Raises:
          RefusedError: 400, a value cannot be; 404, unknown participant; 409, the trial has not been reached; 503,
            the study was closed.
        """
        trial, choice = request.get("trial"), request.get("choice")
        shown, response = request.get("shown_ms"), request.get("response_ms", "")
        if type(trial) is not int or trial < 0 or choice not in SIDES:
            raise RefusedError(400, "An answer names a trial and a side.")
        if not isinstance(shown, list) or len(shown) != 2 or not all(map(_is_duration, [*shown, response])):
            raise RefusedError(400, "Durations are milliseconds.")
        with self._lock:
            self._check_open()
            session = self._find(request.get("participant"))
            if trial > len(session.answers) or trial >= len(session.trials):
                raise RefusedError(409, "This trial has not been reached.")
            if trial == len(session.answers):
                record = {
                    "kind": "answer",
                    "participant": session.participant,
                    "trial": trial,
                    "choice": choice,
                    "shown_ms": [round(value, 2) for value in shown],
                    "response_ms": round(response, 2),
                    "views": self._views.pop((_key(session.participant), trial), 0),
                    "time": _now(),
                }
                journal.append(self._study, record)
                session.answers.append(record)
            reply = self._state(session)
            if trial < self._design.protocol.practice:
                fake = session.trials[trial].fake
                right = (session.answers[trial]["choice"] == fake) == (self._design.protocol.question == "fake")
                reply["feedback"] = {"fake": fake, "correct": right}
            return reply

    def _start(self, name: str) -> None:
        number = len(self._sessions)
        algorithm = self._design.assign(Counter(s.algorithm for s in self._sessions.values()), number)
        trials = self._design.draw(algorithm, number)
        record = {"kind": "session", "participant": name, "algorithm": algorithm, "time": _now()}
        journal.append(self._study, record | {"trials": [trial._asdict() for trial in trials]})
        self._sessions[_key(name)] = Session(name, algorithm, trials, [])

    def _check_open(self) -> None:
        """Refuse to write once another server may: a connection can outlive its server."""
        if self._journal_lock.closed:
            raise RefusedError(503, "This server has stopped.")

    def _find(self, name: Any) -> Session:
        session = self._sessions.get(_key(name)) if isinstance(name, str) else None
        if session is None:
            raise RefusedError(404, "Nobody of this name has entered.")
        return session

    def _state(self, session: Session) -> dict[str, Any]:
        trial = len(session.answers)
        return {
            "participant": session.participant,
            "trial": trial,
            "practice": trial < self._design.protocol.practice,
            "finished": session.finished,
        }


def _key(name: str) -> str:
    """Return what two spellings of one name have in common."""
    return " ".join(unicodedata.normalize("NFC", name).split()).casefold()


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < 1e9


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
