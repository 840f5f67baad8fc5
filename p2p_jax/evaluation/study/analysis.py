"""The fooling rate of each algorithm of a study, with the two-level bootstrap of the papers."""

import datetime
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.evaluation.study import judging
from p2p_jax.evaluation.study.design import Protocol, load
from p2p_jax.evaluation.study.sessions import Session, read


class Result(NamedTuple):
    """The results of one algorithm.

    Attributes:
      rate: fooled / trials, the fraction of fakes taken for real; None if nobody has finished.
      mean: mean of the rate over the bootstrap's draws; None as above.
      sd: standard deviation of the rate over the draws; None as above.
      participants: number of sessions that count and have an answer that counts.
      trials: number of answers that count, without the practice.
      fooled: number of these answers that took the fake for real.
      incomplete: number of unfinished sessions.
      badly_timed: number of counted answers after an image was shown a little too long, or more than once.
      not_counted: number of answers that do not count, by the keys of ``judging.FAULTS``.
      forged: number of requests that no page sends: "duplicate", a second answer to a trial, or a line of the journal
        that no server writes; and "refused", an answer to a trial not yet reached, or an invalid one.
    """

    rate: float | None
    mean: float | None
    sd: float | None
    participants: int
    trials: int
    fooled: int
    incomplete: int
    badly_timed: int
    not_counted: dict[str, int] = {}
    forged: dict[str, int] = {}


def analyse(
    study: str | os.PathLike[str], *, draws: int = 10_000, seed: int = 0, include_incomplete: bool = False
) -> tuple[Protocol, dict[str, Result], int]:
    """Compute the fooling rates of a study; it may still be running.

    Args:
      study: directory that ``make`` wrote.
      draws: number of draws of the bootstrap.
      seed: seed of the bootstrap.
      include_incomplete: also count the answers of unfinished sessions.

    Returns:
      The protocol, a result per algorithm, and the number of cut-off lines in the journal.

    Raises:
      InputError: it is not a study, its journal was altered, or `draws` is not positive.
    """
    if draws < 1:
        raise InputError(f"`draws` must be at least 1, not {draws}")
    design = load(study)
    sessions, kept, broken = read(Path(study))
    results = {}
    for name in design.algorithms:
        mine = {key: session for key, session in sessions.items() if session.algorithm == name}
        counted = [(s, kept.started.get(key)) for key, s in mine.items() if s.finished or include_incomplete]
        forged = sum((judging.forged(kept.refused.get(key, ())) for key in mine), Counter[str]())
        incomplete = sum(not session.finished for session in mine.values())
        results[name] = _result(counted, incomplete, design.protocol, draws, seed, forged)
    return design.protocol, results, broken


def _result(
    sessions: Sequence[tuple[Session, Any]],
    incomplete: int,
    protocol: Protocol,
    draws: int,
    seed: int,
    forged: Counter[str],
) -> Result:
    counts, badly_timed, not_counted = [], 0, Counter[str]()
    now = datetime.datetime.now(datetime.UTC)
    for session, started in sessions:
        # The fake is taken for real if the other image is chosen as the fake, or the fake is chosen as the real one.
        judged = list(judging.judge(session, started, protocol, now))[protocol.practice :]
        not_counted.update(fault for _, _, fault in judged if fault)
        pairs = [(trial, answer) for trial, answer, fault in judged if not fault]
        badly_timed += sum(judging.seen_badly(answer, protocol) for _, answer in pairs)
        fooled = [(answer["choice"] == trial.fake) == (protocol.question == "real") for trial, answer in pairs]
        if pairs:
            counts.append((sum(fooled), len(fooled)))
    fooled_in_all, trials = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    mean = sd = None
    if counts:
        rates = bootstrap(*zip(*counts, strict=True), draws=draws, seed=seed)
        mean, sd = float(rates.mean()), float(rates.std())
    rate = fooled_in_all / trials if trials else None
    told = {name: not_counted[name] for name in judging.FAULTS if not_counted[name]}
    return Result(
        rate, mean, sd, len(counts), trials, fooled_in_all, incomplete, badly_timed, told, dict(sorted(forged.items()))
    )


def bootstrap(fooled: Sequence[int], trials: Sequence[int], *, draws: int, seed: int) -> np.ndarray:
    """Resample participants, then the trials of each, and return the fooling rate of every draw.

    Drawing t of a participant's t trials with replacement, if k of them fooled, gives Binomial(t, k / t); so whole
    draws are made at once.

    Args:
      fooled: [P] number of trials that fooled each participant.
      trials: [P] number of trials of each, at least 1.
      draws: number of draws.
      seed: seed of the draws.

    Returns:
      [draws] float64 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    k, t = np.asarray(fooled), np.asarray(trials)
    rates = []
    for start in range(0, draws, 1_000):  # bounds the memory
        chosen = rng.integers(len(t), size=(min(1_000, draws - start), len(t)))
        rates.append(rng.binomial(t[chosen], (k / t)[chosen]).sum(1) / t[chosen].sum(1))
    return np.concatenate(rates)
