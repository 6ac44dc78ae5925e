"""Time as Bybit counts it: stamps in milliseconds, timeframes, and windows of bars.

Everything here is arithmetic on whole numbers; nothing asks a clock or a server.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from datafeeds.series import ceil_ms, floor_ms
from glow_bt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "TIMEFRAMES",
    "Stamp",
    "Timeframe",
    "as_utc",
    "timeframe_of",
    "to_epoch_ms",
    "windows",
]

Stamp = str | int | dt.datetime
"""A moment: ISO 8601 text, epoch milliseconds, or a datetime; read as UTC where it is naive."""

_MINUTE_MS = 60_000
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True)
class Timeframe:
    """A fixed bar length.

    Attributes:
        name: ccxt's notation, such as ``1h``.
        code: what Bybit calls it in ``interval``.
        step_ms: length of a bar in milliseconds.
        offset_ms: how far the grid of bar opens lies from the epoch's grid of that step.
    """

    name: str
    code: str
    step_ms: int
    offset_ms: int = 0

    def floor(self, stamp_ms: int) -> int:
        """Return the last bar open at or before a stamp."""
        return floor_ms(stamp_ms, self.step_ms, self.offset_ms)

    def ceil(self, stamp_ms: int) -> int:
        """Return the first bar open at or after a stamp."""
        return ceil_ms(stamp_ms, self.step_ms, self.offset_ms)


def _timeframe(name: str, code: str, minutes: int, offset_days: int = 0) -> Timeframe:
    return Timeframe(name, code, minutes * _MINUTE_MS, offset_days * _DAY_MINUTES * _MINUTE_MS)


# Bybit's calendar month ("M") is left out: its bars differ in length, and everything that
# reads bars (gaps, periods a year, alignment) counts in bars of one length.
TIMEFRAMES: dict[str, Timeframe] = {
    timeframe.name: timeframe
    for timeframe in (
        _timeframe("1m", "1", 1),
        _timeframe("3m", "3", 3),
        _timeframe("5m", "5", 5),
        _timeframe("15m", "15", 15),
        _timeframe("30m", "30", 30),
        _timeframe("1h", "60", 60),
        _timeframe("2h", "120", 120),
        _timeframe("4h", "240", 240),
        _timeframe("6h", "360", 360),
        _timeframe("12h", "720", 720),
        _timeframe("1d", "D", _DAY_MINUTES),
        # Weeks open on Mondays; the epoch was a Thursday.
        _timeframe("1w", "W", 7 * _DAY_MINUTES, offset_days=4),
    )
}
"""The timeframes that can be fetched, by ccxt's name."""


def timeframe_of(name: str) -> Timeframe:
    """Look a timeframe up by ccxt's name.

    Raises:
        ConfigError: naming the supported ones, if Bybit lacks it or its bars have no fixed length.
    """
    if name not in TIMEFRAMES:
        raise ConfigError(
            f"expected a timeframe among {', '.join(TIMEFRAMES)}, found {name!r}; "
            "fetch a supported one and resample it"
        )
    return TIMEFRAMES[name]


def as_utc(stamp: Stamp, name: str) -> pd.Timestamp:
    """Read a moment as a UTC timestamp.

    Args:
        stamp: the moment.
        name: what the caller calls it, for the message.

    Raises:
        ConfigError: if it is no moment.
    """
    try:
        if isinstance(stamp, bool | float):
            # pandas would take a float for nanoseconds, and so it does NumPy's whole numbers.
            raise TypeError(f"{type(stamp).__name__} is no moment")
        if isinstance(stamp, int | np.integer):
            moment = pd.Timestamp(int(stamp), unit="ms")
        else:
            moment = pd.Timestamp(stamp)
        if pd.isna(moment):
            raise ValueError("it is empty")
        return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"expected {name} as a date such as 2024-01-31 or 2024-01-31T12:00, found {stamp!r}"
        ) from error


def to_epoch_ms(moment: pd.Timestamp) -> int:
    """Return a moment as whole epoch milliseconds; of any year, unlike ``Timestamp.value``."""
    return int(moment.as_unit("ms").asm8.astype("int64"))


def windows(opens: range, limit: int) -> Iterator[range]:
    """Cut bar opens into consecutive windows of at most ``limit``, full but for the last."""
    for start in range(0, len(opens), limit):
        yield opens[start : start + limit]
