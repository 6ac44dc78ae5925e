"""Bars for Cerebro, from a frame or a file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, ClassVar

from glow_bt.bt.feed import ArrayFeed
from glow_bt.ohlcv import read_bars

__all__ = ["BybitData"]


class BybitData(ArrayFeed):
    """Bars of a frame or of a CSV or Parquet file as a Backtrader feed.

    Example::

        cerebro.adddata(BybitData(dataname="btcusdt-1h.parquet", fromdate=datetime(2024, 1, 1)))

    Timeframe and compression are those of the bars unless given, so that analyzers count in the
    right unit. Stamps are bar opens in UTC, and Backtrader shows them as naive UTC; with
    ``tz="America/New_York"`` (any name that pytz knows) it shows that zone's time, and naive
    ``fromdate`` and ``todate`` are read in it. Both dates are included.

    Backtrader's resampler takes a stamp for the end of a bar. Hourly bars stamped at their open
    need ``boundoff=60``, m-minute bars ``boundoff=m``, to fall into the right bar, which is then
    delivered as soon as it is complete::

        cerebro.resampledata(data, timeframe=bt.TimeFrame.Minutes, compression=240, boundoff=60)

    Days, weeks and months resampled from intraday bars need no ``boundoff``; they are right and
    delivered one bar late.

    Lines beside the usual ones: ``funding_rate`` and ``open_interest``, NaN where the bars have
    none. Backtrader's own line ``openinterest`` holds 0 there.

    Args:
        dataname: the bars: a DataFrame in the contract of `glow_bt.ohlcv`, or a file of them.

    Raises:
        ConfigError: if ``dataname`` is neither.
        DataError: if the bars break the contract or the file cannot be read.
    """

    lines: ClassVar[Any] = ("open_interest",)

    def __init__(self, *args: object, **kwargs: object) -> None:
        source = self.p.dataname
        if isinstance(source, str | os.PathLike):
            self.p.dataname = read_bars(source)
            self.p.name = self.p.name or Path(source).name.split(".")[0]
        super().__init__(*args, **kwargs)
        self._has_open_interest = "open_interest" in self.p.dataname.columns
        self._open_interest = self.l.open_interest
        self._openinterest = self.l.openinterest

    def _load(self) -> bool:
        if not super()._load():
            return False
        value = self._openinterest[0] if self._has_open_interest else math.nan
        self._open_interest[0] = value
        return True
