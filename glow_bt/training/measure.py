"""How well the flows fit each block."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from glow_bt.artifact import ReturnModel
from glow_bt.errors import FeatureError
from glow_bt.flows import Flow
from glow_bt.folds import Fold
from glow_bt.training.data import TrainingData
from glow_bt.training.loop import Block, mean_nll
from glow_bt.training.returns import HeldOut

__all__ = ["gaussian_nll", "measure", "measure_returns"]

Floats = npt.NDArray[np.float64]

# An exact linear relation leaves about 1e-15 here, rounding; features of real bars 1e-3 or more.
_LEAST_EIGENVALUE = 1e-10


def measure(
    state_flow: Flow,
    x: Floats,
    data: TrainingData,
    fold: Fold,
    gaussian: Callable[[Floats], float],
) -> dict[str, float]:
    """Return the mean NLL of scaled states in each block that has bars, in nats a row.

    Beside it that under one Gaussian, to compare.

    Args:
        state_flow: in float64.
        x: (N, D), scaled states of the rows of `data`.
        data: what was trained on.
        fold: its blocks.
        gaussian: see `gaussian_nll`.
    """
    metrics: dict[str, float] = {}
    for name, block in _blocks(fold).items():
        rows = data.rows(block)
        if data.rows(block, ahead=1).stop <= rows.start:
            continue
        nll = mean_nll(state_flow, Block(torch.from_numpy(x[rows])))
        metrics |= {
            f"state_{name}_nll": nll,
            f"state_{name}_bits_per_dim": nll / (x.shape[1] * math.log(2)),
            f"gaussian_{name}_nll": gaussian(x[rows]),
        }
    return metrics


def measure_returns(
    returns: ReturnModel, held_out: Mapping[int, HeldOut], bars: pd.DataFrame, fold: Fold
) -> dict[str, float]:
    """Return the mean NLL of log returns in each block, in their own units, nats a row.

    Of training and validation by the member that left a row out; of the test block, which no
    member saw, by the model.

    Args:
        returns: the model.
        held_out: by horizon, what members say of the blocks that they left out.
        bars: the whole history.
        fold: its blocks.
    """
    array, stamps_ns = returns.inputs(bars)
    first = returns.min_bars - 1
    log_close = np.log(array[first:, 3])
    metrics: dict[str, float] = {}
    for horizon, own in held_out.items():
        seen = own.log_prob
        known = log_close[horizon:] - log_close[:-horizon]
        name = "return" if horizon == 1 else f"return_{horizon}"
        for block_name, block in _blocks(fold).items():
            start, stop = max(block.start - first, 0), max(block.stop - first - horizon, 0)
            if stop <= start:
                continue
            if block_name == "test":
                rows = returns.contexts(array, stamps_ns).rows(slice(start, stop))
                log_prob = returns.distribution(rows, horizon).log_prob(known[start:stop])
            else:
                log_prob = seen[start:stop]
            metrics[f"{name}_{block_name}_nll"] = -float(log_prob.mean())
    return metrics


def _blocks(fold: Fold) -> dict[str, range]:
    return {"train": fold.train, "validation": fold.validation, "test": fold.test}


def gaussian_nll(train_x: Floats) -> Callable[[Floats], float]:
    """Return the mean NLL under a Gaussian of the mean and covariance of `train_x` (N, D).

    Raises:
        FeatureError: if a feature is a linear function of others in all rows; then states have
            no density.
    """
    least = np.linalg.eigvalsh(np.corrcoef(train_x.T))[0]
    if least < _LEAST_EIGENVALUE:
        raise FeatureError(
            "expected features none of which is a linear function of the others, found that some "
            f"are in all {len(train_x)} training rows (least eigenvalue of their correlations "
            f"{least:.1e}); train on a longer history"
        )
    mean, factor = train_x.mean(axis=0), np.linalg.cholesky(np.cov(train_x.T))
    constant = np.log(factor.diagonal()).sum() + 0.5 * len(mean) * math.log(2 * math.pi)

    def nll(x: Floats) -> float:
        whitened = np.linalg.solve(factor, (x - mean).T)
        return float(constant + 0.5 * (whitened**2).sum(axis=0).mean())

    return nll
