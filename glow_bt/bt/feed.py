"""Bars of a frame as a Backtrader feed, without pandas in the loop."""

from __future__ import annotations

from array import array
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
import pandas as pd

from glow_bt.bt.parameters import refuse_unknown
from glow_bt.bt.stamps import from_index
from glow_bt.errors import ConfigError
from glow_bt.ohlcv import BAR_COLUMNS, bar_interval, validate_bars

__all__ = ["ArrayFeed"]

_TIMEFRAMES = (
    (pd.Timedelta(days=7), bt.TimeFrame.Weeks),
    (pd.Timedelta(days=1), bt.TimeFrame.Days),
    (pd.Timedelta(minutes=1), bt.TimeFrame.Minutes),
    (pd.Timedelta(seconds=1), bt.TimeFrame.Seconds),
)


class ArrayFeed(bt.feed.DataBase):
    """A feed over a frame of bars (`glow_bt.ohlcv`), read from a float array.

    Stamps are bar opens in UTC. Timeframe and compression are taken from the bars unless given.
    To resample intraday bars add ``boundoff=<minutes of a bar>``: Backtrader takes a stamp for
    the bar's end.

    Lines beside the usual ones: ``funding_rate``, NaN where the bars have none. Open interest is
    Backtrader's own line ``openinterest``, 0 where the bars have none.

    Args:
        dataname: the bars, a DataFrame.

    Raises:
        ConfigError: if ``dataname`` is not a frame.
        DataError: if the bars break the contract.
    """

    lines: ClassVar[Any] = ("funding_rate",)
    params: ClassVar[Any] = (("timeframe", None), ("compression", None))

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse_unknown(self, args, kwargs)
        super().__init__()
        if not isinstance(self.p.dataname, pd.DataFrame):
            raise ConfigError(
                f"expected dataname=<frame of bars>, found {type(self.p.dataname).__name__}; "
                "read files with glow_bt.ohlcv.read_bars"
            )
        bars = validate_bars(self.p.dataname)
        timeframe, compression = _timeframe_of(bars)
        self.p.timeframe = self.p.timeframe or timeframe
        self.p.compression = self.p.compression or compression
        columns = _columns_of(bars)
        self._columns = [(getattr(self.lines, name), values) for name, values in columns.items()]
        self._count = len(bars)
        self._next_row = 0

    def start(self) -> None:
        """Rewind, so that one feed serves several runs."""
        super().start()
        self._next_row = 0

    def _load(self) -> bool:
        row = self._next_row
        if row == self._count:
            return False
        for line, values in self._columns:
            line[0] = values[row]
        self._next_row = row + 1
        return True


def _columns_of(bars: pd.DataFrame) -> dict[str, array[float]]:
    """Return the values of each line, 8 bytes a bar; a line without any stays NaN by itself."""
    columns = {"datetime": from_index(pd.DatetimeIndex(bars.index))}
    columns |= {name: bars[name].to_numpy(np.float64) for name in BAR_COLUMNS}
    interest = bars.get("open_interest")
    columns["openinterest"] = np.zeros(len(bars)) if interest is None else interest.to_numpy()
    if "funding_rate" in bars:
        columns["funding_rate"] = bars["funding_rate"].to_numpy()
    # Python's arrays hand out a float faster than numpy's.
    return {
        name: array("d", np.ascontiguousarray(values, np.float64).tobytes())
        for name, values in columns.items()
    }


def _timeframe_of(bars: pd.DataFrame) -> tuple[int, int]:
    """Backtrader's name for the distance between bars; days where there is one bar only."""
    if len(bars) < 2:
        return bt.TimeFrame.Days, 1
    interval = bar_interval(bars)
    for unit, timeframe in _TIMEFRAMES:
        if interval % unit == pd.Timedelta(0):
            return timeframe, interval // unit
    raise ConfigError(f"expected bars of whole seconds, found one every {interval}")
