"""The market state of a whole history at once.

Row t of every result is made of bars t - min_bars + 1 .. t alone and does not depend, to the
bit, on how many bars stand before or after them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from glow_bt.errors import FeatureError, TooFewBarsError
from glow_bt.features.bars import as_columns
from glow_bt.features.spec import DEFAULT_SPEC, FEATURES, FeatureSpec
from glow_bt.features.windows import (
    FloatArray,
    WindowStatistics,
    nested_means,
    rolling_max,
    rolling_min,
    rolling_sum,
)
from glow_bt.ohlcv import BAR_COLUMNS

__all__ = ["compute_features", "feature_array", "volatility_array"]


def compute_features(bars: pd.DataFrame, spec: FeatureSpec | None = None) -> pd.DataFrame:
    """Compute the market state of every bar.

    Args:
        bars: N bars in the form of `glow_bt.ohlcv`.
        spec: windows and paddings; default `DEFAULT_SPEC`.

    Returns:
        (N, 16) frame on the index of `bars`, columns `spec.names`. The first
        ``spec.min_bars - 1`` rows are NaN, all others finite.

    Raises:
        TooFewBarsError: if there is no bar with a full state.
        FeatureError: if a column is missing or a bar breaks the contract.
    """
    spec = DEFAULT_SPEC if spec is None else spec
    missing = [name for name in BAR_COLUMNS if name not in bars.columns]
    if missing:
        raise FeatureError(
            f"expected columns {', '.join(BAR_COLUMNS)}, found no {', '.join(missing)}; "
            "bring the bars into form with glow_bt.ohlcv.validate_bars"
        )
    if len(bars) < spec.min_bars:
        raise TooFewBarsError(spec.min_bars, len(bars), "the first market state")
    values = bars[list(BAR_COLUMNS)].to_numpy(dtype=np.float64)
    return pd.DataFrame(feature_array(values, spec), index=bars.index, columns=list(spec.names))


def feature_array(bars: FloatArray, spec: FeatureSpec = DEFAULT_SPEC) -> FloatArray:
    """Compute the market state of every bar of an array.

    Args:
        bars: (N, 5) open, high, low, close, volume.
        spec: windows and paddings.

    Returns:
        (N, 16) in the order of `spec.names`; the first ``spec.min_bars - 1`` rows are NaN.

    Raises:
        FeatureError: if the shape is another, or a bar breaks the contract.
    """
    columns = as_columns(bars)
    first = spec.min_bars - 1
    state = np.full((columns.shape[1], len(FEATURES)), np.nan)
    if columns.shape[1] > first:
        statistics = _window_statistics(columns, spec)
        for column, feature in enumerate(FEATURES):
            state[first:, column] = feature.value(statistics, spec)
    return state


def volatility_array(close: FloatArray, spec: FeatureSpec = DEFAULT_SPEC) -> FloatArray:
    """Root mean square of the last `spec.long` log returns, the current one included.

    Args:
        close: (N,) closes.
        spec: window and `sigma_floor`, below which the result does not fall.

    Returns:
        (N,) volatility a bar; the first `spec.long` rows are NaN.

    Raises:
        FeatureError: if `close` is not one series of finite positive numbers.
    """
    series = np.asarray(close, dtype=np.float64)
    if series.ndim != 1 or not np.all((series > 0.0) & (series < np.inf)):
        raise FeatureError(
            "expected closes of shape (N,), finite and above 0, found shape "
            f"{series.shape} with values that are not; correct or remove such bars"
        )
    volatility = np.full(len(series), np.nan)
    if len(series) > spec.long:
        returns = np.log(series[1:] / series[:-1])
        volatility[spec.long :] = _floored_root(rolling_sum(returns * returns, spec.long), spec)
    return volatility


def _floored_root(square_sum: FloatArray, spec: FeatureSpec) -> FloatArray:
    return np.maximum(np.sqrt(square_sum / spec.long), spec.sigma_floor)


def _window_statistics(columns: FloatArray, spec: FeatureSpec) -> WindowStatistics[FloatArray]:
    """Fill the statistics of bars min_bars - 1 .. N - 1 from columns (5, N)."""
    _, high, low, close, volume = columns
    short, medium, long = spec.windows
    count = columns.shape[1] - spec.min_bars + 1
    log_close = np.log(close)
    returns = np.log(close[1:] / close[:-1])
    square = returns * returns
    range_square = np.log(high / low) ** 2
    rises = np.where(returns > 0.0, square, 0.0)
    falls = np.where(returns < 0.0, square, 0.0)
    signed = np.sign(returns) * volume[1:]

    # What is summed over the same windows goes through them together.
    up, down, volume_signed, log_close_sum = _sums(
        np.stack([rises, falls, signed, log_close[1:]]), medium, count
    )
    before = np.stack([range_square, volume])
    range_before, volume_before = _sums(before, medium - 1, count, lag=1)
    blocks = np.stack([square, volume[1:]])
    newest = _sums(blocks, short, count)
    middle = _sums(blocks, medium - short, count, lag=short)
    oldest = _sums(blocks, long - medium, count, lag=medium)
    now = slice(-count, None)
    return WindowStatistics(
        sigma=_floored_root(_sums(square, long, count, lag=1), spec),
        return_1=returns[now],
        return_short=_moves(close, short, count),
        return_medium=_moves(close, medium, count),
        return_long=_moves(close, long, count),
        trend=log_close[now] - log_close_sum / medium,
        squares=nested_means((newest[0], middle[0], oldest[0]), spec.windows),
        square_up=up / medium,
        square_down=down / medium,
        range_square=range_square[now],
        range_before=range_before / (medium - 1),
        range_medium=(range_before + range_square[now]) / medium,
        volume=volume[now],
        volume_before=volume_before / (medium - 1),
        volumes=nested_means((newest[1], middle[1], oldest[1]), spec.windows),
        volume_signed=volume_signed / medium,
        close=close[now],
        low=low[now],
        high=high[now],
        low_medium=rolling_min(_ending(low, medium, count), medium),
        high_medium=rolling_max(_ending(high, medium, count), medium),
    )


def _ending(values: FloatArray, window: int, count: int, lag: int = 0) -> FloatArray:
    """Cut out what the last `count` windows cover, the newest of them ending `lag` bars ago."""
    stop = values.shape[-1] - lag
    return values[..., stop - count - window + 1 : stop]


def _sums(values: FloatArray, window: int, count: int, lag: int = 0) -> FloatArray:
    return rolling_sum(_ending(values, window, count, lag), window)


def _moves(close: FloatArray, window: int, count: int) -> FloatArray:
    return np.log(_ending(close, 1, count) / _ending(close, 1, count, lag=window))
