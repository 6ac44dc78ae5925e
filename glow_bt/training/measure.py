"""How well the two flows fit each block."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from glow_bt.errors import FeatureError
from glow_bt.flows import Flow, UnivariateFlow
from glow_bt.folds import Fold
from glow_bt.training.data import TrainingData
from glow_bt.training.loop import Block, mean_nll

__all__ = ["gaussian_nll", "measure"]

Floats = npt.NDArray[np.float64]

# An exact linear relation leaves about 1e-15 here, rounding; features of real bars 1e-3 or more.
_LEAST_EIGENVALUE = 1e-10


def measure(
    state_flow: Flow,
    return_flow: UnivariateFlow,
    x: Floats,
    data: TrainingData,
    fold: Fold,
    gaussian: Callable[[Floats], float],
) -> dict[str, float]:
    """Return the mean NLL of each block that has bars, in nats a row.

    That of states is of scaled ones, under the flow and, to compare, under one Gaussian; that
    of returns is of the next bar's log return in its own units: with r = volatility * u,
    -ln p(r) = -ln p(u) + ln volatility.

    Args:
        state_flow: in float64.
        return_flow: in float64.
        x: (N, D), scaled states of the rows of `data`.
        data: what was trained on.
        fold: its blocks.
        gaussian: see `gaussian_nll`.
    """
    metrics: dict[str, float] = {}
    blocks = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    for name, block in blocks.items():
        rows, ahead = data.rows(block), data.rows(block, ahead=1)
        if ahead.stop <= ahead.start:
            continue
        nll = mean_nll(state_flow, Block(torch.from_numpy(x[rows])))
        returns = Block(
            torch.from_numpy(data.next_return[ahead])[:, None], torch.from_numpy(x[ahead])
        )
        log_volatility = float(np.log(data.volatility[ahead]).mean())
        metrics |= {
            f"state_{name}_nll": nll,
            f"state_{name}_bits_per_dim": nll / (x.shape[1] * math.log(2)),
            f"gaussian_{name}_nll": gaussian(x[rows]),
            f"return_{name}_nll": mean_nll(return_flow, returns) + log_volatility,
        }
    return metrics


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
