"""Sessions while a study is served: the next trial of each participant, and the answers."""

import datetime
import hashlib
import hmac
import secrets
import threading
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from p2p_jax.evaluation.study import journal
from p2p_jax.evaluation.study.design import SIDES, Design, load
from p2p_jax.evaluation.study.sessions import Session, is_duration, key_of, read

_CODE_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # no letters that look alike
_LONGEST_NAME = 64
_MOST_REFUSED = 50  # recorded attempts of one session


class RefusedError(Exception):
    """A request that the study refuses; `status` is the HTTP status of the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Sessions:
    """A study while it is served. Every method may be called from any thread.

    No reply reveals which image is fake before the answer, nor which algorithm it is: ids of images stay inside, and
    images are requested by trial and side. A session belongs to the holder of its secret, which only the first
    participant to enter receives; the journal keeps its digest.
    """

    def __init__(self, study: Path):
        self._study = study
        self._design: Design = load(study)
        self._lock = threading.Lock()
        self._journal_lock = journal.lock(study)
        self._sessions, kept, _ = read(study)
        self._secrets, self._shown, self._refusals = kept.secrets, kept.shown, kept.refused
        self._views: Counter[tuple[str, int, str]] = Counter()
        self._clocks: dict[tuple[str, int], float] = {}
        self._new: dict[str, str] = {}  # secrets of sessions that have seen no image yet

    def close(self) -> None:
        """Release the study for other servers; from now on nobody can enter or answer here."""
        with self._lock:
            self._journal_lock.close()

    def describe(self) -> dict[str, Any]:
        """Return the part of the protocol that a participant may know."""
        shown = ("question", "practice", "trials", "seconds", "pause", "size")
        return {name: getattr(self._design.protocol, name) for name in shown}

    def enter(self, name: Any, secret: Any = None) -> dict[str, Any]:
        """Start or continue a participant's session.

        Args:
          name: name of the participant; an empty one is replaced by a code.
          secret: secret of the session, to continue it.

        Returns:
          As ``state``; for a new session also its "secret", repeatedly until an image is requested, as a reply may be
          lost.

        Raises:
          RefusedError: 400, the name cannot be used; 403, it belongs to another; 503, the study was closed.
        """
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not name.isprintable():
            raise RefusedError(400, f"A name has at most {_LONGEST_NAME} letters.")
        name = " ".join(unicodedata.normalize("NFC", name).split())
        with self._lock:
            while not name:
                code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(5))
                name = code if key_of(code) not in self._sessions else ""
            self._check_open()
            key = key_of(name)
            if key not in self._sessions:
                self._start(name)
            if self._secrets.get(key) is None:  # begun by an older version: the first to come gets it
                self._new[key], digest = _new_secret()
                journal.append(self._study, {"kind": "secret", "participant": name, "secret": digest})
                self._secrets[key] = digest
            if key in self._new:
                return self._state(self._sessions[key]) | {"secret": self._new[key]}
            if not self._is_secret(key, secret):
                raise RefusedError(403, "This name is taken: choose another, or continue in your first browser.")
            return self._state(self._sessions[key])

    def state(self, name: Any, secret: Any) -> dict[str, Any]:
        """Return the state of a participant: the next trial, or that all are answered.

        Raises:
          RefusedError: 404, nobody with this name has entered; 403, the secret is wrong.
        """
        with self._lock:
            return self._state(self._find(name, secret))

    def image(self, name: Any, secret: Any, trial: int, side: str) -> bytes:
        """Return a PNG file of the participant's current trial.

        Raises:
          RefusedError: 404, the participant or side does not exist; 403, the secret is wrong; 409, it belongs to
          another
            trial.
        """
        with self._lock:
            session = self._find(name, secret)
            if side not in SIDES:
                raise RefusedError(404, "This side does not exist.")
            if trial != len(session.answers) or session.finished:
                raise RefusedError(409, "This is not the next trial.")
            self._begun(session)
            image_id = getattr(session.trials[trial], side)
        image = (self._study / "images" / f"{image_id}.png").read_bytes()
        with self._lock:
            self._check_open()
            key = key_of(session.participant)
            self._views[key, trial, side] += 1
            if (key, trial) not in self._shown and all(self._views[key, trial, other] for other in SIDES):
                self._shown[key, trial], self._clocks[key, trial] = time.time(), time.monotonic()
                record = {"kind": "shown", "participant": session.participant, "trial": trial}
                journal.append(self._study, record | {"time": round(time.time(), 3)}, synced=False)
        return image

    def answer(self, request: dict[str, Any], secret: Any) -> dict[str, Any]:
        """Record an answer; an earlier answer to the same trial stays, and gets the same reply as the first time.

        Also recorded are "views", the number of times that this server has sent the left image (a reload shows the
        trial again), and "elapsed_ms", the time since both images were sent, by the server's clock: None if they were
        not. The analysis decides which answers count.

        Args:
          request: participant; trial, from 0; choice, "left" or "right"; shown_ms, how long the left and the right
            image were on the screen; response_ms, from the question to the answer.
          secret: secret of the session.

        Returns:
          As ``state``; for a practice trial also "feedback", which side was fake and whether the answer is right.

        Raises:
          RefusedError: 400, a value is impossible; 403, the secret is wrong; 404, unknown participant; 409, the trial
          has
            not been reached; 503, the study was closed.
        """
        values: list[Any] = [request.get(name) for name in ("trial", "choice", "shown_ms", "response_ms")]
        trial, choice, shown, response = values
        with self._lock:
            self._check_open()
            fault = _fault_of(trial, choice, shown, response)
            try:
                session = self._find(request.get("participant"), secret)
            except RefusedError as refusal:
                raise RefusedError(400, fault) if fault else refusal from None
            if fault:
                raise self._refused(session, 400, fault)
            if trial > len(session.answers) or trial >= len(session.trials):
                raise self._refused(session, 409, "This trial has not been reached.")
            if trial == len(session.answers):
                record = {
                    "kind": "answer",
                    "participant": session.participant,
                    "trial": trial,
                    "choice": choice,
                    "shown_ms": [round(value, 2) for value in shown],
                    "response_ms": round(response, 2),
                    "views": self._views[key_of(session.participant), trial, "left"],
                    "elapsed_ms": self._elapsed(session, trial),
                    "time": _now(),
                }
                journal.append(self._study, record)
                session.answers.append(record)
                self._begun(session)
            elif session.answers[trial].get("choice") != choice:
                self._refused(session, 409, "another answer to the same trial")  # only recorded
            reply = self._state(session)
            if trial < self._design.protocol.practice:
                fake = session.trials[trial].fake
                right = (session.answers[trial]["choice"] == fake) == (self._design.protocol.question == "fake")
                reply["feedback"] = {"fake": fake, "correct": right}
            return reply

    def _elapsed(self, session: Session, trial: int) -> float | None:
        """Return the milliseconds since both images of a trial were sent, perhaps by an earlier server."""
        key = key_of(session.participant), trial
        if key in self._clocks:
            return round(1000 * (time.monotonic() - self._clocks[key]), 1)
        sent: Any = self._shown.get(key)
        return round(1000 * (time.time() - sent), 1) if type(sent) in (int, float) else None

    def _refused(self, session: Session, status: int, reason: str) -> RefusedError:
        """Record a request, with a valid secret, that no page sends; return the error to raise."""
        record = {"kind": "refused", "participant": session.participant, "reason": reason, "time": _now()}
        before = self._refusals[key_of(session.participant)]
        if len(before) < _MOST_REFUSED:
            journal.append(self._study, record)
            before.append(record)
        return RefusedError(status, reason)

    def _start(self, name: str) -> None:
        number = len(self._sessions)
        algorithm = self._design.assign(Counter(s.algorithm for s in self._sessions.values()), number)
        trials = self._design.draw(algorithm, number)
        made, digest = _new_secret()
        record = {"kind": "session", "participant": name, "algorithm": algorithm, "time": _now(), "secret": digest}
        journal.append(self._study, record | {"trials": [trial._asdict() for trial in trials]})
        self._secrets[key_of(name)] = digest
        self._new[key_of(name)] = made
        self._sessions[key_of(name)] = Session(name, algorithm, trials, [])

    def _check_open(self) -> None:
        """Refuse to write once another server may: a connection can outlive its server."""
        if self._journal_lock.closed:
            raise RefusedError(503, "This server has stopped.")

    def _find(self, name: Any, secret: Any) -> Session:
        session = self._sessions.get(key_of(name)) if isinstance(name, str) else None
        if session is None:
            raise RefusedError(404, "Nobody with this name has entered.")
        if not self._is_secret(key_of(name), secret):
            raise RefusedError(403, "This session belongs to another participant.")
        return session

    def _begun(self, session: Session) -> None:
        """Stop giving out the secret."""
        self._new.pop(key_of(session.participant), None)

    def _is_secret(self, key: str, secret: Any) -> bool:
        kept = self._secrets.get(key)
        return isinstance(secret, str) and isinstance(kept, str) and hmac.compare_digest(_digest(secret), kept)

    def _state(self, session: Session) -> dict[str, Any]:
        trial = len(session.answers)
        return {
            "participant": session.participant,
            "trial": trial,
            "practice": trial < self._design.protocol.practice,
            "finished": session.finished,
        }


def _fault_of(trial: Any, choice: Any, shown: Any, response: Any) -> str:
    """Return the fault in the values of an answer, "" if there is none."""
    if type(trial) is not int or trial < 0 or not isinstance(choice, str) or choice not in SIDES:
        return "An answer must name a trial and a side."
    if not isinstance(shown, list) or len(shown) != 2 or not all(map(is_duration, [*shown, response])):
        return "Durations must be in milliseconds."
    return ""


def _new_secret() -> tuple[str, str]:
    """Return a secret, and its digest to keep."""
    secret = secrets.token_urlsafe(24)
    return secret, _digest(secret)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
