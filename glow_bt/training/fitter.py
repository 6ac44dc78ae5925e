"""Builds the flows of a model and fits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from glow_bt.artifact import ReturnModel
from glow_bt.features import ContextSpec
from glow_bt.flows import Flow, make_flow, tails_of
from glow_bt.ohlcv import bar_interval
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig
from glow_bt.training.loop import Block, Epoch, FitResult, fit_flow
from glow_bt.training.returns import HeldOut, ReturnFitter, member_names

__all__ = ["FlowFitter", "Progress", "new_state_flow"]

Floats = npt.NDArray[np.float64]


class Progress(Protocol):
    """Called after every epoch with flow name, epoch, limit of epochs and width of a row."""

    def __call__(self, flow: str, epoch: Epoch, max_epochs: int, num_features: int, /) -> None:
        """Take note of an epoch."""
        ...


class FlowFitter:
    """Builds and fits the flows, in float32, and hands them back in float64.

    Args:
        config: the trainer's settings.
        progress: called after each epoch.
        checkpoint_of: from a flow's name, "state" or that of a member of the return flow, to its
            checkpoint, if any.
    """

    def __init__(
        self,
        config: TrainConfig,
        progress: Progress | None,
        checkpoint_of: Callable[[str], Checkpoint | None],
    ) -> None:
        self.config = config
        self.progress = progress
        self.checkpoint_of = checkpoint_of

    def fit_state_flow(
        self, train_x: Floats, validation_x: Floats, begin: Flow | None = None
    ) -> tuple[Flow, FitResult]:
        """Fit the density of scaled states (N, D), judged on held-out ones.

        Args:
            train_x: what is learnt from.
            validation_x: the held-out ones.
            begin: a float32 flow to go on from, which is changed; default a new one.
        """
        train_block, validation_block = Block(_float32(train_x)), Block(_float32(validation_x))
        if begin is not None:
            return begin, self._fit(begin, train_block, validation_block)
        flow = new_state_flow(self.config, train_x.shape[1])
        if (tails := tails_of(flow)) is not None:
            tails.fit(train_block.x)
        return flow, self._fit(flow, train_block, validation_block)

    def fit_returns(
        self, bars: pd.DataFrame, spec: ContextSpec | None = None
    ) -> tuple[ReturnModel, dict[int, HeldOut]]:
        """Fit the density of the next bars' returns to bars that may all be learnt from."""
        seconds = bar_interval(bars).total_seconds()
        spec = ContextSpec.of(bars, seconds) if spec is None else spec

        def report(name: str, epoch: Epoch, max_epochs: int) -> None:
            if self.progress is not None:
                self.progress(name, epoch, max_epochs, 1)

        fitter = ReturnFitter(self.config, report, checkpoint_of=self.checkpoint_of)
        stamps_ns = cast("pd.DatetimeIndex", bars.index).as_unit("ns").asi8
        return fitter.fit(bars[list(spec.columns)].to_numpy(), stamps_ns, seconds, spec)

    def remove_checkpoints(self) -> None:
        """Delete what an interrupted fit would have gone on from."""
        for name in ("state", *member_names(self.config)):
            if (checkpoint := self.checkpoint_of(name)) is not None:
                checkpoint.remove()

    def _fit(self, flow: Flow, train: Block, validation: Block) -> FitResult:
        def report(epoch: Epoch) -> None:
            if self.progress is not None:
                self.progress("state", epoch, self.config.max_epochs, flow.num_features)

        fit = fit_flow(
            flow,
            train,
            validation,
            self.config,
            noise=self.config.noise,
            report=report,
            checkpoint=self.checkpoint_of("state"),
        )
        flow.double().requires_grad_(False)
        return fit


def new_state_flow(config: TrainConfig, num_features: int) -> Flow:
    """Return a state flow of a config's settings with weights of its seed."""
    settings = config.flow_settings()
    if config.base == "mixture":
        settings["num_components"] = config.num_regimes
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators too.
        torch.default_generator.manual_seed(config.seed)
        return make_flow(config.flow, num_features, **settings)


def _float32(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
