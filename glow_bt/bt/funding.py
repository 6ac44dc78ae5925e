"""Funding rates by stamp, as a commission scheme asks for them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from glow_bt.errors import DataError
from glow_bt.joining import stamped_values

__all__ = ["FundingRates", "FundingSchedule"]


@runtime_checkable
class FundingRates(Protocol):
    """Who knows the rate at every stamp that has passed."""

    def rates_between(self, before_ns: int, now_ns: int) -> list[float]:
        """Return the rates of the stamps after `before_ns` up to `now_ns`, in epoch nanoseconds.

        Asked once a bar while a position is open.
        """
        ...


class FundingSchedule:
    """Rates of a Series, or of a frame with a column ``funding_rate``.

    Args:
        rates: by stamp in UTC, at any intervals (`glow_bt.joining.stamped_values`).

    Raises:
        ConfigError: if they are neither.
        DataError: if the stamps are not in order, or a rate is no fraction.
    """

    def __init__(self, rates: pd.DataFrame | pd.Series[float]) -> None:
        series = stamped_values(rates, "funding_rate")
        wrong = series[series.abs() >= 1.0]
        if len(wrong):
            raise DataError(
                f"expected funding rates as fractions, found {wrong.iloc[0]} at {wrong.index[0]}; "
                "0.0001 is one basis point"
            )
        self._stamps = pd.DatetimeIndex(series.index).asi8
        self._rates: list[float] = series.tolist()

    def rates_between(self, before_ns: int, now_ns: int) -> list[float]:
        """Return the rates of the stamps after `before_ns` up to `now_ns`."""
        first, last = np.searchsorted(self._stamps, [before_ns, now_ns], side="right").tolist()
        return self._rates[first:last]
