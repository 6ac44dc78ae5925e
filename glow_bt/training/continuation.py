"""Trains an artifact's flows further, and keeps each only if held-out rows say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from glow_bt.artifact import Artifact, ReturnModel
from glow_bt.errors import TrainingError
from glow_bt.flows import Flow, UnivariateFlow, describe_flow, make_flow
from glow_bt.folds import Fold
from glow_bt.training.config import TrainConfig
from glow_bt.training.data import TrainingData
from glow_bt.training.fitter import Progress
from glow_bt.training.loop import Block, Epoch, fit_flow, mean_nll
from glow_bt.training.warm_start import trainable

__all__ = ["Continuation", "FlowAdaptation"]

Floats = npt.NDArray[np.float64]
_Built = TypeVar("_Built", bound=Flow)


@dataclass(frozen=True)
class FlowAdaptation:
    """What going on came to for one flow.

    Attributes:
        nll_before: mean NLL of the held-out rows under the parent's flow, nats; of scaled
            states, or of next log returns in their own units.
        nll_after: the same under the adapted flow; infinite if it could not be trained.
        num_steps: training steps taken.
        history: training and "validation" loss by epoch, both of the rows learnt from: on the
            way through them, and after it.
    """

    nll_before: float
    nll_after: float
    num_steps: int = 0
    history: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether the adapted flow is finite and not worse than the parent's on held-out rows."""
        return math.isfinite(self.nll_after) and self.nll_after <= self.nll_before


class Continuation:
    """Trains copies of a model's flows further in float32, and measures them in float64.

    Args:
        config: the trainer's settings, with the rate and the seed to go on with.
        max_steps: limit on the steps of each flow.
        progress: called after each epoch.
    """

    def __init__(self, config: TrainConfig, max_steps: int, progress: Progress | None) -> None:
        self.config = config
        self.max_steps = max_steps
        self.progress = progress

    def state_flow(
        self, artifact: Artifact, x: Floats, data: TrainingData, fold: Fold
    ) -> tuple[Flow, FlowAdaptation]:
        """Go on with the density of scaled states x (N, D), rows as in `data`.

        Returns:
            The flow that is kept, adapted or the artifact's own, and what adapting came to.
        """
        learnt, judged = (
            Block(torch.from_numpy(x[data.rows(block)])) for block in (fold.train, fold.validation)
        )
        flow = artifact.state_flow
        copy = trainable(flow, lambda: make_flow(**describe_flow(flow)))
        return self._adapted("state", flow, copy, learnt, judged, noise=self.config.noise)

    def returns(
        self, artifact: Artifact, bars: pd.DataFrame, fold: Fold
    ) -> tuple[ReturnModel, dict[str, FlowAdaptation]]:
        """Go on with the densities of the next bars' returns, each horizon by itself.

        Returns:
            The model with the flows that are kept, adapted or the artifact's own, and by name
            ("return", "return_24") what adapting came to.
        """
        model = artifact.returns
        array, stamps_ns = model.inputs(bars)
        rows = model.contexts(array, stamps_ns)
        first = model.min_bars - 1
        log_close = np.log(array[first:, 3])
        flows, outcomes = {}, {}
        for horizon, flow in model.flows.items():
            unit = rows.volatility[:-horizon] * math.sqrt(horizon)
            y = (log_close[horizon:] - log_close[:-horizon]) / unit
            slices = [
                slice(max(block.start - first, 0), block.stop - first - horizon)
                for block in (fold.train, fold.validation)
            ]
            learnt, judged = (
                Block(torch.from_numpy(y[s])[:, None], torch.from_numpy(rows.values[s]))
                for s in slices
            )
            name = "return" if horizon == 1 else f"return_{horizon}"
            copy = trainable(flow, partial(UnivariateFlow, **flow.config))
            # From scaled to log returns: -ln p(r) = -ln p(y) + ln unit.
            offset = float(np.log(unit[slices[1]]).mean())
            flows[horizon], outcomes[name] = self._adapted(
                name, flow, copy, learnt, judged, offset=offset
            )
        return replace(model, flows=flows), outcomes

    def _adapted(
        self,
        name: str,
        flow: _Built,
        copy: _Built,
        learnt: Block,
        judged: Block,
        *,
        noise: float = 0.0,
        offset: float = 0.0,
    ) -> tuple[_Built, FlowAdaptation]:
        before = mean_nll(flow, judged) + offset
        rows = _latest(learnt, self.max_steps, self.config.batch_size)
        steps = math.ceil(len(rows.x) / self.config.batch_size)
        epochs = self.max_steps // steps
        config = replace(self.config, max_epochs=epochs, patience=epochs)

        def report(epoch: Epoch) -> None:
            if self.progress is not None:
                self.progress(name, epoch, epochs, flow.num_features)

        try:
            # Judged by the rows it learns from: held-out ones must not choose the epoch.
            fit = fit_flow(copy, rows, rows, config, noise=noise, report=report)
        except TrainingError:
            return flow, FlowAdaptation(before, math.inf)
        copy.double().requires_grad_(False)
        after = mean_nll(copy, judged) + offset
        taken = steps * len(fit.epochs) - fit.skipped_steps
        outcome = FlowAdaptation(
            before, after if math.isfinite(after) else math.inf, taken, fit.history()
        )
        return (copy if outcome.kept else flow), outcome


def _latest(block: Block, max_steps: int, batch_size: int) -> Block:
    """Return the rows that one pass of at most `max_steps` steps takes, in float32.

    Batch norm takes no batch of one row, so an oldest row that would be left over goes.
    """
    count = min(len(block.x), max_steps * batch_size)
    count -= count % batch_size == 1

    def latest(rows: Tensor) -> Tensor:
        return rows[len(rows) - count :].float()

    return Block(latest(block.x), None if block.context is None else latest(block.context))
