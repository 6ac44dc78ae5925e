"""Aligned bars of several assets as joint returns, and what was known of them before each bar.

Before every bar there is a map A (N, N) from standardised returns to log returns, r = A x, and a
context. A = D C^(1/2) Q: D holds each asset's current volatility, C the current correlations,
shrunk, and the columns of Q are lasting directions, the first of them the market. So x has about
unit variance and no correlation left; what a flow learns of it is the tails, what is shared
beyond a correlation, and how far the next bar strays from the current volatility.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.ohlcv import validate_bars

__all__ = ["WARM_UP", "JointReturns", "StateSettings", "joint_log_returns"]

Floats = npt.NDArray[np.float64]

# Returns that the first volatilities and correlations are taken from.
WARM_UP = 50
# A move larger than this many deviations, root mean square over assets, counts as one so large:
# a crash says no more about correlations than a bad day.
_LARGEST_MOVE = 3.0
# Volatility never falls below this share of the slow one, so that a halt leaves a scale.
_LEAST_SHARE = 0.1
_LARGEST_CORRELATION = 0.999


@dataclass(frozen=True, kw_only=True)
class StateSettings:
    """How the past is summed up before each bar.

    Attributes:
        decay: of the squared returns whose average is the middle variance.
        fast_decay: of a faster one.
        slow_decay: of a slower one. The current variance is a mean of the three.
        fast_share: weight of the fast variance in that mean.
        slow_share: weight of the slow one; the middle one has the rest.
        leverage: g; squares of falls count 1 + g times, those of rises 1 - g times.
        correlation_decay: of the correlations.
        shrinkage: share of constant correlation (their average) in the correlations, as in
            Ledoit & Wolf 2004, J. Portfolio Management 30(4).
        asset_context: whether each asset's own volatility ratios join the context, or only
            their averages.

    Raises:
        ConfigError: on a setting outside what can work.
    """

    decay: float = 0.95
    fast_decay: float = 0.8
    slow_decay: float = 0.99
    fast_share: float = 0.2
    slow_share: float = 0.3
    leverage: float = 0.0
    correlation_decay: float = 0.985
    shrinkage: float = 0.1
    asset_context: bool = False

    def __post_init__(self) -> None:
        for name in ("fast_decay", "decay", "slow_decay", "correlation_decay"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"expected {name} inside (0, 1), found {getattr(self, name)}")
        for name in ("fast_share", "slow_share", "leverage", "shrinkage"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"expected {name} inside [0, 1), found {getattr(self, name)}")
        if self.fast_share + self.slow_share > 1:
            raise ConfigError(
                "expected fast_share and slow_share of at most 1 together, found "
                f"{self.fast_share} and {self.slow_share}"
            )
        if not self.fast_decay < self.decay < self.slow_decay:
            raise ConfigError(
                "expected fast_decay below decay below slow_decay, found "
                f"{self.fast_decay}, {self.decay} and {self.slow_decay}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values; `StateSettings(**settings)` takes them."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class JointReturns:
    """Joint log returns of N assets over T bars, and T + 1 states, each known before its bar.

    State t is made of returns before row t; the last one belongs to the bar to come.

    Attributes:
        assets: N names.
        stamps: (T,) opens of the bars whose closes end the returns.
        returns: (T, N) log returns from close to close.
        volatility: (T + 1, N) current volatility of each asset.
        root: (T + 1, N, N) D C^(1/2), symmetric root of the correlations, times volatility.
        context: (T + 1, C) volatility ratios, average correlation and last move.
        settings: how states were made.
    """

    assets: tuple[str, ...]
    stamps: pd.DatetimeIndex
    returns: Floats
    volatility: Floats
    root: Floats
    context: Floats
    settings: StateSettings

    @classmethod
    def of_bars(
        cls, bars_by_asset: Mapping[str, pd.DataFrame], settings: StateSettings | None = None
    ) -> JointReturns:
        """Read joint returns and states off aligned bars.

        Args:
            bars_by_asset: bar frames (see `glow_bt.ohlcv`) of equal stamps, by name.
            settings: how the past is summed up.

        Raises:
            DataError: if stamps differ, bars break their contract, or an asset never moves in
                the first 50 returns.
            TooFewBarsError: below 52 bars.
        """
        stamps, returns = joint_log_returns(bars_by_asset)
        return cls.of_returns(tuple(bars_by_asset), stamps, returns, settings or StateSettings())

    @classmethod
    def of_returns(
        cls,
        assets: tuple[str, ...],
        stamps: pd.DatetimeIndex,
        returns: Floats,
        settings: StateSettings,
    ) -> JointReturns:
        """Read states off log returns (T, N) of assets at stamps (T,), as `of_bars` does."""
        if len(returns) <= WARM_UP:
            raise TooFewBarsError(WARM_UP + 2, len(returns) + 1, "a state of joint returns")
        _refuse_standstill(returns, assets)
        weight = np.where(returns < 0, 1 + settings.leverage, 1 - settings.leverage)
        fast, middle, slow = (
            _ewma(weight * returns**2, decay)
            for decay in (settings.fast_decay, settings.decay, settings.slow_decay)
        )
        rest = 1 - settings.fast_share - settings.slow_share
        mean = settings.fast_share * fast + rest * middle + settings.slow_share * slow
        own = np.sqrt(np.maximum(mean, _LEAST_SHARE**2 * slow))
        moves = returns / own[:-1]
        correlation = _correlations(moves, settings)
        values, vectors = np.linalg.eigh(correlation)
        halves = (vectors * np.sqrt(values)[:, None, :]) @ vectors.transpose(0, 2, 1)
        ratios = np.sqrt(np.maximum(fast / slow, _LEAST_SHARE**2)), np.sqrt(middle / slow)
        return cls(
            assets,
            stamps,
            returns,
            own,
            own[:, :, None] * halves,
            _context(*ratios, correlation, moves, asset_context=settings.asset_context),
            settings,
        )

    def restated(self, settings: StateSettings) -> JointReturns:
        """Return the same returns with the past summed up in another way."""
        return self.of_returns(self.assets, self.stamps, self.returns, settings)

    def __len__(self) -> int:
        return len(self.returns)

    @property
    def num_assets(self) -> int:
        """N."""
        return len(self.assets)


def joint_log_returns(
    bars_by_asset: Mapping[str, pd.DataFrame],
) -> tuple[pd.DatetimeIndex, Floats]:
    """Return stamps (T,) and log returns (T, N) from close to close of aligned bars.

    Raises:
        DataError: if there is no asset, stamps differ, or bars break their contract.
        TooFewBarsError: below 2 bars.
    """
    if not bars_by_asset:
        raise DataError("expected bars of at least one asset, found none")
    frames = {name: validate_bars(bars) for name, bars in bars_by_asset.items()}
    first, *others = frames
    stamps = frames[first].index
    for name in others:
        odd = stamps.symmetric_difference(frames[name].index)
        if len(odd):
            raise DataError(
                f"expected bars of equal stamps, found {len(odd)} in only one of {first} and "
                f"{name}, first {odd[0]}; fill gaps (glow_bt.ohlcv.fill_gaps) or keep the bars "
                "that all assets have"
            )
    if len(stamps) < 2:
        raise TooFewBarsError(2, len(stamps), "a joint return")
    closes = np.column_stack([bars["close"].to_numpy() for bars in frames.values()])
    return pd.DatetimeIndex(stamps[1:]), np.diff(np.log(closes), axis=0)


def _refuse_standstill(returns: Floats, assets: tuple[str, ...]) -> None:
    still = np.flatnonzero(~returns[:WARM_UP].any(axis=0))
    if still.size:
        raise DataError(
            f"expected prices that move in the first {WARM_UP} bars, found {assets[still[0]]} "
            "constant; leave it out, or start later"
        )


def _ewma(values: Floats, decay: float) -> Floats:
    """Return (T + 1, ...): averages before each row and after the last.

    They start, at row 0, from the mean of the first 50 rows: states before row 50 know them.
    """
    averages = np.empty((len(values) + 1, *values.shape[1:]))
    averages[0] = values[:WARM_UP].mean(axis=0)
    for t, value in enumerate(values):
        averages[t + 1] = decay * averages[t] + (1 - decay) * value
    return averages


def _correlations(moves: Floats, settings: StateSettings) -> Floats:
    """Return (T + 1, N, N) correlations before each row, shrunk towards their average."""
    size = np.sqrt(np.square(moves).mean(axis=1, keepdims=True))
    held = moves / np.maximum(size / _LARGEST_MOVE, 1.0)
    joint = _ewma(held[:, :, None] * held[:, None, :], settings.correlation_decay)
    spread = np.sqrt(np.diagonal(joint, axis1=1, axis2=2))
    spread = np.maximum(spread, 1e-12)  # of an asset that has long stood still
    correlation = joint / (spread[:, :, None] * spread[:, None, :])
    average = _average_correlation(correlation)[:, None, None]
    shrunk = (1 - settings.shrinkage) * correlation + settings.shrinkage * average
    # What is left off 1 keeps the root well away from singular.
    shrunk *= _LARGEST_CORRELATION
    diagonal = np.arange(moves.shape[1])
    shrunk[:, diagonal, diagonal] = 1.0
    return cast("Floats", shrunk)


def _average_correlation(correlation: Floats) -> Floats:
    width = correlation.shape[1]
    if width == 1:
        return np.zeros(len(correlation))
    whole = correlation.sum(axis=(1, 2)) - np.trace(correlation, axis1=1, axis2=2)
    average: Floats = whole / (width * (width - 1))
    return average


def _context(
    fast: Floats, middle: Floats, correlation: Floats, moves: Floats, *, asset_context: bool
) -> Floats:
    """Return (T + 1, 4), or (T + 1, 4 + 2 N) with each asset's own ratios.

    Args:
        fast: (T + 1, N) fast volatility over the slow one.
        middle: (T + 1, N) middle volatility over the slow one.
        correlation: (T + 1, N, N).
        moves: (T, N) standardised returns.
        asset_context: whether each asset's own ratios join.
    """
    lasting = np.log(np.maximum(middle, _LEAST_SHARE))
    quick = np.log(fast) - lasting
    last_move = np.concatenate([[0.0], moves.mean(axis=1)])
    columns = [
        quick.mean(axis=1),
        lasting.mean(axis=1),
        np.arctanh(np.clip(_average_correlation(correlation), -0.99, 0.99)),
        np.arcsinh(last_move),
    ]
    if asset_context:
        columns += [*(quick - quick.mean(axis=1, keepdims=True)).T]
        columns += [*(lasting - lasting.mean(axis=1, keepdims=True)).T]
    return np.column_stack(columns)
