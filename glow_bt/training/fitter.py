"""Builds the two flows of a model and fits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from glow_bt.flows import Flow, UnivariateFlow, make_flow, tails_of
from glow_bt.folds import Fold
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig
from glow_bt.training.data import TrainingData
from glow_bt.training.loop import Block, Epoch, FitResult, fit_flow

__all__ = ["FlowFitter", "Progress"]

Floats = npt.NDArray[np.float64]
_Built = TypeVar("_Built", bound=Flow)


class Progress(Protocol):
    """Called after every epoch with flow name, epoch, limit of epochs and width of a row."""

    def __call__(self, flow: str, epoch: Epoch, max_epochs: int, num_features: int, /) -> None:
        """Take note of an epoch."""
        ...


class FlowFitter:
    """Builds and fits the two flows, in float32, and hands them back in float64.

    Args:
        config: the trainer's settings.
        progress: called after each epoch.
        checkpoint_of: from a flow's name, "state" or "return", to its checkpoint, if any.
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

    def fit_state_flow(self, train_x: Floats, validation_x: Floats) -> tuple[Flow, FitResult]:
        """Fit the density of scaled states (N, D), judged on held-out ones."""
        config = self.config
        settings = config.flow_settings()
        if config.base == "mixture":
            settings["num_components"] = config.num_regimes
        flow = self._seeded(lambda: make_flow(config.flow, train_x.shape[1], **settings))
        train_block, validation_block = Block(_float32(train_x)), Block(_float32(validation_x))
        if (tails := tails_of(flow)) is not None:
            tails.fit(train_block.x)
        return flow, self._fit("state", flow, train_block, validation_block, config.noise)

    def fit_return_flow(
        self, x: Floats, data: TrainingData, fold: Fold
    ) -> tuple[UnivariateFlow, FitResult]:
        """Fit the density of next returns given scaled states x (N, D), rows as in `data`."""
        flow = self._seeded(lambda: UnivariateFlow(x.shape[1], self.config.return_hidden_dim))
        train_block, validation_block = (
            Block(
                _float32(data.next_return[data.rows(block, ahead=1)])[:, None],
                _float32(x[data.rows(block, ahead=1)]),
            )
            for block in (fold.train, fold.validation)
        )
        flow.initialize(train_block.x)
        return flow, self._fit("return", flow, train_block, validation_block)

    def remove_checkpoints(self) -> None:
        """Delete what an interrupted fit would have gone on from."""
        for name in ("state", "return"):
            if (checkpoint := self.checkpoint_of(name)) is not None:
                checkpoint.remove()

    def _seeded(self, build: Callable[[], _Built]) -> _Built:
        """Build a flow from the seed alone, and leave torch's global random state as it was."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the accelerators too.
            torch.default_generator.manual_seed(self.config.seed)
            return build()

    def _fit(
        self, name: str, flow: Flow, train: Block, validation: Block, noise: float = 0.0
    ) -> FitResult:
        def report(epoch: Epoch) -> None:
            if self.progress is not None:
                self.progress(name, epoch, self.config.max_epochs, flow.num_features)

        fit = fit_flow(
            flow,
            train,
            validation,
            self.config,
            noise=noise,
            report=report,
            checkpoint=self.checkpoint_of(name),
        )
        flow.double().requires_grad_(False)
        return fit


def _float32(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
