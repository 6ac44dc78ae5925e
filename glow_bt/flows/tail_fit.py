"""Location, scale and tail indices of each feature by maximum likelihood."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from glow_bt.errors import FlowError
from glow_bt.flows.wallace import compress

__all__ = ["Margins", "fit_margins"]

# More rows than this, evenly taken, move an index by less than a hundredth of itself.
_MAX_ROWS = 20_000
_ITERATIONS = 40
_LEAST_GAIN = 1e-3  # nats over all rows
# A weak prior, worth about one row in each parameter, decides where data do not: a light tail
# has no best index (30 is next to Gaussian), many rows at one value have no best scale.
_PRIOR_INDEX = 30.0
_START_INDEX = 2.0
# How far a step may lead: m and s from quartiles (in scales), log(a - min_index) from 0.
_REACH = (3.0, 3.0, 7.0, 7.0)


class Margins(NamedTuple):
    """What was found, one value a feature.

    Attributes:
        location: m, (D,).
        log_scale: s, (D,).
        log_excess: log(a - min_index), (2, D), left and right.
    """

    location: Tensor
    log_scale: Tensor
    log_excess: Tensor


def fit_margins(x: Tensor, min_index: float, *, affine: bool = True) -> Margins:
    """Return the most likely margins of x (N, D), each feature by itself.

    The likelihood of a value x is that of z ~ N(0, 1), with z = compress((x - m) exp(-s), a)
    and a the left index below m and the right one above. It is maximised from medians and
    quartiles by damped scoring steps, all features at once: with g_n the gradient of row n,
    the step solves (sum_n g_n g_n' + damping) step = sum_n g_n (Berndt, Hall, Hall & Hausman
    1974, Ann. Econ. Soc. Meas. 3, 653; damping as in Levenberg 1944). Quartiles exist for any
    tail, and scale and index are sought together, so indices far below 1 are found too.

    Args:
        x: data; of more than 20,000 rows as many are taken, evenly.
        min_index: lower bound on a.
        affine: whether m and s are fitted too, or stay 0.

    Raises:
        FlowError: if x has no rows, or values that are not finite.
    """
    rows = _some_finite_rows(x)
    if affine:
        location, scale = _quartile_location_and_scale(rows)
    else:
        location, scale = torch.zeros_like(rows[0]), torch.ones_like(rows[0])
    margins = _climb(_Posterior((rows - location) / scale, min_index, affine))
    return Margins(location + scale * margins[:, 0], scale.log() + margins[:, 1], margins[:, 2:].T)


class _Posterior:
    """Log-likelihood plus log-prior of p (D, 4): m, s, left and right log(a - min_index)."""

    def __init__(self, unit: Tensor, min_index: float, affine: bool) -> None:
        self.unit = unit
        self.min_index = min_index
        far = math.log(max(_PRIOR_INDEX - min_index, 1.0))
        near = math.log(max(_START_INDEX - min_index, 0.1))
        self.centre = unit.new_tensor([0.0, 0.0, far, far])
        self.start = unit.new_tensor([0.0, 0.0, near, near]).repeat(unit.shape[1], 1)
        self.free = unit.new_tensor([affine, affine, True, True])

    def __call__(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the value (D,), its gradient (D, 4) and minus an estimate of its curvature."""
        # One copy of the parameters a row makes one gradient a row out of one backward pass.
        each = p.T[:, None, :].repeat(1, len(self.unit), 1).requires_grad_()
        with torch.enable_grad():
            m, s, left, right = each
            u = (self.unit - m) * (-s).exp()
            index = self.min_index + torch.where(u < 0, left, right).exp()
            z, log_slope = compress(u, index)
            log_likelihood = log_slope - s - 0.5 * z.square()
            (scores,) = torch.autograd.grad(log_likelihood.sum(), each)
        scores = scores.permute(2, 1, 0) * self.free  # (D, N, 4)
        miss = (p - self.centre) * self.free
        value = log_likelihood.detach().sum(dim=0) - 0.5 * miss.square().sum(dim=1)
        curvature = scores.mT @ scores + torch.eye(4, dtype=p.dtype)
        return value, scores.sum(dim=1) - miss, curvature


def _climb(posterior: _Posterior) -> Tensor:
    """Return the parameters (D, 4) at the top, by steps of a damping of its own a feature."""
    reach = posterior.centre.new_tensor(_REACH)
    p = posterior.start
    damping = torch.full_like(p[:, 0], 1e-2)
    value, gradient, curvature = posterior(p)
    for _ in range(_ITERATIONS):
        diagonal = torch.diag_embed(curvature.diagonal(dim1=1, dim2=2))
        damped = curvature + damping[:, None, None] * diagonal
        tried = p + torch.linalg.solve(damped, gradient)
        tried = torch.clamp(tried, -reach, reach)
        outcome = posterior(tried)
        gain = outcome[0] - value
        up = gain >= 0
        p = torch.where(up[:, None], tried, p)
        value = torch.where(up, outcome[0], value)
        gradient = torch.where(up[:, None], outcome[1], gradient)
        curvature = torch.where(up[:, None, None], outcome[2], curvature)
        damping = torch.where(up, damping / 3, damping * 4)
        if (gain.abs() < _LEAST_GAIN).all():
            break
    return p


def _some_finite_rows(x: Tensor) -> Tensor:
    if not len(x):
        raise FlowError("expected rows to fit tails to, found none")
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
        raise FlowError(
            f"expected finite rows to fit tails to, found row {row}: {x[row].tolist()}; "
            "remove or repair it"
        )
    stride = -(-len(x) // _MAX_ROWS)
    return x[::stride].detach().double()


def _quartile_location_and_scale(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return each feature's median and the scale of a normal with its quartiles, (D,)."""
    low, median, high = torch.quantile(rows, rows.new_tensor([0.25, 0.5, 0.75]), dim=0)
    scale = (high - low) / 1.349
    # Where half of the rows share one value, the mean deviation from it; at last, 1.
    scale = torch.where(scale > 0, scale, (rows - median).abs().mean(dim=0))
    return median, torch.where(scale > 0, scale, 1.0)
