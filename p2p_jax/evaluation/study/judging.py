"""Which answers of a study count: those to images that were sent, shown for about their time, and answered after it."""

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from p2p_jax.evaluation.study.design import SIDES, Protocol, Trial
from p2p_jax.evaluation.study.sessions import Session, is_duration

_LATE = 1.25  # an image that was shown this many times too long counts as badly timed
_TOO_LATE = 1.5  # and one that was shown so many times too long is not judged at a glance any more
_EARLY = 0.9  # of its time: a page ends an exposure with the frame that comes nearest
_FRAMES = 20.0  # milliseconds by which it may do so
_CLOCKS = 60.0  # seconds by which two clocks, or one that is set right, may differ

FAULTS = {
    "impossible": "that cannot be",
    "not_sent": "to images that were not sent",
    "too_fast": "that came before both images can have been shown",
    "too_short": "after an image was shown for too short",
    "too_long": "after an image was shown for too long",
}
"""What keeps an answer from being counted, and how that is told."""


def judge(
    session: Session, started: Any, protocol: Protocol, now: datetime.datetime
) -> Iterator[tuple[Trial, dict[str, Any], str | None]]:
    """Yield the answers of a session, practice and all, each with its trial and the key of ``FAULTS``, or None.

    Answers of older versions do not say when their images were sent: those are judged by what they say.

    Args:
      session: as the journal has it.
      started: when, as the journal says it.
      protocol: of the study.
      now: answers of later times cannot be.
    """
    before = _moment(started)
    for trial, answer in zip(session.trials, session.answers, strict=False):
        moment = _moment(answer.get("time"))
        fault = _fault(answer, protocol, before, moment, now)
        yield trial, answer, fault
        before = before if fault == "impossible" else moment


def seen_badly(answer: dict[str, Any], protocol: Protocol) -> bool:
    """Tell whether the images of an answer that counts were shown for a little too long, or again after a reload."""
    views = answer.get("views")
    return (type(views) is int and views > 1) or max(answer["shown_ms"]) > _LATE * 1000 * protocol.seconds


def forged(refused: Sequence[dict[str, Any]]) -> Counter[str]:
    """Count what came beside the answers of a session, by what is wrong with it."""
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
        if sum(shown) + response > elapsed + 1000 * _CLOCKS:  # two processors count, of which one may have slept
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
