"""Evaluation of a trained run: metrics, reports, ablation tables and the perceptual study."""

from p2p_jax.evaluation.predictions import Prediction, predict
from p2p_jax.evaluation.protocol import evaluate
from p2p_jax.evaluation.set_metrics import METRICS

__all__ = ["METRICS", "Prediction", "evaluate", "predict"]
