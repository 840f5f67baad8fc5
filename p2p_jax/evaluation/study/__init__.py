"""The papers' "real versus fake" perceptual study: made from runs, served on this machine, analysed.

Isola et al. 2017, section 3.2, and Zhu et al. 2017, section 5.1.1, ran it on Mechanical Turk; ``Protocol`` describes
the task of a participant. A study is a directory: ``study.json`` (which images are real or fake; never served),
``images`` and ``answers.jsonl`` (one line per session and per answer, append-only).
"""

from p2p_jax.evaluation.study.analysis import Result, analyse
from p2p_jax.evaluation.study.design import PRESETS, Algorithm, Protocol, make
from p2p_jax.evaluation.study.materials import from_folders, from_runs
from p2p_jax.evaluation.study.server import serve

__all__ = ["PRESETS", "Algorithm", "Protocol", "Result", "analyse", "from_folders", "from_runs", "make", "serve"]
