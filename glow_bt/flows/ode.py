"""Ordinary differential equations whose solution is a bijection of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, silu

from glow_bt.flows.base import Context, PerRow, Rows

__all__ = ["Field", "integrate", "time_features", "velocity_field"]

# From a time and rows (N, D) to their velocity (N, D) and its divergence (N,).
Field = Callable[[float, Tensor], tuple[Tensor, Tensor]]

_Weights = list[tuple[int, float]]


@cache
def _tableau() -> tuple[list[tuple[float, _Weights]], _Weights]:
    """Return Dormand and Prince's stages, each a time and the stages before it, and weights."""
    # Here, because scipy.integrate takes long to load and only flows by an ODE need it.
    from scipy.integrate import DOP853

    stages = [
        (float(time), [(i, float(weight)) for i, weight in enumerate(row) if weight])
        for time, row in zip(DOP853.C, DOP853.A, strict=True)
    ]
    return stages, [(i, float(weight)) for i, weight in enumerate(DOP853.B) if weight]


def integrate(
    field: Field, x: Rows, start: float, stop: float, num_steps: int
) -> tuple[Rows, PerRow]:
    """Solve dx/dt = v(t, x) from start to stop, and d log|det| / dt = div v beside it.

    Dormand and Prince's Runge-Kutta method of order 8 (Hairer, Norsett & Wanner 1993, sec.
    II.5) in num_steps steps of one length. An adaptive length would make a row's result depend
    on the rows beside it. The change of volume is that of Chen et al. 2018, theorem 1
    (arXiv:1806.07366). Both come with an error of order num_steps^-8.

    Args:
        field: velocity and divergence.
        x: (N, D) at time start.
        start: time to begin at.
        stop: time to end at; before start to go back.
        num_steps: steps of 12 evaluations each.

    Returns:
        x (N, D) at time stop, and log |det dx(stop)/dx(start)| (N,).
    """
    stages, weights = _tableau()
    step = (stop - start) / num_steps
    log_det = x.new_zeros(x.shape[0])
    for number in range(num_steps):
        time = start + number * step
        velocities: list[Tensor] = []
        divergences: list[Tensor] = []
        for fraction, row in stages:
            velocity, divergence = field(time + fraction * step, _moved(x, velocities, row, step))
            velocities.append(velocity)
            divergences.append(divergence)
        x = _moved(x, velocities, weights, step)
        log_det = _moved(log_det, divergences, weights, step)
    return x, log_det


def time_features(time: Float[Tensor, "n 1"], frequencies: int) -> Float[Tensor, "n f"]:
    """Return cos(k pi t) and sin(k pi t) for k from 1 to frequencies, shape (N, 2 frequencies)."""
    multiples = torch.arange(1, frequencies + 1, dtype=time.dtype, device=time.device)
    angle = time * (torch.pi * multiples)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def velocity_field(
    layers: Sequence[tuple[Tensor, Tensor]], num_features: int, context: Context | None
) -> Field:
    """Return the field of a network of time, rows and context, with its exact divergence.

    With layers W1, W2, W3 and SiLU s between them, the Jacobian in x is W3 S2 W2 S1 W1x, where
    S are the diagonals of slopes s' and W1x the columns of W1 for x. Its trace is
    slopes2^T M slopes1 with M = W2 * (W1x W3)^T elementwise, one matrix for all rows: no more
    work than a layer, where D backward passes would be D times the network.

    Args:
        layers: weight (out, in) and bias (out,) of three layers; the first takes time features,
            x and context, in this order.
        num_features: D, width of x.
        context: (N, C), or None.
    """
    (first, first_bias), second, last = layers
    num_contexts = 0 if context is None else context.shape[1]
    num_times = first.shape[1] - num_features - num_contexts
    by_time, by_x = first[:, :num_times], first[:, num_times : num_times + num_features]
    constant = first_bias
    if context is not None:
        constant = constant + context @ first[:, num_times + num_features :].T
    mixing = second[0] * (by_x @ last[0]).T

    def field(time: float, x: Tensor) -> tuple[Tensor, Tensor]:
        now = time_features(x.new_full((1, 1), time), num_times // 2)
        hidden = x @ by_x.T + (constant + now @ by_time.T)
        deeper = linear(silu(hidden), *second)
        velocity = linear(silu(deeper), *last)
        divergence = ((_slope(deeper) @ mixing) * _slope(hidden)).sum(dim=1)
        return velocity, divergence

    return field


def _moved(
    x: Tensor, rates: list[Tensor], weights: list[tuple[int, float]], step: float
) -> Tensor:
    """Return x moved by step times the weighted sum of rates."""
    for i, weight in weights:
        x = torch.add(x, rates[i], alpha=step * weight)
    return x


def _slope(x: Tensor) -> Tensor:
    """Return the derivative of SiLU, x * sigmoid(x)."""
    gate = x.sigmoid()
    return gate * (1 + x * (1 - gate))
