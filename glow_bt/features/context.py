"""What the return flow is told of a bar: how volatile the market has been, over which spans.

Row t is made of bars t - window .. t alone (and of when bar t + 1 opens). Means are exponentially
weighted over the last `window` returns, with weights that sum to 1:

    ewma(x, H)_t = sum_(i < window) w_i x_(t-i),  w_i proportional to 2^(-i/H)

so that a row does not depend on where a history begins. Squares are of log returns of closes,
ranges of the true range (the last close included) as in Parkinson 1980 (Journal of Business
53(1)): ln(high / low)^2 / (4 ln 2). That logarithms of volatilities over several spans foretell
the next one nearly linearly is Corsi 2009 (Journal of Financial Econometrics 7(2)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ConfigError, FeatureError, TooFewBarsError
from glow_bt.features.bars import as_columns
from glow_bt.features.windows import FloatArray
from glow_bt.ohlcv import BAR_COLUMNS

__all__ = ["ContextRows", "ContextSpec", "context_rows"]

Stamps = npt.NDArray[np.int64]

_VERSION = 1
_DAY_NS = 86_400 * 10**9
_WEEK_NS = 7 * _DAY_NS
_MONDAY_NS = 4 * _DAY_NS  # 1970-01-05
# Shorter bars than this share of a day know an hour.
_INTRADAY = 0.9
_HARMONICS = 3
_PARKINSON = 1.0 / (4.0 * math.log(2.0))
# Signed returns over volatility are bent towards this many volatilities.
_BEND = 3.0
_WEEKEND = 5 / 7
# Windows that are multiplied at a time: what stays in the cache of one core.
_BLOCK_ROWS = 1024
_FEW_ROWS = 8


@dataclass(frozen=True)
class ContextSpec:
    """Which numbers make a context, and over which spans, in bars.

    Attributes:
        window: returns that a row depends on.
        half_lives: of the variances.
        range_half_lives: of the range variances.
        downside_half_life: of the share that falls have in the variance.
        return_half_lives: of the mean returns.
        volume_half_lives: of the volumes.
        reference_half_life: of the variance that all others, and the returns, are compared with.
        variance_margin: share of the window's variance that is added to every variance, so that
            logarithms stay finite when a market stands still.
        volume_margin: the same for volumes.
        least_volatility: floor of the reference volatility, a log return.
        volume: whether volumes take part.
        calendar: whether hour and weekday of the next bar's open take part.
        funding: whether the funding rate takes part.

    Raises:
        ConfigError: on a window or half-life below 1, or a margin or floor that is not above 0.
    """

    window: int = 120
    half_lives: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 40.0)
    range_half_lives: tuple[float, ...] = (1.0, 2.0, 4.0, 12.0, 40.0)
    downside_half_life: float = 10.0
    return_half_lives: tuple[float, ...] = (1.0, 2.0, 5.0, 20.0)
    volume_half_lives: tuple[float, ...] = (5.0, 20.0)
    reference_half_life: float = 20.0
    variance_margin: float = 0.0025
    volume_margin: float = 0.05
    least_volatility: float = 1e-6
    volume: bool = True
    calendar: bool = False
    funding: bool = False

    def __post_init__(self) -> None:
        for name in ("half_lives", "range_half_lives", "return_half_lives", "volume_half_lives"):
            given = getattr(self, name)
            spans = tuple(float(span) if _is_number(span) else span for span in given)
            object.__setattr__(self, name, spans)
        spans = (
            self.downside_half_life,
            self.reference_half_life,
            *self.half_lives,
            *self.range_half_lives,
            *self.return_half_lives,
            *self.volume_half_lives,
        )
        whole = type(self.window) is int and self.window >= 1
        if not whole or not all(_is_number(span) and span >= 1 for span in spans):
            raise ConfigError(
                "expected a window (a whole number) and half-lives of at least 1 bar, found "
                f"{self.window!r} and {spans}"
            )
        positive = (self.variance_margin, self.volume_margin, self.least_volatility)
        if not all(_is_number(value) and value > 0 for value in positive):
            raise ConfigError(f"expected margins and a floor above 0, found {positive}")

    @classmethod
    def of(cls, bars: pd.DataFrame, bar_seconds: float) -> ContextSpec:
        """Return the spec for bars: what does not vary in them takes no part.

        Args:
            bars: those that a model may be trained on.
            bar_seconds: their interval.
        """
        funding = bars.get("funding_rate")
        return cls(
            volume=bool(bars["volume"].nunique() > 1),
            calendar=bar_seconds * 1e9 < _INTRADAY * _DAY_NS,
            funding=funding is not None and bool(funding.nunique() > 1),
        )

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included."""
        return self.window + 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the bars that are read, in order."""
        return (*BAR_COLUMNS, "funding_rate") if self.funding else BAR_COLUMNS

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers, in order."""
        names = [f"variance_{span:g}" for span in self.half_lives]
        names += [f"range_{span:g}" for span in self.range_half_lives]
        names += [f"downside_{self.downside_half_life:g}"]
        names += [f"return_{span:g}" for span in self.return_half_lives]
        names += ["return_last", "fall_last", "variance_last"]
        if self.volume:
            names += ["volume_last", *(f"volume_{span:g}" for span in self.volume_half_lives)]
        if self.calendar:
            for part in ("day", "week"):
                for k in range(1, _HARMONICS + 1):
                    names += [f"{part}_sin_{k}", f"{part}_cos_{k}"]
            names += ["weekend"]
        if self.funding:
            names += ["funding_rate"]
        return tuple(names)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings and names as JSON values."""
        return {"version": _VERSION, "names": list(self.names)} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> ContextSpec:
        """Rebuild a spec from `to_dict`.

        Raises:
            ConfigError: if the settings are incomplete, or from another version of the formulas.
        """
        wanted = {"version", "names", *(field.name for field in fields(cls))}
        if set(settings) != wanted:
            raise ConfigError(
                f"expected a context of {sorted(wanted)}, found {sorted(settings)}; "
                "it was written by another version of glow_bt: train again with this one"
            )
        spec = cls(**{name: settings[name] for name in wanted - {"version", "names"}})
        if settings["version"] != _VERSION or tuple(settings["names"]) != spec.names:
            raise ConfigError(
                f"expected a context of version {_VERSION} {list(spec.names)}, found version "
                f"{settings['version']} {settings['names']}; train again with this glow_bt"
            )
        return spec


class ContextRows(NamedTuple):
    """Contexts of N bars.

    Attributes:
        values: (N, C) in the order of `ContextSpec.names`.
        volatility: (N,) reference volatility of one bar's log return.
    """

    values: FloatArray
    volatility: FloatArray

    def rows(self, rows: slice) -> ContextRows:
        """Return some of the rows."""
        return ContextRows(self.values[rows], self.volatility[rows])


def context_rows(
    bars: FloatArray, stamps_ns: Stamps, bar_seconds: float, spec: ContextSpec
) -> ContextRows:
    """Compute the context of every bar that has a full window.

    Args:
        bars: (T, 5) or (T, 6) in the order of `spec.columns`, T at least `spec.min_bars`.
        stamps_ns: (T,) bar opens.
        bar_seconds: interval of the bars.
        spec: which numbers.

    Returns:
        Rows of bars min_bars - 1 .. T - 1.

    Raises:
        TooFewBarsError: if no bar has a full window.
        FeatureError: if the shape is another, a bar breaks the contract, or a funding rate is
            not finite.
    """
    if len(bars) < spec.min_bars:
        raise TooFewBarsError(spec.min_bars, len(bars), "the context of a bar's next return")
    if bars.ndim != 2 or bars.shape[1] != len(spec.columns):
        raise FeatureError(
            f"expected bars of shape (N, {len(spec.columns)}) in the order "
            f"{', '.join(spec.columns)}, found shape {bars.shape}"
        )
    _, high, low, close, volume = as_columns(bars[:, : len(BAR_COLUMNS)])
    returns = np.log(close[1:] / close[:-1])
    square = returns * returns
    margin = spec.variance_margin * _ewma(square, [spec.window / 4], spec)[:, 0]
    margin += spec.least_volatility**2
    reference = _ewma(square, [spec.reference_half_life], spec)[:, 0] + margin
    volatility = np.sqrt(reference)
    now = slice(spec.window - 1, None)
    scaled = returns[now] / volatility

    true_high, true_low = np.maximum(high[1:], close[:-1]), np.minimum(low[1:], close[:-1])
    ranges = _PARKINSON * np.log(true_high / true_low) ** 2
    variances = _ewma(square, spec.half_lives, spec)
    falls = _ewma(np.where(returns < 0, square, 0.0), [spec.downside_half_life], spec)[:, 0]
    around = _ewma(square, [spec.downside_half_life], spec)[:, 0]
    spans = np.sqrt(2 * np.asarray(spec.return_half_lives))
    means = _ewma(returns, spec.return_half_lives, spec) * spans / volatility[:, None]
    columns = [
        *np.log((variances + margin[:, None]) / reference[:, None]).T,
        *np.log((_ewma(ranges, spec.range_half_lives, spec).T + margin) / reference),
        (2 * falls - around) / (around + margin),
        *_bent(means).T,
        _bent(scaled),
        np.sqrt(np.maximum(-_bent(scaled), 0.0)),
        np.log((square[now] + margin) / reference),
    ]
    if spec.volume:
        columns += _volumes(volume[1:], spec)
    if spec.calendar:
        opens = stamps_ns[spec.window :] + round(bar_seconds * 1e9)
        columns += _calendar(opens)
    if spec.funding:
        columns.append(_funding(bars[spec.window :, -1]))
    # For one row a fraction of what column_stack takes.
    return ContextRows(np.ascontiguousarray(np.array(columns).T), volatility)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _ewma(
    values: FloatArray, half_lives: list[float] | tuple[float, ...], spec: ContextSpec
) -> FloatArray:
    """Return (N, K) weighted means of the last `window` of values (T,), one a half-life."""
    weights = _weights(spec.window, tuple(half_lives))
    count = len(values) - spec.window + 1
    if count == 1:
        return values[None] @ weights
    if count <= _FEW_ROWS:  # a view costs more than a copy of so few
        return np.array([values[i : i + spec.window] for i in range(count)]) @ weights
    windows = np.lib.stride_tricks.sliding_window_view(values, spec.window)
    starts = range(0, len(windows), _BLOCK_ROWS)
    return np.concatenate([windows[i : i + _BLOCK_ROWS] @ weights for i in starts])


@lru_cache(maxsize=64)
def _weights(window: int, half_lives: tuple[float, ...]) -> FloatArray:
    """Return (window, K) weights of the oldest to the latest value, one column a half-life."""
    ages = np.arange(window)[::-1, None]
    weights: FloatArray = 0.5 ** (ages / np.asarray(half_lives))
    weights /= weights.sum(axis=0)
    weights.flags.writeable = False
    return weights


def _bent(values: FloatArray) -> FloatArray:
    bent: FloatArray = _BEND * np.tanh(values / _BEND)
    return bent


def _volumes(volume: FloatArray, spec: ContextSpec) -> list[FloatArray]:
    """Return logarithms of the last volume and of its means, over that of the window."""
    long = _ewma(volume, [spec.window / 4], spec)[:, 0]
    # Without any volume in the window every ratio is 1.
    margin = spec.volume_margin * long + (long == 0.0)
    recent = [volume[spec.window - 1 :], *_ewma(volume, spec.volume_half_lives, spec).T]
    return [np.log((own + margin) / (long + margin)) for own in recent]


def _calendar(opens_ns: Stamps) -> list[FloatArray]:
    """Return harmonics of the hour and of the weekday of bar opens, and whether it is weekend."""
    day = (opens_ns % _DAY_NS) / _DAY_NS
    week = ((opens_ns - _MONDAY_NS) % _WEEK_NS) / _WEEK_NS
    columns = []
    for share in (day, week):
        for k in range(1, _HARMONICS + 1):
            columns += [np.sin(2 * np.pi * k * share), np.cos(2 * np.pi * k * share)]
    return [*columns, np.where(week >= _WEEKEND, 1.0, 0.0)]


def _funding(rate: FloatArray) -> FloatArray:
    if not np.isfinite(rate).all():
        raise FeatureError(
            f"expected a funding rate for every bar, found {int((~np.isfinite(rate)).sum())} that "
            "are not finite; fill them with the last known one, or train without the column"
        )
    return rate
