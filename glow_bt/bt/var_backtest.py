"""How the VaR and the expected shortfall of a run turned out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
import pandas as pd

from glow_bt.bt.analyzers import BarRecorder
from glow_bt.bt.indicator import find_indicator
from glow_bt.errors import ConfigError
from glow_bt.ohlcv import utc_stamp
from glow_bt.risk import violations
from glow_bt.risk.report import assess_tail

__all__ = ["VaRBacktest"]


class VaRBacktest(BarRecorder):
    """Compares each bar's VaR and CVaR with the log return that followed, on one data feed.

    Analysis: level; bars (forecasts that came due), violations (returns below VaR), expected and
    rate; kupiec_pvalue (is the rate right?) and christoffersen_pvalue (do violations come
    alone?). Then the same and every other test as "overall", and as "folds", one a model of a
    walk-forward schedule (one in all without a schedule): from (where its model begins, without a
    schedule the first forecast), until (the last forecast), bars, and the cells of
    `glow_bt.risk.report.TailReport`. What too few bars or a shortfall that is none leave open is
    NaN (traffic_light: None) and told in "untested": by cell the reason, such as how many bars
    the test needs.

    Forecasts over h bars are compared with the return of h bars, and tested every h bars, so that
    no two of the returns overlap. Bars without a forecast are left out.

    Args:
        data: the feed: its number in the strategy, its name, or itself.
        seed: of the tests that resample or simulate.

    Raises:
        ConfigError: if there is no such feed, or no GlowIndicator on it.
    """

    columns = ("close", "var", "cvar")
    params: ClassVar[Any] = (("data", 0), ("seed", 0))

    def create_analysis(self) -> None:
        """Start with no rows."""
        super().create_analysis()
        self._analysis: Mapping[str, Any] | None = None

    def start(self) -> None:
        """Find the lines ``var`` and ``cvar``, their level and horizon, and the schedule."""
        self.data = _feed(self.strategy, self.p.data)
        indicator = find_indicator(self.strategy, self.data)
        if indicator is None:
            first = self.data is self.strategy.datas[0]
            raise ConfigError(
                "expected a GlowIndicator on the strategy's "
                f"{'first data' if first else f'data {self.data._name!r}'}, found none; "
                "create one in the strategy's __init__"
            )
        self._lines: tuple[bt.LineBuffer, ...] = (indicator.lines.var, indicator.lines.cvar)
        self._level = indicator.var_level
        self._horizon = indicator.horizon
        self._starts = [utc_stamp(stamp) for stamp in getattr(indicator.scorer, "starts", ())]

    def row(self) -> tuple[float, ...]:
        """Return close, VaR and CVaR."""
        return (self.data.close[0], *(line[0] for line in self._lines))

    def next(self) -> None:
        """Record the current bar."""
        super().next()
        self._analysis = None

    def stop(self) -> None:
        """Let go of lines and feed, so that optimisation can send the analyzer on."""
        self._lines = ()
        self.p.data = None

    def frame(self) -> pd.DataFrame:
        """Return the records: index ``timestamp`` (UTC, bar open), one float column each.

        Columns: close, var, cvar; next_return, the log return over the bars that the forecast is
        for; violation, 1 where it fell below VaR and 0 where not. The last two are NaN where no
        forecast came due.
        """
        records = super().frame()
        log_close = np.log(records["close"].where(records["close"] > 0.0))
        records["next_return"] = log_close.shift(-self._horizon) - log_close
        due = np.isfinite(records[["var", "next_return"]].to_numpy()).all(axis=1)
        records["violation"] = math.nan
        if due.any():
            known = records.loc[due]
            records.loc[due, "violation"] = violations(
                known["next_return"], known["var"], self._level
            ).astype(np.float64)
        return records

    def violations(self) -> pd.Series[bool]:
        """Return, for each bar whose forecast is tested, whether the return fell below it."""
        return self._tested()["violation"] == 1.0

    def get_analysis(self) -> Mapping[str, Any]:
        """Return counts, and the tests overall and of each fold."""
        if self._analysis is None:
            self._analysis = self._assess()
        return self._analysis

    def _tested(self) -> pd.DataFrame:
        """Return the bars whose forecasts came due, those that overlap left out."""
        records = self.frame()
        due = records["violation"].notna().to_numpy()
        first = int(due.argmax()) if due.any() else 0
        apart = (np.arange(len(records)) - first) % self._horizon == 0
        tested: pd.DataFrame = records.loc[due & apart]
        return tested

    def _assess(self) -> Mapping[str, Any]:
        tested = self._tested()
        overall = self._cells(tested)
        counts = {name: overall[name] for name in ("bars", "violations", "expected", "rate")}
        return {
            "level": self._level,
            **counts,
            "kupiec_pvalue": overall["kupiec_p"],
            "christoffersen_pvalue": overall["christoffersen_p"],
            "overall": overall,
            "folds": self._folds(tested),
        }

    def _folds(self, tested: pd.DataFrame) -> list[dict[str, Any]]:
        stamps = tested.index
        starts = self._starts or list(stamps[:1])
        number = np.zeros(len(stamps), dtype=np.intp)
        if self._starts:
            number = pd.DatetimeIndex(starts).searchsorted(stamps, side="right") - 1
        folds = []
        for i, start in enumerate(starts or [None]):
            own = tested.loc[np.maximum(number, 0) == i]
            until = own.index[-1] if len(own) else None
            folds.append({"from": start, "until": until, **self._cells(own)})
        return folds

    def _cells(self, tested: pd.DataFrame) -> dict[str, Any]:
        tail = assess_tail(
            tested["next_return"], tested["var"], tested["cvar"], self._level, seed=self.p.seed
        )
        cells = {
            name: math.nan if cell is None and name != "traffic_light" else cell
            for name, cell in (tail.quantile | tail.shortfall).items()
        }
        untested = {name: str(error) for name, error in tail.refused.items()}
        return {"bars": len(tested), **cells, "untested": untested}


def _feed(strategy: bt.Strategy, wanted: object) -> bt.AbstractDataBase:
    for number, data in enumerate(strategy.datas):
        named = isinstance(wanted, str) and data._name == wanted
        if data is wanted or named or (isinstance(wanted, int) and number == wanted):
            return data
    raise ConfigError(
        f"expected data as one of the strategy's {len(strategy.datas)} feeds, by number from 0, "
        f"by name or itself, found {wanted!r}; leave it out for the first"
    )
