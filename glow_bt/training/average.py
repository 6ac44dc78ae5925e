"""A running average of a flow's weights; it helps where they still swing in the end."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from glow_bt.flows import Flow

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of the weights over training steps.

    After n steps the average moves by 1 - min(decay, (1 + n) / (10 + n)) of the way to the
    weights, so that it forgets the start quickly. Polyak & Juditsky 1992; the ramp is that of
    TensorFlow's ExponentialMovingAverage.

    Args:
        flow: the flow that is trained, after its data-dependent layers have seen data.
        decay: in [0, 1); 0 makes the average the last weights.

    Attributes:
        flow: a copy of the flow that holds the average, in eval mode.
        num_steps: updates so far.
    """

    def __init__(self, flow: Flow, decay: float) -> None:
        self.flow = deepcopy(flow).eval().requires_grad_(False)
        self.decay = decay
        self.num_steps = 0
        self._averages: list[Tensor] = list(self.flow.parameters())

    @torch.no_grad()
    def update(self, flow: Flow) -> None:
        """Take in the weights after a step."""
        if not self.decay:
            return  # the last weights are taken when they are asked for
        decay = min(self.decay, (1 + self.num_steps) / (10 + self.num_steps))
        weights: list[Tensor] = list(flow.parameters())
        torch._foreach_lerp_(self._averages, weights, 1 - decay)
        self.num_steps += 1

    @torch.no_grad()
    def averaged(self, flow: Flow) -> Flow:
        """Return the averaged flow, with what is no weight, such as running moments, as it is."""
        for average, value in zip(self.flow.buffers(), flow.buffers(), strict=True):
            average.copy_(value)
        if not self.decay:
            for average, value in zip(self._averages, flow.parameters(), strict=True):
                average.copy_(value)
        return self.flow

    def state(self) -> dict[str, Tensor]:
        """Return the average by name."""
        return self.flow.state_dict()

    def restore(self, tensors: dict[str, Tensor], num_steps: int) -> None:
        """Go on from a saved average."""
        self.flow.load_state_dict(tensors)
        self.num_steps = num_steps
