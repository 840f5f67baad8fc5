"""Decides which answers of a study count: images were sent, shown for about their time, and answered after it."""

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from p2p_jax.evaluation.study.design import SIDES, Protocol, Trial
from p2p_jax.evaluation.study.sessions import Session, is_duration

_LATE = 1.25  # an image shown longer than this many times its time is badly timed
_TOO_LATE = 1.5  # and longer than this, it was no longer judged at a glance
_EARLY = 0.9  # of its time: a page ends an exposure with the nearest frame
_FRAMES = 20.0  # milliseconds of tolerance for this
_CLOCKS = 60.0  # seconds by which two clocks, or one that is corrected, may differ

FAULTS = {
    "impossible": "with impossible values",
    "not_sent": "to images that were not sent",
    "too_fast": "that came before both images can have been shown",
    "too_short": "after an image was shown for too short",
    "too_long": "after an image was shown for too long",
}
"""Faults that keep an answer from being counted, and their descriptions."""


def judge(
    session: Session, started: Any, protocol: Protocol, now: datetime.datetime
) -> Iterator[tuple[Trial, dict[str, Any], str | None]]:
    """Yield all answers of a session, including practice, each with its trial and the key of ``FAULTS``, or None.

    Answers of older versions do not record when images were sent; their own timings are used.

    Args:
      session: the session from the journal.
      started: its start time in the journal.
      protocol: protocol of the study.
      now: current time; later answers are impossible.
    """
    before = _moment(started)
    for trial, answer in zip(session.trials, session.answers, strict=False):
        moment = _moment(answer.get("time"))
        fault = _fault(answer, protocol, before, moment, now)
        yield trial, answer, fault
        before = before if fault == "impossible" else moment


def seen_badly(answer: dict[str, Any], protocol: Protocol) -> bool:
    """Return whether the images of a counted answer were shown a little too long, or again after a reload."""
    views = answer.get("views")
    return (type(views) is int and views > 1) or max(answer["shown_ms"]) > _LATE * 1000 * protocol.seconds


def forged(refused: Sequence[dict[str, Any]]) -> Counter[str]:
    """Count the requests in addition to the answers of a session, by kind of fault."""
    return Counter("refused" if record.get("kind") == "refused" else "duplicate" for record in refused)


def _fault(
    answer: dict[str, Any],
    protocol: Protocol,
    before: datetime.datetime | None,
    moment: datetime.datetime | None,
    now: datetime.datetime,
) -> str | None:
    values: list[Any] = [answer.get(name) for name in ("shown_ms", "response_ms")]
    shown, response = values
    if not isinstance(shown, list) or len(shown) != 2 or not all(map(is_duration, [*shown, response])):
        return "impossible"
    if not isinstance(answer.get("choice"), str) or answer["choice"] not in SIDES:
        return "impossible"
    if moment is None or (moment - now).total_seconds() > _CLOCKS:
        return "impossible"
    least = 2000 * (protocol.seconds + protocol.pause) * _EARLY - _FRAMES
    if "elapsed_ms" in answer:
        elapsed = answer["elapsed_ms"]
        if elapsed is None:
            return "not_sent"
        if not is_duration(elapsed):
            return "impossible"
        if elapsed < least:
            return "too_fast"
        if sum(shown) + response > elapsed + 1000 * _CLOCKS:  # two clocks, and one processor may have slept
            return "impossible"
    if before is not None:
        passed = (moment - before).total_seconds()
        if passed < -_CLOCKS:
            return "impossible"
        if passed >= 0 and 1000 * passed < least - 1000:  # older versions wrote whole seconds
            return "too_fast"
    wanted = 1000 * protocol.seconds
    if min(shown) < _EARLY * wanted - _FRAMES:
        return "too_short"
    return "too_long" if max(shown) > _TOO_LATE * wanted + 10 * _FRAMES else None


def _moment(text: Any) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None
