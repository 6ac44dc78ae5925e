"""States through the flows of a model, by the fastest way that each flow has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from glow_bt.flows import Flow, Glow
from glow_bt.flows.base import refuse_nan
from glow_bt.threads import one_thread

__all__ = ["Encoder", "encoder_of"]

Floats = npt.NDArray[np.float64]
Encoder = Callable[[Floats], tuple[Floats, Floats]]

# Rows that go through a module at once; longer inputs fall out of the processor's cache.
_BLOCK_ROWS = 4096


def encoder_of(flow: Flow) -> Encoder:
    """Return a function from states (N, D) to latents (N, D) and log-densities (N,).

    A Glow is fused (see `glow_bt.flows.Glow.fused`); any other family runs as its module, on
    one thread. Both can be pickled, and raise FlowError on a wrong width, a state that is not
    finite, or one so far out that its density comes out as NaN.
    """
    if isinstance(flow, Glow):
        return cast("Encoder", flow.fused("float64").encode)
    return partial(_encode_by_module, flow)


@torch.no_grad()
def _encode_by_module(flow: Flow, states: Floats) -> tuple[Floats, Floats]:
    # A frame's values are read-only, which torch warns of.
    rows = torch.from_numpy(np.require(states, np.float64, ["C", "W"]))
    flow.check_rows(rows, None)
    latents, log_prob = [], []
    with one_thread():
        for block in torch.split(rows, _BLOCK_ROWS):
            z, log_det = flow(block)
            latents.append(z)
            log_prob.append(flow.prior.log_prob(z) + log_det)
    densities = torch.cat(log_prob)
    refuse_nan(densities, rows)
    return torch.cat(latents).numpy(), densities.numpy()
