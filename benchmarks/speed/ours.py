"""Our flow as users meet it: `Glow.fused()` for inference, the trainer's own step for training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.contender import (
    CLIP_NORM,
    INITIAL_ROWS,
    LEARNING_RATE,
    Call,
    Contender,
    Size,
    count_parameters,
    through_compiler,
    without_gradients,
)
from glow_bt.flows import Glow
from glow_bt.training.config import TrainConfig
from glow_bt.training.loop import Block, _Fit

# A frozen flow and its module are the same function up to rounding.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def make_glow(size: Size, *, tails: bool = True) -> Glow:
    """Return a Glow in training mode whose ActNorms have seen data."""
    torch.manual_seed(0)
    flow = Glow(size.features, size.levels, size.steps, size.hidden, tails=tails).train()
    with torch.no_grad():
        flow.log_prob(torch.randn(INITIAL_ROWS, size.features))
        for parameter in flow.parameters():  # fresh couplings end in zeros: no fair work
            parameter.add_(0.02 * torch.randn_like(parameter))
    return flow


class Ours(Contender):
    """The frozen flow in one dtype; in float32, the one of training, also a training step.

    Args:
        size: of the flow.
        dtype: "float32" or "float64", of inference.
        tails: whether the tail layer, which no peer has, comes first.
        compiled: only a training step, through torch.compile; a reference, because the trainer
            offers no such setting.
    """

    def __init__(
        self, size: Size, dtype: str, *, tails: bool = True, compiled: bool = False
    ) -> None:
        words = [dtype, *([] if tails else ["no tail layer"]), *(["compiled"] if compiled else [])]
        self._size, self._dtype, self._tails, self._compiled = size, dtype, tails, compiled
        group = "ours" if tails and not compiled else "reference"
        super().__init__(f"glow_bt {', '.join(words)}", group, count_parameters(self._flow()))

    def encode(self, x: Tensor) -> Call | None:
        if self._compiled:
            return None
        flow = self._flow().eval()
        fused, rows = flow.fused(self._dtype), x.numpy().astype(self._dtype)
        _check_same(flow, fused.encode(rows), x, TOLERANCE[self._dtype])
        return lambda: fused.encode(rows)

    def sample(self, n: int) -> Call | None:
        if self._compiled:
            return None
        fused = self._flow().eval().fused(self._dtype)
        return lambda: fused.sample(n)

    def train(self, x: Tensor) -> Call | None:
        if self._dtype != "float32":
            return None
        flow = self._flow()
        if self._compiled:
            flow.objective = through_compiler(flow.objective)
        config = TrainConfig(
            hidden_dim=self._size.hidden,
            batch_size=len(x),
            learning_rate=LEARNING_RATE,
            clip_norm=CLIP_NORM,
        )
        return _Fit(flow, Block(x), Block(x), config, noise=0.0)._take_steps

    def _flow(self) -> Glow:
        return make_glow(self._size, tails=self._tails)


class OurModule(Contender):
    """The torch module itself, in eval mode: what inference costs without freezing."""

    def __init__(self, size: Size) -> None:
        self._flow = make_glow(size).eval()
        super().__init__("glow_bt module", "reference", count_parameters(self._flow))

    def encode(self, x: Tensor) -> Call:
        return without_gradients(encode_module, self._flow, x)

    def sample(self, n: int) -> Call:
        return without_gradients(self._flow.sample, n)


def encode_module(flow: Glow, x: Tensor) -> tuple[Tensor, Tensor]:
    z, log_det = flow(x)
    return z, flow.prior.log_prob(z) + log_det


def _check_same(
    flow: Glow, found: tuple[np.ndarray, np.ndarray], x: Tensor, tolerance: float
) -> None:
    with torch.inference_mode():
        expected = encode_module(flow.double(), x.double())
    for ours, theirs in zip(found, expected, strict=True):
        worst = np.abs(ours - theirs.numpy()).max()
        if not worst <= tolerance:
            raise ValueError(
                f"expected fused and module to agree within {tolerance:g}, found {worst:g}"
            )
