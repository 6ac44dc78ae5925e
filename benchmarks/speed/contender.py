"""What is compared: something that encodes, samples and trains a flow of one stated size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[], Any]

INITIAL_ROWS = 4096
CLIP_NORM = 5.0
# Small, so that hundreds of steps on one batch leave the weights as they were: what is timed
# is arithmetic, and arithmetic on numbers of ordinary size.
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Size:
    """The size that every contender is built to; two hidden layers a coupling.

    Attributes:
        features: width of a row.
        levels: blocks of steps; half of the features leaves between two of them.
        steps: couplings a level.
        hidden: width of the hidden layers.
    """

    features: int = 16
    levels: int = 3
    steps: int = 4
    hidden: int = 128

    def widths(self) -> list[int]:
        """Return how many features each level works on."""
        widths = [self.features]
        for _ in range(self.levels - 1):
            widths.append(widths[-1] - widths[-1] // 2)
        return widths


class Contender:
    """One column of the table. Each method returns the call to time, or None to stay out.

    Attributes:
        name: as printed.
        group: "ours", "peer", or "reference" for what is neither.
        parameters: how many numbers it learns.
    """

    def __init__(self, name: str, group: str, parameters: int = 0) -> None:
        self.name = name
        self.group = group
        self.parameters = parameters

    def encode(self, x: Tensor) -> Call | None:
        """Return a call for the latents (N, D) and log-densities (N,) of x (N, D)."""
        return None

    def sample(self, n: int) -> Call | None:
        """Return a call that draws n rows."""
        return None

    def train(self, x: Tensor) -> Call | None:
        """Return a call that takes one optimizer step on the batch x (N, D)."""
        return None


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def training_step(
    parameters: Iterable[nn.Parameter], log_prob: Callable[[Tensor], Tensor], x: Tensor
) -> Call:
    """Return one maximum-likelihood step: forward, backward, clipped gradients, fused Adam."""
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss = -log_prob(x).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()

    return step


def through_compiler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function through torch.compile, for one batch size.

    Contenders share code (a library's, or the closure here), and by default all that was ever
    compiled from it is looked through in each call: so each keeps its own. A library's layer
    counts as one function, however many there are in a flow; hence the limit.
    """
    return torch.compile(function, dynamic=False, isolate_recompiles=True, recompile_limit=64)


def without_gradients(function: Callable[..., Any], *arguments: Any) -> Call:
    """Return a call of the function in inference mode."""

    def call() -> Any:
        with torch.inference_mode():
            return function(*arguments)

    return call
