"""Records of a run: what the model said at each bar."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from glow_bt.bt.indicator import find_indicator
from glow_bt.bt.stamps import to_index
from glow_bt.policy import exposure_of
from glow_bt.scoring import SCORE_COLUMNS

__all__ = ["BarRecorder", "GlowRecorder"]

_NO_SCORES = (math.nan,) * len(SCORE_COLUMNS)


class BarRecorder(bt.Analyzer):
    """Keeps one row of numbers for each bar of ``data``, the first feed unless `start` sets it.

    Subclasses name the `columns` and read a `row`. While a bar is forming (replay, or a second
    and faster feed) its row is read again; the last reading stays.
    """

    columns: tuple[str, ...] = ()

    def create_analysis(self) -> None:
        """Start with no rows."""
        self._rows = array("d")  # one row after another: a tuple a bar would be four times it
        self._num_bars = 0

    def row(self) -> tuple[float, ...]:
        """Return the numbers of the current bar, one a column."""
        raise NotImplementedError

    def prenext(self) -> None:
        """Record nothing during the strategy's warm-up."""

    def next(self) -> None:
        """Record the current bar."""
        rows, num_bars = self._rows, len(self.data)
        if num_bars == self._num_bars:
            del rows[-1 - len(self.columns) :]
        self._num_bars = num_bars
        rows.append(self.data.datetime[0])
        rows.extend(self.row())

    def frame(self) -> pd.DataFrame:
        """Return the records: index ``timestamp`` (UTC, bar open), one float column each."""
        table = np.array(self._rows).reshape(-1, 1 + len(self.columns))
        return pd.DataFrame(table[:, 1:], index=to_index(table[:, 0]), columns=list(self.columns))

    def get_analysis(self) -> Mapping[str, Any]:
        """Return the records by column, ``timestamp`` first."""
        frame = self.frame()
        columns = {str(name): column.tolist() for name, column in frame.items()}
        return {"timestamp": list(frame.index), **columns}


class GlowRecorder(BarRecorder):
    """The states frame: price, account and the model's scores at every bar's close.

    Columns: close; exposure (signed value of the first data's position over equity); equity;
    then the lines of the strategy's `GlowIndicator` on the first data, NaN without one. Rows
    begin with the strategy's first ``next``.
    """

    columns = ("close", "exposure", "equity", *SCORE_COLUMNS)

    def start(self) -> None:
        """Find the model's lines."""
        indicator = find_indicator(self.strategy, self.data)
        self._lines = None if indicator is None else list(indicator.lines)

    def row(self) -> tuple[float, ...]:
        """Return close, exposure, equity and scores."""
        close = self.data.close[0]
        equity = self.strategy.broker.getvalue()
        exposure = exposure_of(self.strategy.getposition(self.data).size, close, equity)
        scores = _NO_SCORES if self._lines is None else [line[0] for line in self._lines]
        return (close, exposure, equity, *scores)

    def stop(self) -> None:
        """Let go of the lines, so that optimisation can send the analyzer between processes."""
        self._lines = None
