"""One-dimensional flows with parameters of ordinary size, as training leaves them."""

import numpy as np
import torch

from glow_bt.flows import UnivariateFlow
from glow_bt.flows.univariate import MIN_INDEX
from glow_bt.fused import SkewedTails

# Of both tails: next to the bound, light, and far apart.
INDICES = [(1.201, 1.201), (1.21, 40.0), (1.5, 6.0), (4.0, 4.0), (90.0, 2.0)]


def settled(context_features=2, num_members=1, *, seed=3, size=0.3, left=3.0, right=5.0):
    """Return a flow in float64 whose every parameter has moved from where it starts.

    Members differ from each other; tails have these indices where the networks say nothing.
    """
    flow = UnivariateFlow(context_features, 8, num_members).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)

    def noise(shape):
        return size * torch.randn(shape, generator=generator, dtype=torch.float64)

    for parameter in flow.parameters():
        parameter += noise(parameter.shape)
    flow.location.copy_(0.2 + 0.1 * noise(flow.location.shape))
    index = torch.tensor([left, right], dtype=torch.float64)
    moved = 0.1 * noise(flow.log_excess.shape)
    flow.log_excess.copy_((index - MIN_INDEX).log() + moved - moved.mean(dim=0))
    return flow.eval()


def contexts_of(flow, count, seed=4):
    """Return contexts (N, C) of unit deviation, or None for a flow without."""
    if not flow.context_features:
        return None
    generator = torch.Generator().manual_seed(seed)
    shape = (count, flow.context_features)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def tails_of(left, right, scale=1.0, *, seed=3, size=0.3):
    """Return one distribution with these tails and a body of its own."""
    spline = settled(0, seed=seed, size=size).fused().parts.spline
    row = (np.array([value], dtype=float) for value in (scale, left, right))
    return SkewedTails(*row, location=0.2, spline=spline)
