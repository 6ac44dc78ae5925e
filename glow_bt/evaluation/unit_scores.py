"""How good a unit's model is: on what it was validated with, and on the test span."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import Artifact
from glow_bt.features import ContextRows
from glow_bt.folds import Fold
from glow_bt.risk import quantile_loss
from glow_bt.scoring import Scorer

__all__ = ["SCORED_LEVELS", "unit_scores"]

Floats = npt.NDArray[np.float64]

# Levels of VaR whose quantile loss is measured.
SCORED_LEVELS = (0.01, 0.05)


def unit_scores(artifact: Artifact, bars: pd.DataFrame, fold: Fold) -> dict[str, float]:
    """Return mean losses by name; lower is better.

    ::

        validation_nll            market states, scaled by the training block; nats a state
        validation_return_nll     log return of the next bar, nats
        validation_loss_0.01      quantile loss of its VaR
        test_nll, test_return_nll, test_loss_0.01 ...    the same of the test span; of returns only
                              if two bars of it are there

    In validation every return is judged by the member of the return flow that left it out. Only
    the validation scores may choose between settings.

    Args:
        artifact: trained on the fold.
        bars: the history from the first training bar to the last test bar.
        fold: positions in these bars.
    """
    metrics = artifact.training.metrics
    scores = {
        "validation_nll": metrics["state_validation_nll"],
        "validation_return_nll": metrics["return_validation_nll"],
    }
    scores |= {
        f"validation_loss_{level}": loss
        for level, loss in _held_out_losses(artifact, bars, fold).items()
    }
    return scores | _test_scores(artifact, bars, fold)


def _held_out_losses(artifact: Artifact, bars: pd.DataFrame, fold: Fold) -> dict[float, float]:
    """Return quantile losses over the validation block, each return by who left it out."""
    past = bars.iloc[: fold.validation.stop]
    rows = artifact.returns.contexts(*artifact.returns.inputs(past))
    realised = np.diff(np.log(past["close"].to_numpy()[artifact.returns.min_bars - 1 :]))
    members = artifact.returns.fused(1).members(rows.values[:-1])
    judged = slice(max(fold.validation.start - (artifact.returns.min_bars - 1), 0), None)
    losses = {}
    for level in SCORED_LEVELS:
        by_member = [member.quantile(level) for member in members]
        # The blocks of `glow_bt.training.returns`: member k left out the k-th.
        blocks = np.array_split(np.arange(len(realised)), len(members))
        quantile = np.concatenate([q[block] for q, block in zip(by_member, blocks, strict=True)])
        quantile *= rows.volatility[:-1]
        losses[level] = quantile_loss(realised[judged], quantile[judged], level)
    return losses


def _test_scores(artifact: Artifact, bars: pd.DataFrame, fold: Fold) -> dict[str, float]:
    """Return what comes of the test span; its last return ends with its last bar."""
    first = fold.test.start - (artifact.min_bars - 1)
    span = bars.iloc[first : fold.test.stop]
    scored = Scorer(artifact).score(span)["log_prob"].iloc[artifact.min_bars - 1 :]
    scores = {"test_nll": artifact.scaler.log_det - float(scored.mean())}
    if len(scored) < 2:
        return scores
    array, stamps_ns = artifact.returns.inputs(span)
    rows = artifact.returns.contexts(array, stamps_ns)
    late = artifact.min_bars - artifact.returns.min_bars
    known = ContextRows(rows.values[late:-1], rows.volatility[late:-1])
    realised = np.diff(np.log(array[artifact.min_bars - 1 :, 3]))
    distribution = artifact.returns.distribution(known)
    scores["test_return_nll"] = -float(distribution.log_prob(realised).mean())
    for level in SCORED_LEVELS:
        scores[f"test_loss_{level}"] = quantile_loss(realised, distribution.quantile(level), level)
    return scores
