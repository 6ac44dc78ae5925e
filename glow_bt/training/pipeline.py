"""From bars to an artifact."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

import glow_bt
from glow_bt.artifact import Artifact, TrainingRecord
from glow_bt.direction import DirectionReadout, forward_scaled_return
from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.features import DEFAULT_SPEC, FeatureSpec, Scaler, feature_array, volatility_array
from glow_bt.flows import Flow, Glow, UnivariateFlow
from glow_bt.folds import Fold, chronological_split, split_at
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.ohlcv import BAR_COLUMNS, bar_interval, bars_sha256, validate_bars
from glow_bt.regimes import Regimes, match_labels, order_labels
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig
from glow_bt.training.loop import Block, Epoch, FitResult, fit_flow, mean_nll

__all__ = ["Progress", "train"]

Floats = npt.NDArray[np.float64]

_MIN_TRAIN_ROWS = 300
_MIN_VALIDATION_ROWS = 50
_PROBES = 16
_LIBRARIES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "safetensors")


class Progress(Protocol):
    """Called after every epoch with flow name, epoch, limit of epochs and width of a row."""

    def __call__(self, flow: str, epoch: Epoch, max_epochs: int, num_features: int) -> None:
        """Take note of an epoch."""
        ...


@dataclass(frozen=True, eq=False)
class _Data:
    """What training looks at, row by row; rows before the first full state are left out.

    Attributes:
        first: position in the bars of row 0.
        features: (N, D) raw states.
        volatility: (N,) of one bar's log return.
        next_return: (N,) next bar's log return over volatility; NaN in the last row.
        forward_return: (N,) scaled return to the direction's horizon; NaN at the end.
    """

    first: int
    features: Floats
    volatility: Floats
    next_return: Floats
    forward_return: Floats

    def rows(self, block: range, ahead: int = 0) -> slice:
        """Return the rows of a block of bars whose next `ahead` bars are inside it too."""
        start = max(block.start - self.first, 0)
        return slice(start, max(block.stop - self.first - ahead, start))


def train(
    bars: pd.DataFrame,
    config: TrainConfig | None = None,
    *,
    spec: FeatureSpec | None = None,
    previous: Artifact | None = None,
    progress: Progress | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Train both flows and fit everything that the runtime reads from them.

    The scaler, the flows, direction and regimes see the training block; early stopping, filter
    thresholds and confidence ranks the validation block; the test block is only measured.

    Args:
        bars: a bar frame (see `glow_bt.ohlcv`).
        config: settings; default `TrainConfig()`.
        spec: features of a market state; default the 16 of `DEFAULT_SPEC`.
        previous: the model before this one, whose regime labels the new ones are matched to.
            Without it regimes are numbered by volatility, the calmest first.
        progress: called after each epoch (see `TrainingProgress`).
        checkpoint_dir: where to save after each epoch; an interrupted call with the same bars
            and settings goes on from there, to the same result.

    Returns:
        The artifact, with flows in float64.

    Raises:
        DataError: if the bars break their contract.
        TooFewBarsError: if a block is too short; says how many bars are needed.
        FeatureError: if a feature is constant in the training block.
        TrainingError: if no epoch gave a finite likelihood.
    """
    config = config or TrainConfig()
    spec = spec or DEFAULT_SPEC
    bars = validate_bars(bars)
    fold = _split(bars, config, spec)
    data = _prepare(bars, config, spec)
    train_rows, validation_rows = data.rows(fold.train), data.rows(fold.validation)
    _check_sizes(train_rows, validation_rows, len(bars), fold, spec)
    scaler = Scaler.fit(data.features[train_rows], spec.names)
    x = scaler.transform(data.features)
    fitter = _Fitter(config, progress, _checkpoint_maker(checkpoint_dir, bars, config, spec))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        state_flow, state_fit = fitter.fit_state_flow(x[train_rows], x[validation_rows])
        return_flow, return_fit = fitter.fit_return_flow(x, data, fold)
    latents, log_prob = _encode(state_flow, x)
    log_prob = log_prob + scaler.log_det
    regimes = _fit_regimes(latents, data, train_rows, config, previous, spec)
    fitter.remove_checkpoints()
    probe = np.ascontiguousarray(x[validation_rows][:: max(len(x[validation_rows]) // _PROBES, 1)])
    return Artifact(
        spec=spec,
        scaler=scaler,
        state_flow=state_flow,
        return_flow=return_flow,
        likelihood=LikelihoodFilter.fit(log_prob[validation_rows], config.false_alarm_rate),
        direction=DirectionReadout.fit(
            latents[data.rows(fold.train, config.direction_horizon)],
            data.forward_return[data.rows(fold.train, config.direction_horizon)],
            config.direction_horizon,
        ),
        regimes=regimes,
        probe=probe,
        probe_log_prob=_encode(state_flow, probe)[1],
        training=TrainingRecord(
            trained_from=cast("pd.Timestamp", bars.index[fold.train.start]),
            trained_until=cast("pd.Timestamp", bars.index[fold.validation.stop - 1]),
            n_bars=fold.validation.stop - fold.train.start,
            bar_seconds=bar_interval(bars).total_seconds(),
            data_sha256=bars_sha256(bars),
            seed=config.seed,
            config=config.to_dict(),
            metrics=_measure(state_flow, return_flow, x, data, fold)
            | _describe("state", state_fit)
            | _describe("return", return_fit)
            | {"max_condition_number": max(state_flow.condition_numbers(), default=1.0)},
            history={"state": state_fit.history(), "return": return_fit.history()},
            versions=_versions(),
        ),
    )


def _split(bars: pd.DataFrame, config: TrainConfig, spec: FeatureSpec) -> Fold:
    purge = spec.min_bars if config.purge is None else config.purge
    if purge < spec.min_bars:
        raise ConfigError(
            f"expected a purge of at least {spec.min_bars} bars, the longest feature window, "
            f"found {purge}"
        )
    if config.train_until is None or config.validation_until is None:
        return chronological_split(len(bars), purge=purge, fractions=config.fractions)
    stops = [
        int(bars.index.searchsorted(_utc(date)))
        for date in (config.train_until, config.validation_until)
    ]
    return split_at(len(bars), stops[0], stops[1], purge=purge)


def _prepare(bars: pd.DataFrame, config: TrainConfig, spec: FeatureSpec) -> _Data:
    if len(bars) < spec.min_bars:
        raise TooFewBarsError(spec.min_bars, len(bars), "a market state")
    array = bars[list(BAR_COLUMNS)].to_numpy()
    close = array[:, 3]
    volatility = volatility_array(close, spec)
    first = spec.min_bars - 1
    return _Data(
        first=first,
        features=feature_array(array, spec)[first:],
        volatility=volatility[first:],
        next_return=forward_scaled_return(close, volatility, 1)[first:],
        forward_return=forward_scaled_return(close, volatility, config.direction_horizon)[first:],
    )


def _check_sizes(
    train_rows: slice, validation_rows: slice, n_bars: int, fold: Fold, spec: FeatureSpec
) -> None:
    train_size = train_rows.stop - train_rows.start
    validation_size = validation_rows.stop - validation_rows.start
    # The last row of a block has no next return inside it.
    short = max(_MIN_TRAIN_ROWS - train_size, _MIN_VALIDATION_ROWS + 1 - validation_size)
    if short > 0:
        block = max(min(len(fold.train), len(fold.validation)), 1)
        needed = math.ceil(n_bars * (1 + short / block)) + spec.min_bars
        raise TooFewBarsError(
            needed,
            n_bars,
            f"training on {_MIN_TRAIN_ROWS} states and validating on {_MIN_VALIDATION_ROWS}",
        )


class _Fitter:
    """Builds and fits the two flows, in float32, and hands them back in float64."""

    def __init__(
        self,
        config: TrainConfig,
        progress: Progress | None,
        checkpoint_of: Callable[[str], Checkpoint | None],
    ) -> None:
        self.config = config
        self.progress = progress
        self.checkpoint_of = checkpoint_of

    def fit_state_flow(self, train_x: Floats, validation_x: Floats) -> tuple[Glow, FitResult]:
        config = self.config
        flow = Glow(
            num_features=train_x.shape[1],
            num_levels=config.num_levels,
            num_steps=config.num_steps,
            hidden_dim=config.hidden_dim,
            base=config.base,
            num_components=config.num_regimes,
        )
        train_block, validation_block = Block(_float32(train_x)), Block(_float32(validation_x))
        if flow.tails is not None:
            flow.tails.fit(train_block.x)
        return flow, self._fit("state", flow, train_block, validation_block)

    def fit_return_flow(
        self, x: Floats, data: _Data, fold: Fold
    ) -> tuple[UnivariateFlow, FitResult]:
        flow = UnivariateFlow(x.shape[1], self.config.return_hidden_dim)
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
        for name in ("state", "return"):
            checkpoint = self.checkpoint_of(name)
            if checkpoint is not None:
                checkpoint.remove()

    def _fit(self, name: str, flow: Flow, train: Block, validation: Block) -> FitResult:
        def report(epoch: Epoch) -> None:
            if self.progress is not None:
                self.progress(name, epoch, self.config.max_epochs, flow.num_features)

        fit = fit_flow(
            flow,
            train,
            validation,
            self.config,
            report=report,
            checkpoint=self.checkpoint_of(name),
        )
        flow.double().requires_grad_(False)
        return fit


def _fit_regimes(
    latents: Floats,
    data: _Data,
    train_rows: slice,
    config: TrainConfig,
    previous: Artifact | None,
    spec: FeatureSpec,
) -> Regimes | None:
    """Cluster training latents and give the clusters lasting names."""
    if config.regime_method == "base":
        return None
    z = latents[train_rows]
    regimes = Regimes.fit(z, config.num_regimes, config.regime_method, config.seed)
    labels = regimes.assign(z)
    if previous is None or previous.regimes is None:
        return regimes.relabelled(
            order_labels(labels, data.volatility[train_rows], config.num_regimes)
        )
    if len(previous.regimes.weights) != config.num_regimes or previous.spec.names != spec.names:
        raise ConfigError(
            f"expected a previous model with {config.num_regimes} regimes of the same features, "
            f"found {len(previous.regimes.weights)}; train without it"
        )
    old_z, _ = _encode(previous.state_flow, previous.scaler.transform(data.features[train_rows]))
    reference = previous.regimes.assign(old_z)
    return regimes.relabelled(match_labels(reference, labels, config.num_regimes))


def _measure(
    state_flow: Glow, return_flow: UnivariateFlow, x: Floats, data: _Data, fold: Fold
) -> dict[str, float]:
    """Return the NLL of each block: of scaled states, and of log returns in their own units."""
    metrics: dict[str, float] = {}
    gaussian = _gaussian_nll(x[data.rows(fold.train)])
    for name, block in (
        ("train", fold.train),
        ("validation", fold.validation),
        ("test", fold.test),
    ):
        rows, ahead = data.rows(block), data.rows(block, ahead=1)
        if ahead.stop - ahead.start < 1:
            continue
        nll = mean_nll(state_flow, Block(torch.from_numpy(x[rows])))
        metrics[f"state_{name}_nll"] = nll
        metrics[f"state_{name}_bits_per_dim"] = nll / (x.shape[1] * math.log(2))
        metrics[f"gaussian_{name}_nll"] = float(gaussian(x[rows]).mean())
        returns = Block(
            torch.from_numpy(data.next_return[ahead])[:, None], torch.from_numpy(x[ahead])
        )
        in_returns = float(np.log(data.volatility[ahead]).mean())
        metrics[f"return_{name}_nll"] = mean_nll(return_flow, returns) + in_returns
    return metrics


def _gaussian_nll(train_x: Floats) -> Callable[[Floats], Floats]:
    """Return the NLL under a Gaussian of the training block's mean and covariance."""
    mean, covariance = train_x.mean(axis=0), np.cov(train_x.T)
    factor = np.linalg.cholesky(covariance)
    constant = np.log(factor.diagonal()).sum() + 0.5 * len(mean) * math.log(2 * math.pi)

    def nll(x: Floats) -> Floats:
        whitened = np.linalg.solve(factor, (x - mean).T)
        value: Floats = constant + 0.5 * (whitened**2).sum(axis=0)
        return value

    return nll


@torch.no_grad()
def _encode(flow: Glow, x: Floats) -> tuple[Floats, Floats]:
    z, log_det = flow(torch.from_numpy(np.ascontiguousarray(x)))
    return z.numpy(), (flow.prior.log_prob(z) + log_det).numpy()


def _describe(name: str, fit: FitResult) -> dict[str, float]:
    return {
        f"{name}_best_epoch": float(fit.best_epoch),
        f"{name}_epochs": float(len(fit.epochs)),
        f"{name}_skipped_steps": float(fit.skipped_steps),
    }


def _checkpoint_maker(
    folder: str | os.PathLike[str] | None,
    bars: pd.DataFrame,
    config: TrainConfig,
    spec: FeatureSpec,
) -> Callable[[str], Checkpoint | None]:
    if folder is None:
        return lambda _: None
    settings: dict[str, Any] = config.to_dict() | {"spec": spec.to_dict()}
    text = json.dumps(settings, sort_keys=True) + bars_sha256(bars)
    key = hashlib.sha256(text.encode()).hexdigest()
    return lambda name: Checkpoint(Path(folder) / f"{name}.checkpoint.safetensors", key)


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in _LIBRARIES}
    return {"glow_bt": glow_bt.__version__, "python": platform.python_version(), **found}


def _float32(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _utc(date: str) -> pd.Timestamp:
    stamp = pd.Timestamp(date)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")
